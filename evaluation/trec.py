"""Runs and qrels in the formats of trec_eval.

    split, warnings = read_qrels(Path("qrels.txt"))
    run = read_run(Path("system.run"))
    score = retrieval.evaluate(split, run.ranking(split.truth), lists_all_clips=False)

Formats
-------
- **Qrels**, the truth: `query iteration clip grade`. The iteration is ignored. A clip with a grade of 0 or less is not
  relevant. Queries without a relevant clip are left out, and a warning counts them.
- **Run**, the prediction: `query Q0 clip rank score tag`. Only the query, the clip and the score are used; like
  trec_eval, the kit ignores the rank, and a warning names queries whose ranks contradict their scores.

Columns are separated by tabs if a line has a tab, and otherwise by blanks. So names with blanks need tabs.

Equal scores: trec_eval ranks the clip with the larger name first. Here, the relevant clip is ranked last, as for any
prediction with scores (see `evaluation.metrics.retrieval`). Without equal scores, the results are those of trec_eval.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from evaluation.data.dataset import Clip, Split
from evaluation.findings import WARNING, BadRequest, Finding, raise_errors
from evaluation.metrics.retrieval import Truth
from evaluation.predictions import Ranking
from evaluation.text import plural, quoted

QRELS_COLUMNS = ("query", "iteration", "clip", "grade")
RUN_COLUMNS = ("query", "Q0", "clip", "rank", "score", "tag")
SUFFIXES = (".run", ".trec", ".txt", ".out", ".res")  # of runs


@dataclass(frozen=True)
class Run:
    """The clips of each query, with scores.

    Attributes:
        queries: The queries, in the order of the file.
        file_names: For each query, its clips in the order of the file.
        scores: For each query, the scores of these clips.
        lines: The number of each query's first line.
        findings: Warnings from reading the file.
    """

    queries: tuple[str, ...]
    file_names: tuple[tuple[str, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    lines: tuple[int, ...]
    findings: tuple[Finding, ...] = ()

    def ranking(self, truth: Truth) -> Ranking:
        """Return the clips of each query by falling scores.

        Among clips with equal scores, the relevant ones are last, and among these the lower grades come first.
        """
        lists = []
        for query, names, scores in zip(self.queries, self.file_names, self.scores, strict=True):
            relevant = truth.get(query, {})
            grades = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
            keys = [(-score, grades.get(name, 0.0)) for name, score in zip(names, scores, strict=True)]
            order = sorted(range(len(names)), key=keys.__getitem__)
            lists.append(tuple(names[place] for place in order))
        return Ranking(self.queries, tuple(lists), self.lines)


def read_qrels(path: Path) -> tuple[Split, list[Finding]]:
    """Read qrels as a split whose clips are those that the qrels name.

    Returns:
        The split, and warnings.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    findings: list[Finding] = []
    truth: dict[str, dict[str, float]] = {}
    for line, (query, _, clip, cell) in _rows(path, QRELS_COLUMNS, "qrels", findings):
        grade = _number(cell)
        if grade is None:
            message = f"must be a number; found {quoted(cell)}"
            findings.append(Finding(str(path), line, "grade", message))
            continue
        grades = truth.setdefault(query, {})
        if clip in grades:
            message = f"{quoted(clip)} is given twice for the query {quoted(query)}; remove one of the lines"
            findings.append(Finding(str(path), line, "clip", message))
        grades[clip] = max(grade, 0.0)
    clips = dict.fromkeys(clip for grades in truth.values() for clip in grades)
    relevance = {}
    for query, grades in truth.items():
        relevant = {clip: grade for clip, grade in grades.items() if grade > 0}
        if relevant:
            relevance[query] = relevant
    without = len(truth) - len(relevance)
    if not relevance and not findings:
        findings.append(Finding(str(path), message="must have a clip with a grade above 0; found none"))
    elif without:
        noun = "queries have" if without > 1 else "query has"
        message = f"{without} {noun} no clip with a grade above 0; left out"
        findings.append(Finding(str(path), message=message, severity=WARNING))
    raise_errors(findings)
    return Split("qrels", tuple(Clip(clip, (), Path(clip)) for clip in clips), relevance), findings


def read_run(path: Path) -> Run:
    """Read a run.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    findings: list[Finding] = []
    lines: dict[str, int] = {}
    lists: dict[str, list[tuple[str, float, float]]] = {}  # for each query: clip, score and rank
    for line, (query, _, clip, rank, cell, _) in _rows(path, RUN_COLUMNS, "run", findings):
        score = _number(cell)
        if score is None:
            findings.append(Finding(str(path), line, "score", f"must be a finite number; found {quoted(cell)}"))
            continue
        lines.setdefault(query, line)
        lists.setdefault(query, []).append((clip, score, _number(rank) or 0.0))
    raise_errors(findings)
    contradicting = [query for query, rows in lists.items() if _ranks_contradict_scores(rows)]
    if contradicting:
        message = f"the ranks of {plural(len(contradicting), 'list')} contradict the scores, for example those of "
        message += f"{quoted(contradicting[0])}; the scores count, and a larger score is better"
        findings.append(Finding(str(path), lines[contradicting[0]], "rank", message, WARNING))
    names = tuple(tuple(clip for clip, _, _ in rows) for rows in lists.values())
    scores = tuple(tuple(score for _, score, _ in rows) for rows in lists.values())
    return Run(tuple(lists), names, scores, tuple(lines.values()), tuple(findings))


def is_trec(path: Path, columns: int) -> bool:
    """Return True if the first line of a file has this number of columns in TREC's formats."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return len(_cells(file.readline(100_000).rstrip("\r\n"))) == columns


def _ranks_contradict_scores(rows: list[tuple[str, float, float]]) -> bool:
    by_rank = sorted(rows, key=lambda row: row[2])
    return any(later[1] > earlier[1] and later[2] > earlier[2] for earlier, later in pairwise(by_rank))


def _rows(
    path: Path, columns: tuple[str, ...], noun: str, findings: list[Finding]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line number and the cells of each line, and add lines of another form to the findings."""
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give {noun} in TREC's format: {' '.join(columns)}")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, text in enumerate(file, start=1):
            cells = _cells(text.rstrip("\r\n"))
            if not cells:
                continue
            if len(cells) != len(columns):
                message = f"must have {len(columns)} columns, {' '.join(columns)}; found {len(cells)}"
                findings.append(Finding(str(path), number, message=f"{message}: separate names with blanks by tabs"))
                continue
            yield number, tuple(cells)


def _cells(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    return line.split()


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
