"""The decoder of Koizumi et al. 2020, section 3.3: a frozen language model, and trained attention and output layers.

Conventions
-----------
- N clips with R captions each are N x R rows; the rows of a clip are consecutive. All rows of a clip share its guidance
  and its audio, which are not copied for each row.
- The language model's state of a token does not depend on later tokens. Padding comes last, so it need not be masked.
- The language model reads its start token and then the caption's tokens so far.
- The module has exactly the layers of equations 9 to 13. It adds neither norms nor residual connections. The paper
  leaves two points open. In this module, attention to the guidance has the language model's number of heads, and
  attention to the audio has four heads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.findings import BadRequest
from systems.caching.store import Store
from systems.caption_retrieval import initialise
from systems.parts import texts
from systems.parts.decoder import Attention, KeysValues
from systems.parts.digests import digest, weights_digest
from systems.parts.sequences import length_mask
from systems.parts.text_generators import TextGenerator

AUDIO_HEADS = 4
IGNORED = -100  # replaces the target token at padded positions


class LanguageModel(TextGenerator):
    """A frozen causal transformers model without its last layer, and its tokeniser.

    Args:
        name: A folder or a GGUF file, either of them also in an installed package (PACKAGE/PATH), or a hub name.

    Raises:
        BadRequest: The model is not on this machine, or does not have an LM head and exactly one end token, or does not
            read text from left to right by attention with a key/value cache.
    """

    def __init__(self, name: str):
        super().__init__(name, "language_model")
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self.require_architecture([*causal], "a causal language model with its LM head, such as GPT2LMHeadModel")
        model = self.load(AutoModelForCausalLM)
        config = self.pretrained_config
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        if self.head is None or self.body is model:
            raise self.refusal("must have an LM head after its last layer; found none")
        self.outputs, self.size = self.head.weight.shape
        self.heads = getattr(config, "num_attention_heads", 0)
        self.window = texts.window(model)
        self.set_ends(config.bos_token_id)
        self.states: dict[tuple[int, ...], np.ndarray] = {}  # states of token ids, which `precompute` stores
        self.eval().requires_grad_(False)
        if not self.heads or not self._cached_states_are_equal():
            raise self.refusal(
                "must read text from left to right by attention with a key/value cache, like GPT-2; "
                f"{type(model).__name__} with this config does not"
            )

    def _cached_states_are_equal(self) -> bool:
        """Compare the states of tokens read one by one, with a cache, with those of tokens read at once.

        Return true if they are equal up to rounding. This requires that a state does not depend on later tokens.
        """
        from transformers import DynamicCache

        ids = torch.tensor([[self.start, *self.encode("rain falls")]])
        past = DynamicCache(config=self.body.config)
        one_by_one = torch.cat([self(token, past) for token in ids.split(1, dim=1)], 1)
        return torch.allclose(one_by_one, self(ids), rtol=1e-3, atol=1e-4)

    @property
    def identity(self) -> str:
        """A text that changes if anything changes that affects the states."""
        vocabulary = texts.tokenizer_digest(self.tokenizer)
        return repr((vocabulary, weights_digest(self.body)))

    def read(self, guidance: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return the token ids of guidance.

        Args:
            guidance: Several captions for each of N clips; those of a clip are joined by spaces.

        Returns:
            (N, M) token ids, padded, and (N,) the number of tokens of each clip's guidance.

        Raises:
            BadRequest: Guidance has more tokens than the model's window.
        """
        ids, lengths = padded([self.encode(" ".join(captions)) for captions in guidance], self.end)
        if ids.shape[1] > self.window:
            raise BadRequest(too_long("guidance", ids.shape[1], self.window))
        return ids, lengths

    def precompute(self, texts_ids: Sequence[Sequence[int]], cache: Path) -> None:
        """Compute the states of texts once, so that `forward` need not compute them for each batch.

        Args:
            texts_ids: The token ids of each text.
            cache: Folder of the cache, in which the states are stored.
        """
        device = self.head.weight.device

        def compute(missing: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
            with torch.inference_mode():
                for ids in tqdm(missing, "states of captions", leave=False, disable=None):
                    states = self.body(input_ids=torch.tensor([ids], device=device)).last_hidden_state
                    yield states[0].float().cpu().numpy()

        def digests(rows: Sequence[Sequence[int]]) -> list[str]:
            return [digest(repr(tuple(ids)).encode()) for ids in rows]

        rows = Store(cache, "states", self.identity, self.size).rows(texts_ids, compute, digests)
        self.states = {tuple(ids): row for ids, row in zip(texts_ids, rows, strict=True)}

    def precomputed(self, ids: Tensor) -> Tensor | None:
        """Return the states of padded token ids, or None if those of a text are not precomputed.

        The states of padding are zeros. They are not used, because padding comes last.
        """
        rows = []
        for text_ids in ids.tolist():
            while len(text_ids) > 1 and text_ids[-1] == self.end:
                text_ids.pop()
            states = self.states.get(tuple(text_ids))
            if states is None:
                return None
            rows.append(torch.tensor(states))
        stacked = torch.zeros(*ids.shape, self.size)
        for row, states in zip(stacked, rows, strict=True):
            row[: len(states)] = states
        return stacked.to(ids.device)

    @torch.no_grad()
    def forward(self, ids: Tensor, past: object | None = None) -> Tensor:
        """Compute the states of tokens.

        Args:
            ids: (rows, L) token ids.
            past: A transformers cache with the keys and values of the previous tokens. The keys and values of `ids` are
                added to it.

        Returns:
            (rows, L, size) states.
        """
        if past is None and self.states:
            states = self.precomputed(ids)
            if states is not None:
                return states
        return self.body(input_ids=ids, past_key_values=past, use_cache=past is not None).last_hidden_state

    def train(self, mode: bool = True) -> "LanguageModel":
        """Stay in evaluation mode, because the model is frozen."""
        return super().train(False)


class Memory:
    """The keys and values of the guidance and the audio of N clips, computed once for all tokens.

    Attributes:
        guidance: Keys and values of (N, M) tokens.
        guidance_mask: (N, 1, 1, M) bool, false for padding.
        sound: Keys and values of (N, T) frames.
        sound_mask: (N, 1, 1, T) bool, false for padding.
    """

    def __init__(self, guidance: KeysValues, guidance_mask: Tensor, sound: KeysValues, sound_mask: Tensor):
        self.guidance, self.guidance_mask, self.sound, self.sound_mask = guidance, guidance_mask, sound, sound_mask

    def __len__(self) -> int:
        return len(self.guidance_mask)

    def of(self, clips: Tensor) -> "Memory":
        """Return the memory of the clips with these indices."""
        guidance = tuple(part[clips] for part in self.guidance)
        sound = tuple(part[clips] for part in self.sound)
        return Memory(guidance, self.guidance_mask[clips], sound, self.sound_mask[clips])


class Generator(nn.Module):
    """The trained part: attention to the guidance, attention to the audio, and the LM head (equations 11 to 13).

    Args:
        language: The language model, whose head is the initial LM head.
        frame_size: Number of values in a frame of the audio encoder.
        reduced: Number of values to which states and frames are reduced for the attention to the audio.
        dropout: Dropout rate after both attention layers.
        tokens: The ids of the tokens that can be predicted, in ascending order (default: all tokens of the language
            model). The LM head has an output for each of them.
    """

    tokens: Tensor | None

    def __init__(
        self,
        language: LanguageModel,
        frame_size: int,
        reduced: int,
        dropout: float,
        tokens: Sequence[int] | None = None,
    ):
        super().__init__()
        size = language.size
        self.guidance = Attention(size, size, language.heads, size // language.heads)
        self.reduce_states = nn.Linear(size, reduced)
        self.reduce_frames = nn.Linear(frame_size, reduced)
        self.sound = Attention(reduced, reduced, AUDIO_HEADS, reduced // AUDIO_HEADS)
        self.widen = nn.Linear(reduced, size)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)
        head_weights = language.head.state_dict()
        self.all_tokens = language.head.weight.shape[0]
        if tokens is None:
            self.register_buffer("tokens", None)
        else:
            self.register_buffer("tokens", torch.tensor(tokens))
            head_weights = {name: weight[self.tokens] for name, weight in head_weights.items()}
        self.head = nn.Linear(size, len(head_weights["weight"]), bias=language.head.bias is not None)
        self.head.load_state_dict(head_weights)

    def remember(self, guidance: Tensor, guidance_lengths: Tensor, frames: Tensor, frame_lengths: Tensor) -> Memory:
        """Compute the memory of N clips.

        Args:
            guidance: (N, M, size) the language model's states of the guidance (equation 9).
            guidance_lengths: (N,) number of tokens in each guidance.
            frames: (N, T, frame size) the audio encoder's frames.
            frame_lengths: (N,) number of frames of each clip.
        """
        guidance_mask = length_mask(guidance_lengths, guidance.shape[1])[:, None, None]
        sound_mask = length_mask(frame_lengths, frames.shape[1])[:, None, None]
        sound = self.sound.keys_values(self.reduce_frames(frames))
        return Memory(self.guidance.keys_values(guidance), guidance_mask, sound, sound_mask)

    def forward(self, states: Tensor, memory: Memory) -> Tensor:
        """Compute the logits of the next token at each position of prefixes.

        Args:
            states: (rows, L, size) the language model's states of the prefixes (equation 10).
            memory: The memory of the N clips.

        Returns:
            (rows, L, tokens) logits of the tokens that can be predicted.
        """
        by_clip = states.reshape(len(memory), -1, states.shape[2])  # (N, rows of a clip x L, size)
        from_guidance = self.dropout(self.guidance(by_clip, memory.guidance, memory.guidance_mask))  # (11)
        queries = self.reduce_states(from_guidance)
        from_audio = self.dropout(self.sound(queries, memory.sound, memory.sound_mask))
        return self.head(from_guidance + self.widen(from_audio)).view(*states.shape[:2], -1)  # (12), (13)

    def targets(self, following: Tensor) -> Tensor:
        """Return the index of the logit of each token id; `IGNORED` stays, and replaces tokens without a logit."""
        if self.tokens is None:
            return following
        indices = torch.full((self.all_tokens,), IGNORED, device=following.device)
        indices[self.tokens] = torch.arange(len(self.tokens), device=following.device)
        return torch.where(following == IGNORED, IGNORED, indices[following.clamp(min=0)])

    def for_all_tokens(self, logits: Tensor) -> Tensor:
        """Return (rows, all tokens) logits, which are minus infinity for tokens that cannot be predicted.

        Args:
            logits: (rows, tokens) logits of the tokens that can be predicted.
        """
        if self.tokens is None:
            return logits
        complete = logits.new_full((len(logits), self.all_tokens), -torch.inf)
        complete[:, self.tokens] = logits
        return complete


class Steps:
    """A `generation.Step` that predicts the next token with the language model and the generator.

    It stores the memory, and the language model's keys and values of the previous tokens, from step to step.

    Args:
        language: The language model.
        generator: The trained part, in evaluation mode.
        memory: The memory of the clips.
    """

    def __init__(self, language: LanguageModel, generator: Generator, memory: Memory):
        from transformers import DynamicCache

        self.language, self.generator, self.memory = language, generator, memory
        self.past = DynamicCache(config=language.body.config)
        self.rows_per_clip = 1

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the (rows, tokens) logits of each row's next token. The arguments are those of `generation.Step`."""
        clips = (rows // self.rows_per_clip).unique_consecutive()
        if len(clips) < len(self.memory):  # the captions of the other clips are complete
            self.memory = self.memory.of(clips)
        self.rows_per_clip = len(rows) // len(clips)
        if ids.shape[1] > 1:
            self.past.reorder_cache(rows)
        logits = self.generator(self.language(ids[:, -1:], self.past), self.memory)[:, 0]
        return self.generator.for_all_tokens(logits)


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Stack rows of numbers, padded to equal length.

    Returns:
        The rows, an int64 array of shape (rows, longest), and the length of each row, of shape (rows,).
    """
    parts = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=padding), torch.tensor([*map(len, rows)])


def too_long(what: str, tokens: int, window: float) -> str:
    """Return the message for text that does not fit into a language model's window."""
    return (
        f"{what} must fit into the language model's window of {window} tokens; found {tokens}: lower guidance, shorten "
        "the captions, or choose another language_model"
    )
