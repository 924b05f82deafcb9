"""Find excluded sounds in lists of training data."""

import pytest

from evaluation.data.freesound import EXCLUDED_LISTS
from evaluation.findings import BadRequest
from submission import excluded, tasks


def test_excluded_sounds_are_found(team_file, tmp_path):
    task = tasks.read("dcase2025-6")
    (tmp_path / "excluded.csv").write_text("sound_id\n17\nNot found\n400\n")
    (tmp_path / "clotho.csv").write_text('file_name,sound_id\n"a,b.wav",17\nc.wav,Not found\nd.wav,18\n')
    (tmp_path / "links.txt").write_text("https://freesound.org/people/x/sounds/400/\n500\n400\n")
    lists = [tmp_path / "clotho.csv", tmp_path / "links.txt"]
    findings = excluded.training_sounds(task, lists, tmp_path / "excluded.csv")
    assert [str(finding).replace(f"{tmp_path}/", "") for finding in findings] == [
        "clotho.csv:2: warning: the system must not be trained on Freesound's sound 17, which is in excluded.csv; "
        "remove the sound and train again",
        "links.txt:1: warning: the system must not be trained on Freesound's sound 400, which is in excluded.csv; "
        "remove the sound and train again",
    ]
    with pytest.raises(BadRequest, match="must have Freesound ids; found none in links and lines"):
        excluded.training_sounds(task, lists, team_file)
    with pytest.raises(BadRequest, match="dcase2022-6b has no known list of excluded sounds"):
        excluded.training_sounds(tasks.read("dcase2022-6b"), lists, tmp_path / "excluded.csv")
    with pytest.raises(BadRequest, match=r"nowhere\.csv: no such file"):
        excluded.training_sounds(task, [tmp_path / "nowhere.csv"], tmp_path / "excluded.csv")


def test_the_addresses_of_lists_are_those_of_the_tasks():
    listed = [task.excluded_ids.url.value for task in map(tasks.read, tasks.names()) if task.excluded_ids]
    assert sorted(EXCLUDED_LISTS.values()) == sorted(listed)


def test_the_list_of_2025_and_clotho(shared):
    """Three of Clotho's own development sounds are in the list. The words `Not found`, in both files, are no id."""
    listed = shared / "dcase2025_task6" / "dcase2025_task6_excluded_freesound_ids.csv"
    lists = [
        shared / "clotho" / f"clotho_metadata_{split}.csv" for split in ("development", "validation", "evaluation")
    ]
    hits = [len(excluded.training_sounds(tasks.read("dcase2025-6"), [path], listed)) for path in lists]
    assert hits == [3, 2, 1040]
