"""Audio encoders: HEAR 2021 modules, from this package or any other.

A HEAR module has `load_model(path)`, `get_timestamp_embeddings(audio, model)` and `get_scene_embeddings(audio, model)`.
Its model has `sample_rate`, `timestamp_embedding_size` and `scene_embedding_size`.

    encoder = encoders.load_encoder("yamnet", hop=480)     # or "hear21passt.base", or any other installed module
    sequences = encoder(audio, lengths)                    # a list of (timestamps, size)

The encoders in this package need the weights that their authors published. They take a `hop`, the time between windows
in ms. CNN14's must be a multiple of 320 ms, and PaSST does not take one. The table gives the number of values of an
embedding as its size:

    name     sample rate    size    window     default hop
    cnn14    32 kHz         2048    0.96 s     320 ms
    yamnet   16 kHz         1024    0.975 s    960 ms
    vggish   16 kHz          128    0.975 s    960 ms
    openl3   48 kHz          512    1 s        1000 ms
    coala    44.1 kHz       1152    2.26 s     2234 ms
    passt    32 kHz          768    10 s       10000 ms

An encoder can be trained if gradients flow through its HEAR functions, or if its model offers its network. Some modules
compute without gradients, such as hear21passt. A model offers its network by an attribute `max_model_window`, the
maximum number of samples that the network takes. Its `forward` then maps segments of audio, (N, samples), to
(N, `scene_embedding_size`), with gradients. The models of hear21passt have this attribute, and so has the model of
`passt`. If such an encoder is trained, three things change:

- Its embeddings are those of segments of `max_model_window` samples. The last segment of a clip is padded with zeros.
- In training, its network is in training mode, so that dropout and patchout work. Batch norms stay in evaluation mode,
  because they must keep their statistics. All other encoders stay in evaluation mode.
- If the model has a module `mel`, which maps (N, samples) to a spectrogram, (N, mels, frames), the spectrogram can be
  changed in training (`Encoder.change_spectrograms`).

Source: the HEAR 2021 API, hearbenchmark.com/hear-api.html, and the checks of its validator (hearvalidator 2021.0.6).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from evaluation.downloads import Asset, Download
from evaluation.findings import BadRequest
from systems.modules import imported, must_be_trusted
from systems.parts.digests import weights_digest
from systems.parts.encoders.weights import download
from systems.parts.encoders.windows import CHUNK, segments

NAMES = ("cnn14", "coala", "openl3", "passt", "vggish", "yamnet")
FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")
ATTRIBUTES = ("sample_rate", "timestamp_embedding_size", "scene_embedding_size")
Option = bool | int | float | str  # the value of a keyword argument of a module's `load_model`
ARITHMETIC = 1  # increase this when the same weights give other embeddings, so that caches of the two are not mixed


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder and its settings.

    Attributes:
        name: The name that `load_encoder` was given.
        module: The HEAR module.
        model: Its model, on any device.
        hop: ms between timestamps; None for the module's own hop.
        scene: True for one embedding per clip instead of a sequence.
        options: The keyword arguments of the module's `load_model`.
        trained: True if the encoder is trained.
    """

    name: str
    module: ModuleType
    model: nn.Module
    hop: float | None = None
    scene: bool = False
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    trained: bool = False

    @property
    def uses_network(self) -> bool:
        """True if the encoder is trained and its model offers its network."""
        return self.trained and isinstance(getattr(self.model, "max_model_window", None), int)

    @property
    def sample_rate(self) -> int:
        """The sample rate of the encoder's input in Hz."""
        return self.model.sample_rate

    @property
    def size(self) -> int:
        """The number of values of an embedding."""
        if self.scene or self.uses_network:
            return self.model.scene_embedding_size
        return self.model.timestamp_embedding_size

    @property
    def identity(self) -> str:
        """A text that changes with anything that the embeddings depend on.

        It contains the version of the arithmetic, the module's name, a digest of the weights, `hop` and `scene`. If
        there are settings, it also contains them: the options of `load_model` and the model's `embedding_settings`.
        Some models of this package define this mapping. An identity without settings has no entry for them, so that it
        is equal to the identities in older caches and checkpoints.
        """
        parts: tuple[object, ...] = (ARITHMETIC, self.module.__name__, weights_digest(self.model), self.hop, self.scene)
        settings = {**self.options, **getattr(self.model, "embedding_settings", {})}
        if settings:
            parts += (sorted(settings.items()),)
        return repr(parts)

    def __call__(self, audio: Tensor, lengths: Tensor) -> list[Tensor]:
        """Embed mono audio, so that no embedding depends on another clip.

        The HEAR functions get one clip at a time, without padding. A network gets the segments of all clips at once.

        Args:
            audio: (clips, samples) float32 in [-1, 1] at `sample_rate`.
            lengths: (clips,) int64, number of samples of each clip.

        Returns:
            (timestamps, size) for each clip, with one timestamp if `scene`. Gradients flow if the model's parameters
            require them.

        Raises:
            BadRequest: The module returns values of another shape or type.
        """
        sounds = [sound[:length] for sound, length in zip(audio, lengths.tolist(), strict=True)]
        if self.uses_network:
            return self._embed_segments(sounds)
        return [self.encode_one(sound) for sound in sounds]

    def _embed_segments(self, sounds: Sequence[Tensor]) -> list[Tensor]:
        """Embed the segments of clips by the network, as (segments, size) for each clip."""
        cut = [segments(sound, self.model.max_model_window) for sound in sounds]
        together = torch.cat(cut)
        together = together.to(self.device(together))
        parts: Sequence[Tensor] = [together]
        if not torch.is_grad_enabled():  # in training, all segments of a batch must get the same random changes
            parts = together.split(CHUNK)
        values = torch.cat([self.model(part) for part in parts]).float()
        if values.shape != (len(together), self.size):
            raise BadRequest(
                f"{self.name}: the network must map {len(together)} segments to {(len(together), self.size)} values; "
                f"found {tuple(values.shape)}: correct the module"
            )
        embeddings = list(values.split([len(part) for part in cut]))
        if self.scene:
            return [part.mean(dim=0, keepdim=True) for part in embeddings]
        return embeddings

    def train(self, mode: bool) -> None:
        """Set the model to training mode if `mode` is true and it is a network that is trained.

        Otherwise, set it to evaluation mode. Batch norms always stay in evaluation mode.
        """
        self.model.train(mode and self.uses_network)
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def change_spectrograms(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change the spectrograms of a network in training mode.

        Args:
            change: A function that maps spectrograms, (N, mels, frames), to changed ones of the same shape.

        Raises:
            BadRequest: The encoder is not trained, or its model does not offer a network with a module `mel`.
        """
        front_end = getattr(self.model, "mel", None)
        if not self.uses_network or not isinstance(front_end, nn.Module):
            raise BadRequest(
                f"{self.name}: spec_augment must be 0, unless the encoder is trained and offers its spectrogram, as "
                "passt does; set spec_augment=0, or train_audio=true with such an encoder"
            )

        def hook(module: nn.Module, inputs: object, spectrograms: Tensor) -> Tensor:
            if module.training:
                return change(spectrograms)
            return spectrograms

        front_end.register_forward_hook(hook)

    def encode_one(self, sound: Tensor) -> Tensor:
        """Embed one mono clip, (samples,), as (timestamps, size). The errors are those of `__call__`."""
        if self.uses_network:
            return self._embed_segments([sound])[0]
        sound = sound[None].to(self.device(sound))
        if self.scene:
            values = self.module.get_scene_embeddings(sound, self.model)
        else:
            arguments = {}
            if self.hop is not None:
                arguments["hop"] = self.hop
            values, _ = self.module.get_timestamp_embeddings(sound, self.model, **arguments)
            values = values[0]
        if values.ndim != 2 or values.shape[1] != self.size or not values.is_floating_point():
            if self.scene:
                expected = f"(1, {self.size})"
            else:
                expected = f"(1, n_timestamps, {self.size})"
            found = f"{tuple(values.shape)} of {values.dtype}"
            raise BadRequest(
                f"{self.name}: embeddings of one clip must be {expected} floats; found {found}: correct the module"
            )
        return values.float()

    def device(self, audio: Tensor) -> torch.device:
        """Return the device of the model's weights; for a model without weights, the device of the audio."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in tensors), audio.device)


def load_encoder(
    name: str,
    weights: str = "",
    hop: float | None = None,
    *,
    scene: bool = False,
    options: Mapping[str, Option] | None = None,
    trained: bool = False,
) -> Encoder:
    """Import an encoder and load its weights.

    Args:
        name: One of `NAMES`, or the import name of a HEAR module whose model is a torch module. A module that is not
            installed must be allowed by `systems.modules.trusting`, because a checkpoint's config may name any module.
        weights: File of the weights (default: the module finds them itself).
        hop: ms between timestamps, for modules whose `get_timestamp_embeddings` takes a `hop` (default: the module's
            own hop).
        scene: If true, return one embedding per clip instead of a sequence.
        options: Keyword arguments for the module's `load_model`, such as `{"post_activation": False}` for VGGish
            (default: none).
        trained: True if the encoder is to be trained.

    Raises:
        BadRequest: There is no such module, it is not trusted, it lacks a part of HEAR's API, it does not take `hop` or
            the `options`, or its weights are missing.
        Faulty: The file of weights does not hold the encoder's weights.
    """
    no_encoder = f"no encoder {name!r}; there are {', '.join(NAMES)}, and any HEAR module by import name"
    import_name = f"{__name__}.{name}"
    if name not in NAMES:
        must_be_trusted(name, no_encoder)
        import_name = name
    module = imported(import_name, no_encoder)
    if missing := [function for function in FUNCTIONS if not callable(getattr(module, function, None))]:
        raise BadRequest(
            f"{name}: must be a HEAR module, with {', '.join(FUNCTIONS)}; it has no {', '.join(missing)}: add what is "
            "missing, or choose another encoder"
        )
    if hop is not None and "hop" not in inspect.signature(module.get_timestamp_embeddings).parameters:
        raise BadRequest(
            f"{name}: audio_hop must be null, because the module's get_timestamp_embeddings takes no hop; found "
            f"{hop:g}: set audio_hop=null"
        )
    if not weights and _must_have_file(module.load_model):
        raise BadRequest(f"{name}: the module's load_model needs a file of weights; give it (audio_weights)")
    options = dict(options or {})
    _check_options(name, module.load_model, options)
    paths = [weights] if weights else []
    model = module.load_model(*paths, **options)
    if not isinstance(model, nn.Module):
        raise BadRequest(
            f"{name}: load_model must return a torch.nn.Module; found {type(model).__qualname__}: correct the module"
        )
    if missing := [attribute for attribute in ATTRIBUTES if not isinstance(getattr(model, attribute, None), int)]:
        raise BadRequest(
            f"{name}: the model must have the integers {', '.join(ATTRIBUTES)}; it has no {', '.join(missing)}: "
            "correct the module"
        )
    # Some modules return a model in training mode.
    encoder = Encoder(name, module, model.eval(), hop, scene, options, trained)
    if encoder.uses_network and hop is not None:
        raise BadRequest(
            f"{name}: audio_hop must be null if the encoder is trained, because its network takes segments without "
            f"overlap; found {hop:g}: set audio_hop=null"
        )
    return encoder


def downloads(name: str, weights: str = "", options: Mapping[str, Option] | None = None) -> list[Download]:
    """Return the files that `load_encoder` needs for an encoder.

    Args:
        name: As for `load_encoder`.
        weights: File or folder of the weights, as for `load_encoder`.
        options: As for `load_encoder`. A module whose files depend on them has a function `assets(**options)`.

    Raises:
        BadRequest: An option has a wrong value.
    """
    if name not in NAMES:
        return [_other_module(name)]
    module = import_module(f"{__name__}.{name}")
    assets = module.ASSETS
    if hasattr(module, "assets"):
        assets = module.assets(**(options or {}))
    first, *others = assets
    folder = weights
    if weights and not Path(weights).expanduser().is_dir():
        folder = str(Path(weights).parent)
    return [download(first, weights), *(download(asset, folder) for asset in others)]


def _other_module(name: str) -> Download:
    """Return the state of a HEAR module of another package, which this package does not download."""
    package = name.partition(".")[0]
    spec = find_spec(package)
    place = Path(package)
    if spec and spec.origin:
        place = Path(spec.origin).parent
    advice = f"{name}: the Python package {package} is not installed; install it, and give its weights (audio_weights)"

    def locate() -> Path | None:
        return place if spec else None

    return Download(Asset(f"HEAR module {name}", name, 0), place, locate, advice=advice)


def _check_options(name: str, load_model: Callable, options: Mapping[str, Option]) -> None:
    """Make sure that a module's `load_model` takes these options.

    The first parameter of `load_model` is the file of weights and not an option.

    Raises:
        BadRequest: `load_model` does not take all options. The message lists those that it does not take, and those
            that it takes.
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
            f"found {', '.join(unknown)}: remove these from audio_options"
        )


def _must_have_file(load_model: Callable) -> bool:
    """Return whether a module's `load_model` has a parameter without default, such as the file of weights."""
    for parameter in inspect.signature(load_model).parameters.values():
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not is_variadic:
            return True
    return False
