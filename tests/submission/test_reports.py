"""Reports: complete PDFs are accepted; all others, also hostile ones, get one message, in limited time and memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from submission import reports
from tests.submission import made
from tests.submission.made import CATALOGUE, PDF, pdf

ROOT = Path(__file__).parents[2]
PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
AGAIN = "export the report again"


def fault(content: bytes, folder: Path) -> str | None:
    (folder / "report.pdf").write_bytes(content)
    return reports.fault(folder / "report.pdf")


FINE = {
    "a page": PDF,
    "an empty page": pdf(CATALOGUE, PAGES, PAGE),
    "bytes before and after": b"mail\n" + PDF + b"\n\n",
    "the baseline's": (ROOT / "baseline" / "report.pdf").read_bytes(),
}


@pytest.fixture
def here(monkeypatch):
    """Read the PDF in this process, which is faster."""
    monkeypatch.setattr(reports, "_read_apart", lambda path: reports._message(str(path)) or None)


@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_a_pdf_with_pages(content, tmp_path, here):
    assert fault(content, tmp_path) is None


LOST = b"<< /Type /Page /Parent 2 0 R /Contents 9 0 R >>"
REFUSED = {
    "empty": (b"", "must be a PDF; found an empty file: export the report as PDF"),
    "another file": (
        b"PK\3\4 and more",
        r"must be a PDF; found a file that begins with b'PK\x03\x04 and': export the report as PDF",
    ),
    "no end": (PDF.removesuffix(b"%%EOF\n"), f"must be a complete PDF; its end is missing: {AGAIN}"),
    "marks alone": (
        b"%PDF-%%EOF",
        f"must be a readable PDF; it cannot be read (startxref not found): {AGAIN}",
    ),
    "no pages": (
        pdf(CATALOGUE, b"<< /Type /Pages /Kids [] /Count 0 >>"),
        f"must have at least one page; found none: {AGAIN}",
    ),
    "fewer pages than listed": (
        pdf(CATALOGUE, PAGES.replace(b"/Count 1", b"/Count 4"), PAGE),
        f"must have the 4 pages that it lists; found 1: {AGAIN}",
    ),
    "a page that is not there": (
        pdf(CATALOGUE, PAGES, LOST),
        f"must have the content of all pages; that of page 1 is missing: {AGAIN}",
    ),
    "encrypted": (
        pdf(
            CATALOGUE,
            PAGES,
            PAGE,
            trailer=b"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b> >>"
            % (b"0" * 64, b"0" * 64),
        ),
        "must not be encrypted; it is: export the report without a password and without restrictions",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_pdf(content, message, tmp_path, here):
    assert fault(content, tmp_path) == message


HOSTILE = {
    "its own parent": pdf(CATALOGUE, b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>"),
    "a ring of pages": pdf(CATALOGUE, b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", PAGES.replace(b"3 0", b"2 0")),
    "nested without end": pdf(b"[" * 20_000),
    "no catalogue": pdf(b"<< /Pages 3 0 R >>"),
    "a number for pages": pdf(CATALOGUE, b"7"),
    "marks of objects": b"%PDF-1.4\n" + b"1 0 obj\n" * 10**5 + b"startxref\n0\n%%EOF",
    "escape sequences": pdf(CATALOGUE, b"<< /Type /\x1b[2J\r\n\0 /Kids 7 >>"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pdf_is_one_finding(content, tmp_path, here):
    found = fault(content, tmp_path)
    assert found
    assert len(found) < 500
    assert AGAIN in found


SPENDING = """
import sys
sys.argv = ["reports", "x"]
from submission import reports
reports.{limit} = {value}
def read(path):
    {spend}
reports._read = read
reports._main("x")
"""
TOO_MUCH = f"must be a PDF that needs at most 10 s and 1024 MB to read; it needs more: {AGAIN}"


@pytest.mark.parametrize(
    ("limit", "value", "spend"),
    [
        ("SECONDS", 1, "while True: pass"),
        ("MEMORY", 2**28, "x = bytearray(2**30)"),
        ("SECONDS", 9, "import os; os.abort()"),
    ],
)
def test_reading_is_bounded(limit, value, spend, tmp_path, monkeypatch):
    """A function that uses too much replaces pypdf, whose own limits change from version to version."""
    script = SPENDING.format(limit=limit, value=value, spend=spend)
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: run([sys.executable, "-c", script], cwd=ROOT, **how))
    assert fault(PDF + f"% {limit} {spend}\n".encode(), tmp_path) == TOO_MUCH


def test_a_report_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "LIMIT", 100)
    message = f"must not be larger than 100 bytes; found {len(PDF)} bytes: {AGAIN}, with smaller figures"
    assert fault(PDF, tmp_path) == message


def test_a_report_is_read_once(tmp_path, monkeypatch):
    """A team file and its package have the same report, and so do thousands of packages in the tests."""
    assert fault(PDF, tmp_path) is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("read again"))
    assert fault(PDF, tmp_path) is None


def test_modules_beside_it_are_not_imported(tmp_path, monkeypatch):
    """Modules in the folder of `reports` or in the working directory do not shadow those of Python."""
    (tmp_path / "pypdf.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert fault(PDF + b"% elsewhere\n", tmp_path) is None
    assert made.PDF == PDF
