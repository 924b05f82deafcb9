"""Checks of names and texts in the cells of a table."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from evaluation.findings import Finding
from evaluation.names import closest, explain, hint
from evaluation.text import quoted

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def name_fault(name: str) -> str | None:
    """Return a message if a data folder cannot have an audio file of this name, or None."""
    if not name.strip():
        return "is blank; write the name of an audio file"
    fault = audio_name_fault(name)
    if fault:
        return fault
    if _has_controls(name):
        return f"must not contain control characters; found {quoted(name)}"
    if len(name.encode()) > 255:
        return f"must have at most 255 bytes, the limit of file systems; found {quoted(name)}"
    return None


def audio_name_fault(name: str) -> str | None:
    """Return a message if a text is a path or does not end as the name of an audio file, or None."""
    if "/" in name or "\\" in name:
        return f"must be a file name, not a path; found {quoted(name)}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must end in {', '.join(SOUND_SUFFIXES)}; found {quoted(name)}"
    return None


def text_fault(text: str, what: str = "caption") -> str | None:
    """Return a message if a text is blank or has control characters, or None. `what` is the noun for the text."""
    if not text.strip():
        return f"is blank; write a {what}"
    if _has_controls(text):
        return f"must be one line without control characters; found {text!r}"
    return None


def unknown_clips(
    file: str, column: str, unknown: Mapping[str, Sequence[int]], listed: int, file_names: frozenset[str]
) -> Iterable[Finding]:
    """Yield findings for the names in a table that are not clips. Many names that differ in one way are one finding.

    Args:
        file: The file's name in findings.
        column: The column with the names.
        unknown: A dict from each name that is not a clip to the lines that have it.
        listed: The number of different names in the table.
        file_names: The names of all clips.
    """
    match = explain(unknown, file_names)
    if match:
        message = match.message(listed, "names")
        yield Finding(file, unknown[next(iter(match.pairs))][0], column, message)
    meant = closest(file_names)
    for name, lines in unknown.items():
        if match and name in match.pairs:
            continue
        message = f"unknown clip {name!r}{hint(name, meant(name))}"
        for line in lines:
            yield Finding(file, line, column, message)


def _has_controls(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text)
