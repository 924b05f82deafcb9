"""The description of a trained system for a submission's metadata."""

import pytest

from systems.parts.descriptions import describe_system
from systems.training import Schedule


def test_facts_win_over_defaults_in_the_order_of_the_metadata():
    description = describe_system(Schedule(learning_rate=0.01), 44100, optimizer="AdaBound", audio_modelling="CRNN")
    assert list(description)[:2] == ["input_sampling_rate", "acoustic_features"]
    assert description["input_sampling_rate"] == "44.1kHz"
    assert description["optimizer"] == "AdaBound"
    assert description["audio_modelling"] == "CRNN"
    assert description["learning_rate"] == 0.01
    assert description["metric_monitored"] == "validation loss"


def test_an_unknown_entry_is_refused():
    with pytest.raises(TypeError, match="found colour"):
        describe_system(Schedule(), 16000, colour="red")
