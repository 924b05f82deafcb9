"""How a caption is made of a model's word after word: greedily, by beam search, by sampling.

A model is a `Step`: given sequences, it returns the logits of their next words. Whether it keeps what it computed
before (`decoder.CachedSteps`), begins anew each time, or asks several networks, is its own affair.

Conventions
-----------
- Lengths are in words; the end is no word. What reaches the maximum is a caption as it stands, with or without an end.
- A log-probability is the sum over a caption's words and its end, as the model has them: what the rules forbid is
  passed over, and the rest is not scaled up for it.
- Beam search ranks by log-probability / length ** penalty, the end counted. Like transformers' with
  `early_stopping="never"` it goes on until no sequence can overtake the best: with beams enough it finds that of all.
- A clip that is done leaves the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import xxhash
from pydantic import BaseModel, Field, model_validator
from torch import Tensor


class Step(Protocol):
    """A model's next word."""

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Give the logits of each sequence's next word.

        Args:
            ids: (rows, length) int64, the sequences from the start on. Those of one clip stand together, and each clip
                has as many.
            rows: (rows,) int64, which row of the last call each goes on from; in the first call, which clip it is of.

        Returns:
            (rows, words) logits, or log-probabilities.
        """


class Generated(NamedTuple):
    """A caption for each clip.

    Attributes:
        ids: (clips, longest) int64, without the start, with the end where it was reached, padded.
        log_probability: (clips,) float32, natural logarithm.
    """

    ids: Tensor
    log_probability: Tensor


@dataclass(frozen=True)
class Rules:
    """What a caption may be.

    Attributes:
        start: Number of the start, with which every sequence begins.
        end: Number of the end.
        padding: Number that fills what is behind the end.
        banned: Words that are never said.
        min_words: Without the end before so many words.
        max_words: At most so many words.
        no_repeat: So many words in a row never stand twice; 0: whatever repeats.
    """

    start: int
    end: int
    padding: int
    banned: tuple[int, ...] = ()
    min_words: int = 0
    max_words: int = 30
    no_repeat: int = 0

    def __post_init__(self):
        if not 0 <= self.min_words <= self.max_words or not self.max_words or self.no_repeat < 0:
            raise ValueError(
                f"min_words must be 0 to max_words, max_words 1 or more and no_repeat 0 or more; found {self}"
            )

    def allowed(self, log_probs: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities (rows, words) behind sequences (rows, length), -inf where the rules forbid a word.

        Where they leave none, the end is allowed.
        """
        forbidden = torch.zeros_like(log_probs, dtype=torch.bool)
        forbidden[:, list(self.banned)] = True
        if self.no_repeat and ids.shape[1] >= self.no_repeat:
            windows = ids.unfold(1, self.no_repeat, 1)  # (rows, windows, n)
            begun = ids[:, ids.shape[1] - self.no_repeat + 1 :]  # (rows, n - 1)
            repeats = (windows[..., :-1] == begun[:, None]).all(-1)  # (rows, windows)
            rows, places = repeats.nonzero(as_tuple=True)
            forbidden[rows, windows[rows, places, -1]] = True
        if ids.shape[1] <= self.min_words:
            forbidden[:, self.end] = True
        forbidden[:, self.end] &= ~forbidden.all(1)
        return log_probs.masked_fill(forbidden, -torch.inf)


class Decoding(BaseModel, extra="forbid", frozen=True):
    """How a captioner's config says it."""

    decoding: Literal["beam", "greedy", "sample"] = "beam"
    beams: int = Field(4, ge=1)
    length_penalty: float = 1.0  # of beams: log-probability / length ** penalty ranks
    top_p: float = Field(0.9, gt=0, le=1)  # of the nucleus that is sampled from
    sample_seed: int = 0  # what is drawn follows from it and a clip's samples
    min_words: int = Field(1, ge=1)  # a caption is not empty
    max_words: int = Field(30, ge=1)
    no_repeat: int = Field(0, ge=0)  # so many words in a row never stand twice in a caption; 0: whatever repeats

    @model_validator(mode="after")
    def _lengths(self) -> "Decoding":
        if self.min_words > self.max_words:
            raise ValueError(f"min_words must not exceed max_words, {self.max_words}; found {self.min_words}")
        return self


def seeds(audio: Tensor, lengths: Tensor, seed: int) -> list[int]:
    """A seed for each of (N, samples) sounds of (N,) lengths that follows from its samples, whatever else is there."""
    sounds = (sound[:length].cpu().numpy() for sound, length in zip(audio, lengths, strict=True))
    return [xxhash.xxh3_64_intdigest(sound.tobytes(), seed % 2**64) >> 1 for sound in sounds]


def search(
    step: Step, seeds: Sequence[int], rules: Rules, how: Decoding, device: torch.device | str = "cpu"
) -> Generated:
    """Say of each clip what a config asks for: greedily, by beam search, or by sampling from its seed."""
    if how.decoding == "beam":
        return beam(step, len(seeds), rules, how.beams, how.length_penalty, device)
    if how.decoding == "sample":
        return sample(step, seeds, rules, how.top_p, device)
    return greedy(step, len(seeds), rules, device)


@torch.no_grad()
def greedy(step: Step, clips: int, rules: Rules, device: torch.device | str = "cpu") -> Generated:
    """Say the most probable word each time."""
    return _walk(step, clips, rules, device, lambda allowed, *_: allowed.argmax(1))


@torch.no_grad()
def sample(
    step: Step, seeds: Sequence[int], rules: Rules, top_p: float = 0.9, device: torch.device | str = "cpu"
) -> Generated:
    """Draw each word from the nucleus, the fewest words that together are `top_p` probable (Holtzman et al. 2020).

    Args:
        step: The model.
        seeds: Of each clip; what is drawn for it follows from this and the model.
        rules: What a caption may be.
        top_p: From 0 (the most probable word) to 1 (any word).
        device: Where the model computes.
    """
    drawn = [torch.rand(rules.max_words, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    numbers = torch.stack(drawn, dim=1).to(device)

    def draw(allowed: Tensor, place: int, alive: Tensor) -> Tensor:
        probable, words = allowed.softmax(1).sort(dim=1, descending=True, stable=True)
        before = probable.cumsum(1) - probable
        nucleus = probable * ((before < top_p) | (torch.arange(len(probable[0]), device=device) == 0))
        mass = nucleus.cumsum(1)
        # Strictly less than the whole mass, so that the word found is one of the nucleus.
        drawn = numbers[place, alive, None] * mass[:, -1:] * (1 - 1e-6)
        return words.gather(1, torch.searchsorted(mass, drawn, right=True)).squeeze(1)

    return _walk(step, len(seeds), rules, device, draw)


def _walk(
    step: Step, clips: int, rules: Rules, device: torch.device | str, choose: Callable[[Tensor, int, Tensor], Tensor]
) -> Generated:
    """One sequence a clip. `choose` takes (rows, words) log-probabilities, the place and the rows' clips."""
    alive = rows = torch.arange(clips, device=device)
    ids = torch.full((clips, 1), rules.start, device=device)
    found = torch.full((clips, rules.max_words), rules.padding, device=device)
    total = torch.zeros(clips, device=device)
    for place in range(rules.max_words):
        log_probs = step(ids, rows).float().log_softmax(1)
        word = choose(rules.allowed(log_probs, ids), place, alive)
        found[alive, place] = word
        total[alive] += log_probs.gather(1, word[:, None]).squeeze(1)
        rows = (word != rules.end).nonzero().squeeze(1)
        if not len(rows):
            break
        alive, ids = alive[rows], torch.cat([ids[rows], word[rows, None]], dim=1)
    return _cropped(found, total, rules)


@torch.no_grad()
def beam(
    step: Step,
    clips: int,
    rules: Rules,
    width: int = 4,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> Generated:
    """Search for the caption of the largest log-probability / length ** penalty.

    In each step the `width` best continuations are looked at: those that end are captions, and the `width` best that
    do not end go on. A clip is done when no sequence that goes on can overtake its best caption.

    Args:
        step: The model.
        clips: How many.
        rules: What a caption may be.
        width: How many sequences a clip has.
        length_penalty: 0: the sum counts; 1: its mean; above, long captions are preferred.
        device: Where the model computes.
    """
    alive = rows = torch.arange(clips, device=device)
    ids = torch.full((clips, 1), rules.start, device=device)
    scores = torch.zeros(clips, 1, device=device)  # of sequences that go on, best first
    found = torch.full((clips, rules.max_words), rules.padding, device=device)
    total = torch.full((clips,), -torch.inf, device=device)
    best = torch.full((clips,), -torch.inf, device=device)  # total / length ** penalty
    for length in range(1, rules.max_words + 1):
        log_probs = rules.allowed(step(ids, rows).float().log_softmax(1), ids)
        words, beams = log_probs.shape[1], scores.shape[1]
        continued = (scores[:, :, None] + log_probs.view(-1, beams, words)).flatten(1)  # (alive, beams * words)
        top, index = continued.topk(min(2 * width, beams * words))  # at most half of them end
        ends = index % words == rules.end

        captions = top[:, :width].masked_fill(~(ends | (length == rules.max_words))[:, :width], -torch.inf)
        value, place = captions.max(1)
        better = (value / length**length_penalty > best[alive]).nonzero().squeeze(1)
        winners, chosen = alive[better], index[better, place[better]]
        total[winners] = value[better]
        best[winners] = value[better] / length**length_penalty
        found[winners, : length - 1] = ids.view(-1, beams, length)[better, chosen // words, 1:]
        found[winners, length - 1] = chosen % words
        if length == rules.max_words:
            break

        scores, place = top.masked_fill(ends, -torch.inf).topk(min(width, beams * (words - 1)))
        index = index.gather(1, place)  # (alive, beams)
        # Probabilities only shrink, so that a sequence is worth the most at the length that divides most.
        bound = scores[:, 0] / (rules.max_words if length_penalty > 0 else length + 1) ** length_penalty
        going = (bound > best[alive]).nonzero().squeeze(1)
        if not len(going):
            break
        rows = (going[:, None] * beams + index[going] // words).flatten()
        ids = torch.cat([ids[rows], (index[going] % words).view(-1, 1)], dim=1)
        alive, scores = alive[going], scores[going]
    return _cropped(found, total, rules)


def _cropped(ids: Tensor, log_probability: Tensor, rules: Rules) -> Generated:
    longest = int((ids != rules.padding).sum(1).max()) if len(ids) else 0
    return Generated(ids[:, :longest], log_probability)
