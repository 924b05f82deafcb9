"""Data sets in Clotho's layout, read strictly.

Layout
------
A data folder holds, for each split, `captions_SPLIT.csv` (or `clotho_captions_SPLIT.csv`) with the header
`file_name,caption_1,…,caption_N` and the sound of every row in `SPLIT/` (wav, flac, ogg or mp3). Optional beside them:

- `relevance_SPLIT.csv`, header `query,audio_filenames`, the second column a Python list of names: which clips answer a
  query, in the form of DCASE 2025 task 6. A third column, `grades`, may say how well: a list of as many numbers, where
  0 is not at all. Where it exists, it is the truth of the split.
- `metadata_SPLIT.csv` (or `clotho_metadata_SPLIT.csv`): anything about a clip, by `file_name`. Clotho's are Latin-1,
  and the one of its test set is separated by semicolons; both are accepted here and nowhere else.

The splits are development, validation and evaluation, and the blind sets test, analysis and retrieval. A blind set may
be a folder of sound alone; the retrieval set has its queries in `retrieval_captions.csv`, header `caption`.

AudioCaps is read as published, too: `train.csv`, `val.csv` and `test.csv` are the first three splits, with a row for
each caption, header `audiocap_id,youtube_id,start_time,caption`, and the sound in `train/`, `val/` and `test/`. It is
named YOUTUBEID_START, YYOUTUBEID, YOUTUBEID or AUDIOCAPID, which may be that of any of the clip's rows: the file's own
name is the clip's. The header decides: a file of that name with none of AudioCaps' columns is not read, and a warning
says so. In AudioCaps 2.0 some captions are broken over two rows; they are joined, and a note counts them. Videos have
gone since: clips without sound are left out, and a warning counts them.

Conventions
-----------
- **Names are verbatim.** A clip is known by (split, file name); nothing is stripped, unescaped or lower-cased. Of
  Clotho's 5929 names three start with a space, 203 hold commas, 307 have dots in the stem, four stand in two splits.
- **A query's truth is a set.** A caption that several clips share is one query, and all of them answer it.
- **All findings at once**, each with file, line and column. Reading raises `Faulty` when one of them is an error.

The straight line from a folder to a query's truth:

>>> dataset = read_dataset(Path("data/soundscapes"))                      # doctest: +SKIP
>>> dataset["evaluation"].truth["A dog barks and rain falls."]    # doctest: +SKIP
frozenset({'soundscape_0007.wav'})
"""

import ast
import codecs
import hashlib
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import soundfile
from tqdm import tqdm

from evaluation.data import audio, tables
from evaluation.findings import (
    ERROR,
    NOTE,
    WARNING,
    BadRequest,
    Faulty,
    Finding,
    printable,
    table,
    unknown_key,
)
from evaluation.names import NEARLY_ALL, closest, explain, hint

DEVELOPMENT, VALIDATION, EVALUATION = "development", "validation", "evaluation"
BLIND = ("test", "analysis", "retrieval")
AUDIOCAPS = {DEVELOPMENT: "train", VALIDATION: "val", EVALUATION: "test"}  # files and folders of each split
AUDIOCAPS_HEADER = ["audiocap_id", "youtube_id", "start_time", "caption"]
AUDIOCAPS_OWN = frozenset(AUDIOCAPS_HEADER[:3])  # columns that no other layout has
SPLITS = (DEVELOPMENT, VALIDATION, EVALUATION, *BLIND)
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SHORT = 0.005  # seconds; a clip of fewer samples is noted
LOUD = 10.0  # a peak of 20 dB above full scale is noted

Relevance = Mapping[str, frozenset[str] | Mapping[str, float]]  # query to names, or to names with grades above 0


@dataclass(frozen=True)
class Clip:
    """One sound with its captions.

    Attributes:
        file_name: The name, verbatim.
        captions: The captions, verbatim; empty in a blind set.
        path: Where the sound lies.
        metadata: The clip's row of the metadata file, by column; empty where there is none.
    """

    file_name: str
    captions: tuple[str, ...]
    path: Path
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False, hash=False)


@dataclass(frozen=True)
class Split:
    """One split of a data set, in the order of its file.

    Attributes:
        name: One of `SPLITS`.
        clips: The clips.
        relevance: Query to the names that answer it, with their grades if there are grades, from `relevance_SPLIT.csv`;
            None where there is no such file.
        blind_queries: Queries whose answers are not known.
        source: The file, or of a blind set the folder, that names the clips; None for a split that was not read from a
            data folder.
    """

    name: str
    clips: tuple[Clip, ...]
    relevance: Relevance | None = None
    blind_queries: tuple[str, ...] = ()
    source: Path | None = field(default=None, repr=False, compare=False)

    @cached_property
    def file_names(self) -> tuple[str, ...]:
        """The names of all clips."""
        return tuple(clip.file_name for clip in self.clips)

    @cached_property
    def captions(self) -> Mapping[str, frozenset[str]]:
        """Every distinct caption, in order of first appearance, with the names of all clips that have it."""
        owners: dict[str, set[str]] = {}
        for clip in self.clips:
            for caption in clip.captions:
                owners.setdefault(caption, set()).add(clip.file_name)
        return MappingProxyType({caption: frozenset(names) for caption, names in owners.items()})

    @cached_property
    def truth(self) -> Relevance:
        """Query to the names that answer it: the relevance file where there is one, else the captions."""
        return self.captions if self.relevance is None else self.relevance

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """Every text that a retriever is asked: captions, queries of the relevance file, blind queries; distinct."""
        return tuple(dict.fromkeys([*self.captions, *(self.relevance or ()), *self.blind_queries]))

    @cached_property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with any name, caption or relevance."""
        relevance = self.relevance and sorted(
            (query, sorted(names.items() if isinstance(names, Mapping) else names))
            for query, names in self.relevance.items()
        )
        content = repr(([(clip.file_name, clip.captions) for clip in self.clips], relevance, self.blind_queries))
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @cached_property
    def digest(self) -> str | None:
        """The fingerprint, changed with the size of any sound too; None where a sound is not there."""
        try:
            sizes = [clip.path.stat().st_size for clip in self.clips]
        except OSError:
            return None
        return hashlib.sha256(repr((self.fingerprint, sizes)).encode()).hexdigest()[:8]

    @cached_property
    def seconds(self) -> float | None:
        """How long all sounds are together, by their headers; None where a sound is not there."""
        try:
            return sum(soundfile.info(clip.path).duration for clip in self.clips)
        except (OSError, soundfile.SoundFileError):
            return None


@dataclass(frozen=True)
class Dataset:
    """The splits of a data folder, and what was noticed on reading them that is no error."""

    folder: Path
    splits: Mapping[str, Split]
    findings: tuple[Finding, ...] = ()

    def __getitem__(self, name: str) -> Split:
        """Return a split by name, or raise BadRequest naming those that are there."""
        if name not in self.splits:
            raise BadRequest(f"{self.folder}: {unknown_key(name, list(self.splits), 'split')}")
        return self.splits[name]


def read_dataset(folder: Path, *splits: str, sound: bool = True) -> Dataset:
    """Read a data folder strictly.

    Args:
        folder: The data folder.
        splits: Which splits to read; all that are there by default.
        sound: Whether every clip must have its file in `SPLIT/` and every file its row. The sound is not decoded:
            `check_dataset` does that.

    Raises:
        BadRequest: There is no such folder, or no such split in it.
        Faulty: The data do not hold; with every finding, its file with the folder.
    """
    dataset, findings = _survey(folder, splits, sound)
    everything = [finding for part in findings.values() for finding in part]
    if any(finding.severity == ERROR for finding in everything):
        raise Faulty(replace(finding, file=f"{folder}/{finding.file}") for finding in everything)
    return dataset


def check_dataset(folder: Path) -> tuple[str, list[Finding]]:
    """Read every split, decode every sound, and return a table of what is there and all findings.

    Raises:
        BadRequest: There is no such folder, or no split in it.
    """
    dataset, findings = _survey(folder, (), sound=True)
    clips = [(split.name, clip) for split in dataset.splits.values() for clip in split.clips if clip.path.is_file()]
    heard: dict[str, list[audio.Sound]] = {name: [] for name in dataset.splits}

    def listen(item: tuple[str, Clip]) -> audio.Sound | audio.UnusableSound:
        try:
            return audio.facts(item[1].path)
        except audio.UnusableSound as reason:
            return reason

    # libsndfile decodes outside Python's lock: threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(listen, clips), "decoding", len(clips), unit="clip", leave=False, disable=None)
        for (split, clip), sound in zip(clips, bar, strict=True):
            file = f"{split}/{clip.file_name}"
            if isinstance(sound, audio.UnusableSound):
                findings[split].append(Finding(file, message=str(sound)))
                continue
            heard[split].append(sound)
            for message in _sound_notes(sound):
                findings[split].append(Finding(file, message=message, severity=NOTE))

    rows = []
    for name, split in dataset.splits.items():
        seconds = [sound.seconds for sound in heard[name]]
        lengths = (_clock(sum(seconds)), f"{min(seconds):.1f}–{max(seconds):.1f}") if seconds else ("–", "–")
        rates = ", ".join(str(rate) for rate in sorted({sound.sample_rate for sound in heard[name]})) or "–"
        counts = Counter(finding.severity for finding in findings[name])
        found = (
            ", ".join(
                f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in (ERROR, WARNING, NOTE) if counts[kind]
            )
            or "none"
        )
        captions = sum(len(clip.captions) for clip in split.clips)
        row = [name, len(split.clips), captions, len(split.queries), len(seconds), *lengths, rates, found]
        rows.append(row)
    headers = ["split", "clips", "captions", "queries", "sounds", "h:mm:ss", "seconds", "Hz", "findings"]
    everything = sorted(finding for part in findings.values() for finding in part)
    return table(rows, headers, numbers=range(1, 8)), everything


def _sound_notes(sound: audio.Sound) -> list[str]:
    """Return what is unusual about a sound that can be read."""
    notes = []
    if sound.channels > 1:
        notes.append(f"has {sound.channels} channels; they are averaged to one wherever the kit reads it")
    if sound.seconds < SHORT:
        notes.append(f"is only {sound.seconds * 1000:.3g} ms long ({sound.frames} samples); is it the whole clip?")
    if sound.peak == 0:
        notes.append("is silent: every sample is 0; is it the right file?")
    if sound.peak > LOUD:
        notes.append(
            f"has samples up to {sound.peak:.4g} where full scale is 1; integers that were written as floats must be "
            "divided by their full scale"
        )
    return notes


def read_relevance(path: Path, file_names: Iterable[str], file: str = "") -> Relevance:
    """Read a relevance file: header `query,audio_filenames`, the second column a Python list of clip names.

    With a third column, `grades`, each query's clips are a mapping to their grades; clips of grade 0 are left out.

    Args:
        path: The file.
        file_names: The clips that may be named.
        file: The file's name in findings; its path by default.

    Raises:
        Faulty: The file does not hold; with every finding.
    """
    findings: list[Finding] = []
    relevance = _relevance(path, file or str(path), frozenset(file_names), findings)
    if findings:
        raise Faulty(findings)
    return relevance


def of_another_split(split: Split, given: Collection[str], noun: str) -> str:
    """Say which other split of the same data folder a prediction is of, and what to do.

    Args:
        split: The split that was to be answered.
        given: The queries or the names of clips that were given instead.
        noun: What they are: "queries" or "names".

    Returns:
        The end of a message; "" where they are of this split, or where no other split has nearly all of them.
    """
    enough = NEARLY_ALL * len(given)
    own = set(split.queries if noun == "queries" else split.file_names)
    if not given or sum(text not in own for text in given) < enough:
        return ""
    for name in SPLITS:
        if split.source is None or name == split.name:
            continue
        try:
            other = read_dataset(split.source.parent, name, sound=False)[name]
        except (BadRequest, Faulty, OSError):  # it is absent or does not hold, which is not the question here
            continue
        there = set(other.queries if noun == "queries" else other.file_names)
        if sum(text in there for text in given) >= enough:
            return f"these {noun} are of the split {name}; give the prediction of {split.name}, or give --split {name}"
    return ""


# Reading -------------------------------------------------------------------------------------------------------------


def _survey(folder: Path, names: tuple[str, ...], sound: bool) -> tuple[Dataset, dict[str, list[Finding]]]:
    """Read the named splits, all that are there by default, and collect findings by split; those of none under ""."""
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give a folder in Clotho's layout (captions_SPLIT.csv, SPLIT/)")
    for name in names:
        if name not in SPLITS:
            raise BadRequest(unknown_key(name, SPLITS, "split"))
    # AudioCaps' `test` is not blind.
    published = {path.stem for name in AUDIOCAPS for path in _caption_files(folder, name)}
    blind = [name for name in BLIND if (folder / name).is_dir() and name not in published]
    there = [name for name in SPLITS if _caption_files(folder, name) or name in blind]
    unread = _not_audiocaps(folder)
    remark = "".join(f"; {finding.file} {finding.message}" for finding in unread)
    if not there:
        splits = ", ".join(SPLITS)
        raise BadRequest(f"{folder}: no captions_SPLIT.csv in this folder, where SPLIT is one of {splits}{remark}")
    missing = [name for name in names if name not in there]
    if missing:
        found = ", ".join(there)
        raise BadRequest(f"{folder}: no captions_{missing[0]}.csv; the splits in this folder: {found}{remark}")

    findings: dict[str, list[Finding]] = {"": unread, **{name: [] for name in names or there}}
    for path in folder.glob("*.csv"):
        stem = re.fullmatch(r"(?:clotho_)?(?:captions|relevance|metadata)_(.*)", path.stem)
        if stem and stem[1] not in SPLITS:
            message = f"is not read: {unknown_key(stem[1], SPLITS, 'split')}"
            findings[""].append(Finding(path.name, message=message, severity=WARNING))
    for name in SPLITS:
        if sound and not names and name not in {*there, *published} and (folder / name).is_dir():
            message = f"there is no captions_{name}.csv; add one or take the folder away"
            findings[""].append(Finding(f"{name}/", message=message))
    splits = {name: _split(folder, name, sound, findings[name]) for name in names or there}
    quiet = sorted(finding for part in findings.values() for finding in part if finding.severity != ERROR)
    return Dataset(folder, MappingProxyType(splits), tuple(quiet)), findings


def _caption_files(folder: Path, split: str) -> list[Path]:
    names = [f"captions_{split}.csv", f"clotho_captions_{split}.csv"]
    if split in BLIND:
        names.append(f"{split}_captions.csv")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found and split in AUDIOCAPS:
        published = folder / f"{AUDIOCAPS[split]}.csv"
        if published.is_file() and _is_audiocaps(published):
            found = [published]
    return found


def _is_audiocaps(path: Path) -> bool:
    """Tell from its first line whether a file is AudioCaps'; a header that is nearly right counts, too."""
    with path.open("rb") as file:
        header = file.readline(1000).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    return not AUDIOCAPS_OWN.isdisjoint(re.split(r"[^a-z_]+", header))


def _not_audiocaps(folder: Path) -> list[Finding]:
    """Warn of files that are named as AudioCaps' are, and are not."""
    message = (
        f"is not read: its header is not that of AudioCaps, {','.join(AUDIOCAPS_HEADER)}; "
        "name a file in Clotho's layout captions_SPLIT.csv"
    )
    paths = [folder / f"{stem}.csv" for stem in AUDIOCAPS.values()]
    return [
        Finding(path.name, 1, message=message, severity=WARNING)
        for path in paths
        if path.is_file() and not _is_audiocaps(path)
    ]


@dataclass
class _Rows:
    """What a caption file says.

    Attributes:
        clips: Line and captions by name.
        refused: Names that cannot be kept, without their path.
        whole: Whether that is all; if not, nobody can say that a name is missing.
    """

    clips: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    whole: bool = True

    @property
    def names(self) -> frozenset[str] | None:
        """Every name, refused ones too; None where not all are known."""
        return frozenset(self.clips.keys() | self.refused) if self.whole else None


def _split(folder: Path, name: str, sound: bool, findings: list[Finding]) -> Split:
    files = _caption_files(folder, name)
    for extra in files[1:]:
        findings.append(Finding(extra.name, message=f"stands beside {files[0].name}; keep one caption file per split"))
    queries: tuple[str, ...] = ()
    place = folder / name
    if files and files[0].name == f"{AUDIOCAPS.get(name)}.csv":
        source, place = files[0].name, folder / AUDIOCAPS[name]
        rows = _audiocaps(files[0], place, sound, findings)
    elif files and files[0].name != f"{name}_captions.csv":
        source = files[0].name
        rows = _captions(files[0], findings)
        if sound:
            _match(folder / name, source, rows, findings)
    else:  # a blind set: its clips are whatever sound is there
        source = f"{name}/"
        queries = _queries(files[0], findings) if files else ()
        sounds = _sounds(folder / name, frozenset(), findings) or ()
        rows = _Rows(dict.fromkeys(sorted(sounds), (0, ())), whole=bool(sounds))
        if sound and not sounds:
            findings.append(Finding(source, message="there is no sound; a blind set's clips are the files in here"))
    _collisions(source, rows, findings)

    relevance_file = folder / f"relevance_{name}.csv"
    relevance = None
    if relevance_file.is_file():
        relevance = _relevance(relevance_file, relevance_file.name, rows.names, findings)
    metadata = _metadata(folder, name, rows.names, findings)
    clips = tuple(
        Clip(file_name, captions, place / file_name, metadata.get(file_name, MappingProxyType({})))
        for file_name, (_, captions) in rows.clips.items()
    )
    return Split(name, clips, relevance, queries, folder / source)


def _captions(path: Path, findings: list[Finding]) -> _Rows:
    rows, file = _Rows(), path.name
    records, rows.whole = tables.read(path, file, findings)
    if not records:
        if rows.whole:
            message = "is empty; the first line must be file_name,caption_1,…,caption_N"
            findings.append(Finding(file, 1, message=message))
        rows.whole = False
        return rows
    header = records[0][1]
    expected = ["file_name", *(f"caption_{number}" for number in range(1, max(2, len(header))))]
    if header != expected:
        message = f"the header must be {','.join(expected)}; found {printable(','.join(header))}"
        if len(header) == 1:
            found = [mark for mark in ("\t", ";", "|") if mark in header[0]]
            message += f" (columns are separated by commas, not by {found[0]!r})" if found else ""
        findings.append(Finding(file, 1, message=message))
        # Read on only where the names stand below: any other row would be a finding of its own for the same fault.
        if len(header) == 1 or [_name_fault(cells[0]) is None for _, cells in records[:2]] != [False, True]:
            rows.whole = False
            return rows
    widths = {len(cells) for _, cells in records[1:]}
    if len(records) > 2 and len(widths) == 1 and len(header) not in widths:  # then it is the header that is wrong
        message = f"the header has {len(header)} columns and every row {widths.pop()}; name all columns, and no others"
        findings.append(Finding(file, 1, message=message))
        header = [*header, *[""] * len(records[1][1])][: len(records[1][1])]
    for line, cells in records[1:]:
        name, captions = cells[0], tuple(cells[1:])
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}"
            message += "; quote a caption that holds a comma" if len(cells) > len(header) else ""
            findings.append(Finding(file, line, message=message))
            captions = ()
        fault = _name_fault(name)
        if fault:
            findings.append(Finding(file, line, tables.column_name(header, 0), fault))
            rows.refused.add(re.split(r"[/\\]", name)[-1])
            continue
        if name in rows.clips:
            message = f"{name!r} is listed twice, first on line {rows.clips[name][0]}; keep one row"
            findings.append(Finding(file, line, tables.column_name(header, 0), message))
            continue
        for index, caption in enumerate(captions, start=1):
            fault = _text_fault(caption)
            if fault:
                findings.append(Finding(file, line, tables.column_name(header, index), fault))
        rows.clips[name] = (line, captions)
    if not records[1:] and rows.whole:
        findings.append(Finding(file, 1, message="has a header and no clips"))
        rows.whole = False
    return rows


def _audiocaps(path: Path, folder: Path, sound: bool, findings: list[Finding]) -> _Rows:
    """Read a file of AudioCaps: the captions of a clip, which stand in rows of their own, by the name of its sound."""
    rows, file = _Rows(), path.name
    records, rows.whole = tables.read(path, file, findings)
    header = records[0][1] if records else []
    if header != AUDIOCAPS_HEADER:
        found = printable(",".join(header)) or "no line"
        findings.append(Finding(file, 1, message=f"the header must be {','.join(AUDIOCAPS_HEADER)}; found {found}"))
        rows.whole = False
        return rows
    sounds = _sounds(folder, frozenset(), findings)
    if sounds is None and sound:
        findings.append(
            Finding(f"{folder.name}/", message=f"no such folder: the sound of the clips in {file} is absent")
        )
    by_stem = {name.rpartition(".")[0]: name for name in sorted(sounds or ())}
    rows_of_captions = _joined(records[1:], file, findings)
    grouped: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for line, cells in rows_of_captions:
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}; quote a caption that holds a comma"
            findings.append(Finding(file, line, message=message))
            continue
        number, video, start, caption = cells
        if fault := _text_fault(caption):
            findings.append(Finding(file, line, header[3], fault))
        grouped.setdefault((video, start), []).append((line, number, caption))
    absent: set[str] = set()
    for (video, start), group in grouped.items():
        # Each row has an id of its own: by whichever of them the sound is named, all captions are the clip's.
        stems = (f"{video}_{start}", f"Y{video}", video, *(number for _, number, _ in group))
        name = next((by_stem[stem] for stem in stems if stem in by_stem), None)
        if sounds is None:
            name = f"{stems[0]}.wav"
        if name is None:
            absent.add(stems[0])
            continue
        first, captions = rows.clips.get(name, (group[0][0], ()))
        rows.clips[name] = (first, (*captions, *(caption for *_, caption in group)))
    if absent:
        message = f"has clips without sound in {folder.name}/, {len(absent)} in all, as {min(absent)}.wav: left out"
        findings.append(Finding(file, message=message, severity=WARNING))
    if not rows.clips:
        findings.append(
            Finding(file, message=f"no clip has its sound in {folder.name}/; name them YOUTUBEID_START.wav")
        )
    return rows


def _joined(records: Sequence[tables.Record], file: str, findings: list[Finding]) -> list[tables.Record]:
    """Join the captions that AudioCaps 2.0 breaks over two rows, and note how many there are.

    The second row holds the end of the caption, with or without commas for the other columns. In a caption in quotes
    it is a line break.
    """
    joined: list[tables.Record] = []
    broken: set[int] = set()  # lines where such captions begin
    for line, cells in records:
        parts = [*cells]
        lines = cells[-1].splitlines()
        if len(cells) == len(AUDIOCAPS_HEADER) and len(lines) > 1:
            parts[-1] = " ".join(part.strip() for part in lines)
        if joined and _continues_a_caption(cells) and len(joined[-1][1]) == len(AUDIOCAPS_HEADER):
            line, (*others, begun) = joined.pop()
            end = ",".join(cells).rstrip(",")
            parts = [*others, f"{begun.rstrip()} {end.strip()}"]
        if parts != cells:
            broken.add(line)
        joined.append((line, parts))
    if broken:
        message = "1 caption is broken over two lines; its parts are joined"
        if len(broken) > 1:
            message = f"{len(broken)} captions are broken over two lines, the first one here; their parts are joined"
        findings.append(Finding(file, min(broken), message=message, severity=NOTE))
    return joined


def _continues_a_caption(cells: Sequence[str]) -> bool:
    """Tell whether a row of AudioCaps has neither ids nor a time: only the end of the caption before it."""
    number, *others = (cell.strip() for cell in cells)
    short = len(cells) < len(AUDIOCAPS_HEADER) or not others[-1]
    has_a_time = len(others) > 1 and others[1].isdecimal()
    return bool(number) and not number.isdecimal() and short and not has_a_time


def _queries(path: Path, findings: list[Finding]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    file = path.name
    records, readable = tables.read(path, file, findings)
    header = records[0][1] if records else []
    if header != ["caption"] and (records or readable):
        found = printable(",".join(header)) or "nothing"
        findings.append(Finding(file, 1, message=f"the header must be caption, and one query a line; found {found}"))
        return ()
    for line, cells in records[1:]:
        if len(cells) != 1:
            message = f"has {len(cells)} columns where the header has 1; quote a caption that holds a comma"
            findings.append(Finding(file, line, message=message))
        elif fault := _text_fault(cells[0]):
            findings.append(Finding(file, line, "caption", fault))
        elif cells[0] in seen:
            findings.append(Finding(file, line, "caption", f"stands on line {seen[cells[0]]} already; keep one"))
        else:
            seen[cells[0]] = line
    if not records[1:] and readable:
        findings.append(Finding(file, 1, message="has a header and no queries"))
    return tuple(seen)


def _name_fault(name: str) -> str | None:
    if not name.strip():
        return "is blank; write the name of a sound file"
    if "/" in name or "\\" in name:
        return f"must be a file's name, not a path; found {name!r}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must end in {', '.join(SOUND_SUFFIXES)}; found {name!r}"
    if _has_controls(name):
        return f"must not hold control characters; found {name!r}"
    if len(name.encode()) > 255:
        return f"must not be longer than the 255 bytes that a disk takes; found {name!r}"
    return None


def _text_fault(text: str, what: str = "caption") -> str | None:
    if not text.strip():
        return f"is blank; write a {what}"
    if _has_controls(text):
        return f"must be one line without control characters; found {text!r}"
    return None


def _has_controls(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text)


def _sounds(folder: Path, listed: Set[str], findings: list[Finding]) -> frozenset[str] | None:
    """The names of the sound files in a folder; None if there is no such folder."""
    if not folder.is_dir():
        return None
    names = []
    for entry in os.scandir(folder):
        is_file = Path(entry.path).is_file()  # not the entry's own, which raises OSError for a link to itself
        if is_file and entry.name.lower().endswith(SOUND_SUFFIXES):
            # A hidden file counts where it has a row, else not: macOS writes ._NAME beside each NAME.
            if entry.name in listed or not entry.name.startswith("."):
                names.append(entry.name)
        elif _broken_link(Path(entry.path)) and entry.name.lower().endswith(SOUND_SUFFIXES):
            if entry.name not in listed:
                message = _broken_link(Path(entry.path))
                findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
        elif entry.name not in listed and not entry.name.startswith("."):
            message = f"is not a sound file ({', '.join(SOUND_SUFFIXES)}); ignored"
            findings.append(Finding(f"{folder.name}/{entry.name}", message=message, severity=WARNING))
    return frozenset(names)


def _match(folder: Path, file: str, rows: _Rows, findings: list[Finding]) -> None:
    """Every clip must have its sound, and every sound its row; one fault is one finding."""
    sounds = _sounds(folder, rows.clips.keys() | rows.refused, findings)
    if not rows.whole:
        return
    if sounds is None:
        message = f"no such folder: the sound of the {len(rows.clips)} clips in {file} is absent"
        findings.append(Finding(f"{folder.name}/", message=message))
        return
    orphans = sounds - rows.clips.keys()
    absent = {}
    for name, (line, _) in rows.clips.items():
        if name in sounds:
            continue
        if broken := _broken_link(folder / name):
            findings.append(Finding(f"{folder.name}/{name}", message=broken))
        else:
            absent[name] = line
    match = explain(absent, orphans)
    if match:
        message = match.message(len(rows.clips), "names", owner="the sound files")
        findings.append(Finding(file, absent[next(iter(match.pairs))], "file_name", message))
        orphans -= set(match.pairs.values())
    meant = closest(sorted(orphans))
    for name, line in absent.items():
        if match and name in match.pairs:
            continue
        close = meant(name)
        message = f"no sound {name!r} in {folder.name}/{hint(name, close)}"
        findings.append(Finding(file, line, "file_name", message))
        orphans -= {close}
    refused = closest(rows.refused)
    for name in orphans:
        if not refused(name):
            message = f"has no row in {file}; add one or take the sound away"
            findings.append(Finding(f"{folder.name}/{name}", message=message))


def _broken_link(path: Path) -> str:
    """Return what is wrong with a link to a file that does not exist; empty for anything else."""
    if not path.is_symlink() or path.exists():
        return ""
    return f"is a link to {path.readlink()}, which does not exist; copy the file there"


def _collisions(file: str, rows: _Rows, findings: list[Finding]) -> None:
    """Warn of names that are one file on a disk that ignores case or Unicode form."""
    seen: dict[str, str] = {}
    for name, (line, _) in rows.clips.items():
        key = unicodedata.normalize("NFC", name).casefold()
        other = seen.setdefault(key, name)
        if other != name:
            message = f"{name!r} and {other!r} are one file on a disk that ignores case or Unicode form"
            findings.append(Finding(file, line, "file_name" if line else "", message, WARNING))


def _relevance(path: Path, file: str, file_names: frozenset[str] | None, findings: list[Finding]) -> Relevance:
    """Read a relevance file; where the clips are not known, any name will do."""
    relevance: dict[str, frozenset[str] | Mapping[str, float]] = {}
    lines: dict[str, int] = {}
    records, readable = tables.read(path, file, findings)
    expected, header = ["query", "audio_filenames"], records[0][1] if records else []
    graded = header == [*expected, "grades"]
    if header != expected and not graded and (records or readable):
        found = printable(",".join(header)) or "nothing"
        findings.append(Finding(file, 1, message=f"the header must be {','.join(expected)}; found {found}"))
        return MappingProxyType(relevance)
    unknown: dict[str, list[int]] = {}  # the lines that list a name
    for line, cells in records[1:]:

        def fault(column: str, message: str, line: int = line) -> None:
            findings.append(Finding(file, line, column, message))

        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}; quote a cell that holds a comma"
            fault("", message)
            continue
        query, listed = cells[:2]
        names = _names_in(listed)
        if unfit := _text_fault(query, "query"):
            fault("query", unfit)
        elif query in lines:
            fault("query", f"stands on line {lines[query]} already; list all its clips in one row")
        grades = _grades_in(cells[2]) if graded else [1.0] * len(names)
        if not grades and graded:
            fault("grades", f"must be a list of finite numbers, 0 or more, like [2, 0.5]; found {cells[2]!r}")
        elif graded and not any(grades):
            fault("grades", "are all 0; grade a clip that answers the query, or leave the query out")
        if not names:
            fault("audio_filenames", f"must be a list of one or more names, like ['a.wav', 'b.wav']; found {listed!r}")
            continue
        if grades and len(grades) != len(names):
            fault("grades", f"must be as many as the names, {len(names)}; found {len(grades)}")
        for name in sorted({name for name in names if names.count(name) > 1}):
            fault("audio_filenames", f"lists {name!r} twice; once is enough")
        for name in dict.fromkeys(names):
            if file_names is not None and name not in file_names:
                unknown.setdefault(name, []).append(line)
        lines.setdefault(query, line)
        kept = MappingProxyType({name: grade for name, grade in zip(names, grades, strict=False) if grade > 0})
        relevance.setdefault(query, kept if graded else frozenset(names))
    if not records[1:] and readable:
        findings.append(Finding(file, 1, message="has a header and no queries"))
    findings += _unknown_clips(file, unknown, relevance, file_names or frozenset())
    return MappingProxyType(relevance)


def _unknown_clips(
    file: str, unknown: Mapping[str, Sequence[int]], relevance: Relevance, file_names: frozenset[str]
) -> Iterable[Finding]:
    """Find the names in a relevance file that are no clips, given with the lines that list them."""
    match = explain(unknown, file_names)
    if match:
        listed = {name for names in relevance.values() for name in names}
        message = match.message(len(listed), "names")
        yield Finding(file, unknown[next(iter(match.pairs))][0], "audio_filenames", message)
    meant = closest(file_names)
    for name, lines in unknown.items():
        if match and name in match.pairs:
            continue
        message = f"unknown clip {name!r}{hint(name, meant(name))}"
        for line in lines:
            yield Finding(file, line, "audio_filenames", message)


def _list_in(cell: str) -> list[object]:
    try:
        values = ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
    return values if isinstance(values, list) else []


def _names_in(cell: str) -> list[str]:
    names = _list_in(cell)
    return names if all(isinstance(name, str) for name in names) else []


def _grades_in(cell: str) -> list[float]:
    grades = _list_in(cell)
    fit = all(type(grade) in (int, float) and 0 <= grade <= sys.float_info.max for grade in grades)
    return [float(grade) for grade in grades] if fit else []


def _metadata(
    folder: Path, split: str, file_names: frozenset[str] | None, findings: list[Finding]
) -> dict[str, Mapping[str, str]]:
    """Rows of the metadata file by name. Nothing depends on them, so whatever is wrong is a warning."""
    found = [folder / f"{prefix}metadata_{split}.csv" for prefix in ("", "clotho_")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        return {}
    raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "is not read: must be UTF-8; this is UTF-16: save it as UTF-8"
        findings.append(Finding(path.name, message=message, severity=WARNING))
        return {}
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    problems: list[Finding] = []
    records, _ = tables.parse(text, path.name, problems, ";" if text.startswith("file_name;") else ",")
    header = records[0][1] if records else []
    metadata: dict[str, Mapping[str, str]] = {}
    if header[:1] != ["file_name"]:
        problems.append(Finding(path.name, 1, message="is not read: the first column must be file_name"))
        records = []
    for line, cells in records[1:]:
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}"
            problems.append(Finding(path.name, line, message=message))
        elif file_names is not None and cells[0] not in file_names:
            problems.append(Finding(path.name, line, "file_name", f"{cells[0]!r} is no clip of {split}"))
        else:
            metadata[cells[0]] = MappingProxyType(dict(zip(header, cells, strict=True)))
    findings += [replace(problem, severity=WARNING) for problem in problems]
    return metadata


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
