"""Answers of a model to the questions of a split, and the windows that it finds for the queries of a split."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from evaluation.choice_formats import Answers, write_answers
from evaluation.data import audio
from evaluation.data.dataset import Clip, Split
from evaluation.data.recordings import BACKWARDS, EARLY, EMPTY, LATE, MomentQuery, time_faults
from evaluation.data.split_files import CHOICE
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics.moments import MOST_WINDOWS
from evaluation.moment_formats import Moments, write_moments
from evaluation.text import plural, quoted
from systems.asked import AskedSplit
from systems.contract import CLIPS_PER_BATCH, Answerer, MomentFinder, audio_batches

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-3  # seconds that a window may end after its recording, because times are rounded to milliseconds


def predict(model: "Answerer | MomentFinder", split: AskedSplit, folder: Path, *, device: "torch.device") -> str:
    """Answer the questions or find the moments of a split, and write `predictions/SPLIT.csv` or `.jsonl`.

    Args:
        model: A model that has the method that the kind of the split needs.
        split: The split.
        folder: The folder that `predictions/` is in.
        device: The device that the model is on.

    Returns:
        A text that names the file and gives the size of the prediction.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: The model gives unusable output.
    """
    stem = folder / "predictions" / split.name
    if split.kind == CHOICE:
        answers = answer_questions(model, split, device=device)  # type: ignore[arg-type]
        path = stem.with_suffix(".csv")
        write_answers(path, answers)
        return f"{path}: {plural(len(answers.ids), 'question')} about {plural(len(split.paths), 'clip')}"
    moments = find_moments(model, split)  # type: ignore[arg-type]
    path = stem.with_suffix(".jsonl")
    texts = {query.id: query.text for query in split.content.queries}
    recordings = {query.id: query.recording for query in split.content.queries}
    write_moments(path, moments, texts, recordings)
    windows = sum(map(len, moments.windows))
    recordings_text = plural(len(split.paths), "recording")
    return f"{path}: {len(moments.ids)} queries about {recordings_text}, {plural(windows, 'window')}"


def answer_questions(model: "Answerer", split: AskedSplit, *, device: "torch.device") -> Answers:
    """Answer the questions of a split.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: The model gives an answer that is not an option, or not one answer for each question.
    """
    import torch

    chosen: dict[str, str] = {}
    with torch.inference_mode():
        for sounds, lengths, numbers in question_batches(split, model.sample_rate):
            asked = [split.content.questions[number] for number in numbers]
            texts = [question.text for question in asked]
            options = [question.options for question in asked]
            answers = model.answer(sounds.to(device), lengths.to(device), texts, options)
            if len(answers) != len(asked):
                found = f"{len(answers)} answers to {len(asked)} questions"
                raise BadRequest(f"answer must give one answer to each question; found {found}: correct the model")
            for question, answer in zip(asked, answers, strict=True):
                if answer not in question.options:
                    message = f"an answer must be one of the options, verbatim; found {quoted(str(answer))}"
                    raise BadRequest(f"{message} for {question.id!r}: correct the model")
                chosen[question.id] = answer
    ids = tuple(split.content.by_id)
    return Answers(ids, tuple(chosen[name] for name in ids))


def question_batches(split: AskedSplit, sample_rate: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]":
    """Load the clips of questions in batches; each clip is loaded once.

    Yields:
        The audio for each question of a batch, (questions, samples); the number of samples of each clip, (questions,);
        and the indices of the questions in the split. A clip with several questions is repeated.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
    """
    numbers_of: dict[str, list[int]] = {name: [] for name in split.paths}
    for number, question in enumerate(split.content.questions):
        numbers_of[question.audio].append(number)
    clips = tuple(Clip(name, (), path) for name, path in split.paths.items())
    for indexes, sounds, lengths in audio_batches(Split(split.name, clips), sample_rate, "answering"):
        rows: list[int] = []
        numbers: list[int] = []
        for row, index in enumerate(indexes):
            of_clip = numbers_of[clips[index].file_name]
            rows += [row] * len(of_clip)
            numbers += of_clip
        for start in range(0, len(rows), CLIPS_PER_BATCH):
            part = rows[start : start + CLIPS_PER_BATCH]
            yield sounds[part], lengths[part], numbers[start : start + CLIPS_PER_BATCH]


def find_moments(model: "MomentFinder", split: AskedSplit) -> Moments:
    """Find the moments that answer the queries of a split. One recording at a time is in memory.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: The model gives windows that are not valid.
    """
    import torch

    found: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for queries, samples in load_recordings(split, model.sample_rate):
            windows = model.moments(samples, [query.text for query in queries])
            if len(windows) != len(queries):
                counts = f"{len(windows)} for {len(queries)} queries"
                raise BadRequest(f"moments must give windows for each query; found {counts}: correct the model")
            for query, of_query in zip(queries, windows, strict=True):
                found[query.id] = _checked(of_query, len(samples) / model.sample_rate, query.id)
            del samples  # so the next recording is loaded into the same memory
    in_order = [found[query.id] for query in split.content.queries]
    return Moments(
        tuple(split.content.by_id),
        tuple(windows[:, :2] for windows in in_order),
        tuple(windows[:, 2] for windows in in_order),
    )


def load_recordings(split: AskedSplit, sample_rate: int) -> "Iterator[tuple[list[MomentQuery], torch.Tensor]]":
    """Load the recordings of a split, one at a time.

    Yields:
        The queries about a recording, and its audio, (samples,).

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings. After the first such file, the others are
            still checked, but no more recordings are yielded.
    """
    import torch

    queries_of: dict[str, list[MomentQuery]] = {name: [] for name in split.paths}
    for query in split.content.queries:
        queries_of[query.recording].append(query)
    findings: list[Finding] = []
    for name, path in tqdm(split.paths.items(), "searching", unit="recording", leave=False, disable=None):
        try:
            samples = audio.load_audio(path, sample_rate)
        except audio.UnusableSound as reason:
            findings.append(Finding(str(path), message=str(reason)))
            continue
        if not findings:
            yield queries_of[name], torch.from_numpy(samples)
        del samples  # so the next recording is loaded into the same memory
    if findings:
        raise Faulty(findings)


def _checked(windows: "torch.Tensor", seconds: float, query: str) -> np.ndarray:
    """Return the windows of a query with times in milliseconds, (n, 3) float64.

    Raises:
        BadRequest: The windows are not valid.
    """
    values = windows.double().cpu().numpy()
    fault = windows_fault(values, seconds)
    if fault:
        raise BadRequest(f"moments must {fault} for the query {query!r}: correct the model")
    latest = math.floor(seconds * 1000) / 1000  # a time that is rounded up must not be after the end
    values[:, :2] = values[:, :2].round(3).clip(max=latest)
    return values


def windows_fault(windows: np.ndarray, seconds: float) -> str:
    """Return the rule that the windows of a query break, and what was found; "" if there is no such rule.

    Args:
        windows: (n, 3) start, end and score of each window, if the model is right.
        seconds: The length of the recording.
    """
    if windows.ndim != 2 or windows.shape[1] != 3 or not 1 <= len(windows) <= MOST_WINDOWS:
        return f"return (n, 3) values for each query, where n is 1 to {MOST_WINDOWS}; found {windows.shape}"
    if not np.isfinite(windows).all():
        return "return finite values; found NaN or infinity"
    rules = {
        f"return windows in the recording of {seconds:g} s": (EARLY, LATE),
        "return windows that end after their start": (BACKWARDS, EMPTY),
    }
    for must, broken in rules.items():
        for start, end in windows[:, :2].tolist():
            if not set(broken).isdisjoint(time_faults(start, end, seconds, ROUNDING)):
                return f"{must}; found [{start:g}, {end:g}]"
    if (np.diff(windows[:, 2]) > 0).any():
        return "return the window with the highest score first; found other orders"
    if len(np.unique(windows[:, :2], axis=0)) < len(windows):
        return "return different windows; found equal ones"
    return ""
