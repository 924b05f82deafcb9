"""Two Ray nodes on this machine, one of which is lost while it works."""

import csv
import os
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.findings import Faulty
from systems import workers
from systems.caching import embeddings
from systems.sweeps import sweep
from tests.systems.caching.test_embeddings import small

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `cluster` is not installed")

ROOT = Path(__file__).parents[3]


# Ray usually asks each node every 3 s whether it works, and takes a node for lost after five failures. A node of these
# tests is a process that has ended, so a question fails at once. A slow answer of a busy machine is still waited for.
QUICK_LOSS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster(place):
    """A cluster of two nodes with one processor each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(place / "modules")]))
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK_LOSS}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def lose_node(cluster):
    """A function that removes one of the two nodes. A node that an earlier test removed is replaced."""
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1)

    def lose_node():
        (node,) = cluster.worker_nodes
        cluster.remove_node(node, allow_graceful=False)
        time.sleep(3)  # the workers of the node end when they find that their node does not answer

    return lose_node


def test_embeddings_of_a_lost_node_are_computed(lose_node, tmp_path, monkeypatch, capsys):
    import ray

    class Losing(workers.Workers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            ray.get([actor.__ray_ready__.remote() for actor in self._actors])

        def map(self, method, calls):
            for number, result in enumerate(super().map(method, calls)):
                if number == 1:
                    lose_node()
                yield result

    monkeypatch.setattr(embeddings, "Workers", Losing)
    encoder, paths = small(), [tmp_path / f"{number}.wav" for number in range(12)]
    rng = np.random.default_rng(0)
    for path in paths:
        soundfile.write(path, rng.normal(0, 0.1, 60_000), 44_100)
    paths[1].write_text("no sound")
    with pytest.raises(Faulty) as fault:
        embeddings.embed(paths, encoder, tmp_path / "spread", workers=2)
    assert "a worker died; the others do its work (1 left)" in capsys.readouterr().err
    assert [Path(finding.file).name for finding in fault.value.findings] == ["1.wav"]
    good = [paths[0], *paths[2:]]
    monkeypatch.setattr(embeddings, "Workers", None)  # all others are in the cache
    by_workers = embeddings.embed(good, encoder, tmp_path / "spread", workers=2)
    here = embeddings.embed(good, encoder, tmp_path / "here")
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(by_workers, here, strict=True))


@pytest.mark.slow
def test_runs_of_a_lost_node_are_made_again(cluster, lose_node, place, write, tmp_path):
    """The node is lost when two of six runs are done, while other runs are being made."""
    file = write({"system": "slow_curve", "set": {"epochs": 2}, "grid": {"gain": [0.5, 1.0]}, "seeds": 3})
    out = tmp_path / "out"
    nodes = set()
    ended = threading.Event()

    def lose():
        while len(done := [*out.glob("runs/*/system.yaml")]) < 2:
            if ended.wait(0.1):
                return
        nodes.update((run.parent / "node").read_text() for run in done)
        lose_node()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        failed = sweep.sweep(file, place / "data", out, cache=tmp_path / "cache", address=cluster.address)
    finally:
        ended.set()
        thread.join()
    assert failed == 0
    with (out / "results.csv").open() as results:
        table = [*csv.DictReader(results)]
    assert [row["state"] for row in table] == ["done"] * 6
    for row in table:
        gain = float(row["gain"])
        assert torch.load(out / "runs" / row["run"] / "checkpoints" / "best.ckpt") == [gain, 2 * gain]
    assert len(nodes) == 2
