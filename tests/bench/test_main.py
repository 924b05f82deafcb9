import pytest

from bench.__main__ import MEASURES, resolve_measures
from evaluation.findings import BadRequest


def test_hyphen_and_underscore_are_equivalent():
    assert resolve_measures(["clip-aac", "left-out", "verdict"]) == ["clip-aac", "left_out", "verdict"]
    assert resolve_measures(["clip_aac", "left_out"]) == ["clip-aac", "left_out"]


def test_all_measures_by_default():
    assert resolve_measures([]) == list(MEASURES)


@pytest.mark.parametrize(
    ("name", "meant"), [("verdit", "verdict"), ("Left_out", "left_out"), ("cliip_aac", "clip-aac")]
)
def test_a_misspelt_measure_gets_the_nearest_name(name, meant):
    with pytest.raises(BadRequest, match=f"unknown measure '{name}'; did you mean '{meant}'[?] there are: store, "):
        resolve_measures([name])
