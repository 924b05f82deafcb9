"""The check that a technical report is a complete PDF with pages. The file may be hostile.

pypdf reads the PDF in a separate process, which can use at most `SECONDS` of processor time and `MEMORY`. That process
runs this file as a script. This file therefore does not import any other module of the kit.
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pypdf.generic import PdfObject

LIMIT = 128 * 2**20  # maximum size of a report in bytes
SECONDS = 10  # maximum processor time in seconds; a paper of a few pages needs 0.1
PATIENCE = 120  # maximum waiting time in seconds, also on a busy machine
MEMORY = 2**30  # maximum memory in bytes
SHOWN = 200  # maximum number of characters of a reason

AGAIN = "export the report again"

# A dict from the digest of each report to the result. The report of a team file is also in the package, and is then
# read only once.
_faults: dict[bytes, str | None] = {}


def fault(path: Path) -> str | None:
    """Return a message if a file is not a complete PDF with pages, or None if it is one.

    Args:
        path: An existing file.

    Returns:
        The message. It says what must hold, what was found, and what to do.
    """
    size = path.stat().st_size
    if size > LIMIT:
        return f"must not be larger than {LIMIT} bytes; found {size} bytes: {AGAIN}, with smaller figures"
    content = path.read_bytes()
    begin, end = content[:1024], content[-2048:]  # the marks of a PDF must be in these parts (ISO 32000, annex H.3.4)
    if b"%PDF-" not in begin:
        found = "an empty file"
        if begin:
            found = f"a file that begins with {begin[:8]!r}"
        return f"must be a PDF; found {found}: export the report as PDF"
    if b"%%EOF" not in end:
        return f"must be a complete PDF; its end is missing: {AGAIN}"
    digest = hashlib.sha256(content).digest()
    if digest not in _faults:
        _faults[digest] = _read_apart(path)
    return _faults[digest]


def _read_apart(path: Path) -> str | None:
    """Read a PDF in a separate process. Return a message if it has a fault, or None if it has no fault."""
    command = [sys.executable, "-P", __file__, str(path.absolute())]  # -P: import nothing from this file's folder
    too_much = f"must be a PDF that needs at most {SECONDS} s and {MEMORY // 2**20} MB to read; it needs more: {AGAIN}"
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)  # noqa: S603
    except subprocess.TimeoutExpired:
        return too_much
    if done.returncode != 0:  # a limit ended the process, or a library crashed
        return too_much
    return done.stdout.decode("utf-8", "replace") or None


def _limited() -> None:
    """Limit the memory and the processor time of this process."""
    try:
        import resource  # Windows does not have it
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(kind, (limit, limit))


def _read(path: str) -> str:
    """Read a PDF. Return a message if it has a fault, or an empty text if it has no fault."""
    from pypdf import PdfReader
    from pypdf.generic import DictionaryObject

    reader = PdfReader(path)
    if reader.is_encrypted:
        return "must not be encrypted; it is: export the report without a password and without restrictions"
    pages = len(reader.pages)
    if pages == 0:
        return f"must have at least one page; found none: {AGAIN}"
    page_tree = cast(DictionaryObject, reader.root_object["/Pages"])  # `reader.pages` refuses other types
    listed = page_tree.get("/Count")
    if listed != pages:
        return f"must have the {listed} pages that it lists; found {pages}: {AGAIN}"
    for number, page in enumerate(reader.pages, start=1):
        if "/Contents" in page and not _is_present(page.raw_get("/Contents")):
            return f"must have the content of all pages; that of page {number} is missing: {AGAIN}"
    return ""


def _is_present(contents: "PdfObject") -> bool:
    """Return whether the contents of a page are in the file. They are one stream or a list of streams."""
    from pypdf.generic import ArrayObject, StreamObject

    loaded = contents.get_object()
    if isinstance(loaded, ArrayObject):
        parts = [part.get_object() for part in loaded]
    else:
        parts = [loaded]
    return all(isinstance(part, StreamObject) for part in parts)


def _message(path: str) -> str:
    """Return a message if a PDF has a fault or cannot be read, or an empty text if it has no fault."""
    try:
        return _read(path)
    except MemoryError:
        raise
    except Exception as error:  # a hostile file makes the library raise almost any exception
        reason = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        return f"must be a readable PDF; it cannot be read ({reason}): {AGAIN}"


def _main(path: str) -> None:
    import logging

    _limited()
    logging.disable()  # otherwise pypdf logs how it repairs a file
    sys.stdout.buffer.write(_message(path).encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    _main(sys.argv[1])
