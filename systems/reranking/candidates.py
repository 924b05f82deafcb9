"""The candidate captions of a split, and the file that contains them.

The file is `candidates/SPLIT.csv` in a run folder. It has the columns `file_name`, `rank` (from 1), `caption` and
`log_probability`, and after re-ranking with a retriever also `similarity`. The rows of a clip are consecutive, in the
order of their ranks.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from evaluation.data import tables
from evaluation.files import no_file, replacing
from evaluation.findings import Faulty, Finding
from evaluation.text import quoted

FOLDER = "candidates"
COLUMNS = ["file_name", "rank", "caption", "log_probability"]
AGAIN = "predict again"


def candidates_file(folder: Path, split: str) -> Path:
    """Return the path of the candidates for a split in a run folder. The file may be missing."""
    return folder / FOLDER / f"{split}.csv"


@dataclass(frozen=True)
class Candidates:
    """The candidate captions of clips.

    A caption may occur several times among the candidates of a clip, because sampling may draw it several times.

    Attributes:
        file_names: The file name of each clip.
        captions: The captions of each clip.
        log_probabilities: (captions of the clip,) their log-probabilities, for each clip.
    """

    file_names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    log_probabilities: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, file_names: Sequence[str], scored: Sequence[Sequence[tuple[str, float]]]) -> "Candidates":
        """Make candidates from a list of pairs (caption, log-probability) for each clip."""
        captions = tuple(tuple(caption for caption, _ in pairs) for pairs in scored)
        log_probabilities = tuple(np.array([value for _, value in pairs]) for pairs in scored)
        return cls(tuple(file_names), captions, log_probabilities)

    def first(self) -> tuple[list[str], list[float]]:
        """Return the first caption of each clip, and the log-probabilities of these captions."""
        return self.chosen([0] * len(self.captions))

    def chosen(self, choice: Sequence[int]) -> tuple[list[str], list[float]]:
        """Return the chosen caption of each clip, and the log-probabilities of these captions.

        Args:
            choice: The index of the caption among the candidates of each clip.
        """
        captions = [texts[index] for texts, index in zip(self.captions, choice, strict=True)]
        values = [float(values[index]) for values, index in zip(self.log_probabilities, choice, strict=True)]
        return captions, values

    def write(self, file: Path, similarities: Sequence[np.ndarray] | None = None) -> None:
        """Write the candidates to a file, completely or not at all.

        Args:
            file: The file.
            similarities: For each clip, the similarity of each of its captions to the clip, (captions of the clip,),
                for the column `similarity` (default: no such column).
        """
        columns = COLUMNS
        if similarities is not None:
            columns = [*COLUMNS, "similarity"]
        with replacing(file) as part, part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            for clip, name in enumerate(self.file_names):
                for index, caption in enumerate(self.captions[clip]):
                    row = [name, index + 1, caption, f"{self.log_probabilities[clip][index]:.6f}"]
                    if similarities is not None:
                        row.append(f"{similarities[clip][index]:.6f}")
                    writer.writerow(row)


def read_candidates(file: Path) -> Candidates:
    """Read a file that `Candidates.write` wrote.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not a table of candidates. The exception lists all findings.
    """
    if not file.is_file():
        raise no_file(file, "the candidates that `dcase-systems predict` writes with --set candidates=N")
    findings: list[Finding] = []
    records, _ = tables.read_table(file, str(file), findings)
    header = records[0][1] if records else []
    if not findings and header[: len(COLUMNS)] != COLUMNS:
        found = ", ".join(map(quoted, header)) or "no line"
        message = f"the header must begin with {', '.join(COLUMNS)}; found {found}: {AGAIN}"
        findings.append(Finding(str(file), 1, message=message))
    if findings:
        raise Faulty(findings)
    for line, cells in records[1:]:
        if len(cells) != len(header):
            message = f"must have {len(header)} cells, as the header; found {len(cells)}: {AGAIN}"
            findings.append(Finding(str(file), line, message=message))
        elif not _is_finite(cells[3]):
            message = f"must be a finite number; found {quoted(cells[3])}: {AGAIN}"
            findings.append(Finding(str(file), line, COLUMNS[3], message))
    groups = [(name, list(rows)) for name, rows in groupby(records[1:], key=lambda record: record[1][0])]
    names = [name for name, _ in groups]
    for name in sorted({name for name in names if names.count(name) > 1}):
        message = f"the rows of a clip must be consecutive; found other rows between those of {quoted(name)}: {AGAIN}"
        findings.append(Finding(str(file), message=message))
    if findings:
        raise Faulty(findings)
    scored = [[(cells[2], float(cells[3])) for _, cells in rows] for _, rows in groups]
    return Candidates.of(names, scored)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
