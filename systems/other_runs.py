"""Runs that another system uses, such as a retriever that `systems.answers` uses to answer questions.

The config of the system names the folder of the other run. Its model is loaded from there, so the folder must stay in
its place. The system stores the digest of the other run's checkpoint, because a changed model needs a new fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluation.findings import BadRequest
from systems import runs
from systems.parts.digests import digest


@dataclass(frozen=True)
class OtherRun:
    """The model of another run.

    Attributes:
        folder: The folder of the run.
        model: The model, in evaluation mode, on the default device.
        digest: The digest of its checkpoint.
    """

    folder: Path
    model: Any
    digest: str

    def require_digest(self, stored: str, checkpoint: Path) -> None:
        """Make sure that the other run is the one that a checkpoint was fitted with.

        Raises:
            BadRequest: The checkpoint of the other run has changed.
        """
        if stored != self.digest:
            message = f"must have the checkpoint that {checkpoint} was fitted with; found another one"
            raise BadRequest(f"{self.folder}: {message}: put the old checkpoint back, or train again")

    def description(self, **facts: object) -> dict[str, object]:
        """Return the description in the system.yaml of the other run, with some entries replaced by `facts`.

        If the training of the other run has not ended, only these entries are returned.
        """
        file = self.folder / "system.yaml"
        if not file.is_file():
            return facts
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        return {**content.get("description", {}), **facts}


def load_other_run(folder: str, key: str, task: str) -> OtherRun:
    """Load the model of another run.

    Args:
        folder: The run folder, or a folder that `systems export` wrote, as the config gives it.
        key: The key of the config, for messages.
        task: The task that the model must be able to do.

    Raises:
        BadRequest: The folder has no trained run, or its model cannot do the task.
        Faulty: The config.yaml in the folder is damaged.
    """
    if not folder:
        raise BadRequest(f"{key} must be the folder of a trained run; found none: --set {key}=RUN")
    with runs.loaded(Path(folder)) as run:
        missing = runs.missing_methods(run.model, task)
        if missing:
            message = f"{key} must be a run for {task}; the model of {run.system} has no method {missing[0]}"
            raise BadRequest(f"{folder}: {message}: give another run")
        return OtherRun(Path(folder), run.model, digest(run.checkpoint.read_bytes()))
