"""Starting Ray, and distributing work over its workers."""

import os
from types import SimpleNamespace

import pytest

from evaluation.findings import BadRequest
from systems import workers


@pytest.fixture
def ray():
    return pytest.importorskip("ray", reason="the extra `cluster` is not installed")


def test_there_are_no_more_workers_than_processors(ray, monkeypatch, capsys):
    started = []
    worker = SimpleNamespace(remote=started.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "put", lambda one: one)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: worker)
    workers.Workers(object, 3, "given")
    assert started == ["given"] * 2
    assert "must be at most 2, Ray's number of processors; found 3" in capsys.readouterr().err


def test_ray_starts_quietly_and_the_environment_is_restored(ray, monkeypatch):
    calls = []

    def init(address, **options):
        calls.append((address, options, os.environ["RAY_USAGE_STATS_ENABLED"]))

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr(ray, "init", init)
    workers.start_ray("")
    workers.start_ray("node:6379")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    assert calls == [("local", {**quiet, "include_dashboard": False}, "0"), ("node:6379", quiet, "0")]
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_a_setting_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with workers.environment(workers.ENVIRONMENT):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_a_ray_that_does_not_start_is_reported(ray, monkeypatch):
    def init(*_, **__):
        raise RuntimeError("no\n  room")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(BadRequest, match=r"Ray does not start \(no room\)"):
        workers.start_ray("")
    with pytest.raises(BadRequest, match=r"no answer at node:1 \(no room\)"):
        workers.start_ray("node:1")
