"""The text head's tokeniser: byte-pair encoding as in CLIP.

The tokeniser is CLIP's own (Radford et al. 2021), or is trained on captions with the same rules. It puts text in lower
case and separates words and punctuation. Within a word, it merges bytes that often occur together in the training text
into tokens. It adds a start and an end token to each text. Checkpoints contain the tokeniser as JSON text. The
docstring of `evaluation.metrics` lists the other functions that split text into words.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer, pre_tokenizers
from torch import Tensor
from transformers import CLIPTokenizer

from evaluation.downloads import Asset, Download, fetch_model, hub_cache
from evaluation.findings import BadRequest
from systems.clip_aac.heads import CONTEXT
from systems.parts import texts

HUB = "openai/clip-vit-base-patch32"
FILES = ("tokenizer.json", "vocab.json")
MERGES = 2000  # maximum number of merges of a tokeniser that is trained on captions
END = "</w>"  # marks the end of a word
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def load(name: str) -> Tokenizer:
    """Load CLIP's tokeniser from a folder or by its name on the hub.

    Raises:
        BadRequest: The tokeniser is not on this machine, or cannot be loaded.
    """
    folder = _find(name)
    if not any((folder / file).is_file() for file in FILES):
        raise BadRequest(
            f"{folder}: must contain CLIP's tokeniser ({' or '.join(FILES)}), but has neither file; give the "
            "tokeniser's folder, or `train`"
        )
    try:
        return _with_limits(CLIPTokenizer.from_pretrained(folder, **texts.OFFLINE))
    except Exception as error:  # a damaged file makes the library raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadRequest(f"{folder}: cannot be loaded as CLIP's tokeniser ({reason}); fetch it again") from error


def download(name: str = HUB) -> Download:
    """Return the download of the tokeniser, given a folder or its name on the hub. The model is not downloaded."""
    if name != HUB:
        return texts.download(name)
    asset = Asset("CLIP's tokeniser", HUB, 4_000_000, name=HUB)
    fetch = partial(fetch_model, HUB, (("merges.txt", "tokenizer_config.json", "vocab.json"), ("tokenizer.json",)))
    return Download(asset, hub_cache(), partial(_cached_folder, HUB), fetch)


def _cached_folder(name: str) -> Path | None:
    """Return the folder of a tokeniser in the hub's cache, or None if it is not there."""
    with contextlib.suppress(HFValidationError):  # a path is not a valid name on the hub
        for file in FILES:
            cached = try_to_load_from_cache(name, file)
            if isinstance(cached, str):
                return Path(cached).parent
    return None


def _find(name: str) -> Path:
    """Find the folder of the tokeniser. The hub's cache may contain the tokeniser without the model.

    Raises:
        BadRequest: The tokeniser is not on this machine; the message says how to get it.
    """
    try:
        return texts.find_model_folder(name)
    except BadRequest:
        cached = _cached_folder(name)
        if cached:
            return cached
        if name != HUB:
            raise
    command = f"dcase-systems download {HUB}"
    raise BadRequest(
        f"tokenizer: {HUB} is not on this machine; only its tokeniser is needed (4 MB), not the model's weights: fetch "
        f"it with: {command}, or give its folder"
    )


def train(captions: Iterable[str], merges: int = MERGES) -> Tokenizer:
    """Train a tokeniser on captions, with CLIP's order of tokens: bytes, bytes at a word's end, merges, special tokens.

    The most frequent pair of tokens is merged first (Sennrich et al. 2016). Of equally frequent pairs, the first in
    alphabetical order is merged. The trainer of the library tokenizers is not used, because it numbers tokens in a
    random order, and two runs must give the same numbers.

    Args:
        captions: The captions.
        merges: Maximum number of merges; training ends earlier if no pair occurs twice.
    """
    untrained = CLIPTokenizer().backend_tokenizer
    word_counts: Counter[str] = Counter()
    for caption in captions:
        text = untrained.normalizer.normalize_str(caption)
        word_counts.update(word for word, _ in untrained.pre_tokenizer.pre_tokenize_str(text))
    words = [[*word[:-1], word[-1] + END] for word in word_counts]  # each a list of tokens
    counts = list(word_counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    words_with_pair: dict[tuple[str, str], set[int]] = defaultdict(set)  # indices into `words`
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += counts[index]
            words_with_pair[pair].add(index)
    merged_pairs: list[tuple[str, str]] = []
    while pairs and len(merged_pairs) < merges:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merged_pairs.append(best)
        for index in words_with_pair.pop(best):
            for pair in pairwise(words[index]):
                pairs[pair] -= counts[index]
                words_with_pair[pair].discard(index)
                if not pairs[pair]:
                    del pairs[pair]
            words[index] = _merge(words[index], best)
            for pair in pairwise(words[index]):
                pairs[pair] += counts[index]
                words_with_pair[pair].add(index)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + END for letter in alphabet), *map("".join, merged_pairs), *SPECIAL]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return _with_limits(CLIPTokenizer(numbers, merged_pairs))


def _merge(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Join each occurrence of a pair of tokens in a word to one token."""
    merged: list[str] = []
    for token in word:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def encode(tokenizer: Tokenizer, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the token ids of texts.

    Returns:
        The token ids, an int64 array of shape (texts, T), padded, with start and end tokens, where T is at most 77; and
        the number of tokens of each text, of shape (texts,), which includes the start and end tokens.
    """
    encodings = tokenizer.encode_batch(list(captions))
    numbers = torch.tensor([encoding.ids for encoding in encodings])
    lengths = torch.tensor([sum(encoding.attention_mask) for encoding in encodings])
    return numbers, lengths


def _with_limits(tokenizer: CLIPTokenizer) -> Tokenizer:
    """Make the tokeniser truncate texts to `CONTEXT` tokens and pad them to equal length."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(CONTEXT)
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    return backend
