"""Download of Clotho 2.1 from its Zenodo record into a data folder.

    clotho(Path("data/clotho"))

This call creates `clotho_captions_SPLIT.csv`, `clotho_metadata_SPLIT.csv` and the folder `SPLIT/` with the audio, for
the splits development, validation and evaluation. The download is 7 GB large, and the result takes 12 GB. Up to 13 GB
are needed during the download. If the call is interrupted, the same call resumes the download. Unfinished files are in
`.downloads/`, which is removed at the end.

`pooch` computes the checksums but does not transfer the files. pooch discards an unfinished file when the connection
breaks, and a connection usually breaks at least once within 4.5 GB. So this module uses `requests`, as pooch does, and
asks for the missing part of a file with a Range header (RFC 9110, section 14).
"""

import csv
import filecmp
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import filelock
import pooch
import py7zr
import requests
from py7zr.callbacks import ExtractCallback
from tqdm import tqdm

from evaluation.findings import BadRequest

# Seconds before each new attempt; the last one is as long as Zenodo's limit of requests per minute.
WAITS = (2, 10, 60)
# Seconds without data after which a connection counts as broken.
TIMEOUT = 60
# Number of bytes to read at a time, which is also the maximum number that is lost when a connection breaks.
CHUNK = 1 << 16
# Size of the audio relative to the size of its archive, rounded down: the development split's 4.5 GB unpack to 7.6 GB.
UNPACKED = 1.6
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".mp3"})


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        name: Its name in the record and on disk.
        md5: Its published checksum, in hexadecimal.
        bytes: Its size; None if it is not known.
        split: For an archive of audio files, the split that it belongs to; empty for any other file.
    """

    name: str
    md5: str
    bytes: int | None = None
    split: str = ""


# Zenodo record 4783391. The checksums are from aac-datasets (datasets/functional/clotho.py); soundata's Clotho loader
# has the same. The sizes of the archives are Zenodo's, as public code cites them. The evaluation archive's size is not
# cited.
CLOTHO = (
    Remote("clotho_captions_development.csv", "d4090b39ce9f2491908eebf4d5b09bae", 1_336_762),
    Remote("clotho_captions_validation.csv", "5879e023032b22a2c930aaa0528bead4", 367_649),
    Remote("clotho_captions_evaluation.csv", "1b16b9e57cf7bdb7f13a13802aeb57e2", 361_995),
    Remote("clotho_metadata_development.csv", "170d20935ecfdf161ce1bb154118cda5", 830_797),
    Remote("clotho_metadata_validation.csv", "2e010427c56b1ce6008b0f03f41048ce", 224_803),
    Remote("clotho_metadata_evaluation.csv", "13946f054d4e1bf48079813aac61bf77", 225_311),
    Remote("clotho_audio_development.7z", "c8b05bc7acdb13895bb3c6a29608667e", 4_541_582_263, "development"),
    Remote("clotho_audio_validation.7z", "7dba730be08bada48bd15dc4e668df59", 1_260_701_425, "validation"),
    Remote("clotho_audio_evaluation.7z", "4569624ccadf96223f19cb59fe4f849f", None, "evaluation"),
)


def clotho(folder: Path, *, base_url: str = "https://zenodo.org/records/4783391/files/") -> None:
    """Download the files of Clotho 2.1 that are missing in a folder.

    A table is complete if it has the published checksum. A split is complete if `SPLIT/` has every clip of its caption
    table; this function does not decode the clips, which `dcase-evaluation data check` does. If a user downloaded an
    archive by other means and put it in the folder, the archive is used and kept.

    Args:
        folder: The data folder, which is created if it does not exist.
        base_url: The address of the files, which may be that of a mirror.

    Raises:
        BadRequest: The folder contains another data set, or a file that differs from the published file of this name. A
            file cannot be downloaded or has a wrong checksum. An archive cannot be unpacked safely or lacks clips. The
            disk is too small. Another process is downloading into the folder. In all cases, no existing file is
            overwritten, and downloaded files are kept unless their checksum is wrong.
    """
    for remote in CLOTHO:
        other = folder / f"captions_{remote.split}.csv"
        if remote.split and other.exists():
            raise BadRequest(
                f"{other}: the folder must not contain another data set; give a separate folder for Clotho"
            )
    work = folder / ".downloads"
    # This check comes before anything is written, because a complete folder may be read-only.
    if not _missing(folder, CLOTHO):
        shutil.rmtree(work, ignore_errors=True)
        return
    work.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(work / "lock", timeout=0):
            for remote in _missing(folder, [remote for remote in CLOTHO if not remote.split]):
                _fetch(remote, folder / remote.name, work, base_url)
            archives = _missing(folder, [remote for remote in CLOTHO if remote.split])
            check_room(folder, _space(folder, archives))
            for remote in archives:
                archive = folder / remote.name  # put there by the user
                if not archive.exists():
                    archive = work / remote.name
                _fetch(remote, archive, work, base_url)
                _unpack(archive, folder / remote.split, _clips(folder, remote.split), work)
                (work / remote.name).unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
    except filelock.Timeout:
        raise BadRequest(
            f"{folder}: another process is downloading into this folder; wait until it has finished"
        ) from None


def _missing(folder: Path, remotes: Sequence[Remote]) -> list[Remote]:
    """Return the files that are missing in a folder; raise BadRequest for a table that is not the published one."""

    def is_complete(remote: Remote) -> bool:
        if not remote.split:
            return _is_published(folder / remote.name, remote)
        table, sounds = folder / f"clotho_captions_{remote.split}.csv", folder / remote.split
        if not (table.is_file() and sounds.is_dir()):
            return False
        names = {path.name for path in sounds.iterdir() if path.is_file()}
        return _clips(folder, remote.split) <= names

    return [remote for remote in remotes if not is_complete(remote)]


def _is_published(path: Path, remote: Remote) -> bool:
    """Return True if a path exists; raise BadRequest if it exists but is not the published file."""
    if not path.exists():
        return False
    found = pooch.file_hash(path, alg="md5")
    if found != remote.md5:
        raise BadRequest(
            f"{path}: md5 must be {remote.md5}, as published, found {found}; the file was not changed: "
            "move it away or give another folder"
        )
    return True


def _clips(folder: Path, split: str) -> set[str]:
    """Return the file names in a split's caption table, verbatim."""
    with (folder / f"clotho_captions_{split}.csv").open(encoding="utf-8", newline="") as file:
        return {row["file_name"] for row in csv.DictReader(file)}


def _space(folder: Path, archives: Sequence[Remote]) -> int:
    """Return the maximum number of bytes that will be needed at a time, in addition to the bytes in use already.

    Each archive is removed after it is unpacked, and its audio files stay.
    """
    most = kept = used = 0.0
    for remote in archives:
        size = remote.bytes or 0
        most = max(most, kept + size * (1 + UNPACKED))
        kept += size * UNPACKED
        for name in (remote.name, f".downloads/{remote.name}", f".downloads/{remote.name}.part"):
            used += _size(folder / name)
    return int(most - used)


def check_room(folder: Path, needed: int) -> None:
    """Raise BadRequest if the disk of a folder has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BadRequest(
            f"{folder}: {_amount(needed)} must be free to download and unpack the remaining files, found "
            f"{_amount(free)}; free some space or give a folder on another disk"
        )


def _fetch(remote: Remote, target: Path, work: Path, base_url: str) -> None:
    """Download a file to `target` and check it, or check it if it exists. An unfinished download resumes."""
    if _is_published(target, remote):
        return
    url = f"{base_url.rstrip('/')}/{remote.name}?download=1"
    part = work / f"{remote.name}.part"
    transfer(url, part, remote.name, remote.bytes, f"put it in {work.parent}")
    found = pooch.file_hash(part, alg="md5")
    if found != remote.md5:
        part.unlink()
        raise BadRequest(
            f"{url}: md5 must be {remote.md5}, found {found}; the download is removed. Run the same command again. If "
            "this error stays, a proxy changes the file or the server has another file"
        )
    part.replace(target)


def transfer(url: str, part: Path, name: str, size: int | None, by_hand: str) -> None:
    """Download a file with a progress bar, and connect again if the connection breaks.

    Args:
        url: The address.
        part: The file to write. If it contains the beginning of the download, the download resumes. If this call
            fails, the file is kept.
        name: Name of the file in messages and in the progress bar.
        size: Number of bytes of the file; None if it is not known.
        by_hand: The end of a message, which states what to do with a file that the user downloads by other means.

    Raises:
        BadRequest: The file cannot be downloaded.
    """
    furthest, failures = _size(part), 0
    while size is None or _size(part) != size:
        try:
            _connect(url, part, name, size)
            return
        except requests.RequestException as failure:
            # Only failures without progress count: a large file may take many connections on a poor line.
            if _size(part) > furthest:
                furthest, failures = _size(part), 0
            if failures == len(WAITS) or not _may_pass(failure):
                so_far = _amount(_size(part))
                if size:
                    so_far += f" of {_amount(size)}"
                raise BadRequest(
                    f"{url}: cannot be downloaded: {_reason(failure)}; {so_far} are in {part}. Run the same command "
                    f"again to resume, or download the file by other means and {by_hand}"
                ) from failure
            tqdm.write(f"{name}: {_reason(failure)}; trying again in {WAITS[failures]} s", file=sys.stderr)
            time.sleep(WAITS[failures])
            failures += 1


def _connect(url: str, part: Path, name: str, size: int | None) -> None:
    """Append the missing bytes to `part`; raise requests.RequestException if the connection or the server fails."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            return  # the server has no further bytes; the checksum shows whether the file is complete
        response.raise_for_status()
        length = int(response.headers.get("Content-Length", 0))
        start = 0  # a server without ranges sends the whole file, with status 200
        if response.status_code == 206:
            content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            start = int(content_range[1]) if content_range else have
            if start > have:
                raise requests.ConnectionError(f"the server continues at byte {start}, but only {have} bytes are here")
        elif length and size and length != size and "Content-Encoding" not in response.headers:
            # The server's error page must not replace gigabytes of data.
            raise requests.ConnectionError(f"the server sends {length} bytes, but the published file has {size}")
        total = size
        if not total and length:
            total = start + length
        with (
            part.open("ab") as file,
            tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True) as bar,
        ):
            file.truncate(start)
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
    if size and _size(part) < size:
        raise requests.ConnectionError("the connection ended early")


def _may_pass(failure: requests.RequestException) -> bool:
    """Return True if another attempt may succeed, and False for a malformed address or a file that does not exist."""
    if failure.response is not None:
        return failure.response.status_code >= 500 or failure.response.status_code in (408, 429)
    return not isinstance(failure, ValueError)


def _reason(failure: requests.RequestException) -> str:
    """Return the reason of a failure in a few words, without the messages that requests and urllib3 add."""
    if failure.response is not None:
        return f"the server answered {failure.response.status_code} {failure.response.reason}".rstrip()
    if isinstance(failure, requests.Timeout):
        return f"no answer for {TIMEOUT} s"
    cause = failure.args[0] if failure.args else failure
    cause = getattr(cause, "reason", cause)
    args = getattr(cause, "args", ())
    if args and isinstance(args[0], str):
        return args[0]
    return str(cause)


def _unpack(archive: Path, sounds: Path, clips: set[str], work: Path) -> None:
    """Move the audio files from all folders of an archive to the folder `sounds`.

    If the folder `sounds` does not exist, it appears with all files or not at all. An existing folder gets the missing
    files, and no file in it is overwritten.

    Raises:
        BadRequest: The archive cannot be unpacked safely, has two files of the same name, or lacks some of `clips`; the
            disk is too small; or existing files differ from the files of the archive.
    """
    for unfinished in work.glob("unpack-*"):
        shutil.rmtree(unfinished)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=work) as scratch:
        members, ready = Path(scratch, "members"), Path(scratch, "ready")
        ready.mkdir()
        _extract(archive, members)
        for path in sorted(members.rglob("*")):
            # macOS adds a `._NAME` to each file, which has the extension of an audio file but no audio.
            if path.is_file() and path.suffix.lower() in SOUNDS and not path.name.startswith("._"):
                if (ready / path.name).exists():
                    raise BadRequest(f"{archive}: file names must differ, found {path.name!r} in two folders")
                path.rename(ready / path.name)
        names = {path.name for path in ready.iterdir()}
        missing = sorted(clips - names)
        if missing:
            raise BadRequest(
                f"{archive}: must contain every clip of the caption table; {len(missing)} of {len(clips)} are missing, "
                f"for example {missing[0]!r}; nothing was unpacked"
            )
        if not sounds.exists():
            ready.rename(sounds)
            return
        common = sorted(name for name in names if (sounds / name).exists())
        differing = [name for name in common if not filecmp.cmp(ready / name, sounds / name, shallow=False)]
        if differing:
            raise BadRequest(
                f"{sounds}: existing files must be the published ones; {len(differing)} differ, for example "
                f"{differing[0]!r}; nothing was changed: move them away and run the same command again"
            )
        for name in sorted(names.difference(common)):
            # In two steps: SPLIT/ may be a link to another disk, where a move is a copy that can be interrupted.
            shutil.move(ready / name, sounds / f".{name}.part")
            (sounds / f".{name}.part").replace(sounds / name)


def _extract(archive: Path, into: Path) -> None:
    """Unpack an archive into a folder. If a member could leave the folder, raise BadRequest before writing."""
    try:
        # With a path instead of an open file, py7zr starts threads that an interrupt does not stop.
        with archive.open("rb") as file, py7zr.SevenZipFile(file) as bundle:
            for member in bundle.files:
                path = PureWindowsPath(member.filename)  # splits at both kinds of slash and recognises drives
                link = member.is_symlink or member.is_junction or not (member.is_file or member.is_directory)
                if path.anchor or ".." in path.parts or link:
                    kind = " (a link or a device)" if link else ""
                    raise BadRequest(
                        f"{archive}: members must be plain files and folders inside the archive's folder, found "
                        f"{member.filename!r}{kind}; nothing was unpacked"
                    )
            size = sum(member.uncompressed for member in bundle.files)
            check_room(archive.parent, size)
            with tqdm(total=size, desc=f"unpacking {archive.name}", unit="B", unit_scale=True) as bar:
                bundle.extractall(into, callback=_Progress(bar))
    except py7zr.exceptions.ArchiveError as failure:
        raise BadRequest(f"{archive}: cannot be unpacked: {failure}; unpack it by hand") from failure


class _Progress(ExtractCallback):
    """A progress bar that shows the number of bytes that py7zr has written."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def report_update(self, decompressed_bytes: str) -> None:
        self.bar.update(int(decompressed_bytes))

    def report_start_preparation(self) -> None: ...
    def report_start(self, processing_file_path: str, processing_bytes: str) -> None: ...
    def report_end(self, processing_file_path: str, wrote_bytes: str) -> None: ...
    def report_warning(self, message: str) -> None: ...
    def report_postprocess(self) -> None: ...


def _size(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    if path.exists():
        return path.stat().st_size
    return 0


def _amount(count: float) -> str:
    """Format a number of bytes.

    >>> _amount(4_541_582_263)
    '4.54GB'
    """
    return tqdm.format_sizeof(count, "B")
