"""METEOR 1.5 for English: the process that matches captions, the table of paraphrases, and the formula.

    with Meteor(find_java(), cache) as process:
        statistics = process.statistics(["a dog barks"], [["a dog is barking"]])     # (1, 23)
    meteor(statistics.sum(axis=0))                                                   # METEOR of the corpus

METEOR is a corpus metric: the statistics of captions add up, and the formula is applied to their sum. Applied to one
caption's statistics, the formula gives that caption's own METEOR.

METEOR spends nearly all of its time on starting, because it reads 5.3 million paraphrases. Fewer than a tenth of these
can match the references of a split. `make_paraphrase_table` writes a smaller table, which contains these and few
others. With this table, METEOR takes less than half the time and returns the same statistics.

Sources: Denkowski & Lavie 2014, section 2; METEOR 1.5's `MeteorStats` and its constants for English; aac-metrics 0.5.4,
`functional/meteor.py` (the arguments of METEOR).
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
from evaluation.metrics.java import JARS, SECONDS, Java, Unavailable, lay_out_jars, running
from evaluation.metrics.word_overlap import quotient

STATISTICS = 23
PHRASE_WORDS = 8  # maximum number of words of a phrase that is searched in the references; longer ones are kept

# METEOR's constants for English.
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75

_WORD = re.compile(r"[^\W_]+")


class Meteor:
    """A running METEOR process.

    The process reads its table of paraphrases for some seconds before it answers. So start it early, do other work,
    then call `statistics`. Use `Meteor` in a `with` statement, which ends the process.

    >>> with Meteor(find_java(), cache_folder()) as meteor:      # doctest: +SKIP
    ...     meteor.statistics(["a dog barks"], [["a dog is barking"]])

    Args:
        java: The JVM that runs METEOR.
        cache: Folder of the cache.
        table: The table of paraphrases from `make_paraphrase_table` (default: all paraphrases).
    """

    def __init__(self, java: Java, cache: Path, table: Path | None = None):
        arguments = ["-jar", JARS["meteor/meteor-1.5.jar"], "-", "-", "-stdio", "-l", "en", "-norm"]
        if table:
            arguments += ["-a", str(table)]
        self._running = running(java, "2G", arguments, lay_out_jars(cache))
        self._program = self._running.__enter__()

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(self, *reason: object) -> None:
        self._running.__exit__(None, None, None)

    def statistics(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the match statistics of each candidate with its best-matching reference.

        The statistics add up over captions. If a candidate equals its reference word by word, the number of chunks is
        set to 0, because METEOR does not apply its fragmentation penalty to such a candidate.

        Args:
            candidates: Tokenised captions.
            references: One or more tokenised references for each candidate.

        Returns:
            (candidates, 23) numbers. The columns are:

            - 0, 1: the length of the candidate and of the reference
            - 2, 3: the number of function words in the candidate and in the reference
            - 4 to 19: four numbers for each kind of match (exact, stem, synonym, paraphrase): the matched content words
              in the candidate and in the reference, and the matched function words in the candidate and in the
              reference
            - 20: the number of chunks
            - 21, 22: the number of matched words in the candidate and in the reference

        Raises:
            Unavailable: The process failed, or did not answer within an hour.
        """
        requests = []
        for candidate, texts in zip(candidates, references, strict=True):
            fields = ["SCORE", *map(_field, texts), _field(candidate)]
            requests.append(" ||| ".join(fields) + "\n")
        rows = self._answers(requests)
        statistics = np.array(rows, dtype=np.float64)
        is_equal = (statistics[:, 20] == 1) & (statistics[:, 21:] == statistics[:, :2]).all(axis=1)
        statistics[is_equal, 20] = 0
        return statistics

    def _answers(self, requests: Sequence[str]) -> list[list[bytes]]:
        """Send all requests to the process, and return the fields of each answer."""
        program = self._program
        process = program.process
        content = "".join(requests).encode()

        def send() -> None:
            try:
                program.stdin.write(content)
                program.stdin.flush()
            except OSError:  # the process has ended; the code that reads its answers reports this
                pass

        # A thread sends all requests at once, so that METEOR does not wait between captions.
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
            rows = [program.stdout.readline().split() for _ in requests]
        finally:
            timer.cancel()
        sender.join()
        if all(len(row) == STATISTICS for row in rows):
            return rows
        process.kill()
        process.wait()
        if timed_out.is_set():
            raise Unavailable(f"METEOR did not finish within {SECONDS // 60} minutes; is a caption very long?")
        reason = program.error_text() or f"it answered {rows[-1]!r}"
        raise Unavailable(f"METEOR failed: {reason}")


def _field(text: str) -> str:
    """Return a caption in the form that a request to METEOR allows: one line without `|||`, which separates captions.

    Captions from the tokeniser do not contain `|||`. COCO's evaluation removes it from predictions, but not from
    references.
    """
    field = one_line(text)
    if "|||" in field:
        field = field.replace("|", " | ")
    return field


def meteor(sums: np.ndarray) -> np.ndarray:
    """Return METEOR of summed match statistics.

    For single captions and for the corpus, the value equals the answer of METEOR's command EVAL to the same statistics,
    up to rounding.

    Args:
        sums: (..., 23) sums of the rows that `Meteor.statistics` returns.

    Returns:
        (...) values in [0, 1].
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
    """Return the weighted share of matched words: precision for a candidate's words, recall for a reference's."""
    weighted = (DELTA * content + (1 - DELTA) * functions) @ WEIGHTS
    return quotient(weighted, DELTA * (length - function) + (1 - DELTA) * function)


# The table of paraphrases --------------------------------------------------------------------------------------------


def paraphrase_table(references: Iterable[str], cache: Path) -> Path | None:
    """Return the table that `make_paraphrase_table` made for these references, or None if there is no intact table.

    The SHA-256 of a table is in a file with the same stem. A table with another SHA-256 is not used.

    Args:
        references: Tokenised captions, in any order.
        cache: Folder of the cache.
    """
    table = _table_file(references, cache)
    try:
        is_intact = _checksum_file(table).read_text(encoding="ascii") == _sha256(table)
    except (OSError, ValueError):
        return None
    if is_intact:
        return table.absolute()
    return None


def make_paraphrase_table(references: Iterable[str], cache: Path) -> Path:
    """Write a copy of METEOR's table of paraphrases that omits paraphrases that cannot match these references.

    METEOR uses a paraphrase if one of its two phrases occurs in a reference. It splits some words at punctuation and
    removes punctuation from others (`u.s.` becomes `us`). So this function compares only letters and digits, without
    the blanks between words. The table contains every paraphrase that can match, and a few that cannot.

    Args:
        references: Tokenised captions, in any order.
        cache: Folder of the cache, where the table is stored under a digest of the references.

    Returns:
        The path of the table.

    Raises:
        Unavailable: pycocoevalcap, which contains the whole table, is not installed or lacks a file.
    """
    references = list(references)
    table = _table_file(references, cache)
    phrases = _phrases(references)

    def may_match(phrase: str) -> bool:
        if phrase.count(" ") >= PHRASE_WORDS:
            return True
        characters = phrase.replace(" ", "")
        if not characters.isalnum():
            characters = "".join(_WORD.findall(characters))
        return characters in phrases

    # Each paraphrase has three lines: a probability and the two phrases. The gzip header does not contain a file name
    # or a time, so that equal tables are equal files.
    whole_table = lay_out_jars(cache) / "meteor" / "data" / "paraphrase-en.gz"
    with (
        gzip.open(whole_table, "rt", encoding="utf-8", newline="\n") as all_lines,
        replacing(table) as part,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as selected,
    ):
        for probability, first, second in zip(all_lines, all_lines, all_lines, strict=True):
            if may_match(first[:-1]) or may_match(second[:-1]):
                selected.write(probability + first + second)
    with replacing(_checksum_file(table)) as part:
        part.write_text(_sha256(table), encoding="ascii")
    return table.absolute()


def _phrases(references: Iterable[str]) -> set[str]:
    """Return the letters and digits of every phrase in the references, without blanks."""
    phrases = {""}  # with the empty text, a phrase that has only punctuation also matches
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
