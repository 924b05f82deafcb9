"""Every metric has all the entries that it needs. A failing test names the missing entry."""

import numpy as np
import pytest

from evaluation import assets, scores
from evaluation.metrics import captioning, catalogue, retrieval
from evaluation.metrics.catalogue import CAPTIONING, RETRIEVAL, lower_is_better
from evaluation.scores import Items, Measured, Score
from evaluation.statistics.intervals import Estimate


def differences(first: set[str], second: set[str]) -> tuple[list[str], list[str]]:
    return sorted(first - second), sorted(second - first)


def test_every_caption_metric_has_a_formula_and_its_components():
    lacking, unknown = differences({*CAPTIONING}, {*captioning.FORMULAS})
    assert not lacking, f"add a formula to captioning.FORMULAS for {lacking}"
    assert not unknown, f"add an entry to catalogue.CAPTIONING for {unknown}"
    components = {component for metric in CAPTIONING.values() for component in metric.components}
    lacking, unused = differences(components, {*captioning.COMPONENTS})
    assert not lacking, f"add to captioning.COMPONENTS, with function, needs and signature: {lacking}"
    assert not unused, f"no metric of catalogue.CAPTIONING is computed from {unused}; remove from captioning.COMPONENTS"
    assert all(metric.components for metric in CAPTIONING.values()), "each caption metric must name its components"


def test_every_need_can_be_checked_and_fetched():
    known = {*assets.JAVA_PROGRAMS, *assets.ASSETS}
    for name, component in captioning.COMPONENTS.items():
        unknown = {*component.needs} - known
        assert not unknown, f"the component {name} needs {unknown}: add to assets.ASSETS, or to assets.JAVA_PROGRAMS"
    needs = {need for names in captioning.NEEDS.values() for need in names}
    assert not known - needs, f"no metric needs {known - needs}"
    offered = {asset for names in assets.DOWNLOADS.values() for asset in names}
    assert offered == {*assets.ASSETS}, "each asset must be in one of assets.DOWNLOADS"


def test_a_component_without_a_signature_depends_on_nothing():
    unsigned = [name for name, component in captioning.COMPONENTS.items() if component.signature is None]
    assert unsigned == ["vocab"], "a new component must state in its signature what its values depend on"


def test_metrics_weighted_by_the_split_have_exact_intervals():
    weighted = [name for name, metric in CAPTIONING.items() if metric.statistic == "weighted"]
    known = ["cider_d", "spider", "spider_fl"]
    assert weighted == known, (
        "captioning._measure_reweighted must compute the new metric without each clip, as --idf exact"
    )


def test_every_retrieval_metric_has_a_function():
    lacking, unknown = differences({*RETRIEVAL} - {"medR"}, {*retrieval.AT_K})
    assert not lacking, f"add a function to retrieval.AT_K for {lacking}"
    assert not unknown, f"add an entry to catalogue.RETRIEVAL for {unknown}"
    for name in RETRIEVAL:
        metric = name if name == "medR" else f"{name}@5"
        level = retrieval.chance(np.ones((3, 2)), 20, metric)
        assert (level is None) == (name == "medR"), f"retrieval.chance must know {name}"


@pytest.mark.parametrize("name", [*CAPTIONING, *RETRIEVAL])
def test_facts_are_consistent(name):
    metric = catalogue.find(name)
    assert metric.title
    assert metric.low < metric.high


def test_direction():
    assert [name for name in (*CAPTIONING, *RETRIEVAL) if lower_is_better(name)] == ["fer", "medR"]
    assert not lower_is_better("mAP@10")
    assert not lower_is_better("somebody's own metric")


@pytest.mark.parametrize("name", CAPTIONING)
def test_scores_know_which_metrics_are_means(name):
    """A value that is not the mean of the item values is refused only for metrics that are means."""
    values = np.array([0.0, 1.0])
    estimate = Estimate(0.75, 0.1, 0.7, 0.8, 2, "jackknife-95")
    score = Score({name: Measured(estimate, None, values)}, Items("clips", ("a", "b"), (0, 1)), "")
    faults = [str(finding) for finding in scores.check(score, "file") if "the mean of items.values" in str(finding)]
    assert bool(faults) == (CAPTIONING[name].statistic != "corpus")
