"""Reading predictions, scoring them, and writing the page that shows them."""

import contextlib
import csv
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import caption_formats
from evaluation.data import tables
from evaluation.data.dataset import Split
from evaluation.data.relevance import Relevance
from evaluation.files import appearing, replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.inspection import page
from evaluation.inspection.collecting import Content, collect_descriptions, collect_queries, item_metrics
from evaluation.inspection.overview import make_overview
from evaluation.inspection.sounds import Sound, copies, link, read_sounds
from evaluation.json_objects import JSON_FILES
from evaluation.kinds import KINDS
from evaluation.metrics import retrieval
from evaluation.predictions import Captions, Ranking, Similarity
from evaluation.retrieval_formats import read_prediction
from evaluation.scores import Score
from evaluation.statistics.comparison import check_comparable, short_names

LARGEST = 50 * 10**6  # maximum size in bytes of the sounds in a single file; browsers are slow with larger files
INDEX, IMAGES, SOUNDS = "index.html", "spectrograms", "sounds"  # all files and folders of a page
RETRIEVAL, CAPTIONS = "queries", "captions"


@dataclass(frozen=True)
class Written:
    """A page that was written.

    Attributes:
        path: The HTML file.
        size: The size of the HTML file in bytes.
        playable: The number of clips whose sound the page can play.
    """

    path: Path
    size: int
    playable: int


# Predictions ----------------------------------------------------------------------------------------------------------


def kind_of(paths: Sequence[Path]) -> str:
    """Return the kind of predictions that the files contain, `RETRIEVAL` or `CAPTIONS`.

    Raises:
        BadRequest: The files contain predictions of both kinds.
        Faulty: A file is not valid.
    """
    kinds = [_kind(path) for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            nouns = {RETRIEVAL: KINDS["retrieval"].system, CAPTIONS: KINDS["captioning"].system}
            message = f"must be the prediction of {nouns[kinds[0]]}, as {paths[0]}; found that of {nouns[kind]}"
            raise BadRequest(f"{path}: {message}; give predictions of one kind")
    return kinds[0]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in JSON_FILES:
        return CAPTIONS
    if suffix not in (".csv", ".tsv") or not path.is_file():
        return RETRIEVAL
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        columns = next(csv.reader(file, delimiter=tables.separator(path, str(path))), [])
    has_caption = not set(caption_formats.CAPTIONS).isdisjoint(columns)
    has_name = any(not set(names).isdisjoint(columns) for names in caption_formats.NAMES)
    if has_caption and has_name:
        return CAPTIONS
    return RETRIEVAL


def read_queries(
    paths: Sequence[Path], split: Split, truth: Relevance, metrics: Sequence[str] | None
) -> tuple[Content, list[Finding]]:
    """Read and score predictions of retrieval systems.

    Returns:
        The content of the page, and warnings and notes.

    Raises:
        BadRequest: A file is given twice, does not exist, or is not a prediction of a retrieval system; or a metric is
            unknown; or no metric has values for single queries; or the scores cannot be compared.
        Faulty: A prediction is not valid. The exception lists all findings of all predictions.
    """
    expected = len(truth), len(split.clips)
    given: dict[str, tuple[Similarity | Ranking, Score]] = {}
    findings: list[Finding] = []
    faults: list[Finding] = []
    for name, path in zip(system_names(paths), paths, strict=True):
        try:
            prediction, notes = read_prediction(path, split, truth, expected=expected)
            score = retrieval.evaluate(split, prediction, relevance=truth, metrics=metrics, file=str(path))
        except Faulty as faulty:
            faults += faulty.findings
            continue
        given[name] = prediction, score
        findings += [*notes, *score.findings]
    if faults:
        raise Faulty(faults)
    scores = {name: score for name, (_, score) in given.items()}
    _check_scores(scores)
    return collect_queries(split, truth, given), findings


def read_descriptions(
    paths: Sequence[Path], split: Split, metrics: Sequence[str], match: str
) -> tuple[Content, list[Finding]]:
    """Read and score predictions of captioning systems, as `read_queries` does for retrieval systems.

    Args:
        paths: The files.
        split: The split.
        metrics: Names of metrics, or of one set.
        match: As in `caption_formats.read_captions`.
    """
    from evaluation.metrics import captioning  # slow to import, because it imports scipy's sparse matrices

    given: dict[str, tuple[Path, Captions, Score]] = {}
    findings: list[Finding] = []
    faults: list[Finding] = []
    for name, path in zip(system_names(paths), paths, strict=True):
        try:
            prediction, notes = caption_formats.read_captions(path, split, match=match)
            score = captioning.evaluate(prediction, split, metrics=metrics, file=str(path))
        except Faulty as faulty:
            faults += faulty.findings
            continue
        given[name] = path, prediction, score
        findings += [*notes, *score.findings]
    if faults:
        raise Faulty(faults)
    _check_scores({name: score for name, (_, _, score) in given.items()})
    return collect_descriptions(split, given), findings


def _check_scores(scores: Mapping[str, Score]) -> None:
    for score in scores.values():
        item_metrics(score)
    check_comparable(scores)


def system_names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each prediction: its run folder, or its file name without the extension.

    Raises:
        BadRequest: A file is given twice.
    """
    if len(set(paths)) < len(paths):
        raise BadRequest("each prediction must be given once; found a file twice")
    return short_names([str(path.with_suffix("")) for path in paths])


# Pages ----------------------------------------------------------------------------------------------------------------


def check_target(out: Path, single_file: bool) -> None:
    """Check that the page may be written to a target, and that no other files would be replaced.

    Raises:
        BadRequest: The target exists, and is neither an empty folder nor a page that this command wrote; or the target
            of a single file does not have the extension .html.
    """
    if single_file:
        if out.suffix.lower() not in (".html", ".htm"):
            raise BadRequest(f"--out must be a file with the extension .html for --single-file; found {out}")
        if os.path.lexists(out) and not (out.is_file() and _is_own(out)):
            raise BadRequest(f"{out}: exists and is not a page of this command; give another file")
        return
    if not os.path.lexists(out):
        return
    advice = "give another folder"
    if not out.is_dir() or out.is_symlink():
        raise BadRequest(f"{out}: must be a folder or not exist; it is neither: {advice}")
    entries = {entry.name for entry in out.iterdir()}
    if entries and not (entries <= {INDEX, IMAGES, SOUNDS} and _is_own(out / INDEX)):
        raise BadRequest(f"{out}: must be empty, not exist, or be a page of this command; it has other files: {advice}")


def _is_own(path: Path) -> bool:
    """Return True if a file is a page that this command wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return page.MARK.encode() in file.read(2000)


def write_page(
    content: Content,
    predictions: Sequence[Path],
    findings: Sequence[Finding],
    out: Path,
    *,
    copy_audio: bool = False,
    single_file: bool = False,
) -> tuple[Written, list[Finding]]:
    """Write the page. If this fails, an existing page is not changed.

    Args:
        content: The content of the page.
        predictions: The prediction file of each system.
        findings: Warnings and notes that the page shows.
        out: The output folder, or the output file if `single_file` is true.
        copy_audio: Copy the sounds into the folder (default: link to the audio files where they are).
        single_file: Write one file that contains everything.

    Returns:
        The page that was written, and warnings about audio files that cannot be read.

    Raises:
        BadRequest: `out` contains other files than a page of this command, or the sounds are too large for one file.
    """
    check_target(out, single_file)
    sounds, unreadable = read_sounds([clip.path for clip in content.split.clips])
    overview = make_overview(content, sounds)
    shown = [*findings, *unreadable]
    names = [system.name for system in content.systems]
    files = dict(zip(names, map(str, predictions), strict=True))
    if single_file:
        links = page.Links(_embedded_sounds(sounds), [_data_uri(sound.spectrogram, "image/webp") for sound in sounds])
        text = page.html(content, overview, sounds, links, files, shown)
        with replacing(out) as part:
            part.write_text(text, encoding="utf-8")
        path = out
    else:
        with _replaced_folder(out) as folder:
            links = page.Links(_write_sounds(sounds, folder, out, copy_audio), _write_images(sounds, folder))
            text = page.html(content, overview, sounds, links, files, shown)
            (folder / INDEX).write_text(text, encoding="utf-8")
        path = out / INDEX
    playable = sum(sound.is_playable for sound in sounds)
    return Written(path, path.stat().st_size, playable), unreadable


@contextlib.contextmanager
def _replaced_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder, and move it to `out` if the block succeeds. An older page there is removed."""
    old = None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(appearing(out))
        yield folder
        if out.is_dir():  # the old page is moved only now, so that it remains if the block fails
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
            out.rename(old / out.name)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _write_images(sounds: Sequence[Sound], folder: Path) -> list[str | None]:
    """Write the spectrograms into a folder, and return their addresses relative to the page."""
    (folder / IMAGES).mkdir()
    addresses: list[str | None] = []
    for number, sound in enumerate(sounds):
        if sound.spectrogram is None:
            addresses.append(None)
            continue
        name = f"{IMAGES}/{number:04}.webp"
        (folder / name).write_bytes(sound.spectrogram)
        addresses.append(name)
    return addresses


def _write_sounds(sounds: Sequence[Sound], folder: Path, out: Path, copy_audio: bool) -> list[str | None]:
    """Return the addresses of the sounds. If `copy_audio`, copy the sounds into a folder; otherwise link from `out`."""
    if not copy_audio:
        return [link(sound.path, out) if sound.is_playable else None for sound in sounds]
    (folder / SOUNDS).mkdir()
    copied = copies(sounds)
    addresses: list[str | None] = []
    for number, sound in enumerate(sounds):
        if not sound.is_playable:
            addresses.append(None)
            continue
        content, suffix = next(copied)
        name = f"{SOUNDS}/{number:04}{suffix}"
        (folder / name).write_bytes(content)
        addresses.append(name)
    return addresses


def _embedded_sounds(sounds: Sequence[Sound]) -> list[str | None]:
    """Return the sounds as data URIs, which are addresses that contain the sound itself.

    Raises:
        BadRequest: The sounds are larger than `LARGEST` bytes in total.
    """
    copied = copies(sounds)
    addresses: list[str | None] = []
    size = 0
    with contextlib.closing(copied):
        for number, sound in enumerate(sounds):
            if not sound.is_playable:
                addresses.append(None)
                continue
            content, suffix = next(copied)
            size += len(content)
            if size > LARGEST:
                limit = f"{LARGEST / 10**6:.0f} MB of sounds"
                found = f"the first {number + 1} of {len(sounds)} clips already have more"
                advice = "leave out --single-file; with --copy-audio you can move the folder"
                raise BadRequest(f"a single file must have at most {limit}; {found}: {advice}")
            addresses.append(_data_uri(content, {".mp3": "audio/mpeg", ".ogg": "audio/ogg"}[suffix]))
    return addresses


def _data_uri(content: bytes | None, kind: str) -> str | None:
    if content is None:
        return None
    return f"data:{kind};base64,{b64encode(content).decode()}"
