"""What factors do: means, tests against scipy and plain enumeration, tables, figures, and files that do not hold."""

import csv
import itertools
import math
import re
import statistics
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib import rc_context
from scipy import stats

from evaluation.__main__ import parser
from evaluation.findings import BadRequest, Faulty, command
from evaluation.statistics import factors
from evaluation.statistics.comparison import holm

LEVELS = {"encoder": ["yamnet", "coala"], "adapter": ["mlp", "mha", "none"], "words & $more": ["a_1$b$", "<c>"]}
EFFECTS = {"coala": -0.1, "mha": 0.05, "none": -0.01, "<c>": 0.0}


def write(path, rows, head=("run", *LEVELS, "seed", "state", "seconds", "error", "mAP@10", "medR")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def rows(seeds=3, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    for levels in itertools.product(*LEVELS.values()):
        for number in range(seeds):
            value = 0.5 + sum(EFFECTS.get(level, 0) for level in levels) + rng.normal(0, noise)
            yield ["_".join(levels), *levels, number, "done", "1.0", "", value, 1 / value]


@pytest.fixture
def results(tmp_path):
    return factors.read(write(tmp_path / "results.csv", rows()))


def test_settings_have_the_mean_sd_and_best_of_their_seeds(results):
    found = {one.levels: one for one in factors.settings(results.runs, results.metric)}
    assert len(found) == 12
    values = [run.value for run in results.runs if run.levels == ("coala", "mha", "<c>")]
    one = found["coala", "mha", "<c>"]
    assert (one.n, one.best) == (3, max(values))
    assert one.mean == pytest.approx(statistics.mean(values), abs=1e-15)
    assert one.sd == pytest.approx(statistics.stdev(values), abs=1e-15)
    assert [one.levels[0] for one in factors.best(results, "encoder")] == ["yamnet", "coala"]
    assert all(one.levels[1] == "mha" for one in factors.best(results, "encoder"))


def test_of_a_rank_the_least_is_best(tmp_path):
    path = write(tmp_path / "results.csv", rows())
    results = factors.read(path, "medR")
    found = factors.best(results, "encoder")[0]
    assert found.levels[1] == "mha"
    assert found.best == min(run.value for run in results.runs if run.levels == found.levels)
    assert factors.marginal(results, "adapter")[0].best == min(run.value for run in results.having("adapter", "mlp"))
    (test,) = factors.contrasts(results, "encoder")
    assert (test.better, test.worse) == ("yamnet", "coala")
    assert test.difference < 0
    assert test.p < 0.05


def plain_p(differences):
    """The test as it is defined: the share of all signs whose W is as small, and no table or approximation."""
    differences = [difference for difference in differences if difference]
    ranks = stats.rankdata(np.abs(differences))
    found = ranks[np.array(differences) < 0].sum()
    every = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=len(differences))]
    return found, np.mean([w <= found for w in every])


@pytest.mark.parametrize(
    "differences",
    [
        [0.3, 0.1, -0.2, 0.5, 0.4, 0.7],
        [0.1, 0.1, -0.1, 0.2, 0.3],
        [0.3 - 0.2, 0.1, 0.2 - 0.1, -0.1, 0.2, 0.0],  # tied but for rounding, and one without a difference
        [-0.1, -0.2, -0.3],
        [0.25],
    ],
)
def test_wilcoxon_is_what_enumerating_all_signs_gives(differences):
    w, p = plain_p([round(difference, 9) for difference in differences])
    assert factors.wilcoxon(differences) == pytest.approx((w, p), abs=1e-12)


@pytest.mark.parametrize("n", [20, 50, 80])
def test_wilcoxon_is_scipys(n):
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    method = "exact" if n <= 50 else "asymptotic"
    w, p = factors.wilcoxon(differences)
    assert p == pytest.approx(stats.wilcoxon(differences, alternative="greater", method=method).pvalue, rel=1e-12)
    assert w == stats.wilcoxon(-differences, alternative="greater", method=method).statistic


@pytest.mark.parametrize(
    ("w", "published", "exact"),
    [(84, 8.08e-7, 6.61e-8), (112, 3.92e-6, 7.21e-7)],
    ids=["COALA", "YAMNet"],
)
def test_weck_et_al_2021s_figures_are_the_normal_approximation_for_44_pairs(w, published, exact):
    """Section 4, overlap against none: W = 84, p < 8.08e-07, and W = 112, p < 3.92e-06."""

    def normal_p(n):
        deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return stats.norm.cdf((w - n * (n + 1) / 4) / deviation)

    numbers = [n for n in range(20, 133) if f"{normal_p(n):.2e}" == f"{published:.2e}"]
    assert numbers == [44]

    differences, left = [], w
    for rank in range(44, 0, -1):  # with W the sum of the ranks of those below zero
        below = rank <= left
        left -= rank * below
        differences.append(-float(rank) if below else float(rank))
    asked = stats.wilcoxon(differences, alternative="greater", method="asymptotic").pvalue
    assert factors.wilcoxon(differences, normal=True) == pytest.approx((w, asked), rel=1e-12)
    assert f"{asked:.2e}" == f"{published:.2e}"

    asked = stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert factors.wilcoxon(differences) == pytest.approx((w, asked), rel=1e-12)
    assert f"{asked:.2e}" == f"{exact:.2e}"


def test_no_difference_is_no_evidence():
    assert factors.wilcoxon([0.0, 0.0]) == (0.0, 1.0)


def test_pairs_differ_in_one_factor_and_are_means_over_the_seeds_that_both_have(tmp_path):
    content = [
        ["r", "x", "k", 0, 0.5],
        ["r", "x", "k", 1, 0.9],
        ["r", "y", "k", 1, 0.6],  # seed 0 failed: only seed 1 is paired
        ["r", "x", "l", 0, 0.3],
        ["r", "y", "l", 0, 0.4],
        ["r", "x", "m", 0, 0.8],  # nothing to pair it with
    ]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "b", "seed", "mAP@10")))
    differences, of = factors.pairs(results, "a", "x", "y")
    assert differences == pytest.approx([0.3, -0.1])
    assert of == "settings"


def test_of_a_single_factor_the_pairs_are_seeds(tmp_path):
    content = [
        ["r", level, seed, 0.1 * seed + (level == "x") * (0.1 + 0.01 * seed)] for level in "xy" for seed in range(6)
    ]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "seed", "mAP@10")))
    (test,) = factors.contrasts(results, "a")
    assert (test.better, test.pairs, test.of, test.statistic) == ("x", 6, "seeds", 0)
    assert test.p == pytest.approx(1 / 64)
    assert test.p_holm == pytest.approx(2 / 64)  # the other direction was tested, too
    assert test.tests == 2
    assert (test.smallest_p, test.smallest_p_holm) == (1 / 64, 2 / 64)


STEPS = ("contrastive", "all pairs", "text-audio", "+ tune text", "+ pretrain", "+ tune audio")


def ablation(tmp_path, seeds):
    """An ablation whose steps do not overlap, by at least .05 between neighbours."""
    rng = np.random.default_rng(0)
    content = []
    for number, step in enumerate(STEPS):
        content += [["r", step, seed, 0.1 * (number + 1) + rng.uniform(0, 0.05)] for seed in range(seeds)]
    return write(tmp_path / "ablation.csv", content, ("run", "step", "seed", "mAP@10"))


def test_five_seeds_of_six_steps_can_mark_nothing_and_the_report_says_so(tmp_path, capsys):
    path = ablation(tmp_path, 5)
    tests = factors.contrasts(factors.read(path), "step")
    # Enumerated: the smallest p of five pairs is that of the one of 32 signs that has all of them above zero.
    signs = list(itertools.product([-1, 1], repeat=5))
    smallest = sum(all(sign > 0 for sign in one) for one in signs) / len(signs)
    assert len(tests) == 15
    assert {test.p for test in tests} == {smallest} == {test.smallest_p for test in tests}
    assert {test.tests for test in tests} == {30}
    assert {test.p_holm for test in tests} == {30 * smallest}
    assert {test.smallest_p_holm for test in tests} == {30 * smallest}
    assert command(parser(), ["report", str(path)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"p +smallest p +p \(Holm\) +smallest p \(Holm\)", printed)
    assert "step: 5 pairs and 30 tests can mark no difference; 10 pairs are needed" in printed
    assert 30 * 0.5**10 < 0.05 <= 30 * 0.5**9


def test_against_one_level_there_are_fewer_tests(tmp_path, capsys):
    path = ablation(tmp_path, 8)
    tests = factors.contrasts(factors.read(path), "step", against="contrastive")
    assert [(test.better, test.worse) for test in tests] == [(step, "contrastive") for step in STEPS[1:]]
    assert {test.tests for test in tests} == {10}
    assert {test.p_holm for test in tests} == {10 / 2**8}
    out = tmp_path / "report"
    assert command(parser(), ["report", str(path), "--against", "contrastive", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Holm: over the pairs of contrastive and another step, in both directions" in printed
    assert "can mark no difference" not in printed
    with (out / "tests.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert {(row["tests"], row["p_smallest"], row["p_holm_smallest"]) for row in kept} == {
        ("10", str(2.0**-8), str(10 * 2.0**-8))
    }
    assert command(parser(), ["report", str(path), "--against", "contrastiv"]) == 2
    assert "--against: unknown level of step 'contrastiv'; did you mean 'contrastive'?" in capsys.readouterr().err


def test_against_concerns_the_factor_of_by_alone(results):
    printed = factors.report(results, "adapter", against="mha")
    assert "mha and another adapter, or all pairs of another factor's levels" in printed
    lines = [line for line in printed.splitlines() if re.search(r"\d settings +\d", line)]
    assert sum(line.startswith("adapter") for line in lines) == 2
    assert sum(line.startswith("encoder") for line in lines) == 1


def test_the_normal_approximation_is_asked_for(tmp_path, capsys):
    path = ablation(tmp_path, 5)
    (first, *_) = factors.contrasts(factors.read(path), "step", normal=True)
    asked = stats.wilcoxon([1.0, 2, 3, 4, 5], alternative="greater", method="asymptotic").pvalue
    assert first.p == pytest.approx(asked, rel=1e-12)
    assert command(parser(), ["report", str(path), "--normal"]) == 0
    assert "by the normal approximation" in capsys.readouterr().out


def test_holm_counts_both_directions_of_all_pairs(results):
    tests = factors.contrasts(results, "adapter")
    assert len(tests) == 3
    both = []
    for one, other in itertools.permutations(LEVELS["adapter"], 2):
        both.append(factors.wilcoxon(factors.pairs(results, "adapter", one, other)[0])[1])
    corrected = dict(zip(itertools.permutations(LEVELS["adapter"], 2), holm(np.array(both)), strict=True))
    assert [test.p_holm for test in tests] == pytest.approx([corrected[test.better, test.worse] for test in tests])
    within = factors.contrasts(results, "adapter", "encoder")
    assert {test.within for test in within} == {"yamnet", "coala"}
    assert len(within) == 6
    assert {test.pairs for test in within} == {2}


def test_runs_that_were_stopped_early_are_left_out(tmp_path):
    content = list(rows())
    content[5][5], content[6][5] = "stopped", "stopped"
    content[6][-2:] = ["", ""]
    results = factors.read(write(tmp_path / "results.csv", content))
    assert (len(results.runs), results.missing, results.stopped) == (34, 0, 2)
    report = factors.report(results, "encoder")
    assert "34 runs of 12 settings, 2 to 3 of each; 2 were stopped early and are left out" in report


def test_the_report_says_it_all_and_keeps_it(tmp_path, capsys):
    content = list(rows())
    content[5][-2:], content[5][5] = ["", ""], "failed"
    path = write(tmp_path / "results.csv", content)
    assert command(parser(), ["report", str(path), "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    assert "35 runs of 12 settings, 2 to 3 of each; 1 more without mAP@10 (failed, or not ended)" in said
    assert "the best 10 of 12" in said
    assert re.search(r"adapter +mha +mlp +\+0\.0\d+ +4 settings +0 +0\.0625", said)
    assert "adapter: 4 pairs and 6 tests can mark no difference; 7 pairs are needed" in said
    with (tmp_path / "report" / "tests.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 1 + 3 + 1 + 2 * 3 + 2 * 1  # every factor, and what is within each encoder
    names = {path.name for path in (tmp_path / "report").iterdir()}
    wanted = {"bars-encoder", "bars-adapter", "bars-words----more"}
    wanted |= {f"{kind}-encoder-{factor}" for kind in ("bars", "boxes") for factor in ("adapter", "words----more")}
    assert names == {f"{name}.{kind}" for name in wanted for kind in ("svg", "png")} | {"settings.csv", "tests.csv"}
    ET.fromstring((tmp_path / "report" / "bars-words----more.svg").read_bytes())  # noqa: S314


def test_legends_have_every_level(tmp_path):
    from evaluation.statistics import figures

    content = [["r", "x", "k", 0, 0.5], ["r", "y", "k", 0, 0.6], ["r", "y", "l", 0, 0.4], ["r", "z", "l", 0, 0.3]]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "b", "seed", "mAP@10")))
    for drawn in (figures._bars(results, "a", "b"), figures._boxes(results, "a", "b")):
        (legend,) = drawn.legends
        assert [text.get_text() for text in legend.get_texts()] == ["k", "l"]


def test_of_one_factor_bars_are_the_means_of_the_runs_with_their_sd(tmp_path):
    """As Figure 2 of Weck et al. 2022."""
    from evaluation.statistics import figures

    results = factors.read(ablation(tmp_path, 5))
    axes = figures._bars(results, "step").axes[0]
    values = [[run.value for run in results.having("step", step)] for step in STEPS]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([statistics.mean(some) for some in values])
    (*drawn,) = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert len(drawn) == len(STEPS)
    for (low, high), some in zip(drawn, values, strict=True):
        assert (high[1] - low[1]) / 2 == pytest.approx(statistics.stdev(some))
    dots = [line.get_ydata() for line in axes.lines if line.get_marker() == "."]
    assert [sorted(some) for some in dots] == [sorted(some) for some in values]
    assert axes.get_ylabel() == "mAP@10 (mean and SD of runs)"


def test_of_several_factors_bars_are_the_means_of_the_settings_with_their_sd(results):
    from evaluation.statistics import figures

    axes = figures._bars(results, "encoder").axes[0]
    drawn = [segment for lines in axes.collections for segment in lines.get_segments()]
    wanted = [one.sd for one in factors.marginal(results, "encoder")]
    assert [(high[1] - low[1]) / 2 for low, high in drawn] == pytest.approx(wanted)
    assert not [line for line in axes.lines if line.get_marker() == "."]
    assert axes.get_ylabel() == "mAP@10 (mean and SD of settings)"


def test_figures_show_the_runs_and_the_means_and_are_the_same_each_time(results, tmp_path):
    from evaluation.statistics import figures

    boxes = figures._boxes(results, "encoder", "adapter").axes[0]
    medians = sorted(line.get_ydata()[0] for line in boxes.lines if line.get_linewidth() == 1.5)
    wanted = [
        np.median([run.value for run in results.runs if run.levels[:2] == levels])
        for levels in itertools.product(LEVELS["encoder"], LEVELS["adapter"])
    ]
    assert medians == pytest.approx(sorted(wanted))
    bars = figures._bars(results, "words & $more").axes[0]
    wanted = [one.mean for one in factors.marginal(results, "words & $more")]
    assert [bar.get_height() for bar in bars.patches] == pytest.approx(wanted)
    assert [label.get_text() for label in bars.get_xticklabels()] == ["a_1$b$", "<c>"]
    for name in ("one", "other"):
        with rc_context(figures.STYLE):
            figures._save(figures._boxes(results, "encoder", "adapter"), tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"other.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header of different names with `seed`"),
        ("run,a,a,seed,mAP@10\n", "must have a header of different names with `seed`"),
        ("run,seed,mAP@10\n", "a column for each factor before `seed`"),
        ("run,a,seed,state\n", "a metric's column behind `seed`"),
        ("run,a,seed,mAP@10\nr,x,0,\n", "must have a run with a value of mAP@10"),
        (
            "run,a,seed,mAP@10\nr,x,0,high\n",
            "2: error: seed must be a whole number and mAP@10 a number; found '0' and 'high'",
        ),
        ("run,a,seed,mAP@10\nr,x,0,inf\n", "2: error: seed must be a whole number"),
        ("run,a,seed,mAP@10\nr,x,0\n", "2: error: must have 4 cells, but has 3"),
        ("run,a,seed,mAP@10\nr,x,0,.1\nr,x,0,.2\n", "3: error: is the second row of x with seed 0"),
    ],
)
def test_files_that_do_not_hold(tmp_path, text, message):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(Faulty, match=re.escape(message)):
        factors.read(tmp_path / "results.csv")


def test_what_cannot_be_read_says_nothing_of_its_header(tmp_path):
    (tmp_path / "results.csv").write_bytes("run,seed,m\n".encode("utf-16"))
    with pytest.raises(Faulty) as faulty:
        factors.read(tmp_path / "results.csv")
    message = "must be UTF-8; this is UTF-16: save it as UTF-8"
    assert str(faulty.value) == f"{tmp_path}/results.csv: error: {message}"


def test_requests_that_cannot_be(tmp_path, capsys):
    path = write(tmp_path / "results.csv", rows())
    with pytest.raises(BadRequest, match="no such file; give the results"):
        factors.read(tmp_path / "none.csv")
    with pytest.raises(BadRequest, match="did you mean 'mAP@10'"):
        factors.read(path, "map@10")
    assert command(parser(), ["report", str(path), "--by", "encoders"]) == 2
    assert "did you mean 'encoder'" in capsys.readouterr().err
