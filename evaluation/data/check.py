"""A check of a data folder that reads every split, decodes every audio file and summarises the splits."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from evaluation.data import audio
from evaluation.data.dataset import Clip, Split, survey
from evaluation.findings import NOTE, Finding, counted
from evaluation.text import printable, table

SHORT = 0.005  # seconds; shorter clips get a note
LOUD = 10.0  # a peak 20 dB above full scale; clips with a higher peak get a note


def check_dataset(folder: Path) -> tuple[str, list[Finding]]:
    """Read every split and decode every audio file; return a table of the splits, and all findings.

    If there are extra captions, a second table counts them by source.

    Raises:
        BadRequest: There is no such folder, or it does not contain a split.
    """
    dataset, findings = survey(folder, (), sound=True)
    clips = []
    for split in dataset.splits.values():
        clips += [(split.name, clip) for clip in split.clips if clip.path.is_file()]
    sounds: dict[str, list[audio.Sound]] = {name: [] for name in dataset.splits}

    def decode(item: tuple[str, Clip]) -> audio.Sound | audio.UnusableSound:
        _, clip = item
        try:
            return audio.sound_facts(clip.path)
        except audio.UnusableSound as reason:
            return reason

    # Threads are enough, because libsndfile decodes without Python's global lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(decode, clips), "decoding", len(clips), unit="clip", leave=False, disable=None)
        for (name, clip), sound in zip(clips, bar, strict=True):
            file = f"{name}/{clip.file_name}"
            if isinstance(sound, audio.UnusableSound):
                findings[name].append(Finding(file, message=str(sound)))
                continue
            sounds[name].append(sound)
            for message in _sound_notes(sound):
                findings[name].append(Finding(file, message=message, severity=NOTE))

    rows = []
    for name, split in dataset.splits.items():
        rows.append(_row(split, sounds[name], findings[name]))
    headers = ["split", "clips", "captions", "queries", "audio files", "h:mm:ss", "seconds", "Hz", "findings"]
    text = table(rows, headers, numbers=range(1, 8))
    extra = _extra_rows(dataset.splits.values())
    if extra:
        text += "\n\n" + table(extra, ["split", "source", "extra captions", "clips"], numbers=(2, 3))
    return text, sorted(chain.from_iterable(findings.values()))


def _row(split: Split, sounds: Sequence[audio.Sound], findings: Sequence[Finding]) -> list[object]:
    """Return the row of a split in the table of `check_dataset`."""
    total = span = rates = "–"
    if sounds:
        seconds = [sound.seconds for sound in sounds]
        total = _clock(sum(seconds))
        span = f"{min(seconds):.1f}–{max(seconds):.1f}"
        different_rates = sorted({sound.sample_rate for sound in sounds})
        rates = ", ".join(map(str, different_rates))
    captions = sum(len(clip.captions) for clip in split.clips)
    queries = len(split.truth) or len(split.blind_queries)
    return [
        split.name,
        len(split.clips),
        captions,
        queries,
        len(sounds),
        total,
        span,
        rates,
        counted(findings) or "none",
    ]


def _extra_rows(splits: Iterable[Split]) -> list[list[object]]:
    """Return the rows of the table of extra captions: the number of captions and of clips of each source."""
    rows: list[list[object]] = []
    for split in splits:
        clips_of_source: dict[str, list[str]] = {}  # a clip is listed once for each of its captions
        for clip in split.clips:
            for extra in clip.extra:
                clips_of_source.setdefault(extra.source, []).append(clip.file_name)
        for source, clips in sorted(clips_of_source.items()):
            rows.append([split.name, printable(source), len(clips), len(set(clips))])
    return rows


def _sound_notes(sound: audio.Sound) -> list[str]:
    """Return notes about unusual properties of an audio file that can be used."""
    notes = []
    if sound.channels > 1:
        notes.append(f"has {sound.channels} channels; the kit averages them to one")
    if sound.seconds < SHORT:
        notes.append(f"is only {sound.seconds * 1000:.3g} ms long ({sound.frames} samples); is it the whole clip?")
    if sound.peak == 0:
        notes.append("is silent: every sample is 0; is it the right file?")
    if sound.peak > LOUD:
        notes.append(
            f"has samples up to {sound.peak:.4g}, but full scale is 1; integers that were written as floats must be "
            "divided by their full scale"
        )
    return notes


def _clock(seconds: float) -> str:
    minutes, remaining_seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{remaining_seconds:02}"
