"""The outputs of language-based audio retrieval: a table of the best clips, or of the similarities, of each query."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.data import tables
from evaluation.data.cells import audio_name_fault
from evaluation.data.dataset import Split
from evaluation.findings import ALIKE, WARNING, BadRequest, Faulty, Finding
from evaluation.metrics import retrieval
from evaluation.names import closest, explain
from evaluation.predictions import Ranking, Similarity, finite_numbers, not_finite, read_regular_matrix
from evaluation.text import cut, plural, quoted
from submission.outputs import keys
from submission.outputs.tables import Records, Table, read_layout, separator_of

if TYPE_CHECKING:
    from submission.tasks import Task


class QueryTable(Table):
    """A table with a row for each query."""

    term = keys.QUERY

    def expected(self, split: Split) -> Sequence[str]:
        """Return the queries."""
        return split.queries


class BestClips(QueryTable):
    """A table of the k best clips of each query, best first."""

    facts = (*QueryTable.facts, "k")
    field = "{rank}"
    submitted = "the {k} best clips for each query, best first"
    content = "the query and {} clips"
    own_prediction = "use predictions.Similarity(…).save, or write {split}.csv, a CSV of each query and its best clips"

    def rows(
        self, task: "Task", prediction: Similarity | Ranking, split: Split, file: str
    ) -> tuple[list[str], Iterable[Sequence[str]]]:
        """Return the header, and the queries with their best clips."""
        k = len(task.header()) - 1
        if len(split.clips) < k:
            message = f"{task.name} asks for {k} clips for each query; {split.name} has only {len(split.clips)}"
            raise BadRequest(f"{message}: give another split")
        _check_prediction(prediction, split, file)
        if isinstance(prediction, Ranking):
            ranking = _best(prediction, k, file)
        else:
            ranking = prediction.top(k)
        pairs = zip(ranking.queries, ranking.file_names, strict=True)
        return task.header(), [(query, *names) for query, names in pairs]

    def check_rows(
        self, task: "Task", header: list[str], records: Records, split: Split | str, file: str, lines: dict[str, int]
    ) -> Iterator[Finding]:
        """Yield findings about rows whose query is repeated, or whose clips are repeated or not in the split."""
        header = task.header()  # the names that the columns should have
        width = len(header)
        fault_of: Callable[[str], str | None] = audio_name_fault
        if not isinstance(split, str):
            common, explained = _unknown_clips(records, split, file, header)
            yield from common
            fault_of = _fault_of_clip(split, explained)
        for line, (query, *names) in records:
            yield from self.check_width(task, [query, *names], width, file, line)
            yield from self.add_key(lines, query, line, task, file)
            ranks: dict[str, int] = {}
            for rank, name in enumerate(names, start=1):
                column = tables.column_name(header, rank)
                first = ranks.setdefault(name, rank)
                fault = fault_of(name)
                if fault:
                    yield Finding(file, line, column, fault)
                elif first < rank:
                    message = f"{quoted(name)} is in {tables.column_name(header, first)} already; give different clips"
                    yield Finding(file, line, column, message)

    def describe(self, task: "Task") -> str:
        """Describe the columns."""
        query, first, *_, last = task.header()
        return (
            f"The **output** is a CSV file in UTF-8. Its first column is `{query}`, with the query. The columns "
            f"`{first}` to `{last}` have the names of the best {len(task.header()) - 1} clips, best first. There is "
            f"one row for each query. {self.layout_text(task)} All names and queries must be exactly as in the data "
            "set."
        )


class Matrix(QueryTable):
    """A table of the similarity of each query and each clip."""

    field = "{clip}"
    submitted = "the similarity of each query and each clip"
    content = "the query and {} scores"
    example = ("name of a clip", "name of a clip")
    own_prediction = "use predictions.Similarity(…).save"

    def rows(
        self, task: "Task", prediction: Similarity | Ranking, split: Split, file: str
    ) -> tuple[list[str], Iterable[Sequence[str]]]:
        """Return the header, and the queries with their similarities."""
        _check_prediction(prediction, split, file)
        if isinstance(prediction, Ranking):
            message = f"must have a score of every query for every clip, because {task.name} asks for all of them"
            advice = "give predictions/SPLIT.npz, or a CSV whose header names the clips"
            raise Faulty([Finding(file, message=f"{message}; found only the best clips of each query: {advice}")])
        # `tolist` gives Python floats. Their repr reads back as the same number, as float32 and as float64.
        scores = zip(prediction.queries, prediction.scores, strict=True)
        return task.header(prediction.file_names), ((query, *map(repr, row.tolist())) for query, row in scores)

    def check_and_read(
        self, task: "Task", path: Path, split: Split | str, file: str
    ) -> tuple[Iterator[Finding], Similarity | None]:
        """Return all findings about a file, in any order, and its matrix if it has the usual layout, otherwise None."""
        matrix = self._usual_matrix(task, path, split, file)
        if matrix is None:
            return self.check(task, path, split, file), None
        return self._check_matrix(task, matrix, path, split, file), matrix

    def _usual_matrix(self, task: "Task", path: Path, split: Split | str, file: str) -> Similarity | None:
        """Return the matrix of a file with the usual layout and finite scores, or None if `check` must read the file.

        `check` would have no findings about the layout, the width of the rows or the scores of such a file.
        """
        try:
            layout = read_layout(task, path, len(self.expected_in(split)), self.term, file)
            separator = tables.separator(path, file)  # the one with which `predictions` reads the file
        except Faulty:
            return None
        if layout.bom or not layout.separator == separator == separator_of(task):
            return None
        regular = read_regular_matrix(path, separator)
        if regular is None:
            return None
        header, matrix = regular
        if header[0] != task.columns.value[0]:  # the header may be missing
            return None
        return matrix

    def _check_matrix(
        self, task: "Task", matrix: Similarity, path: Path, split: Split | str, file: str
    ) -> Iterator[Finding]:
        """Yield all findings about a matrix of `_usual_matrix`, in any order."""
        header = [task.columns.value[0], *matrix.file_names]
        yield from self._check_clips(task, header, split, file)
        lines: dict[str, int] = {}
        constant: list[int] = []
        for line, (query, scores) in enumerate(zip(matrix.queries, matrix.scores, strict=True), start=2):
            yield from self.add_key(lines, query, line, task, file)
            if _are_equal(scores):
                constant.append(line)
        yield from _about_constant_rows(constant, file)
        yield from self.check_keys(task, path, split, file, lines)

    def check_header(
        self, task: "Task", header: list[str], split: Split | str, file: str, separator: str
    ) -> tuple[Iterable[Finding], bool]:
        """Return the findings about the header, and whether the rows can be checked even so."""
        if len(header) > 1:
            return self._check_clips(task, header, split, file), True
        return super().check_header(task, header, split, file, separator)

    def _check_clips(self, task: "Task", header: list[str], split: Split | str, file: str) -> Iterator[Finding]:
        """Yield findings about the clips in the header."""
        key, names = task.header()[0], header[1:]
        if header[0] != key:
            yield Finding(file, 1, message=f"the first column must be {key}; found {quoted(header[0])}")
        columns: dict[str, int] = {}
        for number, name in enumerate(names, start=2):
            if columns.setdefault(name, number) < number:
                message = f"must not repeat a clip; {quoted(name)} is column {columns[name]} already"
                yield Finding(file, 1, f"column {number}", f"{message}: keep one of the two")
            elif isinstance(split, str):
                fault = audio_name_fault(name)
                if fault:
                    yield Finding(file, 1, f"column {number}", fault)
        if not isinstance(split, str):
            expected = task.header(split.file_names)[1:]

            def where(name: str) -> tuple[int, str]:
                if name in columns:
                    return 1, f"column {columns[name]}"
                return 1, ""

            yield from keys.compare(columns, expected, keys.COLUMN, split, file, where)

    def check_rows(
        self, task: "Task", header: list[str], records: Records, split: Split | str, file: str, lines: dict[str, int]
    ) -> Iterator[Finding]:
        """Yield findings about rows whose query is repeated, or whose scores are not finite or all equal."""
        constant: list[int] = []
        for line, (query, *cells) in records:
            yield from self.check_width(task, [query, *cells], len(header), file, line)
            yield from self.add_key(lines, query, line, task, file)
            scores = finite_numbers(cells)
            if scores is None:
                bad = [place + 1 for place in not_finite(cells)]
                message = f"must be a finite number; found {quoted(cells[bad[0] - 1])}"
                if len(bad) > 1:
                    message += f", and others like it in {plural(len(bad) - 1, 'more column')}"
                yield Finding(file, line, cut(tables.column_name(header, bad[0])), message)
            elif _are_equal(scores):
                constant.append(line)
        yield from _about_constant_rows(constant, file)

    def describe(self, task: "Task") -> str:
        """Describe the columns."""
        return (
            f"The **output** is a CSV file in UTF-8. Its first column is `{task.columns.value[0]}`, with the query. "
            "Each further column has the name of a clip as its heading, and the similarity of the query and this clip "
            f"in each row. There is one row for each query. {self.layout_text(task)} All names and queries must be "
            "exactly as in the data set."
        )


def _are_equal(scores: np.ndarray) -> bool:
    """Return whether there are several scores and all of them are equal."""
    return len(scores) > 1 and bool((scores == scores[0]).all())


def _about_constant_rows(lines: Sequence[int], file: str) -> Iterator[Finding]:
    """Yield a finding if there are rows, given by their lines, in which all clips have the same score."""
    if not lines:
        return
    message = "all clips have the same score, so they have no order"
    if len(lines) > 1:
        message += f" (also in {plural(len(lines) - 1, 'more row')})"
    yield Finding(file, lines[0], message=f"{message}; is the model trained?", severity=WARNING)


def _check_prediction(prediction: Similarity | Ranking, split: Split, file: str) -> None:
    """Check that a prediction has the queries and clips of a split.

    Raises:
        Faulty: The prediction has other queries or clips.
    """
    retrieval.validate(dict.fromkeys(split.queries, frozenset()), split.file_names, prediction, file, split)


def _best(ranking: Ranking, k: int, file: str) -> Ranking:
    """Return the first k clips of each query.

    Raises:
        Faulty: Some queries have fewer than k clips. The exception lists all of them.
    """
    findings = []
    lines = ranking.lines or (0,) * len(ranking.queries)
    for line, names in zip(lines, ranking.file_names, strict=True):
        if len(names) < k:
            message = f"must have {k} clips, best first; found {len(names)}: add the missing ones"
            findings.append(Finding(file, line, message=message))
    if findings:
        raise Faulty(findings)
    return Ranking(ranking.queries, tuple(names[:k] for names in ranking.file_names))


def _unknown_clips(
    records: Records, split: Split, file: str, header: Sequence[str]
) -> tuple[list[Finding], Collection[str]]:
    """Find out whether the unknown clips of a file have a common cause.

    The names may all differ from the right ones in the same way, or be those of another split or data set.

    Returns:
        A finding about the common cause, in a list; and the names that it explains. Both are empty if there is no
        common cause.
    """
    clips = set(split.file_names)
    places: dict[str, tuple[int, str]] = {}  # line and column of the first occurrence of each name
    for line, (_, *names) in records:
        for rank, name in enumerate(names, start=1):
            places.setdefault(name, (line, tables.column_name(header, rank)))
    unknown = [name for name in places if name not in clips]
    match = explain(unknown, split.file_names)
    if match:
        message = match.message(len(places), "names", keys.source_of(split))
        return [Finding(file, *places[next(iter(match.pairs))], message)], match.pairs
    fault = keys.other_split_fault(places, clips, split, keys.CLIP)
    if fault:
        return [Finding(file, message=fault)], unknown
    return [], ()


def _fault_of_clip(split: Split, explained: Collection[str]) -> Callable[[str], str | None]:
    """Return a function that returns the message about a clip's name, or None if the name is valid or explained."""
    accepted = {*split.file_names, *explained}
    lookup = closest(split.file_names)
    faults: dict[str, str] = {}
    guesses = ALIKE  # a guess takes some milliseconds, and only so many findings are listed

    def fault(name: str) -> str | None:
        nonlocal guesses
        if name in accepted:
            return None
        if name not in faults:
            same, typo = lookup(name), None
            if not same and guesses:
                guesses -= 1
                typo = keys.misspelt(name, split.file_names)
            faults[name] = keys.unknown(name, same, typo, keys.CLIP, split.name)
        return faults[name]

    return fault
