"""The text form of a scene, and the random scenes of a split."""

from numpy.random import Generator

from evaluation.data.soundscapes.grammar import TIMES
from evaluation.data.soundscapes.synthesis import SHORTEST, SOUND_KINDS, Scene

CLIPS_OF_SAME_KINDS = 4  # mean number of clips that differ only in order, repetition or overlap


def scene_text(scene: Scene) -> str:
    """Return a scene as a short text.

    >>> scene_text({"x": ("wind", 0), "a": ("dog", 3), "b": ("rain", 0)})
    'wind|dog:3>rain'
    """
    background = ""
    sequence = []
    for role, (kind, count) in scene.items():
        source = f"{kind}:{count}" if count else kind
        if role == "x":
            background = f"{source}|"
        else:
            sequence.append(source)
    return background + ">".join(sequence)


def scene_from(text: str) -> Scene:
    """Read a scene from the text of `scene_text`.

    >>> scene_from("wind|dog:3>rain")
    {'x': ('wind', 0), 'a': ('dog', 3), 'b': ('rain', 0)}
    """
    *background, sequence = text.split("|")
    sources = dict(zip("x", background, strict=False))
    sources.update(zip("abc", sequence.split(">"), strict=False))
    scene = {}
    for role, source in sources.items():
        kind, _, count = source.partition(":")
        scene[role] = (kind, int(count or 0))
    return scene


def plan(rng: Generator, clips: int) -> list[Scene]:
    """Draw `clips` distinct scenes, in groups that have the same kinds and differ in order, counts or overlap."""

    def some_kinds() -> list[str]:
        return rng.choice(list(SOUND_KINDS), size=rng.choice([1, 2, 3], p=[0.1, 0.5, 0.4]), replace=False).tolist()

    palettes = [some_kinds() for _ in range(1 + clips // CLIPS_OF_SAME_KINDS)]
    scenes: dict[str, Scene] = {}
    while len(scenes) < clips:
        chosen = rng.integers(len(palettes))
        scene = arrange(rng, palettes[chosen])
        if scene_text(scene) in scenes:
            palettes[chosen] = some_kinds()  # the old kinds may have no further scene: a single texture has only one
        scenes[scene_text(scene)] = scene
    return list(scenes.values())


def arrange(rng: Generator, kinds: list[str]) -> Scene:
    """Draw a scene of the given kinds: their order, their counts, and which one is the background, if any."""
    kinds = rng.permutation(kinds).tolist()
    textures = [kind for kind in kinds if not SOUND_KINDS[kind].lasts]
    if textures and len(kinds) > 1 and rng.random() < 0.5:
        background = textures[0]
    else:
        background = None
    scene = {"x": (background, 0)} if background else {}
    sequence = [kind for kind in kinds if kind != background]
    room = SHORTEST * (0.65 if background else 0.9) / len(sequence)
    for role, kind in zip("abc", sequence, strict=False):
        lasts = SOUND_KINDS[kind].lasts
        fitting = [count for count in TIMES if 0 < 1.2 * count * lasts <= room]
        scene[role] = (kind, int(rng.choice(fitting or [1])) if lasts else 0)
    return scene
