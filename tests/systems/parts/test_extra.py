"""Extra captions in training: which ones are used, which ones an epoch sees, and that scoring does not use them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.data import DataLoader

from baseline import floors
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, Clip, Split
from evaluation.data.extra_captions import ExtraCaption
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, retrieval, word_overlap
from evaluation.predictions import Captions, Similarity
from systems.parts import pairs, vocabulary
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.losses import NONE
from systems.parts.validation import retrieval_metrics
from systems.training import ExtraSampler

SPLIT = Split(
    DEVELOPMENT,
    (
        Clip(
            "a.wav", ("a dog barks", "rain"), Path("a"), extra=(ExtraCaption("woof", "x"), ExtraCaption("hound", "y"))
        ),
        Clip("b.wav", ("wind", "rain"), Path("b")),
        Clip("c.wav", ("a cat", "meow"), Path("c"), extra=(ExtraCaption("wind", "x"), ExtraCaption("woof", "x"))),
    ),
)


def test_which_extra_captions_are_chosen():
    assert choose_extra(ExtraCaptions(), SPLIT).pairs == ()
    assert choose_extra(ExtraCaptions(), SPLIT).digests == {}
    everything = choose_extra(ExtraCaptions(extra_share=0.5), SPLIT)
    assert everything.pairs == ((0, "woof"), (0, "hound"), (2, "wind"), (2, "woof"))
    assert everything.captions == ["woof", "hound", "wind", "woof"]
    of_x = choose_extra(ExtraCaptions(extra_share=1, extra_sources=("x",)), SPLIT)
    assert of_x.pairs == ((0, "woof"), (2, "wind"), (2, "woof"))
    captions = [(clip.file_name, clip.captions) for clip in of_x.as_split().clips]
    assert captions == [("a.wav", ("woof",)), ("c.wav", ("wind", "woof"))]


def test_the_digest_is_of_the_chosen_captions_and_their_clips():
    config = ExtraCaptions(extra_share=1, extra_sources=("x",))
    digest = choose_extra(config, SPLIT).digests["extra_captions"]
    unused = replace(SPLIT.clips[1], extra=(ExtraCaption("storm", "z"),))
    assert choose_extra(config, replace(SPLIT, clips=(SPLIT.clips[0], unused, SPLIT.clips[2]))).digests == {
        "extra_captions": digest
    }
    used = replace(SPLIT.clips[1], extra=(ExtraCaption("storm", "x"),))
    other = choose_extra(config, replace(SPLIT, clips=(SPLIT.clips[0], used, SPLIT.clips[2])))
    assert other.digests["extra_captions"] != digest


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"extra_share": 1.5}, "Input should be less than or equal to 1"),
        ({"extra_share": -0.1}, "Input should be greater than or equal to 0"),
        ({"extra_sources": ["x"]}, r"extra_share must be above 0 with extra_sources; found 0 with \['x'\]: raise it"),
    ],
)
def test_settings_that_are_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        ExtraCaptions(**config)


def test_a_split_without_the_extra_captions_is_refused():
    without = Split(DEVELOPMENT, SPLIT.clips[1:2])
    with pytest.raises(BadRequest, match="extra_share must be 0 for a development split without extra captions; found"):
        choose_extra(ExtraCaptions(extra_share=0.25), without)
    with pytest.raises(BadRequest, match=r"extra_sources: .*: unknown source 'yy'; did you"):
        choose_extra(ExtraCaptions(extra_share=1, extra_sources=("x", "yy")), SPLIT)


def test_an_extra_caption_belongs_to_all_its_clips():
    extra = choose_extra(ExtraCaptions(extra_share=1), SPLIT)
    listed = pairs.clip_caption_pairs(SPLIT.clips, ["thunder", "woof"], extra.pairs)
    owners = {}
    for caption, row in zip(listed.captions, listed.owners.tolist(), strict=True):
        owners[caption] = {SPLIT.file_names[index] for index in row if index != NONE}
    assert owners.pop("thunder") == set()
    assert owners == extra.truth()
    assert owners["wind"] == {"b.wav", "c.wav"}
    assert owners["woof"] == {"a.wav", "c.wav"}
    assert [(clip, listed.captions[caption]) for clip, caption in listed.extra] == list(extra.pairs)
    assert listed.pairs == pairs.clip_caption_pairs(SPLIT.clips).pairs


ITEMS = WithExtra(range(100, 110), range(200, 207), 0.4)  # 10 regular items and 3 of 7 extra ones


def seen(items, seed, epoch, world=1, rank=0):
    """Return the items that a process sees in an epoch, in order."""
    sampler = ExtraSampler(items, world, rank, seed=seed)
    sampler.set_epoch(epoch)
    loader = DataLoader(items.items, 4, sampler=sampler, collate_fn=list)
    return [item for batch in loader for item in batch]


def test_the_items_of_an_epoch_are_those_of_a_plain_loop():
    assert len(ITEMS) == 13
    for seed in (0, 3):
        for epoch in range(4):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch * 1_009)
            drawn = []
            for position in torch.randperm(7, generator=generator).tolist():
                if len(drawn) < 3:
                    drawn.append(200 + position)
            items = [*range(100, 110), *sorted(drawn)]
            order = torch.randperm(13, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
            assert seen(ITEMS, seed, epoch) == [items[position] for position in order]


def test_each_epoch_draws_again_and_another_seed_draws_others():
    draws = [tuple(ITEMS.in_epoch(0, epoch)[10:]) for epoch in range(40)]
    assert len(set(draws)) > 10
    assert {index for draw in draws for index in draw} == set(range(10, 17))
    assert [ITEMS.in_epoch(0, epoch) for epoch in range(5)] != [ITEMS.in_epoch(1, epoch) for epoch in range(5)]


def test_a_share_of_1_is_all_and_a_small_share_is_one_item():
    assert sorted(seen(WithExtra([1, 2], [3, 4, 5], 1), 0, 7)) == [1, 2, 3, 4, 5]
    assert len(WithExtra([1, 2], [3, 4, 5], 0.01)) == 3


def test_two_processes_see_the_items_of_one():
    for epoch in range(3):
        first, second = (seen(ITEMS, 5, epoch, world=2, rank=rank) for rank in range(2))
        alone = seen(ITEMS, 5, epoch)
        together = [item for both in zip(first, second, strict=True) for item in both]
        assert together[:13] == alone  # 13 items are odd: the 14th repeats the first
        assert together[13:] == alone[:1]


CAPTIONS = (("a dog barks", "a hound"), ("rain falls", "it rains"), ("a dog barks", "barking"))
NAMES = ("a.wav", "b.wav", "c.wav")


def split_with(name: str, extra: list[list[str]]) -> Split:
    clips = []
    for file_name, captions, texts in zip(NAMES, CAPTIONS, extra, strict=True):
        listed = tuple(ExtraCaption(text, "model") for text in texts)
        clips.append(Clip(file_name, captions, Path(file_name), extra=listed))
    return Split(name, tuple(clips))


def everything_scored(extra: list[list[str]]) -> dict:
    """Compute everything about splits with these extra captions that scoring, validation and the floors compute."""
    development, validation, evaluation = (split_with(name, extra) for name in (DEVELOPMENT, VALIDATION, EVALUATION))
    scores = torch.rand(len(evaluation.queries), len(NAMES), generator=torch.Generator().manual_seed(0))
    similarity = Similarity(evaluation.queries, NAMES, scores.numpy())
    predicted = Captions(NAMES, ("a dog is barking", "rain is falling", "a hound"))
    tokenized = ("predictions", "references")
    captioned = captioning.evaluate(predicted, evaluation, metrics=["cider_d", "bleu_4"], tokenized=tokenized)
    references = [list(clip.captions) for clip in evaluation.clips]
    results = {
        "split": evaluation,
        "texts": (evaluation.all_captions, evaluation.captions, evaluation.truth, evaluation.queries),
        "fingerprint": evaluation.fingerprint,
        "captions": (captioned.signature, str(captioned)),
        "document frequencies": word_overlap.CiderD(list(predicted.captions), references).scores.tolist(),
        "validation": retrieval_metrics(validation, scores),
        "validation CIDEr-D": vocabulary.validation_cider_d(validation, predicted.captions),
        "floors": (floors.constant(development), floors.drawn(development, 5)),
        "retrieval": [],
    }
    for direction in retrieval.DIRECTIONS:
        score = retrieval.evaluate(evaluation, similarity, direction=direction)
        results["retrieval"].append((score.signature, str(score)))
    return results


TEXTS = st.lists(st.one_of(st.sampled_from(["a hound", "rain falls", "wind"]), st.text(min_size=1)), max_size=3)


@pytest.fixture(scope="module")
def expected():
    return everything_scored([[], [], []])


@settings(max_examples=10)
@given(extra=st.lists(TEXTS, min_size=3, max_size=3))
def test_scoring_does_not_depend_on_extra_captions(expected, extra):
    assert everything_scored(extra) == expected
