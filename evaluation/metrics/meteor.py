"""METEOR 1.5 for English: the process that matches captions, its table of paraphrases, and the formula.

    with Meteor(find_java(), cache) as process:
        statistics = process.statistics(["a dog barks"], [["a dog is barking"]])     # (1, 23)
    meteor(statistics.sum(axis=0))                                                   # METEOR of the corpus

METEOR is of the corpus: statistics of captions add up, and the formula is applied to their sum. The formula of one
caption's statistics is that caption's own METEOR.

Starting METEOR takes nearly all of its time, because it reads 5.3 million paraphrases. Fewer than a tenth of them can
match given references. `make_paraphrase_table` picks them out; with that table METEOR takes less than half the time
and gives the same statistics.

Sources: Denkowski & Lavie 2014, section 2, and METEOR 1.5's `MeteorStats` and English constants; aac-metrics 0.5.4,
`functional/meteor.py` (how METEOR is called).
"""

import gzip
import hashlib
import io
import json
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from evaluation.data.caption_text import one_line
from evaluation.files import replacing
from evaluation.metrics.java import JARS, SECONDS, Java, Unavailable, error_text, lay_out_jars, running
from evaluation.metrics.overlap import quotient

STATISTICS = 23
PHRASE_WORDS = 8  # words in a phrase that is looked for among the references; a longer one is kept

# English: weights of exact, stem, synonym and paraphrase matches, and alpha, beta, gamma, delta.
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75

_WORD = re.compile(r"[^\W_]+")


class Meteor:
    """A process of METEOR that waits for captions.

    It reads a table of paraphrases for some seconds before it answers: start it, do other work, then ask. Use it in a
    `with` statement, which ends the process.

    >>> with Meteor(find_java(), Path(".cache")) as meteor:      # doctest: +SKIP
    ...     meteor.statistics(["a dog barks"], [["a dog is barking"]])

    Args:
        java: The JVM that runs it.
        cache: Folder of the cache.
        table: The paraphrases of the references, from `make_paraphrase_table` (default: all paraphrases).
    """

    def __init__(self, java: Java, cache: Path, table: Path | None = None):
        program = ["-jar", JARS["meteor/meteor-1.5.jar"], "-", "-", "-stdio", "-l", "en", "-norm"]
        if table:
            program += ["-a", str(table)]
        self._running = running(java, "2G", program, lay_out_jars(cache))
        self._process = self._running.__enter__()

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(self, *reason: object) -> None:
        self._running.__exit__(None, None, None)

    def statistics(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the match statistics of each candidate against the reference that fits it best.

        They add up over captions, with one exception: a candidate that equals its reference word by word has no chunk
        here, because METEOR takes no fragmentation off it.

        Args:
            candidates: Tokenised captions.
            references: For each, one or more tokenised captions.

        Returns:
            (candidates, 23): length of candidate and reference; function words of both; for each of exact, stem,
            synonym and paraphrase matches the content words matched in candidate and reference and the function words
            matched in both; chunks; and matched words in both.

        Raises:
            Unavailable: The process died, or did not answer within an hour.
        """
        requests = []
        for candidate, texts in zip(candidates, references, strict=True):
            fields = ["SCORE", *map(_field, texts), _field(candidate)]
            requests.append(" ||| ".join(fields) + "\n")
        rows = self._answers(requests)
        statistics = np.array(rows, dtype=np.float64)
        whole = (statistics[:, 20] == 1) & (statistics[:, 21:] == statistics[:, :2]).all(axis=1)
        statistics[whole, 20] = 0
        return statistics

    def _answers(self, requests: Sequence[str]) -> list[list[str]]:
        """Send all requests, and return the words of each answer."""
        process = self._process
        content = "".join(requests).encode()

        def send() -> None:
            try:
                process.stdin.write(content)
                process.stdin.flush()
            except OSError:  # the process died; reading its answers notices that
                pass

        # All at once instead of one by one, so that METEOR does not wait for us between captions.
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(SECONDS, stop)
        timer.daemon = True
        timer.start()
        try:
            rows = [process.stdout.readline().split() for _ in requests]
        finally:
            timer.cancel()
        sender.join()
        if all(len(row) == STATISTICS for row in rows):
            return rows
        process.kill()
        process.wait()
        if timed_out.is_set():
            raise Unavailable(f"METEOR did not end within {SECONDS // 60} minutes; is a caption very long?")
        raise Unavailable(f"METEOR failed: {error_text(process) or f'it answered {rows[-1]!r}'}")


def _field(text: str) -> str:
    """Return a caption as it may stand in a request to METEOR: one line, without the mark that separates captions.

    The tokeniser makes no such mark; COCO's evaluation removes it from predictions, but not from references.
    """
    field = one_line(text)
    if "|||" in field:
        field = field.replace("|", " | ")
    return field


def meteor(sums: np.ndarray) -> np.ndarray:
    """Return METEOR of summed match statistics.

    Equals the answer of METEOR's own EVAL to the same statistics, of a caption and of the corpus, to rounding.

    Args:
        sums: (..., 23) sums of `Meteor.statistics`.

    Returns:
        (...), in [0, 1].
    """
    length, reference, function, reference_function = np.moveaxis(sums[..., :4], -1, 0)
    by_match = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # exact, stem, synonym, paraphrase
    content, reference_content, functions, reference_functions = np.moveaxis(by_match, -1, 0)
    chunks, matched, reference_matched = np.moveaxis(sums[..., 20:], -1, 0)
    precision = _share(content, functions, length, function)
    recall = _share(reference_content, reference_functions, reference, reference_function)
    mean = quotient(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragmentation = quotient(chunks, (matched + reference_matched) / 2)
    return mean * (1 - GAMMA * fragmentation**BETA)


def _share(content: np.ndarray, functions: np.ndarray, length: np.ndarray, function: np.ndarray) -> np.ndarray:
    """Return the weighted share of words that match: precision of a candidate's words, recall of a reference's."""
    weighted = (DELTA * content + (1 - DELTA) * functions) @ WEIGHTS
    return quotient(weighted, DELTA * (length - function) + (1 - DELTA) * function)


# The table of paraphrases --------------------------------------------------------------------------------------------


def paraphrase_table(references: Iterable[str], cache: Path) -> Path | None:
    """Return the table of paraphrases that `make_paraphrase_table` made for these references; None where there is none.

    A table has its SHA-256 in a file of the same name; a table that does not match it counts as absent.

    Args:
        references: Tokenised captions, in any order.
        cache: Folder of the cache.
    """
    table = _table_file(references, cache)
    try:
        whole = _checksum_file(table).read_text(encoding="ascii") == _sha256(table)
    except (OSError, ValueError):
        return None
    if whole:
        return table.absolute()
    return None


def make_paraphrase_table(references: Iterable[str], cache: Path) -> Path:
    """Write METEOR's table of paraphrases without those that cannot match these references.

    A paraphrase counts when one of its two phrases stands in a reference. METEOR splits some words at punctuation and
    removes it from others (`u.s.` becomes `us`), so only letters and digits are compared, without the blanks between
    words: the table has more paraphrases than necessary, and lacks none.

    Args:
        references: Tokenised captions, in any order.
        cache: Folder of the cache, where the table is kept by the references' content.

    Returns:
        The table.

    Raises:
        Unavailable: pycocoevalcap, which carries the whole table, is not installed.
    """
    references = list(references)
    table = _table_file(references, cache)
    phrases = _phrases(references)

    def may_match(phrase: str) -> bool:
        if phrase.count(" ") >= PHRASE_WORDS:
            return True
        plain = phrase.replace(" ", "")
        if not plain.isalnum():
            plain = "".join(_WORD.findall(plain))
        return plain in phrases

    # A probability and the two phrases, a line each. Without a name and a time, the same table has the same bytes.
    text = {"encoding": "utf-8", "newline": "\n"}
    with (
        gzip.open(lay_out_jars(cache) / "meteor" / "data" / "paraphrase-en.gz", "rt", **text) as whole,
        replacing(table) as part,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, **text) as chosen,
    ):
        for probability, one, other in zip(whole, whole, whole, strict=True):
            if may_match(one[:-1]) or may_match(other[:-1]):
                chosen.write(probability + one + other)
    with replacing(_checksum_file(table)) as part:
        part.write_text(_sha256(table), encoding="ascii")
    return table.absolute()


def _phrases(references: Iterable[str]) -> set[str]:
    """Return every phrase of the references, its letters and digits alone."""
    phrases = {""}  # so that a phrase of punctuation alone is kept
    for text in set(references):
        words = _WORD.findall(text)
        for start in range(len(words)):
            last = min(len(words), start + 2 * PHRASE_WORDS)
            for end in range(start + 1, last + 1):
                phrases.add("".join(words[start:end]))
    return phrases


def _table_file(references: Iterable[str], cache: Path) -> Path:
    content = ["meteor-1.5-en", PHRASE_WORDS, sorted(set(references))]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    return cache / "meteor" / f"{digest}.gz"


def _checksum_file(table: Path) -> Path:
    return table.with_suffix(".sha256")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
