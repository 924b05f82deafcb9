"""The text of a caption: the one line that metrics read of it, and what in it a team should look at.

Nothing that a caption holds may change how another text is read, or act as a command to a program that computes a
metric. So every caption, prediction or reference, becomes one line of plain words before any program sees it.

Conventions
-----------
- Every run of white space, line breaks of all kinds among it, is a blank.
- Half a surrogate pair, which UTF-8 does not have, is a question mark.
- A `<` that could begin a tag is followed by a blank, unless the tag is a mere name, such as `<unk>`. The tokeniser of
  CoreNLP 3.4.1 takes a tag for one token, with all that it holds: `<!a|||b>` is such a token, and METEOR separates
  captions by `|||`. A quoted attribute, as in `<a href='`, even runs on into the next lines, up to the next quote. A
  blank after the `<` ends both.
- A line that begins with `<unk>` or the like has a zero-width space before it. The tokeniser skips that, and no longer
  takes the tag for the beginning of a sentence, which would change how it reads a full stop at the end of the line
  before.
- A text is read up to `WORDS` words and `CHARACTERS` characters. Clotho's longest caption has 20 words. A caption of
  20,000 words stops METEOR, and with it the scores of all other captions.

All other captions, and those with `<unk>`, have the tokens of COCO's evaluation.

Source: Stanford CoreNLP 3.4.1, `PTBLexer.flex`: SGML is the only token that may hold a `|||` or a line break. It starts
with `<` and a letter, `/`, `!` or `?`. An e-mail address in `<` and `>` starts so too.
"""

import re

from evaluation.text import quoted

WORDS = 500
CHARACTERS = 3_000

_NAME = r"/?[A-Za-z][A-Za-z0-9_:.-]*>"
_TAG_START = re.compile(rf"<(?=[!?/]|[^\W_])(?!{_NAME})")
_NAME_FIRST = re.compile(f"<{_NAME}")
_ZERO_WIDTH_SPACE = "\u200b"
_MARKUP = re.compile(r"<(?:[!?/]|[^\W_])[^<>]{0,60}>?")
_SPECIAL_TOKEN = re.compile(
    r"</?(?:s|sos|eos|bos|sep|cls|pad|unk|mask|start|end|blank)>"
    r"|\[(?:sos|eos|bos|sep|cls|pad|unk|mask|start|end)\]"
    r"|<\|[a-z_0-9]{1,40}\|>",
    re.IGNORECASE,
)


def caption_line(text: str) -> str:
    r"""Return the one line of plain words that the metrics read of a caption.

    >>> caption_line("A dog\nbarks <b class='x'>loudly</b> <unk>.")
    "A dog barks < b class='x'>loudly</b> <unk>."
    """
    plain = _TAG_START.sub("< ", _beginning(one_line(text)))
    if _NAME_FIRST.match(plain):
        return _ZERO_WIDTH_SPACE + plain
    return plain


def one_line(text: str) -> str:
    """Return a text as one line of valid UTF-8."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(valid.split())


def _beginning(text: str) -> str:
    """Return the beginning of a line that metrics read, cut between two words where there are two."""
    beginning = " ".join(text.split(maxsplit=WORDS)[:WORDS])
    if len(beginning) <= CHARACTERS:
        return beginning
    whole_words, _, _ = beginning[: CHARACTERS + 1].rpartition(" ")
    return whole_words or beginning[:CHARACTERS]


def caption_remarks(text: str) -> list[tuple[str, str]]:
    """Return what a team should look at in a caption that is valid all the same.

    Args:
        text: The caption, as it stands in the file.

    Returns:
        The kind of each remark (`length`, `special token` or `markup`) and its message, which goes on after the name of
        the caption: what should hold, what was found, and what to do.

    >>> caption_remarks("a dog <unk> barks")
    [('special token', "should be plain words; found the special token '<unk>': leave such tokens out when decoding")]
    """
    made = []
    whole = one_line(text)
    if whole != _beginning(whole):
        found = f"found {len(whole.split())} words and {len(whole)} characters"
        message = f"should have at most {WORDS} words and {CHARACTERS} characters; {found}: what is beyond is not read"
        made.append(("length", message))
    special = _SPECIAL_TOKEN.search(whole)
    if special:
        message = f"found the special token {quoted(special[0])}: leave such tokens out when decoding"
        made.append(("special token", f"should be plain words; {message}"))
    markup = _MARKUP.search(_SPECIAL_TOKEN.sub(" ", whole))
    if markup:
        message = f"found the markup {quoted(markup[0])}: take it out"
        made.append(("markup", f"should be plain words; {message}"))
    return made
