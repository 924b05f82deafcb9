"""Generation of captions, word by word: greedy decoding, beam search and sampling.

A model is a `Step`: given sequences, it returns the logits of their next words. A step may use a key/value cache
(`decoder.CachedSteps`), compute everything again in each call, or combine several networks. `WordByWord` gives a
system's model the methods of a captioner.

Conventions
-----------
- Lengths are in words, and the end is not a word. A sequence of the maximum length is a caption even without an end.
- A log-probability is the sum over a caption's words and its end, with the model's probabilities. Words that the rules
  forbid are skipped, and the probabilities of the other words are not scaled up.
- Beam search ranks by log-probability / length ** penalty, where the end counts in the length. As in transformers with
  `early_stopping="never"`, it continues until no sequence can overtake the best caption. With enough beams it finds the
  best of all captions.
- A clip leaves the batch when its captions are complete.
- The captions of a clip have the order of log-probability / length ** penalty, both in beam search and in sampling.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Self

import torch
import xxhash
from pydantic import BaseModel, Field, model_validator
from torch import Tensor


class Step(Protocol):
    """A function that predicts the next word of sequences."""

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of each sequence's next word.

        Args:
            ids: (rows, length) int64, the sequences from the start on. The sequences of a clip are consecutive, and
                each clip has the same number.
            rows: (rows,) int64. In the first call, the clip of each row; in later calls, the row of the previous call
                that each row continues.

        Returns:
            (rows, words) logits, or log-probabilities.
        """


class Generated(NamedTuple):
    """A caption for each clip.

    Attributes:
        ids: (clips, L) int64, the indices of each caption's words, padded to the length L of the longest caption. The
            start is left out. The end is included if the caption reached it.
        log_probability: (clips,) float32, the natural logarithm of each caption's probability.
    """

    ids: Tensor
    log_probability: Tensor


@dataclass(frozen=True)
class Rules:
    """Rules that generated captions must follow.

    Attributes:
        start: Index of the start, with which every sequence begins.
        end: Index of the end.
        padding: Index that fills the positions after the end.
        banned: Indices of words that must not be generated.
        min_words: Minimum number of words in a caption.
        max_words: Maximum number of words in a caption.
        no_repeat: No sequence of this many words occurs twice in a caption; 0 allows repetition.
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
                f"min_words must be 0 to max_words, max_words 1 or more and no_repeat 0 or more; found {self}: change "
                "these values"
            )

    def allowed(self, log_probs: Tensor, ids: Tensor) -> Tensor:
        """Return the log-probabilities, with -inf for the words that the rules forbid.

        If the rules forbid all words, the end is allowed.

        Args:
            log_probs: (rows, words) log-probabilities of the next word.
            ids: (rows, length) int64, the sequences so far.

        Returns:
            (rows, words) log-probabilities.
        """
        forbidden = torch.zeros_like(log_probs, dtype=torch.bool)
        forbidden[:, list(self.banned)] = True
        if self.no_repeat and ids.shape[1] >= self.no_repeat:
            windows = ids.unfold(1, self.no_repeat, 1)  # (rows, windows, n)
            last_words = ids[:, ids.shape[1] - self.no_repeat + 1 :]  # (rows, n - 1)
            repeats = (windows[..., :-1] == last_words[:, None]).all(-1)  # (rows, windows)
            rows, positions = repeats.nonzero(as_tuple=True)
            forbidden[rows, windows[rows, positions, -1]] = True
        if ids.shape[1] <= self.min_words:
            forbidden[:, self.end] = True
        forbidden[:, self.end] &= ~forbidden.all(1)
        return log_probs.masked_fill(forbidden, -torch.inf)


class Decoding(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The decoding settings of a captioner's config."""

    decoding: Literal["beam", "greedy", "sample"] = "beam"
    candidates: int = Field(1, ge=1)  # captions per clip that beam search keeps or sampling draws; the best one is used
    beams: int = Field(4, ge=1)  # sequences per clip in beam search
    length_penalty: float = 1.0  # captions are ranked by log-probability / length ** length_penalty
    top_p: float = Field(0.9, gt=0, le=1)  # sampling draws from the smallest set with this total probability
    temperature: float = Field(1.0, gt=0)  # sampling divides the logits by it; below 1, probable words are drawn more
    sample_seed: int = 0  # seed of sampling, together with a clip's audio
    min_words: int = Field(1, ge=1)  # minimum number of words; captions must not be empty
    max_words: int = Field(30, ge=1)  # maximum number of words
    no_repeat: int = Field(0, ge=0)  # no sequence of this many words occurs twice; 0: repetition is allowed

    @model_validator(mode="after")
    def _lengths(self) -> "Decoding":
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must not exceed max_words, {self.max_words}; found {self.min_words}: lower it, or raise "
                "max_words"
            )
        return self

    @model_validator(mode="after")
    def _candidates(self) -> "Decoding":
        if self.decoding == "greedy" and self.candidates > 1:
            raise ValueError(
                f"candidates must be 1 for greedy decoding, which gives one caption; found {self.candidates}: set "
                "decoding=sample or decoding=beam"
            )
        return self

    @classmethod
    def of(cls, config: BaseModel, **settings: object) -> Self:
        """Return the decoding settings in a system's config.

        Args:
            config: The config. Some of its keys may be decoding settings.
            **settings: Settings for which the config has no key of the same name.
        """
        return cls(**config.model_dump(include=set(cls.model_fields)) | settings)


class WordByWord(ABC):
    """The methods of a captioner (`systems.contract.Captioner`) that generates captions word by word.

    A system's model inherits these methods. It defines `encode` and `decode`, and sets the attributes.

    Attributes:
        decoding: The decoding settings.
        rules: The rules for captions.
    """

    decoding: Decoding
    rules: Rules

    @abstractmethod
    def encode(self, audio: Tensor, lengths: Tensor) -> Step:
        """Encode (N, samples) audio with (N,) lengths, and return the function that predicts the next word."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Return the text of a caption's word indices."""

    def change_decoding(self, decoding: Decoding) -> None:
        """Generate captions with other decoding settings from now on."""
        self.decoding = decoding
        self.rules = replace(
            self.rules,
            min_words=decoding.min_words,
            max_words=decoding.max_words,
            no_repeat=decoding.no_repeat,
        )

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption audio.

        Args:
            audio: (N, samples) mono audio at the model's `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            The caption of each clip, and (N,) their log-probabilities.
        """
        step, seeds_of_clips = self.encode(audio, lengths), seeds(audio, lengths, self.decoding.sample_seed)
        generated = search(step, seeds_of_clips, self.rules, self.decoding, audio.device)
        return [self.decode(ids) for ids in generated.ids.tolist()], generated.log_probability

    def caption_alternatives(self, audio: Tensor, lengths: Tensor, number: int) -> list[list[tuple[str, float]]]:
        """Return several captions of each clip with their log-probabilities, best first.

        Args:
            audio: As for `caption_scored`.
            lengths: As for `caption_scored`.
            number: Maximum number of captions of a clip.
        """
        step, seeds_of_clips = self.encode(audio, lengths), seeds(audio, lengths, self.decoding.sample_seed)
        generated = search_alternatives(step, seeds_of_clips, self.rules, self.decoding, number, audio.device)
        return scored_captions(generated, self.decode)

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption audio as `caption_scored` does, and return the captions only."""
        return self.caption_scored(audio, lengths)[0]


def seeds(audio: Tensor, lengths: Tensor, seed: int) -> list[int]:
    """Return a seed for each clip that depends only on `seed` and on the clip's audio.

    Args:
        audio: (N, samples) mono audio.
        lengths: (N,) number of samples of each clip.
        seed: The config's seed.
    """
    clips = (samples[:length].cpu().numpy() for samples, length in zip(audio, lengths, strict=True))
    return [xxhash.xxh3_64_intdigest(samples.tobytes(), seed % 2**64) >> 1 for samples in clips]


def search(
    step: Step, seeds: Sequence[int], rules: Rules, how: Decoding, device: torch.device | str = "cpu"
) -> Generated:
    """Generate a caption for each clip with a config's decoding.

    Args:
        step: The model.
        seeds: A seed for each clip, used by sampling.
        rules: The rules for captions.
        how: The decoding settings.
        device: The device of the model.
    """
    return search_alternatives(step, seeds, rules, how, 1, device)[0]


def search_alternatives(
    step: Step,
    seeds: Sequence[int],
    rules: Rules,
    how: Decoding,
    number: int,
    device: torch.device | str = "cpu",
) -> list[Generated]:
    """Generate several captions for each clip with a config's decoding, as `beam_alternatives` returns them.

    Sampling draws `how.candidates` captions, and gives the best of them. Greedy decoding gives one caption.

    Args:
        step: As for `search`.
        seeds: As for `search`.
        rules: As for `search`.
        how: As for `search`.
        number: Maximum number of captions for each clip.
        device: As for `search`.
    """
    if how.decoding == "beam":
        return beam_alternatives(step, len(seeds), rules, number, how.beams, how.length_penalty, device)
    if how.decoding == "sample":
        generated = sample(step, seeds, rules, how.top_p, how.temperature, how.candidates, device)
        return ranked(generated, rules, how.candidates, how.length_penalty)[:number]
    return [greedy(step, len(seeds), rules, device)]


def scored_captions(
    generated: Sequence[Generated], decode: Callable[[list[int]], str]
) -> list[list[tuple[str, float]]]:
    """Return the captions of each clip with their log-probabilities, best first.

    Args:
        generated: The result of `beam_alternatives` or `search_alternatives`.
        decode: A function that returns the text of a caption's word indices.
    """
    captions: list[list[tuple[str, float]]] = [[] for _ in generated[0].ids]
    for ids, log_probabilities in generated:
        for clip, (row, value) in enumerate(zip(ids.tolist(), log_probabilities.tolist(), strict=True)):
            if math.isfinite(value):
                captions[clip].append((decode(row), value))
    return captions


@torch.no_grad()
def greedy(step: Step, clips: int, rules: Rules, device: torch.device | str = "cpu") -> Generated:
    """Generate captions by greedy decoding: choose the most probable word in each step."""
    return _generate(step, clips, 1, rules, device, lambda allowed, *_: allowed.argmax(1))


@torch.no_grad()
def sample(
    step: Step,
    seeds: Sequence[int],
    rules: Rules,
    top_p: float = 0.9,
    temperature: float = 1.0,
    number: int = 1,
    device: torch.device | str = "cpu",
) -> Generated:
    """Generate captions by nucleus sampling (Holtzman et al. 2020).

    Each word is drawn from the nucleus. This is the smallest set of words that together have a probability of at least
    `top_p`. Words that the rules forbid get a probability of 0, and the other probabilities add up to 1.

    Args:
        step: The model.
        seeds: A seed for each clip. A clip's captions depend only on its seed and the model. The first caption does not
            depend on `number`.
        rules: The rules for captions.
        top_p: Probability of the nucleus, from 0 (always the most probable word) to 1 (all allowed words).
        temperature: The logits are divided by it before a word is drawn. The log-probabilities in the result are those
            of the model, with the temperature 1.
        number: Number of captions for each clip. The same caption may be drawn several times.
        device: The device of the model.

    Returns:
        The captions, `number` consecutive ones for each clip, in the order in which they were drawn.
    """
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn += [torch.rand(rules.max_words, generator=generator) for _ in range(number)]
    numbers = torch.stack(drawn, dim=1).to(device)  # (words, captions)

    def draw(allowed: Tensor, position: int, captions: Tensor) -> Tensor:
        probabilities, words = (allowed / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
        before = probabilities.cumsum(1) - probabilities  # total probability of the more probable words
        is_most_probable = torch.arange(len(probabilities[0]), device=device) == 0
        nucleus = probabilities * ((before < top_p) | is_most_probable)
        cumulative = nucleus.cumsum(1)
        # Strictly less than the nucleus's total probability, so that the drawn word is in the nucleus.
        drawn = numbers[position, captions, None] * cumulative[:, -1:] * (1 - 1e-6)
        return words.gather(1, torch.searchsorted(cumulative, drawn, right=True)).squeeze(1)

    return _generate(step, len(seeds), number, rules, device, draw)


def ranked(generated: Generated, rules: Rules, number: int, length_penalty: float) -> list[Generated]:
    """Rank the captions of each clip by log-probability / length ** penalty.

    Args:
        generated: `number` consecutive captions for each clip.
        rules: The rules for captions.
        number: Number of captions for each clip.
        length_penalty: The penalty.

    Returns:
        `number` results. The first one has the best caption of each clip. Of equally good captions, the one that was
        drawn first is better.
    """
    lengths = (generated.ids != rules.padding).sum(1)
    ranks = (generated.log_probability / lengths**length_penalty).view(-1, number)
    order = ranks.sort(dim=1, descending=True, stable=True).indices  # (clips, number)
    ids = generated.ids.view(-1, number, generated.ids.shape[1])
    total = generated.log_probability.view(-1, number).gather(1, order)
    clips = torch.arange(len(order), device=order.device)
    return [_cropped(ids[clips, order[:, place]], total[:, place], rules) for place in range(number)]


def _generate(
    step: Step,
    clips: int,
    number: int,
    rules: Rules,
    device: torch.device | str,
    choose: Callable[[Tensor, int, Tensor], Tensor],
) -> Generated:
    """Generate captions without beams: keep each sequence, and add one chosen word to it at a time.

    A clip leaves the batch when all of its captions are complete, because a step needs the same number of sequences for
    each clip. Until then, further ends are added to its complete sequences. These ends do not count.

    Args:
        step: The model.
        clips: Number of clips.
        number: Number of captions for each clip.
        rules: The rules for captions.
        device: The device of the model.
        choose: A function that returns the next word of each row, (rows,). Its arguments are the log-probabilities from
            `Rules.allowed`, (rows, words); the position of the word in the caption; and the caption of each row,
            (rows,).
    """
    alive = torch.arange(clips * number, device=device)  # the captions of the clips that have not left the batch
    rows = alive // number
    ids = torch.full((len(alive), 1), rules.start, device=device)
    captions = torch.full((len(alive), rules.max_words), rules.padding, device=device)
    total = torch.zeros(len(alive), device=device)
    open_ = torch.ones(len(alive), dtype=torch.bool, device=device)  # the captions that are not complete
    for position in range(rules.max_words):
        log_probs = step(ids, rows).float().log_softmax(1)
        word = choose(rules.allowed(log_probs, ids), position, alive)
        is_open = open_[alive]
        word = torch.where(is_open, word, rules.end)
        captions[alive[is_open], position] = word[is_open]
        total[alive] += torch.where(is_open, log_probs.gather(1, word[:, None]).squeeze(1), 0)
        open_[alive] &= word != rules.end
        has_open = open_[alive].view(-1, number).any(1)  # (clips in the batch,)
        rows = has_open.repeat_interleave(number).nonzero().squeeze(1)
        if not len(rows):
            break
        alive, ids = alive[rows], torch.cat([ids[rows], word[rows, None]], dim=1)
    return _cropped(captions, total, rules)


@torch.no_grad()
def beam(
    step: Step,
    clips: int,
    rules: Rules,
    width: int = 4,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> Generated:
    """Generate captions by beam search: find the caption with the largest log-probability / length ** penalty.

    Args:
        step: The model.
        clips: Number of clips.
        rules: The rules for captions.
        width: Number of sequences to keep for each clip.
        length_penalty: 0 ranks by the sum of log-probabilities, 1 by their mean; larger values prefer long captions.
        device: The device of the model.
    """
    return beam_alternatives(step, clips, rules, 1, width, length_penalty, device)[0]


@torch.no_grad()
def beam_alternatives(
    step: Step,
    clips: int,
    rules: Rules,
    number: int,
    width: int = 4,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[Generated]:
    """Generate several captions for each clip by beam search.

    In each step, a continuation that ends is a complete caption if it is among the `width` best continuations. The
    `width` best continuations that do not end are kept. A clip's captions are complete when the last of its `number`
    best complete captions can no longer be overtaken by a kept sequence.

    Args:
        step: As for `beam`.
        clips: As for `beam`.
        rules: As for `beam`.
        number: Number of captions for each clip.
        width: As for `beam`.
        length_penalty: As for `beam`.
        device: As for `beam`.

    Returns:
        `number` results. The first one has the best caption of each clip, as `beam` returns it, the second one the next
        best captions, and so on. If a clip has fewer captions, the log-probabilities of the missing ones are -inf.
    """
    alive = rows = torch.arange(clips, device=device)  # the clips whose captions are not complete
    ids = torch.full((clips, 1), rules.start, device=device)
    scores = torch.zeros(clips, 1, device=device)  # log-probabilities of the kept sequences, best first
    # The `number` best complete captions of each clip, best first.
    captions = torch.full((clips, number, rules.max_words), rules.padding, device=device)
    total = torch.full((clips, number), -torch.inf, device=device)  # log-probabilities
    best = torch.full((clips, number), -torch.inf, device=device)  # total / length ** penalty
    for length in range(1, rules.max_words + 1):
        log_probs = rules.allowed(step(ids, rows).float().log_softmax(1), ids)
        words, beams = log_probs.shape[1], scores.shape[1]
        continued = (scores[:, :, None] + log_probs.view(-1, beams, words)).flatten(1)  # (alive, beams * words)
        # At most half of the 2 x width best continuations end, so at least `width` of them can be kept.
        top, index = continued.topk(min(2 * width, beams * words))
        ends = index % words == rules.end

        complete = (ends | (length == rules.max_words))[:, :width]
        value, choice = top[:, :width].masked_fill(~complete, -torch.inf).topk(min(number, complete.shape[1]))
        rank = value / length**length_penalty
        better = (rank[:, 0] > best[alive, -1]).nonzero().squeeze(1)
        if len(better):
            winners = alive[better]
            chosen = index[better].gather(1, choice[better])  # (better, new)
            new = torch.full((*chosen.shape, rules.max_words), rules.padding, device=device)
            sequences = ids.view(-1, beams, length)[better, :, 1:]  # (better, beams, length - 1)
            parents = (chosen // words)[..., None].expand(-1, -1, length - 1)
            new[..., : length - 1] = sequences.gather(1, parents)
            new[..., length - 1] = chosen % words
            # Among equal ranks, the earlier caption stays first, because the sort is stable.
            ranks, order = torch.cat([best[winners], rank[better]], 1).sort(dim=1, descending=True, stable=True)
            order = order[:, :number]
            best[winners] = ranks[:, :number]
            total[winners] = torch.cat([total[winners], value[better]], 1).gather(1, order)
            places = order[..., None].expand(-1, -1, rules.max_words)
            captions[winners] = torch.cat([captions[winners], new], 1).gather(1, places)
        if length == rules.max_words:
            break

        scores, choice = top.masked_fill(ends, -torch.inf).topk(min(width, beams * (words - 1)))
        index = index.gather(1, choice)  # (alive, beams)
        # Log-probabilities only fall, so a sequence's highest possible rank is at the length with the largest divisor.
        best_length = length + 1
        if length_penalty > 0:
            best_length = rules.max_words
        bound = scores[:, 0] / best_length**length_penalty
        unfinished = (bound > best[alive, -1]).nonzero().squeeze(1)
        if not len(unfinished):
            break
        rows = (unfinished[:, None] * beams + index[unfinished] // words).flatten()
        ids = torch.cat([ids[rows], (index[unfinished] % words).view(-1, 1)], dim=1)
        alive, scores = alive[unfinished], scores[unfinished]
    return [_cropped(captions[:, place], total[:, place], rules) for place in range(number)]


def _cropped(ids: Tensor, log_probability: Tensor, rules: Rules) -> Generated:
    """Return the captions without columns that hold only padding."""
    longest = 0
    if len(ids):
        longest = int((ids != rules.padding).sum(1).max())
    return Generated(ids[:, :longest], log_probability)
