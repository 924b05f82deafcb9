"""The check that the training data do not contain sounds which a task excludes from training."""

from collections.abc import Iterable
from pathlib import Path

from evaluation.data.freesound import read_ids
from evaluation.findings import WARNING, BadRequest, Finding
from submission.tasks import Task


def training_sounds(task: Task, training: Iterable[Path], excluded: Path) -> list[Finding]:
    """Find sounds in the training data that the task excludes.

    The findings are warnings, not errors. The organisers of 2024 did not refuse such systems, but marked them; and
    three sounds of Clotho's own development split are in the list of 2025.

    Args:
        task: The task.
        training: Lists of sounds. A list is a CSV with the column `sound_id`, such as Clotho's metadata, or a text with
            links to Freesound or with an id in each line.
        excluded: The task's list (`dcase-submission tasks NAME` prints its address).

    Returns:
        A warning for each excluded sound in a list, with its first line there.

    Raises:
        BadRequest: The task has no known list of excluded sounds, a file does not exist, or a file has no ids.
        Faulty: A list cannot be read completely.
    """
    if not task.excluded_ids:
        raise BadRequest(f"{task.name} has no known list of excluded sounds; remove --excluded")
    for path in (excluded, *training):
        if not path.is_file():
            raise BadRequest(f"{path}: no such file; give a list of Freesound ids")
    forbidden = read_ids(excluded, task.excluded_ids.column.value)
    findings = []
    for path in training:
        for sound, line in read_ids(path, "sound_id").items():
            if sound in forbidden:
                message = f"the system must not be trained on Freesound's sound {sound}, which is in {excluded}"
                message += "; remove the sound and train again"
                findings.append(Finding(str(path), line, message=message, severity=WARNING))
    return findings
