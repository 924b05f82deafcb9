"""The audio files in the folder of a split, and the check that clips and audio files match."""

import os
import unicodedata
from collections.abc import Set
from pathlib import Path

from evaluation.data.caption_files import CaptionRows
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.findings import WARNING, Finding
from evaluation.names import closest, explain, hint


def sound_files(folder: Path, listed: Set[str], findings: list[Finding]) -> frozenset[str] | None:
    """Return the names of the audio files in a folder, or None if the folder does not exist.

    Args:
        folder: The folder.
        listed: Names in the caption file. Files with these names are kept even if they are hidden.
        findings: The list to which warnings are added.
    """
    if not folder.is_dir():
        return None
    names = []
    for entry in os.scandir(folder):
        is_file = Path(entry.path).is_file()  # `entry.is_file` raises OSError for a link to itself
        if is_file and entry.name.lower().endswith(SOUND_SUFFIXES):
            # Ignore hidden files without a row: macOS writes a ._NAME for each NAME.
            if entry.name in listed or not entry.name.startswith("."):
                names.append(entry.name)
        elif _broken_link(Path(entry.path)) and entry.name.lower().endswith(SOUND_SUFFIXES):
            if entry.name not in listed:
                message = _broken_link(Path(entry.path))
                findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
        elif entry.name not in listed and not entry.name.startswith("."):
            message = f"is not an audio file ({', '.join(SOUND_SUFFIXES)}); ignored"
            findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
    return frozenset(names)


def match_sounds(folder: Path, file: str, rows: CaptionRows, findings: list[Finding]) -> None:
    """Add findings for the clips without an audio file and for the audio files without a row.

    A clip and an audio file with similar names give one finding, and so do many names that differ in the same way.
    """
    sounds = sound_files(folder, rows.clips.keys() | rows.refused, findings)
    if not rows.whole:
        return
    if sounds is None:
        message = f"no such folder; it must contain the audio of the {len(rows.clips)} clips in {file}"
        findings.append(Finding(f"{folder.name}/", message=message))
        return
    orphans = sounds - rows.clips.keys()
    absent = {}
    for name, (line, _) in rows.clips.items():
        if name in sounds:
            continue
        link_fault = _broken_link(folder / name)
        if link_fault:
            findings.append(Finding(f"{folder.name}/{name}", message=link_fault))
        else:
            absent[name] = line
    match = explain(absent, orphans)
    if match:
        message = match.message(len(rows.clips), "names", owner="the audio files")
        findings.append(Finding(file, absent[next(iter(match.pairs))], "file_name", message))
        orphans -= set(match.pairs.values())
    meant = closest(sorted(orphans))
    for name, line in absent.items():
        if match and name in match.pairs:
            continue
        close = meant(name)
        message = f"no audio file {name!r} in {folder.name}/{hint(name, close)}"
        findings.append(Finding(file, line, "file_name", message))
        orphans -= {close}
    refused = closest(rows.refused)
    for name in orphans:
        if not refused(name):
            message = f"has no row in {file}; add a row or remove the audio file"
            findings.append(Finding(f"{folder.name}/{name}", message=message))


def _broken_link(path: Path) -> str:
    """Return a message for a link to a file that does not exist, or "" for any other path."""
    if not path.is_symlink() or path.exists():
        return ""
    return f"is a link to {path.readlink()}, which does not exist; copy the file there"


def warn_of_equal_names(file: str, rows: CaptionRows, findings: list[Finding]) -> None:
    """Warn of names that are the same file on a disk that ignores case or Unicode form."""
    seen: dict[str, str] = {}
    for name, (line, _) in rows.clips.items():
        key = unicodedata.normalize("NFC", name).casefold()
        other = seen.setdefault(key, name)
        if other != name:
            message = f"{name!r} and {other!r} are the same file on a disk that ignores case or Unicode form"
            column = "file_name" if line else ""  # a blind set has no caption file
            findings.append(Finding(file, line, column, message, WARNING))
