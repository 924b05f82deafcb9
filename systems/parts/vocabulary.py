"""The words that a captioner knows, by number.

Text becomes words as in the captioning baselines of DCASE (dcase-2020-baseline, `tools/captions_functions.py`): lower
case, and punctuation is blank. There that is `, . ! ? ; : "` alone; here it is all but letters and digits. Hyphens and
apostrophes within a word stay, there and here. So a caption that is put together again from its numbers has neither
capitals nor a full stop, which no caption metric sees.
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
from evaluation.metrics import overlap
from systems.parts.generation import Rules

PADDING, START, END, UNKNOWN = range(4)
FILE = "vocabulary.json"  # in the run folder
SPECIAL = ("<padding>", "<start>", "<end>", "<unknown>")  # no text has such words: their brackets are punctuation


def words_with_hyphens(text: str) -> list[str]:
    """Split a text into lower-case words; hyphens and apostrophes within a word stay.

    `evaluation.metrics` lists the other functions that split text into words.

    >>> words_with_hyphens("A dog's bark -- then, (far-off) thunder!")
    ['a', "dog's", 'bark', 'then', 'far-off', 'thunder']
    """
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower().replace("’", "'"))


def cider(split: Split, captions: Sequence[str]) -> float:
    """CIDEr-D of captions, one of each clip, by these words: the metric's own tokeniser would start Java."""

    def plain(text: str) -> str:
        return " ".join(words_with_hyphens(text))

    references = []
    for clip in split.clips:
        references.append([plain(caption) for caption in clip.captions])
    return float(overlap.CiderD([plain(caption) for caption in captions], references).scores.mean())


def rules(min_words: int, max_words: int, no_repeat: int = 0) -> Rules:
    """What a caption of a vocabulary's words may be; the arguments are those of `generation.Rules`."""
    return Rules(START, END, PADDING, (PADDING, START, UNKNOWN), min_words, max_words, no_repeat)


class Vocabulary:
    """Words and their numbers; the first four are padding, start, end and unknown.

    Args:
        words: The words from number 4 on, each once.
    """

    def __init__(self, words: Sequence[str]):
        self.words = (*SPECIAL, *words)
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with any word or its number."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:8]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's words, without start and end."""
        return [self.ids.get(word, UNKNOWN) for word in words_with_hyphens(text)]

    def sequence(self, text: str, longest: int) -> list[int]:
        """The numbers of a text from start to end; behind `longest` words it is cut, and has no end.

        >>> Vocabulary(["a", "dog"]).sequence("A dog!", 2), Vocabulary(["a", "dog"]).sequence("A dog!", 1)
        ([1, 4, 5, 2], [1, 4])
        """
        ids = self.encode(text)
        return [START, *ids[:longest], *([END] if len(ids) <= longest else [])]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of numbers, up to the first end; start and padding are left out.

        >>> vocabulary = Vocabulary(["a", "barks", "dog"])
        >>> vocabulary.encode("A dog barks, twice."), vocabulary.decode([START, 4, 6, 5, END, PADDING])
        ([4, 6, 5, 3], 'a dog barks')
        """
        said = []
        for number in ids:
            if number == END:
                break
            if number not in (PADDING, START):
                said.append(self.words[number])
        return " ".join(said)

    def write(self, path: Path) -> None:
        """Write as a JSON list, a word a line, whole or not at all."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def from_captions(captions: Iterable[str]) -> Vocabulary:
    """The vocabulary of all words of some captions, frequent ones first, equally frequent ones by alphabet.

    Raises:
        BadRequest: The captions hold no word.
    """
    counts = Counter(chain.from_iterable(map(words_with_hyphens, captions)))
    if not counts:
        raise BadRequest("the development captions hold no word, and a captioner learns its words from them")
    return Vocabulary(sorted(counts, key=lambda word: (-counts[word], word)))


def read(path: Path) -> Vocabulary:
    """Read what `Vocabulary.write` wrote.

    Raises:
        BadRequest: There is no such file.
        Faulty: It is no vocabulary.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; it is written when training begins and belongs to the run")
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # of JSON and of UTF-8
        words = None
    if (
        not isinstance(words, list)
        or not all(isinstance(word, str) for word in words)
        or tuple(words[: len(SPECIAL)]) != SPECIAL
        or len(set(words)) != len(words)
    ):
        message = (
            f"must be a JSON list of different words that begins with {', '.join(SPECIAL)}; put the run's own back"
        )
        raise Faulty([Finding(str(path), message=message)])
    return Vocabulary(words[len(SPECIAL) :])


def read_vocabulary(checkpoint: Path, digest: str) -> Vocabulary:
    """Read the vocabulary that lies in the run folder of a checkpoint, whose digest it must have.

    Raises:
        BadRequest: There is none, or it is another.
        Faulty: It is no vocabulary.
    """
    path = checkpoint.parent.parent / FILE
    known = read(path)
    if known.digest != digest:
        raise BadRequest(
            f"{path}: must be the vocabulary that {checkpoint} was trained with ({digest}); it is another "
            f"({known.digest}): put the run's own back, or train again"
        )
    return known
