"""Ray: join a cluster or start Ray on this machine, and distribute work over its workers."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.findings import WARNING, BadRequest, Finding, say

if TYPE_CHECKING:
    from ray.util import ActorPool

CONNECT_SECONDS = 5.0  # longest time to wait for an answer of a cluster
MESSAGE_LENGTH = 200  # characters that are shown of another library's message
ADVICE = "start ray there (ray start --head), or leave --address out to use this machine alone"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU must see none
}


def check_ray(address: str, missing: str) -> None:
    """Make sure that Ray is installed, and that the cluster answers.

    Args:
        address: HOST:PORT of a cluster, `auto` for the one on this machine, or empty for this machine alone.
        missing: The message if Ray is not installed.

    Raises:
        BadRequest: Ray is not installed, the address is malformed, or nothing answers there.
    """
    # `ray start` protects a cluster with a token if it finds one. Ray decides on import whether to join with the token.
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if address and (token.is_file() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise BadRequest(missing) from None
    if address in ("", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or "//" in host:
        raise BadRequest(f"--address must be HOST:PORT or auto; found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError is raised for a name such as `..`
        reason = getattr(error, "strerror", None) or error
        raise BadRequest(f"no answer at {address} ({reason}); {ADVICE}") from None


def start_ray(address: str) -> None:
    """Join a cluster, or start Ray on this machine.

    Args:
        address: As in `check_ray`.

    Raises:
        BadRequest: The cluster does not answer, or Ray does not start.
    """
    import ray

    options: dict[str, object] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        options["include_dashboard"] = False
    try:
        with environment(ENVIRONMENT):
            ray.init(address or "local", **options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:MESSAGE_LENGTH]
        if address:
            raise BadRequest(f"no answer at {address} ({reason}); {ADVICE}") from None
        raise BadRequest(
            f"Ray does not start ({reason}); start a cluster with `ray start --head`, and give its address"
        ) from None


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Within the block, set the environment variables that are not set already."""
    added = [name for name in values if name not in os.environ]
    for name in added:
        os.environ[name] = values[name]
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def pool(worker: type, workers: int, *arguments: object) -> "ActorPool":
    """Start workers on the cluster in the variable RAY_ADDRESS (default: on this machine).

    Args:
        worker: Class; each worker makes one instance and keeps it.
        workers: Number of workers. If Ray has fewer processors, it starts one worker on each, with a warning.
        *arguments: Arguments of the class; they are sent to Ray only once.

    Raises:
        BadRequest: Ray is not installed or does not start.
    """
    check_ray("", "workers need ray; install it by `make .venv/.cluster`, or use no workers")
    import ray
    from ray.util import ActorPool

    if not ray.is_initialized():
        start_ray(os.environ.get("RAY_ADDRESS", ""))
    # Each worker occupies a processor. One worker more would wait forever, and so would its share of the work.
    processors = int(ray.cluster_resources().get("CPU", 0))
    if workers > processors:
        message = f"must be at most the number of Ray's processors, {processors}; found {workers}: {processors} start"
        say([Finding("workers", message=message, severity=WARNING)])
        workers = processors
    references = [ray.put(argument) for argument in arguments]
    actor = ray.remote(num_cpus=1)(worker)
    return ActorPool([actor.remote(*references) for _ in range(workers)])
