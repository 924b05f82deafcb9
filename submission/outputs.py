"""Output files: written from a prediction, and checked before they are handed in."""

import codecs
import csv
from pathlib import Path

from evaluation import retrieval, tables
from evaluation.data import Split
from evaluation.files import replacing
from evaluation.findings import ERROR, WARNING, BadRequest, Faulty, Finding, lookalike, printable
from evaluation.retrieval import Similarity
from submission.tasks import Task


def write(task: Task, similarity: Similarity, split: Split, path: Path, file: str = "prediction") -> None:
    """Write the best clips of every query of a split, as the task wants them.

    Args:
        task: What is asked for.
        similarity: The prediction.
        split: Whose queries it answers, with whose clips.
        path: Where to.
        file: The prediction's name in findings.

    Raises:
        BadRequest: The split has fewer clips than the task wants for a query.
        Faulty: The prediction lacks a query or holds scores that are not finite, or what would be written does not
            pass `validate`; nothing is written.
    """
    if len(split.clips) < task.k.value:
        raise BadRequest(f"{task.name} wants {task.k.value} clips for a query; {split.name} has {len(split.clips)}")
    retrieval.validate(dict.fromkeys(split.queries, frozenset()), split.file_names, similarity, file)
    ranking = similarity.top(task.k.value)
    with replacing(path) as part:
        with part.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, delimiter=task.separator.value, lineterminator="\n")
            writer.writerow(task.header)
            writer.writerows([query, *names] for query, names in zip(ranking.queries, ranking.file_names, strict=True))
        errors = [finding for finding in validate(task, part, split, str(path)) if finding.severity == ERROR]
        if errors:
            raise Faulty(errors)


def validate(task: Task, path: Path, split: Split, file: str = "") -> list[Finding]:
    """Check an output file: header, every query of the split once, k distinct clips of the split a row.

    Args:
        task: What is asked for.
        path: The file.
        split: Whose queries are answered, with whose clips.
        file: The file's name in findings; its path by default.

    Returns:
        Every finding, in the order of the file.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    findings: list[Finding] = []
    if path.read_bytes().startswith(codecs.BOM_UTF8):
        findings.append(Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING))
    unreadable: list[Finding] = []
    records, whole = tables.read(path, file, unreadable, task.separator.value)
    header = records[0][1] if records else []
    if header != task.header and (whole or records):
        wanted, found = task.separator.value.join(task.header), task.separator.value.join(header)
        findings.append(Finding(file, 1, message=f"the header must be {wanted}; found {printable(found) or 'nothing'}"))
        if len(header) != len(task.header):  # another separator, or another file: all else would only repeat it
            return sorted(findings)
    findings += unreadable
    if not whole:  # the rows that could not be read would be missing below
        return sorted(findings)

    clips, near = set(split.file_names), lookalike(split.file_names)
    seen: dict[str, int] = {}
    for line, (query, *names) in records[1:]:
        if len(names) != task.k.value:
            wanted = f"{len(task.header)} columns, the query and {task.k.value} clips"
            message = f"must have {wanted}; found {len(names) + 1}"
            message += "; quote a cell that holds a comma" if len(names) > task.k.value else ""
            findings.append(Finding(file, line, message=message))
        if query in seen:
            message = f"answers a query that line {seen[query]} answers already: {query!r}; keep one row a query"
            findings.append(Finding(file, line, task.query_column.value, message))
        seen.setdefault(query, line)
        for rank, name in enumerate(names, start=1):
            column = tables.column_name(task.header, rank)
            if name not in clips:
                close = near(name) or near(name.replace("\\", "/").rpartition("/")[2])
                hint = f"; there is {close!r}, and names are compared verbatim" if close else ""
                findings.append(Finding(file, line, column, f"{name!r} is no clip of {split.name}{hint}"))
            elif (first := names.index(name) + 1) < rank:
                message = f"{name!r} stands in {tables.column_name(task.header, first)} already; give distinct clips"
                findings.append(Finding(file, line, column, message))
    asked = set(split.queries)
    missing = dict.fromkeys(query for query in split.queries if query not in seen)
    hint = lookalike(missing)
    for query, line in seen.items():
        if query not in asked:
            close = hint(query)
            missing.pop(close, None)  # one slip, one finding
            meant = f"; there is {close!r}, and queries are compared verbatim" if close else ""
            message = f"{query!r} is no query of {split.name}{meant}"
            findings.append(Finding(file, line, task.query_column.value, message))
    for query in missing:
        findings.append(Finding(file, 0, task.query_column.value, f"no row answers {query!r}; add one"))
    return sorted(findings)
