"""Fetch published data: Clotho 2.1, from its Zenodo record into a folder in the kit's layout.

    clotho(Path("data/clotho"))

leaves `clotho_captions_SPLIT.csv`, `clotho_metadata_SPLIT.csv` and the sounds in `SPLIT/`, for development, validation
and evaluation: 7 GB to fetch, 12 GB in the end, 13 GB on the way. It may be stopped at any moment, and the same call
goes on from there. What is on its way lies in `.downloads/`, which is gone when all is done.

`pooch` keeps the checksums but not the transfer: it fetches into a temporary file that it throws away when the
connection breaks, and a break in 4.5 GB is the rule rather than the exception. So `requests`, which pooch itself uses,
fetches here, and asks for the rest of a file with a Range header (RFC 9110, section 14).
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

# Seconds before each further attempt; the last outlasts Zenodo's limit on requests per minute.
WAITS = (2, 10, 60)
# Seconds without a byte after which a connection counts as broken.
TIMEOUT = 60
# Bytes read at a time, and so the most that is lost when a connection breaks.
CHUNK = 1 << 16
# Bytes of sound in a byte of archive, rounded down: 7.6 GB come out of the 4.5 GB of the development split.
UNPACKED = 1.6
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".mp3"})


@dataclass(frozen=True)
class Remote:
    """One published file.

    Attributes:
        name: Its name, in the record and on disk.
        md5: Its checksum as published, in hexadecimal.
        bytes: Its size; None where it is not known.
        split: For an archive of sounds, the split that it unpacks to; empty for a file that is kept as it is.
    """

    name: str
    md5: str
    bytes: int | None = None
    split: str = ""


# Zenodo record 4783391. Checksums: aac-datasets (datasets/functional/clotho.py), and soundata's Clotho loader has the
# same. Sizes of the archives: Zenodo's file metadata as cited in public code; nobody cites the evaluation archive's.
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
    """Complete `folder` to Clotho 2.1; do nothing when it is complete.

    A table counts as there when its checksum is right, a split when every clip of its caption table lies in `SPLIT/`
    (whether that can be decoded is for the checker to say). An archive that was fetched by other means and put in
    `folder` is used, and kept.

    Args:
        folder: Where the data goes; made if need be.
        base_url: Where the files are, for a mirror of the record.

    Raises:
        BadRequest: `folder` holds other data, the disk is too small, a file cannot be fetched or is not the published
            one, an archive cannot be unpacked safely, or another process is at work in `folder`. Nothing that was there
            is overwritten, and what was fetched is kept unless its checksum is wrong.
    """
    for remote in CLOTHO:
        if remote.split and (other := folder / f"captions_{remote.split}.csv").exists():
            raise BadRequest(f"{other}: the folder must not hold another data set; give Clotho a folder of its own")
    work = folder / ".downloads"
    # Asked before anything is written, so that a complete folder may be one that can only be read.
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
                given = folder / remote.name
                archive = given if given.exists() else work / remote.name
                _fetch(remote, archive, work, base_url)
                _unpack(archive, folder / remote.split, _clips(folder, remote.split), work)
                (work / remote.name).unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
    except filelock.Timeout:
        raise BadRequest(f"{folder}: another process is fetching into this folder; wait until it is done") from None


def _missing(folder: Path, remotes: Sequence[Remote]) -> list[Remote]:
    """Return those of `remotes` that `folder` lacks; raise BadRequest for a table that is not the published one."""

    def there(remote: Remote) -> bool:
        if not remote.split:
            return _is_published(folder / remote.name, remote)
        table, sounds = folder / f"clotho_captions_{remote.split}.csv", folder / remote.split
        if not (table.is_file() and sounds.is_dir()):
            return False
        return _clips(folder, remote.split) <= {path.name for path in sounds.iterdir() if path.is_file()}

    return [remote for remote in remotes if not there(remote)]


def _is_published(path: Path, remote: Remote) -> bool:
    """Say whether `path` exists; raise BadRequest when it does and is another file than the published one."""
    if path.exists() and (found := pooch.file_hash(path, alg="md5")) != remote.md5:
        raise BadRequest(
            f"{path}: md5 must be {remote.md5}, as published, found {found}; the file is left as it is: "
            "move it away or give another folder"
        )
    return path.exists()


def _clips(folder: Path, split: str) -> set[str]:
    """Return the file names in a split's caption table, verbatim."""
    with (folder / f"clotho_captions_{split}.csv").open(encoding="utf-8", newline="") as file:
        return {row["file_name"] for row in csv.DictReader(file)}


def _space(folder: Path, archives: Sequence[Remote]) -> int:
    """Return the bytes still needed when most are: each archive goes as soon as it is unpacked, its sounds stay."""
    most = kept = here = 0.0
    for remote in archives:
        size = remote.bytes or 0
        most, kept = max(most, kept + size * (1 + UNPACKED)), kept + size * UNPACKED
        places = (remote.name, f".downloads/{remote.name}", f".downloads/{remote.name}.part")
        here += sum(_size(folder / place) for place in places)
    return int(most - here)


def check_room(folder: Path, needed: int) -> None:
    """Raise BadRequest when the disk that holds `folder` has fewer than `needed` bytes free."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise BadRequest(
            f"{folder}: {_amount(needed)} must be free for what is still to be fetched and unpacked, found "
            f"{_amount(free)}; free some space or give a folder on another disk"
        )


def _fetch(remote: Remote, target: Path, work: Path, base_url: str) -> None:
    """Fetch `remote` to `target`, whole and checked, unless it is there; go on from what an earlier call left."""
    if _is_published(target, remote):
        return
    url, part = f"{base_url.rstrip('/')}/{remote.name}?download=1", work / f"{remote.name}.part"
    transfer(url, part, remote.name, remote.bytes, f"put it in {work.parent}")
    if (found := pooch.file_hash(part, alg="md5")) != remote.md5:
        part.unlink()
        raise BadRequest(
            f"{url}: md5 must be {remote.md5}, found {found}; what was fetched is removed. Give the same command "
            "again; if this stays, a proxy alters the file or the server has another one"
        )
    part.replace(target)


def transfer(url: str, part: Path, name: str, size: int | None, by_hand: str) -> None:
    """Complete `part` to what an address has, with a progress bar, over as many connections as it takes.

    Args:
        url: The address.
        part: What is there so far; kept when this fails, so that the same call goes on from there.
        name: What to call it.
        size: Its bytes; None where they are not known.
        by_hand: Where a user who fetches it by other means is to put it, as the end of a sentence.

    Raises:
        BadRequest: It cannot be fetched.
    """
    furthest, failures = _size(part), 0
    while size is None or _size(part) != size:
        try:
            _connect(url, part, name, size)
            return
        except requests.RequestException as failure:
            # Only failures in a row count: a long file over a poor line may take many connections.
            if _size(part) > furthest:
                furthest, failures = _size(part), 0
            if failures == len(WAITS) or not _may_pass(failure):
                so_far = _amount(_size(part)) + (f" of {_amount(size)}" if size else "")
                raise BadRequest(
                    f"{url}: cannot be fetched: {_reason(failure)}; {so_far} are in {part}. Give the same command "
                    f"again to go on from there, or fetch the file by other means and {by_hand}"
                ) from failure
            tqdm.write(f"{name}: {_reason(failure)}; again in {WAITS[failures]} s", file=sys.stderr)
            time.sleep(WAITS[failures])
            failures += 1


def _connect(url: str, part: Path, name: str, size: int | None) -> None:
    """Append to `part` what it lacks; raise requests.RequestException when the connection or the server fails."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            return  # there is nothing beyond what is here: the checksum says whether it is the file
        response.raise_for_status()
        length = int(response.headers.get("Content-Length", 0))
        start = 0  # a server that knows no ranges sends the whole file, with status 200
        if response.status_code == 206:
            said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            start = int(said[1]) if said else have
            if start > have:
                raise requests.ConnectionError(f"the server goes on at byte {start} where {have} are here")
        elif length and size and length != size and "Content-Encoding" not in response.headers:
            # A page that excuses the server must not take the place of gigabytes.
            raise requests.ConnectionError(f"the server sends {length} bytes where {size} are published")
        total = size or (start + length if length else None)
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
    """Say whether another attempt may succeed: not for a malformed address, nor when the server has no such file."""
    if failure.response is not None:
        return failure.response.status_code >= 500 or failure.response.status_code in (408, 429)
    return not isinstance(failure, ValueError)


def _reason(failure: requests.RequestException) -> str:
    """Say in a few words why a transfer failed, without the layers that requests and urllib3 wrap around it."""
    if failure.response is not None:
        return f"the server answered {failure.response.status_code} {failure.response.reason}".rstrip()
    if isinstance(failure, requests.Timeout):
        return f"no answer for {TIMEOUT} s"
    cause = failure.args[0] if failure.args else failure
    cause = getattr(cause, "reason", cause)
    args = getattr(cause, "args", ())
    return str(args[0] if args and isinstance(args[0], str) else cause)


def _unpack(archive: Path, sounds: Path, clips: set[str], work: Path) -> None:
    """Move the sound files in `archive` to the folder `sounds`, whatever folders the archive has them in.

    `sounds` appears with all of them or not at all. When it is there it is completed, and nothing in it is overwritten.

    Raises:
        BadRequest: the archive does not hold all of `clips`, or what is there differs from what it holds.
    """
    for left_behind in work.glob("unpack-*"):
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=work) as scratch:
        members, ready = Path(scratch, "members"), Path(scratch, "ready")
        ready.mkdir()
        _extract(archive, members)
        for path in sorted(members.rglob("*")):
            # macOS puts a `._NAME` beside each file, which looks like a sound and is none.
            if path.is_file() and path.suffix.lower() in SOUNDS and not path.name.startswith("._"):
                if (ready / path.name).exists():
                    raise BadRequest(f"{archive}: file names must differ, found {path.name!r} in two folders")
                path.rename(ready / path.name)
        names = {path.name for path in ready.iterdir()}
        if lacking := sorted(clips - names):
            raise BadRequest(
                f"{archive}: must hold every clip of the caption table, lacks {len(lacking)} of {len(clips)}, "
                f"{lacking[0]!r} first; nothing was unpacked"
            )
        if not sounds.exists():
            ready.rename(sounds)
            return
        common = sorted(name for name in names if (sounds / name).exists())
        differing = [name for name in common if not filecmp.cmp(ready / name, sounds / name, shallow=False)]
        if differing:
            raise BadRequest(
                f"{sounds}: {len(differing)} of the files there differ from the published ones, {differing[0]!r} "
                "first; nothing was changed: move them away and give the same command again"
            )
        for name in sorted(names.difference(common)):
            # Two steps, because SPLIT/ may be a link to another disk, where a move is a copy that can be interrupted.
            shutil.move(ready / name, sounds / f".{name}.part")
            (sounds / f".{name}.part").replace(sounds / name)


def _extract(archive: Path, into: Path) -> None:
    """Unpack every member below `into`; raise BadRequest, before anything is written, for one that could leave it."""
    try:
        # An open file rather than a path: py7zr would start threads, which nothing stops when the user interrupts.
        with archive.open("rb") as file, py7zr.SevenZipFile(file) as bundle:
            for member in bundle.files:
                path = PureWindowsPath(member.filename)  # splits at both kinds of slash and knows drives
                link = member.is_symlink or member.is_junction or not (member.is_file or member.is_directory)
                if path.anchor or ".." in path.parts or link:
                    raise BadRequest(
                        f"{archive}: members must be plain files and folders below the archive's own, found "
                        f"{member.filename!r}{' (a link or a device)' if link else ''}; nothing was unpacked"
                    )
            size = sum(member.uncompressed for member in bundle.files)
            check_room(archive.parent, size)
            with tqdm(total=size, desc=f"unpacking {archive.name}", unit="B", unit_scale=True) as bar:
                bundle.extractall(into, callback=_Progress(bar))
    except py7zr.exceptions.ArchiveError as failure:
        raise BadRequest(f"{archive}: cannot be unpacked: {failure}; unpack it by hand") from failure


class _Progress(ExtractCallback):
    """Drives a progress bar from py7zr's reports, of which only the bytes written matter."""

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
    """Return the size of a file in bytes, 0 when there is none."""
    if path.exists():
        return path.stat().st_size
    return 0


def _amount(count: float) -> str:
    """Give a number of bytes as a person reads it.

    >>> _amount(4_541_582_263)
    '4.54GB'
    """
    return tqdm.format_sizeof(count, "B")
