"""The three scopes of Koizumi et al. 2020, Table 1, of one trained run.

    python -m systems.guided_gpt2.scopes RUN --data DIR --split evaluation

i    whole            the system: guidance is retrieved, a caption is written
ii   nearest          the caption of the nearest clip, by the frames as they are (1NN)
     triplet          that of the nearest clip, as the first stage has learnt it; absent where that learnt nothing
     Top1-BERTScore   the training caption of the highest BERTScore against the truth
iii  oracle guidance  the system, guided by the training captions of the highest BERTScores against the truth
     human            each of a clip's captions against its others, as many times as clips have captions, and the mean

What knows the truth is no captioner, and no run predicts it: it says how far retrieval and writing could get. Against
several captions a BERTScore is the highest. The human's captions have one reference less each than the others'.

Captions and scores are written to `RUN/scopes/SPLIT/`, and printed with the paper's figures.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from evaluation import captioning, data, yamlfiles
from evaluation.captioning import Prediction
from evaluation.data import Split
from evaluation.findings import BadRequest, command, table
from evaluation.intervals import jackknife
from evaluation.scores import Measured, Score
from systems import caption_retrieval, guided_gpt2, modules, runs
from systems.caption_retrieval import fitted, similarity
from systems.contract import load, read_run
from systems.embeddings import embed
from systems.parts import texts
from systems.published import FILE

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "cider_d", "rouge_l", "spice")
SCOPES = {
    "whole": "i",
    "nearest": "ii",
    "triplet": "ii",
    "Top1-BERTScore": "ii",
    "oracle guidance": "iii",
    "human": "iii",
}
TOGETHER = 16  # clips that are captioned at once


def main(options: argparse.Namespace) -> None:
    """Caption a split in each of the three scopes, score it, and print the table."""
    checkpoint = options.run_folder / "checkpoints" / "best.ckpt"
    if (system := read_run(options.run_folder).system) != guided_gpt2.__name__:
        raise BadRequest(f"{options.run_folder}: must be a run of {guided_gpt2.__name__}; found one of {system}")
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; give the run folder of systems.guided_gpt2, trained")
    runs.warn_unfinished(options.run_folder)
    metrics, _ = captioning.choose(options.metrics)
    split = caption_retrieval.captioned(data.read(options.data, options.split)[options.split])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load(system, checkpoint, options.trust).to(device)
    folder = options.run_folder / "scopes" / split.name
    found = {}
    with modules.trusting(options.trust):  # an encoder is loaded once more
        answers = said(model, split, options.cache)
    for name, captions in answers.items():
        path = folder / f"{name.replace(' ', '-')}.csv"
        captioning.write(path, split.file_names, captions)
        found[name] = captioning.evaluate(
            split, captioning.read(path), metrics=metrics, cache=options.cache, file=str(path)
        )
        found[name].save(path.with_suffix(".json"))
    if all(len(clip.captions) > 1 for clip in split.clips):
        found["human"] = human(split, metrics, options.cache)
        found["human"].save(folder / "human.json")
    else:
        print("human: left out, for there are clips with a single caption, which has no others to be compared with")
    print(shown(found, metrics, f"{options.data.resolve().name} {split.name} ({len(split.clips)} clips)"))


@torch.inference_mode()
def said(model: guided_gpt2.Captioner, split: Split, cache: Path) -> dict[str, list[str]]:
    """The captions of a split's clips, by the name of who says them.

    Args:
        model: The system.
        split: The split, with captions, of which only two of the five know.
        cache: Folder of the cache.
    """
    retriever, k = model.retriever, model.config.guidance
    library, device = retriever.library, next(model.generator.parameters()).device
    sequences = embed([clip.path for clip in split.clips], retriever.audio, cache)
    frames, lengths = (part.to(device) for part in fitted(sequences, library.frames.shape[1]))
    guidance = {"whole": retriever.captions(frames, lengths, k)}
    raw = caption_retrieval.Retriever(retriever.config.model_copy(update={"embedding": "raw"}), library).to(device)
    found = {"nearest": [one for (one,) in raw.eval().captions(frames, lengths, 1)]}
    if retriever.embedder:
        found["triplet"] = [some[0] for some in guidance["whole"]]
    known = list(dict.fromkeys(caption for some in library.captions for caption in some))
    encode = texts.encoder(retriever.config.similarity_model, retriever.config.similarity_layer)
    best = similarity.nearest([clip.captions for clip in split.clips], known, encode, cache, min(k, len(known)))
    guidance["oracle guidance"] = [[known[number] for number in row] for row in best]
    found["Top1-BERTScore"] = [some[0] for some in guidance["oracle guidance"]]
    for name, captions in guidance.items():
        found[name] = []
        for start in tqdm(range(0, len(frames), TOGETHER), f"{name}: captions", leave=False, disable=None):
            part = slice(start, start + TOGETHER)
            found[name] += model.guided(frames[part], lengths[part], captions[part])[0]
    return {name: found[name] for name in SCOPES if name in found}


def human(split: Split, metrics: Sequence[str], cache: Path) -> Score:
    """Score each of the clips' captions against their others, and take the mean over which is left out.

    The interval is that of the mean: a clip's values, or pseudo-values, are averaged over the captions left out.
    """
    folds = []
    for number in range(min(len(clip.captions) for clip in split.clips)):
        rest = (replace(c, captions=(*c.captions[:number], *c.captions[number + 1 :])) for c in split.clips)
        others = Split(split.name, tuple(rest))
        captions = tuple(clip.captions[number] for clip in split.clips)
        prediction = Prediction(split.file_names, captions)
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
    published = {}
    for module in (guided_gpt2, caption_retrieval):
        content = yamlfiles.read(Path(module.__file__).parent / FILE)
        published |= {result["config"]: result["evaluation"] for result in content["results"]}
        what = content["data"]["evaluation"]
    rows = []
    for name, score in found.items():
        estimates = [score.metrics[metric].estimate if metric in score.metrics else None for metric in metrics]
        cells = [f"{one.value:.3f} ({one.low:.3f}–{one.high:.3f})" if one else "–" for one in estimates]
        rows.append([SCOPES[name], name, *cells, called])
        theirs = [published[name].get(metric, [None])[0] for metric in metrics]
        rows.append(["", "published", *("–" if value is None else f"{value:.3f}" for value in theirs), what])
    reasons = {f"{metric}: {why}" for score in found.values() for metric, why in score.unavailable.items()}
    text = table(rows, ["scope", "captions", *metrics, "data"], numbers=range(2, 2 + len(metrics)))
    return "\n".join([text, *sorted(reasons)])


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems.guided_gpt2.scopes", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of systems.guided_gpt2")
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=data.EVALUATION, help="which split, with captions (evaluation)")
    top.add_argument("--metrics", nargs="+", default=METRICS, metavar="METRIC", help="which metrics, or a set of them")
    top.add_argument("--cache", type=Path, default=Path(".cache"), help="where embeddings are kept (.cache)")
    modules.add_option(top)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
