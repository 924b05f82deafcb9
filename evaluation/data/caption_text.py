"""The text of a caption that metrics read, and remarks about unusual captions.

Markup in a caption must not change how another caption is read, and must not act as a command to a program that
computes a metric. So every predicted or reference caption becomes one line of plain words before any program reads it.

Conventions
-----------
- White space of any length, including line breaks of all kinds, becomes one blank.
- A lone surrogate, which UTF-8 cannot encode, becomes a question mark.
- A `<` that could begin a tag gets a blank after it, unless the tag has only a name, such as `<unk>`. The tokeniser of
  CoreNLP 3.4.1 reads a tag with its content as one token. `<!a|||b>` is such a token, but METEOR uses `|||` to separate
  captions. A quoted attribute, as in `<a href='`, even continues on the next lines, up to the next quotation
  mark. A blank after the `<` prevents both.
- A line that begins with a tag such as `<unk>` gets a zero-width space before the tag. The tokeniser skips this space
  and does not read the tag as the beginning of a sentence. The beginning of a sentence would change how the tokeniser
  reads a full stop at the end of the previous line.
- Only the first `WORDS` words and `CHARACTERS` characters of a text are read. Clotho's captions have at most 20 words.
  A caption of 20,000 words stops METEOR, so that no caption gets a score.

All other captions, including those with `<unk>`, have the same tokens as in COCO's evaluation.

Source: Stanford CoreNLP 3.4.1, `PTBLexer.flex`. Only the token SGML may contain `|||` or a line break. It starts with
`<` and a letter, `/`, `!` or `?`. An e-mail address in `<` and `>` also starts in this way.
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
    r"""Return a caption as the line of plain words that metrics read.

    >>> caption_line("A dog\nbarks <b class='x'>loudly</b> <unk>.")
    "A dog barks < b class='x'>loudly</b> <unk>."
    """
    plain = _TAG_START.sub("< ", _beginning(one_line(text)))
    if _NAME_FIRST.match(plain):
        return _ZERO_WIDTH_SPACE + plain
    return plain


def tokens_line(text: str) -> str:
    """Return the first `WORDS` words of a caption whose words are tokens already; the words do not change.

    >>> tokens_line("a dog  barks <unk>")
    'a dog barks <unk>'
    """
    return _beginning(one_line(text))


def one_line(text: str) -> str:
    """Return a text as one line of valid UTF-8."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(valid.split())


def _beginning(text: str) -> str:
    """Return the part of a line that metrics read.

    A line that is too long is cut between two words. It is cut inside its first word only if this word is too long.
    """
    beginning = " ".join(text.split(maxsplit=WORDS)[:WORDS])
    if len(beginning) <= CHARACTERS:
        return beginning
    whole_words, _, _ = beginning[: CHARACTERS + 1].rpartition(" ")
    return whole_words or beginning[:CHARACTERS]


def caption_remarks(text: str) -> list[tuple[str, str]]:
    """Return remarks about a valid caption that may be a mistake.

    Args:
        text: The caption as in the file.

    Returns:
        The kind of each remark (`length`, `special token` or `markup`) and its message. The message states what should
        hold, what was found, and what to do. The caller adds the name of the caption to the message.

    >>> caption_remarks("a dog <unk> barks")
    [('special token', "should be plain words; found the special token '<unk>': remove such tokens when decoding")]
    """
    remarks = []
    line = one_line(text)
    if line != _beginning(line):
        found = f"found {len(line.split())} words and {len(line)} characters"
        message = f"should have at most {WORDS} words and {CHARACTERS} characters; {found}: the rest is not read"
        remarks.append(("length", message))
    special = _SPECIAL_TOKEN.search(line)
    if special:
        message = f"found the special token {quoted(special[0])}: remove such tokens when decoding"
        remarks.append(("special token", f"should be plain words; {message}"))
    markup = _MARKUP.search(_SPECIAL_TOKEN.sub(" ", line))
    if markup:
        message = f"found the markup {quoted(markup[0])}: remove it"
        remarks.append(("markup", f"should be plain words; {message}"))
    return remarks
