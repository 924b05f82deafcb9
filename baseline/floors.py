"""What a captioner must be better than: captions that take no captioner.

    python -m baseline.floors RUN --retriever RETRIEVER_RUN --data DIR --split evaluation [--retrieval RETRIEVAL_RUN …]

Three floors, none of which sees the captions of the split: the one development caption that fits all development clips
best; a development caption at random for each clip; and the first caption of the development clip that the retriever
finds nearest. Runs of `systems.caption_retrieval`, by sounds as they are or as it has learnt to compare them, are
further floors. All are written to `RUN/floors/SPLIT/`, as predictions and their scores, and printed below the score of
RUN's own prediction.
"""

import argparse
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from evaluation import predictions, report
from evaluation.cli import command
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, Split, read_dataset
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, overlap
from evaluation.scores import Score
from evaluation.text import table
from systems import modules
from systems.parts.devices import default_device
from systems.parts.vocabulary import words_with_hyphens

if TYPE_CHECKING:
    from systems.contract import Captioner, Retriever

METRICS = ("cider_d", "rouge_l", "bleu_4")
NAMES = {  # in the table, and of the files
    "best constant caption": "constant",
    "random development caption": "random",
    "nearest development clip's": "nearest",
}
LOOKED_AT = 50  # captions of which the best is chosen as the constant one


def constant(development: Split) -> str:
    """The development caption of the highest CIDEr-D when it is said of every development clip.

    Only the 50 distinct captions whose TF-IDF vectors are most like the mean vector are scored.
    """
    texts = {caption: " ".join(words_with_hyphens(caption)) for caption in development.all_captions}
    vectors = TfidfVectorizer(lowercase=False, token_pattern=r"\S+").fit_transform(texts.values())  # noqa: S106
    likeness = np.asarray(vectors @ vectors.mean(axis=0).T).ravel()
    captions = list(texts)
    candidates = [captions[index] for index in np.argsort(-likeness, kind="stable")[:LOOKED_AT]]
    references = []
    for clip in development.clips:
        references.append([texts[caption] for caption in clip.captions])

    def fit(caption: str) -> float:
        return float(overlap.CiderD([texts[caption]] * len(references), references).scores.mean())

    return max(candidates, key=fit)


def drawn(development: Split, clips: int, seed: int = 0) -> list[str]:
    """A development caption for each of so many clips, drawn at random."""
    captions = development.all_captions
    drawn = np.random.default_rng(seed).integers(len(captions), size=clips)
    return [captions[index] for index in drawn]


def nearest(development: Split, split: Split, model: "Retriever") -> list[str]:
    """The first caption of the development clip whose embedding has the largest dot product with that of each clip.

    Args:
        development: The clips with captions.
        split: The clips that need one.
        model: Embeds them.
    """
    from systems import contract

    device = default_device()
    model = model.to(device)
    known, asked = (contract.embeddings(model, one, device=device) for one in (development, split))
    return [development.clips[index].captions[0] for index in (asked @ known.T).argmax(1).tolist()]


def retrieved(split: Split, model: "Captioner") -> list[str]:
    """What a model that retrieves captions says of each clip."""
    from systems import contract

    device = default_device()
    return contract.captions(model.to(device), split, device=device)[0]


def loaded(run: Path, part: str, advice: str, trusted: Collection[str]) -> object:
    """Load the model of a run.

    Args:
        run: The run folder.
        part: The method that the model must have.
        advice: What to give instead.
        trusted: Import names of modules that the user allows the run to name.

    Raises:
        BadRequest: It is not trained, its model lacks the method, or it names a module that it must not.
    """
    from systems import contract

    name, checkpoint = contract.read_run(run).system, run / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; {advice}")
    model = contract.load(name, checkpoint, trusted)
    if not hasattr(model, part):
        raise BadRequest(f"{run}: is a run of {name}, whose model has no {part}; {advice}")
    return model


def main(options: argparse.Namespace) -> None:
    """Score a captioner's prediction beside captions that take no captioner."""
    if options.split == DEVELOPMENT:
        raise BadRequest("--split must not be development: the floors are made of its captions")
    prediction = options.run_folder / "predictions" / f"{options.split}.csv"
    if not prediction.is_file():
        command = shlex.join(
            ["python", "-m", "systems", "predict", str(options.run_folder), "--data", str(options.data)]
        )
        raise BadRequest(f"{prediction}: no such file; predict first: {command}")
    runs = {run.resolve().name: run for run in options.retrieval}
    if len(runs) < len(options.retrieval):
        raise BadRequest("--retrieval: the run folders must have different names, which the captions are filed under")
    advice = "give --retriever the run folder of a retriever, trained"
    retriever = loaded(options.retriever, "embed_audio", advice, options.trust)
    advice = "give --retrieval run folders of systems.caption_retrieval, trained"
    retrievals = {name: loaded(run, "caption", advice, options.trust) for name, run in runs.items()}
    dataset = read_dataset(options.data, DEVELOPMENT, options.split)
    development, split = dataset[DEVELOPMENT], dataset[options.split]
    if not any(clip.captions for clip in development.clips):
        raise BadRequest(f"{options.data}: the development split has no captions, and floors are made of them")
    one = constant(development)
    said = [[one] * len(split.clips), drawn(development, len(split.clips)), nearest(development, split, retriever)]
    said += [retrieved(split, model) for model in retrievals.values()]
    names = NAMES | {f"retrieval of {name}": f"retrieval-{name}" for name in retrievals}
    scores = {str(options.run_folder): _score(split, prediction, options.cache)}
    for (name, stem), captions in zip(names.items(), said, strict=True):
        path = options.run_folder / "floors" / options.split / f"{stem}.csv"
        predictions.write_captions(path, split.file_names, captions)
        scores[name] = _score(split, path, options.cache)
        scores[name].save(path.with_suffix(".json"))
    print(_table(scores))
    print(f"the constant caption: {one}")
    estimate, *below = (score.metrics["cider_d"].estimate for score in scores.values())
    above = estimate.low > max(other.value for other in below)
    print(f"CIDEr-D's interval lies {'above all' if above else 'NOT above all'} {len(below)} floors' values")


def _score(split: Split, prediction: Path, cache: Path) -> Score:
    captions = predictions.read_captions(prediction)
    return captioning.evaluate(split, captions, metrics=METRICS, cache=cache, file=str(prediction))


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
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m baseline.floors", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of a captioner")
    top.add_argument("--retriever", type=Path, required=True, metavar="RUN", help="run folder of a retriever")
    text = "run folders of systems.caption_retrieval, whose captions are floors too"
    top.add_argument("--retrieval", type=Path, nargs="+", default=[], metavar="RUN", help=text)
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=EVALUATION, help="which split (evaluation)")
    top.add_argument("--cache", type=Path, default=Path(".cache"), help="where tokenised captions are kept (.cache)")
    modules.add_option(top)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
