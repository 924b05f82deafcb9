"""The content of a page about captioning: the predicted captions and the references of each clip."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import caption_formats
from evaluation.data.dataset import Split, read_dataset
from evaluation.findings import Finding
from evaluation.inspection.charts import LISTED, Chart, Table, edges, group_labels, histogram, mean_chart, shares
from evaluation.inspection.content import TEMPLATES, Request, SplitContent, System, check_content, read_systems
from evaluation.metrics import catalogue
from evaluation.predictions import Captions
from evaluation.report import NOTHING
from evaluation.scores import Score
from evaluation.text import cut, printable


@dataclass(frozen=True)
class Predicted(System):
    """The captions and the score of a captioner. The items of the score are the clips, in the order of the split.

    Attributes:
        captions: The caption of each clip of the split.
        log_probabilities: The log-probability of each caption; None if the prediction does not contain any.
    """

    captions: Sequence[str]
    log_probabilities: Sequence[float | None] | None


@dataclass(frozen=True)
class Descriptions(SplitContent):
    """The content of a page about captioning: the split, and the captions of each system."""

    task = "Audio captioning"
    answers = "captions"
    noun = "clips"
    lists = "Vocabulary and repeated captions"
    templates = TEMPLATES / "captioning"

    split: Split
    systems: Sequence[Predicted]

    def charts(self, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray) -> list[Chart | None]:
        """Return charts of a metric, of the length of captions, and of what the metric depends on."""
        title = catalogue.heading(metric)
        lengths = []
        for clip in self.clips:
            lengths.append(np.mean([len(caption.split()) for caption in clip.captions]))
        words = [np.array([len(caption.split()) for caption in system.captions], float) for system in self.systems]
        return [
            histogram(f"{title} over clips", title, metric, values),
            _length_chart(words),
            mean_chart(metric, "mean length of the references", "words", np.round(lengths), values),
            mean_chart(metric, "duration", "seconds", seconds, values),
        ]

    def tables(self, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
        """Return the vocabulary, and the captions that each system repeats."""
        return [_vocabulary(self), *(_repeated(system.name, system.captions) for system in self.systems)]

    def data(self) -> dict[str, Any]:
        """Return the references, and the captions of each system."""
        return {
            "captions": self.captions(),
            "predicted": [[printable(caption) for caption in system.captions] for system in self.systems],
            "log_probabilities": [system.log_probabilities for system in self.systems],
        }


def _length_chart(words: Sequence[np.ndarray]) -> Chart:
    """Return a chart of the distribution of the number of words over the captions."""
    together = np.concatenate(words)
    uppers = edges(together)
    return shares("Length of the predicted captions", "words", group_labels(together, uppers), uppers, words)


def _vocabulary(content: Descriptions) -> Table:
    """Return a table of the vocabulary of the references and of each system."""
    references = content.split.all_captions
    known = _words(references)
    rows = [["references", *_counts(references), NOTHING]]
    for system in content.systems:
        own = len(_words(system.captions) - known)
        rows.append([system.name, *_counts(system.captions), f"{own:,}"])
    heads = ["captions of", "words each", "different words", "different captions", "words that no reference has"]
    return Table("Vocabulary", heads, rows, "Words are separated by spaces. Punctuation and case are ignored.")


def _words(captions: Sequence[str]) -> set[str]:
    words: set[str] = set()
    for caption in captions:
        for word in caption.lower().split():
            words.add(word.strip(".,;:!?\"'()"))
    words.discard("")
    return words


def _counts(captions: Sequence[str]) -> list[str]:
    length = np.mean([len(caption.split()) for caption in captions])
    return [f"{length:.1f}", f"{len(_words(captions)):,}", f"{len(set(captions)):,} of {len(captions):,}"]


def _repeated(name: str, captions: Sequence[str]) -> Table:
    """Return a table of the captions that a system gives to several clips."""
    counts = Counter(captions)
    rows = [[cut(caption), str(count)] for caption, count in counts.most_common(LISTED) if count > 1]
    repeated = sum(count for count in counts.values() if count > 1)
    note = f"{repeated:,} of {len(captions):,} clips have the same caption as another clip."
    return Table(f"Repeated captions of {name}", ["caption", "clips"], rows, note)


def collect_descriptions(split: Split, given: Mapping[str, tuple[tuple[Path, Captions], Score]]) -> Descriptions:
    """Collect the captions of every clip.

    Args:
        split: The split.
        given: A dict from the name of each system to its file and prediction, and its score.
    """
    systems = []
    for name, ((path, prediction), score) in given.items():
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        listed = [captions[clip.file_name] for clip in split.clips]
        systems.append(Predicted(name, score, listed, _log_probabilities(path, prediction, split)))
    return Descriptions(split, systems)


def _log_probabilities(path: Path, prediction: Captions, split: Split) -> list[float | None] | None:
    """Return the log-probability of each clip's caption, or None if the file does not contain any."""
    rows = caption_formats.load(path).rows  # one row for each caption, in the order of the prediction
    found = {}
    for name, row in zip(prediction.file_names, rows, strict=True):
        try:
            value = float(row.cells["log_probability"])
        except (KeyError, TypeError, ValueError):
            continue
        if isfinite(value):
            found[name] = value
    if not found:
        return None
    return [found.get(clip.file_name) for clip in split.clips]


def read_descriptions(
    paths: Sequence[Path], split: Split, metrics: Sequence[str], match: str
) -> tuple[Descriptions, list[Finding]]:
    """Read and score predictions of captioning systems, as `retrieval.read_queries` does for retrieval systems.

    Args:
        paths: The files.
        split: The split.
        metrics: Names of metrics, or of one set.
        match: As in `caption_formats.read_captions`.
    """
    from evaluation.metrics import captioning  # slow to import, because it imports scipy's sparse matrices

    def read(path: Path) -> tuple[tuple[Path, Captions], Score, Sequence[Finding]]:
        prediction, notes = caption_formats.read_captions(path, split, match=match)
        score = captioning.evaluate(prediction, split, metrics=metrics, file=str(path))
        return (path, prediction), score, notes

    given, findings = read_systems(paths, read)
    content = collect_descriptions(split, given)
    check_content(content)
    return content, findings


def read_page(request: Request) -> tuple[Descriptions, list[Finding]]:
    """Read the data folder and the predictions that a request names, as `read_descriptions` does."""
    split = read_dataset(request.truth, request.split, sound=False)[request.split]
    return read_descriptions(request.predictions, split, request.metrics or ["basic"], request.match)
