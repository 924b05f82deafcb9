"""Writing a page, with its sounds and spectrograms."""

import contextlib
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.files import appearing, replacing
from evaluation.findings import BadRequest, Finding
from evaluation.inspection import page
from evaluation.inspection.content import Content
from evaluation.inspection.overview import make_overview
from evaluation.inspection.sounds import Sound, copies, link, read_sounds

LARGEST = 50 * 10**6  # maximum size in bytes of the sounds in a single file; browsers are slow with larger files
INDEX, IMAGES, SOUNDS = "index.html", "spectrograms", "sounds"  # all files and folders of a page


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
    sounds, unreadable = read_sounds([clip.path for clip in content.clips])
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
