import csv
import io
import itertools
import json
import pickle
import re
import time
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import data, retrieval
from evaluation.data import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.retrieval import Ranking, Similarity, average_precision, chance, evaluate, ranks, read, recall, validate

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"
METRICS = [(metric, k) for metric in (recall, average_precision) for k in (1, 2, 5, 10, 16, 50)]
CLIPS = tuple("abcdefghij")
quick = settings(max_examples=80, deadline=None, database=None)


def split_of(truth, clips, name="evaluation") -> Split:
    return Split(name, tuple(Clip(clip, (), Path(clip)) for clip in clips), truth)


def one_hot(order: str, clips=CLIPS) -> Similarity:
    """A matrix of one query, q, that ranks the clips in this order; those of one bracket, as in a(bc)d, alike."""
    scores, score, inside = dict.fromkeys(clips, -100.0), 0.0, False
    for letter in order:
        inside = (inside or letter == "(") and letter != ")"
        if letter not in "()":
            scores[letter] = score
        if not inside:
            score -= 1
    return Similarity(("q",), tuple(clips), np.array([list(scores.values())], dtype=np.float32))


def oracle(truth, prediction, metric, k) -> list[float]:
    """Every query's metric, the slow way: sort, a relevant clip after others of its score, and walk down the list."""
    values = []
    for query, relevant in truth.items():
        row = prediction.queries.index(query)
        if isinstance(prediction, Ranking):
            answer = prediction.file_names[row]
        else:
            scored = zip(prediction.scores[row], prediction.file_names, strict=True)
            answer = [name for *_, name in sorted((-score, name in relevant, name) for score, name in scored)]
        found, precisions = set(), 0.0
        for place, name in enumerate(answer[:k], start=1):
            if name in relevant and name not in found:
                found.add(name)
                precisions += len(found) / place
        values.append((len(found) if metric is recall else precisions) / len(relevant))
    return values


def score(truth, prediction) -> list[np.ndarray]:
    found = ranks(truth, prediction)
    return [metric(*found, k) for metric, k in METRICS]


# ------------------------------------------------------------------------------------------------ the metrics

HAND = [
    # ranking, relevant, metric, k, value
    ("abcdefghij", "a", recall, 1, 1),
    ("abcdefghij", "a", average_precision, 10, 1),
    ("bacdefghij", "a", recall, 1, 0),
    ("bacdefghij", "a", recall, 2, 1),
    ("bacdefghij", "a", average_precision, 10, 1 / 2),  # one relevant clip: the reciprocal rank
    ("bcdefghija", "a", average_precision, 10, 1 / 10),
    ("bcdefghija", "a", average_precision, 9, 0),
    ("abcdefghij", "bd", recall, 1, 0),
    ("abcdefghij", "bd", recall, 2, 1 / 2),
    ("abcdefghij", "bd", recall, 4, 1),
    ("abcdefghij", "bd", average_precision, 10, (1 / 2 + 2 / 4) / 2),
    ("abcdefghij", "bd", average_precision, 3, (1 / 2) / 2),  # over both, though one is beyond k
    ("abcdefghij", "abc", recall, 1, 1 / 3),  # a perfect ranking cannot have more than k
    ("abcdefghij", "abc", average_precision, 1, 1 / 3),
    ("abcdefghij", "abc", average_precision, 2, (1 / 1 + 2 / 2) / 3),
    ("abcdefghij", "abc", average_precision, 3, 1),
    ("jihgfedcba", "abc", average_precision, 10, (1 / 8 + 2 / 9 + 3 / 10) / 3),
    ("abcdefghij", "abcdefghij", average_precision, 10, 1),
]


@pytest.mark.parametrize(("order", "relevant", "metric", "k", "value"), HAND)
def test_by_hand(order, relevant, metric, k, value):
    truth = {"q": frozenset(relevant)}
    for prediction in (one_hot(order), Ranking(("q",), (tuple(order),))):
        assert metric(*ranks(truth, prediction), k) == pytest.approx([value], abs=1e-15)


@pytest.mark.parametrize(
    ("order", "relevant", "expected"),
    [
        ("(ab)cdefghij", "a", [2]),  # the other one of the two comes first
        ("(ab)cdefghij", "ab", [1, 2]),  # both are relevant: nothing to lose
        ("a(bcd)efghij", "ab", [1, 4]),
        ("a(bcd)efghij", "bd", [3, 4]),
        ("(abc)(def)ghij", "ade", [3, 5, 6]),
        ("(abcdefghij)", "abc", [8, 9, 10]),
    ],
)
def test_of_equal_scores_the_relevant_clips_come_last(order, relevant, expected):
    found, counts = ranks({"q": frozenset(relevant)}, one_hot(order))
    assert found.tolist() == [expected]
    assert counts.tolist() == [len(relevant)]


@pytest.mark.parametrize("constant", [0, 1, -1, -np.inf, np.nan])
@pytest.mark.parametrize("relevant", [1, 3, 10, 20])
def test_a_constant_scorer_gets_the_worst_case(constant, relevant):
    """NaN too: the embeddings of a model that diverged compare as neither greater nor smaller."""
    names = tuple(f"{clip}.wav" for clip in range(20))
    prediction = Similarity(("q",), names, np.full((1, 20), constant, dtype=np.float32))
    found, _ = ranks({"q": frozenset(names[:relevant])}, prediction)
    assert found.tolist() == [list(range(21 - relevant, 21))]


def test_nan_is_worse_than_any_score():
    scores = np.array([[np.nan, 1, 0], [np.nan, 1, 0]], dtype=np.float32)
    prediction = Similarity(("first", "second"), ("a", "b", "c"), scores)
    found, _ = ranks({"first": frozenset("a"), "second": frozenset("ac")}, prediction)
    assert found.tolist() == [[3, np.inf], [2, 3]]


def random_problem(seed: int) -> tuple[dict, Similarity]:
    """Many ties, one to nine relevant clips, columns of unknown clips, relevant clips without a column."""
    random = np.random.default_rng(seed)
    names = tuple(f"{clip}.wav" for clip in range(25))
    queries = tuple(f"query {query}" for query in range(12))
    truth = {query: frozenset(random.choice(names, random.integers(1, 10), replace=False)) for query in queries}
    columns = tuple(random.permutation([*names[3:], "unknown.wav", "other.wav"]))
    scores = random.integers(-3, random.integers(-2, 9), size=(12, len(columns))).astype(np.float32)
    return dict(random.permutation(list(truth.items()))), Similarity(queries, columns, scores)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_slow_way(seed):
    truth, similarity = random_problem(seed)
    for prediction in (similarity, similarity.top(10), similarity.top(99)):
        for (metric, k), values in zip(METRICS, score(truth, prediction), strict=True):
            np.testing.assert_allclose(values, oracle(truth, prediction, metric, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_ranking_of_the_best_k_says_the_same_up_to_k(seed):
    truth, similarity = random_problem(seed)
    random = np.random.default_rng(seed)
    similarity = replace(similarity, scores=random.permuted(np.arange(288.0).reshape(12, 24), axis=1))  # no ties
    for length in (1, 5, 10, 16, 50):
        ranking = similarity.top(length)
        assert {len(names) for names in ranking.file_names} == {min(length, 24)}
        for (_, k), full, best in zip(METRICS, score(truth, similarity), score(truth, ranking), strict=True):
            if k <= length:
                np.testing.assert_array_equal(full, best)


def test_the_best_k_with_equal_scores_come_in_the_order_of_the_columns():
    assert one_hot("c(adb)e").top(4).file_names == (tuple("cabd"),)
    names = tuple(f"{clip}.wav" for clip in range(200))
    two = Similarity(("q",), names, np.tile(np.float32([0, 1]), (1, 100)))
    assert two.top(999).file_names == (names[1::2] + names[::2],)


def organisers_2025(relevant_ranks, k):  # CPJKU/dcase2025_task6_baseline@c78422f, retrieval_module.py; ranks from 0
    relevant_ranks = sorted(relevant_ranks)
    ap = 0.0
    for i, rank in enumerate(relevant_ranks, start=1):
        if rank >= k:
            break
        ap += i / (rank + 1)
    return ap / len(relevant_ranks)


@pytest.mark.parametrize("k", [10, 16])
def test_equals_the_organisers_formula(k):
    random = np.random.default_rng(k)
    for count in (1, 2, 5, 12):
        places = random.permuted(np.tile(np.arange(40), (50, 1)), axis=1)[:, :count]
        found, counts = np.sort(places, axis=1) + 1.0, np.full(50, count)
        expected = [organisers_2025(row, k) for row in places.tolist()]
        np.testing.assert_allclose(average_precision(found, counts, k), expected, rtol=0, atol=1e-15)
        if count == 1:  # DCASE 2022's, for one relevant clip: the reciprocal rank within k
            reciprocal = [1 / (rank + 1) if rank < k else 0 for (rank,) in places.tolist()]
            np.testing.assert_array_equal(average_precision(found, counts, k), reciprocal)


# ------------------------------------------------------------------------------------------------ what must never be

relevant_sets = st.sets(st.sampled_from(CLIPS), min_size=1).map(frozenset)
anything = st.lists(st.sampled_from([*CLIPS, "unknown", "", " a", "A"]), max_size=25).map(tuple)
matrices = st.lists(st.lists(st.integers(-4, 4), min_size=10, max_size=10), min_size=3, max_size=3)


@quick
@given(st.lists(st.tuples(relevant_sets, anything), min_size=1, max_size=5))
def test_bounded_whatever_the_ranking_holds(rows):
    """Repeated and unknown names, rows too long and too short."""
    truth = {f"query {index}": relevant for index, (relevant, _) in enumerate(rows)}
    prediction = Ranking(tuple(truth), tuple(answer for _, answer in rows))
    for (metric, k), values in zip(METRICS, score(truth, prediction), strict=True):
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(values, oracle(truth, prediction, metric, k), rtol=0, atol=1e-12)


@quick
@given(st.lists(relevant_sets, min_size=3, max_size=3), matrices, st.randoms(use_true_random=False))
def test_bounded_and_unchanged_by_what_does_not_matter(relevant, matrix, random):
    """Strictly monotone transforms (also to scores that are all negative), the order of rows and of columns."""
    scores, queries = np.array(matrix, dtype=np.float64), ("x", "y", "z")
    truth = dict(zip(queries, relevant, strict=True))
    expected = score(truth, Similarity(queries, CLIPS, scores))
    assert all(((values >= 0) & (values <= 1)).all() for values in expected)

    rows, columns = random.sample(range(3), 3), random.sample(range(10), 10)
    shuffled = [queries[row] for row in rows], [CLIPS[column] for column in columns], scores[rows][:, columns]
    same = [
        Similarity(queries, CLIPS, scores - 1000),
        Similarity(queries, CLIPS, 1e-3 * scores**3),
        Similarity(queries, CLIPS, np.exp(scores).astype(np.float32)),
        Similarity(queries, CLIPS, -1 / (scores + 9)),
        Similarity(*shuffled),
    ]
    for prediction in same:
        np.testing.assert_array_equal(score(truth, prediction), expected)
    best = same[0].top(10)
    again = Ranking(tuple(best.queries[row] for row in rows), tuple(best.file_names[row] for row in rows))
    np.testing.assert_array_equal(score(truth, again), score(truth, best))


@quick
@given(relevant_sets, st.permutations(CLIPS), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12))
def test_repeated_and_unknown_names_never_help(relevant, answer, insertions):
    truth, stuffed = {"q": relevant}, list(answer)
    for number, (place, repeat) in enumerate(insertions):
        place %= len(stuffed) + 1
        stuffed.insert(place, stuffed[place // 2] if repeat and place else f"unknown {number}")
    plain = score(truth, Ranking(("q",), (tuple(answer),)))
    for better, worse in zip(plain, score(truth, Ranking(("q",), (tuple(stuffed),))), strict=True):
        assert worse <= better


def test_repeating_the_best_clip_gains_nothing():
    """The attack that lifts the 2022 baseline's mAP@10 from 0.07 to 0.32 in the organisers' own scorer of that year."""
    random = np.random.default_rng(2022)
    names = tuple(f"{clip}.wav" for clip in range(40))
    truth = {f"query {clip}": frozenset([name]) for clip, name in enumerate(names)}
    honest = Similarity(tuple(truth), names, random.normal(size=(40, 40)) + 2 * np.eye(40)).top(10)
    stuffed = Ranking(honest.queries, tuple((best,) * 10 for best, *_ in honest.file_names))
    values, gamed = ([metric.mean() for metric in score(truth, prediction)] for prediction in (honest, stuffed))
    assert all(after <= before for before, after in zip(values, gamed, strict=True))
    assert gamed == [values[0]] * len(METRICS)  # R@1, whatever the metric


# ------------------------------------------------------------------------------------------------ chance

NAMED = {f"{name}@{k}": (metric, k) for name, metric in (("R", recall), ("mAP", average_precision)) for k in (1, 5, 10)}


@pytest.mark.parametrize("clips", [1, 2, 6])
def test_chance_is_the_mean_over_all_rankings(clips):
    """By enumeration: every set of places that the relevant clips can take is as likely as any other."""
    for count in range(1, clips + 1):
        found = np.array(list(itertools.combinations(range(1, clips + 1), count)), dtype=float)
        for name, (metric, k) in NAMED.items():
            expected = metric(found, np.full(len(found), count), k).mean()
            assert chance(np.array([count]), clips, name) == pytest.approx(expected, abs=1e-12), (name, count)


def test_chance_known_values():
    # DCASE 2022: 1000 clips, one relevant (Xie et al. 2022, section 3.4).
    one = np.ones(1000, dtype=int)
    assert [chance(one, 1000, f"R@{k}") for k in (1, 5, 10)] == [0.001, 0.005, 0.01]
    harmonic = sum(1 / rank for rank in range(1, 11))
    assert chance(one, 1000, "mAP@10") == pytest.approx(harmonic / 1000, abs=1e-15)
    assert chance(np.array([1, 2, 3]), 3, "R@50") == 1  # a k beyond the clips
    assert chance(np.array([3]), 3, "mAP@50") == pytest.approx(1)


def test_chance_is_what_random_matrices_reach():
    random, clips, counts = np.random.default_rng(1), 30, np.array([1, 2, 5, 8, 30])
    names = tuple(f"{clip}.wav" for clip in range(clips))
    truth = {f"{count} relevant": frozenset(names[:count]) for count in counts}
    draws = {name: [] for name in NAMED}
    for _ in range(600):
        found = ranks(truth, Similarity(tuple(truth), names, random.random((len(counts), clips))))
        for name, (metric, k) in NAMED.items():
            draws[name].append(metric(*found, k).mean())
    for name, values in draws.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - chance(counts, clips, name)) < 4 * error, name


# ------------------------------------------------------------------------------------------------ validate

TRUTH = {"A dog barks.": frozenset(["dog.wav"]), "It rains.": frozenset([" rain.wav", "storm.wav"])}
NAMES = ("dog.wav", " rain.wav", "storm.wav", "cours d&#39;eau.wav")


def ranking(*rows, lines=()) -> Ranking:
    return Ranking(tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows), lines)


def similarity(queries=tuple(TRUTH), names=NAMES, scores=None) -> Similarity:
    return Similarity(queries, names, np.zeros((len(queries), len(names)), "f4") if scores is None else scores)


DOG, RAIN = ("A dog barks.", "dog.wav"), ("It rains.", "storm.wav")

FINDINGS = [
    (ranking(DOG, RAIN), []),
    (similarity(), []),
    # errors
    (ranking(DOG), ["prediction: error: no query 'It rains.'"]),
    (similarity(tuple(TRUTH)[:1]), ["prediction: error: no query 'It rains.'"]),
    (
        ranking(DOG, ("it rains. ", "storm.wav")),
        [
            "prediction: error: no query 'It rains.'; there is 'it rains. '",
            "prediction: note: queries beyond the truth's are left out: 1",
        ],
    ),
    (ranking(), ["prediction: error: no query 'A dog barks.'", "prediction: error: no query 'It rains.'"]),
    (
        ranking(DOG, RAIN, DOG, lines=(2, 3, 5)),
        ["prediction:5: error: query 'A dog barks.' stands here twice; give each query once"],
    ),
    (
        similarity(("It rains.", *TRUTH)),
        ["prediction: error: query 'It rains.' stands here twice; give each query once"],
    ),
    (similarity(names=(*NAMES, "dog.wav")), ["prediction: error: clip 'dog.wav' has two columns; give each clip one"]),
    (
        similarity(scores=np.array([[0, 1, 2, 3], [np.nan, 0, np.inf, 0]])),
        ["prediction: error: scores must be finite; 1 of 2 queries have others, first 'It rains.'"],
    ),
    # warnings and notes
    (
        ranking(DOG, RAIN, ("More.", "dog.wav"), ("And more.", "dog.wav")),
        ["prediction: note: queries beyond the truth's are left out: 2"],
    ),
    (
        ranking(DOG, ("It rains.", "storm.wav", "rain.wav", "snow.wav", "snow.wav", "cours d'eau.wav"), lines=(2, 3)),
        [
            "prediction:3: warning: given more than once: 'snow.wav'; only the first counts",
            'prediction:3: warning: no clip "cours d\'eau.wav" in this split; it counts as wrong; '
            "there is 'cours d&#39;eau.wav'",
            "prediction:3: warning: no clip 'rain.wav' in this split; it counts as wrong; there is ' rain.wav'",
            "prediction:3: warning: no clip 'snow.wav' in this split; it counts as wrong",
        ],
    ),
    (
        ranking(("A dog barks.", "dog.wav", "storm.wav", "dog.wav", "storm.wav"), RAIN, lines=(2, 3)),
        ["prediction:2: warning: given more than once: 'dog.wav', 'storm.wav'; only the first counts"],
    ),
    (
        similarity(names=NAMES[:2]),
        ["prediction: warning: no column for 2 of the split's 4 clips; they count as not found"],
    ),
    (
        similarity(names=(*NAMES[:2], "Storm.wav", NAMES[3])),
        [
            "prediction: warning: no clip 'Storm.wav' in this split; it counts as wrong; there is 'storm.wav'",
            "prediction: warning: no column for 1 of the split's 4 clips; they count as not found",
        ],
    ),
    # all at once
    (
        ranking(DOG, DOG, ("Else.", "dog.wav", "dog.wav"), lines=(2, 3, 4)),
        [
            "prediction: error: no query 'It rains.'",
            "prediction: note: queries beyond the truth's are left out: 1",
            "prediction:3: error: query 'A dog barks.' stands here twice; give each query once",
            "prediction:4: warning: given more than once: 'dog.wav'; only the first counts",
        ],
    ),
]


@pytest.mark.parametrize(("prediction", "expected"), FINDINGS)
def test_findings(prediction, expected):
    if any(": error: " in line for line in expected):
        with pytest.raises(Faulty) as refusal:
            validate(TRUTH, NAMES, prediction)
        assert str(refusal.value).split("\n") == expected
    else:
        assert [str(finding) for finding in sorted(validate(TRUTH, NAMES, prediction))] == expected


def test_a_full_ranking_of_clotho_is_checked_in_no_time():
    names = tuple(f"{clip}.wav" for clip in range(1045))
    rows = tuple((f"query {row}", *names) for row in range(300))
    truth = {row[0]: frozenset(["7.wav"]) for row in rows}
    start = time.process_time()
    assert validate(truth, names, ranking(*rows)) == []
    assert time.process_time() - start < 2  # 0.05 s; with list.count for every name, 6 s


# ------------------------------------------------------------------------------------------------ read

HOSTILE = (
    *(" leading.wav", "trailing.wav ", "a, b.wav", 'q"uo"te.wav', "cours d&#39;eau.wav", "x.y.z.wav", "名前.wav"),
    *("e\u0301.wav", "\u00e9.wav", "tab\t.wav", "nul\0.wav", "half \ud83d.wav", "", "UPPER.WAV", "-", "long" * 3000),
)


def test_npz_holds_texts_and_scores_verbatim(tmp_path):
    scores = np.random.default_rng(0).normal(size=(len(HOSTILE), len(HOSTILE))).astype(np.float32)
    scores[0, :3] = [-0.0, 1e-45, np.nan]
    Similarity(HOSTILE, HOSTILE[::-1], scores).save(tmp_path / "new" / "it.npz")
    again = read(tmp_path / "new" / "it.npz")
    assert (again.queries, again.file_names) == (HOSTILE, HOSTILE[::-1])
    assert again.scores.dtype == np.float32
    assert again.scores.tobytes() == scores.tobytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["it.npz"]


def texts(*values) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


class Bomb:
    def __reduce__(self):
        return (warnings.warn, ("a pickle was run",))


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(
        file, **({"queries": texts("q"), "file_names": texts("a", "b"), "scores": np.zeros((1, 2), "f4")} | arrays)
    )
    return file.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


WRITES = "must hold queries, file_names and scores as `systems predict` writes them"
FLOATS = "scores must be 1 x 2 floats, queries by clips; found"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", WRITES),
        (b"not a zip file", WRITES),
        (npz()[:-30], f"{WRITES} (File is not a zip file)"),
        (npz().replace(b"\x00" * 8, b"\x01" * 8), WRITES),
        (npy(np.zeros((1, 2))), WRITES),
        (pickle.dumps(Bomb()), f"{WRITES} (This file contains pickled (object) data."),
        (npz(scores=np.array([[Bomb(), 0]])), f"{WRITES} (Object arrays cannot be loaded when allow_pickle=False)"),
        (npz(queries=np.array([Bomb()])), f"{WRITES} (Object arrays cannot be loaded when allow_pickle=False)"),
        (npz(queries=np.array(["q"])), WRITES),  # a plain array of strings
        (npz(queries=texts(1)), f"{WRITES} (queries and file_names must be lists of texts)"),
        (npz(file_names=texts("a", ["b"])), f"{WRITES} (queries and file_names must be lists of texts)"),
        (npz(queries=np.frombuffer(b"1", np.uint8)), WRITES),
        (npz(queries=np.frombuffer(b'["\xe9"]', np.uint8)), WRITES),
        (npz().replace(b"scores.npy", b"others.npy"), f"{WRITES} ('scores is not a file in the archive')"),
        (npz(scores=np.zeros((2, 1), "f4")), f"{FLOATS} 2 x 1 float32"),
        (npz(scores=np.zeros(2)), f"{FLOATS} 2 float64"),
        (npz(scores=np.zeros((1, 2, 1), "f4")), f"{FLOATS} 1 x 2 x 1 float32"),
        (npz(scores=np.zeros((1, 2), "i8")), f"{FLOATS} 1 x 2 int64"),
        (npz(scores=np.array([["0", "1"]])), f"{FLOATS} 1 x 2 <U1"),
    ],
    ids=itertools.count(),
)
def test_npz_that_does_not_hold(content, message, tmp_path, recwarn):
    path = tmp_path / "it.npz"
    path.write_bytes(content)
    with pytest.raises(Faulty) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"{path}: error: {message}")
    assert not [warning for warning in recwarn if "a pickle was run" in str(warning.message)]


def test_npz_damaged_anywhere_is_refused_or_read(tmp_path):
    whole, path, random = npz(), tmp_path / "it.npz", np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 17)]
    for place in random.integers(0, len(whole), 200):
        damaged.append(whole[:place] + bytes([whole[place] ^ random.integers(1, 256)]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert read(path).scores.shape == (1, 2)
        except Faulty:
            refused += 1
    assert refused > len(damaged) / 2


ROWS = [["caption", "file_name_1", "file_name_2"], ["It rains, a lot.", " rain.wav", "a, b.wav"], ['"Hi"', "é.wav", ""]]


def as_csv(separator=",", end="\n") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows(ROWS)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("it.csv", as_csv().encode()),
        ("IT.CSV", as_csv().encode()),
        ("tab.csv", as_csv("\t").encode()),
        ("tab.tsv", as_csv("\t").encode()),
        ("bom.csv", as_csv().encode("utf-8-sig")),
        ("tab bom.csv", as_csv("\t").encode("utf-8-sig")),
        ("crlf.csv", as_csv(end="\r\n").encode()),
        ("cr.csv", as_csv(end="\r").encode()),
        ("no last newline.csv", as_csv().rstrip("\n").encode()),
        ("blank lines at the end.csv", as_csv().encode() + b"\n\n"),
    ],
)
def test_csv(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    names = ((" rain.wav", "a, b.wav"), ("é.wav", ""))
    assert read(tmp_path / name) == Ranking(("It rains, a lot.", '"Hi"'), names, (2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            as_csv().encode("latin-1"),
            ":3: file_name_1: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
        ),
        (as_csv().encode("utf-16"), ": error: must be UTF-8; this is UTF-16: save it as UTF-8"),
        (
            b'caption,file_name_1\nIt rains.,"a" b.wav\n',
            ":2: error: is not valid CSV (',' expected after '\"'); quote a cell that holds a comma or a quote, and "
            "double its quotes",
        ),
        (
            b'caption,file_name_1\nIt rains.,"a.wav\n',
            ":2: error: is not valid CSV (unexpected end of data); quote a cell that holds a comma or a quote, and "
            "double its quotes",
        ),
        (b"caption,file_name_1\n\nIt rains.,a.wav\n", ":2: error: is a blank line; remove it"),
    ],
)
def test_csv_that_does_not_hold(content, message, tmp_path):
    path = tmp_path / "it.csv"
    path.write_bytes(content)
    with pytest.raises(Faulty) as refusal:
        read(path)
    assert str(refusal.value) == f"{path}{message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npz", "no such file; give a prediction (.npz or .csv)"),
        ("folder.npz", "no such file; give a prediction (.npz or .csv)"),
        ("it.txt", "must be .npz (a similarity matrix) or .csv (query and best clips, best first)"),
        ("it", "must be .npz (a similarity matrix) or .csv (query and best clips, best first)"),
    ],
)
def test_no_prediction(name, message, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "it.txt").touch()
    (tmp_path / "it").touch()
    with pytest.raises(BadRequest) as refusal:
        read(tmp_path / name)
    assert str(refusal.value) == f"{tmp_path / name}: {message}"


# ------------------------------------------------------------------------------------------------ evaluate

# Twenty clips, four queries with one relevant clip each, found at ranks 1, 1, 2 and 6:
#   R@1 1/2, R@5 3/4, R@10 1; mAP@10 (1 + 1 + 1/2 + 1/6) / 4 = 2/3; the jackknife's margin is 1.96 · deviation / √4.
#   By chance R@k is k / 20 and mAP@10 (1 + 1/2 + … + 1/10) / 20 = 0.146.
TWENTY = tuple(f"{clip:02}.wav" for clip in range(20))
FOUR = {f"query {row}": frozenset([TWENTY[place]]) for row, place in enumerate((0, 0, 1, 5))}
DESCENDING = Similarity(tuple(FOUR), TWENTY, np.tile(-np.arange(20, dtype=np.float32), (4, 1)))
TABLE = """\
metric      value    95 % interval    chance    queries
--------  -------  ---------------  --------  ---------
mAP@10      0.667    0.267 – 1.067     0.146          4
R@1         0.500   -0.066 – 1.066     0.050          4
R@5         0.750    0.260 – 1.240     0.250          4
R@10        1.000    1.000 – 1.000     0.500          4
signature: """


def test_score_table():
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING)
    assert str(score) == TABLE + score.signature
    assert score.findings == ()


def test_json_has_full_precision(tmp_path):
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING)
    score.save(tmp_path / "new" / "scores.json")
    text = (tmp_path / "new" / "scores.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    saved = json.loads(text)
    assert list(saved) == ["signature", "metrics"]
    assert saved["signature"] == score.signature
    assert list(saved["metrics"]) == ["mAP@10", "R@1", "R@5", "R@10"]
    for name, figures in saved["metrics"].items():
        assert list(figures) == ["value", "std_error", "low", "high", "n", "interval", "chance"]
        assert [figures[key] for key in ("n", "interval")] == [4, "jackknife-95"]
        for key in ("value", "std_error", "low", "high"):
            assert figures[key] == getattr(score.metrics[name], key)  # to the last bit
        assert figures["chance"] == score.chance[name]
    assert saved["metrics"]["mAP@10"]["value"] == pytest.approx(2 / 3, abs=1e-16)


def test_json_of_a_single_query_is_json(tmp_path):
    truth = {"query 0": FOUR["query 0"]}
    evaluate(split_of(truth, TWENTY), DESCENDING).save(tmp_path / "scores.json")

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    saved = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    figures = saved["metrics"]["R@1"]
    assert [figures[key] for key in ("value", "std_error", "low", "high", "n")] == [1.0, None, None, None, 1]


def parts(score) -> dict[str, str]:
    return dict(part.split(":", 1) for part in score.signature.split("|"))


def test_signature_names_all_that_changes_the_number():
    split = split_of(FOUR, TWENTY)
    score = evaluate(split, DESCENDING)
    assert re.sub("#[0-9a-f]{8}", "#…", score.signature) == (
        f"dcase-kit:{retrieval.VERSION}|split:evaluation#…|truth:relevance_evaluation.csv#…|queries:4|clips:20|"
        "relevant:1-1|prediction:similarity|ap:over-relevant|ties:relevant-last|repeated,unknown:wrong|missing:error|"
        f"interval:jackknife-95-normal|numpy:{np.__version__}"
    )
    assert parts(score)["split"] == f"evaluation#{split.fingerprint}"
    other = {**FOUR, "query 3": frozenset([TWENTY[6]])}
    more = {**FOUR, "query 3": frozenset(TWENTY[5:8])}
    captions = tuple(Clip(clip, (query,), Path()) for clip, query in zip(TWENTY, FOUR, strict=False))
    changes = [
        (evaluate(split, DESCENDING), set()),
        (evaluate(split, replace(DESCENDING, scores=2 * DESCENDING.scores)), set()),
        (evaluate(split, DESCENDING, metrics=["R@7"]), set()),  # k stands in the metric's name
        (evaluate(split, DESCENDING.top(10)), {"prediction"}),
        (evaluate(replace(split, name="validation"), DESCENDING), {"split", "truth"}),
        (evaluate(split_of(other, TWENTY), DESCENDING), {"split", "truth"}),
        (evaluate(split, DESCENDING, truth=other, truth_name="relevance_evaluation.csv"), {"truth"}),
        (evaluate(split, DESCENDING, truth=FOUR), {"truth"}),  # the same, but not from the data
        (evaluate(split, DESCENDING, truth=more), {"truth", "relevant"}),
        (evaluate(split_of(FOUR, (*TWENTY, "more.wav")), DESCENDING), {"split", "clips"}),
        (evaluate(Split("evaluation", captions), DESCENDING), {"split", "truth", "clips"}),
        (evaluate(split, DESCENDING, truth={"query 0": FOUR["query 0"]}), {"truth", "queries"}),
    ]
    for number, (changed, keys) in enumerate(changes):
        now = parts(changed)
        assert {key for key, value in parts(score).items() if now[key] != value} == keys, number
    rankings = [parts(evaluate(split, DESCENDING.top(k)))["prediction"] for k in (10, 16)]
    assert rankings == ["top-10", "top-16"]
    assert parts(changes[-2][0])["truth"].startswith("captions#")


def test_version_is_the_project_s():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == retrieval.VERSION


def test_the_same_prediction_from_either_file_scores_the_same(tmp_path):
    random = np.random.default_rng(3)
    truth = {query: frozenset(random.choice(TWENTY, 3)) for query in HOSTILE if "\ud83d" not in query}
    matrix = Similarity(tuple(truth), TWENTY, random.random((len(truth), 20)).astype(np.float32))
    matrix.save(tmp_path / "it.npz")
    best = matrix.top(10)
    with (tmp_path / "it.csv").open("w", encoding="utf-8", newline="") as file:
        rows = ([query, *names] for query, names in zip(best.queries, best.file_names, strict=True))
        csv.writer(file).writerows([["caption", *(f"file_name_{rank}" for rank in range(1, 11))], *rows])
    split, metrics = split_of(truth, TWENTY), ["mAP@10", "R@1", "R@5", "R@10", "mAP@5", "R@20"]
    full, top = (evaluate(split, read(tmp_path / f"it.{kind}"), metrics=metrics) for kind in ("npz", "csv"))
    assert full.metrics.pop("R@20").value == 1
    assert top.metrics.pop("R@20").value == top.metrics["R@10"].value  # what is not in the file is not found
    assert top.metrics == full.metrics
    assert top.chance == full.chance


@pytest.mark.parametrize("name", ["mAP", "map@10", "R@0", "R@", "P@10", "R@1.5", "mAP@-1", "R@10 ", "R@010", "", "é@1"])
def test_unknown_metric(name):
    with pytest.raises(BadRequest) as refusal:
        evaluate(split_of(FOUR, TWENTY), DESCENDING, metrics=["R@1", name])
    assert str(refusal.value) == f"unknown metric {name!r}; there are mAP@k and R@k for any k from 1"


def test_no_truth():
    with pytest.raises(BadRequest) as refusal:
        evaluate(split_of(None, TWENTY, "retrieval"), DESCENDING)
    assert str(refusal.value) == "the split retrieval has no truth: its queries' clips are not known"


def test_evaluate_refuses_and_remarks_as_validate_does():
    split = split_of({**FOUR, "one more": frozenset([TWENTY[0]])}, TWENTY)
    with pytest.raises(Faulty, match=r"^answers\.csv: error: no query 'one more'$"):
        evaluate(split, DESCENDING, file="answers.csv")
    (finding,) = evaluate(split_of(FOUR, TWENTY[1:]), DESCENDING, file="answers.csv").findings
    assert str(finding) == "answers.csv: warning: no clip '00.wav' in this split; it counts as wrong"


# ------------------------------------------------------------------------------------------------ real material


def real(path: str) -> Path:
    if not (REAL / path).exists():
        pytest.skip(f"{REAL / path} is not here")
    return REAL / path


def test_esc10_by_chance():
    split = data.read(real("esc10"), "evaluation", sound=False)["evaluation"]
    assert len(split.truth) == 60
    assert {len(names) for names in split.truth.values()} != {1}
    random = np.random.default_rng(10)
    draws = {name: [] for name in NAMED}
    for _ in range(150):
        matrix = random.random((len(split.queries), len(split.clips)), dtype=np.float32)
        found = ranks(split.truth, Similarity(split.queries, split.file_names, matrix))
        for name, (metric, k) in NAMED.items():
            draws[name].append(metric(*found, k).mean())
    score = evaluate(split, Similarity(split.queries, split.file_names, matrix), metrics=list(NAMED))
    assert parts(score)["truth"].startswith("relevance_evaluation.csv#")
    for name, values in draws.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - score.chance[name]) < 4 * error, name
        assert score.metrics[name].value == values[-1]


def test_dcase2025_development_annotations():
    split = data.read(real("clotho"), "evaluation", sound=False)["evaluation"]
    path = real("dcase2025_task6/metadata_eval.csv")
    truth = data.read_relevance(path, split.file_names)
    assert len(truth) == 1037
    assert max(map(len, truth.values())) == 12
    random = np.random.default_rng(2025)
    matrix = random.random((len(split.queries), len(split.clips)))
    columns = {name: column for column, name in enumerate(split.file_names)}
    rows = {query: row for row, query in enumerate(split.queries)}
    for query, names in truth.items():
        matrix[rows[query], [columns[name] for name in names]] += 0.5  # some way towards the truth
    prediction = Similarity(split.queries, split.file_names, matrix)
    score = evaluate(split, prediction, truth=truth, truth_name=path.name, metrics=["mAP@16", "mAP@10"])
    places = (-matrix).argsort(axis=1).argsort(axis=1)
    for k in (10, 16):
        expected = [
            organisers_2025([places[rows[query], columns[name]] for name in names], k) for query, names in truth.items()
        ]
        estimate = score.metrics[f"mAP@{k}"]
        assert estimate.n == 1037
        assert 0.1 < estimate.value < 0.9
        assert estimate.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert parts(score)["relevant"] == "1-12"
    remarks = [str(finding) for finding in score.findings]
    assert remarks == [f"prediction: note: queries beyond the truth's are left out: {len(split.queries) - 1037}"]


def test_the_prediction_of_another_split_is_one_finding():
    truth = {f"query {number}": frozenset({"a.wav"}) for number in range(50)}
    other = Ranking(tuple(f"other {number}" for number in range(40)), (("b.wav",),) * 40)
    with pytest.raises(Faulty) as fault:
        retrieval.validate(truth, ["a.wav"], other, "file.csv")
    message = "answers none of the 50 queries; is this the prediction of another split or data set?"
    assert [str(finding) for finding in fault.value.findings] == [f"file.csv: error: {message}"]
