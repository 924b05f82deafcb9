"""The text that a retriever compares with a clip, from a question and an option."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

_SUBJECT = re.compile(r"(?:which|what)\b.*?\b(?=(?:is|are|was|were|can|could|has|have|had)\b)", re.IGNORECASE)


def only_option(question: str, option: str) -> str:
    """Return the option alone."""
    return option


def question_and_option(question: str, option: str) -> str:
    """Return the question and the option, one after the other."""
    return f"{question} {option}"


def statement(question: str, option: str) -> str:
    """Return a statement: the option takes the place of the words before the verb of a question.

    This is possible if the question begins with "which" or "what", and the first verb after this word is a form of "be"
    or "have", or "can". Otherwise the result is `question_and_option`.

    >>> statement("Which of these sounds can be heard?", "rain falling")
    'rain falling can be heard.'
    >>> statement("How often does it ring?", "two times")
    'How often does it ring? two times'
    """
    subject = _SUBJECT.match(question)
    if subject is None:
        return question_and_option(question, option)
    rest = question[subject.end() :].rstrip(" ?")
    return f"{option} {rest}."


TEXTS: Mapping[str, Callable[[str, str], str]] = MappingProxyType(
    {"option": only_option, "question and option": question_and_option, "statement": statement}
)
