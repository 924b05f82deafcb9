"""Technical reports: check that a file is a whole PDF with pages, whatever it holds.

pypdf reads a PDF in a process of its own, which may take `SECONDS` of processor time and `MEMORY`. That process runs
this file as a script, so nothing of the kit is imported here.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

LIMIT = 128 * 2**20  # bytes of a report
SECONDS = 10  # of a processor; a paper of a few pages takes a tenth of one
PATIENCE = 120  # seconds after which the process is given up, however busy the machine is
MEMORY = 2**30
SHOWN = 200  # characters of a reason

AGAIN = "export the report again"

# By the digests of reports that were read: a team file and its package have the same report.
_faults: dict[bytes, str | None] = {}


def fault(path: Path) -> str | None:
    """Return why a file is not a whole PDF with pages; None if it is one.

    Args:
        path: An existing file.

    Returns:
        What must hold, what was found, and what to do.
    """
    size = path.stat().st_size
    if size > LIMIT:
        return f"must not be larger than {LIMIT} bytes; found {size}: {AGAIN}, with smaller figures"
    content = path.read_bytes()
    begin, end = content[:1024], content[-2048:]  # where the marks must stand (ISO 32000, annex H.3.4)
    if b"%PDF-" not in begin:
        found = f"begins with {begin[:8]!r}" if begin else "is empty"
        return f"must be a PDF; it {found}: export the report as PDF"
    if b"%%EOF" not in end:
        return f"must be a whole PDF; its end is missing: {AGAIN}"
    digest = hashlib.sha256(content).digest()
    if digest not in _faults:
        _faults[digest] = _read_apart(path)
    return _faults[digest]


def _read_apart(path: Path) -> str | None:
    """Read a PDF in a process of its own, and return what is wrong with it; None if nothing is."""
    command = [sys.executable, "-P", __file__, str(path.absolute())]  # -P: modules beside this file are not imported
    too_much = f"must be a PDF that takes at most {SECONDS} s and {MEMORY // 2**20} MB to read; it takes more: {AGAIN}"
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)  # noqa: S603
    except subprocess.TimeoutExpired:
        return too_much
    if done.returncode != 0:  # killed by a limit, or by a fault in a library
        return too_much
    return done.stdout.decode("utf-8", "replace") or None


def _limited() -> None:
    """Limit the memory and the processor time of this process."""
    try:
        import resource  # which Windows does not have
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(kind, (limit, limit))


def _read(path: str) -> str:
    """Read a PDF and return what is wrong with it; an empty text if nothing is."""
    from pypdf import PdfReader

    reader = PdfReader(path)
    if reader.is_encrypted:
        return "must not be encrypted; it is: export the report without a password and without restrictions"
    pages = len(reader.pages)
    if pages == 0:
        return f"must have a page at least; found none: {AGAIN}"
    listed = reader.root_object["/Pages"].get("/Count")
    if listed != pages:
        return f"must have the {listed} pages that it lists; found {pages}: {AGAIN}"
    for number, page in enumerate(reader.pages, start=1):
        if "/Contents" in page and not _is_there(page.raw_get("/Contents")):
            return f"must hold what is on its pages; page {number} is not there: {AGAIN}"
    return ""


def _is_there(contents: object) -> bool:
    """Return whether the contents of a page, one stream or a list of them, are in the file."""
    from pypdf.generic import ArrayObject, StreamObject

    found = contents.get_object()
    if isinstance(found, ArrayObject):
        parts = [part.get_object() for part in found]
    else:
        parts = [found]
    return all(isinstance(part, StreamObject) for part in parts)


def _message(path: str) -> str:
    """Return what is wrong with a PDF, also if it cannot be read; an empty text if nothing is."""
    try:
        return _read(path)
    except MemoryError:
        raise
    except Exception as error:  # a hostile file makes the library raise almost anything
        reason = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        return f"must be a PDF that can be read; it cannot be ({reason}): {AGAIN}"


def _main(path: str) -> None:
    import logging

    _limited()
    logging.disable()  # pypdf logs how it repairs a file
    sys.stdout.buffer.write(_message(path).encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    _main(sys.argv[1])
