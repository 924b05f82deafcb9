"""Functions that join a Ray cluster or start Ray on this machine, and that distribute work over Ray's workers."""

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.findings import WARNING, BadRequest, Finding, say

if TYPE_CHECKING:
    from ray.actor import ActorHandle

CONNECT_SECONDS = 5.0  # maximum time to wait for the answer of a cluster
MESSAGE_LENGTH = 200  # maximum number of characters of another library's message that are shown
ADVICE = "start Ray at that address (ray start --head), or leave --address out to use only this machine"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # hides all GPUs from a worker that was given no GPU
}


def check_ray(address: str, missing: str) -> None:
    """Make sure that Ray is installed, and that the cluster at HOST:PORT answers if such an address is given.

    Args:
        address: HOST:PORT of a cluster, `auto` for the cluster that runs on this machine, or empty to start Ray on this
            machine.
        missing: The message if Ray is not installed.

    Raises:
        BadRequest: Ray is not installed, the address is malformed, or nothing answers at the address.
    """
    # `ray start` protects a cluster with a token if it finds a token. Ray decides during its import whether it uses the
    # token to join a cluster.
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
        address: As for `check_ray`.

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
            f"Ray does not start ({reason}); start a cluster with `ray start --head`, and give the cluster's address"
        ) from None


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Within the block, set environment variables, except those that are set already."""
    added = [name for name in values if name not in os.environ]
    for name in added:
        os.environ[name] = values[name]
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class Workers:
    """Workers on a Ray cluster, which share calls. If a worker dies, for example with its node, others make its calls.

    The cluster is the one that the variable RAY_ADDRESS names (default: Ray is started on this machine).

    Args:
        worker: A class. Each worker creates one instance of the class and keeps it.
        number: Number of workers. If Ray has fewer processors, a warning is printed, and one worker is started on each
            processor.
        *arguments: Arguments of the class. They are sent to Ray only once.

    Raises:
        BadRequest: Ray is not installed or does not start, or the cluster that RAY_ADDRESS names does not answer.
    """

    def __init__(self, worker: type, number: int, *arguments: object):
        check_ray("", "workers need ray; install dcase-kit[cluster], or use no workers")
        import ray

        if not ray.is_initialized():
            start_ray(os.environ.get("RAY_ADDRESS", ""))
        # Each worker occupies a processor. A worker without a processor would never start, and its share of the work
        # would never be done.
        processors = int(ray.cluster_resources().get("CPU", 0))
        if number > processors:
            message = f"must be at most {processors}, Ray's number of processors; found {number}: starting {processors}"
            say([Finding("workers", message=message, severity=WARNING)])
            number = processors
        references = [ray.put(argument) for argument in arguments]
        actor = ray.remote(num_cpus=1)(worker)
        self._actors = [actor.remote(*references) for _ in range(number)]

    def map(self, method: str, calls: Iterable[tuple[object, ...]]) -> Iterator[Any]:
        """Call a method of the workers once for each tuple of arguments, and yield the results in the same order.

        A tuple is read when a worker is free.

        Raises:
            BadRequest: All workers died.
        """
        import ray

        remaining: Iterator[tuple[int, tuple[object, ...]]] = enumerate(calls)
        idle = list(self._actors)
        running: dict[ray.ObjectRef, tuple[int, tuple[object, ...], ActorHandle]] = {}
        results: dict[int, object] = {}
        position = 0  # of the next result to yield
        while True:
            for number, arguments in islice(remaining, len(idle)):
                actor = idle.pop()
                running[getattr(actor, method).remote(*arguments)] = number, arguments, actor
            if not running:
                return
            (reference,), _ = ray.wait(list(running))
            number, arguments, actor = running.pop(reference)
            try:
                results[number] = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                self._remove(actor, error)
                remaining = chain([(number, arguments)], remaining)
                continue
            idle.append(actor)
            while position in results:
                yield results.pop(position)
                position += 1

    def _remove(self, actor: "ActorHandle", error: Exception) -> None:
        """Remove a worker that died.

        Raises:
            BadRequest: It was the last one.
        """
        self._actors.remove(actor)
        reason = " ".join(str(error).split())[:MESSAGE_LENGTH]
        if not self._actors:
            raise BadRequest(f"all workers died; the last one because: {reason}: run the command again to resume")
        message = f"a worker died; the others do its work ({len(self._actors)} left): {reason}"
        say([Finding("workers", message=message, severity=WARNING)])
