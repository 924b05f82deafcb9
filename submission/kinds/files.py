"""Kinds of tasks whose splits are files of questions or queries, and not clips with captions."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from evaluation import kinds
from evaluation.data.dataset import EVALUATION, SPLITS, Dataset
from evaluation.data.split_files import STEMS, split_files
from evaluation.findings import BadRequest, Finding
from evaluation.scores import Score
from evaluation.text import unknown_key
from submission.kinds.kind import Kind
from submission.outputs.form import FileSplit


class FileKind(Kind, ABC):
    """A kind of task whose data folder has a file for each split.

    `evaluation.data.split_files` gives the names of these files.
    """

    @property
    def stem(self) -> str:
        """The beginning of the names of the files, such as "questions" for `questions_evaluation.jsonl`."""
        return STEMS[self.name]

    def read_data(self, folder: Path, name: str = "") -> Dataset:
        """Read the files of the splits: `STEM_SPLIT.jsonl`, or the folder `STEM_SPLIT`."""
        if not folder.is_dir():
            raise BadRequest(f"{folder}: no such folder; give a folder with {self.stem}_SPLIT.jsonl")
        if name and name not in SPLITS:
            raise BadRequest(unknown_key(name, SPLITS, "split"))
        sources = split_files(folder, self.name)
        if not sources:
            choices = ", ".join(SPLITS)
            raise BadRequest(f"{folder}: no {self.stem}_SPLIT.jsonl in this folder, where SPLIT is one of {choices}")
        if name and name not in sources:
            found = ", ".join(sources)
            raise BadRequest(f"{folder}: no {self.stem}_{name}.jsonl; the splits in this folder: {found}")
        findings: list[Finding] = []
        splits: dict[str, Any] = {}
        for split, path in sources.items():
            if name in ("", split):
                content, notes = kinds.KINDS[self.name].read_truth(path, split)
                splits[split] = FileSplit(split, content)
                findings += notes
        return Dataset(folder, splits, tuple(findings))

    def content(self, split: FileSplit) -> Any:
        """Return the questions or recordings of a split."""
        return split.content

    def holds(self, path: Path) -> bool:
        """Return whether a file is certainly a prediction of this kind, judged by its beginning."""
        return kinds.KINDS[self.name].holds(path)

    @property
    @abstractmethod
    def signature(self) -> str:
        """The beginning of the part of a score's signature that names the ground truth."""

    def has_score(self, score: Score) -> bool:
        """Return whether a score has the ground truth of this kind."""
        return f"|{self.signature}#" in score.signature

    def is_of_evaluation(self, score: Score, dataset: Dataset) -> bool:
        """Return whether a score has the ground truth of the evaluation split, or this split is not in the folder."""
        if EVALUATION not in dataset.splits:
            return True
        found = re.search(rf"\|{self.signature}#(\w+)", score.signature)
        return found is not None and found[1] == dataset.splits[EVALUATION].fingerprint
