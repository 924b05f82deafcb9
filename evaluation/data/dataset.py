"""Strict reading of data sets in Clotho's layout, and of AudioCaps.

Layout
------
For each split, a data folder contains `captions_SPLIT.csv` (or `clotho_captions_SPLIT.csv`) with the header
`file_name,caption_1,…,caption_N`, and the audio file of every row in `SPLIT/` (wav, flac, ogg or mp3). Optional files:

- `relevance_SPLIT.csv` contains the relevant clips of each query, in the form of DCASE 2025 task 6. The header is
  `query,audio_filenames`, and the second column contains Python lists of file names. An optional third column,
  `grades`, contains lists with a number for each clip, where 0 means not relevant. If this file exists, it defines
  which clips are relevant. Otherwise the captions do.
- `metadata_SPLIT.csv` (or `clotho_metadata_SPLIT.csv`) has the first column `file_name`, and other columns with any
  information about the clip. Clotho's metadata files are in Latin-1, and the file of its test set has semicolons
  between columns. Only metadata files may have this encoding and this separator.
- `captions_SPLIT.extra.csv` contains extra captions of the split's clips, such as paraphrases
  (`evaluation.data.extra_captions`). Only training reads them.

The splits are development, validation and evaluation, and the blind sets test, analysis and retrieval. A blind set may
be a folder of audio files only. The retrieval set has its queries in `retrieval_captions.csv`, with the header
`caption`.

AudioCaps is read as published: `train.csv`, `val.csv` and `test.csv` are the first three splits. They have a row for
each caption, with the header `audiocap_id,youtube_id,start_time,caption`, and the audio is in `train/`, `val/` and
`test/`. An audio file is named YOUTUBEID_START, YYOUTUBEID, YOUTUBEID or AUDIOCAPID, where the id may be that of any
row of the clip; the name of the file is the name of the clip. A `train.csv`, `val.csv` or `test.csv` whose header does
not have any of the columns audiocap_id, youtube_id and start_time is not read, and gives a warning. AudioCaps 2.0
breaks some captions over two rows; the parts are joined, and a note counts these captions. Some videos do not exist any
more: clips without an audio file are skipped, and a warning counts them.

Conventions
-----------
- **Names are verbatim.** A clip is identified by (split, file name); nothing is stripped, unescaped or lower-cased. Of
  Clotho's 5929 names, three start with a space, 203 contain commas, 307 have dots in the stem, and four are in two
  splits.
- **A query's truth is the set of its relevant clips.** If several clips share a caption, the caption is one query, and
  all these clips are relevant.
- **Scoring does not see extra captions.** They are not part of the captions, queries, relevant clips, fingerprint or
  digest of a split. They are not even read with `sound=False`, as all commands that score read a split. A training that
  uses them records a digest of them in its run folder (`systems.parts.extra`).
- **All findings are reported at once**, each with its file, line and column. Reading raises `Faulty` if a finding is an
  error.

This example gets the truth of a query from a data folder:

>>> dataset = read_dataset(Path("data/soundscapes"))                      # doctest: +SKIP
>>> dataset["evaluation"].truth["A dog barks and rain falls."]    # doctest: +SKIP
frozenset({'soundscape_0007.wav'})
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import soundfile

from evaluation.data import extra_captions
from evaluation.data.audiocaps import AUDIOCAPS, is_audiocaps, read_audiocaps, warn_of_other_headers
from evaluation.data.caption_files import CaptionRows, read_captions, read_metadata, read_queries
from evaluation.data.extra_captions import ExtraCaption
from evaluation.data.relevance import Relevance, parse_relevance
from evaluation.data.sound_files import match_sounds, sound_files, warn_of_equal_names
from evaluation.findings import ERROR, WARNING, BadRequest, Faulty, Finding
from evaluation.names import NEARLY_ALL
from evaluation.text import plural, unknown_key

DEVELOPMENT, VALIDATION, EVALUATION = "development", "validation", "evaluation"
BLIND = ("test", "analysis", "retrieval")
SPLITS = (DEVELOPMENT, VALIDATION, EVALUATION, *BLIND)


@dataclass(frozen=True)
class Clip:
    """An audio clip with its captions.

    Attributes:
        file_name: The name, verbatim.
        captions: The captions, verbatim; empty in a blind set.
        path: The path of the audio file.
        metadata: The clip's row of the metadata file, as a dict from column to cell; empty if the clip has no row.
        extra: Extra captions for training, from `captions_SPLIT.extra.csv`. Scoring must not use them; clips that
            differ only in them are equal.
    """

    file_name: str
    captions: tuple[str, ...]
    path: Path
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False, hash=False)
    extra: tuple[ExtraCaption, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Split:
    """A split of a data set; the clips have the order of the caption file.

    Attributes:
        name: One of `SPLITS`.
        clips: The clips.
        relevance: For each query, the names of the relevant clips, with grades if there are grades, from
            `relevance_SPLIT.csv`; None if there is no such file.
        blind_queries: Queries whose relevant clips are not known.
        source: The path that the names of the clips come from: the caption file, or for a blind set the audio folder;
            None for a split that was not read from a data folder.
    """

    name: str
    clips: tuple[Clip, ...]
    relevance: Relevance | None = None
    blind_queries: tuple[str, ...] = ()
    source: Path | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Describe the split on one line."""
        counts = [plural(len(self.clips), "clip"), plural(len(self.all_captions), "caption")]
        if self.relevance is not None or self.blind_queries:
            counts.append(f"{len(self.queries)} queries")
        return f"Split({self.name}: {', '.join(counts)})"

    @cached_property
    def file_names(self) -> tuple[str, ...]:
        """The names of all clips."""
        return tuple(clip.file_name for clip in self.clips)

    @property
    def paths(self) -> list[Path]:
        """The paths of the audio files of all clips."""
        return [clip.path for clip in self.clips]

    @cached_property
    def all_captions(self) -> tuple[str, ...]:
        """All captions of all clips, in order; a caption that several clips share is repeated."""
        return tuple(chain.from_iterable(clip.captions for clip in self.clips))

    @cached_property
    def captions(self) -> Mapping[str, frozenset[str]]:
        """A dict from each distinct caption, in order of first appearance, to the names of the clips that have it."""
        owners: dict[str, set[str]] = {}
        for clip in self.clips:
            for caption in clip.captions:
                owners.setdefault(caption, set()).add(clip.file_name)
        return MappingProxyType({caption: frozenset(names) for caption, names in owners.items()})

    @cached_property
    def truth(self) -> Relevance:
        """The relevant clips of each query: from the relevance file if there is one, else from the captions."""
        if self.relevance is None:
            return self.captions
        return self.relevance

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """The distinct queries: captions, queries of the relevance file, and blind queries."""
        return tuple(dict.fromkeys([*self.captions, *(self.relevance or ()), *self.blind_queries]))

    @cached_property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change if any name, caption, relevance or blind query changes.

        They do not depend on the extra captions, because scores do not depend on them either.
        """
        relevance: object = self.relevance
        if self.relevance:
            entries = []
            for query, names in self.relevance.items():
                relevant = names.items() if isinstance(names, Mapping) else names
                entries.append((query, sorted(relevant)))
            relevance = sorted(entries)
        clips = [(clip.file_name, clip.captions) for clip in self.clips]
        content = repr((clips, relevance, self.blind_queries))
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @cached_property
    def digest(self) -> str | None:
        """Eight hexadecimal digits that also change if the size of an audio file changes; None if a file is missing."""
        try:
            sizes = [clip.path.stat().st_size for clip in self.clips]
        except OSError:
            return None
        return hashlib.sha256(repr((self.fingerprint, sizes)).encode()).hexdigest()[:8]

    @cached_property
    def seconds(self) -> float | None:
        """The total duration of all audio files in seconds, from their headers; None if a file cannot be read."""
        try:
            return sum(soundfile.info(clip.path).duration for clip in self.clips)
        except (OSError, soundfile.SoundFileError):
            return None


@dataclass(frozen=True)
class Dataset:
    """The splits of a data folder, with the warnings and notes from reading them."""

    folder: Path
    splits: Mapping[str, Split]
    findings: tuple[Finding, ...] = ()

    def __getitem__(self, name: str) -> Split:
        """Return the split with a name.

        Raises:
            BadRequest: There is no such split. The message lists all splits.
        """
        if name not in self.splits:
            raise BadRequest(f"{self.folder}: {unknown_key(name, list(self.splits), 'split')}")
        return self.splits[name]


def read_dataset(folder: Path | str, *splits: str, sound: bool = True) -> Dataset:
    """Read a data folder strictly.

    Args:
        folder: The data folder.
        splits: Names of the splits to read (default: all splits of the folder).
        sound: Read what training and prediction need and scoring does not. Check that every clip has an audio file in
            `SPLIT/`, and that every audio file has a row. The audio is not decoded; `check_dataset` does that. Read the
            extra captions. If false, an extra file is ignored, even if it is not valid.

    Raises:
        BadRequest: There is no such folder, or it does not contain such a split.
        Faulty: The data are not valid. The exception lists all findings; their file names include the folder.
    """
    folder = Path(folder)
    dataset, findings = survey(folder, splits, sound)
    everything = list(chain.from_iterable(findings.values()))
    if any(finding.severity == ERROR for finding in everything):
        raise Faulty(replace(finding, file=f"{folder}/{finding.file}") for finding in everything)
    return dataset


def other_split_hint(split: Split, given: Collection[str], noun: str) -> str:
    """Return the end of a message if a prediction is for another split of the same data folder.

    Args:
        split: The expected split.
        given: The queries or the names of the clips of the prediction.
        noun: The noun for `given`: "queries" or "names".

    Returns:
        The name of the other split and what to do; "" if the prediction is for the expected split, or if no other split
        has nearly all of `given`.
    """
    enough = NEARLY_ALL * len(given)
    own = _texts(split, noun)
    if not given or sum(text not in own for text in given) < enough:
        return ""
    for name in SPLITS:
        if split.source is None or name == split.name:
            continue
        try:
            other = read_dataset(split.source.parent, name, sound=False)[name]
        except (BadRequest, Faulty, OSError):  # a split that is missing or not valid does not matter here
            continue
        known = _texts(other, noun)
        if sum(text in known for text in given) >= enough:
            return f"these {noun} are of the split {name}; give the prediction of {split.name}, or give --split {name}"
    return ""


def _texts(split: Split, noun: str) -> set[str]:
    """Return the "queries" of a split, or the "names" of its clips."""
    if noun == "queries":
        return set(split.queries)
    return set(split.file_names)


# Reading -------------------------------------------------------------------------------------------------------------


def survey(folder: Path, names: tuple[str, ...], sound: bool) -> tuple[Dataset, dict[str, list[Finding]]]:
    """Read splits (default: all splits), and return them with a dict from each split to its findings.

    The key "" of the dict has the findings that do not belong to a split.

    Raises:
        BadRequest: There is no such folder, or it does not contain such a split.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give a folder in Clotho's layout (captions_SPLIT.csv, SPLIT/)")
    for name in names:
        if name not in SPLITS:
            raise BadRequest(unknown_key(name, SPLITS, "split"))
    # The folder `test` of AudioCaps is not a blind set.
    caption_files = chain.from_iterable(_caption_files(folder, name) for name in AUDIOCAPS)
    published = {path.stem for path in caption_files}
    blind = [name for name in BLIND if (folder / name).is_dir() and name not in published]
    existing = [name for name in SPLITS if _caption_files(folder, name) or name in blind]
    unread = warn_of_other_headers(folder)
    remark = "".join(f"; {finding.file} {finding.message}" for finding in unread)
    if not existing:
        choices = ", ".join(SPLITS)
        raise BadRequest(f"{folder}: no captions_SPLIT.csv in this folder, where SPLIT is one of {choices}{remark}")
    missing = [name for name in names if name not in existing]
    if missing:
        found = ", ".join(existing)
        raise BadRequest(f"{folder}: no captions_{missing[0]}.csv; the splits in this folder: {found}{remark}")

    findings: dict[str, list[Finding]] = {"": unread, **{name: [] for name in names or existing}}
    for path in folder.glob("*.csv"):
        stem = re.fullmatch(r"(?:clotho_)?(?:captions|relevance|metadata)_(.*)", path.stem)
        if stem and stem[1].endswith(".extra") and path.stem.endswith(f"captions_{stem[1]}"):
            findings[""] += _unread_extra(path.name, stem[1].removesuffix(".extra"), existing)
        elif stem and stem[1] not in SPLITS:
            message = f"is not read: {unknown_key(stem[1], SPLITS, 'split')}"
            findings[""].append(Finding(path.name, message=message, severity=WARNING))
    for name in SPLITS:
        if sound and not names and name not in {*existing, *published} and (folder / name).is_dir():
            message = f"has no captions_{name}.csv; add one or remove the folder"
            findings[""].append(Finding(f"{name}/", message=message))
    splits = {name: _read_split(folder, name, sound, findings[name]) for name in names or existing}
    everything = sorted(chain.from_iterable(findings.values()))
    no_errors = tuple(finding for finding in everything if finding.severity != ERROR)
    return Dataset(folder, MappingProxyType(splits), no_errors), findings


def _unread_extra(file: str, split: str, existing: Collection[str]) -> list[Finding]:
    """Return a warning if a file of extra captions is not read.

    Args:
        file: The name of the file.
        split: The split that it is named after.
        existing: The splits of the folder.
    """
    if split not in SPLITS:
        message = unknown_key(split, SPLITS, "split")
    elif file != extra_captions.file_name(split):
        message = f"the name must be {extra_captions.file_name(split)}; rename the file"
    elif split not in existing:
        message = f"the folder has no captions of the split {split}; add captions_{split}.csv, or remove the file"
    else:
        return []
    return [Finding(file, message=f"is not read: {message}", severity=WARNING)]


def _caption_files(folder: Path, split: str) -> list[Path]:
    names = [f"captions_{split}.csv", f"clotho_captions_{split}.csv"]
    if split in BLIND:
        names.append(f"{split}_captions.csv")
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files and split in AUDIOCAPS:
        published = folder / f"{AUDIOCAPS[split]}.csv"
        if published.is_file() and is_audiocaps(published):
            files = [published]
    return files


def _read_split(folder: Path, name: str, sound: bool, findings: list[Finding]) -> Split:
    files = _caption_files(folder, name)
    for second in files[1:]:
        message = f"is a second caption file of the split; keep this one or {files[0].name}"
        findings.append(Finding(second.name, message=message))
    queries: tuple[str, ...] = ()
    audio_folder = folder / name
    if files and files[0].name == f"{AUDIOCAPS.get(name)}.csv":
        source, audio_folder = files[0].name, folder / AUDIOCAPS[name]
        rows = read_audiocaps(files[0], audio_folder, sound, findings)
    elif files and files[0].name != f"{name}_captions.csv":
        source = files[0].name
        rows = read_captions(files[0], findings)
        if sound:
            match_sounds(audio_folder, source, rows, findings)
    else:  # a blind set, whose clips are the audio files
        source = f"{name}/"
        queries = read_queries(files[0], findings) if files else ()
        sounds = sound_files(audio_folder, frozenset(), findings) or ()
        rows = CaptionRows(dict.fromkeys(sorted(sounds), (0, ())), whole=bool(sounds))
        if sound and not sounds:
            message = "has no audio files; the clips of a blind set are the audio files in this folder"
            findings.append(Finding(source, message=message))
    warn_of_equal_names(source, rows, findings)

    relevance_file = folder / f"relevance_{name}.csv"
    relevance = None
    if relevance_file.is_file():
        relevance = parse_relevance(relevance_file, relevance_file.name, rows.names, findings)
    metadata = read_metadata(folder, name, rows.names, findings)
    extra: Mapping[str, tuple[ExtraCaption, ...]] = {}
    extra_file = folder / extra_captions.file_name(name)
    if sound and extra_file.is_file():
        extra = extra_captions.read_extra_captions(extra_file, rows, findings)
        if name != DEVELOPMENT:
            message = f"is not used: training draws extra captions only for {DEVELOPMENT} clips"
            findings.append(Finding(extra_file.name, message=message, severity=WARNING))
    clips = []
    for file_name, (_, captions) in rows.clips.items():
        row = metadata.get(file_name, MappingProxyType({}))
        clips.append(Clip(file_name, captions, audio_folder / file_name, row, extra.get(file_name, ())))
    return Split(name, tuple(clips), relevance, queries, folder / source)
