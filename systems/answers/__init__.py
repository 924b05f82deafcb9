"""Audio question answering with a trained retriever, or with a trained captioner and a language model.

    dcase-systems train systems.answers --set retriever=RETRIEVER --data DIR --run RUN
    dcase-systems train systems.answers --set captioner=CAPTIONER --set language_model=MODEL --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

RETRIEVER and CAPTIONER are run folders, and DIR has multiple-choice questions about clips (`systems.asked`).

- A retriever chooses the option whose text is most similar to the clip. The text is the option alone, the question and
  the option, or a statement that is made from both (`texts.py`).
- A captioner describes the clip, and a frozen language model reads the caption, the question and each option
  (`language.py`). The model chooses the option with the highest log-probability: the sum over its tokens (`total`),
  the mean over its tokens (`mean`), or the increase of the sum by the caption (`gain`).
- A language model alone does not use the audio. If its accuracy is above chance, the questions reveal some answers.

Training only chooses one of the three texts, or one of the three log-probabilities: the one with the highest accuracy
on the validation questions.

A run does not contain the retriever or captioner, only the path from the config. If the checkpoint of the retriever or
captioner has changed, the run cannot be loaded.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, model_validator
from torch import Tensor, nn

from evaluation.data.dataset import VALIDATION, Dataset
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems.answering import question_batches
from systems.answers.language import LogProbability, OptionReader, prompt
from systems.answers.texts import TEXTS
from systems.contract import require_finite
from systems.other_runs import OtherRun, load_other_run
from systems.parts import texts
from systems.parts.descriptions import sampling_rate
from systems.parts.devices import default_device
from systems.training import Run, metadata_name, read_checkpoint, save_tensors, write_rows

DATA = "choice"
PAPER = "kit's baseline, DCASE 2026 task 5"
PARAMETERS = "those of its parts"
SEARCH = "search.csv"  # name of the file in the run folder with the accuracy of each way


class Config(BaseModel, extra="forbid", frozen=True):
    """The settings: a retriever, or a language model with or without a captioner."""

    retriever: str = ""  # run folder of a retriever
    captioner: str = ""  # run folder of a captioner
    language_model: str = ""  # folder or GGUF file, also in an installed package (PACKAGE/PATH), or hub name

    @model_validator(mode="after")
    def check_parts(self) -> "Config":
        """Refuse parts that cannot be combined."""
        if self.retriever and (self.captioner or self.language_model):
            raise ValueError("retriever must not be combined with captioner or language_model; give one or the others")
        if self.captioner and not self.language_model:
            raise ValueError("captioner must be given with a language_model, which answers from the captions")
        return self


def downloads(config: Config) -> list[Download]:
    """Return the published model that a config needs."""
    if not config.language_model:
        return []
    return [texts.download(config.language_model)]


# The models ----------------------------------------------------------------------------------------------------------


class Answerer(nn.Module):
    """A model that answers questions in one of several ways.

    Attributes:
        ways: The names of the ways.
        way: The way that `answer` uses.
        sample_rate: Sample rate of the audio in Hz.
        other: The run of the retriever or captioner that the model uses, if any.
        device: The device that the model is on.
    """

    ways: Sequence[str]
    sample_rate: int

    def __init__(self, other: OtherRun | None):
        super().__init__()
        self.other, self.way = other, ""
        self.device = default_device()
        self.part: Any = None
        if other is not None:
            self.part = other.model
            self.sample_rate = other.model.sample_rate

    def to(self, device: torch.device) -> Self:
        """Move the model and the other run's model, which may not be a torch module, to a device."""
        super().to(device)
        if self.part is not None:
            self.part = self.part.to(device)
        self.device = device
        return self

    @abstractmethod
    def listen(self, audio: Tensor, lengths: Tensor) -> list[Any]:
        """Return what `scores` needs of each clip: an embedding, a caption, or None."""

    @abstractmethod
    def scores(self, clip: Any, question: str, options: Sequence[str]) -> dict[str, list[float]]:
        """Return a dict from each way, or only from `way` if it is set, to a score for each option.

        Args:
            clip: What `listen` returned for the clip.
            question: The question.
            options: The options.
        """

    @torch.inference_mode()
    def answer(
        self, audio: Tensor, lengths: Tensor, questions: Sequence[str], options: Sequence[Sequence[str]]
    ) -> list[str]:
        """Answer a question about each clip (`systems.contract.Answerer`). Of equal scores, the first is chosen."""
        answers = []
        for clip, question, of_question in zip(self.listen(audio, lengths), questions, options, strict=True):
            values = self.scores(clip, question, of_question)[self.way]
            answers.append(of_question[int(np.argmax(values))])
        return answers


class RetrieverAnswerer(Answerer):
    """A retriever that compares options with the clip."""

    ways = tuple(TEXTS)

    def listen(self, audio: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the embedding of each clip, (size,) on the CPU."""
        return list(self.part.embed_audio(audio, lengths).float().cpu())

    def scores(self, clip: Tensor, question: str, options: Sequence[str]) -> dict[str, list[float]]:
        """Return the similarity of the clip and of the text for each option."""
        scores = {}
        for way in self.ways:
            if self.way in ("", way):
                compared = [TEXTS[way](question, option) for option in options]
                values = self.part.embed_text(compared).float().cpu() @ clip
                require_finite(values, compared, "embed_audio and embed_text must give finite values", "text")
                scores[way] = values.tolist()
        return scores


class LanguageAnswerer(Answerer):
    """A language model that reads a caption of the clip, if there is a captioner, and the options.

    Args:
        other: The run of the captioner, if any.
        name: The language model.
    """

    sample_rate = 16000  # without a captioner, the audio is not used

    def __init__(self, other: OtherRun | None, name: str):
        super().__init__(other)
        self.reader = OptionReader(name)
        self.ways = ("total", "mean")
        if other is not None:
            self.ways = ("total", "mean", "gain")

    def listen(self, audio: Tensor, lengths: Tensor) -> list[str | None]:
        """Return the caption of each clip, or None for each clip if there is no captioner."""
        if self.part is None:
            return [None] * len(audio)
        return self.part.caption(audio, lengths)

    def scores(self, clip: str | None, question: str, options: Sequence[str]) -> dict[str, list[float]]:
        """Return the log-probability of each option."""
        read = self._read(question, clip, options)
        scores = {"total": [value.total for value in read], "mean": [value.mean for value in read]}
        if clip is not None and self.way in ("", "gain"):
            without = self._read(question, None, options)
            pairs = zip(read, without, strict=True)
            scores["gain"] = [value.total - other.total for value, other in pairs]
        return scores

    def _read(self, question: str, caption: str | None, options: Sequence[str]) -> list[LogProbability]:
        return self.reader.read([prompt(question, caption)] * len(options), options)


def make_model(config: Config) -> Answerer:
    """Load the parts that a config names.

    Raises:
        BadRequest: The config names no part, or a part is not on this machine or of another kind.
    """
    if config.language_model:
        captioner = load_other_run(config.captioner, "captioner", "captioning") if config.captioner else None
        model: Answerer = LanguageAnswerer(captioner, config.language_model)
    else:
        model = RetrieverAnswerer(load_other_run(config.retriever, "retriever", "retrieval"))
    return model.to(default_device()).eval()


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Choose the way with the highest accuracy on the validation questions."""
    split: Any = dataset[VALIDATION]
    if split.content.is_blind:
        message = "must have answers, with which the way to answer is chosen; found none"
        raise BadRequest(f"{split.content.source}: {message}: add them")
    model = make_model(config)
    run.start()
    if not run.best.is_file():
        accuracies = measure_ways(model, split)
        rows = [{"way": way, "accuracy": accuracy} for way, accuracy in accuracies.items()]
        write_rows(run.folder / SEARCH, rows)
        best = max(accuracies, key=accuracies.__getitem__)
        state = {"state_dict": {}, "config": config.model_dump(mode="json"), "way": best, "part": ""}
        if model.other is not None:
            state["part"] = model.other.digest
        save_tensors(state, run.best)
        number = len(split.content.questions)
        print(f"{run.folder}: {best}: accuracy {accuracies[best]:.3f} on {number} validation questions")
    facts: dict[str, object] = {"metric_monitored": "validation accuracy"}
    if config.language_model:
        facts["word_modelling"] = metadata_name(config.language_model)
    if model.other is not None:
        facts = model.other.description(input_sampling_rate=sampling_rate(model.sample_rate), **facts)
    run.describe(load_model(run.best), facts)


@torch.inference_mode()
def measure_ways(model: Answerer, split: Any) -> dict[str, float]:
    """Return a dict from each way to its accuracy on a split of questions. The model must not have a way."""
    right = dict.fromkeys(model.ways, 0)
    for sounds, lengths, numbers in question_batches(split, model.sample_rate):
        clips = model.listen(sounds.to(model.device), lengths.to(model.device))
        for clip, number in zip(clips, numbers, strict=True):
            question = split.content.questions[number]
            for way, values in model.scores(clip, question.text, question.options).items():
                right[way] += question.options[int(np.argmax(values))] == question.answer
    return {way: count / len(split.content.questions) for way, count in right.items()}


def load_model(checkpoint: Path) -> Answerer:
    """Load the way from a checkpoint, and the parts that the config names.

    Raises:
        BadRequest: A part is not on this machine, or the retriever or captioner has changed.
    """
    state = read_checkpoint(checkpoint, config=dict, way=str, part=str)
    model = make_model(Config(**state["config"]))
    if model.other is not None:
        model.other.require_digest(state["part"], checkpoint)
    model.way = state["way"]
    return model
