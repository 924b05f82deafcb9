"""The check of a model's outputs.

The model gets clips and texts of many kinds, alone and in batches, and clips also with padding. Its outputs must be
valid, and the output for a clip or a text must always be the same.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from evaluation.text import cut
from systems.checking.material import SAME_LENGTH, TEXTS, USUAL, make_sounds
from systems.checking.report import Report

RETRIEVER, CAPTIONER = "retriever", "captioner"
# Maximum difference of two equal outputs, relative to the largest value. Rounding causes smaller differences. Other
# clips in the batch or padding, if a model depends on them, cause larger ones.
TOLERANCE = 1e-4
SHOWN_TEXT, SHOWN_CAPTION = 20, 40  # maximum number of characters of a text and of a caption in a message

Embedding: TypeAlias = torch.Tensor  # (size,)
ScoredCaption: TypeAlias = tuple[str, float | None]  # a caption and its log-probability (None if the model gives none)
Answer: TypeAlias = Embedding | ScoredCaption


class ModelProbe:
    """A model that is checked.

    Args:
        model: The model, in evaluation mode.
        device: The device that the model is on.
        report: The report to which broken rules are added.
        kind: `retriever` or `captioner` (default: `captioner` if the model can caption, `retriever` if it can only
            embed; if it can do neither, that is reported, and the attribute `kind` is empty).

    Attributes:
        answers: The model's outputs after `check`: `sound` for the clip `USUAL` and, for a retriever, `text` for the
            first text. An output that cannot be used is missing.
        captions: All different captions that the model gave.
    """

    def __init__(self, model: Any, device: torch.device, report: Report, kind: str = ""):
        self.model, self.device, self.report = model, device, report
        self.answers: dict[str, Answer] = {}
        self.captions: set[str] = set()
        self.kind = kind or self._find_kind()
        self._size: int | None = None  # number of values of the first embedding
        self._log_probabilities: set[float | None] = set()

    def _find_kind(self) -> str:
        """Return the kind of the model. If the model cannot be probed, report that and return an empty text."""
        methods = ("embed_audio", "embed_text", "caption")
        present = [name for name in methods if callable(getattr(self.model, name, None))]
        if "caption" not in present and len(present) < 2:
            must = "return a retriever, with embed_audio and embed_text, or a captioner, with caption"
            found = "none of these methods"
            if present:
                found = f"only {present[0]}"
            self.report.add("load_model", must, found, "write the missing methods")
            return ""
        sample_rate = getattr(self.model, "sample_rate", None)
        if type(sample_rate) is not int or sample_rate <= 0:
            advice = "set it to the rate in Hz of the audio that the model accepts, such as `sample_rate = 44100`"
            self.report.add("sample_rate", "be a whole number above 0", repr(sample_rate), advice)
            return ""
        if "caption" in present:
            return CAPTIONER
        return RETRIEVER

    def check(self) -> None:
        """Check the outputs for all clips and, for a retriever, for all texts."""
        self._check_sounds()
        if self.kind == RETRIEVER:
            self._check_texts()

    def agrees(self, model: Any) -> bool:
        """Return whether another model gives the same outputs as this model gave in `check` (`answers`)."""
        other = ModelProbe(model, self.device, Report(self.report.name))
        for name, answer in self.answers.items():
            if name == "sound":
                sound = make_sounds(self.model.sample_rate)[USUAL]
                others = other.answer_sounds([sound], "", "")
            else:
                others = other.answer_texts(TEXTS[:1], "", "")
            if not others or not self._same(answer, others[0]):
                return False
        return True

    # Clips -----------------------------------------------------------------------------------------------------------

    def _check_sounds(self) -> None:
        sounds = make_sounds(self.model.sample_rate)
        alone: dict[str, Answer] = {}
        for label, sound in sounds.items():
            answers = self.answer_sounds([sound], "accept clips of any length, also silence", label)
            if answers:
                alone[label] = answers[0]
        if USUAL not in alone or not self._is_repeatable(sounds[USUAL], alone[USUAL]):
            return
        self.answers["sound"] = alone[USUAL]
        labels = [label for label in sounds if label in alone][:5]
        batches = [[label for label in (USUAL, SAME_LENGTH) if label in alone]]
        # If padding alone changes an output, a batch of clips with different lengths shows nothing new.
        if self._ignores_padding(sounds, alone, labels[:-1]):
            batches += [labels[:2], labels]
        for batch in batches:
            self._check_batch_of_sounds(sounds, alone, batch)

    def _is_repeatable(self, sound: torch.Tensor, answer: Answer) -> bool:
        """Check that a clip has the same output the second time, and return whether it does.

        Args:
            sound: The audio of the clip, (samples,).
            answer: The first output.
        """
        again = self.answer_sounds([sound], "accept the same clip twice", USUAL)
        if again and self._same(again[0], answer):
            return True
        advice = "draw nothing at random, or only from a generator with a fixed seed"
        must = "give the same output for the same clip"
        self.report.add(self._audio_method, must, "a different output the second time", advice, USUAL)
        return False

    def _ignores_padding(
        self, sounds: dict[str, torch.Tensor], alone: dict[str, Answer], labels: Sequence[str]
    ) -> bool:
        """Check that zeros after the end of a clip do not change its output, and return whether this holds.

        Args:
            sounds: A dict from a label to the audio of a clip, (samples,).
            alone: A dict from a label to the output for the clip alone.
            labels: The labels of the clips to check.
        """
        ignores_padding = True
        for label in labels:
            must = "accept clips with zeros after their ends"
            padded = self.answer_sounds([sounds[label]], must, label, zeros=self.model.sample_rate)
            if padded and not self._same(padded[0], alone[label]):
                ignores_padding = False
                must = "give a clip the same output with zeros after its end"
                found = _difference(padded[0], alone[label])
                advice = "use `lengths`: exclude the samples after a clip's end from convolutions, norms and means"
                self.report.add(self._audio_method, must, found, advice, f"{label} and 1 s of zeros")
        return ignores_padding

    def _check_batch_of_sounds(
        self, sounds: dict[str, torch.Tensor], alone: dict[str, Answer], labels: Sequence[str]
    ) -> None:
        """Check that clips have the same outputs in a batch as alone.

        Args:
            sounds: A dict from a label to the audio of a clip, (samples,).
            alone: A dict from a label to the output for the clip alone.
            labels: The labels of the clips in the batch.
        """
        place = f"a batch of {len(labels)}"
        answers = self.answer_sounds([sounds[label] for label in labels], "accept batches of 1, 2 and 5 clips", place)
        if not answers:
            return
        for label, answer in zip(labels, answers, strict=False):
            if not self._same(answer, alone[label]):
                must = "give a clip the same output in a batch as alone"
                found = _difference(answer, alone[label])
                advice = "compute nothing over the batch: no norm, mean or maximum over its clips"
                self.report.add(self._audio_method, must, found, advice, f"{label} in {place}")

    @property
    def _audio_method(self) -> str:
        """The name of the model's method for clips."""
        if self.kind == RETRIEVER:
            return "embed_audio"
        if hasattr(self.model, "caption_scored"):
            return "caption_scored"
        return "caption"

    def answer_sounds(
        self, sounds: Sequence[torch.Tensor], must: str, place: str, zeros: int = 0
    ) -> list[Answer] | None:
        """Return the model's outputs for clips, and report what is wrong with them.

        Args:
            sounds: The audio of each clip, (samples,).
            must: The rule that is broken if the model raises an exception.
            place: A description of the clips, for findings.
            zeros: Number of zeros to add after the end of the longest clip.

        Returns:
            An output for each clip; None if there are no clips or the outputs cannot be used.
        """
        if not sounds:
            return None
        lengths = torch.tensor([len(sound) for sound in sounds])
        padded = torch.zeros(len(sounds), int(lengths.max()) + zeros)
        for row, sound in enumerate(sounds):
            padded[row, : len(sound)] = sound
        method = getattr(self.model, self._audio_method)
        with self.report.catching(self._audio_method, must, place), torch.inference_mode():
            answer = method(padded.to(self.device), lengths.to(self.device))
            if self.kind == RETRIEVER:
                return self._embeddings("embed_audio", answer, len(sounds), place)
            return self._captions(answer, len(sounds), place)
        return None

    # Texts -----------------------------------------------------------------------------------------------------------

    def _check_texts(self) -> None:
        alone: dict[str, Answer] = {}
        for text in (*TEXTS, ""):
            answers = self.answer_texts([text], "accept any text", _quoted(text))
            if answers:
                alone[text] = answers[0]
        if TEXTS[0] in alone:
            self.answers["text"] = alone[TEXTS[0]]
        sizes = {min(size, len(alone)) for size in (2, 5, len(alone))}
        for size in sorted(sizes - {0}):
            self._check_batch_of_texts(alone, list(alone)[:size])

    def _check_batch_of_texts(self, alone: dict[str, Answer], texts: Sequence[str]) -> None:
        """Check that texts have the same embeddings in a batch as alone.

        Args:
            alone: A dict from a text to its embedding alone.
            texts: The texts in the batch.
        """
        batch = f"a batch of {len(texts)}"
        answers = self.answer_texts(texts, "accept batches of several texts", batch)
        if not answers:
            return
        for text, answer in zip(texts, answers, strict=False):
            if not self._same(answer, alone[text]):
                must = "give a text the same embedding in a batch as alone"
                found = _difference(answer, alone[text])
                advice = "compute nothing over the batch, and mask the padding of shorter texts"
                self.report.add("embed_text", must, found, advice, f"{_quoted(text)} in {batch}")

    def answer_texts(self, texts: Sequence[str], must: str, place: str) -> list[Answer] | None:
        """Return the model's embeddings of texts, and report what is wrong with them.

        Args:
            texts: The texts.
            must: The rule that is broken if the model raises an exception.
            place: A description of the texts, for findings.

        Returns:
            An embedding for each text; None if the embeddings cannot be used.
        """
        with self.report.catching("embed_text", must, place), torch.inference_mode():
            return self._embeddings("embed_text", self.model.embed_text(tuple(texts)), len(texts), place)
        return None

    # Outputs ---------------------------------------------------------------------------------------------------------

    def _same(self, answer: Answer, other: Answer) -> bool:
        """Return whether two outputs are the same except for rounding."""
        if isinstance(answer, torch.Tensor):
            return isinstance(other, torch.Tensor) and _same_embedding(answer, other)
        (caption, log_probability), (other_caption, other_log_probability) = answer, other
        if caption == other_caption:
            return True
        # If two captions have the same probability, rounding decides which of them the model returns. This does not
        # excuse a model that gives every caption the same value, because then the value is not a probability.
        if log_probability is None or other_log_probability is None or len(self._log_probabilities) == 1:
            return False
        return abs(log_probability - other_log_probability) <= TOLERANCE * abs(log_probability)

    def _embeddings(self, method: str, answer: object, count: int, place: str) -> list[Embedding] | None:
        """Check the embeddings that a method returned, and report what is wrong with them.

        Args:
            method: `embed_audio` or `embed_text`.
            answer: The object that the method returned.
            count: The number of clips or texts that the method was given.
            place: A description of the clips or texts, for findings.

        Returns:
            An embedding for each clip or text; None if the embeddings cannot be used.
        """
        items = "texts"
        if method == "embed_audio":
            items = "clips"
        if not isinstance(answer, torch.Tensor):
            self.report.add(method, "return a torch.Tensor", type(answer).__name__, "convert it", place)
            return None
        if answer.ndim != 2 or len(answer) != count or not answer.shape[1]:
            must, advice = f"return a tensor of ({items}, size)", f"return a row of values for each of the {items}"
            self.report.add(method, must, f"{tuple(answer.shape)}", advice, place)
            return None
        size = answer.shape[1]
        if self._size is not None and size != self._size:
            must = "return embeddings of the same size for all clips and texts"
            advice = "give all embeddings the same size"
            self.report.add(method, must, f"{size} values after {self._size} values", advice, place)
            return None
        self._size = size
        if answer.dtype != torch.float32:
            self.report.add(method, "return float32", f"{answer.dtype}", "end with .float()", place)
        if answer.device.type != self.device.type:
            must = f"return values on the model's device, {self.device}"
            advice = "keep weights and outputs on the device that the model was moved to"
            self.report.add(method, must, f"{answer.device}", advice, place)
        if answer.requires_grad:
            must = "return values without gradients in inference mode"
            self.report.add(method, must, "requires_grad", "leave out enable_grad and inference_mode(False)", place)
        if not answer.isfinite().all():
            found = "infinity"
            if answer.isnan().any():
                found = "NaN"
            advice = "look for a logarithm of 0, or a division by a length, norm or standard deviation of 0"
            self.report.add(method, "return finite values", found, advice, place)
            return None
        return list(answer.detach().float().cpu())

    def _captions(self, answer: object, count: int, place: str) -> list[ScoredCaption] | None:
        """Check the captions that the model returned, and their log-probabilities if it returned them.

        Args:
            answer: The object that the model returned.
            count: The number of clips that the model was given.
            place: A description of the clips, for findings.

        Returns:
            A caption with its log-probability for each clip; None if the output cannot be used.
        """
        method = self._audio_method
        log_probabilities: list[float | None] = [None] * count
        if method == "caption_scored":
            if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], torch.Tensor)):
                must = "return captions and a tensor of (clips,)"
                self.report.add(method, must, type(answer).__name__, "return captions, log_probabilities", place)
                return None
            answer, values = answer
            if values.shape != (count,) or not values.isfinite().all():
                must = "return a finite log-probability for each clip"
                self.report.add(method, must, f"{values.tolist()}", "return (clips,) values", place)
                return None
            log_probabilities = values.tolist()
            self._log_probabilities.update(log_probabilities)
        must = "return a list of one caption for each clip"
        if not isinstance(answer, list):
            self.report.add(method, must, type(answer).__name__, "return a list", place)
            return None
        if len(answer) != count:
            self.report.add(method, must, f"{len(answer)}", "return exactly one caption for each clip", place)
            return None
        for text in answer:
            if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                must = "return captions of one line that are not empty"
                self.report.add(method, must, repr(text), "write at least one word, and join lines", place)
                return None
        self.captions.update(answer)
        return list(zip(answer, log_probabilities, strict=True))


def _same_embedding(embedding: Embedding, other: Embedding) -> bool:
    """Return whether two embeddings are the same except for rounding."""
    if embedding.shape != other.shape:
        return False
    difference = (embedding - other).abs().max()
    return bool(difference <= TOLERANCE * embedding.abs().max())


def _difference(answer: Answer, other: Answer) -> str:
    """Return a text that describes how two outputs differ."""
    if isinstance(answer, torch.Tensor) and isinstance(other, torch.Tensor):
        difference = float((answer - other).abs().max() / other.abs().max())
        return f"a difference of {difference:.2g} times the largest value"
    return f"{cut(answer[0], SHOWN_CAPTION)!r} and not {cut(other[0], SHOWN_CAPTION)!r}"


def _quoted(text: str) -> str:
    """Return a text in quotes, shortened."""
    return repr(cut(text, SHOWN_TEXT))
