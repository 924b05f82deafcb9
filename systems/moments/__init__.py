"""Audio moment retrieval with a trained retriever, which compares each part of a recording with the query.

    dcase-systems train systems.moments --set retriever=RETRIEVER --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

RETRIEVER is the run folder of any retriever, and DIR has queries about recordings (`systems.asked`). The retriever
embeds a window around each cell of the recording, and the query. The similarity of the two over time is a curve.
`cutting.py` cuts the curve into windows. Training only fits the three settings of the cut: it tries all of them on the
validation recordings, and keeps the one with the highest mAP.

A run does not contain the retriever, only the path from the config. If the checkpoint of the retriever has changed, the
run cannot be loaded.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.data.dataset import VALIDATION, Dataset
from evaluation.findings import BadRequest
from systems.answering import load_recordings
from systems.contract import CLIPS_PER_BATCH, require_finite
from systems.moments.cutting import Cutting, QueryCurve, cut, fit_cutting
from systems.other_runs import OtherRun, load_other_run
from systems.parts.descriptions import sampling_rate
from systems.parts.devices import default_device
from systems.training import Run, read_checkpoint, save_tensors, write_rows

DATA = "moments"
PAPER = "kit's baseline, DCASE 2026 task 6"
PARAMETERS = "those of the retriever"
SEARCH = "search.csv"  # name of the file in the run folder with the scores of all settings


class Config(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The settings."""

    retriever: str = ""  # run folder of a retriever
    window: float = Field(2.0, ge=0.1)  # seconds of audio around each cell that the retriever embeds
    hop: float = Field(0.5, ge=0.1)  # seconds; length of a cell


class Finder(nn.Module):
    """A model that finds the moments of a recording that queries describe.

    Args:
        config: The config.
        retriever: The retriever.
        cutting: The settings that turn a curve into windows.
    """

    def __init__(self, config: Config, retriever: OtherRun, cutting: Cutting):
        super().__init__()
        self.config, self.other, self.cutting = config, retriever, cutting
        self.retriever = retriever.model
        self.sample_rate: int = self.retriever.sample_rate
        self.device = default_device()

    def to(self, device: torch.device) -> Self:
        """Move the retriever, which may not be a torch module, to a device."""
        self.retriever = self.retriever.to(device)
        self.device = device
        return self

    def curves(self, audio: Tensor, queries: Sequence[str]) -> np.ndarray:
        """Return the similarity of queries and each cell of a recording, (queries, cells).

        Each window is embedded once, in batches, so that no more than the embeddings and a batch is in memory.

        Args:
            audio: (samples,) the recording.
            queries: The queries.
        """
        texts = self.retriever.embed_text(queries).float().cpu()
        require_finite(texts, queries, "embed_text must give finite values", "query")
        parts = []
        for batch, lengths in self._batches(audio):
            embedded = self.retriever.embed_audio(batch.to(self.device), lengths.to(self.device)).float().cpu()
            parts.append(texts @ embedded.T)
        curves = torch.cat(parts, 1)
        require_finite(curves, queries, "embed_audio must give finite values", "query")
        return curves.double().numpy()

    def _batches(self, audio: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the audio of windows, (N, samples), and the (N,) numbers of samples of each window.

        The window of a cell has the same centre as the cell. At the ends of the recording, windows are cut off.
        """
        hop, half = self.config.hop * self.sample_rate, self.config.window * self.sample_rate / 2
        cells = max(1, math.ceil(len(audio) / hop))
        for start in tqdm(range(0, cells, CLIPS_PER_BATCH), "windows", leave=False, disable=None):
            windows = []
            for cell in range(start, min(start + CLIPS_PER_BATCH, cells)):
                centre = min((cell + 0.5) * hop, len(audio))
                windows.append(audio[max(0, round(centre - half)) : max(1, round(centre + half))])
            lengths = torch.tensor([len(window) for window in windows])
            batch = torch.zeros(len(windows), int(lengths.max()))
            for row, window in enumerate(windows):
                batch[row, : len(window)] = window
            yield batch, lengths

    @torch.inference_mode()
    def moments(self, audio: Tensor, queries: Sequence[str]) -> list[Tensor]:
        """Find the windows of a recording that answer queries (`systems.contract.MomentFinder`)."""
        seconds = len(audio) / self.sample_rate
        found = []
        for curve in self.curves(audio, queries):
            found.append(torch.from_numpy(cut(curve, self.config.hop, seconds, self.cutting)))
        return found


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Fit the settings of the cut on the validation recordings."""
    split: Any = dataset[VALIDATION]
    queries = [query for query in split.content.queries if query.windows]
    if not queries:
        message = "must have queries with relevant_windows, on which the settings are fitted; found none"
        raise BadRequest(f"{split.content.source}: {message}: add them")
    other = load_other_run(config.retriever, "retriever", "retrieval")
    model = Finder(config, other, Cutting()).to(default_device())
    run.start()
    if not run.best.is_file():
        tried = fit_cutting(_query_curves(model, split), config.hop)
        write_rows(run.folder / SEARCH, [{**asdict(cutting), **scores} for cutting, scores in tried])
        model.cutting, scores = tried[0]
        state = {
            "state_dict": {},
            "config": config.model_dump(mode="json"),
            "cutting": asdict(model.cutting),
            "retriever": other.digest,
        }
        save_tensors(state, run.best)
        print(f"{run.folder}: {model.cutting}: mAP {scores['mAP']:.3f} on {len(queries)} validation queries")
    facts = {"input_sampling_rate": sampling_rate(model.sample_rate), "metric_monitored": "validation mAP"}
    run.describe(load_model(run.best), other.description(**facts))


@torch.inference_mode()
def _query_curves(model: Finder, split: Any) -> list[QueryCurve]:
    """Return the curves and the truth of a split's queries, except for queries without windows.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
    """
    curves = []
    for queries, samples in load_recordings(split, model.sample_rate):
        answered = [query for query in queries if query.windows]
        if not answered:
            continue
        similarities = model.curves(samples, [query.text for query in answered])
        for query, curve in zip(answered, similarities, strict=True):
            curves.append(QueryCurve(curve, len(samples) / model.sample_rate, np.array(query.windows)))
        del samples  # so the next recording is loaded into the same memory
    return curves


def load_model(checkpoint: Path) -> Finder:
    """Load the settings from a checkpoint, and the retriever from the run folder that the config names.

    Raises:
        BadRequest: The retriever is not in its folder, or it has changed.
    """
    state = read_checkpoint(checkpoint, config=dict, cutting=dict, retriever=str)
    config = Config(**state["config"])
    other = load_other_run(config.retriever, "retriever", "retrieval")
    other.require_digest(state["retriever"], checkpoint)
    return Finder(config, other, Cutting(**state["cutting"])).eval()
