from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from evaluation import retrieval
from evaluation.findings import BadRequest
from submission import tasks
from submission.tasks import Fact


@pytest.fixture
def facts(tmp_path, monkeypatch) -> dict:
    """The facts of a task, to be changed and written to a folder that stands in for the real one."""
    monkeypatch.setattr(tasks, "FOLDER", tmp_path)
    return yaml.safe_load((Path(tasks.__file__).parent / "tasks/dcase2022-6b.yaml").read_text(encoding="utf-8"))


def read(facts: dict) -> tasks.Task:
    (tasks.FOLDER / "changed.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    return tasks.read("changed")


def test_there_are_tasks():
    assert "dcase2022-6b" in tasks.names()


@pytest.mark.parametrize("name", tasks.names())
def test_every_fact_says_where_it_stands_and_how_sure_it_is(name):
    task = tasks.read(name)
    assert task.name == name
    facts = {key: value for key, value in task if key not in ("name", "title", "kind")}
    assert facts
    for key, fact in facts.items():
        assert isinstance(fact, Fact), key
        assert fact.source.strip(), key
        assert fact.certainty in ("verified", "inferred", "recalled"), key


def test_2022_6b():
    task = tasks.read("dcase2022-6b")
    assert ",".join(task.header) == (
        "caption,file_name_1,file_name_2,file_name_3,file_name_4,file_name_5,"
        "file_name_6,file_name_7,file_name_8,file_name_9,file_name_10"
    )
    assert (task.k.value, task.queries.value, task.separator.value) == (10, 1000, ",")
    assert task.metrics.value == retrieval.TASK_METRICS


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dcase2022-6B", "did you mean 'dcase2022-6b'? "),
        ("dcase-2022-6b", "did you mean 'dcase2022-6b'? "),
        ("../tasks/dcase2022-6b", "did you mean 'dcase2022-6b'? "),
        ("captioning", ""),
    ],
)
def test_unknown_task(name, hint):
    with pytest.raises(BadRequest) as refusal:
        tasks.read(name)
    assert str(refusal.value) == f"unknown task {name!r}; {hint}there are: {', '.join(tasks.names())}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(colour="red"), "colour\n  Extra inputs are not permitted"),
        (lambda facts: facts["k"].update(colour="red"), "k.colour\n  Extra inputs are not permitted"),
        (lambda facts: facts.pop("k"), "k\n  Field required"),
        (lambda facts: facts["k"].pop("source"), "k.source\n  Field required"),
        (lambda facts: facts["k"].pop("certainty"), "k.certainty\n  Field required"),
        (lambda facts: facts["k"].update(certainty="sure"), "k.certainty\n  Input should be 'verified', 'inferred' or"),
        (lambda facts: facts["k"].update(value="ten"), "k.value\n  Input should be a valid integer"),
        (lambda facts: facts.update(k=10), "k\n  Input should be a valid dictionary"),
        (lambda facts: facts.update(kind="singing"), "kind\n  Input should be 'retrieval'"),
    ],
)
def test_a_file_of_facts_is_read_strictly(change, message, facts):
    assert read(facts).name == "dcase2022-6b"
    change(facts)
    with pytest.raises(ValidationError) as refusal:
        read(facts)
    assert refusal.value.error_count() == 1
    assert message in str(refusal.value)


def test_the_header_follows_the_facts(facts):
    facts["k"]["value"] = 2
    facts["query_column"]["value"] = "query"
    facts["answer_column"]["value"] = "fname_{rank}"
    assert read(facts).header == ["query", "fname_1", "fname_2"]
