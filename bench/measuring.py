"""Tools for all measures: rows of the table, timing of contenders, and formats of durations and ratios."""

import csv
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLOTHO = Path(__file__).parents[2] / "shared" / "data" / "clotho"
CLIPS = {"development": 3839, "validation": 1045, "evaluation": 1045}  # clips in Clotho v2.1

Function = Callable[..., Any]
# Its arguments are `bench.__main__.alone` and the folder for temporary files. Rows are shown when they are yielded.
Measure = Callable[[Function, Path], Iterable["Row"]]


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        what: The kit's work that is measured. The work that it is compared with follows a slash.
        ours: The kit's value.
        theirs: The value of the other library or method; empty if there is no comparison.
        ratio: How much faster the kit is, or another relation of the two values.
        target: The target of the ratio or of the kit's value.
        met: True if the target is met, False if it is missed, None if the row does not have a target.
        note: How the values were measured.
    """

    what: str
    ours: str
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""

    def __str__(self) -> str:
        """Return the row as one line of text.

        >>> print(Row("search / faiss", "2 s", "3 s", "1.5x", "≥ 1x", True, "a million clips"))
        search / faiss: 2 s, other 3 s, ratio 1.5x, target ≥ 1x met; a million clips
        """
        what, ours, theirs, ratio, target, mark, note = self.cells()
        parts = [ours]
        if theirs:
            parts.append(f"other {theirs}")
        if ratio:
            parts.append(f"ratio {ratio}")
        if target:
            parts.append(f"target {target} {mark}")
        line = f"{what}: {', '.join(parts)}"
        if note:
            line += f"; {note}"
        return line

    def cells(self) -> list[str]:
        """Return the texts that the table shows."""
        mark = {True: "met", False: "missed", None: ""}[self.met]
        return [self.what, self.ours, self.theirs, self.ratio, self.target, mark, self.note]


def race(*contenders: Callable[[], object], rounds: int) -> list[float]:
    """Call functions in turns (A, B, A, B, …) and measure each call.

    Args:
        contenders: The functions.
        rounds: The number of rounds that count. One more round comes first and does not count.

    Returns:
        The shortest duration of each function in seconds.
    """
    best = [np.inf] * len(contenders)
    for number in range(rounds + 1):
        for index, contender in enumerate(contenders):
            began = time.perf_counter()
            contender()
            if number:
                best[index] = min(best[index], time.perf_counter() - began)
    return best


def duration(seconds: float) -> str:
    """Format a duration with three digits.

    >>> duration(0.0123), duration(4.5678), duration(13_700)
    ('12.3 ms', '4.57 s', '3.81 h')
    """
    for unit, size in (("h", 3600.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def times(ratio: float) -> str:
    """Format a ratio, with one decimal below 10.

    >>> times(4.56), times(123.4)
    ('4.6x', '123x')
    """
    return f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"


def clotho(folder: Path) -> Path:
    """Return a folder with Clotho's caption files.

    If the files are missing, write files with random captions in `folder`. They have as many clips and captions as
    Clotho.
    """
    if all((CLOTHO / f"clotho_captions_{split}.csv").is_file() for split in CLIPS):
        return CLOTHO
    data = folder / "clotho"
    data.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, clips in CLIPS.items():
        with (data / f"clotho_captions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", *(f"caption_{number}" for number in range(1, 6))])
            for clip in range(clips):
                captions = []
                for _ in range(5):
                    numbers = rng.zipf(1.3, 11).clip(max=5000)
                    captions.append(" ".join(f"word{number}" for number in numbers))
                writer.writerow([f"{split} {clip}.wav", *captions])
    return data
