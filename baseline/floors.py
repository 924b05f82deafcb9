"""What a captioner must be better than: captions that take no captioner.

    python -m baseline.floors RUN --retriever RETRIEVER_RUN --data DIR --split evaluation [--retrieval RETRIEVAL_RUN …]

Three floors, none of which sees the captions of the split: the one development caption that fits all development clips
best; a development caption at random for each clip; and the first caption of the development clip that the retriever
finds nearest. Runs of `systems.caption_retrieval`, by sounds as they are or as it has learnt to compare them, are
further floors. All are written to `RUN/floors/SPLIT/`, as predictions and their scores, and printed below the score of
RUN's own prediction.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation import captioning, data, overlap
from evaluation.findings import BadRequest, command, table
from evaluation.scores import Score
from systems.parts.vocabulary import tokenize

METRICS = ("cider_d", "rouge_l", "bleu_4")
NAMES = {  # in the table, and of the files
    "best constant caption": "constant",
    "random development caption": "random",
    "nearest development clip's": "nearest",
}
LOOKED_AT = 50  # captions of which the best is chosen as the constant one


def constant(development: data.Split) -> str:
    """The development caption of the highest CIDEr-D when it is said of every development clip.

    Of the distinct captions, those 50 are scored whose words, weighed by how few captions have them, are most like
    the mean caption's.
    """
    texts = {caption: " ".join(tokenize(caption)) for clip in development.clips for caption in clip.captions}
    counts = {caption: Counter(text.split()) for caption, text in texts.items()}
    having = Counter(word for words in counts.values() for word in words)
    mean: Counter[str] = Counter()
    vectors = {}
    for caption, words in counts.items():
        vector = {word: number * math.log(len(counts) / having[word]) for word, number in words.items()}
        norm = math.hypot(*vector.values()) or 1.0
        vectors[caption] = {word: value / norm for word, value in vector.items()}
        mean.update(vectors[caption])
    likeness = {caption: sum(value * mean[word] for word, value in v.items()) for caption, v in vectors.items()}
    references = [[texts[caption] for caption in clip.captions] for clip in development.clips]

    def fit(caption: str) -> float:
        return float(overlap.CiderD([texts[caption]] * len(references), references).scores.mean())

    return max(sorted(likeness, key=likeness.__getitem__, reverse=True)[:LOOKED_AT], key=fit)


def drawn(development: data.Split, clips: int, seed: int = 0) -> list[str]:
    """A development caption for each of so many clips, drawn at random."""
    captions = [caption for clip in development.clips for caption in clip.captions]
    return [captions[index] for index in np.random.default_rng(seed).integers(len(captions), size=clips)]


def nearest(development: data.Split, split: data.Split, checkpoint: Path) -> list[str]:
    """The first caption of the development clip whose embedding has the largest dot product with that of each clip.

    Args:
        development: The clips with captions.
        split: The clips that need one.
        checkpoint: Of a run of `baseline.retriever`.
    """
    import torch

    from baseline import retriever
    from systems import contract

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = retriever.load_model(checkpoint).to(device)
    known, asked = (contract.embeddings(model, one, device=device) for one in (development, split))
    return [development.clips[index].captions[0] for index in (asked @ known.T).argmax(1).tolist()]


def retrieved(split: data.Split, checkpoint: Path) -> list[str]:
    """What a run of `systems.caption_retrieval` says of each clip.

    Args:
        split: The clips.
        checkpoint: Of the run.
    """
    import torch

    from systems import caption_retrieval, contract

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return contract.captions(caption_retrieval.load_model(checkpoint).to(device), split, device=device)[0]


def main(options: argparse.Namespace) -> None:
    """Score a captioner's prediction beside captions that take no captioner."""
    prediction = options.run_folder / "predictions" / f"{options.split}.csv"
    checkpoint = options.retriever / "checkpoints" / "best.ckpt"
    retrievals = {run.resolve().name: run / "checkpoints" / "best.ckpt" for run in options.retrieval}
    advice = "give --retrieval run folders of systems.caption_retrieval, trained"
    if len(retrievals) < len(options.retrieval):
        raise BadRequest("--retrieval: the run folders must have different names, which the captions are filed under")
    for path, advice in (
        (prediction, f"predict first: python -m systems predict {options.run_folder} --data {options.data}"),
        (checkpoint, "give --retriever the run folder of baseline.retriever, trained"),
        *((path, advice) for path in retrievals.values()),
    ):
        if not path.is_file():
            raise BadRequest(f"{path}: no such file; {advice}")
    dataset = data.read(options.data, data.DEVELOPMENT, options.split)
    development, split = dataset[data.DEVELOPMENT], dataset[options.split]
    if not any(clip.captions for clip in development.clips):
        raise BadRequest(f"{options.data}: the development split has no captions, and floors are made of them")
    one = constant(development)
    said = [[one] * len(split.clips), drawn(development, len(split.clips)), nearest(development, split, checkpoint)]
    said += [retrieved(split, path) for path in retrievals.values()]
    names = NAMES | {f"retrieval of {name}": f"retrieval-{name}" for name in retrievals}
    scores = {str(options.run_folder): _score(split, prediction, options.cache)}
    for (name, stem), captions in zip(names.items(), said, strict=True):
        path = options.run_folder / "floors" / options.split / f"{stem}.csv"
        captioning.write(path, split.file_names, captions)
        scores[name] = _score(split, path, options.cache)
        scores[name].save(path.with_suffix(".json"))
    print(_table(scores))
    print(f"the constant caption: {one}")
    estimate, *below = (score.metrics["cider_d"].estimate for score in scores.values())
    above = estimate.low > max(other.value for other in below)
    print(f"CIDEr-D's interval lies {'above all' if above else 'NOT above all'} {len(below)} floors' values")


def _score(split: data.Split, prediction: Path, cache: Path) -> Score:
    return captioning.evaluate(split, captioning.read(prediction), metrics=METRICS, cache=cache, file=str(prediction))


def _table(scores: dict[str, Score]) -> str:
    rows = []
    for name, score in scores.items():
        row: list[object] = [name]
        for metric in METRICS:
            estimate = score.metrics[metric].estimate
            row += [f"{estimate.value:.3f}", f"{estimate.low:.3f} – {estimate.high:.3f}"]
        rows.append(row)
    headers: Sequence[str] = ["captions", *(head for metric in METRICS for head in (metric, "95 % interval"))]
    return table(rows, headers, numbers=range(1, len(headers)))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m baseline.floors", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of a captioner")
    top.add_argument("--retriever", type=Path, required=True, metavar="RUN", help="run folder of baseline.retriever")
    text = "run folders of systems.caption_retrieval, whose captions are floors too"
    top.add_argument("--retrieval", type=Path, nargs="+", default=[], metavar="RUN", help=text)
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=data.EVALUATION, help="which split (evaluation)")
    top.add_argument("--cache", type=Path, default=Path(".cache"), help="where tokenised captions are kept (.cache)")
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
