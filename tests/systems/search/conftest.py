"""A made retriever, its data, and its module on the path."""

import sys

import pytest

from tests.systems.made import NAME, make_data, make_module, make_run


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module of the made systems, which a run may name with --trust."""
    (tmp_path / "modules").mkdir()
    make_module(tmp_path / "modules")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "modules" / f"{NAME}.py"
    sys.modules.pop(NAME, None)


@pytest.fixture
def retriever(module, tmp_path):
    return make_run(tmp_path / "retriever", "Retriever")


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")
