"""The config of ATAE. `atae.yaml` explains each key."""

from typing import Literal

from pydantic import Field, model_validator

from systems.parts import encoders, texts
from systems.training import Schedule

Adapter = Literal["mlp", "mha", "identity"]


class Config(Schedule):
    """The settings; the defaults are the system ATAE as submitted."""

    learning_rate: float = Field(1e-4, gt=0)  # of Adam; the paper also names 1e-3, Adam's default
    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch
    audio_encoder: str = "cnn14"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; empty: the encoder's default place
    # Keyword arguments for the encoder's load_model, such as vggish's post_activation or openl3's padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    audio_hop: float | None = Field(None, gt=0)  # ms between embeddings; None: the encoder's own hop
    audio_scene: bool = False  # one embedding per clip (HEAR's scene embedding) instead of a sequence
    text_encoder: str = "distilroberta-base"  # folder, hub name, file of word vectors, or `train` (on the captions)
    text_layer: int = -2  # index of a transformers model's layer; -1 is the last layer
    text_output: texts.Output = "tokens"  # embeddings of all tokens, their `mean`, or a `sentence` embedding
    train_audio: bool = False  # train the audio encoder
    train_text: bool = False  # train the text encoder
    audio_adapter: Adapter = "mlp"
    text_adapter: Adapter = "mlp"
    size: int = Field(512, ge=1)  # width of the adapters' hidden layer and of their output
    loss: Literal["contrastive", "nt_xent", "triplet", "distilled"] = "contrastive"
    pairs: Literal["all", "text-audio"] = "all"  # pairs in the loss; `all` includes pairs of two clips and of two texts
    temperature: float = Field(0.07, gt=0)  # of nt_xent and distilled
    teachers: tuple[str, ...] = ()  # run folders of trained retrievers, whose similarities distilled learns
    init_from: str = ""  # run folder of a system with the same model, whose weights the training starts from
    margin: float = Field(1.0, gt=0)  # of triplet
    stages: tuple[tuple[Literal["clean", "noisy"], ...], ...] = (("clean",),)  # the training data of each stage
    noisy: str | None = None  # folder of the noisy captions: FSD50K as published, or a folder in Clotho's layout
    noisy_share: float = Field(1.0, gt=0, le=1)  # share of the noisy clips to use; the seed decides which

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if not self.stages or not all(self.stages):
            raise ValueError(
                "stages must be one or more lists, each with clean, noisy or both of them, such as [[noisy], [clean]]; "
                f"found {[list(stage) for stage in self.stages]}"
            )
        if self.audio_scene and self.audio_hop is not None:
            raise ValueError(
                "audio_hop must be null with audio_scene, which gives one embedding per clip; "
                f"found {self.audio_hop:g}: set audio_hop=null"
            )
        if any("noisy" in stage for stage in self.stages) and not self.noisy:
            raise ValueError(
                "noisy must be the folder of the noisy captions, because stages names them; found no folder: set "
                "noisy=DIR"
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
        if self.text_encoder == "train" and self.text_output == "sentence":
            raise ValueError(
                "text_output must be tokens or mean with text_encoder: train, because word vectors have no sentence "
                "embedding; found sentence"
            )
        return self
