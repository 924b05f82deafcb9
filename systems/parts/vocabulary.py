"""The vocabulary of a captioner: its words and their indices.

Text is split into words as in DCASE's captioning baselines (dcase-2020-baseline, `tools/captions_functions.py`): the
text is put in lower case, and punctuation is replaced by spaces. In the baselines, punctuation is `, . ! ? ; : "`. In
this module, it is everything except letters and digits. Both keep hyphens and apostrophes within a word. A caption that
is decoded from its indices therefore has neither capitals nor a full stop. Caption metrics ignore both.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from evaluation.data.dataset import Split
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import word_overlap
from systems.parts.generation import Rules

PADDING, START, END, UNKNOWN = range(4)
FILE = "vocabulary.json"  # in the run folder
SPECIAL = ("<padding>", "<start>", "<end>", "<unknown>")  # texts have no such words, because brackets are punctuation


def words_with_hyphens(text: str) -> list[str]:
    """Split a text into lower-case words; hyphens and apostrophes within a word stay.

    `evaluation.metrics` lists the other functions that split text into words.

    >>> words_with_hyphens("A dog's bark -- then, (far-off) thunder!")
    ['a', "dog's", 'bark', 'then', 'far-off', 'thunder']
    """
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower().replace("’", "'"))


def validation_cider_d(split: Split, captions: Sequence[str]) -> float:
    """Return the CIDEr-D of captions, which can be monitored to choose the best epoch.

    Words are split by `words_with_hyphens`, because the metric's own tokeniser would start Java. So the value differs a
    little from the one of `dcase-evaluation score captions`.

    Args:
        split: The clips with their reference captions.
        captions: A caption for each clip.
    """

    def split_and_join(text: str) -> str:
        return " ".join(words_with_hyphens(text))

    references = []
    for clip in split.clips:
        references.append([split_and_join(caption) for caption in clip.captions])
    return float(word_overlap.CiderD([split_and_join(caption) for caption in captions], references).scores.mean())


def rules(min_words: int, max_words: int, no_repeat: int = 0) -> Rules:
    """Return the rules for captions of a vocabulary's words; the arguments are those of `generation.Rules`."""
    return Rules(START, END, PADDING, (PADDING, START, UNKNOWN), min_words, max_words, no_repeat)


class Vocabulary:
    """Words and their indices. The first four entries are padding, start, end and unknown.

    Args:
        words: The words from index 4 on, each once.
    """

    def __init__(self, words: Sequence[str]):
        self.words = (*SPECIAL, *words)
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change if a word or its index changes."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:8]

    def encode(self, text: str) -> list[int]:
        """Return the vocabulary indices of a text's words, without start and end."""
        return [self.ids.get(word, UNKNOWN) for word in words_with_hyphens(text)]

    def sequence(self, text: str, longest: int) -> list[int]:
        """Return the vocabulary indices of a text, with start and end.

        A text of more than `longest` words is cut after `longest` words, and the end is left out.

        >>> Vocabulary(["a", "dog"]).sequence("A dog!", 2), Vocabulary(["a", "dog"]).sequence("A dog!", 1)
        ([1, 4, 5, 2], [1, 4])
        """
        ids = self.encode(text)
        if len(ids) > longest:
            return [START, *ids[:longest]]
        return [START, *ids, END]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text for vocabulary indices, up to the first end. Start and padding are left out.

        >>> vocabulary = Vocabulary(["a", "barks", "dog"])
        >>> vocabulary.encode("A dog barks, twice."), vocabulary.decode([START, 4, 6, 5, END, PADDING])
        ([4, 6, 5, 3], 'a dog barks')
        """
        words = []
        for number in ids:
            if number == END:
                break
            if number not in (PADDING, START):
                words.append(self.words[number])
        return " ".join(words)

    def write(self, path: Path) -> None:
        """Write the words as a JSON list, one on each line. If writing fails, the path stays as it was."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def from_captions(captions: Iterable[str]) -> Vocabulary:
    """Make the vocabulary of captions: frequent words first, equally frequent words in alphabetical order.

    Raises:
        BadRequest: The captions do not contain any word.
    """
    counts = Counter(chain.from_iterable(map(words_with_hyphens, captions)))
    if not counts:
        raise BadRequest(
            "the development captions must have words, because a captioner's vocabulary is made from them; found only "
            "captions without words: write captions"
        )
    return Vocabulary(sorted(counts, key=lambda word: (-counts[word], word)))


def read(path: Path) -> Vocabulary:
    """Read a file that `Vocabulary.write` wrote.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not a vocabulary.
    """
    if not path.is_file():
        raise BadRequest(
            f"{path}: no such file; it is written when training begins and belongs to the run: put the run's own file "
            "back, or train again"
        )
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # the file is not JSON, or not UTF-8
        words = None
    if (
        not isinstance(words, list)
        or not all(isinstance(word, str) for word in words)
        or tuple(words[: len(SPECIAL)]) != SPECIAL
        or len(set(words)) != len(words)
    ):
        message = (
            f"must be a JSON list of distinct words that begins with {', '.join(SPECIAL)}, but is not; put the run's "
            "own file back, or train again"
        )
        raise Faulty([Finding(str(path), message=message)])
    return Vocabulary(words[len(SPECIAL) :])


def read_vocabulary(checkpoint: Path, digest: str) -> Vocabulary:
    """Read the vocabulary in the run folder of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        digest: The digest that the vocabulary must have.

    Raises:
        BadRequest: There is no such file, or its digest differs.
        Faulty: The file is not a vocabulary.
    """
    path = checkpoint.parent.parent / FILE
    vocab = read(path)
    if vocab.digest != digest:
        raise BadRequest(
            f"{path}: must be the vocabulary that {checkpoint} was trained with (digest {digest}); found another "
            f"(digest {vocab.digest}): put the run's own file back, or train again"
        )
    return vocab
