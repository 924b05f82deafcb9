"""Generation of multiple-choice questions about soundscapes: what is heard, in which order, and how often.

    make_questions(Path("data/questions"))
    questions, _ = read_questions(Path("data/questions/questions_evaluation.jsonl"))

Files: for each split, `questions_SPLIT.jsonl` in the form of DCASE 2026 task 5, the clips in `SPLIT/`, and
`sources_SPLIT.csv` with the scene of each clip.

Conventions
-----------
- **The text of a question does not reveal the answer.** Questions come in sets. The questions of a set have the same
  text and the same options, each is about a clip of its own, and each option is the right answer once. In a set, the
  right answer of each question is at a different place among the options. So a system that ignores the audio answers
  exactly one question of each set correctly, if it always chooses the same option or the same place.
- The options are the sounds that all clips of the set have (order), or counts (count), or sounds of which each clip has
  exactly one (presence). The clips of a set do not differ in anything else that the question is about.
- The same seed gives the same bytes, for any number of workers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from numpy.random import Generator

from evaluation.data.audio import write_wave
from evaluation.data.soundscapes.generate import check_request, random_of, run_jobs
from evaluation.data.soundscapes.grammar import phrases
from evaluation.data.soundscapes.scenes import scene_text
from evaluation.data.soundscapes.synthesis import SAMPLE_RATE, SHORTEST, SOUND_KINDS, Scene, render
from evaluation.data.tables import write_table
from evaluation.files import appearing

SETS = MappingProxyType({"development": 16, "validation": 4, "evaluation": 8})  # sets of each type
COUNTS = MappingProxyType({1: "one time", 2: "two times", 3: "three times"})
PRESENCE, ORDER, COUNT = "presence", "order", "count"


@dataclass(frozen=True)
class ClipQuestion:
    """A question and the scene of its clip.

    Attributes:
        type: `PRESENCE`, `ORDER` or `COUNT`.
        text: The question.
        options: The texts of the options.
        answer: The right option.
        scene: The scene of the clip.
    """

    type: str
    text: str
    options: tuple[str, ...]
    answer: str
    scene: Scene


Job = tuple[str, int, ClipQuestion]  # split, index of the clip in the split, question


def make_questions(
    folder: Path, *, seed: int = 0, sets: Mapping[str, int] = SETS, workers: int | None = None, progress: bool = True
) -> None:
    """Generate the data set.

    Args:
        folder: The new folder, which must not exist or must be empty. It appears only when it is complete.
        seed: The seed, 0 or more.
        sets: Dict from each split to its number of sets of each type of question. A set of the type presence has four
            questions; other sets have three.
        workers: Number of processes (default: the number of processors).
        progress: Show a progress bar.

    Raises:
        BadRequest: The folder is not empty, or the seed is negative.
    """
    check_request(folder, seed)
    jobs: list[Job] = []
    for split, number in sets.items():
        jobs += [(split, index, asked) for index, asked in enumerate(_plan(random_of(seed, split, 0), number))]
    with appearing(folder) as new:
        for split in sets:
            (new / split).mkdir(parents=True)
        run_jobs(partial(_write_clip, new, seed), jobs, workers, progress)
        for split in sets:
            _write_split(new, split, [job for job in jobs if job[0] == split])


def _plan(rng: Generator, sets: int) -> list[ClipQuestion]:
    """Return the questions of a split, in a random order, so that their order does not show the sets."""
    questions: list[ClipQuestion] = []
    for _ in range(sets):
        for draw in (_presence_set, _order_set, _count_set):
            questions += draw(rng)
    return [questions[index] for index in rng.permutation(len(questions))]


def _presence_set(rng: Generator) -> list[ClipQuestion]:
    kinds = rng.permutation(list(SOUND_KINDS)).tolist()
    asked, others = kinds[:4], kinds[4:]
    scenes = []
    for index, kind in enumerate(asked):
        pair = rng.permutation([kind, others[index]]).tolist()
        scenes.append({role: _source(rng, name) for role, name in zip("ab", pair, strict=True)})
    return _question_set(rng, PRESENCE, "Which of these sounds can be heard?", [_name(kind) for kind in asked], scenes)


def _order_set(rng: Generator) -> list[ClipQuestion]:
    kinds = rng.permutation(list(SOUND_KINDS)).tolist()[:3]
    place, word = [(0, "first"), (2, "last")][rng.integers(2)]
    scenes = []
    for kind in kinds:
        others = rng.permutation([other for other in kinds if other != kind]).tolist()
        others.insert(place, kind)
        scenes.append({role: _source(rng, name) for role, name in zip("abc", others, strict=True)})
    return _question_set(rng, ORDER, f"Which sound is heard {word}?", [_name(kind) for kind in kinds], scenes)


def _count_set(rng: Generator) -> list[ClipQuestion]:
    event = rng.choice(_countable())
    texture = rng.choice([kind for kind, about in SOUND_KINDS.items() if not about.lasts])
    scenes: list[Scene] = [{"x": (str(texture), 0), "a": (str(event), count)} for count in COUNTS]
    return _question_set(rng, COUNT, f"How often is this sound heard: {_name(str(event))}?", [*COUNTS.values()], scenes)


def _countable() -> list[str]:
    """Return the events whose largest count fits into a clip with a background, as `scenes.arrange` computes it."""
    return [kind for kind, about in SOUND_KINDS.items() if 0 < 1.2 * max(COUNTS) * about.lasts <= 0.65 * SHORTEST]


def _source(rng: Generator, kind: str) -> tuple[str, int]:
    """Return a source that fits into a third of a clip."""
    lasts = SOUND_KINDS[kind].lasts
    if not lasts:
        return kind, 0
    fitting = [count for count in (1, 2) if 1.2 * count * lasts <= 0.9 * SHORTEST / 3]
    return kind, int(rng.choice(fitting or [1]))


def _name(kind: str) -> str:
    """Return the words for a kind that do not state a count.

    >>> _name("dog"), _name("rain")
    ('a dog barking', 'rain falling')
    """
    count = 1 if SOUND_KINDS[kind].lasts else 0
    return phrases(kind, count)["doing"][0][0]


def _question_set(
    rng: Generator, question_type: str, text: str, answers: Sequence[str], scenes: Sequence[Scene]
) -> list[ClipQuestion]:
    """Return the questions of a set. The place of the right answer is different in each question.

    Args:
        rng: The random generator.
        question_type: The type of the questions.
        text: The text of all questions.
        answers: The options, each of which is the right answer of one question.
        scenes: The scene for each answer.
    """
    places = rng.permutation(len(answers))
    questions = []
    for answer, scene, place in zip(answers, scenes, places, strict=True):
        options = rng.permutation([other for other in answers if other != answer]).tolist()
        options.insert(place, answer)
        questions.append(ClipQuestion(question_type, text, tuple(options), answer, scene))
    return questions


def _write_clip(folder: Path, seed: int, job: Job) -> None:
    split, index, asked = job
    sound = render(random_of(seed, split, index + 1), asked.scene)
    write_wave(folder / split / _file_name(index), sound, SAMPLE_RATE)


def _file_name(index: int) -> str:
    return f"clip_{index + 1:04d}.wav"


def _write_split(folder: Path, split: str, jobs: Sequence[Job]) -> None:
    """Write the questions and the scenes of a split."""
    rows = [["file_name", "scene"]]
    lines = []
    for _, index, asked in jobs:
        rows.append([_file_name(index), scene_text(asked.scene)])
        content = {
            "id": f"{split}_{index + 1:04d}",
            "audio_path": f"{split}/{_file_name(index)}",
            "question_text": asked.text,
            "multi_choice": asked.options,
            "answer": asked.answer,
            "question_type": asked.type,
        }
        lines.append(json.dumps(content) + "\n")
    (folder / f"questions_{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_table(folder / f"sources_{split}.csv", rows)
