"""The synthesised questions and recordings are reproducible, true, and not to be guessed without listening."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.data.questions import read_questions
from evaluation.data.recordings import read_recordings
from evaluation.data.soundscapes import questions, recordings
from evaluation.data.soundscapes.scenes import scene_from
from evaluation.findings import BadRequest

FEW_SETS = {"development": 1, "evaluation": 1}
FEW_RECORDINGS = {"development": 1, "evaluation": 1}


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("questions") / "data"
    questions.make_questions(place, sets=FEW_SETS, workers=1, progress=False)
    return place


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("recordings") / "data"
    recordings.make_recordings(place, recordings=FEW_RECORDINGS, workers=1, progress=False)
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sources(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_seed_gives_the_same_bytes_and_another_seed_others(asked, recorded, tmp_path):
    questions.make_questions(tmp_path / "q", sets=FEW_SETS, workers=2, progress=False)
    assert content(tmp_path / "q") == content(asked)
    recordings.make_recordings(tmp_path / "r", recordings=FEW_RECORDINGS, workers=2, progress=False)
    assert content(tmp_path / "r") == content(recorded)
    questions.make_questions(tmp_path / "other", seed=1, sets={"evaluation": 1}, workers=1, progress=False)
    first, other = content(asked), content(tmp_path / "other")
    assert all(first[name] != other[name] for name in other)


def test_a_question_alone_does_not_give_its_answer_away():
    plan = questions._plan(np.random.default_rng(0), 200)
    answers, places = defaultdict(Counter), defaultdict(Counter)
    for question in plan:
        key = question.text, tuple(sorted(question.options))
        answers[key][question.answer] += 1
        places[question.type][question.options.index(question.answer)] += 1
    for (_, options), counts in answers.items():
        assert set(counts) == set(options)
        assert len(set(counts.values())) == 1
    for counts in places.values():
        assert len(set(counts.values())) == 1
    assert Counter(question.type for question in plan) == {"presence": 800, "order": 600, "count": 600}


def test_answers_are_true():
    for question in questions._plan(np.random.default_rng(1), 100):
        heard = {questions._name(kind): (role, count) for role, (kind, count) in question.scene.items()}
        if question.type == questions.PRESENCE:
            assert [option for option in question.options if option in heard] == [question.answer]
        elif question.type == questions.ORDER:
            expected = "a" if "first" in question.text else "c"
            assert heard[question.answer][0] == expected
            assert set(question.options) == set(heard)
        else:
            event = question.text.partition(": ")[2].removesuffix("?")
            assert questions.COUNTS[heard[event][1]] == question.answer


def test_questions_are_read_and_have_their_clips(asked):
    for split, sets in FEW_SETS.items():
        read, findings = read_questions(asked / f"questions_{split}.jsonl")
        assert findings == []
        assert len(read.questions) == 10 * sets
        assert all((asked / question.audio).is_file() for question in read.questions)
        names = [row["file_name"] for row in sources(asked / f"sources_{split}.csv")]
        assert [question.audio for question in read.questions] == [f"{split}/{name}" for name in names]


def test_windows_are_where_the_scenes_are(recorded):
    for split, number in FEW_RECORDINGS.items():
        read, findings = read_recordings(recorded / f"moments_{split}.jsonl")
        assert findings == []
        assert len(read.queries) == recordings.SCENES * number
        rows = sources(recorded / f"sources_{split}.csv")
        for query in read.queries:
            sound, rate = soundfile.read(recorded / split / f"{query.recording}.wav")
            assert len(sound) / rate == pytest.approx(query.seconds, abs=1e-6)
            assert np.abs(sound).max() < 1
            for start, end in query.windows:
                before = sound[round((start - 0.5) * rate) : round(start * rate)]
                inside = sound[round(start * rate) : round(end * rate)]
                after = sound[round((end + 0.01) * rate) : round((end + 0.5) * rate)]
                assert inside.std() > 5 * max(before.std(), after.std())
        windows = sum(len(query.windows) for query in read.queries)
        assert len(rows) == windows


def test_scenes_of_a_recording_do_not_share_a_kind(recorded):
    kinds = defaultdict(dict)
    for row in sources(recorded / "sources_evaluation.csv"):
        kinds[row["file_name"]][row["scene"]] = {kind for kind, _ in scene_from(row["scene"]).values()}
    for scenes in kinds.values():
        assert len(scenes) == recordings.SCENES
        assert sum(map(len, scenes.values())) == len(set.union(*scenes.values()))


@pytest.mark.parametrize("make", [questions.make_questions, recordings.make_recordings])
def test_requests_are_checked(make, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(BadRequest, match="must be an empty folder"):
        make(tmp_path / "full")
    with pytest.raises(BadRequest, match="the seed must be 0 or more; found -1"):
        make(tmp_path / "new", seed=-1)
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["full"]'
