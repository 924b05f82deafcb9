"""What a system is: any importable module with these three names, and no base class.

- `Config`: a pydantic model; every field has a default, and unknown keys are refused (`extra="forbid"`).
- `train(config, dataset, run)`: train on `dataset` (`evaluation.data.Dataset`) into `run` (`systems.training.Run`).
- `load_model(checkpoint)`: give back a `Retriever` from a checkpoint of the run, ready to use.

`baseline.retriever` is such a module; so is any other on the path.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from evaluation import audio
from evaluation.data import Split
from evaluation.findings import BadRequest, Faulty, Finding, printable, unknown_key
from evaluation.retrieval import Similarity

MODULE_NAMES = ("Config", "train", "load_model")


class Retriever(Protocol):
    """Embeds sounds and texts into one space, where the dot product says how well they match."""

    sample_rate: int  # Hz of the audio that it takes

    def embed_audio(self, audio: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed mono sounds.

        Args:
            audio: (clips, samples) float32 in [-1, 1], zero behind each clip's end.
            lengths: (clips,) int64, samples of each clip.

        Returns:
            (clips, size) float32. A clip's embedding does not depend on the others or on the zeros behind it.
        """

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts as (texts, size) float32."""


def system(name: str) -> ModuleType:
    """Import a system by its module's name.

    Raises:
        BadRequest: There is no such module, or it lacks a part of the contract.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise BadRequest(f"no module {name!r}; give a system's import name, such as baseline.retriever") from None
        raise
    missing = [part for part in MODULE_NAMES if not hasattr(module, part)]
    if missing:
        raise BadRequest(f"the module {name} is no system: it must have {', '.join(MODULE_NAMES)}; no {missing[0]}")
    return module


def configure(model: type[BaseModel], file: Path | None, settings: Sequence[str] = ()) -> BaseModel:
    """Build a system's config from a YAML file and `key=value` settings, which win; values are YAML.

    Raises:
        BadRequest: The file does not exist or is no YAML mapping, or a setting is not of the form `key=value`.
        Faulty: Keys or values do not hold; with every finding.
    """
    values: dict[str, object] = {}
    source = str(file) if file else "--set"
    if file:
        if not file.is_file():
            raise BadRequest(f"{file}: no such file; give a YAML file of the system's config")
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadRequest(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise BadRequest(f"{file}: must be a mapping of keys to values")
    given = set()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadRequest(f"--set takes key=value; found {setting!r}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadRequest(f"--set {setting}: the value is not YAML: {' '.join(str(error).split())}") from None
        given.add(key)
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        findings = []
        for error in invalid.errors():
            key = ".".join(map(str, error["loc"]))
            message = f"{error['msg']}; found {error['input']!r}"
            if error["type"] == "extra_forbidden":
                message = unknown_key(key, list(model.model_fields))
            findings.append(Finding("--set" if key in given else source, column=key, message=message))
        raise Faulty(findings, status=2) from None


def similarity(model: Retriever, split: Split, *, device: torch.device, batch: int = 16) -> Similarity:
    """Score every query of a split against every clip.

    Clips of like length share a batch; only the embeddings stay in memory.

    Raises:
        Faulty: A sound cannot be used; with all that cannot. Or the model's embeddings do not fit together.
    """
    order = sorted(range(len(split.clips)), key=lambda index: split.clips[index].path.stat().st_size)
    embeddings: dict[int, torch.Tensor] = {}
    findings = []
    with (
        torch.inference_mode(),
        tqdm(desc="embedding", total=len(order), unit="clip", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(order), batch):
            sounds = []
            for index in order[start : start + batch]:
                try:
                    sounds.append((index, audio.load(split.clips[index].path, model.sample_rate)))
                except audio.UnusableSound as reason:
                    findings.append(Finding(str(split.clips[index].path), message=str(reason)))
            if not findings and sounds:
                lengths = torch.tensor([len(sound) for _, sound in sounds])
                padded = torch.zeros(len(sounds), int(lengths.max()))
                for row, (_, sound) in enumerate(sounds):
                    padded[row, : len(sound)] = torch.from_numpy(sound)
                batch_embeddings = model.embed_audio(padded.to(device), lengths.to(device))
                for (index, _), embedding in zip(sounds, batch_embeddings, strict=True):
                    embeddings[index] = embedding.float().cpu()
            bar.update(len(order[start : start + batch]))
        if findings:
            raise Faulty(findings)
        clips = torch.stack([embeddings[index] for index in range(len(split.clips))])
        texts = model.embed_text(split.queries).float().cpu()
    if clips.shape[1] != texts.shape[1]:
        raise BadRequest(f"embed_audio gives {clips.shape[1]} values a clip and embed_text {texts.shape[1]} a text")
    return Similarity(split.queries, split.file_names, (texts @ clips.T).numpy().astype(np.float32))


__all__ = ["MODULE_NAMES", "Retriever", "configure", "printable", "similarity", "system"]
