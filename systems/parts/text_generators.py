"""Pretrained transformers models that generate text: their loading, and the texts of their tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from evaluation.findings import BadRequest
from systems.parts import texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass


class TextGenerator(nn.Module):
    """The base class of modules that contain a pretrained model that predicts tokens.

    Args:
        name: A folder or a GGUF file, either of them also in an installed package (PACKAGE/PATH), or a hub name.
        key: The config key that names the model, for messages.

    Attributes:
        tokenizer: The tokeniser.
        start: The id of the token before a text.
        end: The id of the token after a text.
        outputs: Number of tokens that the model can predict. Subclasses set it.

    Raises:
        BadRequest: The model is not on this machine, or its config or tokeniser cannot be loaded.
    """

    outputs: int
    start: int
    end: int

    def __init__(self, name: str, key: str):
        super().__init__()
        from transformers import AutoConfig, AutoTokenizer

        self.name, self.key = name, key
        self.folder = texts.find_model_folder(name)
        with texts.loading(self.folder, "a language model"):
            self.pretrained_config = AutoConfig.from_pretrained(self.folder, **texts.OFFLINE)
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, **texts.OFFLINE)

    def refusal(self, message: str) -> BadRequest:
        """Return the error for a model that cannot be used."""
        return BadRequest(f"{self.key}: {self.name}: {message}: give another model")

    def load(self, kind: type["_BaseAutoModelClass"], new: str | None = None, **settings: object) -> "PreTrainedModel":
        """Load the model. The arguments are those of `texts.pretrained`.

        Raises:
            BadRequest: The model cannot be loaded.
        """
        with texts.loading(self.folder, "a language model"):
            return texts.pretrained(kind, self.folder, new, **settings)

    def require_architecture(self, names: Sequence[str], kind: str) -> None:
        """Make sure that the model's config names one of these classes.

        Args:
            names: Names of classes of transformers.
            kind: A description of these classes, for the message.

        Raises:
            BadRequest: The config names another class or none.
        """
        architectures = self.pretrained_config.architectures or ()
        if not set(architectures) & set(names):
            found = ", ".join(architectures) or "no architecture"
            raise self.refusal(f"must be {kind}; its config names {found}")

    def set_ends(self, start: int | None) -> None:
        """Set the start token and the end token.

        Args:
            start: The id of the start token (default: the end token).

        Raises:
            BadRequest: The model's config does not name exactly one end token.
        """
        end = self.pretrained_config.eos_token_id
        if start is None:
            start = end
        if not isinstance(start, int) or not isinstance(end, int):
            raise self.refusal(f"its config must name one eos_token_id; found {end}")
        self.start, self.end = start, end

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids before the first end token, on one line. Ids below 0 are padding."""
        if self.end in ids:
            ids = ids[: ids.index(self.end)]
        return " ".join(self.tokenizer.decode([number for number in ids if number >= 0]).split())

    def unspeakable(self) -> list[int]:
        """Return the ids of the tokens that must not be generated.

        These are special tokens except the end token, tokens whose text is blank or not printable, and outputs of the
        model for which the tokeniser has no token.
        """
        in_tokenizer = min(self.outputs, len(self.tokenizer))
        special = {*self.tokenizer.all_special_ids, self.start}
        forbidden = []
        for number, text in enumerate(self.tokenizer.batch_decode([[number] for number in range(in_tokenizer)])):
            is_plain_text = bool(text.strip()) and text.isprintable() and "\ufffd" not in text
            if number != self.end and (number in special or not is_plain_text):
                forbidden.append(number)
        return forbidden + [number for number in range(in_tokenizer, self.outputs) if number != self.end]
