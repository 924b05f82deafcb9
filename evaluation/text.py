"""Text that people read: counts of things."""


def plural(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> plural(1, "note"), plural(2, "note")
    ('1 note', '2 notes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
