"""The settings of captioning with off-the-shelf models."""

from typing import Literal

from pydantic import Field, model_validator

from systems.offtheshelf.context import View
from systems.parts import encoders, generation, texts
from systems.parts.extra import ExtraCaptions
from systems.parts.pretrained_decoder import Fusion, Tuning
from systems.parts.self_critical import SelfCriticalSettings
from systems.training import Schedule

OWN = "own"  # value of `decoder` for a decoder that starts with random weights
# The keys that only such a decoder has, and the keys of LoRA.
OWN_KEYS = ("words", "train_words", "words_limit", "context", "text_layer", "blocks", "hidden", "original")
LORA_KEYS = ("lora_rank", "lora_alpha", "lora_dropout")


class Config(ExtraCaptions, SelfCriticalSettings, Schedule, generation.Decoding):
    """The settings; the defaults are the paper's best setting.

    Numbers in parentheses are sections of the paper. "Not in the paper" marks values that the paper does not give. Two
    defaults differ from the paper. README.md gives the reason for `context`. `words_limit` leaves out the vectors of
    rarer words in a file, to save time and memory (`grid.yaml` reads all words). The paper has no
    pretrained decoder (`decoder`). For it, a word is a token of the decoder's tokeniser.
    """

    batch: int = Field(256, ge=1)  # pairs of a clip and a caption in a training step (3.1)
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch; the paper: loss
    plateau: int = Field(10, ge=1)  # the paper's rate is constant: training stops (`patience`) before the rate falls

    audio_encoder: str = "yamnet"  # one of `encoders.NAMES`, or any HEAR module (3.2)
    audio_weights: str = ""  # file or folder of its weights; empty: the encoder's default place
    # Keyword arguments for the encoder's load_model, such as vggish's post_activation or openl3's padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    overlap: float = Field(0.5, ge=0, lt=1)  # share of a window that the next one repeats; the paper: 0 and 0.5 (3.2)
    adapter: Literal["identity", "mlp", "mha"] = "mha"  # between audio encoder and decoder (3.3)
    adapter_hidden: int = Field(256, ge=1)  # width of the MLP's hidden layer (3.3)
    words: str = "bert-base-uncased"  # `random`, `train` (CBOW on the captions), a file of vectors, a text model (3.4)
    train_words: bool = False  # fine-tune word vectors; a text model is always frozen (3.4)
    words_limit: int | None = 200_000  # maximum number to read from a file, frequent words first; the paper: None (all)
    # What a text model reads of a caption in training (`offtheshelf.context`); the paper: caption.
    context: View = "prefix"
    text_layer: int = -2  # index of a text model's layer; -2 is the penultimate one (3.4)

    # `own`: the paper's decoder. Otherwise the folder, GGUF file or hub name of a pretrained decoder such as BART or
    # GPT-2, whose words, blocks and norms are its own.
    decoder: str = OWN
    # How a decoder reads the audio: each of its layers attends to the audio, or the audio comes before the caption.
    fusion: Fusion = "cross-attention"
    tuning: Tuning = "full"  # which weights of a pretrained decoder are trained: none, those of LoRA, or all
    lora_rank: int = Field(8, ge=1)  # rank of the matrices that LoRA adds to the attention's weights
    lora_alpha: int = Field(16, ge=1)  # LoRA multiplies these matrices by lora_alpha / lora_rank
    lora_dropout: float = Field(0.0, ge=0, lt=1)  # dropout rate of the input of these matrices

    blocks: int = Field(3, ge=1)  # number of blocks of the decoder (3.1)
    heads: int = Field(4, ge=1)  # number of heads of each attention layer, also in the adapter (3.1, 3.3)
    head_size: int = Field(128, ge=2, multiple_of=2)  # number of values of a head (3.1, 3.3)
    hidden: int = Field(512, ge=1)  # width between a block's two linear layers; not in the paper: the decoder's width
    # True: the Transformer of Vaswani et al., as in the paper (2, 3.3). Positions are added to the word vectors, norms
    # come after each sublayer, and the activation is ReLU. If the audio embeddings do not have the decoder's size, a
    # linear layer maps them to it. False: positions are added after the linear layer for words, norms come before each
    # sublayer, and the activation is GELU. Each block computes keys and values from the adapter's output itself.
    original: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)  # in decoder and MHA adapter; not in the paper: Vaswani et al.'s value
    longest: int = Field(60, ge=1)  # maximum number of words in a training caption; not in the paper; Clotho's have 20
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # share of the target that all words get in training
    weight_decay: float = Field(0.0, ge=0)  # of AdamW; 0 is Adam, as in the paper
    decoding: Literal["beam", "greedy", "sample"] = "greedy"  # not in the paper: section 2 only says "word by word"

    @property
    def static(self) -> bool:
        """True if a word has the same vector in every context."""
        return self.words in ("random", "train") or self.words.endswith(texts.WORDS)

    @model_validator(mode="after")
    def _words(self) -> "Config":
        if self.train_words and not self.static:
            raise ValueError(
                f"train_words must be false for a text model, which is frozen; found true with words={self.words}"
            )
        if self.loss == "self_critical" and not self.static and self.context == "caption":
            raise ValueError(
                "context must be prefix with loss=self_critical, because captions are sampled word by word; found "
                "caption: set context=prefix"
            )
        return self

    @model_validator(mode="after")
    def _decoder(self) -> "Config":
        if self.decoder == OWN:
            if self.fusion != "cross-attention":
                raise ValueError(f"fusion must be cross-attention for decoder=own; found {self.fusion}: give a decoder")
            if self.tuning != "full":
                raise ValueError(
                    f"tuning must be full for decoder=own, which is not pretrained; found {self.tuning}: give a decoder"
                )
        else:
            self._require_defaults(OWN_KEYS, f"for decoder={self.decoder}, because only decoder=own uses it")
        if self.tuning != "lora":
            self._require_defaults(LORA_KEYS, f"for tuning={self.tuning}, because only tuning=lora uses it")
        return self

    def _require_defaults(self, keys: tuple[str, ...], reason: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if value != type(self).model_fields[key].default:
                raise ValueError(f"{key} must be left out {reason}; found {value}: leave it out")
