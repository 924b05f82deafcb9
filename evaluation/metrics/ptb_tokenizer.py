"""The PTB tokeniser of COCO's evaluation, which every caption metric reads its captions through.

    ptb_tokenize(["A dog's bark, twice."], find_java(), Path(".cache"))     # ["a dog 's bark twice"]

The tokeniser is a Java program of Stanford CoreNLP 3.4.1 (`evaluation.metrics.java`).

Conventions
-----------
- A sentence is one line of plain words, whatever it holds (`evaluation.data.caption_text`).
- Tokens in the cache have their SHA-256 with them. A file that does not match it is ignored, and written again.

Who splits text into words, and how
-----------------------------------
This tokeniser starts Java and decides every caption metric. Systems split text with functions of their own, each with
the rule of its published code:

- `ptb_tokenizer.ptb_tokenize`: Penn Treebank tokens in lower case, no punctuation ("dog 's", "far-off"). All caption
  metrics.
- `systems.parts.vocabulary.words_with_hyphens`: lower case, hyphens stay within a word ("dog's", "far-off"). The
  vocabularies of captioners, and the captions that the baseline's floors choose from.
- `systems.parts.words.words_without_hyphens`: lower case, hyphens separate words ("dog's", "far", "off"). Word vectors.
- `baseline.cased_words.cased_words`: case stays, hyphens separate words, contractions are expanded and possessives
  dropped ("dog", "it is", "far", "off"). The retrieval baseline as published, with `tokens: cased`.
- The tokenisers of language models (GPT-2, BERT, CLIP and others) come with the models, through transformers.

Sources: aac-metrics 0.5.4, `utils/tokenization.py` (the tokens left out); Stanford CoreNLP 3.4.1, `PTBLexer.flex` and
`PTBTokenizer.java` (how the tokeniser looks into the next line).
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from evaluation.data.caption_text import caption_line
from evaluation.files import replacing
from evaluation.metrics.java import JARS, SECONDS, Java, Unavailable, error_text, lay_out_jars, running

VERSION = "ptb-3.4.1"  # the Stanford CoreNLP release of the tokeniser

# The tokens that COCO's evaluation leaves out.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."])

# The last words of a line of which the tokeniser keeps or removes the full stop by how the next line begins: a single
# letter before one of some words (The, A, It, …), and these abbreviations before a digit.
_LAST_WORD = re.compile(r"(?:^|[^A-Za-z])(?:[A-Za-z]|ca|figs?|prop|nos?|art|bldg|pp|op)\.$", re.IGNORECASE)
_NEXT_LINES = ("dogs", "The dog", "1 dog")  # a beginning that is not one of these, and two that are
_TAIL = 60  # characters at the end of a line that are tried: the last word is among them


def ptb_tokenize(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[str]:
    """Tokenise as COCO's evaluation does: Penn Treebank tokens in lower case, punctuation left out, joined by blanks.

    As there, all sentences are one text, and the last line has no line break. The order matters for a few of them:
    `depends_on_next` names those. Give the sentences in the official order (`evaluation.metrics.captioning`).

    Args:
        sentences: The sentences, whatever they hold.
        java: The JVM that runs the tokeniser.
        cache: Folder of the cache.
        keep: Keep the tokens in the cache, by the sentences' content, and take them from there the next time.

    Returns:
        For each sentence its tokens, joined by blanks.

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
    """Return the tokeniser's line for each sentence."""
    jar = JARS["tokenizer/stanford-corenlp-3.4.1.jar"]
    program = ["-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    text = "\n".join(caption_line(sentence) for sentence in sentences)
    with running(java, "1G", program, lay_out_jars(cache)) as process:
        try:
            output, _ = process.communicate(text.encode("utf-8"), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the tokeniser did not end within {SECONDS // 60} minutes") from None
        answers = output.decode("utf-8", "replace").split("\n")
        reason = ""
        if process.returncode:
            reason = error_text(process)
        elif len(answers) != len(sentences):
            reason = f"{len(answers)} lines for {len(sentences)}"
        if process.returncode or reason:
            raise Unavailable(f"the tokeniser failed on Java {java.version} ({java.path}): {reason}")
    return answers


def token_file(sentences: Sequence[str], cache: Path) -> Path:
    """Return the file of the cache for the tokens of these sentences; it need not exist."""
    content = [VERSION, sorted(PUNCTUATION), *map(caption_line, sentences)]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    return cache / "ptb" / f"{digest}.json"


def _tokens_digest(tokens: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _read_tokens(file: Path) -> list[str] | None:
    """Return the tokens that a file of the cache holds; None where it is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tokens = content["tokens"]
        whole = content["sha256"] == _tokens_digest(tokens)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if whole:
        return tokens
    return None


def depends_on_next(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[int]:
    """Return the places of the sentences whose tokens depend on how the sentence after them begins.

    The tokeniser reads `t.` at the end of a line as the letter alone where the next line begins with `The`, `A` or some
    other words, and with its full stop elsewhere; `no.` at the end of a line keeps its full stop before a number. This
    is a trait of the official tokeniser. Each sentence that ends like that is tokenised before three other lines.

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
    candidates = [place for place, end in enumerate(ends) if _LAST_WORD.search(end)]
    lines = []
    for place in candidates:
        for next_line in _NEXT_LINES:
            lines += [ends[place], next_line]
    tokens = ptb_tokenize(lines, java, cache, keep=keep)[::2]  # those of the candidates, before each next line
    count = len(_NEXT_LINES)
    dependent = []
    for index, place in enumerate(candidates):
        variants = tokens[index * count : (index + 1) * count]
        if len(set(variants)) > 1:
            dependent.append(place)
    return dependent
