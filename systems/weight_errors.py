"""A short error message for weights that do not fit a model."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.findings import BadRequest
from evaluation.text import first_items

SHOWN = 3  # maximum number of parameters that the message names for each kind of difference
ADVICE = "undo changes of the code, put the run's own checkpoints back, or train into a new folder"
# Patterns for the lines of torch's error message
MISSING = re.compile(r"Missing key\(s\) in state_dict: (.+)")
UNEXPECTED = re.compile(r"Unexpected key\(s\) in state_dict: (.+)")
QUOTED = re.compile(r"\"([^\"]+)\"")
SIZES = re.compile(
    r"size mismatch for (.+): copying a param with shape torch\.Size\(\[(.*)\]\) from checkpoint, "
    r"the shape in current model is torch\.Size\(\[(.*)\]\)"
)


@contextlib.contextmanager
def weights_must_fit(place: Path) -> Iterator[None]:
    """Turn torch's errors about weights or an optimiser's state that do not fit a model into `BadRequest`.

    Args:
        place: The checkpoint or the run folder that the weights come from, for the message.

    Raises:
        BadRequest: The block loaded weights whose names or shapes differ from those of the model, or the state of an
            optimiser for another number of parameters. For weights, the message names the first parameters that
            differ.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if text.startswith("Error(s) in loading state_dict"):
            differences = _differences(text)
        elif text.startswith("loaded state dict "):  # torch's message for the state of an optimiser
            differences = "found the optimiser's state for another number of parameters"
        else:
            raise
        message = f"must contain weights of the model that the config and the present code describe; {differences}"
        raise BadRequest(f"{place}: {message}: {ADVICE}") from None


def _differences(error: str) -> str:
    r"""Return the differences that an error message of `load_state_dict` lists, as one line.

    >>> _differences('Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: "a", "b". ')
    'found no weights for a, b'
    """
    kinds = []
    sizes = []
    for name, found, expected in SIZES.findall(error):
        sizes.append(f"{name} of shape ({found}) where the model has ({expected})")
    if sizes:
        kinds.append("found " + first_items(sizes, SHOWN))
    for pattern, what in ((MISSING, "no weights for"), (UNEXPECTED, "weights that the model does not have:")):
        for names in pattern.findall(error):
            kinds.append(f"found {what} {first_items(QUOTED.findall(names), SHOWN)}")
    if kinds:
        return "; ".join(kinds)
    return "found other weights"
