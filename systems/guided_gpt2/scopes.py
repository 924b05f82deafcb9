"""The three scopes of Koizumi et al. 2020, Table 1, of one trained run.

    python -m systems.guided_gpt2.scopes RUN --data DIR --split evaluation
    python -m systems.guided_gpt2.scopes RUN --data DIR --examples CLIP CLIP

i    whole            the system: guidance is retrieved, a caption is written
ii   nearest          the caption of the nearest clip, by the frames as they are (1NN)
     triplet          that of the nearest clip, as the first stage has learnt it; absent where that learnt nothing
     Top1-BERTScore   the training caption of the highest BERTScore against the truth
iii  oracle guidance  the system, guided by the training captions of the highest BERTScores against the truth
     human            each of a clip's captions against its others, as many times as clips have captions, and the mean

What knows the truth is no captioner, and no run predicts it: it says how far retrieval and writing could get. Against
several captions a BERTScore is the highest. The human's captions have one reference less each than the others'.

Captions and scores are written to `RUN/scopes/SPLIT/`, and printed with the paper's figures.

With `--examples CLIP…` it shows how the system comes to the captions of some clips, as the example in section 4.2 does:
the clip's own captions, the training captions of the highest BERTScores against them, the guidance that was retrieved,
and the caption that was written. Nothing is scored. The examples are printed, and written to
`RUN/scopes/SPLIT/examples.csv`.
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
from evaluation.files import replacing
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from evaluation.predictions import Captions
from evaluation.scores import Measured, Score
from evaluation.statistics.intervals import jackknife
from evaluation.text import lookalike, printable, table
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
LISTED = 20  # unknown clips that a message names
EXAMPLES = "examples.csv"


class Guidance(NamedTuple):
    """What the system knows of N clips before it writes, and what the truth would tell it."""

    frames: Tensor  # (N, T, size) of the audio encoder
    lengths: Tensor  # (N,) frames of each clip
    retrieved: list[list[str]]  # captions of the K nearest training clips, the nearest first
    best: list[list[str]]  # the K training captions of the highest BERTScores against the clip's own, the highest first


class Example(NamedTuple):
    """How the system comes to the caption of a clip."""

    file_name: str
    captions: dict[str, Sequence[str]]  # by what they are, in the paper's order


def main(options: argparse.Namespace) -> None:
    """Caption a split in each of the three scopes, score it, and print the table; or show some clips as examples."""
    checkpoint = options.run_folder / "checkpoints" / "best.ckpt"
    if (system := read_run(options.run_folder).system) != guided_gpt2.__name__:
        raise BadRequest(f"{options.run_folder}: must be a run of {guided_gpt2.__name__}; found one of {system}")
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; give the run folder of systems.guided_gpt2, trained")
    runs.warn_unfinished(options.run_folder)
    metrics = captioning.resolve_metrics(options.metrics).metrics
    split = caption_retrieval.captioned(read_dataset(options.data, options.split)[options.split])
    if options.examples:
        split = chosen(split, options.examples)
    device = default_device()
    model = load(system, checkpoint, options.trust).to(device)
    folder = options.run_folder / "scopes" / split.name
    if options.examples:
        with modules.trusting(options.trust):  # an encoder is loaded once more
            made = examples(model, split, options.cache)
        write_examples(folder / EXAMPLES, made)
        print("\n\n".join(map(shown_example, made)))
        return
    found = {}
    with modules.trusting(options.trust):  # an encoder is loaded once more
        answers = said(model, split, options.cache)
    for name, captions in answers.items():
        path = folder / f"{name.replace(' ', '-')}.csv"
        predictions.write_captions(path, split.file_names, captions)
        found[name] = captioning.evaluate(
            split, predictions.read_captions(path), metrics=metrics, cache=options.cache, file=str(path)
        )
        found[name].save(path.with_suffix(".json"))
    if all(len(clip.captions) > 1 for clip in split.clips):
        found["human"] = human(split, metrics, options.cache)
        found["human"].save(folder / "human.json")
    else:
        print("human: left out, for there are clips with a single caption, which has no others to be compared with")
    print(shown(found, metrics, f"{options.data.resolve().name} {split.name} ({len(split.clips)} clips)"))


def chosen(split: Split, names: Sequence[str]) -> Split:
    """Keep the clips of some names, in the order of the names.

    Raises:
        BadRequest: The split has no such clip; with every name that is unknown.
    """
    clips = {clip.file_name: clip for clip in split.clips}
    alike = lookalike(clips)
    unknown = []
    for name in dict.fromkeys(names):
        if name not in clips:
            close = difflib.get_close_matches(name, clips, n=1)
            guess = alike(name) or next(iter(close), None)
            unknown.append(f"{name!r} (did you mean {guess!r}?)" if guess else repr(name))
    if unknown:
        rest = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        listed = ", ".join(unknown[:LISTED])
        raise BadRequest(
            f"--examples must be file names of clips of {split.name}; it has no {listed}{rest}; "
            f"give names of the column file_name of its captions"
        )
    return Split(split.name, tuple(clips[name] for name in dict.fromkeys(names)))


@torch.inference_mode()
def guide(model: guided_gpt2.Captioner, split: Split, cache: Path) -> Guidance:
    """Retrieve the guidance of a split's clips, and choose the best by their own captions.

    Args:
        model: The system.
        split: The split, with captions.
        cache: Folder of the cache.
    """
    retriever, k = model.retriever, model.config.guidance
    library, device = retriever.library, next(model.generator.parameters()).device
    sequences = embed(split.paths, retriever.audio, cache)
    frames, lengths = (part.to(device) for part in fitted(sequences, library.frames.shape[1]))
    known = list(dict.fromkeys(chain.from_iterable(library.captions)))
    encode = texts.load_text_encoder(retriever.config.similarity_model, retriever.config.similarity_layer)
    best = similarity.nearest([clip.captions for clip in split.clips], known, encode, cache, min(k, len(known)))
    return Guidance(
        frames,
        lengths,
        retriever.captions(frames, lengths, k),
        np.array(known, dtype=object)[best].tolist(),
    )


@torch.inference_mode()
def written(
    model: guided_gpt2.Captioner, frames: Tensor, lengths: Tensor, guidance: Sequence[Sequence[str]], name: str
) -> list[str]:
    """The system's captions of (N, T, size) frames, (N,) of each, with some guidance; progress is called `name`."""
    captions = []
    for start in tqdm(range(0, len(frames), CLIPS_PER_BATCH), f"{name}: captions", leave=False, disable=None):
        part = slice(start, start + CLIPS_PER_BATCH)
        captions += model.guided(frames[part], lengths[part], guidance[part])[0]
    return captions


@torch.inference_mode()
def said(model: guided_gpt2.Captioner, split: Split, cache: Path) -> dict[str, list[str]]:
    """The captions of a split's clips, by the name of who says them.

    Args:
        model: The system.
        split: The split, with captions, of which only two of the five know.
        cache: Folder of the cache.
    """
    retriever = model.retriever
    frames, lengths, retrieved, best = guide(model, split, cache)
    raw = caption_retrieval.Retriever(retriever.config.model_copy(update={"embedding": "raw"}), retriever.library)
    raw = raw.to(frames.device).eval()
    found = {"nearest": [one for (one,) in raw.captions(frames, lengths, 1)]}
    if retriever.embedder:
        found["triplet"] = [some[0] for some in retrieved]
    found["Top1-BERTScore"] = [some[0] for some in best]
    for name, guidance in (("whole", retrieved), ("oracle guidance", best)):
        found[name] = written(model, frames, lengths, guidance, name)
    return {name: found[name] for name in SCOPES if name in found}


def examples(model: guided_gpt2.Captioner, split: Split, cache: Path) -> list[Example]:
    """Caption a split's clips and keep all that led there, as the example of Koizumi et al. 2020, section 4.2.

    Args:
        model: The system.
        split: The clips, with captions.
        cache: Folder of the cache.
    """
    frames, lengths, retrieved, best = guide(model, split, cache)
    generated = written(model, frames, lengths, retrieved, "examples")
    made = []
    for number, clip in enumerate(split.clips):
        captions: dict[str, Sequence[str]] = {
            "ground truth": clip.captions,
            f"BERTScore top-{len(best[number])}": best[number],
            "guidance captions": retrieved[number],
            "generated caption": [generated[number]],
        }
        made.append(Example(clip.file_name, captions))
    return made


def write_examples(path: Path, made: Sequence[Example]) -> None:
    """Write examples as CSV, a row for each caption: the clip, what the caption is, its rank from 1, the caption.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "kind", "rank", "caption"])
        for example in made:
            for kind, captions in example.captions.items():
                for rank, caption in enumerate(captions, 1):
                    writer.writerow([example.file_name, kind, rank, caption])


def shown_example(example: Example) -> str:
    """An example as text for people, a caption a line."""
    lines = [printable(example.file_name)]
    for kind, captions in example.captions.items():
        lines.append(f"  {kind}:")
        lines += [f"    {printable(caption)}" for caption in captions]
    return "\n".join(lines)


def human(split: Split, metrics: Sequence[str], cache: Path) -> Score:
    """Score each of the clips' captions against their others, and take the mean over which is left out.

    The interval is that of the mean: a clip's values, or pseudo-values, are averaged over the captions left out.
    """
    folds = []
    for number in range(min(len(clip.captions) for clip in split.clips)):
        rest = (replace(c, captions=(*c.captions[:number], *c.captions[number + 1 :])) for c in split.clips)
        others = Split(split.name, tuple(rest))
        captions = tuple(clip.captions[number] for clip in split.clips)
        prediction = Captions(split.file_names, captions)
        folds.append(captioning.evaluate(others, prediction, metrics=metrics, cache=cache, file="the truth"))
    means = {}
    for name, first in folds[0].metrics.items():
        value = float(np.mean([fold.metrics[name].estimate.value for fold in folds]))
        if first.values is None:
            means[name] = Measured(replace(first.estimate, value=value, std_error=np.nan, low=np.nan, high=np.nan))
        else:
            values = np.mean([fold.metrics[name].values for fold in folds], axis=0)
            means[name] = Measured(jackknife(values, value=value), values=values)
    return replace(folds[0], metrics=means)


def shown(found: dict[str, Score], metrics: Sequence[str], called: str) -> str:
    """The table of measured and published figures, and why metrics are absent."""
    theirs_by_name = {}
    for module in (guided_gpt2, caption_retrieval):
        content = published.read_published(listing.published_file(Path(module.__file__).parent))
        for result in content.results:
            theirs_by_name[result.get("config", result.get("system"))] = result["evaluation"]
        what = content.data["evaluation"]
    rows = []
    for name, score in found.items():
        cells = []
        for metric in metrics:
            if metric in score.metrics:
                estimate = score.metrics[metric].estimate
                cells.append(report.with_interval(estimate.value, estimate.low, estimate.high, 3))
            else:
                cells.append(report.NOTHING)
        rows.append([SCOPES[name], name, *cells, called])
        theirs = [theirs_by_name[name].get(metric, [None])[0] for metric in metrics]
        rows.append(["", "published", *(report.number(value, 3) for value in theirs), what])
    reasons = set()
    for score in found.values():
        reasons |= {f"{metric}: {why}" for metric, why in score.unavailable.items()}
    text = table(rows, ["scope", "captions", *metrics, "data"], numbers=range(2, 2 + len(metrics)))
    return "\n".join([text, *sorted(reasons)])


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems.guided_gpt2.scopes", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of systems.guided_gpt2")
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=EVALUATION, help="which split, with captions (evaluation)")
    top.add_argument("--metrics", nargs="+", default=METRICS, metavar="METRIC", help="which metrics, or a set of them")
    text = "show how the system comes to the captions of these clips, and score nothing (default: score all scopes)"
    top.add_argument("--examples", nargs="+", metavar="CLIP", help=text)
    top.add_argument("--cache", type=Path, default=Path(".cache"), help="where embeddings are kept (.cache)")
    modules.add_option(top)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
