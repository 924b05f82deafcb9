"""The order that people expect of names with numbers: `file_name_2` before `file_name_10`."""

import re


def natural_key(text: str) -> tuple[tuple[object, ...], str]:
    """Return a key to sort texts by, in which a run of digits counts as the number that it is.

    >>> sorted(["run_10", "run_2", "run_1"], key=natural_key)
    ['run_1', 'run_2', 'run_10']
    """
    parts: list[object] = []
    for place, part in enumerate(re.split("([0-9]+)", text)):
        if place % 2:  # the digits
            digits = part.lstrip("0")
            parts += [len(digits), digits]  # not `int`, which Python refuses for thousands of digits
        else:
            parts.append(part)
    return tuple(parts), text
