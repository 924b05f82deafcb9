"""Scores: measuring, printing, writing and reading."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from evaluation import scores
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.scores import Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import METHODS, Estimate, bootstrap, grouped, jackknife, pseudo_values

ALONE = Items("clips", ("a.wav", "b.wav", "c.wav"), (0, 1, 2))
SHARED = Items("queries", ("A dog.", "A cat.", "A bell."), (0, 0, 1))
VALUES = np.array([0.1, 0.7, 1 / 3])


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def same(one: Score, other: Score) -> bool:
    """Return True if two scores are equal in every digit, except for findings, which are not saved. NaN equals NaN."""

    def plain(score):
        # `repr` shows floats at full precision, but not the values of the items.
        values = [measured.values is None or measured.values.tolist() for measured in score.metrics.values()]
        items = score.items.kind, score.items.names, score.items.groups
        return repr((dict(score.metrics), items, score.signature, dict(score.unavailable))), values

    return plain(one) == plain(other)


# ------------------------------------------------------------------------------------------------ measured


def test_items_say_whether_some_share_a_clip():
    assert (ALONE.shared, SHARED.shared) == (False, True)


@pytest.mark.parametrize("t", [False, True])
def test_a_mean_with_jackknife(t):
    method = "jackknife-t" if t else "jackknife"
    measured = measure(VALUES, SHARED, method, chance=0.25)
    assert measured.estimate == jackknife(VALUES, t=t)
    assert measured.by_clip == jackknife(VALUES, groups=SHARED.groups, t=t)
    assert (measured.values.tolist(), measured.chance) == (VALUES.tolist(), 0.25)
    alone = measure(VALUES, ALONE, method)
    assert (alone.estimate, alone.by_clip, alone.chance) == (jackknife(VALUES, t=t), None, None)


@pytest.mark.parametrize("bca", [False, True])
def test_a_mean_with_bootstrap(bca):
    measured = measure(VALUES, SHARED, "bootstrap-bca" if bca else "bootstrap")
    assert measured.estimate == bootstrap(VALUES, bca=bca)
    assert measured.by_clip == bootstrap(VALUES, bca=bca, groups=SHARED.groups)
    assert measured.values.tolist() == VALUES.tolist()


def test_zeros_and_ones_may_be_booleans():
    measured = measure(np.array([True, False, False]), ALONE, "jackknife")
    assert measured.estimate == jackknife(np.array([1.0, 0.0, 0.0]))
    assert measured.values.dtype == np.float64


@pytest.mark.parametrize("method", METHODS)
def test_a_corpus_metric(method):
    statistics = np.array([[1.0, 4], [2, 3], [1, 1]])
    measured = measure(statistics, SHARED, method, ratio)
    value, values = pseudo_values(statistics, ratio)
    assert measured.estimate.value == measured.by_clip.value == value == 0.5
    assert measured.values.tolist() == values.tolist()
    assert (measured.estimate.n, measured.by_clip.n) == (3, 2)
    if method.startswith("jackknife"):
        # The metric without each clip in turn: 1/1 and 3/7.
        by_hand = math.sqrt(1 / 2 * 2 * ((1 - 3 / 7) / 2) ** 2)
        assert measured.by_clip.std_error == pytest.approx(by_hand, rel=1e-12)
    else:
        assert measured.by_clip == bootstrap(
            grouped(statistics, SHARED.groups)[0], ratio, bca=method == "bootstrap-bca"
        )


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("jackknife", "jackknife-95-normal"),
        ("jackknife-t", "jackknife-t-95"),
        ("bootstrap", f"bootstrap-95-9999-seed-0-scipy-{scipy.__version__}"),
        ("bootstrap-bca", f"bootstrap-bca-95-9999-seed-0-scipy-{scipy.__version__}"),
    ],
)
def test_an_interval_in_the_signature(method, name):
    assert interval_method(method) == name


@pytest.mark.parametrize("method", ["", "Jackknife", "bca"])
def test_an_unknown_interval(method):
    with pytest.raises(BadRequest) as refusal:
        interval_method(method)
    assert str(refusal.value) == (
        f"unknown interval {method!r}; there are: jackknife, jackknife-t, bootstrap, bootstrap-bca"
    )


# ------------------------------------------------------------------------------------------------ printed


def estimate(value=0.5, low=0.4, high=0.6, n=3):
    return Estimate(value, 0.05, low, high, n, "jackknife-95")


def test_a_table_of_plain_metrics():
    score = Score({"R@1": Measured(estimate()), "CIDEr-D": Measured(estimate(12.345, -0.5, 25))}, ALONE, "a:b|c:d")
    assert str(score).splitlines() == [
        "metric      value    95 % interval    clips",
        "--------  -------  ---------------  -------",
        "R@1         0.500    0.400 – 0.600        3",
        "CIDEr-D      12.3    -0.500 – 25.0        3",
        "signature: a:b|c:d",
    ]


def test_a_table_of_everything():
    score = Score(
        {
            "R@1": Measured(estimate(), by_clip=estimate(low=0.3, high=0.7, n=2), chance=0.125),
            "median rank": Measured(Estimate(4.0, math.nan, math.nan, math.inf, 3, "none")),
            "AP": Measured(estimate(), chance=math.nan),
        },
        SHARED,
        "a:b",
        {"spice": "needs Java; install it"},
    )
    assert str(score).splitlines() == [
        "metric               value    95 % interval        by clip    chance    queries",
        "-----------  -------------  ---------------  -------------  --------  ---------",
        "R@1                  0.500    0.400 – 0.600  0.300 – 0.700     0.125          3",
        "median rank          4.000                –              –         –          3",
        "AP                   0.500    0.400 – 0.600              –         –          3",
        "spice        not available",
        "spice: needs Java; install it",
        "signature: a:b",
    ]


def test_a_table_of_nothing_but_what_is_missing():
    text = str(Score({}, ALONE, "a:b", {"spice": "needs Java"}))
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["spice", "not", "available"],
        ["spice:", "needs", "Java"],
        ["signature:", "a:b"],
    ]


# ------------------------------------------------------------------------------------------------ kept


def full() -> Score:
    return Score(
        {
            "mAP@10": measure(VALUES, SHARED, "jackknife", chance=1 / 7),
            "BLEU": measure(np.array([[1.0, 4], [2, 3], [1, 1]]), SHARED, "bootstrap-bca", ratio),
            "median rank": Measured(Estimate(4.0, math.nan, math.nan, math.nan, 3, "none")),
        },
        SHARED,
        "dcase-kit:0.2.0|truth:Übung.csv#1",
        {"spice": "needs Java"},
    )


def test_what_is_read_is_what_was_saved(tmp_path):
    full().save(tmp_path / "new" / "a.json")
    assert same(Score.load(tmp_path / "new" / "a.json"), full())
    Score.load(tmp_path / "new" / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "new" / "a.json").read_bytes()
    other = full()
    other.metrics["mAP@10"].values[1] = np.nextafter(0.7, 1)
    assert not same(Score.load(tmp_path / "b.json"), other)  # `same` compares every digit


def test_the_file_is_what_the_module_says(tmp_path):
    full().save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [*content] == ["signature", "metrics", "unavailable", "items"]
    figures = ["value", "std_error", "low", "high", "n", "interval"]
    assert [*content["metrics"]["mAP@10"]] == [*figures, "chance", "by_clip"]
    assert [*content["metrics"]["mAP@10"]["by_clip"]] == figures[1:]
    assert content["metrics"]["median rank"] == dict(zip(figures, [4.0, None, None, None, 3, "none"], strict=True))
    assert content["items"]["names"] == ["A dog.", "A cat.", "A bell."]
    assert content["items"]["groups"] == [0, 0, 1]
    assert content["items"]["values"] == {
        "mAP@10": VALUES.tolist(),
        "BLEU": full().metrics["BLEU"].values.tolist(),
    }
    # Thousands of items are on one line, and letters are not escaped.
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()
    assert (lines[-2].startswith('  "items": {"kind": "queries", '), lines[-1]) == (True, "}")
    assert "Übung" in lines[1]


def test_plain_scores_hold_nothing_that_is_not_there(tmp_path):
    score = Score({"R@1": measure(VALUES, ALONE, "jackknife")}, ALONE, "a:b")
    score.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert [*content] == ["signature", "metrics", "items"]
    assert [*content["metrics"]["R@1"]][-1] == "interval"
    assert same(Score.load(tmp_path / "a.json"), score)


def test_what_is_no_number_is_null(tmp_path):
    parts = Estimate(math.nan, math.nan, -math.inf, math.inf, 1, "jackknife-95")
    Score({"m": Measured(parts, parts, None, math.nan)}, ALONE, "s").save(tmp_path / "a.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    nothing = dict.fromkeys(("value", "std_error", "low", "high", "chance"))
    by_clip = {"std_error": None, "low": None, "high": None, "n": 1, "interval": "jackknife-95"}
    assert content["metrics"]["m"] == nothing | {"n": 1, "interval": "jackknife-95", "by_clip": by_clip}
    read = Score.load(tmp_path / "a.json").metrics["m"]
    for made in (read.estimate, read.by_clip):
        assert np.isnan([made.value, made.std_error, made.low, made.high]).all()
    assert math.isnan(read.chance)


def test_values_that_are_no_numbers_are_not_kept(tmp_path):
    broken = Measured(estimate(), values=np.array([0.0, math.nan, 1.0]))
    with pytest.raises(ValueError, match="not JSON compliant"):
        Score({"m": broken}, ALONE, "s").save(tmp_path / "a.json")
    assert not [*tmp_path.iterdir()]


HOSTILE = [
    "two\nlines",
    'a "quote", a \\ and a /',
    "🐕 日本語",
    "\ud800",
    "a\udc80b",
    "\0\x1b[31m\u2028\u202e",
    "",
    " ",
    "NaN",
]


def test_hostile_names(tmp_path):
    items = Items("queries\n", tuple(HOSTILE), tuple(range(len(HOSTILE))))
    metrics = {name: measure(np.arange(len(HOSTILE)) / 7, items, "jackknife") for name in HOSTILE}
    score = Score(metrics, items, "truth:\udc80|\n", {"\udcff\"'": "no\ud800"})
    score.save(tmp_path / "a.json")
    (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert same(Score.load(tmp_path / "a.json"), score)


# Two adjacent halves of surrogate pairs become one character, in JSON as in UTF-16.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8).filter(
    lambda text: text == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
FIGURES = st.floats(allow_infinity=False)
ESTIMATES = st.builds(Estimate, FIGURES, FIGURES, FIGURES, FIGURES, st.integers(0, 10**9), TEXTS)


@st.composite
def any_score(draw):
    n = draw(st.integers(1, 5))
    names, groups = (draw(st.lists(of, min_size=n, max_size=n)) for of in (TEXTS, st.integers()))
    values = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n).map(np.array)
    metrics = {}
    for name in draw(st.lists(TEXTS, unique=True, max_size=3)):
        made = draw(ESTIMATES)
        by_clip = draw(st.none() | ESTIMATES.map(lambda e, made=made: dataclasses.replace(e, value=made.value)))
        metrics[name] = Measured(made, by_clip, draw(st.none() | values), draw(st.none() | FIGURES))
    unavailable = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    return Score(metrics, Items(draw(TEXTS), tuple(names), tuple(groups)), draw(TEXTS), unavailable)


@given(score=any_score())
def test_any_score_is_read_as_it_was_saved(tmp_path_factory, score):
    path = tmp_path_factory.getbasetemp() / "any.json"
    score.save(path)
    assert same(Score.load(path), score)


# ------------------------------------------------------------------------------------------------ refused


def test_no_file(tmp_path):
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(BadRequest) as refusal:
            Score.load(path)
        assert (
            str(refusal.value)
            == f"{path}: no such file; give a score file, written by `dcase-evaluation score … --json FILE`"
        )


def content() -> dict:
    """The content of a small score file."""
    figures = {"value": 0.5, "std_error": 0.1, "low": 0.3, "high": 0.7, "n": 2, "interval": "jackknife-95"}
    by_clip = {key: figures[key] for key in figures if key != "value"}
    return {
        "signature": "a:b",
        "metrics": {"R@1": figures | {"by_clip": by_clip}},
        "items": {"kind": "queries", "names": ["x", "y"], "groups": [0, 1], "values": {"R@1": [0.0, 1.0]}},
    }


def refusals_of(path, raw: bytes) -> list[str]:
    path.write_bytes(raw)
    with pytest.raises(Faulty) as faulty:
        Score.load(path)
    lines = str(faulty.value).splitlines()
    for line in lines:
        assert line.startswith(f"{path}: ")
        assert line.endswith("; score the prediction again")
    return [line.removeprefix(f"{path}: ").removesuffix("; score the prediction again") for line in lines]


NOT_JSON = "error: must be a score file, as `dcase-evaluation score … --json FILE` writes it (it is not JSON)"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", NOT_JSON),
        (b"metric,value\nR@1,0.5\n", NOT_JSON),
        (b'{"signature": "a:b", ', NOT_JSON),
        (b"\xff\xfe{\0}\0", NOT_JSON),
        (b"PK\x03\x04", NOT_JSON),
        (b"[]", "error: must be an object; found []"),
        (b"null", "error: must be an object; found None"),
        (b'"items"', "error: must be an object; found 'items'"),
    ],
)
def test_files_that_are_no_score(tmp_path, raw, reason):
    assert refusals_of(tmp_path / "a.json", raw) == [reason]


def test_endless_nesting(tmp_path):
    (reason,) = refusals_of(tmp_path / "a.json", b"[" * 200_000)
    assert "recursion" in reason


def test_endless_number(tmp_path):
    (reason,) = refusals_of(tmp_path / "a.json", b"9" * 5000)
    assert "must be a score file, as `dcase-evaluation score … --json FILE` writes it (Exceeds the limit" in reason


def test_all_faults_are_listed(tmp_path):
    assert refusals_of(tmp_path / "a.json", b"{}") == [
        "items: error: is missing",
        "metrics: error: is missing",
        "signature: error: is missing",
    ]
    broken = content()
    del broken["metrics"]["R@1"]["n"]
    broken["items"]["values"]["R@1"] = [math.nan, "1"]
    assert refusals_of(tmp_path / "a.json", json.dumps(broken).encode()) == [
        "items.values.R@1.0: error: must be a finite number; found nan",
        "items.values.R@1.1: error: must be a number; found '1'",
        "metrics.R@1.n: error: is missing",
    ]


MISSING = object()
NAMES_AND_GROUPS = "items: error: must have one or more names, and a group for each name"
HUGE = "1" + "0" * 59


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        # A score of version 0.1, which had no items.
        (["items"], MISSING, "items: error: is missing"),
        (["items"], [], "items: error: must be an object; found []"),
        (["items", "kind"], 3, "items.kind: error: must be a text; found 3"),
        (["items", "names"], MISSING, "items.names: error: is missing"),
        (["items", "names"], "xy", "items.names: error: must be a list; found 'xy'"),
        (["items", "names"], ["x", 2], "items.names.1: error: must be a text; found 2"),
        (["items", "names"], [], f"{NAMES_AND_GROUPS}; found 0 names and 2 groups"),
        (["items", "groups"], [0], f"{NAMES_AND_GROUPS}; found 2 names and 1 group"),
        (["items", "groups"], [0, 1.5], "items.groups.1: error: must be a whole number; found 1.5"),
        (["items", "groups"], [0, True], "items.groups.1: error: must be a whole number; found True"),
        (["items", "groups"], {}, "items.groups: error: must be a list; found {}"),
        (["items", "values"], [], "items.values: error: must be an object; found []"),
        (
            ["items", "values", "R@1"],
            [1.0],
            "items.values.R@1: error: must have 2 values, one for each item; found 1",
        ),
        (["items", "values", "R@1"], [1.0, None], "items.values.R@1.1: error: must be a number; found None"),
        (["items", "values", "R@1"], [1.0, math.nan], "items.values.R@1.1: error: must be a finite number; found nan"),
        (["items", "values", "R@1"], [1.0, math.inf], "items.values.R@1.1: error: must be a finite number; found inf"),
        (["items", "values", "R@1"], [1.0, "1"], "items.values.R@1.1: error: must be a number; found '1'"),
        (["items", "values", "R@1"], [1.0, True], "items.values.R@1.1: error: must be a number; found True"),
        (["items", "values", "R@1"], [1.0, [1.0]], "items.values.R@1.1: error: must be a number; found [1.0]"),
        (["items", "values", "R@1"], [1.0, 10**400], f"items.values.R@1.1: error: must be a number; found {HUGE}"),
        (["items", "values", "R@1"], None, "items.values.R@1: error: must be a list; found None"),
        (["metrics"], MISSING, "metrics: error: is missing"),
        (["metrics"], [], "metrics: error: must be an object; found []"),
        (["metrics", "R@1"], 0.5, "metrics.R@1: error: must be an object; found 0.5"),
        (["metrics", "R@1", "value"], MISSING, "metrics.R@1.value: error: is missing"),
        (["metrics", "R@1", "low"], "0.3", "metrics.R@1.low: error: must be a number; found '0.3'"),
        (["metrics", "R@1", "high"], 10**400, f"metrics.R@1.high: error: must be a number; found {HUGE}"),
        (["metrics", "R@1", "n"], 2.5, "metrics.R@1.n: error: must be a whole number; found 2.5"),
        (["metrics", "R@1", "interval"], None, "metrics.R@1.interval: error: must be a text; found None"),
        (["metrics", "R@1", "chance"], "a half", "metrics.R@1.chance: error: must be a number; found 'a half'"),
        (["metrics", "R@1", "by_clip"], None, "metrics.R@1.by_clip: error: must be an object; found None"),
        (["metrics", "R@1", "by_clip", "low"], MISSING, "metrics.R@1.by_clip.low: error: is missing"),
        (["signature"], MISSING, "signature: error: is missing"),
        (["signature"], {"a": "b"}, "signature: error: must be a text; found {'a': 'b'}"),
        (["unavailable"], ["spice"], "unavailable: error: must be an object; found ['spice']"),
        (["unavailable"], {"spice": None}, "unavailable.spice: error: must be a text; found None"),
        (["items", "names"], "x" * 1000, "items.names: error: must be a list; found '" + "x" * 59),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else "",
)
def test_invalid_values(tmp_path, place, value, reason):
    broken = part = content()
    for key in place[:-1]:
        part = part[key]
    if value is MISSING:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    assert refusals_of(tmp_path / "a.json", json.dumps(broken).encode()) == [reason]


def test_small_score_is_valid(tmp_path):
    """The score file that the tests above damage is valid itself."""
    (tmp_path / "a.json").write_text(json.dumps(content()))
    assert Score.load(tmp_path / "a.json").metrics["R@1"].estimate == Estimate(0.5, 0.1, 0.3, 0.7, 2, "jackknife-95")


# ------------------------------------------------------------------------------------------------ recomputed


def corpus_score(n: int, method: str = "jackknife") -> Score:
    """A score of a metric that is not a mean, like BLEU."""
    rng = np.random.default_rng(0)
    statistics = np.stack([rng.integers(0, 5, n), rng.integers(5, 15, n)], axis=1).astype(float)
    items = Items("clips", tuple(map(str, range(n))), tuple(range(n)))
    return Score({"bleu_4": measure(statistics, items, method, ratio)}, items, "a:b")


def with_value(score: Score, **figures: float) -> Score:
    """Return a score with changed numbers."""
    metrics = {
        name: dataclasses.replace(each, estimate=dataclasses.replace(each.estimate, **figures))
        for name, each in score.metrics.items()
    }
    return dataclasses.replace(score, metrics=metrics)


def faults(score: Score) -> list[str]:
    return [str(finding) for finding in scores.check(score, "a.json")]


@pytest.mark.parametrize("method", ["jackknife", "jackknife-t", "bootstrap"])
@pytest.mark.parametrize("n", [1, 2, 60])
def test_what_was_measured_is_what_its_items_give(method, n):
    assert faults(corpus_score(n, method)) == []
    items = Items("queries", tuple(map(str, range(n))), tuple(index // 2 for index in range(n)))
    values = np.random.default_rng(1).random(n)
    assert faults(Score({"R@1": measure(values, items, method)}, items, "a:b")) == []


def test_a_corpus_metric_is_near_the_mean_of_its_pseudo_values():
    score = corpus_score(60)
    assert faults(with_value(score, value=0.99)) == [
        "a.json: metrics.bleu_4.value: error: must be the middle of its interval, 0.214533; found 0.99; was the file "
        "changed by hand? score the prediction again"
    ]
    (fault,) = faults(with_value(score, value=0.99, low=0.98, high=1.0))
    assert "3 standard errors around the mean of the pseudo-values in items.values.bleu_4; found 0.99" in fault
    (fault,) = faults(with_value(corpus_score(60, "bootstrap"), value=0.99))
    assert "3 standard errors around the mean of the pseudo-values in items.values.bleu_4; found 0.99" in fault
    assert faults(with_value(score, std_error=1.0))[0].startswith("a.json: metrics.bleu_4.std_error: error: must be")


def test_cider_d_is_a_mean_unless_each_clip_changes_the_weights():
    n = 60
    items = Items("clips", tuple(map(str, range(n))), tuple(range(n)))
    values = np.random.default_rng(2).random(n)
    made = Measured(dataclasses.replace(measure(values + 0.01, items, "bootstrap").estimate), values=values)
    score = Score({"cider_d": made}, items, "a:b")
    assert ".value: error: must be the mean of items.values.cider_d" in faults(score)[0]
    assert faults(dataclasses.replace(score, signature="cider_d:idf-of-split-left-out-exact")) == []


# ------------------------------------------------------------------------------------------------ in notebooks


def test_a_score_as_a_table():
    score = full()
    frame = score.table()
    assert frame.index.tolist() == ["mAP@10", "BLEU", "median rank"]
    assert frame.columns.tolist() == ["value", "std_error", "low", "high", "by_clip_low", "by_clip_high", "chance", "n"]
    first = score.metrics["mAP@10"]
    assert frame.loc["mAP@10"].tolist() == [
        *(first.estimate.value, first.estimate.std_error, first.estimate.low, first.estimate.high),
        *(first.by_clip.low, first.by_clip.high, 1 / 7, 3),
    ]
    assert frame.loc["median rank"].isna().tolist() == [False, *[True] * 6, False]


def test_the_items_of_a_score_as_a_table(tmp_path):
    full().save(tmp_path / "a.json")
    for score in (full(), Score.load(str(tmp_path / "a.json"))):
        frame = score.items.table()
        assert frame.index.tolist() == ["A dog.", "A cat.", "A bell."]
        assert frame.columns.tolist() == ["group", "mAP@10", "BLEU"]
        assert frame["mAP@10"].tolist() == VALUES.tolist()
        assert frame["group"].tolist() == [0, 0, 1]
        assert "A bell." in score.items._repr_html_()


def test_a_score_on_one_line():
    assert repr(full()) == "Score(mAP@10 0.378, BLEU 0.500, median rank 4.000, spice not available; 3 queries)"
    assert repr(full().items) == "Items(3 queries in 2 groups)"


def test_a_score_in_a_notebook():
    warning = Finding("prediction", message="'a<b>.wav' is repeated", severity="warning")
    page = dataclasses.replace(full(), findings=(warning,))._repr_html_()
    assert page.count("<tr>") == 5
    assert "<b>" not in page
    assert (
        "prediction: warning: &#x27;a&lt;b&gt;.wav&#x27; is repeated<br>spice: needs Java<br>signature: dcase" in page
    )


def caption_score(*names, items=ALONE, interval="jackknife-95", **values):
    """Return a score of some caption metrics, which are named as their components."""
    components = "|".join(f"{name}:settings" for name in names)
    metrics = {name: measure(VALUES + values.get(name, 0), items, "jackknife") for name in names}
    return Score(metrics, items, f"split:e#1|{components}|interval:{interval}|numpy:2", {"fer": "no model"})


def test_a_score_is_extended():
    saved, more = caption_score("rouge_l", "spice"), caption_score("cider_d", "spice", "fer")
    extended = saved.extended(more)
    assert list(extended.metrics) == ["rouge_l", "spice", "cider_d", "fer"]
    assert extended.signature == caption_score("rouge_l", "cider_d", "spice", "fer").signature
    assert extended.unavailable == {}
    assert list(extended.items.values) == ["rouge_l", "spice", "cider_d", "fer"]
    assert more.extended(saved).signature == extended.signature
    assert saved.extended(caption_score("cider_d")).unavailable == {"fer": "no model"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            caption_score("cider_d", interval="bootstrap"),
            "score: interval: error: must be 'jackknife-95' as in the score to extend; found 'bootstrap'; score the "
            "prediction again",
        ),
        (
            caption_score("cider_d", items=SHARED),
            "score: items: error: must be those of the score to extend, in the same order; score the prediction again",
        ),
        (
            caption_score("rouge_l", "cider_d", rouge_l=0.1),
            "score: rouge_l: error: must be 0.377778 as in the score to extend; found 0.477778; give a score of the "
            "same prediction",
        ),
    ],
)
def test_another_score_does_not_extend(other, message):
    with pytest.raises(Faulty) as refusal:
        caption_score("rouge_l").extended(other)
    assert [str(finding) for finding in refusal.value.findings] == [message]
