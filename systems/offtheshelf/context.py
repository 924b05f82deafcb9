"""Contextual word embeddings: the vector that a text model such as BERT gives to each word of a caption.

Source: Weck et al. 2021, section 3.4, which uses the penultimate layer of BERT base over the whole caption. The paper
leaves two points open. In this module, the text model reads a caption's words in lower case without punctuation, as the
decoder predicts them, and the special tokens that its tokeniser adds ([CLS], [SEP]). A word of several tokens gets the
mean of their vectors.

In a bidirectional model, the vector of each word depends on the words after it. There are therefore two ways to embed
a caption:

- `caption`: All words of the caption are embedded at once, as in the paper. In training, the vectors of the previous
  words then depend on the next word, which the decoder must predict. In generation, later words do not exist yet. The
  words generated so far are embedded again at each step, so the vectors of previous words change, too.
- `prefix`: Each word is embedded as the last word of a text, the caption up to this word, both in training and in
  generation. The vectors do not depend on later words, and training uses the same vectors as generation.
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
    """A frozen text model that embeds words in context.

    Args:
        name: Name of a transformers model, as in `texts.load_text_encoder`.
        layer: Index of the layer to read; -2 is the penultimate one.
        view: The part of a caption that the model reads for each word in training: `prefix` or `caption` (see above).

    Raises:
        BadRequest: The model is not on this machine, is not a transformers model, or its tokeniser does not report the
            positions of its tokens.
    """

    def __init__(self, name: str, layer: int, view: View):
        super().__init__()
        self.encoder = texts.load_text_encoder(name, layer)
        self.size, self.view = self.encoder.size, view
        if not self.encoder.tokenizer.is_fast:
            raise BadRequest(
                f"{name}: must have a fast tokeniser (tokenizer.json), which reports the positions of its tokens; it "
                "has a slow one: give another text model"
            )

    @property
    def identity(self) -> str:
        """A text that changes with anything that its vectors depend on."""
        return repr((self.encoder.identity, self.view))

    def train(self, mode: bool = True) -> "Context":
        """Stay in evaluation mode, because the model is frozen."""
        return super().train(False)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embed the words of texts.

        Args:
            captions: Texts whose words are separated by single spaces.

        Returns:
            (captions, maximum number of words, size) float32. The vectors are zero after the last word of a text, for a
            word that the tokeniser drops, and for words beyond the model's maximum length.
        """
        tokens, states = self.encoder.states(captions, return_offsets_mapping=True)
        most_words = max(text.count(" ") for text in captions) + 1
        share = torch.zeros(len(captions), most_words, states.shape[1])  # the weight of each token in each word's mean
        for row, text in enumerate(captions):
            for token, (start, end) in enumerate(tokens["offset_mapping"][row].tolist()):
                if end > start:  # special tokens have an empty span
                    word = text.count(" ", 0, end - 1)
                    share[row, word, token] = 1
        share /= share.sum(2, keepdim=True).clamp(min=1)
        return share.to(states) @ states

    def embed(self, captions: Sequence[str], cache: Path) -> list[np.ndarray]:
        """Return the vectors of every caption's words for training. Those that the cache lacks are computed.

        Captions go through the model one at a time, so that no vector depends on another caption.

        Args:
            captions: Texts whose words are separated by single spaces.
            cache: Folder of the cache.

        Returns:
            (words, size) float32 vectors for each caption.
        """

        def compute(missing: Sequence[str]) -> Iterator[np.ndarray]:
            with torch.inference_mode():
                for caption in tqdm(missing, "words in context", leave=False, disable=None, unit="caption"):
                    if self.view == "prefix":
                        vectors = self._prefixes(caption)
                    else:
                        vectors = self([caption])[0]
                    yield vectors.cpu().numpy()

        def digests(captions: Sequence[str]) -> list[str]:
            return [digest(caption.encode()) for caption in captions]

        return Store(cache, "context", self.identity, self.size).rows(captions, compute, digests)

    def _prefixes(self, caption: str) -> Tensor:
        """Embed each word of a caption as the last word of the caption up to this word: (words, size)."""
        words = caption.split(" ")
        vectors = self([" ".join(words[:count]) for count in range(1, len(words) + 1)])  # (prefixes, words, size)
        return vectors.diagonal().T  # the last word of each prefix
