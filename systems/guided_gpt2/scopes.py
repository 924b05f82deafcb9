"""Captions of a trained run and their scores, in the three "scopes" of Koizumi et al. 2020, Table 1.

    python -m systems.guided_gpt2.scopes RUN --data DIR --split evaluation
    python -m systems.guided_gpt2.scopes RUN --data DIR --examples CLIP CLIP

i    whole            the system: it retrieves guidance and generates a caption
ii   nearest          the caption of the nearest clip, by distance of the audio encoder's frames (1NN)
     triplet          the caption of the nearest clip, by distance of the first stage's embeddings (if it is trained)
     Top1-BERTScore   the training caption with the highest BERTScore against the reference captions
iii  oracle guidance  the system, guided by the training captions with the highest BERTScores against the references
     human            each reference caption of a clip against the clip's other references; the mean over references

"Top1-BERTScore" and "oracle guidance" depend on the reference captions, so a run cannot predict them. They show what
retrieval and generation could reach with the best choice of training captions. If a clip has several references, the
BERTScore of a caption is the highest of its scores against them. "human" has one reference fewer than the others.

The captions and their scores are written to `RUN/scopes/SPLIT/`. The scores are printed together with the paper's.

With `--examples CLIP…`, the command prints four kinds of captions for each of these clips, as in the example in section
4.2. They are the clip's own captions, the training captions with the highest BERTScores against them, the retrieved
guidance, and the generated caption. They are also written to `RUN/scopes/SPLIT/examples.csv`. Scores are not computed.
"""

import argparse
import csv
import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evaluation import predictions, report
from evaluation.cli import command
from evaluation.data.dataset import EVALUATION, Split, read_dataset
from evaluation.files import DEFAULT_CACHE, cache_folder, replacing
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, topline
from evaluation.scores import Score
from evaluation.text import first_items, lookalike, printable, table
from systems import caption_retrieval, guided_gpt2, listing, modules, published, runs
from systems.caching.embeddings import embed
from systems.caption_retrieval import fitted, similarity
from systems.contract import load, read_run
from systems.parts import texts
from systems.parts.devices import default_device

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "cider_d", "rouge_l", "spice")
SCOPES = {
    "whole": "i",
    "nearest": "ii",
    "triplet": "ii",
    "Top1-BERTScore": "ii",
    "oracle guidance": "iii",
    "human": "iii",
}
CLIPS_PER_BATCH = 16  # clips that are captioned at once
LISTED = 20  # maximum number of unknown clips that a message names
EXAMPLES = "examples.csv"


class Guidance(NamedTuple):
    """The frames of N clips, the guidance that the system retrieves, and the guidance that is best by BERTScore."""

    frames: Tensor  # (N, T, size) frames of the audio encoder
    lengths: Tensor  # (N,) number of frames of each clip
    retrieved: list[list[str]]  # captions of the K nearest training clips, nearest first
    best: list[list[str]]  # K training captions with the highest BERTScores against the references, highest first


class Example(NamedTuple):
    """A clip with its references, the most similar training captions, the guidance and the generated caption."""

    file_name: str
    captions: dict[str, Sequence[str]]  # from the kind of captions, in the paper's order, to the captions


def main(options: argparse.Namespace) -> None:
    """Caption a split in each of the paper's three scopes and print the scores, or print the captions of some clips."""
    checkpoint = options.run_folder / "checkpoints" / "best.ckpt"
    advice = "give the folder of a trained run of systems.guided_gpt2"
    system = read_run(options.run_folder).system
    if system != guided_gpt2.__name__:
        raise BadRequest(
            f"{options.run_folder}: must be a run of {guided_gpt2.__name__}; found a run of {system}: {advice}"
        )
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; {advice}")
    runs.warn_unfinished(options.run_folder)
    metrics = captioning.resolve_metrics(options.metrics).metrics
    split = caption_retrieval.captioned(read_dataset(options.data, options.split)[options.split])
    if options.examples:
        split = chosen(split, options.examples)
    device = default_device()
    model = load(system, checkpoint, options.trust).to(device)
    folder = options.run_folder / "scopes" / split.name
    if options.examples:
        with modules.trusting(options.trust):  # loads an encoder once more
            examples_of_clips = examples(model, split, options.cache)
        write_examples(folder / EXAMPLES, examples_of_clips)
        print("\n\n".join(map(shown_example, examples_of_clips)))
        return
    with modules.trusting(options.trust):  # loads an encoder once more
        captions_by_name = said(model, split, options.cache)
    scores = {}
    for name, captions in captions_by_name.items():
        path = folder / f"{name.replace(' ', '-')}.csv"
        predictions.write_captions(path, split.file_names, captions)
        scores[name] = captioning.evaluate(
            predictions.read_captions(path), split, metrics=metrics, cache=options.cache, file=str(path)
        )
        scores[name].save(path.with_suffix(".json"))
    if all(len(clip.captions) > 1 for clip in split.clips):
        scores["human"] = human(split, metrics, options.cache)
        scores["human"].save(folder / "human.json")
    else:
        print("human: left out, because some clips have a single caption and no other caption to compare it with")
    print(shown(scores, metrics, f"{options.data.resolve().name} {split.name} ({len(split.clips)} clips)"))


def chosen(split: Split, names: Sequence[str]) -> Split:
    """Keep the clips with these names, in the order of the names.

    Raises:
        BadRequest: A name is not the name of a clip in the split. The message lists all such names, up to `LISTED`.
    """
    clips = {clip.file_name: clip for clip in split.clips}
    find_lookalike = lookalike(clips)
    unknown = []
    for name in dict.fromkeys(names):
        if name not in clips:
            close = difflib.get_close_matches(name, clips, n=1)
            guess = find_lookalike(name) or next(iter(close), None)
            if guess:
                unknown.append(f"{name!r} (did you mean {guess!r}?)")
            else:
                unknown.append(repr(name))
    if unknown:
        raise BadRequest(
            f"--examples must be file names of clips in the {split.name} split; found names that it does not contain: "
            f"{first_items(unknown, LISTED)}; give names from the column file_name of the split's captions"
        )
    return Split(split.name, tuple(clips[name] for name in dict.fromkeys(names)))


@torch.inference_mode()
def guide(model: guided_gpt2.Captioner, split: Split, cache: Path) -> Guidance:
    """Retrieve the guidance of a split's clips, and find the best guidance with the help of the clips' own captions.

    Args:
        model: The system.
        split: The split, with captions.
        cache: Folder of the cache.
    """
    retriever, k = model.retriever, model.config.guidance
    library, device = retriever.library, next(model.generator.parameters()).device
    sequences = embed(split.paths, retriever.audio, cache)
    frames, lengths = (part.to(device) for part in fitted(sequences, library.frames.shape[1]))
    training_captions = list(dict.fromkeys(chain.from_iterable(library.captions)))
    encode = texts.load_text_encoder(retriever.config.similarity_model, retriever.config.similarity_layer)
    references = [clip.captions for clip in split.clips]
    best = similarity.nearest(references, training_captions, encode, cache, min(k, len(training_captions)))
    return Guidance(
        frames,
        lengths,
        retriever.captions(frames, lengths, k),
        np.array(training_captions, dtype=object)[best].tolist(),
    )


@torch.inference_mode()
def written(
    model: guided_gpt2.Captioner, frames: Tensor, lengths: Tensor, guidance: Sequence[Sequence[str]], name: str
) -> list[str]:
    """Generate the captions of clips with given guidance.

    Args:
        model: The system.
        frames: (N, T, size) frames of the audio encoder.
        lengths: (N,) number of frames of each clip.
        guidance: The captions that guide each clip.
        name: Name of the progress bar.
    """
    captions = []
    for start in tqdm(range(0, len(frames), CLIPS_PER_BATCH), f"{name}: captions", leave=False, disable=None):
        part = slice(start, start + CLIPS_PER_BATCH)
        captions += model.guided(frames[part], lengths[part], guidance[part])
    return captions


@torch.inference_mode()
def said(model: guided_gpt2.Captioner, split: Split, cache: Path) -> dict[str, list[str]]:
    """Caption a split's clips in each way that `SCOPES` names, except `human`.

    Args:
        model: The system.
        split: The split, with captions; "Top1-BERTScore" and "oracle guidance" use them.
        cache: Folder of the cache.

    Returns:
        A dict from names in `SCOPES` to captions. It does not contain `human`, and it contains `triplet` only if the
        first stage is trained.
    """
    retriever = model.retriever
    frames, lengths, retrieved, best = guide(model, split, cache)
    raw = caption_retrieval.Retriever(retriever.config.model_copy(update={"embedding": "raw"}), retriever.library)
    raw = raw.to(frames.device).eval()
    captions = {"nearest": [caption for (caption,) in raw.captions(frames, lengths, 1)]}
    if retriever.embedder:
        captions["triplet"] = [guidance[0] for guidance in retrieved]
    captions["Top1-BERTScore"] = [guidance[0] for guidance in best]
    captions["whole"] = written(model, frames, lengths, retrieved, "whole")
    captions["oracle guidance"] = written(model, frames, lengths, best, "oracle guidance")
    return {name: captions[name] for name in SCOPES if name in captions}


def examples(model: guided_gpt2.Captioner, split: Split, cache: Path) -> list[Example]:
    """Caption a split's clips, and return the captions of each step as in section 4.2 of Koizumi et al. 2020.

    Args:
        model: The system.
        split: The clips, with captions.
        cache: Folder of the cache.
    """
    frames, lengths, retrieved, best = guide(model, split, cache)
    generated = written(model, frames, lengths, retrieved, "examples")
    steps = []
    for number, clip in enumerate(split.clips):
        captions: dict[str, Sequence[str]] = {
            "ground truth": clip.captions,
            f"BERTScore top-{len(best[number])}": best[number],
            "guidance captions": retrieved[number],
            "generated caption": [generated[number]],
        }
        steps.append(Example(clip.file_name, captions))
    return steps


def write_examples(path: Path, examples_of_clips: Sequence[Example]) -> None:
    """Write examples as CSV. Each row has a clip's file name, the kind of a caption, its rank from 1, and the caption.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "kind", "rank", "caption"])
        for example in examples_of_clips:
            for kind, captions in example.captions.items():
                for rank, caption in enumerate(captions, 1):
                    writer.writerow([example.file_name, kind, rank, caption])


def shown_example(example: Example) -> str:
    """Format an example as text, with one caption on each line."""
    lines = [printable(example.file_name)]
    for kind, captions in example.captions.items():
        lines.append(f"  {kind}:")
        lines += [f"    {printable(caption)}" for caption in captions]
    return "\n".join(lines)


def human(split: Split, metrics: Sequence[str], cache: Path) -> Score:
    """Score each caption of the clips against the clips' other captions (`evaluation.metrics.topline`).

    The signature is that of the first fold, so that the score has the same signature as in earlier versions.
    """
    score = topline.human_topline(split, metrics=metrics, interval="jackknife", cache=cache)
    first_fold = tuple(replace(clip, captions=clip.captions[1:]) for clip in split.clips)
    components = captioning.components_of(score.metrics)
    signature = captioning.make_signature(Split(split.name, first_fold), components, "jackknife", "fixed")
    return replace(score, signature=signature)


def shown(scores: dict[str, Score], metrics: Sequence[str], data: str) -> str:
    """Return the table of measured and published results, and the reasons why metrics are missing.

    Args:
        scores: A dict from names in `SCOPES` to measured scores.
        metrics: The metrics.
        data: Description of the data of the measured scores, for the table.
    """
    published_by_name = {}
    for system in ("guided_gpt2", "caption_retrieval"):
        content = published.read_published(listing.published_file(Path(__file__).parents[1] / system))
        for result in content.results:
            name = str(result.get("config", result.get("system")))
            published_by_name[name] = content.values(result)["evaluation"]
        published_data = content.data["evaluation"]
    rows = []
    for name, score in scores.items():
        cells = []
        for metric in metrics:
            if metric in score.metrics:
                estimate = score.metrics[metric].estimate
                cells.append(report.with_interval(estimate.value, estimate.low, estimate.high, 3))
            else:
                cells.append(report.NOTHING)
        rows.append([SCOPES[name], name, *cells, data])
        published_values = [_published_mean(published_by_name[name].get(metric)) for metric in metrics]
        rows.append(["", "published", *(report.number(value, 3) for value in published_values), published_data])
    reasons = set()
    for score in scores.values():
        reasons |= {f"{metric}: {why}" for metric, why in score.unavailable.items()}
    text = table(rows, ["scope", "captions", *metrics, "data"], numbers=range(2, 2 + len(metrics)))
    return "\n".join([text, *sorted(reasons)])


def _published_mean(value: published.Value | None) -> float | None:
    if isinstance(value, dict):
        return value["mean"]
    if value is None:
        return None
    return value[0]


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems.guided_gpt2.scopes", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of systems.guided_gpt2")
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument(
        "--split", default=EVALUATION, help="split to caption, which must have captions (default: evaluation)"
    )
    text = "metrics, or a metric set (default: the metrics of the paper)"
    top.add_argument("--metrics", nargs="+", default=METRICS, metavar="METRIC", help=text)
    text = "print four kinds of captions for these clips, and no scores"
    text += " (default: score all scopes)"
    top.add_argument("--examples", nargs="+", metavar="CLIP", help=text)
    text = f"folder for the cache of embeddings (default: {DEFAULT_CACHE})"
    top.add_argument("--cache", type=Path, default=cache_folder(), help=text)
    modules.add_option(top)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
