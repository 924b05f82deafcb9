"""A check of a data folder that reads every split, decodes every audio file and summarises the splits."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from evaluation import json_objects
from evaluation.data import audio, recordings
from evaluation.data.dataset import Split, survey
from evaluation.data.layouts import LAYOUTS, Layout, main_layout_of
from evaluation.data.split_files import CHOICE, MOMENTS, STEMS, split_files
from evaluation.findings import NOTE, WARNING, BadRequest, Faulty, Finding, counted, raise_errors
from evaluation.text import printable, quoted, table

SHORT = 0.005  # seconds; shorter clips get a note
SOUND_HEADERS = ("audio files", "h:mm:ss", "seconds", "Hz", "findings")
LOUD = 10.0  # a peak 20 dB above full scale; clips with a higher peak get a note


def check_dataset(path: Path) -> tuple[str, list[Finding]]:
    """Read every split and decode every audio file; return a table of the splits, and all findings.

    Args:
        path: A data folder: of clips with captions, of questions about clips, or of queries about recordings. Or a file
            of questions or queries.

    Raises:
        BadRequest: There is no such file or folder, or it does not contain a split.
    """
    if path.is_file():
        kind = _kind_of_truth_file(path)
        split = path.stem.removeprefix(f"{STEMS[kind]}_")  # the folder with this name has the recordings, if it exists
        return _check_asked(LAYOUTS[kind], {split: path})
    kind = main_layout_of(path)
    if kind:
        return _check_asked(LAYOUTS[kind], split_files(path, kind))
    if not any(path.glob("*.csv")) and any(path.rglob("*.json")):
        return _check_asked(LAYOUTS[CHOICE], {path.name: path})  # a folder as DCASE 2025 task 5 publishes it
    return _check_captions(path)


# Clips with captions --------------------------------------------------------------------------------------------------


def _check_captions(folder: Path) -> tuple[str, list[Finding]]:
    """Check a folder of clips with captions. If there are extra captions, a second table counts them by source."""
    dataset, findings = survey(folder, (), sound=True)
    clips = []
    for split in dataset.splits.values():
        for clip in split.clips:
            if clip.path.is_file():
                clips.append(_Item(split.name, f"{split.name}/{clip.file_name}", clip.path))
    sounds = _decode(clips, findings)
    rows = []
    for name, split in dataset.splits.items():
        captions = sum(len(clip.captions) for clip in split.clips)
        queries = len(split.truth) or len(split.blind_queries)
        rows.append([name, len(split.clips), captions, queries, *_cells(sounds.get(name, ()), findings[name])])
    headers = ["split", "clips", "captions", "queries", *SOUND_HEADERS]
    text = table(rows, headers, numbers=range(1, 8))
    extra = _extra_rows(dataset.splits.values())
    if extra:
        text += "\n\n" + table(extra, ["split", "source", "extra captions", "clips"], numbers=(2, 3))
    return text, sorted(chain.from_iterable(findings.values()))


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


# Questions and queries ------------------------------------------------------------------------------------------------


def _kind_of_truth_file(path: Path) -> str:
    """Return the key of `LAYOUTS` for a file of questions or queries.

    Raises:
        BadRequest: It is not such a file.
    """
    findings: list[Finding] = []
    entries = json_objects.parse_lines(json_objects.decode(path), str(path), recordings.EXAMPLE, findings)
    if not entries:
        raise_errors(findings)
    keys = {key for entry in entries for key in entry.content}
    if "multi_choice" in keys:
        return CHOICE
    if "qid" in keys or "relevant_windows" in keys:
        return MOMENTS
    message = "must be a data folder, or JSON lines of questions (with multi_choice) or of queries (with qid)"
    raise BadRequest(f"{path}: {message}; found the keys {', '.join(sorted(keys)) or 'of no object'}")


def _check_asked(layout: Layout, sources: Mapping[str, Path]) -> tuple[str, list[Finding]]:
    """Check splits of questions or queries.

    Args:
        layout: The layout of their folder.
        sources: A dict from the name of each split to its file or folder.
    """
    findings: dict[str, list[Finding]] = {}
    contents: dict[str, Any] = {}
    items: list[_Item] = []
    for split, source in sources.items():
        try:
            content, findings[split] = layout.survey(source)
        except Faulty as faulty:
            findings[split] = list(faulty.findings)
            continue
        contents[split] = content
        folder = source.parent / split
        if not folder.is_dir():
            folder = source.parent
        for name, path in layout.sounds(content, folder).items():
            if path:
                items.append(_Item(split, str(path), path, layout.seconds(content).get(name)))
            else:
                message = f"must have an audio file for {quoted(name)}; found none: add it, or remove its lines"
                findings[split].append(Finding(str(source), message=message))
    sounds = _decode(items, findings)
    rows = []
    for split in sources:
        counts: Sequence[object] = ["–"] * len(layout.counted)
        if split in contents:
            counts = layout.counts(contents[split])
        rows.append([split, *counts, *_cells(sounds.get(split, ()), findings[split])])
    headers = ["split", *layout.counted, *SOUND_HEADERS]
    return table(rows, headers, numbers=range(1, len(headers) - 1)), sorted(chain.from_iterable(findings.values()))


# Audio files ----------------------------------------------------------------------------------------------------------


class _Item(NamedTuple):
    """An audio file to decode.

    Attributes:
        split: The name of its split.
        name: Its name in findings.
        path: Its path.
        seconds: The length in seconds that the data state; None if they state none.
    """

    split: str
    name: str
    path: Path
    seconds: float | None = None


def _decode(items: Sequence[_Item], findings: Mapping[str, list[Finding]]) -> dict[str, list[audio.Sound]]:
    """Decode audio files, and add findings about them to those of their splits.

    Returns:
        A dict from splits to the facts about the files that can be used.
    """

    def facts(item: _Item) -> audio.Sound | audio.UnusableSound:
        try:
            return audio.sound_facts(item.path)
        except audio.UnusableSound as reason:
            return reason

    sounds: dict[str, list[audio.Sound]] = {}
    # Threads are enough, because libsndfile decodes without Python's global lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(facts, items), "decoding", len(items), unit="clip", leave=False, disable=None)
        for item, sound in zip(items, bar, strict=True):
            if isinstance(sound, audio.UnusableSound):
                findings[item.split].append(Finding(item.name, message=str(sound)))
                continue
            sounds.setdefault(item.split, []).append(sound)
            for message in _sound_notes(sound):
                findings[item.split].append(Finding(item.name, message=message, severity=NOTE))
            if item.seconds is not None and abs(sound.seconds - item.seconds) > recordings.SLACK:
                message = (
                    f"is {sound.seconds:.1f} s long, but its queries state {item.seconds:g} s; is it the right file?"
                )
                findings[item.split].append(Finding(item.name, message=message, severity=WARNING))
    return sounds


def _cells(sounds: Sequence[audio.Sound], findings: Sequence[Finding]) -> list[object]:
    """Return the cells of a split below `SOUND_HEADERS`."""
    total = span = rates = "–"
    if sounds:
        seconds = [sound.seconds for sound in sounds]
        total = _clock(sum(seconds))
        span = f"{min(seconds):.1f}–{max(seconds):.1f}"
        different_rates = sorted({sound.sample_rate for sound in sounds})
        rates = ", ".join(map(str, different_rates))
    return [len(sounds), total, span, rates, counted(findings) or "none"]


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
