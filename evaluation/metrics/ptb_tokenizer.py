"""The PTB tokeniser of COCO's evaluation. All caption metrics use its tokens.

    ptb_tokenize(["A dog's bark, twice."], find_java(), cache_folder())     # ["a dog 's bark twice"]

The tokeniser is a Java program of Stanford CoreNLP 3.4.1 (`evaluation.metrics.java`). Systems split text with other
functions. The docstring of `evaluation.metrics` contains a table of these functions.

Conventions
-----------
- The tokeniser gets each sentence as one line of plain words (`evaluation.data.caption_text`).
- The cache stores tokens with their SHA-256. If a cached file does not match its SHA-256, the tokens are computed and
  written again.

Sources: aac-metrics 0.5.4, `utils/tokenization.py` (the tokens that are removed); Stanford CoreNLP 3.4.1,
`PTBLexer.flex` and `PTBTokenizer.java` (how the tokeniser looks at the next line).
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from evaluation.data.caption_text import caption_line
from evaluation.files import replacing
from evaluation.metrics.java import JARS, SECONDS, Java, Unavailable, lay_out_jars, running

VERSION = "ptb-3.4.1"  # the Stanford CoreNLP release of the tokeniser

# The tokens that COCO's evaluation removes.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."])

# Last words of a line with a full stop that the tokeniser keeps or removes depending on how the next line begins. These
# are single letters, if the next line begins with The, A, It or another such word, and these abbreviations, if it
# begins with a digit.
_LAST_WORD = re.compile(r"(?:^|[^A-Za-z])(?:[A-Za-z]|ca|figs?|prop|nos?|art|bldg|pp|op)\.$", re.IGNORECASE)
_NEXT_LINES = ("dogs", "The dog", "1 dog")  # begin with an ordinary word, with one of these words, and with a digit
_TAIL = 60  # number of characters at the end of a line that are tokenised; they include the last word


def ptb_tokenize(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[str]:
    """Tokenise sentences as COCO's evaluation does: Penn Treebank tokens in lower case, without punctuation.

    As in COCO's evaluation, all sentences form one text, and the last line has no line break. So the order of the
    sentences affects the tokens of a few sentences, which `depends_on_next` finds. Give the sentences in the official
    order (`evaluation.metrics.captioning`). `evaluation.metrics` lists the other functions that split text into words.

    Args:
        sentences: The sentences; any text is allowed.
        java: The JVM that runs the tokeniser.
        cache: Folder of the cache.
        keep: Store the tokens in the cache under a digest of the sentences, and read them from the cache next time.

    Returns:
        The tokens of each sentence, joined by blanks.

    Raises:
        Unavailable: The tokeniser cannot run.
    """
    if not sentences:
        return []
    file = token_file(sentences, cache)
    if keep:
        tokens = _read_tokens(file)
        if tokens is not None and len(tokens) == len(sentences):
            return tokens
    tokens = []
    for answer in _run_tokenizer(sentences, java, cache):
        words = [token for token in answer.split() if token not in PUNCTUATION]
        tokens.append(" ".join(words))
    if keep:
        content = {"sha256": _tokens_digest(tokens), "tokens": tokens}
        with replacing(file) as part:
            part.write_text(json.dumps(content), encoding="utf-8")
    return tokens


def _run_tokenizer(sentences: Sequence[str], java: Java, cache: Path) -> list[str]:
    """Return the line that the tokeniser prints for each sentence."""
    jar = JARS["tokenizer/stanford-corenlp-3.4.1.jar"]
    arguments = ["-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    text = "\n".join(caption_line(sentence) for sentence in sentences)
    with running(java, "1G", arguments, lay_out_jars(cache)) as program:
        process = program.process
        try:
            output, _ = process.communicate(text.encode("utf-8"), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the tokeniser did not finish within {SECONDS // 60} minutes") from None
        answers = output.decode("utf-8", "replace").split("\n")
        reason = ""
        if process.returncode:
            reason = program.error_text()
        elif len(answers) != len(sentences):
            reason = f"it printed {len(answers)} lines for {len(sentences)} sentences"
        if process.returncode or reason:
            raise Unavailable(f"the tokeniser failed on Java {java.version} ({java.path}): {reason}")
    return answers


def token_file(sentences: Sequence[str], cache: Path) -> Path:
    """Return the cache file for the tokens of these sentences, which may not exist yet."""
    content = [VERSION, sorted(PUNCTUATION), *map(caption_line, sentences)]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    return cache / "ptb" / f"{digest}.json"


def _tokens_digest(tokens: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _read_tokens(file: Path) -> list[str] | None:
    """Return the tokens in a cache file, or None if the file is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tokens = content["tokens"]
        is_intact = content["sha256"] == _tokens_digest(tokens)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if is_intact:
        return tokens
    return None


def depends_on_next(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[int]:
    """Return the indices of the sentences whose tokens depend on how the next sentence begins.

    The official tokeniser removes the full stop of `t.` at the end of a line if the next line begins with `The`, `A` or
    some other words, and keeps it otherwise. It keeps the full stop of `no.` at the end of a line before a number. This
    function tokenises each such ending three times, with a different next line each time, and compares the tokens.

    Args:
        sentences: The sentences.
        java: The JVM that runs the tokeniser.
        cache: Folder of the cache.
        keep: As in `ptb_tokenize`.

    Returns:
        Indices into `sentences`, ascending.

    Raises:
        Unavailable: The tokeniser cannot run.
    """
    ends = [caption_line(sentence)[-_TAIL:] for sentence in sentences]
    candidates = [index for index, end in enumerate(ends) if _LAST_WORD.search(end)]
    lines = []
    for index in candidates:
        for next_line in _NEXT_LINES:
            lines += [ends[index], next_line]
    tokens = ptb_tokenize(lines, java, cache, keep=keep)[::2]  # [::2] drops the tokens of the next lines
    count = len(_NEXT_LINES)
    dependent = []
    for number, index in enumerate(candidates):
        variants = tokens[number * count : (number + 1) * count]
        if len(set(variants)) > 1:
            dependent.append(index)
    return dependent
