"""How well predicted captions say what the clips' own captions say.

    score = evaluate(split, read(Path("predictions.csv")), metrics=SETS["dcase2023"])

Conventions
-----------
- A *prediction* has one caption for each clip of the split; a clip's own captions, one or more, are its *references*.
  Every clip must be there, once: a missing or a repeated clip is an error, neither a zero nor scored twice. Captions of
  clips beyond the split's are left out, and said so.
- **Captions are tokenised first**, predictions and references alike, as COCO's evaluation does
  (`evaluation.metrics.ptb_tokenizer`), for every metric: the neural ones get the tokens too, as in aac-metrics. White
  space of any kind is a blank. Markup acts on no other caption, and a text is read up to a length
  (`evaluation.data.caption_text`): a warning names the caption.
- **The order is that of the file names**, whatever the order of the files, as in the official tool: `evaluate_metrics`
  of caption-evaluation-tools sorts predictions and references by `file_name` (by code points, as Python sorts). Its
  tokeniser reads all predictions as one text, and all references as another: those of the first clip in the order of
  their columns, then those of the next clip. The tokeniser looks into the next line for what a full stop means, so the
  order can change a token; a note names the captions where it can. Sums are taken in that order too, so that the order
  of the files changes no digit. A score lists its clips in the order of the split.
- **An empty caption**, also one of punctuation alone, scores 0 wherever words are compared, and a warning says so.
- **BLEU and METEOR are of the corpus**; every other metric is a mean over clips (`evaluation.metrics.overlap`).
- **CIDEr-D weighs n-grams by the references of the split**. For its interval, and those of SPIDEr and SPIDEr-FL, these
  weights stay what they are when a clip is left out (`idf="fixed"`), or are computed anew each time (`"exact"`). Of a
  single clip CIDEr-D is 0, whatever the caption says.
- **What is not on this machine** (SPICE's parser, the models of FENSE and BERTScore) makes its metric unavailable, with
  the command that fetches it, and leaves the others as they are.

Metrics
-------
`bleu_1` … `bleu_4`, `meteor`, `rouge_l`, `cider_d` (what DCASE calls CIDEr), `spice`; `spider`, the mean of CIDEr-D and
SPICE; `sbert_sim`, the mean cosine of the sentence embeddings of caption and references; `fer`, the share of captions
with a fluency error; `spider_fl` and `fense`: `spider` and `sbert_sim`, of which such a caption keeps a tenth;
`bert_score`, F1 with the reference that fits best; `vocab`, how many different words all captions use, and
`vocab_ratio`, that over how many the references do. The last two have no interval: words are not a mean over clips.

Sources: aac-metrics 0.5.4, its `METRICS_SETS` and README (sets); the results pages of DCASE 2020 to 2024 (what ranks);
Zhou et al. 2022 (FENSE); felixgontier/dcase-2023-baseline, `metrics.py` (SPIDEr-FL);
audio-captioning/caption-evaluation-tools @ c1798df, `eval_metrics.py` and `ptbtokenizer.py` (the order).
"""

import csv
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import assets, scores
from evaluation.data import caption_text, tables
from evaluation.data.dataset import Clip, Split, of_another_split
from evaluation.files import no_file, replacing
from evaluation.findings import (
    ERROR,
    NOTE,
    WARNING,
    BadRequest,
    Faulty,
    Finding,
    unknown_key,
)
from evaluation.metrics import bert_score, fense, meteor, overlap, spice
from evaluation.metrics.java import Java, Unavailable, find_java
from evaluation.metrics.ptb_tokenizer import VERSION as TOKENIZER
from evaluation.metrics.ptb_tokenizer import depends_on_next, ptb_tokenize, token_file
from evaluation.names import closest, explain, hint
from evaluation.scores import Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate, from_left_out, jackknife

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
METRICS = (*BLEU, "meteor", "rouge_l", "cider_d", "spice", "spider", "fer", "spider_fl", "sbert_sim", "fense")
METRICS += ("bert_score", "vocab", "vocab_ratio")

_DCASE2020 = ("spider", *BLEU, "meteor", "rouge_l", "cider_d", "spice")
# By year, the metric that ranks first. `basic` is what needs no download.
SETS = {
    "basic": ("cider_d", *BLEU, "meteor", "rouge_l"),
    "dcase2020": _DCASE2020,
    "dcase2021": _DCASE2020,
    "dcase2022": _DCASE2020,
    "dcase2023": ("spider_fl", "meteor", "cider_d", "spice", "spider", "fer"),
    "dcase2024": ("fense", "meteor", "cider_d", "spice", "spider", "spider_fl", "fer", "sbert_sim", "vocab"),
    "all": METRICS,
}
# How the year's results give intervals, where that is known; the jackknife elsewhere.
INTERVALS = {"dcase2024": "bootstrap"}

# What each metric needs, as `assets.missing` takes it.
NEEDS = {
    **dict.fromkeys(BLEU, ("tokenizer",)),
    "rouge_l": ("tokenizer",),
    "cider_d": ("tokenizer",),
    "meteor": ("tokenizer", "meteor"),
    "spice": ("tokenizer", "spice"),
    "spider": ("tokenizer", "spice"),
    "spider_fl": ("tokenizer", "spice", "fluency"),
    "fer": ("tokenizer", "fluency"),
    "sbert_sim": ("tokenizer", "sbert"),
    "fense": ("tokenizer", "sbert", "fluency"),
    "bert_score": ("tokenizer", "bert"),
    "vocab": ("tokenizer",),
    "vocab_ratio": ("tokenizer",),
}

PENALTY = 0.9  # of a fluency error
IDF = ("fixed", "exact")
COLUMNS = ("file_name", "caption_predicted")


@dataclass(frozen=True)
class Prediction:
    """A caption for each clip, in the order of its file."""

    file_names: tuple[str, ...]
    captions: tuple[str, ...]
    lines: tuple[int, ...] = ()  # where each stands in its file


def read(path: Path) -> Prediction:
    """Read a prediction from a CSV with the columns `file_name` and `caption_predicted`; others are not looked at.

    The columns may be parted by commas or tabs (the organisers' own baselines disagree).

    Raises:
        BadRequest: There is no such file, or it is a retriever's.
        Faulty: The file does not hold; with every finding.
    """
    if not path.is_file():
        raise no_file(path, f"a CSV with the columns {' and '.join(COLUMNS)}")
    if path.suffix.lower() == ".npz":
        raise BadRequest(f"{path}: is a similarity matrix of a retriever; score it with `evaluation score retrieval`")
    findings: list[Finding] = []
    separator = tables.separator(path, str(path))
    records, _ = tables.read(path, str(path), findings, separator)
    if findings and not records:  # nothing could be read, so nothing is known of the header
        raise Faulty(findings)
    header = records[0][1] if records else []
    for column in COLUMNS:
        if header.count(column) != 1:
            message = f"the header must have one column {column!r}; found {', '.join(map(repr, header)) or 'no line'}"
            findings.append(Finding(str(path), 1, message=message))
    for line, cells in records[1:]:
        if len(cells) != len(header):
            mark = "comma" if separator == "," else "tab"
            message = f"must have {len(header)} cells as the header has, found {len(cells)}; quote a cell with a {mark}"
            findings.append(Finding(str(path), line, message=message))
    if findings:
        raise Faulty(findings)
    name, caption = (header.index(column) for column in COLUMNS)
    return Prediction(
        tuple(cells[name] for _, cells in records[1:]),
        tuple(cells[caption] for _, cells in records[1:]),
        tuple(line for line, _ in records[1:]),
    )


def write(
    path: Path, file_names: Sequence[str], captions: Sequence[str], log_probabilities: Sequence[float] | None = None
) -> None:
    """Write a prediction as CSV, whole or not at all; log-probabilities in a third column, `log_probability`.

    Raises:
        BadRequest: A log-probability is NaN or infinite; nothing is written.
    """
    columns: dict[str, Sequence[object]] = dict(zip(COLUMNS, (file_names, captions), strict=True))
    if log_probabilities is not None:
        wrong = [name for name, value in zip(file_names, log_probabilities, strict=True) if not isfinite(value)]
        if wrong:
            message = f"{path}: log-probabilities must be finite; found NaN or infinity for {len(wrong)} clips"
            raise BadRequest(f"{message}, first {wrong[0]!r}. Nothing is written; look at the model that made them")
        columns["log_probability"] = [f"{value:.6f}" for value in log_probabilities]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *zip(*columns.values(), strict=True)])


def validate(split: Split, prediction: Prediction, file: str = "prediction") -> list[Finding]:
    """Check a prediction against the clips of its split; return warnings and notes.

    Raises:
        Faulty: A clip is missing or repeated; with every finding.
    """
    findings: list[Finding] = []
    lines = prediction.lines or (0,) * len(prediction.file_names)
    seen: dict[str, int] = {}
    for name, caption, line in zip(prediction.file_names, prediction.captions, lines, strict=True):
        if name in seen:
            where = f"stands in line {seen[name]} already" if line else "stands there twice"
            findings.append(Finding(file, line, message=f"clip {name!r} {where}; give each clip one caption"))
        seen.setdefault(name, line)
        if not any(character.isalnum() for character in caption):
            message = f"the caption of {name!r} has no word; it scores 0 wherever words are compared"
            findings.append(Finding(file, line, message=message, severity=WARNING))
        for _, remark in caption_text.remarks(caption):
            message = f"the caption of {name!r} {remark}"
            findings.append(Finding(file, line, message=message, severity=WARNING))
    known = set(split.file_names)
    extra = dict.fromkeys(name for name in seen if name not in known)
    missing = dict.fromkeys(name for name in split.file_names if name not in seen)
    if missing and not seen:
        raise Faulty([Finding(file, message=f"has no rows; give one for each of {split.name}'s {len(missing)} clips")])
    if missing and (other := of_another_split(split, seen, "names")):
        message = f"names {len(known) - len(missing)} of {split.name}'s {len(known)} clips; {other}"
        raise Faulty([Finding(file, message=message)])
    match = explain(extra, missing)
    if match:
        message = match.message(len(seen), "names", split.source.name if split.source else "")
        findings.append(Finding(file, seen[next(iter(match.pairs))], message=message))
        for given, expected in match.pairs.items():
            del extra[given], missing[expected]
    meant = closest(extra)
    close = {name: meant(name) for name in missing}
    if len(missing) == len(split.clips) and not any(close.values()):  # every other finding would only repeat it
        message = f"names none of {split.name}'s {len(split.clips)} clips"
        message += "; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for name in missing:
        findings.append(Finding(file, message=f"no caption for clip {name!r}{hint(name, close[name])}"))
    if extra:
        message = f"captions of clips beyond the split's are left out: {len(extra)}, first {next(iter(extra))!r}"
        findings.append(Finding(file, message=message, severity=NOTE))
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
    return findings


def spider(cider_d: np.ndarray, spice_f1: np.ndarray) -> np.ndarray:
    """SPIDEr of each caption (Liu et al. 2017), in [0, 5.5]."""
    return (cider_d + spice_f1) / 2


def penalised(score: np.ndarray, error: np.ndarray) -> np.ndarray:
    """A score of which a caption with a fluency error (1, else 0) keeps a tenth: makes SPIDEr-FL, and FENSE."""
    return score * (1 - PENALTY * error)


def choose(metrics: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the metrics that a request names, the one that ranks first, and their interval method.

    Args:
        metrics: Names of metrics, or the name of one set.

    Raises:
        BadRequest: A name is not known.
    """
    if len(metrics) == 1 and metrics[0] in SETS:
        return SETS[metrics[0]], INTERVALS.get(metrics[0], "jackknife")
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        plain = unknown_key(unknown[0].lower().replace("-", "_"), METRICS, "metric")
        raise BadRequest(f"{plain}; or one of the sets {', '.join(SETS)}")
    return tuple(dict.fromkeys(metrics)), "jackknife"


def evaluate(
    split: Split,
    prediction: Prediction,
    *,
    metrics: Sequence[str] = SETS["basic"],
    interval: str | None = None,
    idf: str = "fixed",
    cache: Path = Path(".cache"),
    file: str = "prediction",
) -> Score:
    """Score a prediction for a split.

    Args:
        split: The split, with captions.
        prediction: What is to be scored.
        metrics: Names out of `METRICS`, or the name of one of `SETS`.
        interval: One of `intervals.METHODS`; without, the set's, else the jackknife.
        idf: What leaving a clip out does to CIDEr-D's weights, `fixed` or `exact`.
        cache: Folder of the cache: tokenised references, and where the Java parts are laid out.
        file: The prediction's name in findings.

    Raises:
        BadRequest: A metric or method is not known, the split has no captions, or there is no Java.
        Faulty: As `validate`.
    """
    metrics, usual = choose(metrics)
    interval = interval or usual
    if idf not in IDF:
        raise BadRequest(unknown_key(idf, IDF, "idf"))
    if idf == "exact" and not interval.startswith("jackknife"):
        raise BadRequest("idf `exact` leaves clips out one by one; give it with the interval jackknife or jackknife-t")
    if not all(clip.captions for clip in split.clips):
        raise BadRequest(f"the split {split.name} has clips without captions: there is nothing to compare with")
    interval_method(interval)  # an unknown one is refused before the work, not after
    findings = validate(split, prediction, file)
    # The official order. Everything is computed in it, and put into the split's order at the end.
    clips = sorted(split.clips, key=lambda clip: clip.file_name)
    items = Items("clips", tuple(clip.file_name for clip in clips), tuple(range(len(clips))))
    place = {name: index for index, name in enumerate(items.names)}
    back = [place[name] for name in split.file_names]
    answer = dict(zip(prediction.file_names, prediction.captions, strict=True))
    captions, references = [answer[name] for name in items.names], [clip.captions for clip in clips]
    wanted = {part for name in metrics for part in PARTS.get(name, (name,))}
    try:
        java = find_java()
        parts = _parts(wanted, captions, references, java, cache)
        findings += _prediction_notes(prediction, items.names, captions, java, cache, file)
        findings += _reference_findings(split.name, clips, java, cache)
    except Unavailable as reason:  # the tokeniser's: nothing goes without
        raise BadRequest(str(reason)) from None
    measured, unavailable = {}, {}
    for name in metrics:
        reasons = [str(parts[part]) for part in PARTS.get(name, (name,)) if isinstance(parts[part], Unavailable)]
        if reasons:
            unavailable[name] = "; ".join(dict.fromkeys(reasons))
        else:
            result = _measure(name, parts, items, interval, idf)
            measured[name] = result if result.values is None else replace(result, values=result.values[back])
    if len(items.names) == 1 and {"cider_d", "spider", "spider_fl"} & measured.keys():
        message = "of a single clip CIDEr-D is 0 whatever the caption says: it weighs words by how few clips have them"
        findings.append(Finding(file, message=message, severity=WARNING))
    computed = {part for name in measured for part in PARTS.get(name, (name,))}
    listed = replace(items, names=split.file_names)
    return Score(measured, listed, _signature(split, computed, interval, idf), unavailable, tuple(findings))


_LOOKS_AHEAD = (
    "ends in a full stop that the official tokeniser keeps or removes by how the caption after it begins; captions are "
    "tokenised in the order of their file names"
)


def _prediction_notes(
    prediction: Prediction, names: Sequence[str], captions: Sequence[str], java: Java, cache: Path, file: str
) -> list[Finding]:
    """Name the predicted captions whose tokens depend on the caption after them."""
    lines = dict(zip(prediction.file_names, prediction.lines, strict=False))
    notes = []
    for index in depends_on_next(captions, java, cache):
        message = f"the caption of {names[index]!r} {_LOOKS_AHEAD}"
        notes.append(Finding(file, lines.get(names[index], 0), message=message, severity=NOTE))
    return notes


def _reference_findings(split: str, clips: Sequence[Clip], java: Java, cache: Path) -> list[Finding]:
    """Name the references that are not read whole, and those whose tokens depend on the caption after them."""
    captions, columns, names = [], [], []
    for clip in clips:
        for number, caption in enumerate(clip.captions, start=1):
            captions.append(caption)
            columns.append(f"caption_{number}")
            names.append(clip.file_name)
    findings = []
    for caption, column, name in zip(captions, columns, names, strict=True):
        for _, remark in caption_text.remarks(caption):
            findings.append(Finding(split, 0, column, f"the reference of {name!r} {remark}", WARNING))
    for index in depends_on_next(captions, java, cache, keep=True):
        message = f"the reference of {names[index]!r} {_LOOKS_AHEAD}"
        findings.append(Finding(split, 0, columns[index], message, NOTE))
    return findings


# What a metric is made of, where that is not itself.
PARTS = {
    **dict.fromkeys(BLEU, ("bleu",)),
    "spider": ("cider_d", "spice"),
    "spider_fl": ("cider_d", "spice", "fer"),
    "fense": ("sbert_sim", "fer"),
    "vocab_ratio": ("vocab",),
}


def _parts(
    wanted: Set[str], captions: Sequence[str], references: Sequence[Sequence[str]], java: Java, cache: Path
) -> dict[str, Any]:
    """Compute the parts of metrics, each an Unavailable where it could not be."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())  # left last: what its threads wait for is ended before
        every = list(chain.from_iterable(references))
        again = token_file(every, cache).is_file()
        flat = ptb_tokenize(every, java, cache, keep=True)
        rest = iter(flat)
        theirs = [list(islice(rest, len(texts))) for texts in references]
        process = None
        if "meteor" in wanted:
            # METEOR takes longest, nearly all of it to start: the rest runs while it starts.
            table = meteor.paraphrase_table(flat, cache)
            process = _attempt(lambda: stack.enter_context(meteor.Meteor(java, cache, table)))
            if again and table is None:
                meteor.make_paraphrase_table(flat, cache)
        ours = ptb_tokenize(captions, java, cache)
        compute: dict[str, Callable[[], Any]] = {
            "meteor": lambda: _given(process).statistics(ours, theirs),
            "spice": lambda: spice.spice(ours, theirs, java, cache, stack),
            "bleu": lambda: overlap.bleu_statistics(ours, theirs),
            "rouge_l": lambda: overlap.rouge_l(ours, theirs),
            "cider_d": lambda: overlap.CiderD(ours, theirs),
            "vocab": lambda: [len({word for text in texts for word in text.split()}) for texts in (ours, flat)],
            "fer": lambda: fense.fluency_error(ours),
            "sbert_sim": lambda: fense.sbert_similarity(ours, theirs),
            "bert_score": lambda: bert_score.bert_score(ours, theirs),
        }
        slow = {name: pool.submit(_attempt, compute[name]) for name in ("meteor", "spice") if name in wanted}
        parts = {name: _attempt(compute[name]) for name in compute if name in wanted and name not in slow}
        parts |= {name: future.result() for name, future in slow.items()}
        return parts


def _attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Unavailable as reason:
        return reason
    except RuntimeError as failure:  # a model's, say of too little memory on a GPU: the other metrics are not lost
        return Unavailable(f"failed: {' '.join(str(failure).split())[:300]}")


def _given(part: Any) -> Any:
    if isinstance(part, Unavailable):
        raise part
    return part


def _measure(name: str, parts: Mapping[str, Any], items: Items, interval: str, idf: str) -> Measured:
    if name in BLEU:
        return measure(parts["bleu"], items, interval, partial(overlap.bleu, order=int(name[-1])))
    if name == "meteor":
        return measure(parts["meteor"], items, interval, meteor.meteor)
    if name in ("vocab", "vocab_ratio"):
        ours, theirs = parts["vocab"]
        value = float(ours) if name == "vocab" else ours / theirs if theirs else nan
        return Measured(Estimate(value, nan, nan, nan, len(items.names), "none"))
    if name not in ("cider_d", "spider", "spider_fl"):
        values = penalised(parts["sbert_sim"], parts["fer"]) if name == "fense" else parts[name]
        return measure(values, items, interval)

    cider_d, n = parts["cider_d"], len(items.names)
    spice_f1 = parts["spice"] if name != "cider_d" else None
    error = parts["fer"] if name == "spider_fl" else np.zeros(n)
    values = cider_d.scores if spice_f1 is None else penalised(spider(cider_d.scores, spice_f1), error)
    if idf == "fixed" or n == 1:
        return measure(values, items, interval)
    # Without a clip CIDEr-D's share of the mean is computed anew; SPICE's, which no other clip changes, is subtracted.
    kept = penalised(np.ones(n), error)
    left_out = cider_d.left_out(kept)
    if spice_f1 is not None:
        left_out = (left_out + ((kept * spice_f1).sum() - kept * spice_f1) / (n - 1)) / 2
    value = float(values.mean())
    values = from_left_out(value, left_out)
    return Measured(jackknife(values, value=value, t=interval == "jackknife-t"), values=values)


def _signature(split: Split, parts: Set[str], interval: str, idf: str) -> str:
    """Name all that the parts that were computed depend on, and nothing of the others."""
    counts = [len(clip.captions) for clip in split.clips]
    libraries = "+".join(f"{name}-{version(name)}" for name in ("aac-metrics", "sentence-transformers"))
    engine = "+".join(f"{name}-{version(name)}" for name in ("transformers", "torch"))
    own: dict[str, Callable[[], str]] = {
        "bleu": lambda: "corpus-closest",
        "meteor": lambda: "1.5-en-norm",
        "rouge_l": lambda: "beta-1.2",
        "cider_d": lambda: f"idf-of-split-left-out-{idf}",
        "spice": lambda: f"1.0-corenlp-3.6.0-{spice.WORDS}-words",
        "fer": lambda: f"{assets.identity('fluency')}+{libraries}+{engine}",
        "sbert_sim": lambda: f"{assets.identity('sbert')}+{libraries}+{engine}",
        "bert_score": lambda: f"{assets.identity('bert')}+best-reference+{engine}",
    }
    return "|".join(
        [
            f"dcase-kit:{scores.VERSION}",
            f"split:{split.name}#{split.fingerprint}",
            f"clips:{len(split.clips)}",
            f"references:{min(counts)}-{max(counts)}",
            f"tokenizer:{TOKENIZER}-coco-lowercase-no-punctuation-by-file-name-safe-markup-{caption_text.WORDS}-words",
            "missing,repeated:error",
            "extra:left-out",
            *(f"{part}:{say()}" for part, say in own.items() if part in parts),
            f"interval:{interval_method(interval)}",
            f"numpy:{np.__version__}",
        ]
    )
