"""Strict reading of extra captions: further captions of the clips of a split, which only training reads.

`captions_SPLIT.extra.csv` has a row for each extra caption, with the header `file_name,caption,source`. A clip may have
any number of them. The source is any name for where the caption comes from, such as `back-translation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.data import tables
from evaluation.data.caption_files import CaptionRows
from evaluation.data.cells import name_fault, text_fault, unknown_clips
from evaluation.findings import Finding
from evaluation.text import printable

HEADER = ["file_name", "caption", "source"]


@dataclass(frozen=True)
class ExtraCaption:
    """A further caption of a clip.

    Attributes:
        caption: The caption, verbatim.
        source: The name of its source, verbatim.
    """

    caption: str
    source: str


def file_name(split: str) -> str:
    """Return the name of the file with the extra captions of a split."""
    return f"captions_{split}.extra.csv"


def read_extra_captions(
    path: Path, rows: CaptionRows, findings: list[Finding]
) -> Mapping[str, tuple[ExtraCaption, ...]]:
    """Read a file of extra captions, and add errors to the findings.

    Args:
        path: The file.
        rows: The content of the split's caption file.
        findings: The list to which findings are added.

    Returns:
        A dict from the name of each clip that has extra captions to these captions, in the order of the file.
    """
    extra: dict[str, list[ExtraCaption]] = {}
    file = path.name
    records, readable = tables.read_table(path, file, findings)
    header = records[0][1] if records else []
    if header != HEADER:
        if records or readable:
            found = printable(",".join(header)) or "nothing"
            message = f"the header must be {','.join(HEADER)}, with a row for each caption below; found {found}"
            findings.append(Finding(file, 1, message=message))
        return {}
    first_lines: dict[tuple[str, str], int] = {}  # from a clip and a caption to the first line that has both
    unknown: dict[str, list[int]] = {}  # from a name that is not a clip to the lines that have it
    for line, cells in records[1:]:
        if len(cells) != len(HEADER):
            message = f"has {len(cells)} columns where the header has {len(HEADER)}"
            findings.append(Finding(file, line, message=f"{message}; quote a cell that holds a comma"))
            continue
        name, caption, source = cells
        faults = {
            "file_name": name_fault(name),
            "caption": text_fault(caption) or _repetition(name, caption, rows, first_lines),
            "source": text_fault(source, "source"),
        }
        for column, fault in faults.items():
            if fault:
                findings.append(Finding(file, line, column, fault))
        if not faults["file_name"] and rows.names is not None and name not in rows.names:
            unknown.setdefault(name, []).append(line)
        first_lines.setdefault((name, caption), line)
        if not any(faults.values()):
            extra.setdefault(name, []).append(ExtraCaption(caption, source))
    if not records[1:] and readable:
        message = "has a header but no captions; add a row for each caption, or remove the file"
        findings.append(Finding(file, 1, message=message))
    findings += unknown_clips(file, "file_name", unknown, len(extra), rows.names or frozenset())
    return {name: tuple(captions) for name, captions in extra.items()}


def _repetition(name: str, caption: str, rows: CaptionRows, first_lines: Mapping[tuple[str, str], int]) -> str | None:
    """Return a message if a clip has a caption already, in its caption file or on an earlier line, or None."""
    _, captions = rows.clips.get(name, (0, ()))
    if caption in captions:
        column = f"caption_{captions.index(caption) + 1}"
        return f"must differ from the captions of the clip; found its {column}: remove the row"
    if (name, caption) in first_lines:
        return f"is already on line {first_lines[name, caption]} for the clip; keep one of them"
    return None
