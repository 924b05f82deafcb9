"""Short error messages for processes that train a run together and lose each other."""

import contextlib
import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch.distributed

from evaluation.findings import BadRequest
from evaluation.text import cut

# Gloo connects the processes of a training on CPUs. Its messages contain the place in its source code, except the
# message of an operation that waits while another operation reaches the timeout.
GLOO_PLACE = re.compile(r"\[\S*third_party/gloo\S*\] ")
GLOO_TIMEOUT = "Application timeout caused pair closure"


@contextlib.contextmanager
def must_stay_connected(folder: Path) -> Iterator[None]:
    """Turn torch's errors about the connection of processes into `ConnectionError`.

    Args:
        folder: The run folder, for the message.

    Raises:
        ConnectionError: The block used a connection to another process, but this process ended, or did not answer
            within the timeout.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_from_torch = torch.distributed.is_available() and isinstance(error, torch.distributed.DistError)
        is_from_gloo = GLOO_PLACE.search(text) or GLOO_TIMEOUT in text
        if not is_from_torch and not is_from_gloo:
            raise
        reason = GLOO_PLACE.sub("", text.partition("\n")[0]).rstrip(". ")
        message = (
            f"must be trained by processes that stay connected; found: {cut(reason)}; look at the output of the other "
            "processes, and run the same commands again to resume"
        )
        raise ConnectionError(errno.ECONNABORTED, message, str(folder)) from None


def require_same_epoch(folder: Path, epochs: Sequence[int]) -> None:
    """Make sure that all processes of a training resume after the same epoch.

    Args:
        folder: The run folder, for the message.
        epochs: The number of epochs that each process found in its last.ckpt, or 0 if it found none.

    Raises:
        BadRequest: The numbers differ, because the processes do not use the same folder.
    """
    if len(set(epochs)) == 1:
        return
    found = ", ".join(map(str, epochs))
    raise BadRequest(
        f"{folder}: must be a folder that all machines of the training share; found last.ckpt after different numbers "
        f"of epochs ({found}): give a folder on a shared file system to each of the commands"
    )
