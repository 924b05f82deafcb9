"""Check the names and texts in the cells of a table."""

import unicodedata

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def name_fault(name: str) -> str | None:
    if not name.strip():
        return "is blank; write the name of a sound file"
    if "/" in name or "\\" in name:
        return f"must be a file's name, not a path; found {name!r}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must end in {', '.join(SOUND_SUFFIXES)}; found {name!r}"
    if _has_controls(name):
        return f"must not hold control characters; found {name!r}"
    if len(name.encode()) > 255:
        return f"must not be longer than the 255 bytes that a disk takes; found {name!r}"
    return None


def text_fault(text: str, what: str = "caption") -> str | None:
    if not text.strip():
        return f"is blank; write a {what}"
    if _has_controls(text):
        return f"must be one line without control characters; found {text!r}"
    return None


def _has_controls(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text)
