"""What a system is: any importable module with these three names, and no base class.

- `Config`: a pydantic model; every field has a default, and unknown keys are refused (`extra="forbid"`).
- `train(config, dataset, run)`: train on `dataset` (`evaluation.data.dataset.Dataset`) into `run`
  (`systems.training.Run`).
- `load_model(checkpoint)`: give back a `Retriever` or a `Captioner` from a checkpoint of the run, ready to use.

`baseline.retriever` and `baseline.captioner` are such modules; so is any other on the path. `systems check NAME` says
what one lacks.

A model is ready to use when it is loaded (`eval()`), moves by `to(device)` as a torch module does, and gives the same
answer to the same sound or text, whatever else is in its batch.

A checkpoint may be somebody else's. A system that imports a module which the config in a checkpoint names must call
`systems.modules.must_be_trusted` first, as `systems.parts.encoders.load_encoder` does.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

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

# torch is imported by the functions that compute: commands that read names and configs alone answer within a second.
if TYPE_CHECKING:
    import torch

    from systems.training import Run

CLIPS_PER_BATCH = 16  # clips that a model is given at once, at most
SECONDS_PER_BATCH = 480  # that they last together, padded, at most; a longer clip comes alone


class Retriever(Protocol):
    """Embeds sounds and texts into one space, where the dot product says how well they match."""

    sample_rate: int  # Hz of the audio that it takes

    def embed_audio(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
        """Embed mono sounds.

        Args:
            audio: (clips, samples) float32 in [-1, 1], zero behind each clip's end.
            lengths: (clips,) int64, samples of each clip.

        Returns:
            (clips, size) float32. A clip's embedding does not depend on the others or on the zeros behind it.
        """

    def embed_text(self, texts: Sequence[str]) -> "torch.Tensor":
        """Embed texts as (texts, size) float32."""


class Captioner(Protocol):
    """Says in a sentence what a sound holds.

    It may also have `caption_scored(audio, lengths)`, which gives the captions and (clips,) their log-probabilities;
    predictions then have these in a column of their own.
    """

    sample_rate: int  # Hz of the audio that it takes

    def caption(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> list[str]:
        """Caption mono sounds, given as to `Retriever.embed_audio`; a caption is one line, and not empty."""


def system(name: str) -> ModuleType:
    """Import a system by its module's name.

    Raises:
        BadRequest: There is no such module, or it lacks a part of the contract.
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
    """The config.yaml of a run folder: how the run was trained."""

    system: str = Field(min_length=1)  # import name
    seed: int = 0
    data: dict[str, str] = {}  # digest of each split
    training: dict[str, object] = {}  # Lightning's settings that affect the weights
    config: dict[str, object] = {}  # of the system


def read_run(folder: Path) -> RunConfig:
    """Read the config.yaml of a run folder.

    Raises:
        BadRequest: The folder is no run.
        Faulty: The file is damaged; with every finding.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give the folder of a run, such as `systems train` makes")
    return validate(RunConfig, yamlfiles.read_yaml(file), lambda key: str(file))


def load(name: str, checkpoint: Path, trusted: Collection[str] = ()) -> object:
    """Load the model of a checkpoint that a system wrote.

    Args:
        name: The system's import name, as the run folder says.
        checkpoint: The checkpoint in the run folder.
        trusted: Import names of modules that the user allows the run to name, beside the kit's and installed ones.

    Raises:
        BadRequest: The run names a module that it must not, another system wrote the checkpoint or an older one, or it
            is damaged.
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
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        message = f"the config in it is none of {name} as it is now ({found}); put the run's own back, or train again"
        raise BadRequest(f"{checkpoint}: {message}") from None


@contextlib.contextmanager
def weights_must_fit(place: Path) -> Iterator[None]:
    """Turn torch's error about weights that do not fit a model into a request that was wrong.

    Args:
        place: The checkpoint or the run folder that the weights are from, for the message.

    Raises:
        BadRequest: The block loaded weights of other names or shapes than the model has.
    """
    try:
        yield
    except RuntimeError as error:
        title, *differences = str(error).splitlines()
        if not title.startswith("Error(s) in loading state_dict"):
            raise
        first = cut(differences[0].strip().rstrip(".")) if differences else title
        message = f"must hold weights of the model that the config describes; {first}"
        advice = "put the run's own checkpoints back, or train into a new folder"
        raise BadRequest(f"{place}: {message}: {advice}") from None


def train(system: ModuleType, config: BaseModel, dataset: Dataset, run: "Run") -> None:
    """Train a system into a run folder, or resume the training there.

    The user chose the config, so the system may import modules that it names, such as an audio encoder.

    Args:
        system: The system's module.
        config: Its config.
        dataset: What to train on.
        run: The run.

    Raises:
        BadRequest: What is asked for does not exist on this machine, or another process trains in the folder.
        Faulty: The folder holds another run, or the data cannot be used; with every finding.
    """
    run.check()
    say(source.source_changes(run.folder, run.system))
    with trusting(text_values(config)), locked(run.folder), weights_must_fit(run.folder):
        system.train(config, dataset, run)


def text_values(config: BaseModel) -> frozenset[str]:
    """Return every text that is a value in a config: all that could name a module."""
    found: set[str] = set()
    waiting: list[object] = [config.model_dump(mode="json")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    return frozenset(found)


def configure(model: type[BaseModel], file: Path | None, settings: Sequence[str] = ()) -> BaseModel:
    """Build a system's config from a YAML file and `key=value` settings, which win; values are YAML.

    `key.inner=value` sets a key of a config within the config.

    Raises:
        BadRequest: The file does not exist, or a setting is not of the form `key=value` or no YAML.
        Faulty: The file is no YAML mapping, or keys or values do not hold; with every finding.
    """
    return validate(model, *read_settings(file, settings))


def read_settings(file: Path | None, settings: Sequence[str]) -> tuple[dict[str, object], Callable[[str], str]]:
    """Read what is given of a config: a YAML file and `key=value` settings, which win.

    Args:
        file: The file, if any.
        settings: The settings. `key.inner=value` sets a key of a config within the config.

    Returns:
        The values by their keys, and a function that returns where a key was given, for findings.

    Raises:
        BadRequest: The file does not exist, or a setting is not of the form `key=value` or no YAML.
        Faulty: The file is no YAML mapping.
    """
    values = yamlfiles.read_yaml(file) if file else {}
    source = str(file) if file else "--set"
    given = set()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadRequest(f"--set takes key=value; found {setting!r}")
        *outer, last = key.split(".")
        place = values
        for name in outer:  # of a config within the config; the model refuses values that are no mapping
            inner = place.get(name)
            place[name] = dict(inner) if isinstance(inner, dict) else {}
            place = place[name]
        place[last] = yamlfiles.parse_yaml_value(value, f"--set {cut(setting)}")
        given |= {key, *outer}

    def where(key: str) -> str:
        if key in given:
            return "--set"
        if not key and given and file:  # a rule over several keys
            return f"{source} with --set"
        return source

    return values, where


def validate(model: type[BaseModel], values: Mapping[str, object], source: Callable[[str], str]) -> BaseModel:
    """Build a config from its keys' values.

    Args:
        model: The system's `Config`.
        values: What is given of it.
        source: Says where a key was given, for findings.

    Raises:
        Faulty: Keys or values do not hold; with every finding.
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
            elif not key:  # a rule over several keys, whose message says what it found
                message = error["msg"].removeprefix("Value error, ")
            elif error["type"] == "extra_forbidden":
                message = unknown_key(key, list(model.model_fields))
            findings.append(Finding(source(key), column=key, message=message))
        raise Faulty(findings, status=2) from None


def similarity(model: Retriever, split: Split, *, device: "torch.device") -> Similarity:
    """Score every query of a split against every clip; only the embeddings stay in memory.

    Raises:
        Faulty: A sound cannot be used; with all that cannot.
        BadRequest: The model's embeddings do not fit together.
    """
    import torch

    with torch.inference_mode():
        texts = model.embed_text(split.queries).float().cpu()
    require_finite(texts, split.queries, "embed_text must give finite values", "query")
    clips = embeddings(model, split, device=device)
    if clips.shape[1] != texts.shape[1]:
        raise BadRequest(f"embed_audio gives {clips.shape[1]} values a clip and embed_text {texts.shape[1]} a text")
    return Similarity(split.queries, split.file_names, (texts @ clips.T).numpy().astype(np.float32))


def embeddings(model: Retriever, split: Split, *, device: "torch.device") -> "torch.Tensor":
    """Embed every clip of a split, in its order, as (clips, size).

    Raises:
        Faulty: A sound cannot be used; with all that cannot.
    """
    import torch

    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for indexes, sounds, lengths in audio_batches(split, model.sample_rate, "embedding"):
            embedded = model.embed_audio(sounds.to(device), lengths.to(device)).float().cpu()
            found.update(zip(indexes, embedded, strict=True))
    stacked = torch.stack([found[index] for index in range(len(split.clips))])
    require_finite(stacked, split.file_names, "embed_audio must give finite values", "clip")
    return stacked


def require_finite(values: "torch.Tensor", names: Sequence[str], must: str, what: str) -> None:
    """Make sure that every row of a model's answer is finite.

    Args:
        values: (n, …) the answer.
        names: The n clips or queries that it answers.
        must: What must hold, for the message.
        what: `clip` or `query`, for the message.

    Raises:
        BadRequest: A row holds NaN or infinity; names the first and counts the others.
    """
    import torch

    finite = torch.isfinite(values.reshape(len(names), -1)).all(dim=1)
    wrong = [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
    if wrong:
        message = f"{must}; found NaN or infinity for {len(wrong)} of {len(names)}, first the {what} {wrong[0]!r}"
        raise BadRequest(f"{message}. Nothing is written; train again, with a lower learning rate if the loss grew")


def captions(model: Captioner, split: Split, *, device: "torch.device") -> tuple[list[str], list[float] | None]:
    """Caption every clip of a split, in its order; with log-probabilities where the model gives them.

    Raises:
        Faulty: A sound cannot be used; with all that cannot.
        BadRequest: The model does not give each clip one caption of one line.
    """
    import torch

    found: dict[int, str] = {}
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
                raise BadRequest(f"caption gives {len(texts)} captions for {len(indexes)} clips; it must give each one")
            for index, text in zip(indexes, texts, strict=True):
                if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                    name = split.clips[index].file_name
                    raise BadRequest(f"a caption must be one line of text, and not empty; that of {name!r} is {text!r}")
                found[index] = text
    order = range(len(split.clips))
    in_order = [found[index] for index in order]
    if not scored:
        return in_order, None
    return in_order, [log_probabilities[index] for index in order]


def audio_batches(
    split: Split, sample_rate: int, label: str
) -> "Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]":
    """Load a split's sounds, clips of like length together.

    Args:
        split: The split.
        sample_rate: In Hz.
        label: Of the progress bar.

    Yields:
        Indexes of clips, their sounds as (clips, samples) with zeros behind their ends, and their lengths in samples.

    Raises:
        Faulty: A sound cannot be used; with all that cannot. After the first that cannot, none is yielded.
    """
    import torch

    order = sorted(range(len(split.clips)), key=lambda index: split.clips[index].path.stat().st_size)
    findings: list[Finding] = []
    waiting: list[tuple[int, np.ndarray]] = []

    def together() -> "tuple[list[int], torch.Tensor, torch.Tensor]":
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
                yield together()
                bar.update(len(waiting))
                waiting.clear()
            waiting.append((index, sound))
        if findings:
            raise Faulty(findings)
        if waiting:
            yield together()
            bar.update(len(waiting))


__all__ = [
    "Captioner",
    "Retriever",
    "captions",
    "configure",
    "embeddings",
    "similarity",
    "system",
    "train",
]
