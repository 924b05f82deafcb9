"""The decoder of Koizumi et al. 2020, section 3.3: a frozen language model that reads, and what learns beside it.

Conventions
-----------
- N clips with R captions each are R x N rows, those of a clip together; guidance and sound are a clip's, and are
  neither repeated nor copied for its rows.
- What the language model says of a token, its states, depends on no token behind it: padding stands there, unmasked.
- Of equations 9 to 13 nothing is added: no norm, no residual path. Attention has GPT-2's number of heads over the
  guidance and four over the sound, which the paper leaves open; the prefix begins with the model's start token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.caption_retrieval import initialise
from systems.parts import texts
from systems.parts.decoder import Attention, KeysValues
from systems.parts.digests import weights_digest
from systems.parts.sequences import length_mask

AUDIO_HEADS = 4
IGNORED = -100  # in place of a token, where there is none


class LanguageModel(nn.Module):
    """A frozen causal transformers model without its last layer, and its tokeniser.

    Args:
        name: A folder, a folder in an installed package, or a hub name.

    Raises:
        BadRequest: It is not on this machine, has no LM head, or is not read from left to right.
    """

    def __init__(self, name: str):
        super().__init__()
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        folder = texts.find(name)
        with texts.loading(folder, "a language model"):
            config = AutoConfig.from_pretrained(folder, **texts.OFFLINE)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **texts.OFFLINE)
        if not set(config.architectures or ()) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            found = ", ".join(config.architectures or ()) or "none"
            raise BadRequest(
                f"language_model: {name}: must be a causal language model with its LM head, such as GPT2LMHeadModel; "
                f"its config names {found}"
            )
        with texts.loading(folder, "a language model"):
            model = texts.pretrained(AutoModelForCausalLM, folder)
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        if self.head is None or self.body is model:
            raise BadRequest(f"language_model: {name}: must have an LM head over its last layer; found none")
        self.size, self.heads = self.head.weight.shape[1], getattr(config, "num_attention_heads", 0)
        self.window = texts.window(model)
        self.start = config.eos_token_id if config.bos_token_id is None else config.bos_token_id
        self.end = config.eos_token_id
        if not isinstance(self.start, int) or not isinstance(self.end, int):
            raise BadRequest(f"language_model: {name}: its config must name one eos_token_id; found {self.end}")
        self.eval().requires_grad_(False)
        if not self.heads or not self._keeps():
            raise BadRequest(
                f"language_model: {name}: must be read from left to right by attention whose keys and values can be "
                f"kept, as GPT-2 is; {type(model).__name__}, as its config has it, is not: take another"
            )

    def _keeps(self) -> bool:
        """Whether tokens read one by one have the states of those read at once, which then know of none behind."""
        from transformers import DynamicCache

        ids = torch.tensor([[self.start, *self.encode("rain falls")]])
        past = DynamicCache(config=self.body.config)
        steps = torch.cat([self(one, past) for one in ids.split(1, dim=1)], 1)
        return torch.allclose(steps, self(ids), rtol=1e-3, atol=1e-4)

    @property
    def identity(self) -> str:
        """What its states follow from."""
        vocabulary = texts.tokenizer_digest(self.tokenizer)
        return repr((vocabulary, weights_digest(self.body)))

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens, without start and end."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def read(self, guidance: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The tokens of each clip's guidance, several captions, as (N, M), and (N,) how many there are.

        Raises:
            BadRequest: There are more than the model takes.
        """
        ids, lengths = padded([self.encode(" ".join(captions)) for captions in guidance], self.end)
        if ids.shape[1] > self.window:
            raise BadRequest(too_long("guidance", ids.shape[1], self.window))
        return ids, lengths

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens up to the first end, on one line."""
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return " ".join(self.tokenizer.decode([one for one in ids if one >= 0]).split())

    def unspeakable(self) -> list[int]:
        """Tokens that are never said: special ones, and those that by themselves are no text that can be printed."""
        words = self.head.weight.shape[0]
        known = min(words, len(self.tokenizer))
        said = self.tokenizer.batch_decode([[number] for number in range(known)])
        plain = [bool(text.strip()) and text.isprintable() and "\ufffd" not in text for text in said]
        special = {*self.tokenizer.all_special_ids, self.start} - {self.end}
        return [n for n in range(words) if n != self.end and (n >= known or not plain[n] or n in special)]

    @torch.no_grad()
    def forward(self, ids: Tensor, past: object | None = None) -> Tensor:
        """States (rows, L, size) of (rows, L) tokens behind those that a transformers cache holds, and joins."""
        return self.body(input_ids=ids, past_key_values=past, use_cache=past is not None).last_hidden_state

    def train(self, mode: bool = True) -> "LanguageModel":
        """Stay as it is."""
        return super().train(False)


class Memory:
    """What a clip's captions are written from, asked for once: keys and values of guidance and of sound.

    Attributes:
        guidance: Of (N, M) tokens.
        guidance_mask: (N, 1, 1, M) bool, which of them there are.
        sound: Of (N, T) frames.
        sound_mask: (N, 1, 1, T) bool.
    """

    def __init__(self, guidance: KeysValues, guidance_mask: Tensor, sound: KeysValues, sound_mask: Tensor):
        self.guidance, self.guidance_mask, self.sound, self.sound_mask = guidance, guidance_mask, sound, sound_mask

    def __len__(self) -> int:
        return len(self.guidance_mask)

    def of(self, clips: Tensor) -> "Memory":
        """The memory of some clips."""
        guidance = tuple(part[clips] for part in self.guidance)
        sound = tuple(part[clips] for part in self.sound)
        return Memory(guidance, self.guidance_mask[clips], sound, self.sound_mask[clips])


class Generator(nn.Module):
    """What learns: attention to the guidance, attention to the sound, and the LM head (equations 11 to 13).

    Args:
        language: The language model, whose head this one begins as.
        frame_size: Values of a frame of sound.
        reduced: Values that states and frames are brought to for the attention to the sound.
        dropout: Behind both attentions.
    """

    def __init__(self, language: LanguageModel, frame_size: int, reduced: int, dropout: float):
        super().__init__()
        size = language.size
        self.guidance = Attention(size, size, language.heads, size // language.heads)
        self.reduce_states = nn.Linear(size, reduced)
        self.reduce_frames = nn.Linear(frame_size, reduced)
        self.sound = Attention(reduced, reduced, AUDIO_HEADS, reduced // AUDIO_HEADS)
        self.widen = nn.Linear(reduced, size)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)
        self.head = nn.Linear(size, language.head.weight.shape[0], bias=language.head.bias is not None)
        self.head.load_state_dict(language.head.state_dict())

    def remember(self, guidance: Tensor, guidance_lengths: Tensor, frames: Tensor, frame_lengths: Tensor) -> Memory:
        """Make the memory of N clips.

        Args:
            guidance: (N, M, size) the language model's states of the guidance (equation 9).
            guidance_lengths: (N,) tokens of each.
            frames: (N, T, frame size) the sound.
            frame_lengths: (N,) frames of each.
        """
        masks = [
            length_mask(lengths, values.shape[1])[:, None, None]
            for values, lengths in ((guidance, guidance_lengths), (frames, frame_lengths))
        ]
        sound = self.sound.keys_values(self.reduce_frames(frames))
        return Memory(self.guidance.keys_values(guidance), masks[0], sound, masks[1])

    def forward(self, states: Tensor, memory: Memory) -> Tensor:
        """Logits (rows, L, tokens) of what comes behind each of (rows, L, size) states of prefixes (equation 10)."""
        together = states.reshape(len(memory), -1, states.shape[2])  # (N, rows of a clip x L, size)
        read = self.dropout(self.guidance(together, memory.guidance, memory.guidance_mask))  # (11)
        heard = self.dropout(self.sound(self.reduce_states(read), memory.sound, memory.sound_mask))
        return self.head(read + self.widen(heard)).view(*states.shape[:2], -1)  # (12), (13)


class Steps:
    """A token at a time, as `generation.Step`: the language model's keys and values, and the memory, are kept.

    Args:
        language: The language model.
        generator: What learnt, in evaluation mode.
        memory: Of the clips.
    """

    def __init__(self, language: LanguageModel, generator: Generator, memory: Memory):
        from transformers import DynamicCache

        self.language, self.generator, self.memory = language, generator, memory
        self.past = DynamicCache(config=language.body.config)
        self.each = 1  # rows of a clip

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Logits (rows, tokens) of the next token of each row; the arguments are those of `generation.Step`."""
        clips = (rows // self.each).unique_consecutive()
        if len(clips) < len(self.memory):  # the others are done
            self.memory = self.memory.of(clips)
        self.each = len(rows) // len(clips)
        if ids.shape[1] > 1:
            self.past.reorder_cache(rows)
        return self.generator(self.language(ids[:, -1:], self.past), self.memory)[:, 0]


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Lay rows of numbers side by side as (rows, longest), and give their lengths."""
    parts = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=padding), torch.tensor([*map(len, rows)])


def too_long(what: str, tokens: int, window: int) -> str:
    """Say that something does not fit into a language model."""
    return (
        f"{what} must fit into the language model's window of {window} tokens; found {tokens}: lower guidance, shorten "
        "the captions, or take another language_model"
    )
