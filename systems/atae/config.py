"""The config of ATAE. `atae.yaml` explains each key."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from evaluation.data.dataset import SPLITS
from systems.parts import encoders, texts
from systems.parts.extra import ExtraCaptions
from systems.training import Schedule

Adapter = Literal["mlp", "mha", "linear", "identity"]
CLEAN, NOISY = "clean", "noisy"  # names of training data in `stages`, in addition to those in `external`


class Config(ExtraCaptions, Schedule):
    """The settings; the defaults are the system ATAE as submitted."""

    learning_rate: float = Field(1e-4, gt=0)  # Adam's; the paper also names 1e-3, Adam's default
    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch
    audio_encoder: str = "cnn14"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; empty: the default place
    # Keyword arguments for the encoder's load_model, such as vggish's post_activation or openl3's padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    audio_hop: float | None = Field(None, gt=0)  # ms between embeddings; None: the encoder's own hop
    audio_scene: bool = False  # one embedding per clip (HEAR's scene embedding) instead of a sequence
    text_encoder: str = "distilroberta-base"  # folder, hub name, file of word vectors, or `train` (on the captions)
    text_layer: int = -2  # index of a transformers model's layer; -1 is the last layer
    text_output: texts.Output = "tokens"  # embeddings of all tokens, their mean, the first one, or a sentence embedding
    text_plain: bool = False  # change texts to lower case and remove punctuation; transformers models only
    text_longest: int | None = Field(None, ge=3)  # maximum number of tokens of a text; None: the model's maximum
    text_dropout: float | None = Field(None, ge=0, lt=1)  # in a trained text encoder; None: the model's own
    train_audio: bool = False  # train the audio encoder
    train_text: bool = False  # train the text encoder
    audio_adapter: Adapter = "mlp"
    text_adapter: Adapter = "mlp"
    size: int = Field(512, ge=1)  # width of the adapters' hidden layer and of their output
    loss: Literal["contrastive", "nt_xent", "triplet", "distilled"] = "contrastive"
    pairs: Literal["all", "text-audio"] = "all"  # pairs in the loss; `all` includes pairs of two clips and of two texts
    temperature: float = Field(0.07, gt=0)  # of the losses nt_xent and distilled
    train_temperature: bool = False  # train the temperature, with `temperature` as its initial value; nt_xent only
    teachers: tuple[str, ...] = ()  # run folders of trained retrievers, whose similarities distilled learns
    init_from: str = ""  # run folder of a system with the same model, whose weights the training starts from
    margin: float = Field(1.0, gt=0)  # of the loss triplet
    audio_learning_rate: float | None = Field(None, gt=0)  # of a trained audio encoder; None: learning_rate
    text_learning_rate: float | None = Field(None, gt=0)  # of a trained text encoder; None: learning_rate
    weight_decay: float = Field(0, ge=0)  # 0: Adam; above 0: AdamW
    schedule: Literal["plateau", "cosine"] = "plateau"  # cosine: warm-up and cosine, changed after each step
    warmup: int = Field(0, ge=0)  # epochs of the warm-up, for schedule=cosine
    decay: int | None = Field(None, ge=1)  # epochs of the cosine after the warm-up; None: all other epochs
    lowest_share: float = Field(0, ge=0, lt=1)  # lowest learning rate divided by the highest; for schedule=cosine
    spec_augment: int = Field(0, ge=0)  # masks in time and in frequency on the spectrogram of a trained audio encoder
    mixup: float = Field(0, ge=0)  # alpha of mixup between the clips of a batch; 0: no mixup
    audio_seconds: float | None = Field(None, gt=0)  # length of random excerpts of longer clips, for train_audio
    stages: tuple[tuple[str, ...], ...] = ((CLEAN,),)  # training data of each stage: clean, noisy or a key of external
    noisy: str | None = None  # folder of the noisy captions: FSD50K as published, or a folder in Clotho's layout
    noisy_share: float = Field(1.0, gt=0, le=1)  # share of the noisy clips to use; the seed decides which
    # A dict from names to folders of further training data: WavCaps, AudioCaps or FSD50K as published, or in Clotho's
    # layout.
    external: dict[str, str] = Field(default_factory=dict)
    excluded: str | None = None  # list of Freesound ids; WavCaps' clips with these ids are left out

    @model_validator(mode="after")
    def _stages_name_training_data(self) -> "Config":
        names = [CLEAN, NOISY, *self.external]
        if not self.stages or not all(self.stages):
            raise ValueError(
                f"stages must be one or more lists, each with one or more of {', '.join(names)}, such as "
                f"[[noisy], [clean]]; found {[list(stage) for stage in self.stages]}"
            )
        taken = sorted(set(self.external) & {CLEAN, NOISY, *SPLITS})
        if taken:
            raise ValueError(
                f"external must have names other than {CLEAN}, {NOISY} and those of splits; found {', '.join(taken)}: "
                "choose other names"
            )
        unknown = [name for stage in self.stages for name in stage if name not in names]
        if unknown:
            raise ValueError(
                f"stages must name {', '.join(names)}; found {', '.join(unknown)}: correct the name, or give its "
                "folder with external.NAME=DIR"
            )
        if any(NOISY in stage for stage in self.stages) and not self.noisy:
            raise ValueError(
                "noisy must be the folder of the noisy captions, because stages names them; found no folder: set "
                "noisy=DIR"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.audio_scene and self.audio_hop is not None:
            raise ValueError(
                "audio_hop must be null with audio_scene, which gives one embedding per clip; "
                f"found {self.audio_hop:g}: set audio_hop=null"
            )
        if (self.loss == "distilled") != bool(self.teachers):
            raise ValueError(
                f"teachers must be run folders if, and only if, loss is distilled; found {list(self.teachers)} with "
                f"the loss {self.loss}: set both teachers and loss=distilled, or neither"
            )
        if self.loss == "distilled" and len(self.stages) > 1:
            raise ValueError(
                f"stages must be one stage with the loss distilled; found {len(self.stages)}: train the earlier stages "
                "as a run of their own, and name it in init_from"
            )
        if self.text_encoder == "train" and self.text_output in ("sentence", "first"):
            raise ValueError(
                f"text_output must be tokens or mean with text_encoder: train, because word vectors have no "
                f"{self.text_output} embedding; found {self.text_output}"
            )
        return self

    @model_validator(mode="after")
    def _has_no_setting_without_effect(self) -> "Config":
        if self.train_temperature and self.loss != "nt_xent":
            raise ValueError(
                f"train_temperature must be false, unless loss is nt_xent; found true with the loss {self.loss}: "
                "set train_temperature=false"
            )
        if self.train_temperature and not 0.01 <= self.temperature <= 1:
            raise ValueError(
                f"temperature must be 0.01 to 1 with train_temperature, which keeps it in this range; "
                f"found {self.temperature:g}: give a temperature in this range"
            )
        self._require("train_audio=true", self.train_audio, ("audio_learning_rate", "spec_augment", "audio_seconds"))
        self._require("train_text=true", self.train_text, ("text_learning_rate", "text_dropout"))
        self._require("schedule=cosine", self.schedule == "cosine", ("warmup", "decay", "lowest_share"))
        if self.schedule == "cosine" and self.warmup >= self.epochs:
            raise ValueError(
                f"warmup must be less than epochs, {self.epochs}; found {self.warmup}: give fewer epochs of warm-up"
            )
        return self

    def _require(self, setting: str, is_set: bool, keys: Sequence[str]) -> None:
        """Make sure that keys have their defaults unless the setting that they belong to is set."""
        given = [key for key in keys if getattr(self, key) not in (None, 0)]
        if given and not is_set:
            raise ValueError(
                f"{', '.join(given)} must not be set without {setting}, because it would have no effect: "
                f"set {setting}, or remove {', '.join(given)}"
            )

    def lowers_rate(self, values: Sequence[float]) -> bool:
        """Return whether to lower the learning rate after the latest epoch, as `Schedule.lowers_rate` does.

        With the cosine schedule, the rate depends only on the training step.
        """
        return self.schedule == "plateau" and super().lowers_rate(values)
