"""The published results of each system are shown, with the values of the papers."""

import pytest
import yaml

from evaluation.cli import command
from evaluation.findings import BadRequest
from evaluation.scores import Items, Measured, Score
from evaluation.statistics.intervals import Estimate
from systems import listing, published
from systems.__main__ import parser

UNPUBLISHED = ("systems.answers", "systems.moments")  # the kit's own, without a paper that has results
SYSTEMS = [system.name for system in listing.systems() if system.name not in UNPUBLISHED]
# System, data and values of a row, as the papers print them: without intervals if a paper gives none.
ROWS = {
    "baseline.retriever": [
        ("retriever-published", "Clotho v2 evaluation (development-testing)", "0.068 0.032 0.109 0.188"),
        (
            "retriever-published",
            "DCASE 2022 6B evaluation (1000 clips and captions)",
            "0.061 (0.049–0.072) 0.026 (0.016–0.036) 0.102 (0.083–0.121) 0.176 (0.152–0.200)",
        ),
        (
            "Xu et al.",
            "DCASE 2022 6B evaluation (1000 clips and captions)",
            "0.276 (0.254–0.299) 0.176 (0.152–0.200) 0.416 (0.385–0.447) 0.536 (0.505–0.567)",
        ),
        (
            "Park et al.",
            "DCASE 2022 6B evaluation (1000 clips and captions)",
            "0.075 (0.063–0.088) 0.033 (0.022–0.044) 0.127 (0.106–0.148) 0.208 (0.183–0.233)",
        ),
    ],
    "baseline.captioner": [
        (
            "DCASE 2020 baseline",
            "Clotho evaluation (development-testing)",
            "0.054 0.074 0.033 0.084 0.262 0.389 0.136 0.055 0.015",
        ),
        ("DCASE 2023 baseline", "Clotho evaluation (development-testing)", "0.270 0.261 0.420 0.119 0.177"),
    ],
    "systems.atae": [
        ("Challenge baseline", "Clotho v2 evaluation (development-testing)", "0.070 0.030 0.110 0.190"),
        ("Challenge baseline", "DCASE 2022 6B test set", "0.061"),
        ("ensmbl_5", "Clotho v2 evaluation (development-testing)", "0.299 0.188 0.447 0.587"),
        ("ensmbl_5", "DCASE 2022 6B test set", "0.276"),
        ("Mei_Surrey_1", "Clotho v2 evaluation (development-testing)", "0.260 0.150 0.400 0.530"),
        ("Mei_Surrey_1", "DCASE 2022 6B test set", "0.251"),
        (
            "atae-np-f",
            "Clotho v2 evaluation (development-testing)",
            "0.139 (0.131–0.146) 0.072 (0.065–0.079) 0.225 (0.214–0.236) 0.325 (0.313–0.338)",
        ),
        ("atae-np-f", "DCASE 2022 6B test set", "0.128"),
        ("ablation-5", "Clotho v2 evaluation (development-testing)", "0.233"),
    ],
    "systems.clip_aac": [
        ("GRU Baseline", "Clotho evaluation", "0.389 0.136 0.055 0.015 0.262 0.084 0.074 0.033 0.054"),
        ("PreCNN Transformer", "Clotho evaluation", "0.534 0.343 0.230 0.151 0.356 0.160 0.346 0.108 0.227"),
        ("CL4AC", "Clotho evaluation", "0.553 0.349 0.226 0.143 0.374 0.168 0.368 0.115 0.242"),
        ("AT-CNN10", "Clotho evaluation", "0.556 0.363 0.242 0.159 0.368 0.169 0.377 0.115 0.246"),
        ("TL + RLSSR", "Clotho evaluation", "0.551 0.369 0.252 0.168 0.373 0.165 0.380 0.111 0.246"),
        ("system-9", "Clotho evaluation", "0.572 0.379 0.257 0.169 0.379 0.171 0.407 0.118 0.263"),
    ],
    "systems.offtheshelf": [
        ("coala", "Clotho v2 evaluation (development-testing)", "0.1495 ± 0.0044"),
        ("offtheshelf", "Clotho v2 evaluation (development-testing)", "0.1793 ± 0.0066"),
    ],
    "systems.caption_retrieval": [
        ("triplet", "AudioCaps test", "0.475 0.288 0.177 0.104 0.162 0.306 0.331 0.109"),
        ("Top1-BERTScore", "AudioCaps test", "0.740 0.599 0.482 0.381 0.291 0.952 0.592 0.186"),
    ],
    "systems.guided_gpt2": [
        ("whole", "AudioCaps test", "0.638 0.458 0.318 0.204 0.199 0.503 0.434 0.139"),
        ("human", "AudioCaps test", "0.654 0.489 0.373 0.291 0.288 0.913 0.496 0.216"),
    ],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_shows_its_published_results(name, capsys):
    assert command(parser(), ["published", name]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:2] == ["system", "data"]
    assert shown[-1].startswith("published: ")
    cells = [" ".join(line.split()) for line in shown]
    for system, data, figures in ROWS[name]:
        (row,) = [line for line in cells if line.startswith(f"{system} {data} {figures} published")]
        assert row


@pytest.mark.parametrize("name", SYSTEMS)
def test_configs_of_published_results_are_those_of_the_system(name):
    place = published._place(name)
    content = published.read_published(listing.published_file(place))
    configs = {path.stem for path in listing.configs(place)}
    assert {result["config"] for result in content.results if "config" in result} <= configs
    assert all(
        figure for result in content.results for data in content.data for figure in result.get(data, {}).values()
    )


def test_the_baselines_have_their_published_configs():
    configs = {system.name: {path.name for path in system.configs} for system in listing.systems()}
    for name in ("retriever", "captioner"):
        assert configs[f"baseline.{name}"] == {f"{name}.yaml", f"{name}-published.yaml"}


GOOD = {"source": "a paper", "metrics": ["R@1"], "data": {"evaluation": "a set"}}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"evaluation": {"R@1": [0.1]}}], "result 1: must have either config or system"),
        ([{"config": "a", "system": "b"}], "result 1: must have either config or system"),
        ([{"config": "a"}, {"config": "b", "test": {}}], "result 2: unknown key 'test'; it must be one of data"),
        ([{"config": "a", "evaluation": {"R@5": [1]}}], "result 1: unknown metric 'R@5'; it must be one of metrics"),
        ([{"config": "a", "evaluation": {"R@1": "high"}}], "results.0.evaluation"),
    ],
)
def test_a_file_of_results_that_is_not_valid(tmp_path, results, message):
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "results": results}))
    with pytest.raises(BadRequest) as refused:
        published.read_published(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert message in str(refused.value)


def test_best_runs_are_those_of_the_best_setting_of_each_level(tmp_path):
    rows = ["run,size,margin,seed,mAP@10", "a,8,1,0,0.5", "worse,8,2,0,0.2", "b,9,2,0,0.1", "c,8,1,1,0.3"]
    (tmp_path / "results.csv").write_text("\n".join(rows))
    assert published.best_runs(tmp_path, "size") == [tmp_path / "runs" / name for name in "abc"]
    with pytest.raises(BadRequest, match="--by: unknown factor 'sizes'; did you mean 'size'"):
        published.best_runs(tmp_path, "sizes")
    (tmp_path / "results.csv").write_text("run,size,seed,mAP@10\na,8,0,0.5\nb,9,0,0.1\n")
    assert published.best_runs(tmp_path, "size") == [tmp_path / "runs" / name for name in "ab"]


@pytest.mark.parametrize(
    ("value", "has_sd", "expected"),
    [
        ([0.139, 0.131, 0.146], False, "0.139 (0.131–0.146)"),
        ([0.139], False, "0.139"),
        ([0.139], True, "0.1390"),
        ({"mean": 0.1495, "sd": 0.0044}, True, "0.1495 ± 0.0044"),
    ],
)
def test_published_values(value, has_sd, expected):
    assert published._published_value(value, has_sd) == expected


def test_measured_values_of_several_runs():
    items = Items("clips", ("a", "b"), (0, 1))
    runs = []
    for value in (0.2, 0.4):
        estimate = Estimate(value, 0.1, value - 0.1, value + 0.1, 2, "jackknife-95")
        runs.append(Score({"R@1": Measured(estimate)}, items, "a:b"))
    assert published._measured_value(runs[:1], "R@1", has_sd=False) == "0.200 (0.100–0.300)"
    assert published._measured_value(runs[:1], "R@1", has_sd=True) == "0.2000 (0.1000–0.3000)"
    assert published._measured_value(runs, "R@1", has_sd=True) == "0.3000 ± 0.1414"
    # Student's t with one degree of freedom: 12.706 standard errors of 0.1.
    assert published._measured_value(runs, "R@1", has_sd=False) == "0.300 (-0.971–1.571)"


def test_a_system_without_published_results(tmp_path, monkeypatch, capsys):
    (tmp_path / "lonely.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert command(parser(), ["published", "lonely"]) == 2
    file = tmp_path / "published" / "lonely.yaml"
    expected = f"error: lonely must have a file of published results; found no file {file}: write it\n"
    assert capsys.readouterr().err == expected
