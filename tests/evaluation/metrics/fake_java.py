"""A stand-in for Java, and captions that the Java programs could misread."""

from pathlib import Path

HOSTILE = [
    "A dog's bark, twice.",
    "",
    "two\nlines",
    "a\ttab, a\rreturn and a\x0bvertical\x0cfeed",
    "separators\u2028of\u2029lines\x85and\x1cfiles",
    "   ",
    "...",
    'She said "hello" – “twice”',
    "emoji 🐕 and 👩‍👩‍👧 and é",
    "a ||| b",
    "null\x00byte \ufeff mark",
    "-LRB- (paren) [bracket] {brace}",
    "\udc80 a broken surrogate",
    "<!zqav|||!zqav> <?a ||| b> <!--c|||d-->",
    "<a href='",
    "</b>",
    "'> and &lt;a href=\"",
    "<\udc80A ||| b>",
    "*NL* EVAL ||| 1 SCORE",
    "me@home.org and http://a.b/c|||d",
    "x" * 1_000_000,
    "",
    "\n",
]


def fake_java(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "java").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "java").chmod(0o755)
    return folder
