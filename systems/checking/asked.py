"""The check of models that answer questions about clips, or find moments in recordings, and the data for it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from evaluation.data.split_files import CHOICE, MOMENTS, STEMS
from evaluation.text import plural
from systems.answering import windows_fault
from systems.checking.material import RATE, SPLITS, TEXTS, USUAL, make_sounds
from systems.checking.report import Report

MODEL_NOUNS = {"answer": "answerer", "moments": "moment finder"}  # from a method of a model to a noun for the model
OPTIONS = ("a dog, barking", "  rain", "“wind” & 鳥")
TOLERANCE = 1e-4  # maximum difference of two equal times or scores, relative to the largest value
REPEATABLE = "draw nothing at random, or only from a generator with a fixed seed"


def make_asked_data(folder: Path, kind: str) -> None:
    """Write a data folder of questions or of queries about recordings, with unusual texts.

    Args:
        folder: The folder to write.
        kind: `CHOICE` or `MOMENTS`.
    """
    rng = np.random.default_rng(0)
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        lines: list[dict[str, object]] = []
        asked: dict[str, object]
        for number, seconds in enumerate((0.1, 1.07, 4.0)):
            name = f"check #{number} é"
            soundfile.write(folder / split / f"{name}.wav", rng.uniform(-0.2, 0.2, round(seconds * RATE)), RATE)
            text = TEXTS[number]
            if kind == CHOICE:
                asked = {"id": f"{number}", "audio_path": f"{split}/{name}.wav", "question_text": text}
                lines.append({**asked, "multi_choice": OPTIONS, "answer": OPTIONS[number]})
            else:
                window = [0.2 * seconds, 0.7 * seconds]
                asked = {"qid": f"{number}", "vid": name, "query": text, "duration": seconds}
                lines.append({**asked, "relevant_windows": [window]})
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{STEMS[kind]}_{split}.jsonl").write_text(text, encoding="utf-8")


class AskedProbe:
    """A model that answers questions or finds moments, which is checked.

    Args:
        model: The model, in evaluation mode.
        device: The device that the model is on.
        report: The report to which broken rules are added.
        method: `answer` or `moments`.

    Attributes:
        kind: The kind of the model, in words.
        answers: The model's output after `check` for the clip `USUAL`; empty if it cannot be used.
        captions: Empty; only captioners have captions.
    """

    def __init__(self, model: Any, device: torch.device, report: Report, method: str):
        self.model, self.device, self.report, self.method = model, device, report, method
        self.kind = MODEL_NOUNS[method]
        self.answers: dict[str, Any] = {}
        self.captions: set[str] = set()

    def check(self) -> None:
        """Check the outputs for clips of many lengths: alone, a second time, and together with others."""
        sounds = make_sounds(self.model.sample_rate)
        for label, sound in sounds.items():
            first = self.output(sound, label)
            if first is None:
                continue
            if label == USUAL:
                self.answers["sound"] = first
            self._compare(first, self.output(sound, label), "the second time", REPEATABLE, label)
            advice = "use `lengths`, and compute nothing over the batch, its clips or the other queries"
            together = "with zeros after its end, in a batch"
            if self.method == MOMENTS:
                together = "for a query among others"
            self._compare(first, self.output(sound, label, alone=False), together, advice, label)

    def agrees(self, model: Any) -> bool:
        """Return whether another model gives the same output as this model gave in `check` (`answers`)."""
        other = AskedProbe(model, self.device, Report(self.report.name), self.method)
        output = other.output(make_sounds(self.model.sample_rate)[USUAL], USUAL)
        return output is not None and _same(self.answers["sound"], output)

    def output(self, sound: torch.Tensor, label: str, *, alone: bool = True) -> Any | None:
        """Return the model's output for a clip and the first text; None if it cannot be used, which is reported.

        Args:
            sound: The audio, (samples,).
            label: The label of the clip, for findings.
            alone: Ask only about this clip (default), or also about a silent one that is 1 s longer; for `moments`, ask
                only the first query, or several ones.
        """
        with (
            self.report.catching(self.method, "accept clips of any length, also silence", label),
            torch.inference_mode(),
        ):
            if self.method == MOMENTS:
                return self._moments(sound, TEXTS[:1] if alone else TEXTS[:3], label)
            return self._answer(sound, label, 1 if alone else 2)
        return None

    def _answer(self, sound: torch.Tensor, label: str, clips: int) -> str | None:
        longest = len(sound) + (clips - 1) * self.model.sample_rate
        audio = torch.zeros(clips, longest)
        audio[0, : len(sound)] = sound
        lengths = torch.tensor([len(sound), longest][:clips])
        texts, options = list(TEXTS[:clips]), [OPTIONS] * clips
        answers = self.model.answer(audio.to(self.device), lengths.to(self.device), texts, options)
        if not isinstance(answers, list) or len(answers) != clips or any(answer not in OPTIONS for answer in answers):
            must = "return a list with one of the options, verbatim, for each question"
            self.report.add(self.method, must, repr(answers), "return the text of the chosen option", label)
            return None
        return str(answers[0])

    def _moments(self, sound: torch.Tensor, queries: Sequence[str], label: str) -> torch.Tensor | None:
        found = self.model.moments(sound, queries)
        if not isinstance(found, list) or len(found) != len(queries):
            must, advice = "return a list of windows for each query", f"return {plural(len(queries), 'tensor')}"
            self.report.add(self.method, must, type(found).__name__, advice, label)
            return None
        for windows in found:
            fault = windows_fault(windows.double().cpu().numpy(), len(sound) / self.model.sample_rate)
            if fault:
                must, _, wrong = fault.partition("; found ")
                self.report.add(self.method, must, wrong, "correct the windows", label)
                return None
        return found[0].double().cpu()

    def _compare(self, first: Any, other: Any | None, place: str, advice: str, label: str) -> None:
        """Report an output that differs from the first one."""
        if other is not None and not _same(first, other):
            self.report.add(self.method, f"give the same output {place}", "a different one", advice, label)


def _same(one: Any, other: Any) -> bool:
    """Return whether two outputs are the same except for rounding."""
    if isinstance(one, str):
        return bool(one == other)
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
