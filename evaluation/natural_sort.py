"""Natural order of names with numbers: `file_name_2` comes before `file_name_10`."""

import re


def natural_key(text: str) -> tuple[tuple[object, ...], str]:
    """Return a sort key that compares digits in a text as numbers.

    >>> sorted(["run_10", "run_2", "run_1"], key=natural_key)
    ['run_1', 'run_2', 'run_10']
    """
    parts: list[object] = []
    for index, part in enumerate(re.split("([0-9]+)", text)):
        if index % 2:  # `re.split` returns texts and digits in turn
            digits = part.lstrip("0")
            parts += [len(digits), digits]  # Python refuses to convert thousands of digits with `int`
        else:
            parts.append(part)
    return tuple(parts), text
