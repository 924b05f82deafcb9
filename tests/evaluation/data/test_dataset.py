"""Valid and invalid data folders. The tables have the messages that users see, word for word."""

import csv
import dataclasses
import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.data.check import check_dataset
from evaluation.data.dataset import read_dataset
from evaluation.data.relevance import read_relevance
from evaluation.findings import ERROR, BadRequest, Faulty

HEADER = "file_name,caption_1,caption_2"
A, B = "a.wav,A dog barks.,A hound is barking.", "b.wav,Rain falls.,It is raining."


def wave(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 44100, format=kind, subtype=subtype)
    return file.getvalue()


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 441)
WAV = wave(NOISE)


def rows(*lines: str, header: str = HEADER) -> str:
    return "\n".join([header, *lines, ""])


def write(folder: Path, files: dict[str, str | bytes | None]) -> Path:
    """Write files by path; skip files whose content is None."""
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


GOOD = {"captions_development.csv": rows(A, B), "development/a.wav": WAV, "development/b.wav": WAV}
CSV, DEV = "captions_development.csv", "development"
LATIN = rows(A, "café.wav,Rain falls.,It is raining.").encode("latin-1")
RELEVANCE = "relevance_development.csv"
RELEVANT = "query,audio_filenames"
GRADED = "query,audio_filenames,grades"
METADATA = "metadata_development.csv"
BOTH = "Something is heard.,\"['a.wav', 'b.wav']\""


def as_b(name: str, content: bytes = WAV) -> dict[str, bytes | None]:
    """The audio file of the second clip under another name."""
    return {"development/b.wav": None, f"development/{name}": content}


def row_b(name: str) -> str:
    return B.replace("b.wav", name)


# For each error: the files that cause it, and the complete message.
FAULTS = {
    # The header
    "wrong header": (
        {CSV: rows(A, B, header="filename,caption_1,caption_2")},
        f"{CSV}:1: error: the header must be {HEADER}; found filename,caption_1,caption_2",
    ),
    "captions reordered": (
        {CSV: rows(A, B, header="file_name,caption_2,caption_1")},
        f"{CSV}:1: error: the header must be {HEADER}; found file_name,caption_2,caption_1",
    ),
    "columns reordered": (
        {CSV: rows("A dog barks.,a.wav,A hound.", "Rain.,b.wav,It rains.", header="caption_1,file_name,caption_2")},
        f"{CSV}:1: error: the header must be {HEADER}; found caption_1,file_name,caption_2",
    ),
    "no header": (
        {CSV: A + "\n" + B + "\n"},
        f"{CSV}:1: error: the header must be {HEADER}; found {A}",
    ),
    "a column too many in the header": (
        {CSV: rows(A + ",dog", B + ",rain", header=HEADER + ",keywords")},
        f"{CSV}:1: error: the header must be {HEADER},caption_3; found {HEADER},keywords",
    ),
    "no caption column": (
        {CSV: rows("a.wav", "b.wav", header="file_name")},
        f"{CSV}:1: error: the header must be file_name,caption_1; found file_name",
    ),
    "semicolons": (
        {CSV: rows(A, B).replace(",", ";")},
        f"{CSV}:1: error: the header must be file_name,caption_1; found file_name;caption_1;caption_2 "
        "(columns are separated by commas, not by ';')",
    ),
    "tabs": (
        {CSV: rows(A, B).replace(",", "\t")},
        f"{CSV}:1: error: the header must be file_name,caption_1; found file_name\\tcaption_1\\tcaption_2 "
        "(columns are separated by commas, not by '\\t')",
    ),
    "an empty file": (
        {CSV: ""},
        f"{CSV}:1: error: is empty; the first line must be file_name,caption_1,…,caption_N",
    ),
    "a header alone": ({CSV: rows()}, f"{CSV}:1: error: has a header but no clips; add a row for each clip"),
    # Columns
    "missing column": ({CSV: rows(A, "b.wav,Rain falls.")}, f"{CSV}:3: error: has 2 columns where the header has 3"),
    "unquoted comma": (
        {CSV: rows(A, "b.wav,Rain, ,and wind.,Rain.")},
        f"{CSV}:3: error: has 5 columns where the header has 3; quote a caption that holds a comma",
    ),
    "blank line inside": ({CSV: rows(A, "", B)}, f"{CSV}:3: error: is a blank line; remove it"),
    "line of blanks inside": ({CSV: rows(A, " \t", "", B)}, f"{CSV}:3: error: is a blank line; remove it"),
    "row of commas": (
        {CSV: rows(A, B, ",,")},
        f"{CSV}:4: file_name: error: is blank; write the name of an audio file",
    ),
    "unterminated quote": (
        {CSV: rows(A, 'b.wav,Rain falls.,"It is raining.')},
        f"{CSV}:3: error: is not valid CSV (unexpected end of data); "
        "quote a cell that holds a comma or a quote, and double its quotes",
    ),
    "unterminated quote in the first row": (
        {CSV: rows('a.wav,A dog barks.,"A hound.', B)},
        f"{CSV}:2: error: is not valid CSV (unexpected end of data); "
        "quote a cell that holds a comma or a quote, and double its quotes",
    ),
    "quotes that are not doubled": (
        {CSV: rows(A, 'b.wav,Rain falls.,"A "soft" rain."')},
        f"{CSV}:3: error: is not valid CSV (',' expected after '\"'); "
        "quote a cell that holds a comma or a quote, and double its quotes",
    ),
    # Captions
    "empty caption": ({CSV: rows(A, "b.wav,,Rain.")}, f"{CSV}:3: caption_1: error: is blank; write a caption"),
    "blank caption": ({CSV: rows(A, "b.wav,Rain., \u3000")}, f"{CSV}:3: caption_2: error: is blank; write a caption"),
    "newline in a caption": (
        {CSV: rows('a.wav,A dog.,"A dog\r\nbarks."', B)},
        f"{CSV}:2: caption_2: error: must be one line without control characters; found 'A dog\\r\\nbarks.'",
    ),
    "control character in a caption": (
        {CSV: rows(A, "b.wav,Rain\0falls.,Rain.")},
        f"{CSV}:3: caption_1: error: must be one line without control characters; found 'Rain\\x00falls.'",
    ),
    # Names
    "blank name": (
        {CSV: rows(A, B, " ,Wind.,It blows.")},
        f"{CSV}:4: file_name: error: is blank; write the name of an audio file",
    ),
    "listed twice": (
        {CSV: rows(A, B, A)},
        f"{CSV}:4: file_name: error: 'a.wav' is listed twice, first on line 2; keep one row",
    ),
    "path": (
        {CSV: rows(A, row_b("development/b.wav"))},
        f"{CSV}:3: file_name: error: must be a file name, not a path; found 'development/b.wav'",
    ),
    "Windows path": (
        {CSV: rows(A, row_b("C:\\sounds\\b.wav"))},
        f"{CSV}:3: file_name: error: must be a file name, not a path; found 'C:\\\\sounds\\\\b.wav'",
    ),
    "path upwards": (
        {CSV: rows(A, B, row_b("../secret.wav"))},
        f"{CSV}:4: file_name: error: must be a file name, not a path; found '../secret.wav'",
    ),
    "parent folder as a name": (
        {CSV: rows(A, B, row_b(".."))},
        f"{CSV}:4: file_name: error: must end in .wav, .flac, .ogg, .mp3; found '..'",
    ),
    "control character in a name": (
        {CSV: rows(A, row_b("b\x07.wav")), **as_b("b\x07.wav")},
        f"{CSV}:3: file_name: error: must not contain control characters; found 'b\\x07.wav'",
    ),
    "unknown suffix": (
        {CSV: rows(A, row_b("b.m4a")), **as_b("b.m4a")},
        f"{CSV}:3: file_name: error: must end in .wav, .flac, .ogg, .mp3; found 'b.m4a'",
    ),
    "no suffix": (
        {CSV: rows(A, row_b("b"))},
        f"{CSV}:3: file_name: error: must end in .wav, .flac, .ogg, .mp3; found 'b'",
    ),
    "name too long for a disk": (
        {CSV: rows(A, B, row_b("é" * 126 + ".wav"))},
        f"{CSV}:4: file_name: error: must have at most 255 bytes, the limit of file systems; found '{'é' * 126}.wav'",
    ),
    # Text
    "Latin-1 name": (
        {CSV: LATIN, **as_b("café.wav")},
        f"{CSV}:3: file_name: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "Latin-1 caption": (
        {CSV: rows(A, "b.wav,Rain.,Café au lait.").encode("latin-1")},
        f"{CSV}:3: caption_2: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "Windows-1252 quote": (
        {CSV: rows(A, "b.wav,It’s raining.,Rain.").encode("cp1252")},
        f"{CSV}:3: caption_1: error: must be UTF-8; byte 0x92 is not (Latin-1 '’'?): save the file as UTF-8",
    ),
    "UTF-16": (
        {CSV: rows(A, B).encode("utf-16"), RELEVANCE: rows(BOTH, header=RELEVANT), METADATA: "file_name\na.wav\n"},
        f"{CSV}: error: must be UTF-8; this is UTF-16: save it as UTF-8",
    ),
    # Rows and sounds
    "clip without sound": (
        {"development/b.wav": None},
        f"{CSV}:3: file_name: error: no audio file 'b.wav' in development/",
    ),
    "sound in other case": (
        as_b("B.WAV"),
        f"{CSV}:3: file_name: error: no audio file 'b.wav' in development/; "
        "there is 'B.WAV', and names are compared verbatim",
    ),
    "sound with a blank before": (
        as_b(" b.wav"),
        f"{CSV}:3: file_name: error: no audio file 'b.wav' in development/; "
        "there is ' b.wav', and names are compared verbatim",
    ),
    "entity in the row": (
        {CSV: rows(A, row_b("b &amp; c.wav")), **as_b("b & c.wav")},
        f"{CSV}:3: file_name: error: no audio file 'b &amp; c.wav' in development/; "
        "there is 'b & c.wav', and names are compared verbatim",
    ),
    "folder in place of a sound": (
        as_b("b.wav/inside.txt", b""),
        f"{CSV}:3: file_name: error: no audio file 'b.wav' in development/",
    ),
    "sound without a row": (
        {"development/c.wav": WAV},
        f"development/c.wav: error: has no row in {CSV}; add a row or remove the audio file",
    ),
    "no folder of sound": (
        {"development/a.wav": None, "development/b.wav": None},
        f"development/: error: no such folder; it must contain the audio of the 2 clips in {CSV}",
    ),
    "not a sound file": (
        {"development/notes.txt": "quiet"},
        "development/notes.txt: warning: is not an audio file (.wav, .flac, .ogg, .mp3); ignored",
    ),
    # Sound
    "does not decode": (
        {"development/b.wav": b"RIFF, or so it says"},
        "development/b.wav: error: does not decode (Format not recognised); replace the file",
    ),
    "mp3 that is none": (
        {CSV: rows(A, row_b("b.mp3")), **as_b("b.mp3", b"ID3, or so it says")},
        "development/b.mp3: error: does not decode (Format not recognised); replace the file",
    ),
    "flac cut off": (
        {CSV: rows(A, row_b("b.flac")), **as_b("b.flac", wave(np.tile(NOISE, 100), "FLAC")[:20000])},
        "development/b.flac: error: does not decode (Error : flac decoder lost sync); replace the file",
    ),
    "no bytes": (
        {"development/b.wav": b""},
        "development/b.wav: error: does not decode (Format not recognised); replace the file",
    ),
    "no samples": (
        {"development/b.wav": wave(NOISE[:0])},
        "development/b.wav: error: is empty: no samples; replace the file",
    ),
    "NaN and infinity": (
        {"development/b.wav": wave(np.array([0, np.nan, 0.5, np.inf, -np.inf]), subtype="FLOAT")},
        "development/b.wav: error: has 3 samples with NaN or infinity; replace the file",
    ),
    "stereo": (
        {"development/b.wav": wave(np.stack([NOISE, NOISE], axis=1))},
        "development/b.wav: note: has 2 channels; the kit averages them to one",
    ),
    "values that no sound has": (
        {"development/b.wav": wave(np.array([0, 1e19, -0.5]), subtype="FLOAT")},
        "development/b.wav: error: must have samples in [-1, 1]; found 1 beyond 2.1e+09, the largest 1.0e+19: "
        "the file is damaged, replace it",
    ),
    "integers as floats": (
        {"development/b.wav": wave(NOISE * 32768, subtype="FLOAT")},
        f"development/b.wav: note: has samples up to {np.abs(NOISE).max() * 32768:.4g}, but full scale is 1; integers "
        "that were written as floats must be divided by their full scale",
    ),
    "silence": (
        {"development/b.wav": wave(0 * NOISE)},
        "development/b.wav: note: is silent: every sample is 0; is it the right file?",
    ),
    "a few samples": (
        {"development/b.wav": wave(NOISE[:5])},
        "development/b.wav: note: is only 0.113 ms long (5 samples); is it the whole clip?",
    ),
    "GSM, which cannot seek": (
        {"development/b.wav": wave(NOISE, subtype="GSM610"), "development/a.wav": b""},
        "development/a.wav: error: does not decode (Format not recognised); replace the file",
    ),
    "vorbis cut off": (
        {CSV: rows(A, row_b("b.ogg")), **as_b("b.ogg", wave(np.tile(NOISE, 100), "OGG", subtype="VORBIS")[:-200])},
        "development/b.ogg: error: is cut off in the middle of an Ogg page; copy it again",
    ),
    # Files
    "two caption files": (
        {f"clotho_{CSV}": rows(A, B)},
        f"clotho_{CSV}: error: is a second caption file of the split; keep this one or {CSV}",
    ),
    "misspelt split": (
        {"captions_evalution.csv": rows(A, B)},
        "captions_evalution.csv: warning: is not read: unknown split 'evalution'; did you mean 'evaluation'? "
        "there are: development, validation, evaluation, test, analysis, retrieval",
    ),
    "misspelt split of a relevance file": (
        {"relevance_dev.csv": ""},
        "relevance_dev.csv: warning: is not read: unknown split 'dev'; did you mean 'development'? "
        "there are: development, validation, evaluation, test, analysis, retrieval",
    ),
    "folder without a caption file": (
        {"evaluation/x.wav": WAV},
        "evaluation/: error: has no captions_evaluation.csv; add one or remove the folder",
    ),
    # The relevance file
    "relevance: empty": (
        {RELEVANCE: ""},
        f"{RELEVANCE}:1: error: the header must be {RELEVANT}; found nothing",
    ),
    "relevance: wrong header": (
        {RELEVANCE: rows(BOTH, header="caption,audio_filenames")},
        f"{RELEVANCE}:1: error: the header must be {RELEVANT}; found caption,audio_filenames",
    ),
    "relevance: a header alone": (
        {RELEVANCE: rows(header=RELEVANT)},
        f"{RELEVANCE}:1: error: has a header but no queries; add a row for each query",
    ),
    "relevance: UTF-16": (
        {RELEVANCE: rows(BOTH, header=RELEVANT).encode("utf-16")},
        f"{RELEVANCE}: error: must be UTF-8; this is UTF-16: save it as UTF-8",
    ),
    "relevance: unquoted comma": (
        {RELEVANCE: rows(BOTH, "Rain.,['a.wav', 'b.wav']", header=RELEVANT)},
        f"{RELEVANCE}:3: error: has 3 columns where the header has 2; quote a cell that holds a comma",
    ),
    "relevance: unknown clip": (
        {RELEVANCE: rows(BOTH, "Wind.,['wind.wav']", header=RELEVANT)},
        f"{RELEVANCE}:3: audio_filenames: error: unknown clip 'wind.wav'",
    ),
    "relevance: clip in other case": (
        {RELEVANCE: rows(BOTH, "Rain.,['B.WAV']", header=RELEVANT)},
        f"{RELEVANCE}:3: audio_filenames: error: unknown clip 'B.WAV'; there is 'b.wav', and names are compared "
        "verbatim",
    ),
    "relevance: a clip that the captions refuse": (
        {CSV: rows(A, row_b("./b.wav")), RELEVANCE: rows(BOTH, header=RELEVANT)},
        f"{CSV}:3: file_name: error: must be a file name, not a path; found './b.wav'",
    ),
    "relevance: clip named twice": (
        {RELEVANCE: rows("Rain.,\"['b.wav', 'b.wav']\"", header=RELEVANT)},
        f"{RELEVANCE}:2: audio_filenames: error: lists 'b.wav' twice; once is enough",
    ),
    "relevance: query twice": (
        {RELEVANCE: rows(BOTH, "Rain.,['b.wav']", "Rain.,['a.wav']", header=RELEVANT)},
        f"{RELEVANCE}:4: query: error: is already on line 3; list all its clips in one row",
    ),
    "relevance: blank query": (
        {RELEVANCE: rows("  ,['b.wav']", header=RELEVANT)},
        f"{RELEVANCE}:2: query: error: is blank; write a query",
    ),
    "relevance: tab in a query": (
        {RELEVANCE: rows("A\tcaption.,['b.wav']", header=RELEVANT)},
        f"{RELEVANCE}:2: query: error: must be one line without control characters; found 'A\\tcaption.'",
    ),
    "grades: other header": (
        {RELEVANCE: rows("Rain.,['b.wav'],[1]", header="query,audio_filenames,grade")},
        f"{RELEVANCE}:1: error: the header must be {RELEVANT}; found query,audio_filenames,grade",
    ),
    "grades: none in a row": (
        {RELEVANCE: rows("Rain.,['b.wav']", header=GRADED)},
        f"{RELEVANCE}:2: error: has 2 columns where the header has 3; quote a cell that holds a comma",
    ),
    "grades: fewer than names": (
        {RELEVANCE: rows("Rain.,\"['a.wav', 'b.wav']\",[1]", header=GRADED)},
        f"{RELEVANCE}:2: grades: error: must have one grade for each of the 2 names; found 1",
    ),
    "grades: all 0": (
        {RELEVANCE: rows("Rain.,\"['a.wav', 'b.wav']\",\"[0, 0.0]\"", header=GRADED)},
        f"{RELEVANCE}:2: grades: error: must not all be 0; give a relevant clip a grade above 0, or remove the query",
    ),
    "grades: every fault of a row, and of every row": (
        {RELEVANCE: rows("  ,x.wav,[0]", "Rain.,\"['c.wav', 'a.wav']\",[0]", "Wind.,['b.wav'],[-1]", header=GRADED)},
        f"""\
{RELEVANCE}:2: audio_filenames: error: must be a list of one or more names, like ['a.wav', 'b.wav']; found 'x.wav'
{RELEVANCE}:2: grades: error: must not all be 0; give a relevant clip a grade above 0, or remove the query
{RELEVANCE}:2: query: error: is blank; write a query
{RELEVANCE}:3: audio_filenames: error: unknown clip 'c.wav'
{RELEVANCE}:3: grades: error: must have one grade for each of the 2 names; found 1
{RELEVANCE}:3: grades: error: must not all be 0; give a relevant clip a grade above 0, or remove the query
{RELEVANCE}:4: grades: error: must be a list of finite numbers, 0 or more, like [2, 0.5]; found '[-1]'""",
    ),
    # The metadata, where all findings are warnings
    "metadata: unknown clip": (
        {METADATA: "file_name,keywords\na.wav,dog\nc.wav,cat\n"},
        f"{METADATA}:3: file_name: warning: 'c.wav' is not a clip of development",
    ),
    "metadata: missing column": (
        {METADATA: "file_name,keywords\na.wav,dog\nb.wav\n"},
        f"{METADATA}:3: warning: has 1 columns where the header has 2",
    ),
    "metadata: UTF-16": (
        {METADATA: "file_name,who\nb.wav,x\n".encode("utf-16")},
        f"{METADATA}: warning: is not read: must be UTF-8; this is UTF-16: save it as UTF-8",
    ),
    "metadata: wrong header": (
        {METADATA: "name,keywords\na.wav,dog\n"},
        f"{METADATA}:1: warning: is not read: the first column must be file_name",
    ),
    "metadata: unterminated quote": (
        {METADATA: 'file_name,keywords\na.wav,"dog\n'},
        f"{METADATA}:2: warning: is not valid CSV (unexpected end of data); "
        "quote a cell that holds a comma or a quote, and double its quotes",
    ),
}
FAULTS |= {
    f"relevance: {listed} for a list": (
        {RELEVANCE: rows(f'Rain.,"{listed}"', header=RELEVANT)},
        f"{RELEVANCE}:2: audio_filenames: error: must be a list of one or more names, like ['a.wav', 'b.wav']; "
        f"found {listed!r}",
    )
    for listed in (
        "b.wav",
        "'b.wav'",
        "('b.wav',)",
        "{'b.wav'}",
        "[]",
        "",
        "[1]",
        "['b.wav', None]",
        "['b.wav'",
        "{[]: 1}",
        "__import__('os').listdir()",
        "['b' + '.wav']",
        "[" * 500 + "]" * 500,
    )
}
FAULTS |= {
    f"grades: {listed} for a list": (
        {RELEVANCE: rows(f"Rain.,['b.wav'],\"{listed}\"", header=GRADED)},
        f"{RELEVANCE}:2: grades: error: must be a list of finite numbers, 0 or more, like [2, 0.5]; found {listed!r}",
    )
    for listed in ("", "1", "(1,)", "[]", "['1']", "[True]", "[None]", "[-1]", "[1e999]", "[nan]", f"[1{400 * '0'}]")
}


@pytest.mark.parametrize(("files", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_finding(tmp_path, files, said):
    folder = write(tmp_path, GOOD | files)
    _, findings = check_dataset(folder)
    assert "\n".join(map(str, findings)) == said
    of_sound = said.endswith(("replace the file", "replace it", "copy it again"))  # only `check_dataset` decodes
    if ": error: " in said and not of_sound:
        with pytest.raises(Faulty) as faulty:
            read_dataset(folder)
        assert str(faulty.value).splitlines() == [f"{folder}/{line}" for line in said.splitlines()]
    else:
        assert read_dataset(folder)[DEV].file_names[0] == "a.wav"


ACCEPTED = {
    "as it should be": {},
    "BOM": {CSV: "\ufeff" + rows(A, B), RELEVANCE: "\ufeff" + rows(BOTH, header=RELEVANT)},
    "CRLF": {CSV: rows(A, B).replace("\n", "\r\n"), RELEVANCE: rows(BOTH, header=RELEVANT).replace("\n", "\r\n")},
    "no newline at the end": {CSV: rows(A, B).rstrip()},
    "blank lines at the end": {CSV: rows(A, B, "", " \t", "")},
    "everything quoted": {CSV: rows(A, B).replace(",", '","').replace("\n", '"\n"').join('""')[:-2]},
    "Clotho's names": {CSV: None, f"clotho_{CSV}": rows(A, B), f"clotho_{METADATA}": "file_name,n\na.wav,1\n"},
    "hidden files": {"development/.DS_Store": b"\0", "development/._a.wav": b"\0", ".git/config": ""},
    "other tables and folders": {
        "sources_development.csv": "",
        "clips.csv": "",
        "development_captions.csv": "",
        "notes/captions_x.csv": "",
    },
    "relevance": {RELEVANCE: rows(BOTH, "Rain falls.,['b.wav']", header=RELEVANT)},
    "relevance with grades": {RELEVANCE: rows(f'{BOTH},"[2, 0.5]"', "Rain falls.,['b.wav'],[3]", header=GRADED)},
    "Latin-1 metadata": {METADATA: "file_name,who\nb.wav,José\n".encode("latin-1")},
    "UTF-8 metadata with BOM": {METADATA: "\ufefffile_name,who\nb.wav,José\n"},
    "metadata with semicolons": {METADATA: "file_name;who;cut\nb.wav;José;[1, 2]\n"},
}


@pytest.mark.parametrize("files", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_without_a_word(tmp_path, files):
    folder = write(tmp_path, GOOD | files)
    table, findings = check_dataset(folder)
    assert findings == []
    queries = "4"  # the captions
    if RELEVANCE in files:
        queries = str(files[RELEVANCE].strip().count("\n"))  # its rows below the header
    assert table.splitlines()[2].split() == [DEV, "2", "4", queries, "2", "0:00:00", "0.0–0.0", "44100", "none"]
    split = read_dataset(folder)[DEV]
    assert [(clip.file_name, *clip.captions) for clip in split.clips] == [tuple(A.split(",")), tuple(B.split(","))]
    for clip in split.clips:
        assert clip.path == folder / DEV / clip.file_name
    if METADATA in files:
        assert split.clips[1].metadata["who"] == "José"
        assert split.clips[0].metadata == {}


def test_all_faults_are_reported_at_once(tmp_path):
    bad = {
        CSV: rows(
            'a.wav,"Two\nlines.",One line.',
            "a.wav,Again.,And again.",
            "b.wav,,Rain.",
            "c.wav,Wind, and waves.,Wind.",
            "../d.wav,A door.,A door.",
            "",
            "caf\xe9.wav,A crowd.,Some people.",
            "e.wav,No sound.,Silence.",
            "B.wav,A bell.,Bells.",
        ).encode("latin-1"),
        "development/B.wav": wave(np.stack([NOISE, NOISE], axis=1)),
        "development/c.wav": b"junk",
        "development/café.wav": wave(NOISE[:0]),
        "development/stray.wav": WAV,
        "development/notes.txt": "quiet",
        RELEVANCE: rows("Rain.,[x]", header=RELEVANT),
        METADATA: "file_name\nnobody.wav\n",
        "captions_val.csv": "",
        "captions_evaluation.csv": "",
    }
    said = """
captions_development.csv:2: caption_1: error: must be one line without control characters; found 'Two\\nlines.'
captions_development.csv:4: file_name: error: 'a.wav' is listed twice, first on line 2; keep one row
captions_development.csv:5: caption_1: error: is blank; write a caption
captions_development.csv:6: error: has 4 columns where the header has 3; quote a caption that holds a comma
captions_development.csv:7: file_name: error: must be a file name, not a path; found '../d.wav'
captions_development.csv:8: error: is a blank line; remove it
captions_development.csv:9: file_name: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8
captions_development.csv:10: file_name: error: no audio file 'e.wav' in development/
captions_development.csv:11: file_name: warning: 'B.wav' and 'b.wav' are the same file on a disk that ignores case or Unicode form
captions_evaluation.csv:1: error: is empty; the first line must be file_name,caption_1,…,caption_N
captions_val.csv: warning: is not read: unknown split 'val'; did you mean 'validation'? there are: development, validation, evaluation, test, analysis, retrieval
development/B.wav: note: has 2 channels; the kit averages them to one
development/café.wav: error: is empty: no samples; replace the file
development/c.wav: error: does not decode (Format not recognised); replace the file
development/notes.txt: warning: is not an audio file (.wav, .flac, .ogg, .mp3); ignored
development/stray.wav: error: has no row in captions_development.csv; add a row or remove the audio file
metadata_development.csv:2: file_name: warning: 'nobody.wav' is not a clip of development
relevance_development.csv:2: audio_filenames: error: must be a list of one or more names, like ['a.wav', 'b.wav']; found '[x]'
"""  # noqa: E501
    table, findings = check_dataset(write(tmp_path, GOOD | bad))
    assert sorted(map(str, findings)) == sorted(said.strip().splitlines())
    assert findings == sorted(findings)
    assert [line.split("  ")[-1] for line in table.splitlines()[2:]] == ["12 errors, 3 warnings, 1 note", "1 error"]


@pytest.mark.parametrize(
    ("files", "splits", "said"),
    [
        pytest.param(
            None,
            (),
            "{}: no such folder; give a folder in Clotho's layout (captions_SPLIT.csv, SPLIT/)",
            id="no folder",
        ),
        pytest.param(
            {"development/a.wav": WAV, "captions_dev.csv": rows(A)},
            (),
            "{}: no captions_SPLIT.csv in this folder, where SPLIT is one of "
            "development, validation, evaluation, test, analysis, retrieval",
            id="no split",
        ),
        pytest.param(
            GOOD,
            ("evaluation",),
            "{}: no captions_evaluation.csv; the splits in this folder: development",
            id="split that is not there",
        ),
        pytest.param(
            GOOD,
            ("dev",),
            "unknown split 'dev'; did you mean 'development'? "
            "there are: development, validation, evaluation, test, analysis, retrieval",
            id="no such split",
        ),
    ],
)
def test_a_request_that_cannot_be_met(tmp_path, files, splits, said):
    folder = tmp_path / "data"
    write(folder, files or {})
    with pytest.raises(BadRequest) as refused:
        read_dataset(folder, *splits)
    assert str(refused.value) == said.format(folder)
    if not splits:
        with pytest.raises(BadRequest):
            check_dataset(folder)


@pytest.mark.parametrize(
    "twins", [("dog.wav", "Dog.wav"), ("stra\u00dfe.wav", "STRASSE.wav"), ("caf\u00e9.wav", "cafe\u0301.wav")]
)
def test_names_that_collide_on_some_disks(tmp_path, twins):
    folder = write(tmp_path, {CSV: rows(*(f"{name},One.,Two." for name in twins))})
    dataset = read_dataset(folder, sound=False)
    assert dataset[DEV].file_names == twins
    said = f"{twins[1]!r} and {twins[0]!r} are the same file on a disk that ignores case or Unicode form"
    assert list(map(str, dataset.findings)) == [f"{CSV}:3: file_name: warning: {said}"]


# ------------------------------------------------------------------------------------------------ what was read


def test_names_and_captions_are_verbatim(tmp_path):
    names = [
        " typical neighborhood in Porto.wav",
        "  two  blanks .wav",
        "Bus(Drive_Reverse)_1-2.wav",
        "a, b, c.wav",
        'so-called "birds".wav',
        "20091217.17.fountain.wav",
        "KOOKABURRA..WAV.wav",
        "121006_rain&amp;storm.wav",
        "dmv - &#39;now serving&#39;.wav",
        "🐕 日本語.WAV",
        "\ufeffbom.wav",
        ".hidden.ogg",
        ".wav",
    ]
    captions = [f' "{name}", says the   dog\u2028&amp; 🐕 ' for name in names]
    with (tmp_path / CSV).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file_name", "caption_1"], *zip(names, captions, strict=True)])
    write(tmp_path / DEV, dict.fromkeys(names, WAV))
    assert check_dataset(tmp_path)[1] == []
    split = read_dataset(tmp_path)[DEV]
    assert list(split.file_names) == names
    assert list(split.truth.items()) == [(c, {n}) for n, c in zip(names, captions, strict=True)]
    assert all(clip.path.is_file() for clip in split.clips)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(str.strip)
NAMES = st.builds(
    str.__add__,
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), max_size=60),
    st.sampled_from([*SOUND_SUFFIXES, ".WAV"]),
)
TABLES = st.integers(1, 6).flatmap(
    lambda captions: st.dictionaries(NAMES, st.tuples(*[TEXT] * captions), min_size=1, max_size=6)
)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    TABLES,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_is_written_is_read(tmp_path, table, newline, encoding, quoting):
    header = ["file_name", *(f"caption_{number}" for number in range(1, len(next(iter(table.values()))) + 1))]
    with (tmp_path / CSV).open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator=newline, quoting=quoting)
        writer.writerows([header, *([name, *captions] for name, captions in table.items())])
    split = read_dataset(tmp_path, sound=False)[DEV]
    assert {clip.file_name: clip.captions for clip in split.clips} == table
    assert split.captions == {
        caption: {name for name in table if caption in table[name]}
        for captions in table.values()
        for caption in captions
    }


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([CSV, RELEVANCE, METADATA]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4), st.binary(max_size=3)), min_size=1, max_size=5),
)
def test_whatever_the_bytes_reading_ends_in_data_or_findings(tmp_path, name, edits):
    files = GOOD | {RELEVANCE: rows(BOTH, header=RELEVANT), METADATA: "file_name,who\na.wav,José\n"}
    content = files[name].encode()
    for start, length, new in edits:
        content = content[:start] + new + content[start + length :]
    write(tmp_path, files | {name: content})
    _, findings = check_dataset(tmp_path)
    assert all(str(finding).isprintable() for finding in findings)
    try:
        read_dataset(tmp_path)
        whole = True
    except Faulty:
        whole = False
    assert whole == all(finding.severity != ERROR for finding in findings)


def test_the_truth_is_a_set_of_clips(tmp_path):
    shared = "Something is heard."
    files = GOOD | {CSV: rows(f"a.wav,{shared},A dog barks.", f"b.wav,Rain falls.,{shared}")}
    split = read_dataset(write(tmp_path, files))[DEV]
    assert split.truth == {shared: {"a.wav", "b.wav"}, "A dog barks.": {"a.wav"}, "Rain falls.": {"b.wav"}}
    assert split.queries == (shared, "A dog barks.", "Rain falls.")

    listed = files | {RELEVANCE: rows("Rain falls.,\"['b.wav', 'a.wav']\"", "Noise.,['b.wav']", header=RELEVANT)}
    again = read_dataset(write(tmp_path, listed))[DEV]
    assert again.truth == {"Rain falls.": {"a.wav", "b.wav"}, "Noise.": {"b.wav"}}
    assert again.captions == split.captions
    assert again.queries == (*split.queries, "Noise.")


def test_the_truth_with_grades(tmp_path):
    listed = rows(
        "Rain falls.,\"['b.wav', 'a.wav']\",\"[0.5, 0]\"", "Noise.,\"['a.wav', 'b.wav']\",\"[3, 1]\"", header=GRADED
    )
    truth = read_dataset(write(tmp_path, GOOD | {RELEVANCE: listed}))[DEV].truth
    assert truth == {"Rain falls.": {"b.wav": 0.5}, "Noise.": {"a.wav": 3.0, "b.wav": 1.0}}
    with pytest.raises(TypeError):
        truth["Noise."]["a.wav"] = 0
    assert read_relevance(tmp_path / RELEVANCE, ["a.wav", "b.wav"]) == truth


def test_the_fingerprint_changes_with_any_text(tmp_path):
    variants = [
        {},
        {CSV: rows(A, B.replace("Rain", "rain"))},
        {CSV: rows(A, row_b("c.wav"))},
        {CSV: rows(B, A)},
        {RELEVANCE: rows(BOTH, header=RELEVANT)},
        {RELEVANCE: rows(BOTH.replace(", 'b.wav'", ""), header=RELEVANT)},
        {RELEVANCE: rows(f'{BOTH},"[2, 1]"', header=GRADED)},
        {RELEVANCE: rows(f'{BOTH},"[2, 3]"', header=GRADED)},
    ]
    prints = []
    for number, files in enumerate(variants):
        folder = write(tmp_path / str(number), GOOD | files)
        prints.append(read_dataset(folder, sound=False)[DEV].fingerprint)
        assert read_dataset(folder, sound=False)[DEV].fingerprint == prints[-1]
    assert len(set(prints)) == len(variants)


def test_nothing_can_be_changed(tmp_path):
    dataset = read_dataset(
        write(tmp_path, GOOD | {METADATA: "file_name,who\na.wav,José\n", RELEVANCE: rows(BOTH, header=RELEVANT)})
    )
    split = dataset[DEV]
    clip = split.clips[0]
    for thing in (dataset, split, clip):
        for field in dataclasses.fields(thing):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, field.name, None)
    for mapping in (dataset.splits, split.captions, split.relevance, split.truth, clip.metadata):
        with pytest.raises(TypeError):
            mapping["new"] = None
    for collection in (dataset.findings, split.clips, split.queries, split.file_names, clip.captions):
        assert isinstance(collection, tuple)
    assert all(isinstance(names, frozenset) for truth in (split.captions, split.relevance) for names in truth.values())
    assert len({*split.clips, *split.clips}) == 2


def test_only_the_splits_asked_for_are_read(clotho_like):
    folder = clotho_like()
    for number in range(9):
        (folder / "evaluation" / f"{number}.txt").touch()
    (folder / "captions_development.csv").write_text("")
    (folder / "validation" / "validation_1.wav").unlink()
    dataset = read_dataset(folder, "evaluation")
    assert list(dataset.splits) == ["evaluation"]
    assert len(dataset["evaluation"].clips) == 3
    assert [finding.file for finding in dataset.findings] == [f"evaluation/{number}.txt" for number in range(9)]
    assert list(read_dataset(folder, "evaluation", "validation", sound=False).splits) == ["evaluation", "validation"]
    with pytest.raises(Faulty) as faulty:
        read_dataset(folder)
    errors = [finding for finding in faulty.value.findings if finding.severity == ERROR]
    assert {finding.file for finding in errors} == {
        f"{folder}/captions_development.csv",
        f"{folder}/captions_validation.csv",
    }
    with pytest.raises(BadRequest) as refused:
        dataset["evaluaton"]
    message = "unknown split 'evaluaton'; did you mean 'evaluation'? there are: evaluation"
    assert str(refused.value) == f"{folder}: {message}"


# ------------------------------------------------------------------------------------------------ blind sets


def test_a_blind_set_is_a_folder_of_sound(tmp_path):
    sound = {"test/b.wav": WAV, "test/ a, 1.wav": WAV, "test/._b.wav": b"\0"}
    dataset = read_dataset(write(tmp_path, GOOD | sound))
    assert list(dataset.splits) == [DEV, "test"]
    split = dataset["test"]
    assert [(clip.file_name, clip.captions) for clip in split.clips] == [(" a, 1.wav", ()), ("b.wav", ())]
    assert (split.queries, dict(split.truth)) == ((), {})
    assert read_dataset(tmp_path, "test", sound=False)["test"] == split


def test_the_retrieval_set_has_queries(tmp_path):
    queries = 'caption\nA dog barks.\n"Rain, and wind."\n'
    split = read_dataset(write(tmp_path, {"retrieval_captions.csv": queries, "retrieval/x.wav": WAV}))["retrieval"]
    assert split.queries == split.blind_queries == ("A dog barks.", "Rain, and wind.")
    assert (split.file_names, dict(split.truth)) == (("x.wav",), {})
    write(tmp_path, {"relevance_retrieval.csv": rows("Noise.,['x.wav']", header=RELEVANT)})
    split = read_dataset(tmp_path)["retrieval"]
    assert (dict(split.truth), split.queries) == ({"Noise.": {"x.wav"}}, ("Noise.", "A dog barks.", "Rain, and wind."))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: error: the header must be caption, with a query on each line below; found nothing"),
        ("captions\nRain.\n", "1: error: the header must be caption, with a query on each line below; found captions"),
        ("caption\n", "1: error: has a header but no queries; add a line for each query"),
        (
            "caption\nRain, and wind.\n",
            "2: error: has 2 columns where the header has 1; quote a caption that holds a comma",
        ),
        ('caption\n""\nRain.\n', "2: caption: error: is blank; write a caption"),
        ("caption\nRain.\nRain.\n", "3: caption: error: is already on line 2; keep one of them"),
        (
            'caption\n"Rain.\n',
            "2: error: is not valid CSV (unexpected end of data); "
            "quote a cell that holds a comma or a quote, and double its quotes",
        ),
        ("caption\nRain.\n".encode("utf-16"), " error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    ],
    ids=["empty", "wrong header", "header alone", "unquoted comma", "blank", "twice", "unterminated quote", "UTF-16"],
)
def test_faults_of_queries(tmp_path, text, said):
    with pytest.raises(Faulty) as faulty:
        read_dataset(write(tmp_path, {"retrieval/x.wav": WAV, "retrieval_captions.csv": text}))
    assert str(faulty.value) == f"{tmp_path}/retrieval_captions.csv:{said}"


def test_queries_without_clips(tmp_path):
    files = {
        "retrieval_captions.csv": "caption\nRain.\n",
        "relevance_retrieval.csv": rows("Rain.,['x.wav']", header=RELEVANT),
    }
    with pytest.raises(Faulty) as faulty:
        read_dataset(write(tmp_path, files))
    assert str(faulty.value) == (
        f"{tmp_path}/retrieval/: error: has no audio files; the clips of a blind set are the audio files in this folder"
    )
    assert read_dataset(tmp_path, sound=False)["retrieval"].queries == ("Rain.",)


# ------------------------------------------------------------------------------------------------ real material


def test_clotho(shared):
    table, findings = check_dataset(shared / "clotho")
    assert [line.split()[:5] for line in table.splitlines()[2:]] == [
        ["development", "3839", "19195", "19178", "0"],
        ["validation", "1045", "5225", "5225", "0"],
        ["evaluation", "1045", "5225", "5225", "12"],
    ]
    present = {path.name for path in (shared / "clotho" / "evaluation").iterdir()}
    dataset = read_dataset(shared / "clotho", sound=False)
    absent = [
        f"clotho_captions_evaluation.csv:{line}: file_name: error: no audio file {name!r} in evaluation/"
        for line, name in enumerate(dataset["evaluation"].file_names, start=2)
        if name not in present
    ]
    assert len(absent) == 1033
    folders = [
        f"{split}/: error: no such folder; it must contain the audio of the {clips} clips in "
        f"clotho_captions_{split}.csv"
        for split, clips in [("development", 3839), ("validation", 1045)]
    ]
    assert [str(finding) for finding in findings] == absent + folders


def test_clotho_is_read_verbatim(shared):
    dataset = read_dataset(shared / "clotho", sound=False)
    assert dataset.findings == ()
    names = [name for split in dataset.splits.values() for name in split.file_names]
    assert len(names) == 5929
    assert {name for name, count in Counter(names).items() if count > 1} == {
        "01 A pug struggles to breathe 1_14_2008.wav",
        "Bus(Drive_Reverse)_1-2.wav",
        "City Ambience w_ Car Passing_1-2.wav",
        "FREEZER_DOOR_OPEN_CLOSE.wav",
    }
    assert {name for name in names if name != name.strip()} == {
        " typical neighborhood in Porto.wav",
        " Ambience Birds.wav",
        " e ieio ieai.wav",
    }
    assert sum("," in name for name in names) == 203
    assert sum("." in Path(name).stem for name in names) == 307
    several = [
        {name: len(owners) for name, owners in s.captions.items() if len(owners) > 1} for s in dataset.splits.values()
    ]
    assert [len(captions) for captions in several] == [16, 0, 0]
    assert several[0]["A large industrial machine whirring inside of a room."] == 3
    for split in dataset.splits.values():
        with (shared / "clotho" / f"clotho_captions_{split.name}.csv").open(encoding="utf-8", newline="") as file:
            assert [[clip.file_name, *clip.captions] for clip in split.clips] == list(csv.reader(file))[1:]
        assert all(clip.metadata["file_name"] == clip.file_name for clip in split.clips)


def test_clothos_metadata_of_the_test_set(shared, tmp_path):
    shutil.copy(shared / "clotho" / "clotho_metadata_test.csv", tmp_path)
    write(tmp_path, {"test/test_0001.wav": WAV})
    split = read_dataset(tmp_path)["test"]
    assert split.clips[0].metadata["start_end_samples"] == "[3584, 1325506]"


def test_the_relevance_of_dcase_2025(shared):
    split = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    relevance = read_relevance(shared / "dcase2025_task6" / "metadata_eval.csv", split.file_names)
    assert len(relevance) == 1037
    assert {len(names) for names in relevance.values()} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}
    assert relevance.keys() <= split.captions.keys()
    assert sum(not split.captions[query] <= names for query, names in relevance.items()) == 46


def test_esc10(shared):
    table, findings = check_dataset(shared / "esc10")
    assert findings == []
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["development", "240", "1200", "175", "240", "0:20:04", "5.0–7.2", "44100", "none"],
        ["validation", "80", "400", "95", "80", "0:06:39", "3.6–5.1", "44100", "none"],
        ["evaluation", "80", "400", "60", "80", "0:06:40", "5.0–5.1", "44100", "none"],
    ]
    split = read_dataset(shared / "esc10")["evaluation"]
    assert len(split.truth) == 60
    assert {len(names) for names in split.truth.values()} == {8}


# Names with one common difference -------------------------------------------------------------------------------------


def test_sounds_of_another_extension_are_one_finding(tmp_path):
    names = [f"{number}.wav" for number in range(9)]
    sounds = {f"development/{number}.flac": wave(NOISE, "FLAC") for number in range(9)}
    with pytest.raises(Faulty) as faulty:
        read_dataset(write(tmp_path, {CSV: rows(*(f"{name},One.,Two." for name in names)), **sounds}))
    assert str(faulty.value) == (
        f"{tmp_path}/{CSV}:2: file_name: error: all 9 names differ from the audio files' only in their extension: .wav "
        "where the audio files have .flac; write the names as in the audio files"
    )


def test_a_relevance_file_of_other_names_is_one_finding(tmp_path):
    path = tmp_path / "relevance.csv"
    listed = [f"query {number},['x/{number}.wav']" for number in range(9)]
    path.write_text(rows(*listed, "another,['nothing.wav']", "more,['nothing.wav']", header=RELEVANT))
    with pytest.raises(Faulty) as faulty:
        read_relevance(path, [f"{number}.wav" for number in range(20)], "r.csv")
    assert str(faulty.value).splitlines() == [
        "r.csv:2: audio_filenames: error: 9 of 10 names differ from the data's only in the folder before the name: "
        "'x/0.wav' where the data have '0.wav'; write the names as in the data",
        "r.csv:11: audio_filenames: error: unknown clip 'nothing.wav'",
        "r.csv:12: audio_filenames: error: unknown clip 'nothing.wav'",
    ]


# AudioCaps -----------------------------------------------------------------------------------------------------------

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption"
TRAIN = rows('91139,r1nicOVtvkQ,130,"A woman talks, nearby water pours"', "58146,-Xnic,0,Rain falls", header=AUDIOCAPS)
TEST = rows("1,zz,30,Rain", "2,yy,10,A dog", "3,zz,30,It is raining", "4,gone,20,Wind", header=AUDIOCAPS)


def test_audiocaps_is_read_as_published(tmp_path):
    sounds = ["train/r1nicOVtvkQ_130.wav", "train/58146.flac", "test/Yzz.wav", "test/yy.wav"]
    write(tmp_path, {"train.csv": TRAIN, "test.csv": TEST, **dict.fromkeys(sounds, WAV)})
    read = read_dataset(tmp_path)
    assert list(read.splits) == ["development", "evaluation"], "the folder test is no blind set"
    clips = {clip.file_name: clip.captions for split in read.splits.values() for clip in split.clips}
    assert clips == {
        "r1nicOVtvkQ_130.wav": ("A woman talks, nearby water pours",),
        "58146.flac": ("Rain falls",),
        "Yzz.wav": ("Rain", "It is raining"),
        "yy.wav": ("A dog",),
    }
    assert all(clip.path.is_file() for split in read.splits.values() for clip in split.clips)
    (finding,) = read.findings
    assert str(finding) == "test.csv: warning: skipped 1 clip without an audio file in test/ (for example gone_20.wav)"
    assert read_dataset(tmp_path, "evaluation", sound=False)["evaluation"].file_names == ("Yzz.wav", "yy.wav")


def test_the_broken_rows_of_audiocaps_2_are_joined(shared):
    read = read_dataset(shared / "cases" / "audiocaps23", sound=False)
    assert {clip.file_name: clip.captions for clip in read["development"].clips} == {
        "aaaaaaaaaaa_30.wav": ("A dog barks and the dog is whimpering",),
        "bbbbbbbbbbb_10.wav": ("Rain falls, and wind blows",),
    }
    assert [str(finding) for finding in read.findings] == [
        "train.csv:2: note: 1 caption is broken over two lines; its parts are joined"
    ]


BROKEN = {
    "commas for the other columns": ["1,a,30,A dog ", "barks,,,"],
    "no commas": ["1,a,30,A dog", "barks"],
    "a comma in the second half": ["1,a,30,A dog", "barks, and growls,,"],
    "in quotes": ['1,a,30,"A dog', ' barks, and growls"'],
    "over three lines": ["1,a,30,A dog", "barks", "and growls"],
}


@pytest.mark.parametrize("lines", BROKEN.values(), ids=BROKEN)
def test_a_caption_over_several_lines(tmp_path, lines):
    write(tmp_path, {"val.csv": rows(*lines, "2,b,0,Rain", *lines, header=AUDIOCAPS)})
    read = read_dataset(tmp_path, sound=False)
    caption = " ".join(line.rstrip(",").strip().removesuffix('"') for line in lines[1:])
    assert [clip.captions for clip in read["validation"].clips] == [(f"A dog {caption}",) * 2, ("Rain",)]
    (note,) = read.findings
    assert note.message.endswith("captions are broken over two lines, the first one here; their parts are joined")
    assert (note.line, note.severity) == (2, "note")


@pytest.mark.parametrize("line", [",a,0,A dog", "x,a,0,", ",,,", "1,a,0"])
def test_a_faulty_row_of_audiocaps_is_no_second_half(tmp_path, line):
    write(tmp_path, {"val.csv": rows("2,b,0,Rain", line, header=AUDIOCAPS)})
    try:
        captions = [clip.captions for clip in read_dataset(tmp_path, sound=False)["validation"].clips]
    except Faulty as faulty:
        assert all(finding.line == 3 for finding in faulty.findings)
    else:
        assert captions == [("Rain",), ("A dog",)]


NOT_AUDIOCAPS = (
    "test.csv:1: warning: is not read: its header is not that of AudioCaps, audiocap_id,youtube_id,start_time,caption; "
    "name a file in Clotho's layout captions_SPLIT.csv"
)


def test_the_header_says_whether_a_file_is_audiocaps(tmp_path):
    folder = write(tmp_path, GOOD | {"test.csv": rows(A), "test/x.wav": WAV})
    read = read_dataset(folder)
    assert list(read.splits) == ["development", "test"], "test is a blind set of sound alone"
    assert [str(finding) for finding in read.findings] == [NOT_AUDIOCAPS]


def test_a_folder_that_only_looks_like_audiocaps(tmp_path):
    folder = write(tmp_path, {"test.csv": rows(A)})
    with pytest.raises(BadRequest, match=r"no captions_SPLIT.csv in this folder, .*; test.csv is not read: its header"):
        read_dataset(folder)


@pytest.mark.parametrize("sounds", [("102",), ("101", "102", "103")])
def test_any_id_of_an_audiocaps_clip_names_all_its_captions(tmp_path, sounds):
    listed = rows("101,zz,30,Rain", "102,zz,30,It is raining", "103,zz,30,Drops fall", header=AUDIOCAPS)
    write(tmp_path, {"test.csv": listed, **{f"test/{name}.wav": WAV for name in sounds}})
    read = read_dataset(tmp_path)
    (clip,) = read["evaluation"].clips
    assert clip.file_name == f"{sounds[0]}.wav"
    assert clip.captions == ("Rain", "It is raining", "Drops fall")
    assert not read.findings


def test_audiocaps_captions_alone_name_the_clips(tmp_path):
    write(tmp_path, {"test.csv": TEST})
    names = read_dataset(tmp_path, sound=False)["evaluation"].file_names
    assert names == ("zz_30.wav", "yy_10.wav", "gone_20.wav")
    with pytest.raises(Faulty, match=r"test/: error: no such folder; it must contain the audio of the clips in test"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"val.csv": "youtube_id,caption\nx,A dog\n"}, "val.csv:1: error: the header must be audiocap_id,youtube_id,"),
        ({"val.csv": f"{AUDIOCAPS}\n1,x,0, \n", "val/x.wav": WAV}, "val.csv:2: caption: error: is blank; write a"),
        (
            {"val.csv": f"{AUDIOCAPS}\n1,x,0,a, b\n", "val/x.wav": WAV},
            "val.csv:2: error: has 5 columns where the",
        ),
        (
            {"val.csv": f"{AUDIOCAPS}\n1,x,0,a\n", "val/y.wav": WAV},
            "val.csv: error: no clip has an audio file in val/;",
        ),
    ],
)
def test_faulty_audiocaps_files_are_named(tmp_path, files, message):
    with pytest.raises(Faulty) as faulty:
        read_dataset(write(tmp_path, files))
    assert any(str(finding).startswith(f"{tmp_path}/{message}") for finding in faulty.value.findings), str(faulty.value)


def test_a_link_to_itself_is_named(tmp_path):
    folder = write(tmp_path, GOOD)
    (folder / "development" / "b.wav").unlink()
    (folder / "development" / "b.wav").symlink_to("b.wav")
    _, (finding,) = check_dataset(folder)
    assert str(finding).startswith("development/b.wav: error: is a link to b.wav, which does not exist")


def test_broken_links_are_named(tmp_path):
    folder = write(tmp_path, GOOD)
    (folder / "development" / "b.wav").unlink()
    (folder / "development" / "b.wav").symlink_to("/elsewhere/b.wav")
    (folder / "development" / "c.wav").symlink_to("d.wav")
    _, findings = check_dataset(folder)
    assert [str(finding) for finding in findings] == [
        "development/b.wav: error: is a link to /elsewhere/b.wav, which does not exist; copy the file there",
        "development/c.wav: warning: is a link to d.wav, which does not exist; copy the file there",
    ]


def test_a_split_on_one_line(clotho_like):
    folder = clotho_like({"evaluation": 2, "test": 1})
    (folder / "captions_test.csv").unlink()
    dataset = read_dataset(str(folder), sound=False)
    assert repr(dataset["evaluation"]) == "Split(evaluation: 2 clips, 10 captions)"
    blind = dataclasses.replace(dataset["test"], blind_queries=("A dog.", "A cat."))
    assert repr(blind) == "Split(test: 1 clip, 0 captions, 2 queries)"
