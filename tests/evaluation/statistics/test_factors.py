"""Means, tests compared with scipy and plain enumeration, tables, and files that are refused."""

import csv
import itertools
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.__main__ import parser
from evaluation.cli import command
from evaluation.findings import BadRequest, Faulty
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


def runs_of(results, **levels):
    """Return the metric of the runs with the given levels."""
    runs = results.runs
    for factor, level in levels.items():
        runs = runs[runs[factor] == level]
    return runs[results.metric].tolist()


def test_settings_have_the_mean_sd_and_best_of_their_seeds(results):
    found = factors.settings(results)
    assert len(found) == 12
    assert found["mean"].is_monotonic_decreasing
    chosen = results.runs[(results.runs[[*LEVELS]] == ["coala", "mha", "<c>"]).all(axis=1)]
    values = chosen["mAP@10"].tolist()
    one = found.loc["coala", "mha", "<c>"]
    assert (one["runs"], one["best"]) == (3, max(values))
    assert one["mean"] == pytest.approx(statistics.mean(values), abs=1e-15)
    assert one["sd"] == pytest.approx(statistics.stdev(values), abs=1e-15)


def test_best_setting_of_each_level(results):
    found = factors.best_settings(results, "encoder")
    assert [levels[:2] for levels in found.index] == [("yamnet", "mha"), ("coala", "mha")]


def test_level_means_are_over_the_means_of_settings(results):
    found = factors.level_means(results, "adapter")
    assert found.index.tolist() == ["mlp", "mha", "none"]
    means = []
    for encoder, words in itertools.product(LEVELS["encoder"], LEVELS["words & $more"]):
        means.append(statistics.mean(runs_of(results, encoder=encoder, adapter="mlp", **{"words & $more": words})))
    expected = [statistics.mean(means), statistics.stdev(means), 4, max(runs_of(results, adapter="mlp"))]
    assert found.loc["mlp"].tolist() == pytest.approx(expected, abs=1e-15)


def test_lower_ranks_are_better(tmp_path):
    results = factors.read(write(tmp_path / "results.csv", rows()), "medR")
    assert factors.settings(results)["mean"].is_monotonic_increasing
    best = factors.best_settings(results, "encoder").iloc[0]
    encoder, adapter, words = best.name
    assert adapter == "mha"
    assert best["best"] == min(runs_of(results, encoder=encoder, adapter=adapter, **{"words & $more": words}))
    assert factors.level_means(results, "adapter").loc["mlp", "best"] == min(runs_of(results, adapter="mlp"))
    (test,) = factors.contrasts(results, "encoder").itertuples()
    assert (test.better, test.worse) == ("yamnet", "coala")
    assert test.difference < 0
    assert test.p < 0.05


def test_settings_equal_up_to_rounding_keep_their_order(tmp_path):
    content = [["r", "x", 0, 0.1], ["r", "x", 1, 0.7], ["r", "y", 0, 0.7], ["r", "y", 1, 0.1 + 1e-16]]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "seed", "mAP@10")))
    assert factors.settings(results).index.tolist() == ["x", "y"]


def test_a_factor_may_be_called_mean(tmp_path):
    content = [["r", level, other, 0, 0.5] for level in "xy" for other in "kl"]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "mean", "sd", "seed", "mAP@10")))
    assert factors.settings(results).index.names == ["mean", "sd"]
    assert "mean" in factors.summary(results, "mean")
    assert factors.save(results, "mean", tmp_path)[0].read_text().splitlines()[1] == "x,k,0.5,,1,0.5"


# The results of an earlier implementation with plain loops for these rows.
MEANS_AND_SD = {
    ("yamnet", "mha", "a_1$b$"): (0.560315638483016, 0.021422085662677396),
    ("yamnet", "mha", "<c>"): (0.5376842003050922, 0.013068117505336561),
    ("yamnet", "mlp", "a_1$b$"): (0.5042269867216359, 0.007866324796441667),
    ("coala", "none", "a_1$b$"): (0.3808132082111672, 0.009544184890832585),
}
LEVEL_MEANS_AND_SD = {
    "yamnet": (0.5076469886062318, 0.035760441239097863),
    "coala": (0.4146733043439324, 0.027090464067995767),
}
TESTS = [  # better, worse, pairs, difference, W, p, corrected p
    ("yamnet", "coala", 6, 0.09297368426229942, 0, 0.015625, 0.03125),
    ("mha", "mlp", 4, 0.04308573508773958, 0, 0.0625, 0.375),
    ("mlp", "none", 4, 0.024321605248371465, 0, 0.0625, 0.375),
    ("mha", "none", 4, 0.06740734033611104, 0, 0.0625, 0.375),
    ("a_1$b$", "<c>", 6, 0.0012202272709025102, 9, 0.421875, 0.84375),
]


def test_known_means(results):
    found = factors.settings(results)
    for levels, expected in MEANS_AND_SD.items():
        assert found.loc[levels, ["mean", "sd"]].tolist() == pytest.approx(expected, abs=1e-12)
    found = factors.level_means(results, "encoder")
    for level, expected in LEVEL_MEANS_AND_SD.items():
        assert found.loc[level, ["mean", "sd"]].tolist() == pytest.approx(expected, abs=1e-12)


def test_known_tests(results):
    tests = pd.concat([factors.contrasts(results, factor) for factor in LEVELS])
    named = tests[["better", "worse", "pairs"]].itertuples(index=False, name=None)
    assert list(named) == [row[:3] for row in TESTS]
    values = tests[["difference", "W", "p", "p_holm"]].to_numpy()
    np.testing.assert_allclose(values, np.array([row[3:] for row in TESTS]), rtol=0, atol=1e-12)


def plain_p(differences):
    """Compute p by its definition: the share of all combinations of signs whose W is at most as large."""
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
        [0.3 - 0.2, 0.1, 0.2 - 0.1, -0.1, 0.2, 0.0],  # ties that differ by rounding, and one zero
        [-0.1, -0.2, -0.3],
        [0.25],
    ],
)
def test_wilcoxon_equals_enumerating_all_signs(differences):
    w, p = plain_p([round(difference, 9) for difference in differences])
    assert factors.wilcoxon(differences) == pytest.approx((w, p), abs=1e-12)


@pytest.mark.parametrize("n", [20, 50, 80])
def test_wilcoxon_equals_scipy(n):
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
def test_weck_2021_gives_the_normal_approximation_of_44_pairs(w, published, exact):
    """Weck et al. 2021, section 4, with overlap against without: W = 84, p < 8.08e-07; W = 112, p < 3.92e-06."""

    def normal_p(n):
        deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return stats.norm.cdf((w - n * (n + 1) / 4) / deviation)

    numbers = [n for n in range(20, 133) if f"{normal_p(n):.2e}" == f"{published:.2e}"]
    assert numbers == [44]

    differences, left = [], w
    for rank in range(44, 0, -1):  # W is the sum of the ranks of the differences below zero
        below = rank <= left
        left -= rank * below
        differences.append(-float(rank) if below else float(rank))
    asked = stats.wilcoxon(differences, alternative="greater", method="asymptotic").pvalue
    assert factors.wilcoxon(differences, normal=True) == pytest.approx((w, asked), rel=1e-12)
    assert f"{asked:.2e}" == f"{published:.2e}"

    asked = stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert factors.wilcoxon(differences) == pytest.approx((w, asked), rel=1e-12)
    assert f"{asked:.2e}" == f"{exact:.2e}"


def test_wilcoxon_without_a_difference():
    assert factors.wilcoxon([0.0, 0.0]) == (0.0, 1.0)


def test_pairs_are_means_over_the_seeds_that_both_levels_have(tmp_path):
    content = [
        ["r", "x", "k", 0, 0.5],
        ["r", "x", "k", 1, 0.9],
        ["r", "y", "k", 1, 0.6],  # seed 0 failed, so only seed 1 is paired
        ["r", "x", "l", 0, 0.3],
        ["r", "y", "l", 0, 0.4],
        ["r", "x", "m", 0, 0.8],  # has no pair
    ]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "b", "seed", "mAP@10")))
    differences, of = factors.paired_differences(results, "a", "x", "y")
    assert differences.tolist() == pytest.approx([0.3, -0.1])
    assert of == "settings"


def test_pairs_of_a_single_factor_are_seeds(tmp_path):
    content = [
        ["r", level, seed, 0.1 * seed + (level == "x") * (0.1 + 0.01 * seed)] for level in "xy" for seed in range(6)
    ]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "seed", "mAP@10")))
    (test,) = factors.contrasts(results, "a").itertuples()
    assert (test.better, test.pairs, test.of, test.W) == ("x", 6, "seeds", 0)
    assert test.p == pytest.approx(1 / 64)
    assert test.p_holm == pytest.approx(2 / 64)  # both directions were tested
    assert test.tests == 2
    assert (test.p_smallest, test.p_holm_smallest) == (1 / 64, 2 / 64)


STEPS = ("contrastive", "all pairs", "text-audio", "+ tune text", "+ pretrain", "+ tune audio")


def ablation(tmp_path, seeds):
    """Write an ablation whose steps do not overlap: neighbours differ by at least .05."""
    rng = np.random.default_rng(0)
    content = []
    for number, step in enumerate(STEPS):
        content += [["r", step, seed, 0.1 * (number + 1) + rng.uniform(0, 0.05)] for seed in range(seeds)]
    return write(tmp_path / "ablation.csv", content, ("run", "step", "seed", "mAP@10"))


def test_report_says_that_five_seeds_are_too_few(tmp_path, capsys):
    path = ablation(tmp_path, 5)
    tests = factors.contrasts(factors.read(path), "step")
    # By enumeration: the smallest p of five pairs is 1 / 32, if all differences are above zero.
    signs = list(itertools.product([-1, 1], repeat=5))
    smallest = sum(all(sign > 0 for sign in one) for one in signs) / len(signs)
    assert len(tests) == 15
    assert set(tests["p"]) == set(tests["p_smallest"]) == {smallest}
    assert set(tests["tests"]) == {30}
    assert set(tests["p_holm"]) == set(tests["p_holm_smallest"]) == {30 * smallest}
    assert command(parser(), ["report", str(path)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"p +smallest p +p \(Holm\) +smallest p \(Holm\)", printed)
    assert "step: 5 pairs are too few to mark a difference among 30 tests; 10 pairs are needed" in printed
    assert 30 * 0.5**10 < 0.05 <= 30 * 0.5**9


def test_against_makes_fewer_tests(tmp_path, capsys):
    path = ablation(tmp_path, 8)
    tests = factors.contrasts(factors.read(path), "step", against="contrastive")
    assert tests["better"].tolist() == list(STEPS[1:])
    assert set(tests["worse"]) == {"contrastive"}
    assert set(tests["tests"]) == {10}
    assert set(tests["p_holm"]) == {10 / 2**8}
    out = tmp_path / "report"
    assert command(parser(), ["report", str(path), "--against", "contrastive", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Holm: over the pairs of contrastive and another step, in both directions" in printed
    assert "too few to mark a difference" not in printed
    with (out / "tests.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert {(row["tests"], row["p_smallest"], row["p_holm_smallest"]) for row in kept} == {
        ("10", str(2.0**-8), str(10 * 2.0**-8))
    }
    assert command(parser(), ["report", str(path), "--against", "contrastiv"]) == 2
    assert "--against: unknown level of step 'contrastiv'; did you mean 'contrastive'?" in capsys.readouterr().err


def test_against_affects_the_factor_of_by_only(results):
    printed = factors.summary(results, "adapter", against="mha")
    assert "mha and another adapter, or all pairs of another factor's levels" in printed
    lines = [line for line in printed.splitlines() if re.search(r"\d settings +\d", line)]
    assert sum(line.startswith("adapter") for line in lines) == 2
    assert sum(line.startswith("encoder") for line in lines) == 1


def test_normal_approximation(tmp_path, capsys):
    path = ablation(tmp_path, 5)
    tests = factors.contrasts(factors.read(path), "step", normal=True)
    asked = stats.wilcoxon([1.0, 2, 3, 4, 5], alternative="greater", method="asymptotic").pvalue
    assert tests["p"].iloc[0] == pytest.approx(asked, rel=1e-12)
    assert command(parser(), ["report", str(path), "--normal"]) == 0
    assert ", normal approximation" in capsys.readouterr().out


def test_holm_counts_both_directions_of_all_pairs(results):
    tests = factors.contrasts(results, "adapter")
    assert len(tests) == 3
    both = {}
    for one, other in itertools.permutations(LEVELS["adapter"], 2):
        differences, _ = factors.paired_differences(results, "adapter", one, other)
        both[one, other] = factors.wilcoxon(differences)[1]
    corrected = dict(zip(both, holm(np.array([*both.values()])), strict=True))
    for test in tests.itertuples():
        assert test.p_holm == pytest.approx(corrected[test.better, test.worse])
    within = factors.contrasts(results, "adapter", "encoder")
    assert within["within"].tolist() == ["encoder yamnet"] * 3 + ["encoder coala"] * 3
    assert set(within["pairs"]) == {2}


def test_levels_without_a_difference(tmp_path):
    content = [["r", level, seed, 0.5] for level in "xy" for seed in range(3)]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "seed", "mAP@10")))
    (test,) = factors.contrasts(results, "a").itertuples()
    assert (test.better, test.worse, test.p, test.p_holm, test.mark) == ("x", "y", 1, 1, "")
    assert "+0.0000" in factors.summary(results, "a")


def test_levels_without_a_pair(tmp_path):
    content = [["r", "x", 0, 0.5], ["r", "y", 1, 0.6]]
    results = factors.read(write(tmp_path / "r.csv", content, ("run", "a", "seed", "mAP@10")))
    assert factors.contrasts(results, "a").empty
    assert "better" not in factors.summary(results, "a")
    _, tests = factors.save(results, "a", tmp_path)
    assert len(tests.read_text().splitlines()) == 1


def test_runs_that_were_stopped_early_are_left_out(tmp_path):
    content = list(rows())
    content[5][5], content[6][5] = "stopped", "stopped"
    content[6][-2:] = ["", ""]
    results = factors.read(write(tmp_path / "results.csv", content))
    assert (len(results.runs), results.missing, results.stopped) == (34, 0, 2)
    report = factors.summary(results, "encoder")
    assert "34 runs of 12 settings, 2 to 3 for each setting; skipped 2 runs that stopped early" in report


def test_report_prints_and_saves_all_tables(tmp_path, capsys):
    content = list(rows())
    content[5][-2:], content[5][5] = ["", ""], "failed"
    path = write(tmp_path / "results.csv", content)
    assert command(parser(), ["report", str(path), "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    assert "35 runs of 12 settings, 2 to 3 for each setting; no mAP@10 for 1 more run (failed or not finished)" in said
    assert "the best 10 of 12" in said
    assert re.search(r"adapter +mha +mlp +\+0\.0\d+ +4 settings +0 +0\.0625", said)
    assert "adapter: 4 pairs are too few to mark a difference among 6 tests; 7 pairs are needed" in said
    with (tmp_path / "report" / "tests.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 1 + 3 + 1 + 2 * 3 + 2 * 1  # all factors, and the tests within each encoder
    names = {path.name for path in (tmp_path / "report").iterdir()}
    wanted = {"bars-encoder", "bars-adapter", "bars-words----more"}
    wanted |= {f"{kind}-encoder-{factor}" for kind in ("bars", "boxes") for factor in ("adapter", "words----more")}
    assert names == {f"{name}.{kind}" for name in wanted for kind in ("svg", "png")} | {"settings.csv", "tests.csv"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header with different names"),
        ("run,a,a,seed,mAP@10\n", "must have a header with different names"),
        ("run,seed,mAP@10\n", "a column for each factor before `seed`"),
        ("run,a,seed,state\n", "a metric's column after `seed`"),
        ("run,a,seed,mAP@10\nr,x,0,\n", "must have a run with a value of mAP@10"),
        (
            "run,a,seed,mAP@10\nr,x,0,high\n",
            "2: error: seed must be a whole number and mAP@10 a number; found '0' and 'high'",
        ),
        ("run,a,seed,mAP@10\nr,x,0,inf\n", "2: error: seed must be a whole number"),
        ("run,a,seed,mAP@10\nr,x,0\n", "2: error: must have 4 cells; found 3"),
        ("run,a,seed,mAP@10\nr,x,0,.1\nr,x,0,.2\n", "3: error: is the second row of x with seed 0"),
    ],
)
def test_invalid_files(tmp_path, text, message):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(Faulty, match=re.escape(message)):
        factors.read(tmp_path / "results.csv")


def test_unreadable_file_has_no_finding_about_its_header(tmp_path):
    (tmp_path / "results.csv").write_bytes("run,seed,m\n".encode("utf-16"))
    with pytest.raises(Faulty) as faulty:
        factors.read(tmp_path / "results.csv")
    message = "must be UTF-8; this is UTF-16: save it as UTF-8"
    assert str(faulty.value) == f"{tmp_path}/results.csv: error: {message}"


def test_invalid_requests(tmp_path, capsys):
    path = write(tmp_path / "results.csv", rows())
    with pytest.raises(BadRequest, match="no such file; give the results"):
        factors.read(tmp_path / "none.csv")
    with pytest.raises(BadRequest, match="did you mean 'mAP@10'"):
        factors.read(path, "map@10")
    assert command(parser(), ["report", str(path), "--by", "encoders"]) == 2
    assert "did you mean 'encoder'" in capsys.readouterr().err
