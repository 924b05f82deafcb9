"""The export of a trained run to a folder that can be published on the Hugging Face hub."""

import contextlib
import functools
import json
import os
import shutil
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from evaluation.data.dataset import Dataset
from evaluation.files import appearing
from evaluation.findings import WARNING, BadRequest, Finding, say
from evaluation.text import cut, first_items
from systems import contract, runs
from systems.parts.encoders.weights import unreadable
from systems.sharing import card, checkpoints
from systems.sharing.folders import (
    CONTENTS,
    FORMAT,
    RUN_FILES,
    SCORES,
    is_exported,
    relative_path,
    unpacked,
    with_replaced_texts,
)

# The entries of Lightning's checkpoints that only training needs. They are larger than the weights.
TRAINING = ("optimizer_states", "lr_schedulers", "callbacks", "loops")
MODEL = "model"  # the hub's usual name for the file of the weights
COPIED_BYTES = 100_000_000  # maximum size of the files that are copied for a path in the config
SHOWN = 5  # maximum number of paths that a warning names
WATCHED: list[set[str]] = []  # the sets of paths that `_opened_files` collects at the moment


def export(run: Path, target: Path, trusted: Collection[str] = (), dataset: Dataset | None = None) -> str:
    """Write a trained run as a folder that can be published, in the layout of the Hugging Face hub.

    The folder has everything that is needed to load the model, but no state of the training, and no pickle
    (`systems.sharing.folders` lists its files). To find out which files these are, the model is loaded. To check the
    result, it is loaded again from the new folder. The same run always gives the same bytes.

    Args:
        run: The run folder.
        target: The folder to write; it must be new or empty.
        trusted: Import names of further modules that the user allows the run to name.
        dataset: The data that the run was trained on, for the model card (default: the card only gives their digests).

    Returns:
        A text that names the folder and gives its size.

    Raises:
        BadRequest: The folder is not a trained run, it cannot be loaded, or it contains something that cannot be stored
            without pickle. Or the data are not those of the training, or `target` has files.
        Faulty: The config.yaml or a score file is damaged. The exception lists all findings.
    """
    if is_exported(run):
        raise BadRequest(f"{run}: must be a run folder; found an exported run: copy the folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadRequest(f"{target}: must be a new or empty folder; found files: give another folder")
    config = contract.read_run(run)
    card.require_training_data(run, config, dataset)
    checkpoint = runs.trained_checkpoint(run)
    runs.warn_unfinished(run)
    with _opened_files() as opened:
        model = contract.load(config.system, checkpoint, trusted)
    outside = _outside_files(run, config, opened)
    reasons = _reasons_not_to_copy(outside)
    say(_local_paths(run, config, outside, reasons))
    copied = {}
    for text in outside.keys() - reasons.keys():
        copied[text] = f"copied/{sorted(outside).index(text)}/{_absolute(text).name}"
    config = config.model_copy(update={"config": with_replaced_texts(config.config, copied)})
    needed = {checkpoint.relative_to(run), *_names_in(run, opened)} - set(map(Path, RUN_FILES))
    sources = {name: run / name for name in needed}
    for text, path in copied.items():
        for file in outside[text]:
            name = Path(path).parent / file.relative_to(_absolute(text).parent)
            sources[_checked(name)] = file

    with appearing(target) as part:
        stems: dict[str, str] = {}
        files = []
        frozen: list[str] = []
        for name in sorted(sources, key=lambda name: (sources[name] != checkpoint, name.as_posix())):
            file = sources[name]
            if checkpoints.is_pickle(file):
                stem = MODEL if file == checkpoint else name.with_suffix("").as_posix()
                stems[name.as_posix()] = stem
                state = _inference_state(file)
                if isinstance(state, dict) and "config" in state:
                    state["config"] = with_replaced_texts(state["config"], copied)
                if stem == MODEL and isinstance(state, dict) and isinstance(state.get("frozen"), dict):
                    frozen += state["frozen"]
                checkpoints.write(state, part / stem, file)
            else:
                files.append(name.as_posix())
                _copy(file, part / name)
        _copy(run / "config.yaml", part / "config.yaml")
        if copied:
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            (part / "config.yaml").write_text(text, encoding="utf-8")
        contents = {
            "library_name": card.LIBRARY,
            "format": FORMAT,
            "system": config.system,
            "tasks": runs.tasks(model),
            "checkpoints": stems,
            "files": files,
            "copied": sorted(copied.values()),
        }
        text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
        (part / CONTENTS).write_text(text, encoding="utf-8")
        text = card.write_card(run, target.name, config, runs.tasks(model), frozen, dataset)
        (part / "README.md").write_text(text, encoding="utf-8")
        if not _same_weights(model, _load_again(run, part, config.system, trusted)):
            message = "must give the same model every time it is loaded; found different weights after the export"
            raise BadRequest(f"{checkpoint}: {message}: check the system with `systems check`")
        for file in (*(run / name for name in RUN_FILES), *(run / SCORES).glob("*.json")):
            if file.is_file() and not (part / file.relative_to(run)).exists():
                _copy(file, part / file.relative_to(run))
        sizes = [file.stat().st_size for file in part.rglob("*") if file.is_file()]
    return f"{target}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB; fill in the model card, {target / 'README.md'}"


def _load_again(run: Path, folder: Path, system: str, trusted: Collection[str]) -> Any:
    """Load the model from the exported folder.

    Raises:
        BadRequest: It cannot be loaded.
    """
    try:
        with unpacked(folder) as unpacked_run:
            return contract.load(system, runs.trained_checkpoint(unpacked_run), trusted)
    except Exception as error:  # a system's `load_model` may raise any exception
        reason = cut(" ".join(str(error).split()))
        message = f"load_model of {system} must load the model from the files that Python opens in the run folder"
        raise BadRequest(
            f"{run}: {message}; it fails if only these are there ({reason}): read files with open"
        ) from error


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


# Files that loading needs ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened_files() -> Iterator[set[Path]]:
    """Within the block, collect the files that Python opens.

    Yields:
        A set, which contains the files after the block, as absolute paths. It does not contain Python's own files.
    """
    _install_hook()
    opened: set[Path] = set()
    given: set[str] = set()
    WATCHED.append(given)
    try:
        yield opened
    finally:
        WATCHED.remove(given)
        for path in map(Path, given):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                opened.add(path)


def _names_in(folder: Path, files: Collection[Path]) -> list[Path]:
    """Return the files that are in a folder, as paths relative to the folder.

    Raises:
        BadRequest: The name of a file has letters that not all systems allow.
    """
    names = []
    for file in files:
        if file.is_relative_to(os.path.abspath(folder)):  # noqa: PTH100, links are not resolved
            name = file.relative_to(os.path.abspath(folder))  # noqa: PTH100
        elif file.resolve().is_relative_to(folder.resolve()):
            name = file.resolve().relative_to(folder.resolve())
        else:
            continue
        names.append(_checked(name))
    return names


def _checked(name: Path) -> Path:
    """Return the path of a file in the exported folder.

    Raises:
        BadRequest: The name has letters that not all systems allow.
    """
    try:
        relative_path(name.as_posix())
    except ValueError:
        message = 'the name must have printable letters only, and none of \\ : * ? " < > |'
        raise BadRequest(f"{name}: {message}; rename the file") from None
    return name


def _absolute(text: str) -> Path:
    """Return the absolute path of a file or folder that a config names. Links are not resolved."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111


def _outside_files(run: Path, config: contract.RunConfig, opened: Collection[Path]) -> dict[str, list[Path]]:
    """Find the files outside the run folder that the model needs and that the config names.

    A path in the config may be a file or a folder. A file may need a second file in its folder, such as the words of an
    array, so all opened files of this folder are included. The weights in a folder are included even if a library of
    another programming language opened them, which the audit hook does not see.

    Args:
        run: The run folder.
        config: The content of its config.yaml.
        opened: The files that were opened to load the model.

    Returns:
        A dict from each path, as the config gives it, to its files.
    """
    needed = {}
    for text in sorted(contract.texts_in(config.config)):
        path = _absolute(text)
        if not text or not path.name or path.is_relative_to(run.absolute()):
            continue
        files: set[Path] = set()
        if path in opened:
            files = {file for file in opened if file.parent == path.parent}
        elif os.path.isdir(path):  # noqa: PTH112, for a text that is not a path
            files = {file for file in opened if file.is_relative_to(path)}
        if files and path not in opened:
            for pattern in ("*.safetensors", "*.bin"):
                files.update(path.rglob(pattern))
        if files:
            needed[text] = sorted(files)
    return needed


def _size(files: Collection[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _reasons_not_to_copy(outside: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Return a dict from each path in the config whose files cannot be copied to the reason."""
    reasons = {}
    for text, files in outside.items():
        size = _size(files)
        if size > COPIED_BYTES:
            reasons[text] = f"it has {size / 1e6:.0f} MB (the limit is {COPIED_BYTES / 1e6:.0f} MB)"
            continue
        for file in files:
            try:
                if checkpoints.is_pickle(file):
                    _inference_state(file)
            except BadRequest:
                reasons[text] = f"{file.name} contains objects that only pickle can store"
    return reasons


@functools.cache  # Python cannot remove a hook, so it is installed only once
def _install_hook() -> None:
    sys.addaudithook(_note_opened)


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    """Add the path of a file that is opened to the sets in `WATCHED`."""
    if event == "open" and WATCHED and isinstance(arguments[0], str):
        for given in WATCHED:
            given.add(os.path.abspath(arguments[0]))  # noqa: PTH100, because this is called for every file


def _inference_state(file: Path) -> object:
    """Read a file that torch saved, without the state of the training.

    Raises:
        BadRequest: The file contains objects that only pickle can store, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about other versions of pickle before it refuses the file
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds of exceptions
        message = "must be a file that `torch.load(…, weights_only=True)` reads, because nothing is shared as a pickle"
        raise BadRequest(f"{file}: {message} ({unreadable(error)}); save only tensors and plain values") from None
    if isinstance(state, dict) and "pytorch-lightning_version" in state:
        return {name: value for name, value in state.items() if name not in TRAINING}
    return state


def _same_weights(model: object, copy: object) -> bool:
    """Return whether two models have the same weights. Models that are not torch modules are not compared."""
    if not isinstance(model, nn.Module) or not isinstance(copy, nn.Module):
        return True
    weights, others = model.state_dict(), copy.state_dict()
    if weights.keys() != others.keys():
        return False
    return all(torch.equal(weights[name].cpu(), others[name].cpu()) for name in weights)


def _local_paths(
    run: Path, config: contract.RunConfig, outside: Collection[str], reasons: Mapping[str, str]
) -> list[Finding]:
    """Return a warning for each file that is not exported, and for paths that others should perhaps not see.

    Args:
        run: The run folder.
        config: The content of its config.yaml.
        outside: The paths in the config that the model needs.
        reasons: From each of these paths that is not exported to the reason.
    """
    file = str(run / "config.yaml")
    findings = []
    commands = _commands(config)
    for text, reason in reasons.items():
        message = f"the model needs {text}, which is not exported, because {reason}; other users must "
        if text in commands:
            message += f"fetch it with: {commands[text]}, and "
        message += "write their own path into the exported JSON files"
        findings.append(Finding(file, message=message, severity=WARNING))
    texts = contract.texts_in(config.config).difference(outside)
    private = sorted(text for text in texts if Path(text).expanduser().is_absolute())
    if private:
        message = f"the config names paths of this machine, which are exported: {first_items(private, SHOWN)}"
        findings.append(Finding(file, message=message, severity=WARNING))
    return findings


def _commands(config: contract.RunConfig) -> dict[str, str]:
    """Return a dict from each path of a published file in a config to the command that downloads the file."""
    module = contract.system(config.system)
    if not hasattr(module, "downloads"):
        return {}
    commands = {}
    for download in module.downloads(module.Config(**config.config)):
        if download.asset.name and download.fetch is None:
            for text in contract.texts_in(config.config):
                if text and Path(text).expanduser() == download.place:
                    commands[text] = f"dcase-systems download {download.asset.name}"
    return commands
