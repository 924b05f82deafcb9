"""Work that is spread over ray's workers, a processor each."""

from typing import TYPE_CHECKING

from evaluation.findings import WARNING, BadRequest, Finding, say

if TYPE_CHECKING:
    from ray.util import ActorPool


def pool(worker: type, workers: int, *given: object) -> "ActorPool":
    """Start workers, of the cluster that RAY_ADDRESS names, else of this machine.

    Args:
        worker: What each makes one of, and keeps.
        workers: How many; where ray has fewer processors, as many as these, with a warning.
        given: What each makes it from; sent once.

    Raises:
        BadRequest: ray is not installed.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ModuleNotFoundError:
        message = "spreading over workers needs ray; install it by `make .venv/.cluster`, or ask for no workers"
        raise BadRequest(message) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    # Each holds a processor: one more would wait for ever, and whatever it was given with it.
    if workers > (processors := int(ray.cluster_resources().get("CPU", 0))):
        message = f"{workers} workers are asked for, but ray has {processors} processors; so many workers are started"
        say([Finding("workers", message=message, severity=WARNING)])
        workers = processors
    once = [ray.put(one) for one in given]
    actor = ray.remote(num_cpus=1)(worker)
    return ActorPool([actor.remote(*once) for _ in range(workers)])
