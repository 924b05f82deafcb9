"""The contract of a system: any importable module with these three names. There is no base class.

- `Config`: a pydantic model. Every field has a default, and unknown keys are refused (`extra="forbid"`).
- `train(config, dataset, run)`: trains on `dataset` (`evaluation.data.dataset.Dataset`) and writes into the folder of
  `run` (`systems.training.Run`).
- `load_model(checkpoint)`: returns a `Retriever` or a `Captioner` from a checkpoint of the run.

`baseline.retriever` and `baseline.captioner` are systems, and any module that Python can import may be one.
`systems check NAME` lists what a module must change to become one.

A loaded model is ready to use: it is in evaluation mode (`eval()`), and `to(device)` moves it as it moves a torch
module. It gives the same answer to the same sound or text, whatever else is in the batch.

A checkpoint may come from somebody else. If the config in it names a module, a system must call
`systems.modules.must_be_trusted` before it imports the module, as `systems.parts.encoders.load_encoder` does.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from evaluation import yamlfiles
from evaluation.data import audio
from evaluation.data.dataset import Dataset, Split
from evaluation.findings import BadRequest, Faulty, Finding, say
from evaluation.predictions import Similarity
from evaluation.text import cut, unknown_key
from systems import listing, source
from systems.listing import CONTRACT_NAMES
from systems.lock import locked
from systems.modules import NoSuchModule, UntrustedModule, imported, must_be_trusted, trusting

# torch is imported in the functions that need it, so that commands that only read names and configs answer in a second.
if TYPE_CHECKING:
    import torch

    from systems.training import Run

CLIPS_PER_BATCH = 16  # maximum number of clips in a batch
SECONDS_PER_BATCH = 480  # maximum duration of a batch, with padding; a longer clip is a batch of its own

ConfigModel = TypeVar("ConfigModel", bound=BaseModel)


class Model(Protocol):
    """A model that a system loads: a `Retriever`, a `Captioner`, or both."""

    sample_rate: int  # of the audio that it accepts, in Hz

    def to(self, device: "torch.device") -> Self:
        """Move the model to a device, and return it."""


class Retriever(Model, Protocol):
    """A model that embeds sounds and texts into one space; the dot product is their similarity."""

    def embed_audio(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
        """Embed mono sounds.

        Args:
            audio: (clips, samples) float32 in [-1, 1], zero behind each clip's end.
            lengths: (clips,) int64, samples of each clip.

        Returns:
            (clips, size) float32. A clip's embedding does not depend on the other clips or on the zeros behind it.
        """

    def embed_text(self, texts: Sequence[str]) -> "torch.Tensor":
        """Embed texts as (texts, size) float32."""


class Captioner(Model, Protocol):
    """A model that describes a sound in a sentence.

    It may also have `caption_scored(audio, lengths)`, which returns the captions and a tensor of (clips,) with their
    log-probabilities. The prediction then has a column for these.
    """

    def caption(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> list[str]:
        """Caption mono sounds. A caption is one line of text and not empty.

        Args:
            audio: As for `Retriever.embed_audio`.
            lengths: As for `Retriever.embed_audio`.
        """


def system(name: str) -> ModuleType:
    """Import a system by its module's name.

    Raises:
        BadRequest: There is no such module, or it does not define all names of the contract.
    """
    module = import_system_module(name)
    missing = [part for part in CONTRACT_NAMES if not hasattr(module, part)]
    if missing:
        message = f"the module {name} is no system: it must have {', '.join(CONTRACT_NAMES)}; found no {missing[0]}"
        raise BadRequest(f"{message}: define it")
    return module


def import_system_module(name: str) -> ModuleType:
    """Import a module by its name, whether or not it keeps the contract.

    Raises:
        BadRequest: There is no such module.
    """
    try:
        return imported(name, f"no module {name!r}")
    except NoSuchModule as error:
        if error.name != name:  # the module exists, and failed to import another one
            raise
        raise BadRequest(no_such_system(name)) from None


def no_such_system(name: str) -> str:
    """Return the message that there is no module of a name, with the system that was probably meant.

    >>> no_such_system("baseline.retreiver")
    "no module 'baseline.retreiver'; did you mean 'baseline.retriever'? give a system's import name"
    """
    meant = listing.closest_name(name)
    if meant:
        return f"no module {name!r}; did you mean {meant!r}? give a system's import name"
    return f"no module {name!r}; give a system's import name, such as baseline.retriever"


class RunConfig(BaseModel, extra="allow", frozen=True):
    """The content of a run folder's config.yaml: how the run was trained."""

    system: str = Field(min_length=1)  # import name
    seed: int = 0
    data: dict[str, str] = {}  # digest of each split
    training: dict[str, object] = {}  # Lightning's settings that affect the weights
    config: dict[str, object] = {}  # of the system


def read_run(folder: Path) -> RunConfig:
    """Read the config.yaml of a run folder.

    Raises:
        BadRequest: The folder is no run folder.
        Faulty: The file is damaged; with every finding.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give the folder of a run, such as `systems train` makes")
    return validate(RunConfig, yamlfiles.read_yaml(file), lambda key: str(file))


def load(name: str, checkpoint: Path, trusted: Collection[str] = ()) -> Any:
    """Load the model from a checkpoint that a system wrote.

    Args:
        name: The system's import name, from the run folder.
        checkpoint: The checkpoint in the run folder.
        trusted: Import names of modules that the user allows the run to name, in addition to the kit's and installed
            ones.

    Returns:
        A `Retriever` or a `Captioner`.

    Raises:
        BadRequest: The run names a module that it must not; or the checkpoint is damaged, or was written by another
            system or an older version of this one.
    """
    try:
        with trusting(trusted), weights_must_fit(checkpoint):
            must_be_trusted(name, f"no module {name!r}, which trained this run; install it")
            say(source.source_changes(checkpoint.parents[1], name))
            return system(name).load_model(checkpoint)
    except UntrustedModule as refusal:
        raise UntrustedModule(f"{checkpoint}: {refusal}") from None
    except ValidationError as invalid:
        first = invalid.errors()[0]
        key = ".".join(map(str, first["loc"]))
        must = f"must hold a config that {name} accepts now"
        advice = "put the run's own checkpoint back, or train again"
        raise BadRequest(f"{checkpoint}: {must}; found {key}: {first['msg']}: {advice}") from None


@contextlib.contextmanager
def weights_must_fit(place: Path) -> Iterator[None]:
    """Turn torch's error about weights that do not fit a model into `BadRequest`.

    Args:
        place: The checkpoint or the run folder that the weights come from, for the message.

    Raises:
        BadRequest: The block loaded weights whose names or shapes are not those of the model.
    """
    try:
        yield
    except RuntimeError as error:
        title, *differences = str(error).splitlines()
        if not title.startswith("Error(s) in loading state_dict"):
            raise
        difference = title
        if differences:
            difference = cut(differences[0].strip().rstrip("."))
        message = f"must hold weights of the model that the config describes; {difference}"
        advice = "put the run's own checkpoints back, or train into a new folder"
        raise BadRequest(f"{place}: {message}: {advice}") from None


def train(system: ModuleType, config: BaseModel, dataset: Dataset, run: "Run") -> None:
    """Train a system into a run folder, or resume the training there.

    The user chose the config, so the system may import modules that it names, such as an audio encoder.

    Args:
        system: The system's module.
        config: Its config.
        dataset: The data to train on.
        run: The run.

    Raises:
        BadRequest: Something in the request does not exist on this machine, or another process trains in the folder.
        Faulty: The folder holds another run, or the data cannot be used; with every finding.
    """
    run.check()
    say(source.source_changes(run.folder, run.system))
    with trusting(text_values(config)), locked(run.folder), weights_must_fit(run.folder):
        system.train(config, dataset, run)


def text_values(config: BaseModel) -> frozenset[str]:
    """Return every text that is a value in a config, because each could name a module."""
    texts: set[str] = set()
    waiting: list[object] = [config.model_dump(mode="json")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    return frozenset(texts)


def configure(model: type[ConfigModel], file: Path | None, settings: Sequence[str] = ()) -> ConfigModel:
    """Build a system's config from a YAML file and `key=value` settings.

    Args:
        model: The system's `Config`.
        file: The YAML file (default: the system's defaults).
        settings: The settings, which win over the file; values are YAML. `key.inner=value` sets a key of a config
            within the config.

    Raises:
        BadRequest: The file does not exist, or a setting is not of the form `key=value` or no YAML.
        Faulty: The file is no YAML mapping, or keys or values are not valid; with every finding.
    """
    return validate(model, *read_settings(file, settings))


def read_settings(file: Path | None, settings: Sequence[str]) -> tuple[dict[str, object], Callable[[str], str]]:
    """Read the values that are given for a config: a YAML file and `key=value` settings, which win.

    Args:
        file: The file, if any.
        settings: The settings. `key.inner=value` sets a key of a config within the config.

    Returns:
        The values by their keys, and a function from a key to the place where it was given, for findings.

    Raises:
        BadRequest: The file does not exist, or a setting is not of the form `key=value` or no YAML.
        Faulty: The file is no YAML mapping.
    """
    values: dict[str, object] = {}
    source = "--set"
    if file:
        values = yamlfiles.read_yaml(file)
        source = str(file)
    given = set()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadRequest(f"--set must be key=value; found {setting!r}")
        *outer, last = key.split(".")
        target = values
        for name in outer:  # a config within the config
            inner: dict[str, object] = {}
            old = target.get(name)
            if isinstance(old, dict):
                inner = dict(old)
            target[name] = inner
            target = inner
        target[last] = yamlfiles.parse_yaml_value(value, f"--set {cut(setting)}")
        given |= {key, *outer}

    def where(key: str) -> str:
        if key in given:
            return "--set"
        if not key and given and file:  # a rule over several keys
            return f"{source} with --set"
        return source

    return values, where


def validate(model: type[ConfigModel], values: Mapping[str, object], source: Callable[[str], str]) -> ConfigModel:
    """Build a config from the values of its keys.

    Args:
        model: The system's `Config`.
        values: The values that are given; other keys have their defaults.
        source: Function from a key to the place where it was given, for findings.

    Raises:
        Faulty: Keys or values are not valid; with every finding.
    """
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        findings = []
        for error in invalid.errors():
            key = ".".join(map(str, error["loc"]))
            message = f"{error['msg']}; found {cut(repr(error['input']))}"
            if error["type"] == "missing":
                message = "is missing; give it"
            elif not key:  # a rule over several keys, whose message includes what was found
                message = error["msg"].removeprefix("Value error, ")
            elif error["type"] == "extra_forbidden":
                message = unknown_key(key, list(model.model_fields))
            findings.append(Finding(source(key), column=key, message=message))
        raise Faulty(findings, status=2) from None


def similarity(model: Retriever, split: Split, *, device: "torch.device") -> Similarity:
    """Score every clip of a split for every query; only the embeddings stay in memory.

    Args:
        model: The retriever.
        split: The split, with its sounds.
        device: Where the model is.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each.
        BadRequest: Embeddings are not finite, or those of texts and clips differ in size.
    """
    import torch

    with torch.inference_mode():
        texts = model.embed_text(split.queries).float().cpu()
    require_finite(texts, split.queries, "embed_text must give finite values", "query")
    clips = embeddings(model, split, device=device)
    if clips.shape[1] != texts.shape[1]:
        message = "embed_audio and embed_text must give embeddings of one size"
        found = f"found {clips.shape[1]} values for a clip and {texts.shape[1]} for a text"
        raise BadRequest(f"{message}; {found}: correct the model")
    return Similarity(split.queries, split.file_names, (texts @ clips.T).numpy().astype(np.float32))


def embeddings(model: Retriever, split: Split, *, device: "torch.device") -> "torch.Tensor":
    """Embed every clip of a split, in its order, as (clips, size).

    Args:
        model: The retriever.
        split: The split, with its sounds.
        device: Where the model is.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each.
        BadRequest: Embeddings are not finite.
    """
    import torch

    by_index: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for indexes, sounds, lengths in audio_batches(split, model.sample_rate, "embedding"):
            embedded = model.embed_audio(sounds.to(device), lengths.to(device)).float().cpu()
            by_index.update(zip(indexes, embedded, strict=True))
    stacked = torch.stack([by_index[index] for index in range(len(split.clips))])
    require_finite(stacked, split.file_names, "embed_audio must give finite values", "clip")
    return stacked


def require_finite(values: "torch.Tensor", names: Sequence[str], must: str, what: str) -> None:
    """Make sure that every row of a model's answer is finite.

    Args:
        values: The answer, (n, …).
        names: The names of the n clips or queries.
        must: What must hold, for the message.
        what: `clip` or `query`, for the message.

    Raises:
        BadRequest: A row holds NaN or infinity; names the first such row and counts all.
    """
    import torch

    finite = torch.isfinite(values.reshape(len(names), -1)).all(dim=1)
    wrong = [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
    if wrong:
        message = f"{must}; found NaN or infinity for {len(wrong)} of {len(names)}, first the {what} {wrong[0]!r}"
        raise BadRequest(f"{message}. Nothing is written; train again, with a lower learning rate if the loss grew")


def captions(model: Captioner, split: Split, *, device: "torch.device") -> tuple[list[str], list[float] | None]:
    """Caption every clip of a split, in its order.

    Args:
        model: The captioner.
        split: The split, with its sounds.
        device: Where the model is.

    Returns:
        The captions, and their log-probabilities; None if the model does not give these.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each.
        BadRequest: The model does not give each clip one caption of one line, or a log-probability is not finite.
    """
    import torch

    by_index: dict[int, str] = {}
    log_probabilities: dict[int, float] = {}
    scored = getattr(model, "caption_scored", None)
    with torch.inference_mode():
        for indexes, sounds, lengths in audio_batches(split, model.sample_rate, "captioning"):
            if scored:
                texts, values = scored(sounds.to(device), lengths.to(device))
                clips = [split.clips[index].file_name for index in indexes]
                require_finite(values, clips, "caption_scored must give finite log-probabilities", "clip")
                log_probabilities.update(zip(indexes, values.tolist(), strict=True))
            else:
                texts = model.caption(sounds.to(device), lengths.to(device))
            if len(texts) != len(indexes):
                found = f"{len(texts)} captions for {len(indexes)} clips"
                raise BadRequest(f"caption must give one caption for each clip; found {found}: correct the model")
            for index, text in zip(indexes, texts, strict=True):
                if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                    name = split.clips[index].file_name
                    message = f"a caption must be one line of text that is not empty; found {text!r} for {name!r}"
                    raise BadRequest(f"{message}: correct the model")
                by_index[index] = text
    order = range(len(split.clips))
    in_order = [by_index[index] for index in order]
    if not scored:
        return in_order, None
    return in_order, [log_probabilities[index] for index in order]


def audio_batches(
    split: Split, sample_rate: int, label: str
) -> "Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]":
    """Load a split's sounds in batches of clips of similar length.

    Args:
        split: The split.
        sample_rate: In Hz.
        label: Label of the progress bar.

    Yields:
        The clips' indexes, their sounds as (clips, samples) with zeros behind their ends, and their lengths in samples.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each. After the first such sound, nothing is yielded.
    """
    import torch

    order = sorted(range(len(split.clips)), key=lambda index: split.clips[index].path.stat().st_size)
    findings: list[Finding] = []
    waiting: list[tuple[int, np.ndarray]] = []

    def batch() -> "tuple[list[int], torch.Tensor, torch.Tensor]":
        lengths = torch.tensor([len(sound) for _, sound in waiting])
        padded = torch.zeros(len(waiting), int(lengths.max()))
        for row, (_, sound) in enumerate(waiting):
            padded[row, : len(sound)] = torch.from_numpy(sound)
        return [index for index, _ in waiting], padded, lengths

    with tqdm(desc=label, total=len(order), unit="clip", leave=False, disable=None) as bar:
        for index in order:
            try:
                sound = audio.load_audio(split.clips[index].path, sample_rate)
            except audio.UnusableSound as reason:
                findings.append(Finding(str(split.clips[index].path), message=str(reason)))
                continue
            if findings:
                continue
            longest = max(len(sound), *(len(other) for _, other in waiting), 0)
            too_long = longest * (len(waiting) + 1) > SECONDS_PER_BATCH * sample_rate
            if waiting and (len(waiting) == CLIPS_PER_BATCH or too_long):
                yield batch()
                bar.update(len(waiting))
                waiting.clear()
            waiting.append((index, sound))
        if findings:
            raise Faulty(findings)
        if waiting:
            yield batch()
            bar.update(len(waiting))
