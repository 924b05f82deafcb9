"""The sound files of a split's folder: which there are, and whether every clip has one and every one a clip."""

import os
import unicodedata
from collections.abc import Set
from pathlib import Path

from evaluation.data.caption_files import CaptionRows
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.findings import WARNING, Finding
from evaluation.names import closest, explain, hint


def sound_files(folder: Path, listed: Set[str], findings: list[Finding]) -> frozenset[str] | None:
    """The names of the sound files in a folder; None if there is no such folder."""
    if not folder.is_dir():
        return None
    names = []
    for entry in os.scandir(folder):
        is_file = Path(entry.path).is_file()  # not the entry's own, which raises OSError for a link to itself
        if is_file and entry.name.lower().endswith(SOUND_SUFFIXES):
            # A hidden file counts where it has a row, else not: macOS writes ._NAME beside each NAME.
            if entry.name in listed or not entry.name.startswith("."):
                names.append(entry.name)
        elif _broken_link(Path(entry.path)) and entry.name.lower().endswith(SOUND_SUFFIXES):
            if entry.name not in listed:
                message = _broken_link(Path(entry.path))
                findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
        elif entry.name not in listed and not entry.name.startswith("."):
            message = f"is not a sound file ({', '.join(SOUND_SUFFIXES)}); ignored"
            findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
    return frozenset(names)


def match_sounds(folder: Path, file: str, rows: CaptionRows, findings: list[Finding]) -> None:
    """Every clip must have its sound, and every sound its row; one fault is one finding."""
    sounds = sound_files(folder, rows.clips.keys() | rows.refused, findings)
    if not rows.whole:
        return
    if sounds is None:
        message = f"no such folder: the sound of the {len(rows.clips)} clips in {file} is absent"
        findings.append(Finding(f"{folder.name}/", message=message))
        return
    orphans = sounds - rows.clips.keys()
    absent = {}
    for name, (line, _) in rows.clips.items():
        if name in sounds:
            continue
        if broken := _broken_link(folder / name):
            findings.append(Finding(f"{folder.name}/{name}", message=broken))
        else:
            absent[name] = line
    match = explain(absent, orphans)
    if match:
        message = match.message(len(rows.clips), "names", owner="the sound files")
        findings.append(Finding(file, absent[next(iter(match.pairs))], "file_name", message))
        orphans -= set(match.pairs.values())
    meant = closest(sorted(orphans))
    for name, line in absent.items():
        if match and name in match.pairs:
            continue
        close = meant(name)
        message = f"no sound {name!r} in {folder.name}/{hint(name, close)}"
        findings.append(Finding(file, line, "file_name", message))
        orphans -= {close}
    refused = closest(rows.refused)
    for name in orphans:
        if not refused(name):
            message = f"has no row in {file}; add one or take the sound away"
            findings.append(Finding(f"{folder.name}/{name}", message=message))


def _broken_link(path: Path) -> str:
    """Return what is wrong with a link to a file that does not exist; empty for anything else."""
    if not path.is_symlink() or path.exists():
        return ""
    return f"is a link to {path.readlink()}, which does not exist; copy the file there"


def warn_of_equal_names(file: str, rows: CaptionRows, findings: list[Finding]) -> None:
    """Warn of names that are one file on a disk that ignores case or Unicode form."""
    seen: dict[str, str] = {}
    for name, (line, _) in rows.clips.items():
        key = unicodedata.normalize("NFC", name).casefold()
        other = seen.setdefault(key, name)
        if other != name:
            message = f"{name!r} and {other!r} are one file on a disk that ignores case or Unicode form"
            findings.append(Finding(file, line, "file_name" if line else "", message, WARNING))
