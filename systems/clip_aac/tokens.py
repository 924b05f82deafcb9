"""Byte pairs: how the text head reads a caption.

A tokeniser is the one of CLIP (Radford et al. 2021), or is made in its manner from captions: lower case, words and
signs apart, pieces of bytes that are joined by how often they stand together, a start and an end around each text. It
goes with the weights, as a text. `evaluation.metrics` lists the other functions that split text into words.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer, pre_tokenizers
from torch import Tensor
from transformers import CLIPTokenizer

from evaluation.findings import BadRequest
from systems.clip_aac.heads import CONTEXT
from systems.parts import texts

HUB = "openai/clip-vit-base-patch32"
FILES = ("tokenizer.json", "vocab.json")
MERGES = 2000  # of a tokeniser that is made from captions, at most
END = "</w>"  # of a word
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def load(name: str) -> Tokenizer:
    """CLIP's tokeniser, from a folder or by its name on the hub.

    Raises:
        BadRequest: It is not on this machine, or is none.
    """
    folder = _find(name)
    if not any((folder / file).is_file() for file in FILES):
        raise BadRequest(f"{folder}: must hold CLIP's tokeniser, {' or '.join(FILES)}; give its folder, or `train`")
    try:
        return _fitted(CLIPTokenizer.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # a damaged file makes the library raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadRequest(f"{folder}: cannot be loaded as CLIP's tokeniser ({reason}); fetch it again") from error


def _find(name: str) -> Path:
    """Find the folder of the tokeniser, which may be in the hub's cache without the model.

    Raises:
        BadRequest: It is not on this machine; with how to get it.
    """
    try:
        return texts.find_model_folder(name)
    except BadRequest:
        with contextlib.suppress(HFValidationError):  # a path is no name on the hub
            for file in FILES:
                cached = try_to_load_from_cache(name, file)
                if isinstance(cached, str):
                    return Path(cached).parent
        if name != HUB:
            raise
    message = f"{HUB} is not on this machine; of it CLIP's tokeniser alone is needed (4 MB), not the model's weights"
    command = f".venv/bin/hf download {HUB} tokenizer.json vocab.json merges.txt"
    raise BadRequest(f"tokenizer: {message}: fetch it with {command}, or give a folder that holds these files")


def train(captions: Iterable[str], merges: int = MERGES) -> Tokenizer:
    """A tokeniser whose pieces are those of some captions, laid out as CLIP's: bytes, bytes at a word's end, merges.

    What stands together most often is joined first (Sennrich et al. 2016); of equally frequent pairs, the first by
    alphabet. The library's own trainer numbers pieces by chance, and two runs must agree.
    """
    plain = CLIPTokenizer().backend_tokenizer
    texts = (plain.normalizer.normalize_str(caption) for caption in captions)
    counts = Counter(word for text in texts for word, _ in plain.pre_tokenizer.pre_tokenize_str(text))
    words = [[*word[:-1], word[-1] + END] for word in counts]
    numbers = list(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    having: dict[tuple[str, str], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += numbers[index]
            having[pair].add(index)
    found = []
    while pairs and len(found) < merges:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        found.append(best)
        for index in having.pop(best):
            for pair in pairwise(words[index]):
                pairs[pair] -= numbers[index]
                having[pair].discard(index)
                if not pairs[pair]:
                    del pairs[pair]
            words[index] = _merged(words[index], best)
            for pair in pairwise(words[index]):
                pairs[pair] += numbers[index]
                having[pair].add(index)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + END for letter in alphabet), *map("".join, found), *SPECIAL]
    return _fitted(CLIPTokenizer({piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, found))


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def encode(tokenizer: Tokenizer, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Number the pieces of texts as (texts, T) int64, filled up, and (texts,) how many, both ends too; 77 at most."""
    found = tokenizer.encode_batch(list(captions))
    return torch.tensor([one.ids for one in found]), torch.tensor([sum(one.attention_mask) for one in found])


def _fitted(tokenizer: CLIPTokenizer) -> Tokenizer:
    found = tokenizer.backend_tokenizer
    found.enable_truncation(CONTEXT)
    found.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    return found
