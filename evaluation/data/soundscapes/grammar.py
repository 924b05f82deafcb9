"""The grammar of the captions, which describes a scene in words and reads a scene from a caption."""

import re
from functools import cache
from itertools import chain, cycle
from types import SimpleNamespace

from numpy.random import Generator

from evaluation.data.soundscapes.synthesis import SOUND_KINDS, Scene

CAPTIONS, FEWEST_WORDS, MOST_WORDS = 5, 8, 20

StatedScene = dict[str, tuple[str, int | None]]  # a scene as a caption states it; None: a count that it does not state


# Words for a count. `TIMES` follow a verb, and the last one is the simplest. `NUMBERS` precede a noun. A texture (0)
# does not have such words.
TIMES = {
    0: (),
    1: ("once",),
    2: ("two times", "twice"),
    3: ("three times in a row", "three times"),
    5: ("again and again", "repeatedly", "several times"),
}
NUMBERS = {0: (), 1: ("a single", "one"), 2: ("two",), 3: ("three",), 5: ("several",)}

# The templates for each combination of roles in a scene. {a.clause} is, for example, "a dog barks twice", {a.doing} is
# "a dog barking twice", and {a.sound} is "two barks of a dog". {a.be} is "is" or "are", which agrees with the sound
# before it. The fixed text of a template must not contain a phrase of a kind.
TEMPLATES = {
    "a": (
        "{a.clause} and no other sound can be heard",
        "{a.clause} in an otherwise very quiet place",
        "in an otherwise silent place {a.clause}",
        "{a.sound} can be heard and nothing else happens",
        "the only thing that can be heard is {a.sound}",
        "there is nothing to be heard apart from {a.sound}",
        "everything is quiet except for {a.doing}",
        "{a.sound} {a.be} recorded with no other sounds around",
        "{a.clause} close by without any other noise",
    ),
    "ab": (
        "{a.clause} and then {b.clause}",
        "{a.clause}, and after that {b.clause}",
        "first {a.clause}, then {b.clause}",
        "{a.clause} before {b.clause}",
        "{b.clause} after {a.clause}",
        "after {a.sound}, {b.clause}",
        "{a.sound} {a.be} followed by {b.sound}",
        "{b.sound} {b.be} preceded by {a.sound}",
        "{a.doing}, followed by {b.doing}",
        "once {a.sound} {a.be} no longer heard, {b.clause}",
        "{b.sound} can be heard right after {a.sound}",
        "it begins with {a.sound} and ends with {b.sound}",
        "{a.clause}, and a moment later {b.clause}",
    ),
    "abc": (
        "{a.clause}, then {b.clause}, and finally {c.clause}",
        "first {a.clause}, next {b.clause}, and lastly {c.clause}",
        "{a.sound} {a.be} followed by {b.sound} and then by {c.sound}",
        "after {a.sound}, {b.clause} and then {c.clause}",
        "{a.clause} before {b.clause}, and at the end {c.clause}",
        "it begins with {a.sound}, continues with {b.sound} and ends with {c.sound}",
        "{c.clause} after {a.sound} followed by {b.sound}",
        "{a.sound}, {b.sound} and {c.sound} can be heard one after another",
    ),
    "xa": (
        "{a.clause} while {x.clause} in the background",
        "while {x.clause} in the background, {a.clause}",
        "{a.clause} over {x.sound}",
        "{a.sound} can be heard over {x.sound}",
        "with {x.sound} in the background, {a.clause}",
        "{a.clause} with {x.doing} in the background",
        "{x.sound} can be heard the whole time as {a.clause}",
        "there is {x.sound} all along, and in the middle {a.clause}",
        "{a.sound} {a.be} heard while {x.clause} all the time",
    ),
    "xab": (
        "while {x.clause} in the background, {a.clause} and then {b.clause}",
        "{a.clause} and then {b.clause}, with {x.doing} in the background",
        "over {x.sound}, {a.clause} and then {b.clause}",
        "{a.sound} {a.be} followed by {b.sound} while {x.clause}",
        "with {x.sound} in the background, {a.sound} can be heard before {b.sound}",
        "{x.clause} the whole time; first {a.clause}, then {b.clause}",
        "{b.clause} after {a.clause}, both over {x.sound}",
        "with {x.doing} in the background, {a.clause} before {b.clause}",
        "there is {x.sound} all along, {a.clause}, and a moment later {b.clause}",
    ),
}


@cache
def phrases(kind: str, count: int) -> dict[str, list[tuple[str, int | None]]]:
    """Return a dict from a form (clause, doing, sound) to the phrases for a source in this form.

    Each phrase comes with the count that it states, or None if it does not state a count.

    >>> phrases("dog", 2)["clause"][:3]
    [('a dog barks', None), ('a dog barks two times', 2), ('a dog barks twice', 2)]
    """
    forms: dict[str, list[tuple[str, int | None]]] = {"clause": [], "doing": [], "sound": []}
    unstated = None if SOUND_KINDS[kind].lasts else 0
    spoken = [("", unstated), *((f" {times}", count) for times in TIMES[count])]
    for words in SOUND_KINDS[kind].words.split("; "):
        one, several = (re.sub(r"(\S+)/(\S+)", choice, words) for choice in (r"\1", r"\2"))
        if one == several:
            forms["sound"].append((one, unstated))
        elif re.search(r"/\w+ing\b", words):
            forms["clause"] += [(one + times, stated) for times, stated in spoken]
            forms["doing"] += [(several + times, stated) for times, stated in spoken]
            times, stated = spoken[-1]
            forms["sound"].append((f"the sound of {several}{times}", stated))
        else:
            noun = one if count == 1 else several
            forms["sound"] += [(f"{number} {noun}", count) for number in NUMBERS[count]]
    return forms


def describe(rng: Generator, scene: Scene) -> list[str]:
    """Describe a scene in five distinct captions of 8 to 20 words, with different templates if this is possible."""
    captions: list[str] = []
    templates = cycle(rng.permutation(TEMPLATES["".join(scene)]).tolist())
    while len(captions) < CAPTIONS:
        words = {}
        for role, source in scene.items():
            picked = {form: ways[rng.integers(len(ways))][0] for form, ways in phrases(*source).items()}
            if picked["sound"].startswith(("two ", "three ", "several ")):
                be = "are"
            else:
                be = "is"
            words[role] = SimpleNamespace(**picked, be=be)
        text = next(templates).format(**words)
        caption = f"{text[0].upper()}{text[1:]}."
        if FEWEST_WORDS <= len(caption.split()) <= MOST_WORDS and caption not in captions:
            captions.append(caption)
    return captions


@cache
def _grammar_backwards() -> tuple[re.Pattern[str], dict[str, tuple[str, str, int | None]], dict[str, str]]:
    """Return what `understand` needs to read a caption.

    Returns:
        A pattern that matches any phrase; a dict from each phrase to (form, kind, count); and a dict from the outline
        of each template, which has forms in place of phrases, to its roles.
    """
    meanings = {}
    for kind, about in SOUND_KINDS.items():
        for count in TIMES:
            if bool(count) != bool(about.lasts):
                continue
            for form, ways in phrases(kind, count).items():
                for text, stated_count in ways:
                    meanings[text] = (form, kind, stated_count)
    outlines = {}
    for template in chain.from_iterable(TEMPLATES.values()):
        spoken = re.sub(r"\{\w\.be\}", "is", template)
        outline = re.sub(r"\{\w\.(\w+)\}", r"<\1>", spoken)
        outlines[outline] = "".join(re.findall(r"\{(\w)\.", spoken))
    longest_first = sorted(meanings, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first))
    return re.compile(rf"\b(?:{either})\b"), meanings, outlines


def understand(caption: str) -> StatedScene:
    """Return the scene that a caption of this grammar describes. A count that the caption does not state is None.

    >>> understand("A dog barks after rain falls.")
    {'b': ('dog', None), 'a': ('rain', 0)}
    """
    pattern, meanings, outlines = _grammar_backwards()
    text = caption[0].lower() + caption[1:].removesuffix(".")
    sources = [meanings[phrase] for phrase in pattern.findall(text)]
    outline = pattern.sub(lambda phrase: f"<{meanings[phrase[0]][0]}>", text).replace("> are ", "> is ")
    scene = {}
    for role, (_, kind, stated_count) in zip(outlines[outline], sources, strict=True):
        scene[role] = (kind, stated_count)
    return scene
