"""Downloading published files and models, with a table that shows which of them are missing.

`dcase-evaluation download` and `dcase-systems download` both use this module. A file goes to a folder that the caller
chooses, such as `files.cache_folder()`. A model goes to the cache of the Hugging Face hub, where other programs also
find it.

- An interrupted download of a file is kept, and the next call resumes it. The hub's library resumes models.
- A file with the wrong checksum is removed. If the checksum of the published file is not known, the table says
  `unverified`, and the SHA-256 is printed after the download, so that users can compare it.
- Downloaded files are not loaded or unpickled. Models are downloaded only as safetensors.
"""

import contextlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import table

NOT_KNOWN = "not known"
UNVERIFIED = "unverified"
REMOVED = "the download is removed; run the same command again"
WEIGHTS = "model.safetensors"
# Patterns of the files that are downloaded in addition to a model's weights, if the hub has them.
SMALL_FILES = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "[0-9]_*/config.json",
    "[0-9]_*/model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# Large models have several files of weights. Their index comes last, because it marks a complete model.
STEPS = (SMALL_FILES, ("model*.safetensors",), ("model.safetensors.index.json",))


@dataclass(frozen=True)
class Asset:
    """A file or model that others publish.

    Attributes:
        title: Name of the asset in messages.
        source: URL of the file, or name of the model on the hub.
        bytes: Approximate size of the download; 0 if it is not known.
        licence: The licence; empty if the publishers do not state one.
        name: Name of the asset for `dcase-systems download`; empty if another command downloads it.
        checksum: An algorithm and the digest of the published file, such as `md5:541141fa…`. The digest may be only the
            first digits. Empty if the digest is not known.
    """

    title: str
    source: str
    bytes: int
    licence: str = ""
    name: str = ""
    checksum: str = ""

    @property
    def size(self) -> str:
        """The size in MB or GB.

        >>> Asset("", "", 268_000_000).size, Asset("", "", 1_420_000_000).size, Asset("", "", 5_000).size
        ('about 268 MB', 'about 1.4 GB', 'about 5 kB')
        """
        if not self.bytes:
            return NOT_KNOWN
        if self.bytes >= 1e9:
            return f"about {self.bytes / 1e9:.1f} GB"
        if self.bytes >= 1e6:
            return f"about {self.bytes / 1e6:.0f} MB"
        return f"about {self.bytes / 1e3:.0f} kB"

    @property
    def file_name(self) -> str:
        """The name of the published file, or the name of the model without USER/.

        >>> Asset("", "https://example.org/files/Cnn14_mAP%3D0.431.pth?download=1", 0).file_name
        'Cnn14_mAP=0.431.pth'
        """
        return unquote(self.source.rpartition("/")[2].partition("?")[0])


@dataclass(frozen=True)
class Download:
    """An asset, with its place on this machine and a function that downloads it.

    Attributes:
        asset: The asset.
        place: The file or folder to which the asset is downloaded.
        locate: A function that returns the file or folder of the asset on this machine, or None.
        fetch: A function that downloads the asset, and raises BadRequest if this fails. None if the kit cannot download
            the asset. Then the user must follow `advice`.
        advice: What the user must do if `fetch` is None.
    """

    asset: Asset
    place: Path
    locate: Callable[[], Path | None]
    fetch: Callable[[], None] | None = None
    advice: str = ""


def download_missing(downloads: Sequence[Download], dry_run: bool = False) -> None:
    """Print a table of all assets, and download those that are not on this machine.

    If a download fails, the other assets are still downloaded.

    Args:
        downloads: The assets.
        dry_run: If true, only print the table, and what the user must do for assets that the kit cannot download.

    Raises:
        BadRequest: One asset cannot be downloaded.
        Faulty: Several assets cannot be downloaded. The exception lists all of them.
    """
    if not downloads:
        print("nothing to download: no published files or models are needed")
        return
    located = [download.locate() for download in downloads]
    rows = [_row(download, path) for download, path in zip(downloads, located, strict=True)]
    print(table(rows, ["asset", "size", "licence", "checksum", "file or name on the hub", "folder", "state"]))
    if dry_run:
        for download, path in zip(downloads, located, strict=True):
            if path is None and download.fetch is None:
                print(f"{download.asset.title}: {download.advice}")
        return
    failures: list[tuple[str, BadRequest]] = []
    for download, path in zip(downloads, located, strict=True):
        if path is not None:
            continue
        try:
            _download(download)
        except BadRequest as failure:
            failures.append((download.asset.title, failure))
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        raise Faulty([Finding(title, message=str(failure)) for title, failure in failures], status=2)


def _row(download: Download, path: Path | None) -> list[str]:
    """Return the row of the table for an asset. It is at `path`, or is missing if `path` is None."""
    asset = download.asset
    if path is not None:
        state = "already here"
    elif download.fetch is None:
        state = "missing; by hand"
    else:
        state = "missing"
    name = asset.source if _is_on_hub(asset) else asset.file_name
    folder = download.place
    if path is not None and path != download.place and not _is_on_hub(asset):
        folder = path
    if folder.name == name:
        folder = folder.parent
    checksum = asset.checksum.partition(":")[0] or UNVERIFIED
    if download.fetch is None:
        checksum = "-"
    return [
        asset.title,
        asset.size,
        asset.licence or NOT_KNOWN,
        checksum,
        name,
        _with_tilde(folder),
        state,
    ]


def _is_on_hub(asset: Asset) -> bool:
    return "://" not in asset.source


def _with_tilde(path: Path) -> str:
    """Return a path as text, with `~` in place of the user's home folder."""
    home = Path.home()
    if path.is_relative_to(home):
        return str(Path("~") / path.relative_to(home))
    return str(path)


def _download(download: Download) -> None:
    """Download an asset, and print its place. If the checksum is not known, also print the SHA-256."""
    asset = download.asset
    if download.fetch is None:
        raise BadRequest(download.advice)
    print(f"\n{asset.title}: fetching it from {asset.source}", flush=True)
    download.fetch()
    path = download.locate()
    if path is None and _is_on_hub(asset):
        raise BadRequest(
            f"{asset.source}: must have config.json, a tokeniser and weights as safetensors on the hub; found no such "
            "model: choose another one, or convert it, because the kit does not download pickles"
        )
    if path is None:
        raise BadRequest(
            f"{asset.source}: the download in {download.place} is incomplete; remove it and download it again"
        )
    print(f"{asset.title}: ready in {path}", flush=True)
    if not asset.checksum:
        for file in _large_files(path):
            print(f"  {UNVERIFIED}: sha256 {file_digest(file)} of {file.name}", flush=True)


def _large_files(path: Path) -> list[Path]:
    """Return the files whose SHA-256 is printed: the file itself, or the weights in a folder, or all its files."""
    if path.is_file():
        return [path]
    return sorted(path.glob("*.safetensors")) or sorted(file for file in path.iterdir() if file.is_file())


# Files ---------------------------------------------------------------------------------------------------------------


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """Return a digest of a file in hexadecimal."""
    import pooch  # its import takes a quarter of a second

    return pooch.file_hash(file, alg=algorithm)


def fetch_file(asset: Asset, target: Path, member: str = "") -> None:
    """Download a file to `target`, or resume its download, with a progress bar.

    Args:
        asset: The file.
        target: The path to write.
        member: The member of a zip archive to write to `target` (default: `target` is the downloaded file itself).

    Raises:
        BadRequest: The file cannot be downloaded, or differs from the published one; or the disk does not have enough
            space; or another process is downloading the file. An incomplete file is kept to resume the download, and
            a wrong file is removed.
    """
    with received(asset, target) as part:
        _check(part, asset)
        if member:
            extract_members(part, {member: target}, REMOVED)
        else:
            part.replace(target)


def _check(file: Path, asset: Asset) -> None:
    """Make sure that a downloaded file is the published one.

    If the checksum is not known, the file must have at least half of the published size. This detects error pages that
    a server or proxy sends instead of the file.

    Raises:
        BadRequest: The checksum or the size is wrong.
    """
    algorithm, _, digest = asset.checksum.partition(":")
    if digest:
        found = file_digest(file, algorithm)
        if not found.startswith(digest):
            raise BadRequest(f"{asset.source}: {algorithm} must be {digest}, as published, found {found}; {REMOVED}")
    elif file.stat().st_size < asset.bytes / 2:
        raise BadRequest(f"{asset.source}: must be {asset.size}, found {file.stat().st_size} bytes; {REMOVED}")


@contextlib.contextmanager
def received(asset: Asset, target: Path) -> Iterator[Path]:
    """Download the file of an asset to a folder next to `target`, and yield the path of the downloaded file.

    An interrupted download is kept, so that it can be resumed. If the block has not moved the file, the file is removed
    after the block. It is also removed if the block raises BadRequest, but not after another exception.
    """
    import filelock

    from evaluation.data import download

    work = target.parent / ".downloads"
    work.mkdir(parents=True, exist_ok=True)
    part, lock = work / f"{target.name}.part", work / f"{target.name}.lock"
    needed = asset.bytes
    if asset.file_name.endswith(".zip"):
        needed *= 2  # assume that the unpacked files are as large as the archive
    if part.exists():
        needed -= part.stat().st_size
    try:
        with filelock.FileLock(lock, timeout=0):
            try:
                download.check_room(work, needed)
                download.transfer(asset.source, part, target.name, None, f"put it at {target}")
                try:
                    yield part
                except BadRequest:
                    part.unlink(missing_ok=True)
                    raise
                part.unlink(missing_ok=True)
            finally:
                if not part.exists():
                    lock.unlink(missing_ok=True)
    except filelock.Timeout:
        raise BadRequest(f"{target}: another process is downloading it; wait until it has finished") from None
    finally:
        with contextlib.suppress(OSError):  # the folder may contain unfinished downloads
            work.rmdir()


def extract_members(archive: Path, targets: Mapping[str, Path], advice: str) -> None:
    """Write members of a zip archive to the given paths. If one member fails, none is written.

    Args:
        archive: The archive.
        targets: A dict from the name of each member to the path to write. Names in the archive do not affect the paths.
        advice: What to do if the archive is damaged, for the message.

    Raises:
        BadRequest: The archive is damaged or does not have these members.
    """
    try:
        with zipfile.ZipFile(archive) as bundle, contextlib.ExitStack() as stack:
            for member, target in targets.items():
                part = stack.enter_context(replacing(target))
                with bundle.open(member) as source, part.open("wb") as file:
                    shutil.copyfileobj(source, file)  # also checks the checksum of each member
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, NotImplementedError) as failure:
        reason = str(failure.args[0] if failure.args else failure)
        raise BadRequest(f"{archive}: is not the published archive ({reason}); {advice}") from None


# Models on the hub ---------------------------------------------------------------------------------------------------


def hub_cache() -> Path:
    """Return the folder of the Hugging Face hub's cache."""
    try:
        from huggingface_hub import constants  # quick to import; reads the environment variables
    except ModuleNotFoundError:
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    return Path(constants.HF_HUB_CACHE)


def hub_folder(name: str) -> str:
    """Return the name of a model's folder in the hub's cache."""
    return f"models--{name.replace('/', '--')}"


def fetch_model(name: str, steps: Sequence[Sequence[str]] = STEPS) -> None:
    """Download a model from the hub to the hub's cache, or resume its download.

    Args:
        name: The model's name on the hub.
        steps: Patterns of the files to download. The files of a step are downloaded before those of the next step. The
            files that mark a complete model must come last.

    Raises:
        BadRequest: The model cannot be downloaded.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        for patterns in steps:
            snapshot_download(name, cache_dir=hub_cache(), allow_patterns=list(patterns))
    except Exception as failure:  # the hub's library, its connections and the system raise exceptions of many types
        reason = " ".join(str(failure).split())[:300]
        raise BadRequest(
            f"{constants.ENDPOINT}/{name}: cannot be downloaded: {reason}. Run the same command again to resume, "
            f"or copy the folder {hub_folder(name)} from another machine's hub cache to {hub_cache()}"
        ) from failure
