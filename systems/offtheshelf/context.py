"""Words in their context: what a text model such as BERT says of each word of a caption.

Weck et al. 2021, section 3.4: the penultimate layer of BERT base, over the whole caption. Where the paper is silent: a
caption is its words in lower case without punctuation, as the decoder says them, and with what the model's tokeniser
puts around a text ([CLS], [SEP]); a word of several pieces has their mean.

A model that looks both ways tells of each word what comes behind it. So there are two ways to look at a caption:

- `caption`: all its words at once, as the paper has it. In training the words before then hint at the one that is to
  be guessed. When a caption is made there is nothing behind: what was said so far is embedded again with each word, so
  that the words before change their vectors too.
- `prefix`: each word as the last one of what was said so far, in training as when a caption is made. No vector depends
  on what comes behind, and what training computes is what is computed later.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.findings import BadRequest
from systems.caching.store import Store
from systems.parts import texts
from systems.parts.digests import digest

View = Literal["prefix", "caption"]


class Context(nn.Module):
    """A frozen text model that is asked for the vectors of words.

    Args:
        name: Of a transformers model, as in `texts.encoder`.
        layer: Of it; -2 is the penultimate one.
        view: How it looks at a caption in training.

    Raises:
        BadRequest: It is not on this machine, is something else, or its tokeniser does not know where its pieces are.
    """

    def __init__(self, name: str, layer: int, view: View):
        super().__init__()
        self.encoder = texts.encoder(name, layer)
        self.size, self.view = self.encoder.size, view
        if not self.encoder.tokenizer.is_fast:
            raise BadRequest(f"{name}: must have a fast tokeniser (tokenizer.json), which says where its pieces are")

    @property
    def identity(self) -> str:
        """What its vectors follow from."""
        return repr((self.encoder.identity, self.view))

    def train(self, mode: bool = True) -> "Context":
        """Stay as it is: without dropout."""
        return super().train(False)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embed texts, words with single spaces between them.

        Returns:
            (captions, most words, size) float32; zeros behind a text's words, for a word that the tokeniser leaves out
            altogether, and for words behind the model's longest text.
        """
        tokens, states = self.encoder.states(captions, return_offsets_mapping=True)
        share = torch.zeros(len(captions), max(text.count(" ") for text in captions) + 1, states.shape[1])
        for row, text in enumerate(captions):
            for piece, (start, end) in enumerate(tokens["offset_mapping"][row].tolist()):
                if end > start:  # else it is none of the text's
                    share[row, text.count(" ", 0, end - 1), piece] = 1
        share /= share.sum(2, keepdim=True).clamp(min=1)
        return share.to(states) @ states

    def embed(self, captions: Sequence[str], cache: Path) -> list[np.ndarray]:
        """The vectors of every caption's words for training, (words, size) float32 each, computed once.

        Captions go through the model one at a time, so that no vector depends on another caption.
        """

        def compute(missing: Sequence[str]) -> Iterator[np.ndarray]:
            with torch.inference_mode():
                for caption in tqdm(missing, "words in context", leave=False, disable=None, unit="caption"):
                    yield (self._prefixes(caption) if self.view == "prefix" else self([caption])[0]).cpu().numpy()

        def digests(captions: Sequence[str]) -> list[str]:
            return [digest(caption.encode()) for caption in captions]

        return Store(cache, "context", self.identity, self.size).rows(captions, compute, digests)

    def _prefixes(self, caption: str) -> Tensor:
        words = caption.split(" ")
        vectors = self([" ".join(words[:count]) for count in range(1, len(words) + 1)])
        return vectors.diagonal().T  # of each prefix its last word
