import ast
import csv

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics import word_overlap
from evaluation.metrics.word_overlap import CiderD, CiderDReferences, bleu, bleu_statistics, cider_d_between, rouge_l
from evaluation.statistics.intervals import from_left_out, pseudo_values

# Tokenised captions of few different words, so that n-grams repeat, match, and occur in several clips; some are blank.
captions = st.lists(st.sampled_from(["a", "dog", "barks", "and", "rain", "falls"]), max_size=7).map(" ".join)
corpora = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=2, max_size=6)


@pytest.fixture(scope="session")
def golden(shared):
    """CoNeTTE's captions of Clotho's evaluation split, their references, and their scores by aac-metrics."""
    with (shared / "golden" / "conette_outputs_clotho_eval.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corpus = yaml.safe_load((shared / "golden" / "conette_scores_clotho_eval.yaml").read_text(encoding="utf-8"))
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]
    return (
        [row["cands"] for row in rows],
        [ast.literal_eval(row["mrefs"]) for row in rows],
        {name: np.array([float(row[f"best_fense.cands.{name}"]) for row in rows]) for name in names},
        {name: corpus[f"clotho_eval/best_fense.cands.{name}"] for name in names},
    )


def test_golden(golden):
    """Scores equal those of CoNeTTE's authors to 1e-12, for each of 1045 captions and for the corpus."""
    predicted, references, each, corpus = golden
    statistics = bleu_statistics(predicted, references)
    for order in (1, 2, 3, 4):
        np.testing.assert_allclose(bleu(statistics, order), each[f"bleu_{order}"], rtol=0, atol=1e-12)
        assert bleu(statistics.sum(axis=0), order) == pytest.approx(corpus[f"bleu_{order}"], abs=1e-12)
    for name, values in {
        "rouge_l": rouge_l(predicted, references),
        "cider_d": CiderD(predicted, references).scores,
    }.items():
        np.testing.assert_allclose(values, each[name], rtol=0, atol=1e-12)
        assert values.mean() == pytest.approx(corpus[name], abs=1e-12)


def test_corpus_bleu_is_no_mean_of_sentence_scores(golden):
    _, _, each, corpus = golden
    assert corpus["bleu_4"] == pytest.approx(0.1788, abs=5e-5)
    assert each["bleu_4"].mean() == pytest.approx(0.0903, abs=5e-5)


@given(corpora, st.data())
@settings(deadline=None, max_examples=60)
def test_any_captions_can_be_scored_with_the_same_references(corpus, data):
    """Each caption has the score that it has among captions of a whole split, however often its clip is scored."""
    references = [texts for _, texts in corpus]
    pairs = data.draw(st.lists(st.tuples(captions, st.integers(0, len(corpus) - 1)), max_size=6))
    found = CiderDReferences(references).scores([caption for caption, _ in pairs], [clip for _, clip in pairs])
    for (caption, clip), score in zip(pairs, found, strict=True):
        one_caption_each = ["rain"] * len(corpus)
        one_caption_each[clip] = caption
        assert score == pytest.approx(CiderD(one_caption_each, references).scores[clip], abs=1e-12)


@given(st.lists(st.tuples(captions, captions, captions), min_size=2, max_size=6))
@settings(deadline=None, max_examples=60)
def test_runs_are_compared_as_captions_with_one_reference_each(clips):
    runs = [*zip(*clips, strict=True)]
    found = cider_d_between(runs)
    for candidate, predicted in enumerate(runs):
        for reference, texts in enumerate(runs):
            expected = np.zeros(len(clips))
            if candidate != reference:
                expected = CiderD(predicted, [[text] for text in texts]).scores
            np.testing.assert_allclose(found[candidate, reference], expected, rtol=0, atol=1e-12)


@given(corpora)
@settings(deadline=None, max_examples=60)
def test_equals_aac_metrics(corpus):
    """Scores equal aac-metrics on short and blank captions with one to four references."""
    from aac_metrics import functional

    predicted, references = [caption for caption, _ in corpus], [texts for _, texts in corpus]
    statistics = bleu_statistics(predicted, references)
    for order in (1, 2, 3, 4):
        total, each = functional.bleu(predicted, references, n=order)
        np.testing.assert_allclose(bleu(statistics, order), each[f"bleu_{order}"], rtol=0, atol=1e-12)
        assert bleu(statistics.sum(axis=0), order) == pytest.approx(float(total[f"bleu_{order}"]), abs=1e-12)
    if any(text for texts in references for text in texts):  # aac-metrics needs an n-gram
        each = functional.cider_d(predicted, references)[1]["cider_d"]
        np.testing.assert_allclose(CiderD(predicted, references).scores, each, rtol=0, atol=1e-12)
    if all(text for texts in references for text in texts):  # aac-metrics divides by the length of a reference
        each = functional.rouge_l(predicted, references)[1]["rouge_l"]
        np.testing.assert_allclose(rouge_l(predicted, references), each, rtol=0, atol=1e-12)


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_common_subsequence(first, second):
    first, second = [str(word) for word in first], [str(word) for word in second]
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else max(table[i, j + 1], table[i + 1, j])
    assert word_overlap._common_subsequence(first, second) == table[-1, -1]


@given(corpora)
def test_bounded(corpus):
    predicted, references = [caption for caption, _ in corpus], [texts for _, texts in corpus]
    statistics = bleu_statistics(predicted, references)
    for order in (1, 2, 3, 4):
        assert ((bleu(statistics, order) >= 0) & (bleu(statistics, order) <= 1)).all()
    values, cider = rouge_l(predicted, references), CiderD(predicted, references).scores
    assert ((values >= 0) & (values <= 1)).all()
    assert ((cider >= 0) & (cider <= 10 + 1e-12)).all()
    blank = [index for index, caption in enumerate(predicted) if not caption]
    assert not values[blank].any()
    assert not cider[blank].any()
    assert (bleu(statistics, 1)[blank] < 1e-6).all()


@given(corpora, st.randoms())
def test_the_order_of_clips_and_references_changes_nothing(corpus, random):
    order = random.sample(range(len(corpus)), len(corpus))
    shuffled = [(corpus[index][0], random.sample(corpus[index][1], len(corpus[index][1]))) for index in order]
    for metric in (
        lambda *texts: bleu(bleu_statistics(*texts), 4),
        rouge_l,
        lambda *texts: CiderD(*texts).scores,
    ):
        before, after = (metric(*map(list, zip(*them, strict=True))) for them in (corpus, shuffled))
        np.testing.assert_allclose(after, before[order], rtol=0, atol=1e-12)


def test_the_reference_itself_is_perfect():
    predicted = ["a dog barks in the rain", "birds sing over the sea"]
    references = [["thunder", predicted[0]], [predicted[1], "a bird"]]
    statistics = bleu_statistics(predicted, references)
    assert bleu(statistics.sum(axis=0), 4) == pytest.approx(
        1, abs=1e-8
    )  # not exactly 1, because of COCO's small numbers
    assert rouge_l(predicted, references) == pytest.approx([1, 1])
    assert CiderD(predicted, [[caption] for caption in predicted]).scores == pytest.approx([10, 10])


def test_cider_d_of_one_clip_is_zero():
    """With one clip, the weight of every n-gram is log 1 = 0."""
    assert CiderD(["a dog barks"], [["a dog barks", "a dog"]]).scores == [0]
    with pytest.raises(ValueError, match="two clips or more"):
        CiderD(["a dog barks"], [["a dog barks"]]).left_out(np.ones(1))


def test_brevity_counts_the_closest_reference():
    # Lengths 3 and 5 are equally close to 4. The shorter one counts, so there is no brevity penalty.
    (row,) = bleu_statistics(["a b c d"], [["a b c", "a b c d e"]])
    assert list(row) == [4, 3, 2, 1, 4, 3, 2, 1, 4, 3]
    assert bleu(row, 1) == pytest.approx(1, abs=1e-8)
    (row,) = bleu_statistics(["a b"], [["a b c d"]])
    assert bleu(row, 1) == pytest.approx(np.exp(1 - 4 / 2), abs=1e-8)


# ------------------------------------------------------------------------------------------- leaving clips out


@given(corpora, st.randoms())
@settings(deadline=None)
def test_cider_d_without_each_clip(corpus, random):
    """The result equals scoring the other clips alone."""
    predicted, references = [caption for caption, _ in corpus], [texts for _, texts in corpus]
    factors = np.array([random.choice([0.0, 0.1, 1.0]) for _ in corpus])
    left_out = CiderD(predicted, references).left_out(factors)
    for clip in range(len(corpus)):
        kept = [index for index in range(len(corpus)) if index != clip]
        again = CiderD([predicted[index] for index in kept], [references[index] for index in kept]).scores
        assert left_out[clip] == pytest.approx((again * factors[kept]).mean(), abs=1e-10)


def test_cider_d_without_each_clip_in_blocks(golden, monkeypatch):
    predicted, references, _, _ = golden
    predicted, references = predicted[:60], references[:60]
    whole = CiderD(predicted, references).left_out(np.ones(60))
    monkeypatch.setattr(word_overlap, "BLOCK", 7 * 5 * 60)  # room for seven clips with five references
    np.testing.assert_allclose(CiderD(predicted, references).left_out(np.ones(60)), whole, rtol=0, atol=1e-13)
    for clip in (0, 31, 59):
        again = CiderD(np.delete(predicted, clip).tolist(), references[:clip] + references[clip + 1 :]).scores
        assert whole[clip] == pytest.approx(again.mean(), abs=1e-12)


def test_bleu_without_each_caption(golden):
    predicted, references, _, _ = golden
    predicted, references = predicted[:40], references[:40]
    for order in (1, 4):
        value, values = pseudo_values(bleu_statistics(predicted, references), lambda sums: bleu(sums, order))  # noqa: B023
        left_out = [
            bleu(
                bleu_statistics(predicted[:i] + predicted[i + 1 :], references[:i] + references[i + 1 :]).sum(axis=0),
                order,
            )
            for i in range(40)
        ]
        np.testing.assert_allclose(values, from_left_out(value, np.array(left_out)), rtol=0, atol=1e-11)


def test_rouge_l_of_two_empty_texts():
    from pycocoevalcap.rouge.rouge import Rouge

    assert rouge_l(["", ""], [[""], ["", "a dog"]]).tolist() == [0, 0]
    assert Rouge().calc_score([""], [""]) == Rouge().calc_score([""], ["", "a dog"]) == 1
