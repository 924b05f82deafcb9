"""Functions that make text safe to print, shorten it, suggest names for misspelt ones, and lay out tables."""

import difflib
import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

SHOWN = 200  # number of characters to show of a text of any length


def printable(text: str) -> str:
    r"""Return text that is safe to print on one line, with control characters and broken surrogates as escapes.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    if text.isprintable():
        return text
    characters = []
    for character in text:
        if not character.isprintable():
            character = character.encode("unicode_escape", "surrogatepass").decode()
        characters.append(character)
    return "".join(characters)


def cut(text: str, length: int = SHOWN) -> str:
    """Return a text, or its beginning and an ellipsis if it is longer than `length` characters."""
    if len(text) <= length:
        return text
    return text[:length] + "…"


def quoted(text: str) -> str:
    """Return the beginning of a text in quotes, with invisible characters as escapes."""
    return repr(cut(text))


def lookalike(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function that finds the name that a given text probably means.

    The name and the text may differ in blanks at the ends, letter case, HTML entities and Unicode form. The function
    returns None if there is no such name.

    >>> lookalike([" Dog.wav", "cat.wav"])("dog.WAV")
    ' Dog.wav'
    """

    def plain(text: str) -> str:
        return unicodedata.normalize("NFC", html.unescape(text)).casefold().strip()

    names_by_plain_text = {plain(name): name for name in names}
    return lambda name: names_by_plain_text.get(plain(name))


def unknown_key(key: str, known: Sequence[str], what: str = "key") -> str:
    """Return the message for an unknown key: the key that was probably meant, and all known keys.

    >>> unknown_key("epoch", ["epochs", "batch"])
    "unknown key 'epoch'; did you mean 'epochs'? there are: epochs, batch"
    """
    candidates = [lookalike(known)(key)]
    if key:
        candidates += [name for name in known if name.startswith(key)]
    candidates += difflib.get_close_matches(key, known, n=1)
    guess = next(filter(None, candidates), None)
    hint = f"did you mean {guess!r}? " if guess else ""
    return f"unknown {what} {key!r}; {hint}there are: {', '.join(known)}"


def first_items(items: Sequence[str], limit: int, separator: str = ", ") -> str:
    """Join the first items of a sequence and count the others.

    Args:
        items: The items.
        limit: Maximum number of items to show.
        separator: Text between the items, and before the count.

    Returns:
        The joined items. If there are more than `limit`, the text ends with "and N more".

    >>> first_items(["a.wav", "b.wav", "c.wav", "d.wav"], limit=2)
    'a.wav, b.wav, and 2 more'
    """
    shown = list(items[:limit])
    others = len(items) - len(shown)
    if others:
        shown.append(f"and {others} more")
    return separator.join(shown)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], numbers: Sequence[int] = ()) -> str:
    """Format rows as a text table, and align the columns whose indices are in `numbers` right."""
    align = None  # tabulate refuses an alignment for a table without rows
    if rows:
        align = ["right" if column in numbers else "left" for column in range(len(headers))]
    return tabulate(rows, headers=headers, colalign=align, disable_numparse=True, tablefmt="simple")


def html_table(
    rows: Sequence[Sequence[object]], headers: Sequence[str], numbers: Sequence[int], notes: Iterable[str]
) -> str:
    """Format rows as an HTML table for a notebook, with the notes in small print below.

    Args:
        rows: The rows.
        headers: The headings of the columns.
        numbers: The indices of the columns to align right.
        notes: The notes, one for each line.
    """
    align = None
    if rows:
        align = ["right" if column in numbers else "left" for column in range(len(headers))]
    text = str(tabulate(rows, headers=headers, colalign=align, disable_numparse=True, tablefmt="html"))
    lines = [html.escape(printable(note)) for note in notes]
    return f"{text}\n<small>{'<br>'.join(lines)}</small>"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> plural(1, "note"), plural(2, "note")
    ('1 note', '2 notes')
    """
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"
