"""Checks of folders and files with questions about clips, and with queries about long recordings."""

import json

import numpy as np
import pytest
import soundfile

from evaluation.data.check import check_dataset
from evaluation.findings import BadRequest, Faulty, count


def write_lines(path, objects):
    path.write_text("".join(json.dumps(content) + "\n" for content in objects))


@pytest.fixture
def made(tmp_path):
    """A folder with a small data set of each kind. All audio files are 3 s long."""
    noise = np.full(24_000, 0.1)
    for split, clips in (("validation", 3), ("evaluation", 4)):
        folder = tmp_path / "choice" / split
        folder.mkdir(parents=True)
        questions = []
        for number in range(1, clips + 1):
            soundfile.write(folder / f"{number}.wav", noise, 8000)
            question = {
                "id": f"{split} {number}",
                "audio_path": f"{split}/{number}.wav",
                "question_text": "What is it?",
            }
            questions.append(question | {"multi_choice": ["rain", "wind"], "answer": "rain"})
        write_lines(tmp_path / "choice" / f"questions_{split}.jsonl", questions)
    for split, names in (("validation", ["a"]), ("evaluation", ["a", "b"])):
        folder = tmp_path / "moments" / split
        folder.mkdir(parents=True)
        queries = []
        for name in names:
            soundfile.write(folder / f"{name}.wav", noise, 8000)
            for query in ("rain", "wind"):
                content = {"qid": f"{name} {query}", "query": query, "vid": name, "duration": 3.0}
                queries.append(content | {"relevant_windows": [[0, 1], [2, 2.5]]})
        write_lines(tmp_path / "moments" / f"moments_{split}.jsonl", queries)
    return tmp_path


def change(path, **changes):
    """Change keys of the first object of a file."""
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | changes), *others]) + "\n")


def texts(findings, folder):
    return [str(finding).removeprefix(f"{folder}/") for finding in findings]


def test_questions_without_faults(made):
    text, findings = check_dataset(made / "choice")
    assert findings == []
    header, _, validation, evaluation = text.splitlines()
    assert header.split()[:5] == ["split", "questions", "clips", "audio", "files"]
    assert validation.split()[:4] == ["validation", "3", "3", "3"]
    assert evaluation.split()[:4] == ["evaluation", "4", "4", "4"]


def test_recordings_without_faults(made):
    text, findings = check_dataset(made / "moments")
    assert findings == []
    header, _, _, evaluation = text.splitlines()
    assert header.split()[:6] == ["split", "queries", "recordings", "windows", "audio", "files"]
    assert evaluation.split()[1:5] == ["4", "2", "8", "2"]


def test_all_faults_of_questions_at_once(made):
    folder = made / "choice"
    change(folder / "questions_evaluation.jsonl", answer="no option")
    (folder / "evaluation" / "2.wav").unlink()
    (folder / "evaluation" / "3.wav").write_text("no sound")
    with (folder / "questions_validation.jsonl").open("a") as file:
        file.write("{\n")
    text, findings = check_dataset(folder)
    evaluation, validation = "questions_evaluation.jsonl", "questions_validation.jsonl"
    found = "\n".join(texts(findings, folder))
    assert count(findings) == 4
    assert f"{evaluation}: error: must have an audio file for 'evaluation/2.wav'; found none: add it" in found
    assert f"{evaluation}:1: answer: error: must be the text of an option, verbatim; found 'no option'" in found
    assert "evaluation/3.wav: error: does not decode" in found
    assert f"{validation}:4: error: must be JSON" in found
    assert "3 errors" in text.splitlines()[-1]


def test_all_faults_of_recordings_at_once(made):
    folder = made / "moments"
    change(folder / "moments_evaluation.jsonl", relevant_windows=[[9, 8]])
    change(folder / "moments_validation.jsonl", qid=None)
    (folder / "evaluation" / "b.wav").unlink()
    soundfile.write(folder / "evaluation" / "a.wav", np.full(80_000, 0.1), 8000)
    _, findings = check_dataset(folder)
    found = "\n".join(texts(findings, folder))
    assert "moments_evaluation.jsonl:1: relevant_windows[0]: error: must begin at 0 or later and end after" in found
    assert "moments_evaluation.jsonl: error: must have an audio file for 'b'; found none" in found
    assert "moments_validation.jsonl:1: qid: error: " in found
    assert "evaluation/a.wav: warning: is 10.0 s long, but its queries state " in found
    assert count(findings) == 3


def test_a_path_that_leaves_the_folder_is_not_read(made):
    folder = made / "choice"
    outside = made / "outside.wav"
    outside.write_text("no sound")
    change(folder / "questions_evaluation.jsonl", audio_path="../outside.wav")
    _, findings = check_dataset(folder)
    assert [finding.column for finding in findings] == ["audio_path"]


def test_a_file_alone(made):
    text, findings = check_dataset(made / "moments" / "moments_evaluation.jsonl")
    assert findings == []
    assert text.splitlines()[-1].split()[:5] == ["evaluation", "4", "2", "8", "2"]
    text, findings = check_dataset(made / "choice" / "questions_evaluation.jsonl")
    assert findings == []
    assert text.splitlines()[-1].split()[:4] == ["evaluation", "4", "4", "4"]


def test_a_folder_of_json_files(tmp_path):
    (tmp_path / "BQA").mkdir()
    question = {"question": "What?", "choice": ["rain", "wind"], "answer": "rain", "audio_url": "a.wav"}
    (tmp_path / "BQA" / "q1.json").write_text(json.dumps(question))
    soundfile.write(tmp_path / "BQA" / "a.wav", np.full(8000, 0.1), 8000)
    text, findings = check_dataset(tmp_path)
    assert findings == []
    assert text.splitlines()[-1].split()[1:4] == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"clip": 1}', BadRequest, "must be a data folder, or JSON lines of questions .* found the keys clip"),
        ("rain", Faulty, "must be JSON"),
    ],
)
def test_another_file_is_refused(tmp_path, content, error, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(error, match=message):
        check_dataset(tmp_path / "a.jsonl")
