"""Floors of a captioner: captions made without a captioner, which a captioner should beat.

    python -m baseline.floors RUN --retriever RETRIEVER_RUN --data DIR --split evaluation [--retrieval RETRIEVAL_RUN …]

There are three floors, which do not use the captions of the split:

- All clips get the same caption: the development caption with the highest CIDEr-D over all development clips.
- Each clip gets a random development caption.
- Each clip gets the first caption of the nearest development clip according to the retriever.

Each run of `systems.caption_retrieval` adds one more floor. The command writes the predictions and scores of all floors
to `RUN/floors/SPLIT/`. It prints the scores of all floors below the score of RUN's own prediction. The last row is the
human topline: each reference scored against the other references of its clip (`evaluation.metrics.topline`).
"""

import argparse
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from evaluation import predictions, report
from evaluation.cli import command
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, Split, read_dataset
from evaluation.files import DEFAULT_CACHE, cache_folder
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, topline, word_overlap
from evaluation.scores import Score
from evaluation.text import table
from systems import modules
from systems.parts.devices import default_device
from systems.parts.vocabulary import words_with_hyphens

if TYPE_CHECKING:
    from systems.contract import Captioner, Retriever

METRICS = ("cider_d", "rouge_l", "bleu_4")
NAMES = {  # name in the table: stem of the file name
    "best constant caption": "constant",
    "random development caption": "random",
    "nearest development clip's": "nearest",
}
HUMAN = "each reference against the others"
CANDIDATES = 50  # number of captions from which the constant caption is chosen


def constant(development: Split) -> str:
    """Return the development caption that has the highest CIDEr-D when it is the prediction for all development clips.

    To save time, only 50 different captions are scored: those with the TF-IDF vectors that are most similar to the mean
    TF-IDF vector.
    """
    texts = {caption: " ".join(words_with_hyphens(caption)) for caption in development.all_captions}
    vectors = TfidfVectorizer(lowercase=False, token_pattern=r"\S+").fit_transform(texts.values())  # noqa: S106
    similarity = np.asarray(vectors @ vectors.mean(axis=0).T).ravel()
    captions = list(texts)
    candidates = [captions[index] for index in np.argsort(-similarity, kind="stable")[:CANDIDATES]]
    references = []
    for clip in development.clips:
        references.append([texts[caption] for caption in clip.captions])

    def mean_cider(caption: str) -> float:
        return float(word_overlap.CiderD([texts[caption]] * len(references), references).scores.mean())

    return max(candidates, key=mean_cider)


def drawn(development: Split, clips: int, seed: int = 0) -> list[str]:
    """Draw a random development caption for each of `clips` clips."""
    captions = development.all_captions
    indices = np.random.default_rng(seed).integers(len(captions), size=clips)
    return [captions[index] for index in indices]


def nearest(development: Split, split: Split, model: "Retriever") -> list[str]:
    """Return the first caption of the nearest development clip, for each clip of a split.

    Of all development clips, the embedding of the nearest one has the largest dot product with the clip's embedding.

    Args:
        development: The clips with captions.
        split: The clips to caption.
        model: The retriever that embeds the clips.
    """
    from systems import contract

    device = default_device()
    model = model.to(device)
    with_captions = contract.embeddings(model, development, device=device)
    to_caption = contract.embeddings(model, split, device=device)
    indices = (to_caption @ with_captions.T).argmax(1).tolist()
    return [development.clips[index].captions[0] for index in indices]


def retrieved(split: Split, model: "Captioner") -> list[str]:
    """Return the caption that a caption retrieval model finds for each clip."""
    from systems import contract

    device = default_device()
    return contract.captions(model.to(device), split, device=device)[0]


def loaded(run: Path, part: str, advice: str, trusted: Collection[str]) -> Any:
    """Load the model of a run.

    Args:
        run: The run folder.
        part: The method that the model must have.
        advice: The end of the error messages: what the user should give instead.
        trusted: Import names of modules that the user allows the run to name.

    Returns:
        A `Retriever` or a `Captioner`.

    Raises:
        BadRequest: The run is not trained, its model lacks the method, or it names a module that the user has not
            allowed.
    """
    from systems import contract

    name = contract.read_run(run).system
    checkpoint = run / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; {advice}")
    model = contract.load(name, checkpoint, trusted)
    if not hasattr(model, part):
        raise BadRequest(f"{run}: must be a run whose model has {part}; it is a run of {name}: {advice}")
    return model


def main(options: argparse.Namespace) -> None:
    """Compare the captions of a captioner with captions that were made without a captioner (floors)."""
    if options.split == DEVELOPMENT:
        raise BadRequest(
            "--split must not be development, because the floors use its captions; give another split, such as "
            "evaluation"
        )
    prediction = options.run_folder / "predictions" / f"{options.split}.csv"
    if not prediction.is_file():
        predict = ["python", "-m", "systems", "predict", str(options.run_folder), "--data", str(options.data)]
        raise BadRequest(f"{prediction}: no such file; predict first: {shlex.join(predict)}")
    runs = {run.resolve().name: run for run in options.retrieval}
    if len(runs) < len(options.retrieval):
        raise BadRequest(
            "--retrieval: the run folders must have different names, because the files of captions are named after "
            "them; rename one of the folders"
        )
    advice = "give --retriever the run folder of a trained retriever"
    retriever = loaded(options.retriever, "embed_audio", advice, options.trust)
    advice = "give --retrieval run folders of trained runs of systems.caption_retrieval"
    retrievals = {name: loaded(run, "caption", advice, options.trust) for name, run in runs.items()}
    dataset = read_dataset(options.data, DEVELOPMENT, options.split)
    development, split = dataset[DEVELOPMENT], dataset[options.split]
    if not any(clip.captions for clip in development.clips):
        raise BadRequest(
            f"{options.data}: the development split must have captions, because floors are made of them; "
            "found no captions; give a data folder with development captions"
        )
    constant_caption = constant(development)
    captions_of_floors = [
        [constant_caption] * len(split.clips),
        drawn(development, len(split.clips)),
        nearest(development, split, retriever),
    ]
    captions_of_floors += [retrieved(split, model) for model in retrievals.values()]
    names = NAMES | {f"retrieval of {name}": f"retrieval-{name}" for name in retrievals}
    scores = {str(options.run_folder): _score(split, prediction, options.cache)}
    for (name, stem), captions in zip(names.items(), captions_of_floors, strict=True):
        path = options.run_folder / "floors" / options.split / f"{stem}.csv"
        predictions.write_captions(path, split.file_names, captions)
        scores[name] = _score(split, path, options.cache)
        scores[name].save(path.with_suffix(".json"))
    rows = dict(scores)
    if all(len(clip.captions) > 1 for clip in split.clips):
        rows[HUMAN] = topline.human_topline(split, metrics=METRICS, cache=options.cache)
        rows[HUMAN].save(options.run_folder / "floors" / options.split / "human.json")
    print(_table(rows))
    print(f"the constant caption: {constant_caption}")
    estimate, *floors = (score.metrics["cider_d"].estimate for score in scores.values())
    if estimate.low > max(floor.value for floor in floors):
        lies = "lies"
    else:
        lies = "does NOT lie"
    print(f"the 95 % interval of the captioner's CIDEr-D {lies} above the CIDEr-D of all {len(floors)} floors")


def _score(split: Split, prediction: Path, cache: Path) -> Score:
    captions = predictions.read_captions(prediction)
    return captioning.evaluate(captions, split, metrics=METRICS, cache=cache, file=str(prediction))


def _table(scores: dict[str, Score]) -> str:
    rows = []
    for name, score in scores.items():
        row: list[object] = [name]
        for metric in METRICS:
            estimate = score.metrics[metric].estimate
            row += [report.number(estimate.value, 3), report.interval(estimate.low, estimate.high, decimals=3)]
        rows.append(row)
    headers = ["captions"]
    for metric in METRICS:
        headers += [metric, "95 % interval"]
    return table(rows, headers, numbers=range(1, len(headers)))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("python -m baseline.floors", description=main.__doc__)
    top.add_argument(
        "run_folder", type=Path, metavar="RUN", help="run folder of a captioner that has predicted the split"
    )
    top.add_argument("--retriever", type=Path, required=True, metavar="RUN", help="run folder of a retriever")
    text = "run folders of systems.caption_retrieval; the captions of each run are one more floor (default: no runs)"
    top.add_argument("--retrieval", type=Path, nargs="+", default=[], metavar="RUN", help=text)
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=EVALUATION, help="split to caption (default: evaluation)")
    text = f"folder for the cache of tokenised captions (default: {DEFAULT_CACHE})"
    top.add_argument("--cache", type=Path, default=cache_folder(), help=text)
    modules.add_option(top)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
