"""The writing of output files from predictions, and the check of output files before they are submitted.

Each module contains one form of output files, and `submission.kinds` lists the forms of each kind of task.

A check uses less than 2 GB of memory, even for a hostile file. It accepts at most `form.LIMIT` bytes. In a CSV, it
accepts at most `tables.CELLS` cells, and ten million characters in a cell (`evaluation.data.tables`). The check ends
after `LISTED` findings. It keeps the first findings of each kind and counts the others
(`evaluation.findings.limited`). It cuts long texts in messages to `SHOWN` characters.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.files import replacing
from evaluation.findings import ERROR, BadRequest, Faulty, Finding, bounded, limited
from submission.outputs.form import Asked

if TYPE_CHECKING:
    from submission.tasks import Task

LISTED = 10_000  # maximum number of findings, after which the check ends


def write(task: "Task", prediction: Any, split: Asked, path: Path, file: str = "prediction") -> None:
    """Write a prediction in the task's form. If anything fails, no file is written.

    The same prediction always gives the same bytes.

    Args:
        task: The task.
        prediction: The prediction, as the `read_prediction` of the task's kind returns it. For the form "matrix", it
            must have a score of every query for every clip. For the form "top-k", it must have such scores or the best
            clips of each query.
        split: The split that the prediction is for.
        path: The file to write.
        file: The prediction's name in findings.

    Raises:
        BadRequest: The split has fewer clips than the task asks for each query.
        Faulty: The prediction does not fit the split; its scores are not finite; it has only the best clips, but the
            task needs scores or more clips; or the file would not pass `validate`.
    """
    with replacing(path) as part:
        task.output_form.write(task, prediction, split, part, file)
        errors = [finding for finding in validate(task, part, split, str(path)) if finding.severity == ERROR]
        if errors:
            raise Faulty(errors)


def validate(task: "Task", path: Path, split: Asked | str = "", file: str = "") -> list[Finding]:
    """Check an output file: its encoding, its form and its content. Each clip, query or question has one answer.

    Args:
        task: The task.
        path: The file.
        split: The split that the file is for. If the data are not available, give the split's name, or an empty text if
            the name is not known. The file is then not compared with the data. Instead, the number of answers is
            compared with the official number of the split, or of any of the task's sets if the name is not known.
        file: The file's name in findings (default: its path).

    Returns:
        The findings in the order of the file: the first findings of each kind, and the number of the others.

    Raises:
        BadRequest: There is no such file.
    """
    findings, _ = validate_and_read(task, path, split, file)
    return findings


def validate_and_read(task: "Task", path: Path, split: Asked | str = "", file: str = "") -> tuple[list[Finding], Any]:
    """Check an output file as `validate` does, and return the prediction in it if the check has read it.

    Returns:
        The findings, and the prediction. The prediction is None if the check does not read all of it.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    every_finding, prediction = task.output_form.check_and_read(task, path, split, file)
    findings = bounded(every_finding, LISTED, file)
    return sorted(limited(sorted(findings))), prediction
