"""Self-critical training (Rennie et al. 2017): sample captions, score them, and make good ones more probable.

This is a second stage of training, after cross-entropy. For each clip, captions are sampled from the model. A caption's
reward r is its metric against the clip's references. The loss of a caption is

    -(r - b) log p(caption),

where the baseline b is the reward of the greedy caption (as in the paper), or the mean reward of the clip's other
samples. Both have the same expected gradient, that of the expected reward (REINFORCE, Williams 1992).

Conventions
-----------
- The loss is the mean over all captions. log p is the sum over a caption's words and its end.
- p is the distribution that the captions are sampled from: words that the rules forbid have a probability of 0, and the
  other probabilities add up to 1. So the gradient is exact if sampling and training use the same logits. The part of
  the model that reads the words must therefore be in evaluation mode, without dropout.
- The end of a caption counts as a word in the reward, as in the paper. If it did not, captions that end too early, such
  as "a dog barks and a", would get high rewards.
- CIDEr-D's weights of n-grams are computed from the captions of the development split.
- The random numbers of a clip depend only on the seed, the epoch and the clip. So a resumed training samples the same
  captions. Two processes together sample the same captions as one process with a batch of twice the size.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import xxhash
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from evaluation.data.dataset import Split
from evaluation.metrics.word_overlap import CiderDReferences, rouge_l
from systems.parts.checkpoints import SystemModule
from systems.parts.generation import Generated, Rules, Step, greedy, sample
from systems.parts.vocabulary import words_with_hyphens

END = "<end>"  # the end of a caption in the reward; texts have no such word, because brackets are punctuation


class SelfCriticalSettings(BaseModel, extra="forbid", frozen=True):
    """The settings of a captioner's config for self-critical training."""

    loss: Literal["cross_entropy", "self_critical"] = "cross_entropy"
    init_from: str | None = None  # run folder whose weights the training starts from
    reward: Literal["CIDEr-D", "ROUGE-L"] = "CIDEr-D"  # the metric that self-critical training maximises
    samples: int = Field(5, ge=1)  # number of captions that self-critical training samples for each clip
    reward_baseline: Literal["mean", "greedy"] = "mean"  # mean of other samples, or that of greedy decoding

    @model_validator(mode="after")
    def _stage(self) -> "SelfCriticalSettings":
        if self.loss != "self_critical":
            return self
        if self.init_from is None:
            raise ValueError(
                "init_from must be given with loss=self_critical, because the captions of an untrained model have no "
                "reward; found none: give the folder of a run that was trained with cross_entropy"
            )
        if self.reward_baseline == "mean" and self.samples == 1:
            raise ValueError(
                "samples must be 2 or more with reward_baseline=mean; found 1: set samples=5 or reward_baseline=greedy"
            )
        if getattr(self, "monitor", None) == "loss":
            raise ValueError(
                "monitor must be CIDEr-D with loss=self_critical, because the cross-entropy rises while captions "
                "improve; found loss: set monitor=CIDEr-D"
            )
        return self

    @property
    def loss_name(self) -> str:
        """The name of the loss in a submission's metadata."""
        if self.loss == "self_critical":
            return f"self-critical ({self.reward})"
        return "cross-entropy"


class Rewards:
    """The metric that is the reward, with the references of the clips.

    Args:
        split: The development split.
        metric: `CIDEr-D` or `ROUGE-L`.
    """

    def __init__(self, split: Split, metric: str):
        self.metric = metric
        self.row_of = {name: row for row, name in enumerate(split.file_names)}
        self.references = []
        for clip in split.clips:
            self.references.append([" ".join([*words_with_hyphens(caption), END]) for caption in clip.captions])
        self.cider_d = CiderDReferences(self.references)

    def of(self, captions: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return the rewards of captions, (captions,).

        Args:
            captions: Captions. Their last word is `END` if they are complete.
            names: The file name of each caption's clip.
        """
        rows = [self.row_of[name] for name in names]
        if self.metric == "CIDEr-D":
            return self.cider_d.scores(captions, rows)
        return rouge_l(captions, [self.references[row] for row in rows])


class Result(NamedTuple):
    """The result of a training step.

    Attributes:
        loss: The loss.
        reward: The mean reward of the samples.
    """

    loss: Tensor
    reward: float


class SelfCritical:
    """The loss of self-critical training.

    Args:
        settings: The settings.
        rewards: The rewards.
        rules: The rules for captions.
        decode: A function that returns the text of a caption's word indices, without its end.
        seed: The run's seed.
    """

    def __init__(
        self,
        settings: SelfCriticalSettings,
        rewards: Rewards,
        rules: Rules,
        decode: Callable[[list[int]], str],
        seed: int,
    ):
        self.settings, self.rewards, self.rules, self.decode, self.seed = settings, rewards, rules, decode, seed

    def step(
        self,
        steps: Callable[[], Step],
        logits: Callable[[Tensor], Tensor],
        names: Sequence[str],
        epoch: int,
        device: torch.device | str = "cpu",
    ) -> Result:
        """Sample captions of clips, and compute the loss.

        Args:
            steps: A function that returns the model's `Step` for these clips. It is called for the samples, and again
                for the greedy captions if their rewards are the baseline.
            logits: A function that maps word indices to the logits of the next words, (rows, L) to (rows, L, words).
                There are `samples` consecutive rows for each clip. They begin with the start, and the end fills the
                positions after the last word. The logits must be those of `steps`, with gradients.
            names: The file name of each clip.
            epoch: The number of the epoch.
            device: The device of the model.
        """
        number = self.settings.samples
        seeds = [self._seed(name, epoch) for name in names]
        with torch.no_grad():
            sampled = sample(steps(), seeds, self.rules, top_p=1, number=number, device=device)
            reward = self._rewards(sampled, np.repeat(names, number).tolist()).reshape(-1, number)  # (clips, samples)
            if self.settings.reward_baseline == "greedy":
                baseline = self._rewards(greedy(steps(), len(names), self.rules, device), names)[:, None]
            else:
                baseline = (reward.sum(1, keepdims=True) - reward) / (number - 1)
        advantage = torch.as_tensor((reward - baseline).flatten(), dtype=torch.float32, device=device)
        log_probability = log_probabilities(logits, sampled.ids, self.rules)
        return Result(-(advantage * log_probability).mean(), float(reward.mean()))

    def _seed(self, name: str, epoch: int) -> int:
        """Return the seed of a clip's samples in an epoch."""
        return xxhash.xxh3_64_intdigest(repr((self.seed, epoch, name)).encode()) >> 1

    def _rewards(self, generated: Generated, names: Sequence[str]) -> np.ndarray:
        """Return the reward of each generated caption, (captions,)."""
        captions = []
        for ids in generated.ids.tolist():
            words = words_with_hyphens(self.decode(ids))
            if self.rules.end in ids:
                words.append(END)
            captions.append(" ".join(words))
        return self.rewards.of(captions, names)


class CaptionerModule(SystemModule):
    """The base class of a captioner's training, which may be self-critical.

    Args:
        model: The model. Its method `steps(memory, lengths)` returns its `Step`.
        validation: The validation split.
        critical: The loss of self-critical training, or None for cross-entropy.
    """

    def __init__(self, model: nn.Module, validation: Split, critical: SelfCritical | None = None):
        super().__init__(model)
        self.split, self.critical = validation, critical

    def self_critical_loss(
        self,
        critical: SelfCritical,
        logits: Callable[[Tensor], Tensor],
        memory: Tensor,
        lengths: Tensor,
        names: Sequence[str],
    ) -> Tensor:
        """Return the loss of self-critical training for the clips of a batch, and log the reward.

        Args:
            critical: The loss.
            logits: As for `SelfCritical.step`.
            memory: (N, T, size) encoded clips.
            lengths: (N,) number of vectors of each clip.
            names: The file name of each clip.
        """
        self.model.decoder.eval()
        result = critical.step(
            lambda: self.model.steps(memory, lengths), logits, names, self.current_epoch, memory.device
        )
        self.log("reward", result.reward, on_epoch=True, batch_size=len(names), sync_dist=True)
        return result.loss


def log_probabilities(logits: Callable[[Tensor], Tensor], ids: Tensor, rules: Rules) -> Tensor:
    """Return the log-probability of captions, with gradients.

    Args:
        logits: As for `SelfCritical.step`.
        ids: (captions, L) int64, the words and the end of each caption, padded.
        rules: The rules. Words that they forbid have a probability of 0.

    Returns:
        (captions,) the sum over the words and the end of each caption.
    """
    counts = ids != rules.padding
    words = ids.masked_fill(~counts, rules.end)
    start = torch.full_like(words[:, :1], rules.start)
    previous = torch.cat([start, words[:, :-1]], dim=1)  # the word before each word
    of_all = logits(previous).float()
    total = torch.zeros(len(ids), device=ids.device)
    for position in range(ids.shape[1]):
        allowed = rules.allowed(of_all[:, position].log_softmax(1), previous[:, : position + 1]).log_softmax(1)
        # Padding adds 0. A word of a caption is always allowed, but the end that replaces padding may not be.
        chosen = allowed.gather(1, words[:, position, None]).squeeze(1)
        total = total + chosen.where(counts[:, position], torch.zeros_like(chosen))
    return total
