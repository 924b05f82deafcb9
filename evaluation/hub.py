"""Names on the Hugging Face hub that are given in place of a run folder."""

import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # USER/NAME
RUNS = Path("runs")  # the folder for predictions with systems from the hub


def hub_name(given: Path) -> str | None:
    """Return the name on the hub that stands in place of a folder, or None if a folder is meant.

    If the folder exists, or if its parent folder exists, the folder is meant.

    >>> hub_name(Path("ann/no-such-captioner")), hub_name(Path("systems/atae")), hub_name(Path("/a/b"))
    ('ann/no-such-captioner', None, None)
    """
    text = given.as_posix()
    if NAME.fullmatch(text) and not given.parent.exists():
        return text
    return None


def prediction_folder(given: Path) -> Path:
    """Return the folder that predictions are written to by default.

    For a name on the hub, this is a folder in `runs`. Otherwise it is the given folder.

    >>> prediction_folder(Path("ann/no-such-captioner")).as_posix()
    'runs/ann--no-such-captioner'
    """
    name = hub_name(given)
    if name is None:
        return given
    return RUNS / name.replace("/", "--")
