"""Folders that `systems export` wrote: where they come from, and how a model is loaded from them.

Such a folder has the layout of a repository of the Hugging Face hub:

    README.md            the model card, which is for people and is not read
    config.json          which run folder the other files make (`Contents`)
    model.safetensors    the tensors of the checkpoint (`systems.sharing.checkpoints`)
    model.json           the other values of the checkpoint
    config.yaml, sources.yaml, system.yaml, scores/    as in the run folder
    words.bin, …         the other files of the run folder that the system's `load_model` reads
    copied/              the files outside the run folder that the config names and `load_model` reads

A system's `load_model` reads a run folder. Therefore `unpacked` makes a temporary run folder, which has the checkpoints
that `torch.save` writes. No pickle of the shared folder is read.
"""

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from evaluation.downloads import hub_cache
from evaluation.findings import BadRequest, Faulty, say
from evaluation.hub import hub_name
from evaluation.text import cut
from systems import contract, source

# torch is imported in the functions that need it, so that wrong requests are answered in a second.

FORMAT = 1  # version of the layout
CONTENTS = "config.json"
CONTENTS_BYTES = 2**20  # maximum size of config.json
RUN_FILES = ("config.yaml", source.FILE, "system.yaml")
SCORES = "scores"


def relative_path(name: str) -> str:
    """Return a path that is in the folder and has the form that `systems export` writes.

    Raises:
        ValueError: The path may lead out of the folder, or has another form.
    """
    path = PurePosixPath(name)
    has_odd_letters = any(letter in '\\:*?"<>|' or not letter.isprintable() for letter in name)
    if has_odd_letters or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise ValueError("must be a path in the folder")
    return name


RelativePath = Annotated[str, AfterValidator(relative_path)]


class Contents(BaseModel):
    """The content of config.json that is read. The other keys are for people.

    Attributes:
        format: The version of the layout.
        checkpoints: A dict from the path of each checkpoint in the run folder to the path of its two files in this
            folder, without their extension.
        files: The paths of further files, which are the same in the run folder.
        copied: The texts in the checkpoints' configs that are paths in this folder, such as `copied/0/glove.txt`. They
            stand in place of paths on the machine on which the run was exported.
    """

    model_config = ConfigDict(strict=True)

    format: Literal[1]
    checkpoints: dict[RelativePath, RelativePath]
    files: list[RelativePath] = []
    copied: list[RelativePath] = []

    @property
    def paths(self) -> list[str]:
        """The paths of all files in this folder that are needed to load the model, or to make a package."""
        paths = [CONTENTS, *RUN_FILES, *self.files]
        for stem in self.checkpoints.values():
            paths += [f"{stem}.safetensors", f"{stem}.json"]
        return paths

    def with_absolute_paths(self, config: Any, folder: Path) -> Any:
        """Return a config with the absolute path in `folder` in place of each of the paths `copied`."""
        return with_replaced_texts(config, {path: str((folder / path).absolute()) for path in self.copied})


def with_replaced_texts(values: Any, texts: Mapping[str, str]) -> Any:
    """Return values that are nested in dicts, lists and tuples, with other texts in place of some texts.

    Args:
        values: The values, which are not changed.
        texts: A dict from each text to the text that replaces it.
    """
    if isinstance(values, str):
        return texts.get(values, values)
    if isinstance(values, dict):
        return {key: with_replaced_texts(value, texts) for key, value in values.items()}
    if isinstance(values, list):
        return [with_replaced_texts(value, texts) for value in values]
    if isinstance(values, tuple):
        return tuple(with_replaced_texts(value, texts) for value in values)
    return values


def is_exported(folder: Path) -> bool:
    """Return whether a folder was written by `systems export`. Run folders do not have a config.json."""
    return (folder / CONTENTS).is_file()


def read_contents(folder: Path) -> Contents:
    """Read the config.json of an exported folder.

    Raises:
        BadRequest: The file is missing or damaged, or a newer version of the kit wrote it.
    """
    file = folder / CONTENTS
    must = f"{file}: must be written by `systems export`"
    advice = "give the folder of a run, or a folder or hub name of an exported run"
    try:
        with file.open("rb") as stream:
            text = stream.read(CONTENTS_BYTES)
        return Contents.model_validate_json(text)
    except FileNotFoundError:
        raise BadRequest(f"{file}: no such file; {advice}") from None
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = f"{key}: {first['msg']}" if key else first["msg"]
        raise BadRequest(f"{must}; found {cut(found)}: {advice}") from None


def find(given: Path) -> Path:
    """Return a folder as it is, or download the folder that a name on the hub stands for.

    Args:
        given: A folder, or `USER/NAME`.

    Returns:
        The folder. For a name on the hub, it is in the hub's cache and must not be changed.

    Raises:
        BadRequest: The download fails, or the repository was not written by `systems export`.
    """
    name = hub_name(given)
    if name is None:
        return given
    # First only the small file, so that a repository of another kind, which may be large, is not downloaded.
    folder = _download(name, [CONTENTS])
    contents = read_contents(folder)
    return _download(name, [*(glob.escape(path) for path in contents.paths), f"{SCORES}/*.json"])


def _download(name: str, patterns: list[str]) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, cache_dir=hub_cache(), allow_patterns=patterns))
    except Exception as failure:  # exceptions of the hub's library, of its connections, or of the system
        reason = cut(" ".join(str(failure).split()))
        message = f"{name}: no such folder, and cannot be downloaded from the Hugging Face hub"
        raise BadRequest(f"{message} ({reason}); give a run folder, or USER/NAME of an exported run") from None


@contextlib.contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """Yield a run folder from which a system's `load_model` can load the model.

    A run folder is yielded as it is. For an exported folder, this is a temporary run folder, which exists within the
    block. Messages of exceptions in the block name the files of the exported folder in place of the temporary ones.
    Print a warning if the source code of the system of an exported folder has changed since its training.

    Args:
        folder: A run folder, or a folder that `systems export` wrote.

    Raises:
        BadRequest: A file of the exported folder is missing or damaged, or is a pickle.
        Faulty: The config.yaml of the exported folder is damaged. The exception lists all findings.
    """
    if not is_exported(folder):
        yield folder
        return
    contents = read_contents(folder)
    contract.read_run(folder)
    with tempfile.TemporaryDirectory(prefix="run-") as temporary:
        run = Path(temporary)
        names = {str(run / name): str(folder / f"{stem}.safetensors") for name, stem in contents.checkpoints.items()}
        with _naming({**names, str(run): str(folder)}):
            _unpack(folder, contents, run)
            # The temporary folder has no sources.yaml, so that this warning is printed once and names `folder`.
            say(source.source_changes(folder))
            yield run


def _unpack(folder: Path, contents: Contents, run: Path) -> None:
    """Write the run folder that an exported folder stands for, except for its scores."""
    from systems.sharing import checkpoints
    from systems.training import save_tensors

    for name in (*RUN_FILES, *contents.files):
        original = folder / name
        if not original.is_file():
            if name in RUN_FILES:
                continue
            raise BadRequest(f"{original}: no such file; {checkpoints.DAMAGED}")
        if name == source.FILE:
            continue
        if checkpoints.is_pickle(original):
            message = "must not be a pickle, because loading a pickle runs its code"
            raise BadRequest(f"{original}: {message}; do not use this folder, or export the run again")
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, run / name)
    for name, stem in contents.checkpoints.items():
        state = checkpoints.read(folder / stem)
        if isinstance(state, dict) and "config" in state:
            state["config"] = contents.with_absolute_paths(state["config"], run)
        save_tensors(state, run / name)


@contextlib.contextmanager
def _naming(names: dict[str, str]) -> Iterator[None]:
    """Within the block, replace the names of files in the messages of exceptions.

    Args:
        names: A dict from each name to the name that replaces it. A name that begins with another one comes first.
    """

    def renamed(text: str) -> str:
        for name, other in names.items():
            text = text.replace(name, other)
        return text

    try:
        yield
    except BadRequest as error:
        error.args = tuple(renamed(str(argument)) for argument in error.args)
        raise
    except Faulty as error:
        findings = [
            replace(finding, file=renamed(finding.file), message=renamed(finding.message)) for finding in error.findings
        ]
        raise Faulty(findings, error.status) from None
