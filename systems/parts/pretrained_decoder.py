"""Pretrained text decoders that read audio: BART, GPT-2, Llama and similar models of transformers.

A decoder reads the audio in one of two ways. With `cross-attention`, each of its layers attends to the audio. BART and
other encoder-decoder models have such layers, and their encoder is not used. GPT-2 gets new layers. With `prefix`, the
audio comes before the embeddings of the caption's tokens, as if it were text (Mokady et al. 2021, "ClipCap").

The pretrained weights are `frozen`, trained with `lora` (Hu et al. 2021), or trained in `full`. Two parts are always
trained: the layer that maps the audio to the decoder's size, and new cross-attention.
"""

import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.parts import texts
from systems.parts.digests import tensors_digest
from systems.parts.sequences import length_mask
from systems.parts.text_generators import TextGenerator

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

Fusion = Literal["cross-attention", "prefix"]
Tuning = Literal["frozen", "lora", "full"]

CROSS_ATTENTION = r".*cross_?att.*"  # names of the layers that transformers adds for cross-attention
PREFIX_ARGUMENTS = ("inputs_embeds", "attention_mask", "position_ids", "past_key_values", "logits_to_keep")


@dataclass(frozen=True)
class Lora:
    """The settings of LoRA.

    Attributes:
        rank: Rank of the matrices that are added to the weights.
        alpha: The added matrices are multiplied by alpha / rank.
        dropout: Dropout rate of the input of the added matrices.
    """

    rank: int
    alpha: int
    dropout: float


class PretrainedDecoder(TextGenerator):
    """A pretrained text decoder that reads audio.

    Args:
        name: A folder or a GGUF file, either of them also in an installed package (PACKAGE/PATH), or a hub name.
        audio_size: Number of values of an element of the audio.
        fusion: The way in which the decoder reads the audio.
        tuning: The choice of the pretrained weights that are trained.
        lora: The settings of LoRA.

    Attributes:
        enter: The layer that maps the audio to the decoder's size.
        language: The model of transformers. With `tuning=lora`, it is a `PeftModel`.
        identity: A text that changes with the tokeniser and the pretrained weights.
        window: Maximum number of positions: tokens, and the audio if it is a prefix.

    Raises:
        BadRequest: The model is not on this machine, cannot read audio in this way, or does not have one end token.
    """

    def __init__(self, name: str, audio_size: int, fusion: Fusion, tuning: Tuning, lora: Lora):
        super().__init__(name, "decoder")
        self.fusion, self.tuning = fusion, tuning
        self.is_encoder_decoder = bool(self.pretrained_config.is_encoder_decoder)
        if self.is_encoder_decoder:
            language = self._load_encoder_decoder()
        else:
            language = self._load_causal()
        head = language.get_output_embeddings()
        if head is None:
            raise self.refusal("must have an LM head after its last layer; found none")
        self.outputs = head.weight.shape[0]
        self.window = texts.window(language)
        self._set_first_tokens()
        size = language.config.hidden_size
        if fusion == "prefix":
            size = language.get_input_embeddings().weight.shape[1]
        self.enter = nn.Linear(audio_size, size)
        self.language: nn.Module = language
        self.eval()
        if not self._repeats_itself():
            raise self.refusal(
                "must read text from left to right by attention with a key/value cache, like GPT-2; "
                f"{type(language).__name__} with this config does not"
            )
        pretrained = {name: value for name, value in language.state_dict().items() if not self._is_new(name)}
        self.identity = repr((texts.tokenizer_digest(self.tokenizer), tensors_digest(pretrained)))
        self._choose_trained_weights(lora)
        self.train()

    # Loading ---------------------------------------------------------------------------------------------------------

    def _load_encoder_decoder(self) -> "PreTrainedModel":
        """Load BART or a similar model, and drop its encoder."""
        from transformers import AutoModelForSeq2SeqLM

        if self.fusion == "prefix":
            raise BadRequest(
                f"fusion must be cross-attention for {self.name}, which is an encoder-decoder model; found prefix: set "
                "fusion=cross-attention, or give a decoder like GPT-2"
            )
        language = self.load(AutoModelForSeq2SeqLM)
        language.base_model.encoder = None
        return language

    def _load_causal(self) -> "PreTrainedModel":
        """Load GPT-2, Llama or a similar model, with cross-attention if it reads audio in this way."""
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self.require_architecture([*names], "a model that generates text, such as GPT2LMHeadModel")
        if self.fusion == "prefix":
            language = self.load(AutoModelForCausalLM)
            arguments = inspect.signature(language.forward).parameters
            lacking = [argument for argument in PREFIX_ARGUMENTS if argument not in arguments]
            if lacking:
                raise self.refusal(
                    f"must accept embeddings in place of tokens; {type(language).__name__} has no {lacking[0]}"
                )
            return language
        if not hasattr(self.pretrained_config, "add_cross_attention"):
            raise BadRequest(
                f"fusion must be prefix for {self.name}, because transformers cannot add cross-attention to "
                f"{self.pretrained_config.architectures[0]}; found cross-attention: set fusion=prefix, or give a "
                "decoder like GPT-2 or BART"
            )
        return self.load(AutoModelForCausalLM, CROSS_ATTENTION, add_cross_attention=True)

    def _is_new(self, weight: str) -> bool:
        """Return whether the weight with this name belongs to the cross-attention that is added to a causal model."""
        has_new = self.fusion == "cross-attention" and not self.is_encoder_decoder
        return has_new and re.search(CROSS_ATTENTION, weight) is not None

    def _set_first_tokens(self) -> None:
        """Set the start and the end, and `before`, the tokens that the decoder reads before the start.

        BART, for example, was trained to read </s>, <s> and then the text.
        """
        config = self.pretrained_config
        if not self.is_encoder_decoder:
            self.before: list[int] = []
            self.set_ends(config.bos_token_id)
            return
        self.set_ends(config.decoder_start_token_id)
        special = self.tokenizer("")["input_ids"]
        if special[-1:] == [self.end]:
            special = special[:-1]
        first = [self.start, *special]
        self.before, self.start = first[:-1], first[-1]

    @torch.no_grad()
    def _repeats_itself(self) -> bool:
        """Return whether logits computed token by token are equal, up to rounding, to logits computed at once.

        The logits token by token use a cache and audio without padding; the logits at once use padded audio. They are
        equal only if logits do not depend on later tokens, and if the padding of the audio is masked.
        """
        audio = torch.linspace(-1, 1, self.enter.in_features).repeat(2, 2, 1)
        ids = torch.tensor([[self.start, *self.encode("rain falls")]])
        at_once = self(ids.expand(2, -1), audio, torch.tensor([1, 2]))[:1]
        steps = PretrainedSteps(self, audio[:1, :1], torch.tensor([1]))
        first = torch.tensor([0])
        one_by_one = [steps(ids[:, : length + 1], first) for length in range(ids.shape[1])]
        return torch.allclose(torch.stack(one_by_one, 1), at_once, rtol=1e-3, atol=1e-3)

    def _choose_trained_weights(self, lora: Lora) -> None:
        """Set which weights of the model are trained. With LoRA, add its weights.

        Raises:
            BadRequest: LoRA does not know the layers of this kind of model.
        """
        self.language.requires_grad_(self.tuning == "full")
        if self.tuning == "lora":
            self.language = self._with_lora(lora)
        for name, parameter in self.language.named_parameters():
            if self._is_new(name):
                parameter.requires_grad_(True)

    def _with_lora(self, lora: Lora) -> nn.Module:
        from peft import LoraConfig, get_peft_model

        excluded = None
        if any(self._is_new(name) for name in self.language.state_dict()):
            excluded = CROSS_ATTENTION  # new layers are trained themselves
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, exclude_modules=excluded)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # peft corrects it
                warnings.filterwarnings("ignore", category=FutureWarning)  # between peft and transformers
                return get_peft_model(self.language, config)
        except ValueError:
            raise BadRequest(
                f"tuning must be frozen or full for {self.name}, because peft does not know which layers of "
                f"{type(self.language).__name__} get LoRA; found lora"
            ) from None

    # Computation -----------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "PretrainedDecoder":
        """Set training or evaluation mode. A frozen model stays in evaluation mode."""
        super().train(mode)
        if self.tuning == "frozen":
            self.language.eval()
        return self

    def trained_inside(self) -> Iterator[str]:
        """Yield the names of the weights that are trained although most weights of the model are frozen."""
        for name, parameter in self.language.named_parameters():
            if parameter.requires_grad and self.tuning != "full":
                yield f"language.{name}"

    def forward(self, ids: Tensor, audio: Tensor, lengths: Tensor) -> Tensor:
        """Compute the logits of the next token at all positions of captions (teacher forcing).

        Args:
            ids: (N, L) token ids, from the start on. Ids below 0 are padding, which comes last.
            audio: (N, T, audio size) the audio of N clips.
            lengths: (N,) number of elements of the audio of each clip.

        Returns:
            (N, L, tokens) logits.
        """
        return self.predict(ids.clamp(min=0), *self.enter_audio(audio, lengths))

    def enter_audio(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map audio to the decoder's size. A prefix is moved to the right, so that the caption follows it directly.

        Args:
            audio: (N, T, audio size) the audio of N clips.
            lengths: (N,) number of elements of the audio of each clip.

        Returns:
            (N, T, size) the audio, and (N, T) a mask, int64, which is 0 for padding.
        """
        longest = audio.shape[1]
        audio, mask = self.enter(audio), length_mask(lengths, longest)
        if self.fusion == "prefix":
            sources = torch.arange(longest, device=audio.device) - (longest - lengths)[:, None]  # below 0: padding
            mask = sources >= 0
            audio = audio.take_along_dim(sources.clamp(min=0)[..., None], dim=1)
        return audio, mask.long()

    def new_cache(self) -> "Cache":
        """Return an empty cache of keys and values."""
        from transformers import DynamicCache, EncoderDecoderCache

        cache = DynamicCache(config=self.language.config)
        if self.fusion == "prefix":
            return cache
        return EncoderDecoderCache(cache, DynamicCache(config=self.language.config))

    def predict(self, ids: Tensor, audio: Tensor, mask: Tensor, past: "Cache | None" = None) -> Tensor:
        """Compute the logits of the next tokens.

        Args:
            ids: (rows, L) token ids: those from the start on, or those after the tokens in the cache.
            audio: (rows, T, size) audio, from `enter_audio`.
            mask: (rows, T) the mask of the audio, from `enter_audio`.
            past: The keys and values of all previous positions. Those of `ids` are added.

        Returns:
            (rows, L, tokens) logits.

        Raises:
            BadRequest: Audio and tokens do not fit into the model's window.
        """
        number, seen = ids.shape[1], past.get_seq_length() if past is not None else 0
        if not seen:
            ids = torch.cat([ids.new_tensor(self.before).expand(len(ids), -1), ids], dim=1)
        cache = {"past_key_values": past, "use_cache": past is not None}
        if self.fusion == "prefix":
            return self._predict_after_prefix(ids, audio, mask, seen, number, cache)
        self.require_window(seen + ids.shape[1])
        if self.is_encoder_decoder:
            from transformers.modeling_outputs import BaseModelOutput

            encoded = BaseModelOutput(last_hidden_state=audio)
            output = self.language(decoder_input_ids=ids, encoder_outputs=encoded, attention_mask=mask, **cache)
        else:
            output = self.language(input_ids=ids, encoder_hidden_states=audio, encoder_attention_mask=mask, **cache)
        return output.logits[:, -number:]

    def _predict_after_prefix(
        self, ids: Tensor, audio: Tensor, mask: Tensor, seen: int, number: int, cache: dict[str, object]
    ) -> Tensor:
        """Compute the logits of the next tokens after a prefix, of which `seen` positions are in the cache."""
        embeddings = self.language.get_input_embeddings()(ids)
        if not seen:
            embeddings = torch.cat([audio, embeddings], dim=1)
        total = seen + embeddings.shape[1]
        self.require_window(total)
        attended = torch.cat([mask, mask.new_ones(len(mask), total - mask.shape[1])], dim=1)
        positions = (attended.cumsum(1) - 1).clamp(min=0)  # padding does not count
        output = self.language(
            inputs_embeds=embeddings,
            attention_mask=attended,
            position_ids=positions[:, seen:],
            logits_to_keep=number,
            **cache,
        )
        return output.logits

    def require_window(self, positions: int) -> None:
        """Make sure that the model can read this many positions.

        Raises:
            BadRequest: The positions do not fit into the model's window.
        """
        if positions > self.window:
            raise BadRequest(
                f"audio and caption must fit into the decoder's window of {self.window} positions; found {positions}: "
                "lower longest, max_words or overlap, or choose another decoder"
            )


class PretrainedSteps:
    """A `generation.Step` that predicts the next token with a pretrained decoder and its key/value cache.

    Args:
        decoder: The decoder.
        audio: (N, T, audio size) the audio of N clips.
        lengths: (N,) number of elements of the audio of each clip.
    """

    def __init__(self, decoder: PretrainedDecoder, audio: Tensor, lengths: Tensor):
        self.decoder = decoder
        self.audio, self.mask = decoder.enter_audio(audio, lengths)
        self.past = decoder.new_cache()

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the (rows, tokens) logits of each row's next token. The arguments are those of `generation.Step`."""
        self.audio, self.mask = self.audio[rows], self.mask[rows]
        if self.past.get_seq_length():
            self.past.reorder_cache(rows)
        return self.decoder.predict(ids[:, -1:], self.audio, self.mask, self.past)[:, -1]
