"""The interface that a module must define so that this package can train it and predict with it.

A system is any importable module that defines these three names. There is no base class.

- `Config`: a pydantic model. Every field has a default, and unknown keys are refused (`extra="forbid"`).
- `train(config, dataset, run)`: a function that trains on `dataset` (`evaluation.data.dataset.Dataset`) and writes into
  the folder of `run` (`systems.training.Run`).
- `load_model(checkpoint)`: a function that returns a `Retriever`, a `Captioner`, an `Answerer` or a `MomentFinder` from
  a checkpoint of the run.

A system that trains on questions about clips or on queries about recordings also defines the constant `DATA`, which is
"choice" or "moments". Then `dataset` has splits of this kind (`systems.asked.AskedSplit`).

A system may also define `downloads(config)`, a function that returns what a config needs from others: a list of
`evaluation.downloads.Download`. Then `dcase-systems download CONFIG.yaml` downloads the published files and models. If
training needs data besides the data folder, `training_data(config)` returns a list of them in the same form.

For example, `baseline.retriever` and `baseline.captioner` are systems. `dcase-systems check NAME` lists what must
change in a module so that it becomes a system.

A loaded model is ready to use: it is in evaluation mode (`eval()`), and its `to(device)` works like that of a torch
module. For the same clip or text, the model gives the same output, whatever else is in the batch.

A checkpoint may come from somebody else. If the config in the checkpoint names a module, the system must call
`systems.modules.must_be_trusted` before it imports that module. `systems.parts.encoders.load_encoder` does this.
"""

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
from systems.lock import is_left_over, locked
from systems.modules import NoSuchModule, UntrustedModule, imported, must_be_trusted, trusting
from systems.weight_errors import weights_must_fit

# torch is imported in the functions that need it, so that commands that only read names and configs answer in a second.
if TYPE_CHECKING:
    import torch

    from systems.training import Run

CLIPS_PER_BATCH = 16  # maximum number of clips in a batch
SECONDS_PER_BATCH = 480  # maximum total duration of a batch, with its padding; a longer clip is a batch of its own

ConfigModel = TypeVar("ConfigModel", bound=BaseModel)


class Model(Protocol):
    """A model that `load_model` returns. It may have the methods of several of the protocols below."""

    sample_rate: int  # sample rate in Hz of the audio that the model accepts

    def to(self, device: "torch.device") -> Self:
        """Move the model to a device, and return it."""


class Retriever(Model, Protocol):
    """A model that embeds clips and texts into one space; the dot product of two embeddings is their similarity."""

    def embed_audio(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
        """Embed mono audio.

        Args:
            audio: (clips, samples) float32 in [-1, 1]. Shorter clips are padded with zeros at their ends.
            lengths: (clips,) int64, the number of samples of each clip, not counting the padding.

        Returns:
            (clips, size) float32, where size is the number of values in an embedding. The embedding of a clip depends
            neither on the other clips nor on the padding.
        """

    def embed_text(self, texts: Sequence[str]) -> "torch.Tensor":
        """Embed texts.

        Args:
            texts: The texts.

        Returns:
            (texts, size) float32, where size is the same as for `embed_audio`.
        """


class Captioner(Model, Protocol):
    """A model that describes each clip in a sentence.

    The model may also have a method `caption_scored(audio, lengths)`. It returns the captions and their
    log-probabilities, a tensor of shape (clips,). If the model has this method, predictions contain a column with the
    log-probabilities.

    The model may also have a method `caption_alternatives(audio, lengths, number)`, which `dcase-systems demo` calls.
    It returns, for each clip, a list of at most `number` pairs of a caption and its log-probability, best first. The
    first caption is the one that `caption` returns.

    The model may also have an attribute `decoding`, a pydantic model with its decoding settings, and a method
    `change_decoding(decoding)`. Then `dcase-systems predict --set` can change these settings. If `decoding.candidates`
    is above 1, the alternatives of each clip are stored with the predictions. `systems.parts.generation.WordByWord`
    has all these methods.
    """

    def caption(self, audio: "torch.Tensor", lengths: "torch.Tensor") -> list[str]:
        """Caption mono audio.

        Args:
            audio: As for `Retriever.embed_audio`.
            lengths: As for `Retriever.embed_audio`.

        Returns:
            One caption for each clip. A caption is one line of text and is not blank.
        """


class Answerer(Model, Protocol):
    """A model that answers multiple-choice questions about clips."""

    def answer(
        self,
        audio: "torch.Tensor",
        lengths: "torch.Tensor",
        questions: Sequence[str],
        options: Sequence[Sequence[str]],
    ) -> list[str]:
        """Answer a question about each clip of a batch.

        Args:
            audio: As for `Retriever.embed_audio`.
            lengths: As for `Retriever.embed_audio`.
            questions: The question about each clip.
            options: The options of each question: two or more different texts.

        Returns:
            For each question, one of its options, verbatim.
        """


class MomentFinder(Model, Protocol):
    """A model that finds the moments of a long recording that a text describes."""

    def moments(self, audio: "torch.Tensor", queries: Sequence[str]) -> "list[torch.Tensor]":
        """Find the windows of one recording that answer queries.

        Args:
            audio: (samples,) float32 in [-1, 1], on the CPU. A recording may last an hour, so the model moves parts of
                it to its device.
            queries: The queries.

        Returns:
            For each query, (n, 3) values: the start and the end of each window in seconds, and its score. n is 1 to
            10. The window with the highest score is first. All windows are different, end after their start, and are
            in the recording. The windows of a query do not depend on the other queries.
        """


def system(name: str) -> ModuleType:
    """Import a system by its import name.

    Raises:
        BadRequest: There is no such module, or it does not define `Config`, `train` and `load_model`.
    """
    module = import_system_module(name)
    missing = [part for part in CONTRACT_NAMES if not hasattr(module, part)]
    if missing:
        message = f"the module {name} is not a system: it must have {', '.join(CONTRACT_NAMES)}; found no {missing[0]}"
        raise BadRequest(f"{message}: define it")
    return module


def import_system_module(name: str) -> ModuleType:
    """Import a module by its name, even if it does not define everything that a system must define.

    Raises:
        BadRequest: There is no such module.
    """
    try:
        return imported(name, f"no module {name!r}")
    except NoSuchModule as error:
        if error.name != name:  # the module exists, but it failed to import another one
            raise
        raise BadRequest(no_such_system(name)) from None


def no_such_system(name: str) -> str:
    """Return the message for a module that does not exist; it suggests the system with the most similar name.

    >>> no_such_system("baseline.retreiver")
    "no module 'baseline.retreiver'; did you mean 'baseline.retriever'? give a system's import name"
    """
    meant = listing.closest_name(name)
    if meant:
        return f"no module {name!r}; did you mean {meant!r}? give a system's import name"
    return f"no module {name!r}; give a system's import name, such as baseline.retriever"


ENSEMBLE = "systems.ensembles"  # in the config.yaml of an ensemble, in place of the import name of a system


class RunConfig(BaseModel, extra="allow", frozen=True):
    """The content of a run folder's config.yaml, which records how the run was trained."""

    system: str = Field(min_length=1)  # the system's import name
    seed: int = 0
    data: dict[str, str] = {}  # from the name of each split to its digest
    training: dict[str, object] = {}  # Lightning's settings that affect the weights
    config: dict[str, object] = {}  # the system's config


def read_run(folder: Path) -> RunConfig:
    """Read the config.yaml of a run folder.

    Raises:
        BadRequest: The folder contains no config.yaml, so it is not a run folder.
        Faulty: The file is damaged. The exception lists all findings.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give the folder of a run, such as `dcase-systems train` makes")
    return validate(RunConfig, yamlfiles.read_yaml(file), lambda key: str(file))


def foreign_files(folder: Path) -> list[Finding]:
    """Return a finding if a folder without config.yaml contains files, so that no run may be written into it."""
    if not folder.is_dir() or all(map(is_left_over, folder.iterdir())):
        return []
    message = "must be a run folder or empty; found files, but no config.yaml: give a new folder"
    return [Finding(str(folder), message=message)]


def read_model_run(folder: Path) -> RunConfig:
    """Read the config.yaml of the run folder of a model. An ensemble does not have a model.

    Raises:
        BadRequest: As for `read_run`, or the folder is that of an ensemble.
        Faulty: As for `read_run`.
    """
    run = read_run(folder)
    if run.system == ENSEMBLE:
        message = "is an ensemble of predictions, without a model; use its runs, then combine their predictions again"
        raise BadRequest(f"{folder}: {message}: dcase-systems ensemble")
    return run


def load(name: str, checkpoint: Path, trusted: Collection[str] = ()) -> Any:
    """Load the model from a checkpoint that a system wrote.

    Print a warning if the system's source code has changed since the training began.

    Args:
        name: The system's import name, from the run's config.yaml.
        checkpoint: The checkpoint, in the folder `checkpoints` of the run folder.
        trusted: Import names of further modules that the user allows the run to name. Modules of the kit and installed
            modules are always allowed.

    Returns:
        The model: a `Retriever`, a `Captioner`, an `Answerer` or a `MomentFinder`.

    Raises:
        BadRequest: The run names a module that is not allowed or does not exist. Or the checkpoint is damaged, or
            another system or an older version of this system wrote it.
    """
    try:
        with trusting(trusted), weights_must_fit(checkpoint):
            must_be_trusted(name, f"no module {name!r}, which trained this run; install it")
            say(source.source_changes(checkpoint.parents[1]))
            return system(name).load_model(checkpoint)
    except UntrustedModule as refusal:
        raise UntrustedModule(f"{checkpoint}: {refusal}") from None
    except ValidationError as invalid:
        first = invalid.errors()[0]
        key = ".".join(map(str, first["loc"]))
        must = f"must contain a config that {name} accepts now"
        advice = "put the run's own checkpoint back, or train again"
        raise BadRequest(f"{checkpoint}: {must}; found {key}: {first['msg']}: {advice}") from None


def train(system: ModuleType, config: BaseModel, dataset: Dataset, run: "Run") -> None:
    """Train a system and write the result into a run folder, or resume an interrupted training in that folder.

    The user chose the config, so the system may import modules that the config names, such as an audio encoder.

    Print a warning if the system's source code has changed since the training began. An interrupted training resumes
    with changed code only if `run.code_changed` is true.

    Args:
        system: The system's module.
        config: The system's config.
        dataset: The data to train on.
        run: The run.

    Raises:
        BadRequest: Something in the request does not exist on this machine, another process is training in the folder,
            a checkpoint in the folder is damaged, or the training may not resume because the code has changed.
        ConnectionError: Several processes train together, and another process was lost.
        Faulty: The folder contains another run, the data cannot be used, or the loss is not finite. The exception lists
            all findings.
    """
    run.check()
    with trusting(text_values(config)), locked(run.folder), weights_must_fit(run.folder):
        run.check_code()
        system.train(config, dataset, run)


def text_values(config: BaseModel) -> frozenset[str]:
    """Return all texts among the values of a config, because each text could name a module."""
    return texts_in(config.model_dump(mode="json"))


def texts_in(values: object) -> frozenset[str]:
    """Return all texts among values that are nested in dicts and lists."""
    texts: set[str] = set()
    waiting: list[object] = [values]
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
        settings: The settings, which override the file. The values are YAML. `key.inner=value` sets a key of a config
            that is nested in the config.

    Raises:
        BadRequest: The file does not exist, or a setting does not have the form `key=value` with a YAML value.
        Faulty: The file is not a YAML mapping, or keys or values are not valid. The exception lists all findings.
    """
    return validate(model, *read_settings(file, settings))


def read_settings(file: Path | None, settings: Sequence[str]) -> tuple[dict[str, object], Callable[[str], str]]:
    """Read the values that a user gives for a config: a YAML file, and `key=value` settings, which override the file.

    Args:
        file: The YAML file, if any.
        settings: The settings. `key.inner=value` sets a key of a config that is nested in the config.

    Returns:
        A dict from each given key to its value, and a function that returns where a key was given. Findings name this
        place.

    Raises:
        BadRequest: The file does not exist, or a setting does not have the form `key=value` with a YAML value.
        Faulty: The file is not a YAML mapping.
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
        for name in outer:  # a config that is nested in the config
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
        if not key and given and file:  # an error about several keys
            return f"{source} with --set"
        return source

    return values, where


def validate(model: type[ConfigModel], values: Mapping[str, object], source: Callable[[str], str]) -> ConfigModel:
    """Build a config from the values of its keys.

    Args:
        model: The system's `Config`.
        values: The values that were given. All other keys get their defaults.
        source: A function that returns where a key was given. Findings name this place.

    Raises:
        Faulty: Keys or values are not valid. The exception lists all findings.
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
            elif not key:  # an error about several keys, whose message includes what was found
                message = error["msg"].removeprefix("Value error, ")
            elif error["type"] == "extra_forbidden":
                message = unknown_key(key, list(model.model_fields))
            findings.append(Finding(source(key), column=key, message=message))
        raise Faulty(findings, status=2) from None


def similarity(model: Retriever, split: Split, *, device: "torch.device") -> Similarity:
    """Compute the similarity of every query and every clip of a split. Only the embeddings are kept in memory.

    Args:
        model: The retriever.
        split: The split; the audio files of its clips must exist.
        device: The device that the model is on.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: Embeddings are not finite, or the embeddings of texts and clips differ in size.
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
    """Embed every clip of a split.

    Args:
        model: The retriever.
        split: The split; the audio files of its clips must exist.
        device: The device that the model is on.

    Returns:
        (clips, size) float32 on the CPU: the embedding of each clip, in the order of the split.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
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
    """Make sure that every row of a model's output is finite.

    Args:
        values: The output, (n, …), where n is the number of clips or queries.
        names: The name of the clip or query of each row.
        must: The requirement, for the message.
        what: `clip` or `query`, for the message.

    Raises:
        BadRequest: Rows contain NaN or infinity. The message gives their number and the name of the first one.
    """
    import torch

    finite = torch.isfinite(values.reshape(len(names), -1)).all(dim=1)
    wrong = [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
    if wrong:
        message = f"{must}; found NaN or infinity for {len(wrong)} of {len(names)}, first the {what} {wrong[0]!r}"
        raise BadRequest(f"{message}. Nothing is written; train again, with a lower learning rate if the loss grew")


def captions(model: Captioner, split: Split, *, device: "torch.device") -> tuple[list[str], list[float] | None]:
    """Caption every clip of a split.

    Args:
        model: The captioner.
        split: The split; the audio files of its clips must exist.
        device: The device that the model is on.

    Returns:
        The captions in the order of the split, and their log-probabilities. The latter are None if the model has no
        `caption_scored`.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: The model does not give exactly one caption for each clip, a caption is blank or has several lines,
            or a log-probability is not finite.
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
                _require_caption(text, split.clips[index].file_name)
                by_index[index] = text
    order = range(len(split.clips))
    in_order = [by_index[index] for index in order]
    if not scored:
        return in_order, None
    return in_order, [log_probabilities[index] for index in order]


def _require_caption(text: object, name: str) -> None:
    """Raise BadRequest if the caption of the clip with this name is blank, has several lines, or is not a text."""
    if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
        message = f"a caption must be one line of text that is not empty; found {text!r} for {name!r}"
        raise BadRequest(f"{message}: correct the model")


def change_decoding(model: Any, name: str, values: Mapping[str, object]) -> None:
    """Change decoding settings of a loaded captioner.

    Args:
        model: The model.
        name: Import name of its system, for messages.
        values: The settings to change.

    Raises:
        BadRequest: The model has no decoding settings that can be changed.
        Faulty: Keys or values are not valid. The exception lists all findings.
    """
    if not hasattr(model, "change_decoding"):
        must = "must be a captioner whose decoding settings can be changed"
        raise BadRequest(f"{name}: {must}; found a model without change_decoding: predict with its own settings")
    present = model.decoding.model_dump()
    model.change_decoding(validate(type(model.decoding), {**present, **values}, lambda _: "decoding"))


def caption_candidates(
    model: Any, split: Split, number: int, *, device: "torch.device"
) -> list[list[tuple[str, float]]]:
    """Generate several captions for every clip of a split.

    Args:
        model: The captioner, which must have the method `caption_alternatives`.
        split: The split; the audio files of its clips must exist.
        number: Maximum number of captions of a clip.
        device: The device that the model is on.

    Returns:
        For each clip, in the order of the split, pairs of a caption and its log-probability, best first.

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings.
        BadRequest: The model does not give a caption for each clip, a caption is blank or has several lines, or a
            log-probability is not finite.
    """
    import torch

    by_index: dict[int, list[tuple[str, float]]] = {}
    with torch.inference_mode():
        for indexes, sounds, lengths in audio_batches(split, model.sample_rate, "captioning"):
            alternatives = model.caption_alternatives(sounds.to(device), lengths.to(device), number)
            for index, scored in zip(indexes, alternatives, strict=True):
                name = split.clips[index].file_name
                if not scored:
                    must = "caption_alternatives must give a caption for each clip"
                    raise BadRequest(f"{must}; found none for {name!r}: correct the model")
                for text, _ in scored:
                    _require_caption(text, name)
                values = torch.tensor([value for _, value in scored])
                names = [name] * len(scored)
                require_finite(values, names, "caption_alternatives must give finite log-probabilities", "clip")
                by_index[index] = scored
    return [by_index[index] for index in range(len(split.clips))]


def audio_batches(
    split: Split, sample_rate: int, label: str
) -> "Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]":
    """Load the audio of a split in batches. A batch contains clips whose files have similar sizes.

    Args:
        split: The split; the audio files of its clips must exist.
        sample_rate: The sample rate in Hz to which the audio is resampled.
        label: Label of the progress bar.

    Yields:
        A batch of three parts: the indices of its clips in the split; their audio of shape (clips, samples), in which
        shorter clips are padded with zeros at their ends; and the number of samples of each clip, of shape (clips,).

    Raises:
        Faulty: Audio files cannot be used. The exception lists all findings. After the first such file, the others are
            still checked, but no more batches are yielded.
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
