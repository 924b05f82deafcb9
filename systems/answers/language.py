"""The log-probability that a language model gives to an option, after a caption of the clip and the question."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from evaluation.findings import BadRequest
from systems.guided_gpt2.generator import LanguageModel

ROWS = 16  # number of texts that the language model reads at once


class LogProbability(NamedTuple):
    """The log-probability of an option: the sum over its tokens, and the mean."""

    total: float
    mean: float


def prompt(question: str, caption: str | None) -> str:
    """Return the text before an option. If the caption is None, the question is asked without it."""
    asked = f"Question: {question}\nAnswer:"
    if caption is None:
        return asked
    return f"A recording contains this: {caption}\n{asked}"


class OptionReader(nn.Module):
    """A language model that reads options.

    Args:
        name: A language model, as `LanguageModel` accepts it.

    Raises:
        BadRequest: The model is not on this machine, or is of another kind.
    """

    def __init__(self, name: str):
        super().__init__()
        self.language = LanguageModel(name)

    @torch.inference_mode()
    def read(self, prompts: Sequence[str], options: Sequence[str]) -> list[LogProbability]:
        """Return the log-probability of each option after its prompt.

        Raises:
            BadRequest: A prompt with its option does not fit into the window of the language model.
        """
        rows = []
        for before, option in zip(prompts, options, strict=True):
            first = [self.language.start, *self.language.encode(before)]
            rows.append((first, self.language.encode(f" {option}")))
        read = []
        for start in range(0, len(rows), ROWS):
            read += self._read_batch(rows[start : start + ROWS])
        return read

    def _read_batch(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[LogProbability]:
        """Return the log-probability of each row, which consists of the tokens of a prompt and of an option."""
        longest = max(len(before) + len(option) for before, option in rows)
        if longest > self.language.window:
            message = f"a question with its caption and an option must fit into the window of {self.language.window}"
            raise BadRequest(f"{message} tokens; found {longest}: choose another language_model")
        head = self.language.head
        ids = torch.full((len(rows), longest), self.language.end, device=head.weight.device)
        for row, (before, option) in zip(ids, rows, strict=True):
            row[: len(before) + len(option)] = torch.tensor([*before, *option])
        states = self.language(ids)  # padding comes last, so it does not change the states of other tokens
        read = []
        for row, (before, option) in zip(states, rows, strict=True):
            predicting = row[len(before) - 1 : len(before) + len(option) - 1]  # a state predicts the next token
            scores = head(predicting).float().log_softmax(1)
            values = scores[torch.arange(len(option)), torch.tensor(option, device=scores.device)]
            read.append(LogProbability(float(values.sum()), float(values.mean())))
        return read
