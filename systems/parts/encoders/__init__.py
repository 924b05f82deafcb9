"""Audio encoders: modules of the HEAR 2021 kind, ours and anybody's.

Such a module has `load_model(path)`, `get_timestamp_embeddings(audio, model)` and `get_scene_embeddings(audio, model)`;
its model has `sample_rate`, `timestamp_embedding_size` and `scene_embedding_size`.

    encoder = encoders.load_encoder("yamnet", hop=480)          # or "hear21passt.base", or any other that is installed
    sequences = encoder(audio, lengths)                    # a list of (timestamps, size)

Ours, each in a module of its own, take their `hop` in ms and want the weights that their authors published:

    name     rate of the audio    embedding    window      step
    cnn14    32 kHz               2048         the clip    320 ms
    yamnet   16 kHz               1024         0.975 s     any, 960 ms
    vggish   16 kHz                128         0.975 s     any, 960 ms
    openl3   48 kHz                512         1 s         any, 1000 ms
    coala    44.1 kHz             1152         2.2 s       any, 2234 ms

Source: the HEAR 2021 API, hearbenchmark.com/hear-api.html, and what its validator (hearvalidator 2021.0.6) checks.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import ModuleType

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.modules import imported, must_be_trusted
from systems.parts.digests import weights_digest

NAMES = ("cnn14", "coala", "openl3", "vggish", "yamnet")
FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")
ATTRIBUTES = ("sample_rate", "timestamp_embedding_size", "scene_embedding_size")
Option = bool | int | float | str  # the value of a keyword argument of a module's `load_model`
ARITHMETIC = 1  # counts up when the same weights give other embeddings, so that no cache mixes the two


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder and what is asked of it.

    Attributes:
        name: As it was asked for.
        module: The HEAR module.
        model: Its model, on any device.
        hop: ms between timestamps; None is the module's own.
        scene: One embedding a clip instead of a sequence.
        options: Keyword arguments that the module's `load_model` was given.
    """

    name: str
    module: ModuleType
    model: nn.Module
    hop: float | None = None
    scene: bool = False
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)

    @property
    def sample_rate(self) -> int:
        """Hz of the audio that it takes."""
        return self.model.sample_rate

    @property
    def size(self) -> int:
        """Values of an embedding."""
        if self.scene:
            return self.model.scene_embedding_size
        return self.model.timestamp_embedding_size

    @property
    def identity(self) -> str:
        """A text that changes whenever the embeddings do: arithmetic, module, weights, hop, scene and settings.

        The settings are the options that `load_model` was given and the model's `embedding_settings`, a mapping that
        our modules define. An encoder that has neither keeps the identity that it had before there were settings.
        """
        parts = (ARITHMETIC, self.module.__name__, weights_digest(self.model), self.hop, self.scene)
        settings = {**self.options, **getattr(self.model, "embedding_settings", {})}
        if settings:
            parts += (sorted(settings.items()),)
        return repr(parts)

    def __call__(self, audio: Tensor, lengths: Tensor) -> list[Tensor]:
        """Embed mono sounds, each by itself up to its end, so that none depends on the others or on padding.

        Args:
            audio: (clips, samples) float32 in [-1, 1] at `sample_rate`.
            lengths: (clips,) int64, samples of each clip.

        Returns:
            (timestamps, size) for each clip; one timestamp where `scene`. Gradients flow if the model's parameters
            want them.

        Raises:
            BadRequest: The module returns something else.
        """
        embeddings = []
        for sound, length in zip(audio, lengths.tolist(), strict=True):
            embeddings.append(self.encode_one(sound[:length]))
        return embeddings

    def encode_one(self, sound: Tensor) -> Tensor:
        """Embed one mono sound, (samples,), as (timestamps, size); arguments and errors as for several sounds."""
        sound = sound[None].to(self.device(sound))
        if self.scene:
            values = self.module.get_scene_embeddings(sound, self.model)
        else:
            step = {} if self.hop is None else {"hop": self.hop}
            values, _ = self.module.get_timestamp_embeddings(sound, self.model, **step)
            values = values[0]
        if values.ndim != 2 or values.shape[1] != self.size or not values.is_floating_point():
            if self.scene:
                wanted = f"(1, {self.size})"
            else:
                wanted = f"(1, n_timestamps, {self.size})"
            found = f"{tuple(values.shape)} of {values.dtype}"
            raise BadRequest(f"{self.name}: embeddings of one sound must be {wanted} floats; found {found}")
        return values.float()

    def device(self, audio: Tensor) -> torch.device:
        """Return the device of the model's weights; that of the audio for a model without weights."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in tensors), audio.device)


def load_encoder(
    name: str,
    weights: str = "",
    hop: float | None = None,
    *,
    scene: bool = False,
    options: Mapping[str, Option] | None = None,
) -> Encoder:
    """Import an encoder and load its weights.

    Args:
        name: One of `NAMES`, or the import name of any HEAR module whose model is torch's. A module that is not
            installed must be allowed by `systems.modules.trusting`: a checkpoint's config may name it.
        weights: File of the weights; where empty, the module's own way.
        hop: ms between timestamps, for modules whose `get_timestamp_embeddings` takes a `hop`.
        scene: Give one embedding a clip instead of a sequence.
        options: Keyword arguments for the module's `load_model`, such as `{"post_activation": False}` for VGGish
            (default: none).

    Raises:
        BadRequest: There is no such module, it is not trusted, lacks a part of HEAR's API, takes no `hop` or not these
            `options`, or has no weights.
        Faulty: The file of weights holds others.
    """
    otherwise = f"no encoder {name!r}; there are {', '.join(NAMES)}, and any HEAR module by import name"
    if name not in NAMES:
        must_be_trusted(name, otherwise)
    module = imported(f"{__name__}.{name}" if name in NAMES else name, otherwise)
    if missing := [function for function in FUNCTIONS if not callable(getattr(module, function, None))]:
        raise BadRequest(f"{name} is no HEAR module: it must have {', '.join(FUNCTIONS)}; no {', '.join(missing)}")
    if hop is not None and "hop" not in inspect.signature(module.get_timestamp_embeddings).parameters:
        raise BadRequest(f"{name} has a hop of its own: its get_timestamp_embeddings takes none; leave hop out")
    if not weights and _must_have_file(module.load_model):
        raise BadRequest(f"{name}: its load_model must be given a file of weights; give one (audio_weights)")
    options = dict(options or {})
    _check_options(name, module.load_model, options)
    paths = [weights] if weights else []
    model = module.load_model(*paths, **options)
    if not isinstance(model, nn.Module):
        raise BadRequest(f"{name}: load_model must return a torch.nn.Module; found {type(model).__qualname__}")
    if missing := [attribute for attribute in ATTRIBUTES if not isinstance(getattr(model, attribute, None), int)]:
        raise BadRequest(f"{name}: its model must have the integers {', '.join(ATTRIBUTES)}; no {', '.join(missing)}")
    return Encoder(name, module, model.eval(), hop, scene, options)  # not all modules think of dropout


def _check_options(name: str, load_model: Callable, options: Mapping[str, Option]) -> None:
    """Make sure that a module's `load_model` takes these options; its first parameter is the file of weights.

    Raises:
        BadRequest: It does not; with all options that it does not take, and those that it does.
    """
    parameters = list(inspect.signature(load_model).parameters.values())
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = []
    for number, parameter in enumerate(parameters):
        is_path = number == 0 and parameter.kind != parameter.KEYWORD_ONLY
        if not is_path and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            allowed.append(parameter.name)
    unknown = [option for option in options if option not in allowed]
    if unknown:
        choices = ", ".join(allowed) or "none"
        raise BadRequest(
            f"{name}: audio_options must be options of its load_model, which has {choices}; "
            f"found {', '.join(unknown)}: remove from audio_options what it does not have"
        )


def _must_have_file(load_model: Callable) -> bool:
    return any(
        parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(load_model).parameters.values()
    )
