"""Small trained runs of three systems, and what `systems export` makes of them."""

import pytest

from evaluation.cli import command
from systems.__main__ import parser
from tests.brief import make_brief_soundscapes

SETTINGS = {
    "systems.examples.spectra": ["steps=2"],
    "baseline.retriever": ["epochs=1", "words_epochs=1"],
    "baseline.captioner": ["epochs=1", "words_epochs=1", "blocks=1", "heads=2", "head_size=8", "hidden=16"],
}


def systems(*words):
    """Run a command of `systems`, and return its exit status."""
    return command(parser(), [str(word) for word in words])


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing") / "brief"
    return make_brief_soundscapes(folder, development=11, validation=4, evaluation=11)


@pytest.fixture(scope="session")
def runs(data, tmp_path_factory):
    """A function that returns the folder of a trained run of a system, which has a prediction."""
    made = {}

    def run_of(system):
        if system not in made:
            run = tmp_path_factory.mktemp("runs") / system
            settings = [word for setting in SETTINGS[system] for word in ("--set", setting)]
            cache = data / "cache"
            place = ["--data", data, "--run", run, "--cache", cache, "--accelerator", "cpu"]
            assert systems("train", system, *place, *settings) == 0
            assert systems("predict", run, "--data", data) == 0
            made[system] = run
        return made[system]

    return run_of


@pytest.fixture
def exported(runs, tmp_path):
    """The example system as an exported folder, which the test may change."""
    folder = tmp_path / "exported"
    assert systems("export", runs("systems.examples.spectra"), folder) == 0
    return folder
