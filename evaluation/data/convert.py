"""Conversion of caption files to `captions_SPLIT.csv` in Clotho's layout.

    converted = convert_captions(Path("annotations.json"), Path("data"), "evaluation")
    print(converted.path, converted.clips)

The source is a CSV, a JSON or JSON lines file, or COCO's annotations (`evaluation.caption_formats`). It may have

- a row for each caption: a name and a caption (the rows of a clip need not follow each other);
- a row for each clip: a name and a list of captions, or columns such as `caption_1` … `caption_5` and
  `caption_reference_01` … `caption_reference_05`.

Clips and their captions keep the order of the source. Names and captions are written verbatim.

What Clotho's layout cannot represent
-------------------------------------
- **Different numbers of captions.** Every clip of a split must have the same number. `captions` keeps only the first
  captions of each clip.
- **Names that are not file names**: a name must end in .wav, .flac, .ogg or .mp3, and must not contain a folder.
- **Empty captions**, and captions of several lines.
- **Other columns**, such as tags or times. A note counts them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation import caption_formats
from evaluation.caption_formats import Row, Table
from evaluation.data import tables
from evaluation.data.cells import name_fault, text_fault
from evaluation.data.dataset import SPLITS
from evaluation.files import replacing
from evaluation.findings import NOTE, BadRequest, Faulty, Finding
from evaluation.text import plural, quoted, unknown_key

CAPTIONS = ("caption", "captions", "reference", "references", "mrefs")
_WIDE = re.compile(r"caption(_reference)?_(\d+)")
_NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        path: The written file.
        clips: The number of clips.
        captions: The number of captions of each clip.
        notes: Notes that say how the source was read and what was left out.
    """

    path: Path
    clips: int
    captions: int
    notes: tuple[Finding, ...]


Clips = dict[str, tuple[Row, list[str]]]  # from each name to its first row and its captions


def convert_captions(
    source: Path,
    folder: Path,
    split: str,
    *,
    columns: Mapping[str, str] = _NO_COLUMNS,
    captions: int | None = None,
) -> Converted:
    """Write the captions of a file as `captions_SPLIT.csv` in Clotho's layout, completely or not at all.

    Args:
        source: The file.
        folder: The data folder. It may exist, but must not have captions of the split.
        split: The name of the split.
        columns: The column of the `name` or the `caption` (default: the columns are found by their names).
        captions: The number of captions to keep of each clip, the first ones (default: all captions).

    Raises:
        BadRequest: There is no such file or split, the number of captions is less than one, or the folder has captions
            of the split already.
        Faulty: The file is not valid, or Clotho's layout cannot represent it. The exception lists all findings.
    """
    if split not in SPLITS:
        raise BadRequest(unknown_key(split, SPLITS, "split"))
    if captions is not None and captions < 1:
        raise BadRequest(f"--captions must be 1 or more; found {captions}")
    target = folder / f"captions_{split}.csv"
    for path in (target, folder / f"clotho_captions_{split}.csv"):
        if path.exists():
            raise BadRequest(f"{path}: exists already; give another folder or split, or remove the file")
    table = caption_formats.load(source)
    name_column = caption_formats.choose_name(table, columns)
    caption_columns = _caption_columns(table, columns)
    texts = caption_formats.read_texts(table, name_column, caption_columns)
    findings = texts.findings
    clips: Clips = {}
    for row, name, captions_of_row in zip(texts.rows, texts.names, texts.captions, strict=True):
        findings += _row_findings(table.file, row, name, captions_of_row)
        clips.setdefault(name, (row, []))[1].extend(captions_of_row)
    if findings:
        raise Faulty(findings)
    notes = [caption_formats.describe_columns(table, name_column, caption_columns)]
    others = [column for column in table.columns if column not in (name_column, *caption_columns)]
    if others:
        message = f"{plural(len(others), 'other column')} not written, for example {quoted(others[0])}"
        notes.append(Finding(table.file, message=message, severity=NOTE))
    number, dropped = _number_of_captions(table, clips, captions)
    if dropped:
        message = f"{plural(dropped, 'caption')} left out: only the first {number} of each clip are written"
        notes.append(Finding(table.file, message=message, severity=NOTE))
    rows = [["file_name", *(f"caption_{index}" for index in range(1, number + 1))]]
    rows += [[name, *captions_of_clip[:number]] for name, (_, captions_of_clip) in clips.items()]
    with replacing(target) as part:
        tables.write_table(part, rows)
    return Converted(target, len(clips), number, tuple(notes))


def _caption_columns(table: Table, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns with captions: numbered columns in the order of their numbers, or a single column."""
    numbered = [(int(match[2]), column) for column in table.columns if (match := _WIDE.fullmatch(column))]
    if numbered and "caption" not in columns:
        return tuple(column for _, column in sorted(numbered))
    return (caption_formats.choose_column(table, (CAPTIONS,), "caption", columns),)


def _row_findings(file: str, row: Row, name: str, captions: list[str]) -> list[Finding]:
    """Find what Clotho's layout cannot represent in a row."""
    findings = []
    fault = name_fault(name)
    if fault:
        findings.append(Finding(file, row.line, row.place, f"the name {fault}"))
    if not captions:
        findings.append(Finding(file, row.line, row.place, f"clip {name!r} must have a caption; found none: add one"))
    for caption in captions:
        fault = text_fault(caption)
        if fault:
            findings.append(Finding(file, row.line, row.place, f"the caption of {name!r} {fault}"))
    return findings


def _number_of_captions(table: Table, clips: Clips, requested: int | None) -> tuple[int, int]:
    """Return the number of captions of each clip, and how many captions are left out.

    Raises:
        Faulty: The clips have different numbers of captions, or fewer than requested.
    """
    counts = Counter({name: len(captions) for name, (_, captions) in clips.items()})
    [(most, high), *_], (fewest, low) = counts.most_common(), min(counts.items(), key=lambda item: item[1])
    if requested is None and low < high:
        message = f"every clip must have the same number of captions in Clotho's layout; found {low} ({fewest!r})"
        advice = f"--captions {low} keeps the first {low} of each clip"
        raise Faulty([Finding(table.file, message=f"{message} to {high} ({most!r}): {advice}")])
    number = requested or low
    findings = []
    for name, (row, captions) in clips.items():
        if len(captions) < number:
            message = f"clip {name!r} must have {plural(number, 'caption')} or more; found {len(captions)}"
            findings.append(Finding(table.file, row.line, row.place, f"{message}: give a smaller --captions"))
    if findings:
        raise Faulty(findings)
    return number, counts.total() - number * len(clips)
