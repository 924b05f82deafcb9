"""How well a retriever finds the clips that answer a query.

Conventions
-----------
- The *truth* maps each query to the non-empty set of names of the clips that answer it. A *prediction* is either a
  `Similarity` (a score for every query and clip) or a `Ranking` (for every query its best clips, best first).
- **Ranks** count from 1. Of clips with equal scores the relevant ones are ranked last, so that a constant scorer gets
  the worst case and not the order of the files.
- **AP@k divides by the number of relevant clips**, whether or not they fit into k (DCASE 2025 task 6's rule; for one
  relevant clip the reciprocal rank, DCASE 2022's). R@k is the share of the relevant clips among the first k. Both lie
  in [0, 1] whatever the prediction holds.
- **Repeated and unknown names never help**: a name counts where it stands first; later ones, and names that are no clip
  of the split, take their places and count as wrong. A relevant clip that is not in the prediction is not found.
- **Every query of the truth must be there, once**: a missing or a repeated query is an error, not a zero or a merge.
  Queries beyond the truth's are left out, and said so.

Metrics
-------
- `recall`: R@k.
- `average_precision`: AP@k; its mean over queries is mAP@k.

Sources: Xie et al. 2022, section 2.4; CPJKU/dcase2025_task6_baseline, `average_precision_at_k`.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation import tables
from evaluation.data import Split
from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding, lookalike, printable, table
from evaluation.intervals import Estimate, jackknife

VERSION = "0.1.0"
TASK_METRICS = ("mAP@10", "R@1", "R@5", "R@10")  # DCASE 2022 to 2024; the first one ranks

Truth = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Similarity:
    """A score for every query and clip.

    Attributes:
        queries: The texts.
        file_names: The clips.
        scores: (queries, clips) float32; higher is more similar.
    """

    queries: tuple[str, ...]
    file_names: tuple[str, ...]
    scores: np.ndarray

    def top(self, k: int) -> "Ranking":
        """The k best clips of every query, best first; equal scores in the order of `file_names`."""
        order = np.argsort(-self.scores, axis=1, kind="stable")[:, :k]
        return Ranking(self.queries, tuple(tuple(self.file_names[clip] for clip in row) for row in order))

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, queries=_texts(self.queries), file_names=_texts(self.file_names), scores=self.scores)


@dataclass(frozen=True)
class Ranking:
    """For every query its best clips, best first."""

    queries: tuple[str, ...]
    file_names: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...] = ()  # where each query stands in its file


Prediction = Similarity | Ranking


def _texts(texts: Iterable[str]) -> np.ndarray:
    # JSON rather than an array of strings, whose every entry would take the room of the longest.
    return np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)


def read(path: Path) -> Prediction:
    """Read a prediction: a `Similarity` from .npz, or a `Ranking` from a CSV whose columns are query and best clips.

    The CSV may be separated by commas or tabs; its first line is a header and is not looked at (the submission room
    checks it).

    Raises:
        BadRequest: There is no such file, or it is of another kind.
        Faulty: The file does not hold.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give a prediction (.npz or .csv)")
    if path.suffix.lower() == ".npz":
        return _similarity(path)
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise BadRequest(f"{path}: must be .npz (a similarity matrix) or .csv (query and best clips, best first)")
    findings: list[Finding] = []
    with path.open("rb") as file:
        separator = "\t" if b"\t" in file.readline() else ","
    records, _ = tables.read(path, str(path), findings, separator)
    if findings:
        raise Faulty(findings)
    rows = records[1:]
    return Ranking(
        tuple(cells[0] for _, cells in rows),
        tuple(tuple(cells[1:]) for _, cells in rows),
        tuple(line for line, _ in rows),
    )


def _similarity(path: Path) -> Similarity:
    try:
        with np.load(path, allow_pickle=False) as file:
            queries, names = (tuple(json.loads(file[key].tobytes())) for key in ("queries", "file_names"))
            scores = file["scores"]
        if not all(isinstance(text, str) for text in queries + names):
            raise TypeError("queries and file_names must be lists of texts")
    except Exception as error:  # at a broken file zipfile, zlib, json and numpy raise almost anything
        message = f"must hold queries, file_names and scores as `systems predict` writes them ({error})"
        raise Faulty([Finding(str(path), message=message)]) from None
    if scores.shape != (len(queries), len(names)) or scores.dtype.kind != "f":
        wanted, found = f"{len(queries)} x {len(names)} floats", f"{' x '.join(map(str, scores.shape))} {scores.dtype}"
        raise Faulty([Finding(str(path), message=f"scores must be {wanted}, queries by clips; found {found}")])
    return Similarity(queries, names, scores)


def validate(
    truth: Truth, file_names: Sequence[str], prediction: Prediction, file: str = "prediction"
) -> list[Finding]:
    """Check a prediction against the truth and the clips of its split; return warnings and notes.

    Args:
        truth: Query to the names of the clips that answer it.
        file_names: Every clip of the split.
        prediction: What is to be scored.
        file: Its name in findings.

    Raises:
        Faulty: A query of the truth is missing or repeated, or scores are not finite; with every finding.
    """
    findings: list[Finding] = []
    lines = prediction.lines if isinstance(prediction, Ranking) else ()
    seen: dict[str, int] = {}
    for index, query in enumerate(prediction.queries):
        line = lines[index] if lines else 0
        if query in seen:
            findings.append(Finding(file, line, message=f"query {query!r} stands here twice; give each query once"))
        seen.setdefault(query, index)
    extra = [query for query in seen if query not in truth]
    hint = lookalike(extra)
    if extra and len(extra) == len(seen) and not any(hint(query) for query in truth):  # all else would only repeat it
        message = f"answers none of the {len(truth)} queries; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for query in truth:
        if query not in seen:
            close = hint(query)
            findings.append(Finding(file, message=f"no query {query!r}" + (f"; there is {close!r}" if close else "")))
    if extra:
        findings.append(Finding(file, message=f"queries beyond the truth's are left out: {len(extra)}", severity=NOTE))

    known, near = set(file_names), lookalike(file_names)

    def unknown(name: str, line: int) -> None:
        close = near(name)
        message = f"no clip {name!r} in this split; it counts as wrong" + (f"; there is {close!r}" if close else "")
        findings.append(Finding(file, line, message=message, severity=WARNING))

    if isinstance(prediction, Similarity):
        for name in [name for name, count in Counter(prediction.file_names).items() if count > 1]:
            findings.append(Finding(file, message=f"clip {name!r} has two columns; give each clip one"))
        for name in prediction.file_names:
            if name not in known:
                unknown(name, 0)
        absent = len(known - set(prediction.file_names))
        if absent:
            message = f"no column for {absent} of the split's {len(known)} clips; they count as not found"
            findings.append(Finding(file, message=message, severity=WARNING))
        bad = np.flatnonzero(~np.isfinite(prediction.scores).all(axis=1))
        if len(bad):
            share, first = f"{len(bad)} of {len(prediction.queries)}", prediction.queries[bad[0]]
            message = f"scores must be finite; {share} queries have others, first {first!r}"
            findings.append(Finding(file, message=message))
    else:
        for index, names in enumerate(prediction.file_names):
            line = lines[index] if lines else 0
            for name in dict.fromkeys(names):
                if name not in known:
                    unknown(name, line)
            if repeats := [name for name, count in Counter(names).items() if count > 1]:
                message = f"given more than once: {', '.join(map(repr, repeats))}; only the first counts"
                findings.append(Finding(file, line, message=message, severity=WARNING))
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
    return findings


def ranks(truth: Truth, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return where the relevant clips of every query stand, and how many there are.

    Returns:
        (queries, most relevant clips of any query) float64, ascending in each row, infinite where a relevant clip is
        not found or the query has fewer; and (queries,) counts. Queries are in the truth's order.
    """
    counts = np.array([len(names) for names in truth.values()])
    found = np.full((len(truth), counts.max(initial=0)), np.inf)
    rows = {query: row for row, query in enumerate(prediction.queries)}
    if isinstance(prediction, Similarity):
        columns = {name: column for column, name in enumerate(prediction.file_names)}
        for index, (query, names) in enumerate(truth.items()):
            scores = prediction.scores[rows[query]]
            relevant = np.array([columns[name] for name in names if name in columns], dtype=int)
            if len(relevant):
                own = -np.sort(-scores[relevant])  # best first
                # All relevant clips that are better or as good stand before, and so do the others that are not worse.
                # Asked as "not worse", NaN gets the worst case too: a model that diverged must not look perfect.
                others = (~(scores < own[:, None])).sum(axis=1) - (~(own < own[:, None])).sum(axis=1)
                found[index, : len(own)] = others + np.arange(1, len(own) + 1)
    else:
        for index, (query, names) in enumerate(truth.items()):
            answer = prediction.file_names[rows[query]]
            positions = sorted(answer.index(name) + 1 for name in names if name in answer)
            found[index, : len(positions)] = positions
    return found, counts


def recall(found: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """R@k of every query: the share of its relevant clips among the first k, in [0, 1]. Arguments as from `ranks`."""
    return (found <= k).sum(axis=1) / counts


def average_precision(found: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """AP@k of every query: precision at each relevant clip among the first k, over the number of relevant clips."""
    precision = np.arange(1, found.shape[1] + 1) / found
    return np.where(found <= k, precision, 0.0).sum(axis=1) / counts


def chance(counts: np.ndarray, clips: int, metric: str) -> float:
    """The mean of a metric over all random rankings of `clips` clips, for queries with so many relevant clips.

    A clip stands at any rank with the same chance, so that R@k is k / clips. The precision at a relevant clip of rank r
    counts itself and, of the r - 1 before it, each with chance (relevant - 1) / (clips - 1).
    """
    name, k = _metric(metric)
    k = min(k, clips)
    if name is recall:
        return k / clips
    rank = np.arange(1, k + 1)
    others = (counts[:, None] - 1) / max(clips - 1, 1)
    return float(((1 + (rank - 1) * others) / rank).sum(axis=1).mean() / clips)


def _metric(name: str) -> tuple[Callable[[np.ndarray, np.ndarray, int], np.ndarray], int]:
    match = re.fullmatch(r"(mAP|R)@([1-9]\d*)", name)
    if not match:
        raise BadRequest(f"unknown metric {printable(name)!r}; there are mAP@k and R@k for any k from 1")
    return {"mAP": average_precision, "R": recall}[match[1]], int(match[2])


@dataclass(frozen=True)
class Score:
    """The metrics of one prediction, what they would be by chance, and the signature that says what was measured."""

    metrics: Mapping[str, Estimate]
    chance: Mapping[str, float]
    signature: str
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        """The metrics as a table, with the signature below."""
        rows = [
            [name, f"{m.value:.3f}", f"{m.low:.3f} – {m.high:.3f}", f"{self.chance[name]:.3f}", m.n]
            for name, m in self.metrics.items()
        ]
        text = table(rows, ["metric", "value", "95 % interval", "chance", "queries"], numbers=(1, 2, 3, 4))
        return f"{text}\nsignature: {self.signature}"

    def save(self, path: Path) -> None:
        """Write as JSON at full precision, whole or not at all."""
        metrics = {}
        for name, estimate in self.metrics.items():
            figures = {**asdict(estimate), "chance": self.chance[name]}
            # A single query has no standard error, and JSON no NaN.
            metrics[name] = {key: None if value != value else value for key, value in figures.items()}
        text = json.dumps({"signature": self.signature, "metrics": metrics}, indent=2, ensure_ascii=False)
        with replacing(path) as part:
            part.write_text(text + "\n", encoding="utf-8")


def evaluate(
    split: Split,
    prediction: Prediction,
    *,
    truth: Truth | None = None,
    truth_name: str = "given",
    metrics: Sequence[str] = TASK_METRICS,
    file: str = "prediction",
) -> Score:
    """Score a prediction for a split.

    Args:
        split: The split; its own truth is used unless another is given.
        prediction: What is to be scored.
        truth: Query to relevant clips.
        truth_name: What the signature calls that truth.
        metrics: Names such as `mAP@10` and `R@5`.
        file: The prediction's name in findings.

    Raises:
        BadRequest: A metric is not known, or the split has no truth.
        Faulty: As `validate`.
    """
    if truth is None:
        truth, truth_name = split.truth, "captions" if split.relevance is None else f"relevance_{split.name}.csv"
    if not truth:
        raise BadRequest(f"the split {split.name} has no truth: its queries' clips are not known")
    chosen = {name: _metric(name) for name in metrics}
    findings = validate(truth, split.file_names, prediction, file)
    found, counts = ranks(truth, prediction)
    # How long a ranking is changes what it can reach at a greater k.
    kind = "similarity" if isinstance(prediction, Similarity) else f"top-{max(map(len, prediction.file_names))}"
    answers = repr(sorted((query, sorted(names)) for query, names in truth.items()))
    signature = "|".join(
        [
            f"dcase-kit:{VERSION}",
            f"split:{split.name}#{split.fingerprint}",
            f"truth:{truth_name}#{hashlib.sha256(answers.encode()).hexdigest()[:8]}",
            f"queries:{len(truth)}",
            f"clips:{len(split.clips)}",
            f"relevant:{counts.min()}-{counts.max()}",
            f"prediction:{kind}",
            "ap:over-relevant",
            "ties:relevant-last",
            "repeated,unknown:wrong",
            "missing:error",
            "interval:jackknife-95-normal",
            f"numpy:{np.__version__}",
        ]
    )
    return Score(
        {name: jackknife(metric(found, counts, k)) for name, (metric, k) in chosen.items()},
        {name: chance(counts, len(split.clips), name) for name in chosen},
        signature,
        tuple(findings),
    )
