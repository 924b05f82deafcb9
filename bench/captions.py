"""Measurements of the speed of caption metrics, compared with METEOR's jar alone and with aac-metrics."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.measuring import Function, Measure, Row, clotho, duration, race, times
from evaluation import predictions
from evaluation.data.dataset import Split, read_dataset
from evaluation.metrics import captioning, word_overlap
from evaluation.metrics.java import find_java, lay_out_jars
from evaluation.metrics.ptb_tokenizer import ptb_tokenize

WITHOUT_SPICE = (*captioning.BLEU, "meteor", "rouge_l", "cider_d")


def captions(alone: Function, folder: Path) -> list[Row]:
    """Measure the metrics of DCASE 2020 to 2022 without SPICE, from text to intervals."""
    (clips, references), new, repeated, jar, theirs = alone(_captions, clotho(folder), folder / "cache")
    what = f"dcase2020 without SPICE, with intervals, {clips} clips x {references} references"
    rows = []
    for ours, when in ((new, "new references"), (repeated, "references scored twice before")):
        share, met = f"{ours / jar:.2f}x", ours / jar <= 1.1
        rows.append(Row(f"{what} / METEOR's jar alone", duration(ours), duration(jar), share, "≤ 1.1x", met, when))
        note = f"{when}; aac-metrics without its import (about 10 s) and without intervals"
        rows.append(
            Row(f"{what} / aac-metrics' evaluate", duration(ours), duration(theirs), times(theirs / ours), note=note)
        )
    return rows


def _texts(data: Path) -> tuple[Split, predictions.Captions]:
    split = read_dataset(data, "evaluation", sound=False)["evaluation"]
    first = [clip.captions[0] for clip in split.clips]
    # The prediction of a clip is a caption of the next clip. Like the prediction of a trained captioner, it shares some
    # words with the references.
    return split, predictions.Captions(split.file_names, (*first[1:], first[0]))


def _captions(data: Path, cache: Path) -> tuple[tuple[int, int], float, float, float, float]:
    from aac_metrics.functional import evaluate, meteor

    split, prediction = _texts(data)
    java = find_java()
    lay_out_jars(cache)
    paths = {"cache_path": str(cache), "java_path": str(java.path)}
    ours = ptb_tokenize(prediction.captions, java, cache)
    count = len(split.clips[0].captions)
    flat = ptb_tokenize([text for clip in split.clips for text in clip.captions], java, cache)
    theirs = [flat[start : start + count] for start in range(0, len(flat), count)]
    numbers = itertools.count()

    def score(folder: Path) -> None:
        captioning.evaluate(prediction, split, metrics=WITHOUT_SPICE, cache=folder)

    for _ in range(2):
        score(cache)
    new, repeated, jar, aac_metrics = race(
        lambda: score(cache / f"{next(numbers)}"),  # an empty cache each time
        lambda: score(cache),
        lambda: meteor(ours, theirs, **paths),
        lambda: evaluate(
            list(prediction.captions),
            [list(clip.captions) for clip in split.clips],
            metrics=WITHOUT_SPICE,
            **paths,
        ),
        rounds=3,
    )
    return (len(split.clips), count), new, repeated, jar, aac_metrics


def left_out(alone: Function, folder: Path) -> list[Row]:
    """Measure CIDEr-D with each clip left out in turn, compared with scoring the other clips again for each clip."""
    clips, ours, own, theirs = alone(_left_out, clotho(folder))
    what = f"CIDEr-D with each of {clips} clips left out in turn"
    note = f"the other value is the duration of one scoring times {clips}"
    return [
        Row(
            f"{what} / scored again by aac-metrics",
            duration(ours),
            duration(theirs * clips),
            times(theirs * clips / ours),
            "≥ 100x",
            theirs * clips / ours >= 100,
            note,
        ),
        Row(
            f"{what} / scored again by the kit",
            duration(ours),
            duration(own * clips),
            times(own * clips / ours),
            note=note,
        ),
    ]


def _left_out(data: Path) -> tuple[int, float, float, float]:
    from aac_metrics.functional import cider_d

    split, prediction = _texts(data)
    texts = _lower(prediction.captions)
    references = [_lower(clip.captions) for clip in split.clips]
    all_clips = word_overlap.CiderD(texts, references)
    means = all_clips.left_out(np.ones(len(texts)))
    assert np.isclose(means[0], float(cider_d(texts[1:], references[1:])[0]["cider_d"]), rtol=0, atol=1e-12)
    ours, own, theirs = race(
        lambda: all_clips.left_out(np.ones(len(texts))),
        lambda: word_overlap.CiderD(texts[1:], references[1:]).scores,
        lambda: cider_d(texts[1:], references[1:]),
        rounds=3,
    )
    return len(texts), ours, own, theirs


def _lower(texts: Sequence[str]) -> list[str]:
    return [text.lower().rstrip(".").replace(",", "") for text in texts]


MEASURES: dict[str, Measure] = {"captions": captions, "left_out": left_out}
