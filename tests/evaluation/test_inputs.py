"""Inputs of the metrics from notebooks: every form gives the same score, and wrong ones get a message."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
import torch
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_recall

from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning, retrieval
from evaluation.predictions import Captions, Ranking, Similarity, read_captions, read_retrieval, write_captions

NAN = float("nan")
DOG, RAIN, STORM, WIND = CLIPS = ("dog.wav", "rain.wav", "storm.wav", "wind.wav")
TRUTH = {"A dog.": DOG, "Rain.": [RAIN, STORM], "Wind.": {WIND: 2, STORM: 1, DOG: 0}}
QUERIES = tuple(TRUTH)
SCORES = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.2, 0.3]])
RANKED = {query: [CLIPS[column] for column in np.argsort(-row)] for query, row in zip(QUERIES, SCORES, strict=True)}
SCORES_OF_CLIPS = {
    query: dict(zip(CLIPS, row.tolist(), strict=True)) for query, row in zip(QUERIES, SCORES, strict=True)
}
FRAME = pd.DataFrame(SCORES, QUERIES, CLIPS)
METRICS = ["mAP@10", "R@1", "R@2", "nDCG@4", "MRR", "medR"]


def findings_of(function, *arguments, **options):
    with pytest.raises(Faulty) as refusal:
        function(*arguments, **options)
    return [str(finding) for finding in refusal.value.findings]


def numbers_of(score):
    """All numbers of a score, at full precision."""
    values = {name: measured.values.tolist() for name, measured in score.metrics.items() if measured.values is not None}
    return repr(dict(score.metrics)), values, score.items


# ------------------------------------------------------------------------------------------------ retrieval


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        (Similarity(QUERIES, CLIPS, SCORES), {}),
        (Ranking(QUERIES, tuple(map(tuple, RANKED.values()))), {}),
        (RANKED, {}),
        ({query: np.array(names) for query, names in RANKED.items()}, {"clips": pd.Index(CLIPS)}),
        (dict(reversed(RANKED.items())), {"clips": list(reversed(CLIPS))}),
        (SCORES_OF_CLIPS, {}),
        (FRAME, {}),
        (FRAME[list(reversed(CLIPS))].iloc[::-1], {}),
        (SCORES, {"clips": CLIPS}),
        (SCORES.tolist(), {"clips": list(CLIPS), "queries": list(QUERIES)}),
        (SCORES[::-1], {"clips": np.array(CLIPS), "queries": QUERIES[::-1]}),
        (torch.tensor(SCORES, requires_grad=True), {"clips": CLIPS}),
    ],
)
def test_all_forms_of_scores_are_equal(scores, options):
    expected = retrieval.evaluate(TRUTH, Similarity(QUERIES, CLIPS, SCORES), metrics=METRICS)
    score = retrieval.evaluate(TRUTH, scores, metrics=METRICS, **options)
    assert numbers_of(score) == numbers_of(expected)
    assert score.signature == expected.signature


@pytest.mark.parametrize(
    "truth",
    [
        {"Rain.": (STORM, RAIN), "A dog.": {DOG}, "Wind.": {STORM: 1.0, WIND: np.float32(2)}},
        pd.Series({"A dog.": [DOG], "Rain.": {RAIN: 1, STORM: True}, "Wind.": {WIND: 2, STORM: 1}}),
        {
            np.str_("A dog."): np.str_(DOG),
            "Rain.": np.array([RAIN, STORM]),
            "Wind.": pd.Series({WIND: 2, STORM: 1}).to_dict(),
        },
    ],
)
def test_the_same_truth_has_the_same_signature(truth):
    expected = retrieval.evaluate(TRUTH, FRAME)
    assert retrieval.evaluate(truth, FRAME).signature == expected.signature
    other = {**TRUTH, "A dog.": WIND}
    assert retrieval.evaluate(other, FRAME).signature != expected.signature


def test_retrieval_equals_other_libraries():
    score = retrieval.evaluate(TRUTH, FRAME, metrics=["mAP@4", "R@2", "nDCG@4"]).items.table()
    qrels = {"A dog.": {DOG: 1}, "Rain.": {RAIN: 1, STORM: 1}, "Wind.": {WIND: 2, STORM: 1}}
    trec = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.4", "recall.2", "ndcg_cut.4"}).evaluate(SCORES_OF_CLIPS)
    for row, query in enumerate(QUERIES):
        ours = score.loc[query]
        assert ours["mAP@4"] == pytest.approx(trec[query]["map_cut_4"])
        assert ours["R@2"] == pytest.approx(trec[query]["recall_2"])
        assert ours["nDCG@4"] == pytest.approx(trec[query]["ndcg_cut_4"])
        target = torch.tensor([clip in qrels[query] for clip in CLIPS])
        scores = torch.tensor(SCORES[row])
        assert ours["mAP@4"] == pytest.approx(float(retrieval_average_precision(scores, target)))
        assert ours["R@2"] == pytest.approx(float(retrieval_recall(scores, target, top_k=2)))


def test_retrieval_from_python_equals_retrieval_from_files(clotho_like, tmp_path):
    split = read_dataset(str(clotho_like({"evaluation": 9})), "evaluation", sound=False)["evaluation"]
    scores = np.random.default_rng(0).normal(size=(len(split.queries), 9))
    Similarity(split.queries, split.file_names, scores).save(str(tmp_path / "it.npz"))
    truth = {query: list(names) for query, names in split.truth.items()}
    for interval in ("jackknife", "jackknife-t", "bootstrap"):
        options = {"metrics": METRICS, "interval": interval}
        expected = retrieval.evaluate(split, read_retrieval(str(tmp_path / "it.npz")), **options)
        assert numbers_of(retrieval.evaluate(split, scores, **options)) == numbers_of(expected)
        frame = pd.DataFrame(scores, split.queries, split.file_names)
        assert numbers_of(retrieval.evaluate(truth, frame, **options)) == numbers_of(expected)
    parts = expected.signature.split("|")
    ours = retrieval.evaluate(truth, frame, **options).signature.split("|")
    differing = {part.partition(":")[0] for part in set(parts) ^ set(ours)}
    assert differing == {"split", "truth"}
    digests = [part.partition("#")[2] for part in (parts[2], ours[2])]
    assert digests[0] == digests[1]  # the content of the truth is the same


def test_clips_that_the_scores_lack():
    truth = {**TRUTH, "A dog.": [DOG, "puppy.wav"]}
    score = retrieval.evaluate(truth, FRAME, clips=[*CLIPS, "puppy.wav"], metrics=["R@1"])
    assert score.items.table()["R@1"].tolist() == [0.5, 0, 0]
    assert [str(finding) for finding in score.findings] == [
        "prediction: warning: no column for 1 of the split's 5 clips; they count as not found"
    ]


def test_clips_that_only_the_lists_name():
    lists = {query: [*names, "other.wav"] for query, names in RANKED.items()}
    assert findings_of(retrieval.evaluate, TRUTH, lists) == [
        "prediction: error: lists 1 clip that the truth does not name, for example 'other.wav'; pass `clips=[…]`, the "
        "names of all clips; the chance levels depend on their number"
    ]
    score = retrieval.evaluate(TRUTH, lists, clips=[*CLIPS, "other.wav"], metrics=["R@1"])
    assert score.metrics["R@1"].chance == 1 / 5


FORM = (
    "must be a Similarity, an array with `clips=[…]`, a DataFrame, or a dict from each query to its clips, best first"
)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (SCORES, {}, "an array must come with the names of its columns; pass `clips=[…]`"),
        (SCORES[:2], {"clips": CLIPS}, "scores must have the shape (queries, clips), which is (3, 4); found (2, 4)"),
        (SCORES, {"clips": CLIPS[:3]}, "scores must have the shape (queries, clips), which is (3, 3); found (3, 4)"),
        (SCORES, {"clips": DOG}, "clips must be a list of texts; found the text 'dog.wav': put it into a list"),
        (SCORES[:, [0, 1, 2, 3, 0]], {"clips": (*CLIPS, DOG)}, "clip 'dog.wav' has two columns; give each clip one"),
        (
            SCORES,
            {"clips": CLIPS, "queries": iter(QUERIES)},
            "queries must be a list of texts; found a tuple_iterator: ",
        ),
        (SCORES[0], {"clips": CLIPS}, f"{FORM}; scores must be an array with two dimensions; found the shape (4,)"),
        ("scores.npz", {}, f"{FORM}; found the text 'scores.npz'; read a file with `read_retrieval(path)`"),
        (Path("a.npz"), {}, f"{FORM}; found a PosixPath; read a file with `read_retrieval(path)`"),
        (None, {}, f"{FORM}; scores must be a list or an array of numbers; found None"),
        ({}, {}, f"{FORM}; found an empty dict"),
        (FRAME, {"queries": QUERIES}, "already names its queries; leave out `queries`"),
        (pd.DataFrame(SCORES), {}, "the names of rows, which are the queries, must be texts; found the number 0 at"),
        (
            FRAME.where(FRAME < 0.9),
            {},
            "scores must be finite; 1 of 3 queries have NaN or infinite scores, for example",
        ),
        (FRAME.iloc[:2], {}, "query 'Wind.' is missing"),
        (pd.concat([FRAME, FRAME[:1]]), {}, "query 'A dog.' appears twice; give each query once"),
        ({**RANKED, "Rain.": RAIN}, {}, "the clips of 'Rain.' must be a list of names, best first; found the text"),
        (
            {**RANKED, "Rain.": set(CLIPS)},
            {},
            "the clips of 'Rain.', best first, must be a list of texts; found a set, ",
        ),
        (
            {**RANKED, "Rain.": iter(CLIPS)},
            {},
            "the clips of 'Rain.', best first, must be a list of texts; found a tup",
        ),
        (
            {**RANKED, "Rain.": [0, 1]},
            {},
            "the clips of 'Rain.', best first, must be texts; found the number 0 at index",
        ),
        ({**RANKED, NAN: [DOG]}, {}, "queries must be texts; found NaN, a missing value at index 3"),
        ({**SCORES_OF_CLIPS, "Rain.": {DOG: 1}}, {}, "must have a score of the same clips for each query; 'Rain.' and"),
        (
            {**SCORES_OF_CLIPS, "Rain.": [DOG]},
            {},
            "must have a dict with scores for each query, as for 'A dog.'; found a",
        ),
    ],
)
def test_refused_scores(scores, options, message):
    found = findings_of(retrieval.evaluate, TRUTH, scores, **options)
    assert any(finding.startswith(f"prediction: error: {message}") for finding in found), found


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([DOG], "must be a dict from each query to the clips that answer it, or a Split; found a list"),
        ({}, "must be a dict from each query to the clips that answer it, or a Split; found an empty dict"),
        (
            FRAME,
            "must be a dict from each query to the clips that answer it, or a Split; found a DataFrame; the truth co",
        ),
        (pd.Series([DOG], ["A dog."]).repeat(2), "each name must have one row; 'A dog.' has more than one"),
        ({3: DOG}, "queries must be texts; found the number 3"),
        (
            {"A dog.": NAN},
            "the clips of 'A dog.' must be a name, a list or set of names, or a dict from names to grades",
        ),
        (
            {"A dog.": iter([DOG])},
            "the clips of 'A dog.' must be a name, a list or set of names, or a dict from names to",
        ),
        ({"A dog.": []}, "the clips of 'A dog.' must be one name or more; found none: add a clip, or remove the query"),
        ({"A dog.": [DOG, None]}, "the clips of 'A dog.' must be texts; found None at index 1"),
        ({"A dog.": [DOG, DOG]}, "the clips of 'A dog.' must be different; 'dog.wav' appears more than once"),
        ({"A dog.": {DOG: -1}}, "the grades of 'A dog.' must be finite and 0 or more; found the number -1"),
        ({"A dog.": {DOG: NAN}}, "the grades of 'A dog.' must be finite and 0 or more; found NaN, a missing value"),
        ({"A dog.": {DOG: "1"}}, "the grades of 'A dog.' must be finite and 0 or more; found the text '1'"),
        ({"A dog.": {DOG: 0}}, "'A dog.' must have a clip with a grade above 0; add one, or remove the query"),
        (
            {"A dog.": ["cat.wav", RAIN]},
            "must name clips of the scores for 'A dog.'; found 'cat.wav'; if it was ranked",
        ),
        ({"A dog.": "cat.wav"}, "names none of the 4 clips of the scores; found 'cat.wav'; are they of the same data?"),
        (
            {"A dog.": ["dog.WAV", RAIN]},
            "must name clips of the scores for 'A dog.'; found 'dog.WAV'; there is 'dog.wav'",
        ),
    ],
)
def test_refused_truth(truth, message):
    found = findings_of(retrieval.evaluate, truth, Similarity(QUERIES, CLIPS, SCORES))
    assert [finding[: len(f"truth: error: {message}")] for finding in found] == [f"truth: error: {message}"]


def test_names_that_all_differ_alike_are_one_finding():
    clips = [f"{number}.wav" for number in range(9)]
    truth = {f"query {number}": f"{number}.mp3" for number in range(9)}
    assert findings_of(retrieval.evaluate, truth, np.eye(9), clips=clips) == [
        "truth: error: all 9 names differ from the given clips' only in their extension: .mp3 where the given clips "
        "have .wav; write the names as in the given clips"
    ]


def test_relevance_is_for_splits_only():
    with pytest.raises(BadRequest, match="relevance replaces the truth of a split; if the truth is a dict, leave out"):
        retrieval.evaluate(TRUTH, FRAME, relevance=TRUTH)
    with pytest.raises(BadRequest, match="metrics must be a list of names; found the text 'R@1': pass \\['R@1'\\]"):
        retrieval.evaluate(TRUTH, FRAME, metrics="R@1")


# ------------------------------------------------------------------------------------------------ captioning

# In the order of the names, so that the lists below are in the order in which the captions of dicts are read.
PREDICTIONS = {"a.wav": "rain is falling", "b.wav": "A dog barks."}
REFERENCES = {"a.wav": ["Rain falls on a roof.", "it is raining"], "b.wav": ["a dog is barking loudly"]}
CAPTION_METRICS = ["cider_d", "rouge_l", "bleu_1", "bleu_4"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def scored(cache):
    return captioning.evaluate(PREDICTIONS, REFERENCES, metrics=CAPTION_METRICS, cache=str(cache))


def test_all_forms_of_captions_are_equal(scored, cache):
    back = dict(reversed(REFERENCES.items()))
    for predictions, references in (
        (pd.Series(PREDICTIONS), pd.Series(back)),
        (Captions(tuple(PREDICTIONS), tuple(PREDICTIONS.values())), back),
        ({np.str_(name): np.str_(text) for name, text in PREDICTIONS.items()}, back),
    ):
        score = captioning.evaluate(predictions, references, metrics=CAPTION_METRICS, cache=cache)
        assert numbers_of(score) == numbers_of(scored)
        assert score.signature == scored.signature
    for predictions, references in (
        (list(PREDICTIONS.values()), list(REFERENCES.values())),
        (pd.Series(PREDICTIONS.values()), np.array([*REFERENCES.values(), None], dtype=object)[:2]),
    ):
        score = captioning.evaluate(predictions, references, metrics=CAPTION_METRICS, cache=cache)
        assert numbers_of(score)[:2] == numbers_of(scored)[:2]
        assert score.items.names == ("0", "1")


def test_captions_from_python_equal_captions_from_files(clotho_like, cache, tmp_path):
    split = read_dataset(clotho_like({"evaluation": 6}), "evaluation", sound=False)["evaluation"]
    predictions = {clip.file_name: f"{clip.captions[0]} and more" for clip in split.clips}
    write_captions(str(tmp_path / "it.csv"), list(predictions), list(predictions.values()))
    references = {clip.file_name: clip.captions for clip in split.clips}
    for interval in ("jackknife", "bootstrap"):
        options = {"metrics": ["cider_d", "bleu_2"], "interval": interval, "cache": cache}
        expected = captioning.evaluate(read_captions(str(tmp_path / "it.csv")), split, **options)
        assert numbers_of(captioning.evaluate(predictions, split, **options)) == numbers_of(expected)
        score = captioning.evaluate(predictions, references, **options)
        assert numbers_of(score) == numbers_of(expected)
    name, other = (signature.split("|")[1] for signature in (score.signature, expected.signature))
    assert (name, other) == (f"split:references#{split.fingerprint}", f"split:evaluation#{split.fingerprint}")


def test_lists_equal_aac_metrics(scored, cache):
    from aac_metrics.functional import bleu, cider_d, rouge_l

    from evaluation.metrics.java import find_java
    from evaluation.metrics.ptb_tokenizer import ptb_tokenize

    java = find_java()
    candidates = ptb_tokenize(list(PREDICTIONS.values()), java, cache)
    references = [ptb_tokenize(texts, java, cache, keep=True) for texts in REFERENCES.values()]
    _, theirs = cider_d(candidates, references)
    assert scored.items.values["cider_d"] == pytest.approx(theirs["cider_d"].numpy())
    _, theirs = rouge_l(candidates, references)
    assert scored.items.values["rouge_l"] == pytest.approx(theirs["rouge_l"].numpy())
    corpus, _ = bleu(candidates, references, n=1)
    assert scored.metrics["bleu_1"].estimate.value == pytest.approx(float(corpus["bleu_1"]))


CAPTIONS_FORM = "prediction: error: must be a dict from each clip to its caption, a list of captions, or Captions"
REFERENCES_FORM = (
    "references: error: must be a dict from each clip to the list of its captions, a list of such lists, or a"
)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], [["a"]], "prediction: error: must have a caption for each of the 1 lists of references; found 2"),
        (
            PREDICTIONS,
            [["a"], ["b"]],
            "references: error: must be a dict from each clip to its captions, as the predicti",
        ),
        (
            ["a"],
            REFERENCES,
            "prediction: error: must be a dict from each clip to its caption, as the references have name",
        ),
        (
            REFERENCES,
            PREDICTIONS,
            "prediction: error: the caption of clip 'a.wav' must be a text; found a list; a clip h",
        ),
        (
            "a",
            [["a"]],
            f"{CAPTIONS_FORM}; found the text 'a': put a caption into a list, or read a file with `read_capti",
        ),
        (iter(["a"]), [["a"]], f"{CAPTIONS_FORM}; found a list_iterator: pass list(…)"),
        ([], [], f"{CAPTIONS_FORM}; found a list without captions"),
        ({}, REFERENCES, f"{CAPTIONS_FORM}; found a dict without captions"),
        ([NAN], [["a"]], "prediction: error: the caption of clip 0 must be a text; found NaN, a missing value"),
        (
            {Path("a"): "a"},
            REFERENCES,
            "prediction: error: the names of clips must be texts; found a PosixPath at index 0",
        ),
        (
            pd.Series(["x", "y"], ["a.wav"] * 2),
            REFERENCES,
            "prediction: error: each name must have one row; 'a.wav' has m",
        ),
        ({"a.wav": "a"}, REFERENCES, "prediction: error: no caption for clip 'b.wav'"),
        (
            ["a"],
            ["a"],
            "references: error: the references of clip 0 must be a list of texts; found the text 'a': pass a ",
        ),
        (
            ["a"],
            [[]],
            "references: error: the references of clip 0 must be one caption or more; found none: add a captio",
        ),
        (
            ["a"],
            [["a", ""]],
            "references: error: caption 1 of the references of clip 0 is blank; write a caption, or leav",
        ),
        (
            ["a"],
            [["a\nb"]],
            "references: error: caption 0 of the references of clip 0 must be one line without control ch",
        ),
        (["a"], [["a", None]], "references: error: the references of clip 0 must be texts; found None at index 1"),
        (
            ["a"],
            [{"a"}],
            "references: error: the references of clip 0 must be a list of texts; found a set, which does n",
        ),
        (["a"], iter([["a"]]), f"{REFERENCES_FORM} Split; found a list_iterator: pass list(…)"),
        (PREDICTIONS, {}, f"{REFERENCES_FORM} Split; found a dict without clips"),
        (
            PREDICTIONS,
            "data",
            f"{REFERENCES_FORM} Split; found the text 'data': read a data folder with `read_dataset(fol",
        ),
        (
            PREDICTIONS,
            FRAME,
            f"{REFERENCES_FORM} Split; found a DataFrame: if its rows have the names of clips, pass `fra",
        ),
    ],
)
def test_refused_captions(predictions, references, message, tmp_path):
    found = findings_of(captioning.evaluate, predictions, references, cache=tmp_path)
    assert found[0][: len(message)] == message


def test_the_predictions_come_first(clotho_like):
    split = read_dataset(clotho_like({"evaluation": 2}), "evaluation", sound=False)["evaluation"]
    for predictions, references in ((split, PREDICTIONS), (REFERENCES, Captions(("a.wav",), ("a",)))):
        (found,) = findings_of(captioning.evaluate, predictions, references)
        assert found.endswith("; the predictions come first: evaluate(predictions, references)")
