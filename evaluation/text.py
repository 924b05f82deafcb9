"""Text that people read: safe to print, short, with suggestions for misspelt names."""

import difflib
import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

SHOWN = 200  # characters of a text that may be of any length


def printable(text: str) -> str:
    r"""Text that is safe to print on one line: control characters and broken surrogates as escapes.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def cut(text: str, length: int = SHOWN) -> str:
    """The beginning of a text that may be of any length."""
    if len(text) <= length:
        return text
    return text[:length] + "…"


def quoted(text: str) -> str:
    """The same in quotes, with what cannot be seen as escapes."""
    return repr(cut(text))


def lookalike(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return a look-up of the name that a person would take for another.

    Blanks at the ends, letter case, HTML entities and the Unicode form may differ.

    >>> lookalike([" Dog.wav", "cat.wav"])("dog.WAV")
    ' Dog.wav'
    """

    def plain(text: str) -> str:
        return unicodedata.normalize("NFC", html.unescape(text)).casefold().strip()

    known = {plain(name): name for name in names}
    return lambda name: known.get(plain(name))


def unknown_key(key: str, known: Sequence[str], what: str = "key") -> str:
    """Say that a key is not known, which one may have been meant, and which there are.

    >>> unknown_key("epoch", ["epochs", "batch"])
    "unknown key 'epoch'; did you mean 'epochs'? there are: epochs, batch"
    """
    begun = [name for name in known if key and name.startswith(key)]
    guess = lookalike(known)(key) or next(iter([*begun, *difflib.get_close_matches(key, known, n=1)]), None)
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
    """Lay rows out as text; the columns in `numbers` are set flush right."""
    align = ["right" if column in numbers else "left" for column in range(len(headers))]
    return tabulate(rows, headers=headers, colalign=align if rows else None, disable_numparse=True, tablefmt="simple")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> plural(1, "note"), plural(2, "note")
    ('1 note', '2 notes')
    """
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"
