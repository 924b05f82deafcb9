"""Reading WavCaps as published: a JSON file with captions for each of four sources, and a folder with its audio.

A folder contains these files. All files of a source may be missing:

    json_files/AudioSet_SL/as_final.json            Audio/AudioSet_SL/NAME.flac          NAME.wav is the id
    json_files/BBC_Sound_Effects/bbc_final.json     Audio/BBC_Sound_Effects/ID.flac
    json_files/FreeSound/fsd_final.json             Audio/FreeSound/ID.flac              ID is the sound's Freesound id
    json_files/SoundBible/sb_final.json             Audio/SoundBible/ID.flac

The audio may also be in `audio/SOURCE/` or in the authors' own `waveforms/SOURCE_flac/`, and may be WAV, Ogg or MP3. A
JSON file has the entry `data`, a list of objects with `id`, `caption` and `duration` in seconds, and other keys. Older
files contain only this list. Each clip has one caption.

The published numbers of clips differ. The authors' table says 403,050 clips. An issue on their page counts 262,300
clips of FreeSound in the JSON file but 214,208 in the archive of that time, 1,232 clips of SoundBible in the JSON file
but 1,320 in the archive, and 31,291 clips of BBC in the text but 31,201 in the file. `CLIPS` has the numbers of the
JSON files. If a file contains another number of clips, `read_wavcaps` warns of it. Audio files without an entry are
ignored.

WavCaps contains recordings that evaluation sets also contain: clips of AudioCaps in AudioSet_SL, and many clips of
Clotho in FreeSound. A challenge therefore publishes a list of excluded sounds.

Sources: Mei et al. 2024 (WavCaps, Table 2); huggingface.co/datasets/cvssp/WavCaps (files); XinhaoMei/WavCaps, issue 13
(numbers of clips); Labbeti/aac-datasets, `functional/wavcaps.py` (names of audio files, folders);
CPJKU/dcase2025_task6_baseline, `datasets/utils.py` (broken files).
"""

import json
import math
from collections.abc import Iterator, Set
from pathlib import Path

from evaluation.data.cells import SOUND_SUFFIXES, text_fault
from evaluation.data.dataset import DEVELOPMENT, Clip, Dataset, Split
from evaluation.findings import NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.text import plural

ADDRESS = "https://huggingface.co/datasets/cvssp/WavCaps"
JSON_FILES = Path("json_files")
FILES = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
CLIPS = {"AudioSet_SL": 108_317, "BBC_Sound_Effects": 31_201, "FreeSound": 262_300, "SoundBible": 1_232}
AUDIO_FOLDERS = ("Audio/{}", "audio/{}", "waveforms/{}_flac")
FREESOUND = "FreeSound"
# Files of AudioSet_SL that cannot be decoded, according to the authors of the DCASE 2025 baseline.
BROKEN = frozenset({"Y06-g5jz-OGc", "Y3sSblRfEG2o", "YFli8wjBFV2M", "YVcu0pVF1npM", "YWudGD6ZHRoY", "YmW3S0u8bj58"})


def is_wavcaps(folder: Path) -> bool:
    """Return True if a folder contains a JSON file of WavCaps."""
    return any((folder / JSON_FILES / source / file).is_file() for source, file in FILES.items())


def read_wavcaps(folder: Path, excluded: Set[str] = frozenset()) -> Dataset:
    """Read all sources that a folder contains, as one development split.

    Clips without an audio file are left out. So are excluded clips, and clips whose files are known to be damaged.
    Findings count the clips that are left out. The name of a clip is SOURCE/FILE.

    Args:
        folder: The folder with `json_files`.
        excluded: Freesound ids of clips to leave out, from `freesound.read_ids`.

    Returns:
        A data set whose split `development` has the clips. Its findings are warnings and notes.

    Raises:
        BadRequest: The folder does not contain a JSON file of WavCaps.
        Faulty: A file does not have the published form, or no clip is left. The exception lists all findings.
    """
    if not is_wavcaps(folder):
        example = JSON_FILES / "SoundBible" / FILES["SoundBible"]
        raise BadRequest(f"{folder}: must contain a JSON file of WavCaps, such as {example}; give the published folder")
    clips: list[Clip] = []
    errors: list[Finding] = []
    remarks: list[Finding] = []
    for source, name in FILES.items():
        file = folder / JSON_FILES / source / name
        if not file.is_file():
            remarks.append(Finding(str(file), message="no such file; its clips are not read", severity=WARNING))
            continue
        captions = dict(_captions(file, errors))
        if len(captions) != CLIPS[source]:
            message = f"has {len(captions)} clips; the published file has {CLIPS[source]}"
            remarks.append(Finding(str(file), message=message, severity=WARNING))
        clips += _clips_with_audio(folder, source, file, captions, excluded, remarks)
    if not clips and not errors:
        errors.append(Finding(str(folder), message="no clip has an audio file; put the audio into Audio/SOURCE/"))
    if errors:
        raise Faulty(errors)
    return Dataset(folder, {DEVELOPMENT: Split(DEVELOPMENT, tuple(clips))}, tuple(remarks))


def _captions(file: Path, errors: list[Finding]) -> Iterator[tuple[str, str]]:
    """Yield the id and the caption of each clip in a JSON file, and add errors to a list."""
    advice = f"fetch the file again from {ADDRESS}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        errors.append(Finding(str(file), message=f"must be JSON; found an error: {error}; {advice}"))
        return
    entries = content.get("data") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        message = f"must have a list of clips in `data`; found a {type(entries).__name__}; {advice}"
        errors.append(Finding(str(file), message=message))
        return
    first: dict[str, int] = {}
    for number, entry in enumerate(entries):
        place = f"data[{number}]"
        faults = _faults(entry)
        errors += [Finding(str(file), column=f"{place}{key}", message=f"{fault}; {advice}") for key, fault in faults]
        if faults:
            continue
        identifier = entry["id"]
        if identifier in first:
            message = f"must be different from all others; found {identifier!r} also in data[{first[identifier]}]"
            errors.append(Finding(str(file), column=f"{place}.id", message=f"{message}; {advice}"))
            continue
        first[identifier] = number
        yield identifier, entry["caption"]


def _faults(entry: object) -> list[tuple[str, str]]:
    """Return the keys and messages of all faults in the entry of a clip."""
    if not isinstance(entry, dict):
        return [("", f"must be an object with id, caption and duration; found a {type(entry).__name__}")]
    faults = []
    identifier, caption, duration = entry.get("id"), entry.get("caption"), entry.get("duration")
    if not isinstance(identifier, str) or not identifier.strip() or "/" in identifier or "\\" in identifier:
        faults.append((".id", f"must be a text that can be a file name; found {identifier!r}"))
    if not isinstance(caption, str):
        faults.append((".caption", f"must be a text; found {caption!r}"))
    elif fault := text_fault(caption):
        faults.append((".caption", fault))
    if not _is_duration(duration):
        faults.append((".duration", f"must be a number of seconds; found {duration!r}"))
    return faults


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _clips_with_audio(
    folder: Path, source: str, file: Path, captions: dict[str, str], excluded: Set[str], remarks: list[Finding]
) -> list[Clip]:
    """Return the clips of a source that are to be used, and add findings about all others."""
    places = [folder / pattern.format(source) for pattern in AUDIO_FOLDERS]
    audio = next((place for place in places if place.is_dir()), places[0])
    names = {}
    if audio.is_dir():
        files = sorted(path.name for path in audio.iterdir() if path.name.lower().endswith(SOUND_SUFFIXES))
        names = {name.rpartition(".")[0]: name for name in files}
    clips: list[Clip] = []
    forbidden, broken, absent = [], [], []
    for identifier, caption in captions.items():
        stem = identifier.removesuffix(".wav")
        if source == FREESOUND and stem.lstrip("0") in excluded:
            forbidden.append(stem)
        elif stem in BROKEN:
            broken.append(stem)
        elif stem not in names:
            absent.append(stem)
        else:
            clips.append(Clip(f"{source}/{names[stem]}", (caption,), audio / names[stem]))
    for stems, why, severity in (
        (forbidden, "that the list of excluded sounds contains", NOTE),
        (broken, "whose published audio cannot be decoded", NOTE),
        (absent, f"without an audio file in {audio.relative_to(folder)}/", WARNING),
    ):
        if stems:
            message = f"skipped {plural(len(stems), 'clip')} {why} (for example {min(stems)})"
            remarks.append(Finding(str(file), message=message, severity=severity))
    return clips
