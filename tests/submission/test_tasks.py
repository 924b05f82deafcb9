import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import predictions
from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning, choice, moments, retrieval
from evaluation.metrics.sets import MetricSet, year_sets
from submission import outputs, tasks
from submission.tasks import Fact
from tests.submission import made


@pytest.fixture
def facts(tmp_path, monkeypatch) -> dict:
    """The facts of a task, which a test changes and writes to a folder that replaces the real one."""
    monkeypatch.setattr(tasks, "FOLDER", tmp_path)
    facts = yaml.safe_load((Path(tasks.__file__).parent / "tasks/dcase2022-6b.yaml").read_text(encoding="utf-8"))
    return {**facts, "name": "changed"}


def read(facts: dict) -> tasks.Task:
    (tasks.FOLDER / "changed.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    return tasks.read("changed")


EXPECTED = {  # first line, k, separator, line end, rows by split, metric that ranks, interval
    "dcase2020-6": ("file_name,caption_predicted", None, ",", "\r\n", {"test": 1043}, "spider", None),
    "dcase2021-6": ("file_name,caption_predicted", None, ",", "\r\n", {"test": 1043}, "spider", None),
    "dcase2022-6a": (
        "file_name,caption_predicted",
        None,
        "\t",
        "\r\n",
        {"test": 1043, "analysis": 8360},
        "spider",
        None,
    ),
    "dcase2022-6b": ("caption,file_name_1,…,file_name_10", 10, ",", "\n", {"retrieval": 1000}, "mAP@10", "jackknife"),
    "dcase2023-6a": (
        "file_name,caption_predicted",
        None,
        ",",
        "\n",
        {"test": 1043, "analysis": 8360},
        "spider_fl",
        None,
    ),
    "dcase2023-6b": ("caption,fname_1,…,fname_10", 10, ",", "\n", {"retrieval": 1000}, "mAP@10", None),
    "dcase2024-6": (
        *("file_name,caption_predicted", None, ",", "\r\n"),
        *({"test": 1043, "analysis": 8360}, "fense", "bootstrap"),
    ),
    "dcase2024-8": ("caption,fname_1,…,fname_10", 10, ",", "\n", {"retrieval": 1000}, "mAP@10", None),
    "dcase2025-5": ("question,answer", None, ",", "\r\n", {"test": None}, "accuracy", None),
    "dcase2025-6": ("index, a.wav,b.wav", None, ",", "\n", {"retrieval": None}, "mAP@16", None),
    "dcase2026-5": ("question,answer", None, ",", "\r\n", {"test": 3000}, "accuracy", None),
    "dcase2026-6": ("qid,query,vid,pred_relevant_windows", 10, None, "\n", {"test": None}, "R1@0.7", None),
}


def test_every_task_is_tested():
    untested = set(tasks.names()) - set(EXPECTED)
    assert not untested, f"add to EXPECTED what the rules of these tasks ask for: {untested}"
    assert set(EXPECTED) <= set(tasks.names())


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_task_asks_for(name):
    task, (header, k, separator, line_end, rows, first, interval) = tasks.read(name), EXPECTED[name]
    columns = task.header([" a.wav", "b.wav"])
    if task.form.value == "top-k":
        assert len(columns) == k + 1
        columns = [*columns[:2], "…", columns[-1]]
    assert ",".join(columns) == header
    facts = [fact.value if fact else None for fact in (task.k, task.separator, task.line_end)]
    assert facts == [k, separator, line_end]
    assert {split: output.rows.value if output.rows else None for split, output in task.sets.items()} == rows
    assert (task.metrics.value[0], task.interval.value if task.interval else None) == (first, interval)
    assert task.systems.value == 4


def choice_metrics(names) -> tuple[str, ...]:
    return choice.resolve_metrics(names, made.questions("test", 3).content).metrics


@pytest.mark.parametrize("name", EXPECTED)
def test_metrics_are_those_that_evaluation_has(name):
    task = tasks.read(name)
    module = {"captioning": captioning, "choice": choice, "moments": moments, "retrieval": retrieval}[task.kind]
    interval = task.interval.value if task.interval else "jackknife"
    sets = year_sets(task.kind)
    metric_set = sets.get(name) or sets[name[:9]]  # by the year, unless it has two tasks of the kind
    assert metric_set == MetricSet(task.metrics.value, interval)
    if task.kind == "choice":  # the types of the questions are metrics, too
        assert set(task.metrics.value) <= set(choice_metrics(task.metrics.value))
        return
    module.resolve_metrics(task.metrics.value)  # raises for an unknown metric
    for fact in task.baselines:
        if task.kind == "retrieval":
            assert set(fact.value.metrics) <= set(task.metrics.value)
    assert task.baselines


@pytest.mark.parametrize("name", EXPECTED)
def test_every_fact_says_where_it_stands_and_how_sure_it_is(name):
    task = tasks.read(name)
    facts = dict(task.facts())
    assert len(facts) > 15
    for path, fact in facts.items():
        assert isinstance(fact, Fact), path
        assert fact.source.strip(), path
        assert ("from memory" in fact.source) == (fact.certainty == "recalled"), path
        if "not known" in fact.source or fact.source.startswith("as in"):
            assert fact.certainty != "verified", path
        if fact.certainty == "verified":  # an address, a repository at a commit, a paper, a page or a participant
            assert re.search(r"@|participant|\w/\w|page|Xie|Zenodo|baseline", fact.source), path


@pytest.mark.parametrize(
    ("name", "label", "holds"),
    [
        ("dcase2023-6a", "gontier_inr_task6a_1", True),
        ("dcase2022-6b", "Wu_Mila_task6b_1", True),
        ("dcase2023-6a", "kadlcik_jku_task6a_1", True),
        ("dcase2025-6", "Filomeno_JKU_task6_1", True),
        ("dcase2024-6", "labbe_irit_task6_4", True),
        ("dcase2024-8", "Primus_CP-JKU_task8_2", True),
        ("dcase2020-6", "Xu_SJTU_task6_3", True),
        ("dcase2021-6", "Ye_PKU_task6a_1", False),
        ("dcase2022-6a", "Ye_PKU_task6a_5", False),
        ("dcase2022-6a", "Ye_PKU_task6a_0", False),
        ("dcase2023-6b", "Ye_P_KU_task6b_1", False),
        ("dcase2023-6b", "_PKU_task6b_1", False),
        ("dcase2023-6b", "Ye_PKU_task6b", False),
        ("dcase2024-8", "Ye_PKU_Task8_1", False),
    ],
)
def test_label_rule(name, label, holds):
    task = tasks.read(name)
    parts = task.label_fields(label)
    assert bool(parts) == holds
    if parts:
        for output in task.sets.values():
            file = output.file.value.format(**parts)
            assert file.startswith(label.rsplit("_", 1)[0] + "_submission_")
            assert output.is_named(file)
            assert not output.is_named("x" + file.replace("_submission", ""))
        assert task.package.folder.value.format(**parts) == f"task{name.split('-')[1][0]}/{label}"
        assert task.package.report.value.format(**parts).endswith(".technical_report.pdf")
        assert task.package.metadata.value.format(**parts).endswith(f"_submission_{parts['index']}_metadata.yaml")


@pytest.mark.parametrize("name", ["dcase2025-5", "dcase2026-5", "dcase2026-6"])
def test_generic_names(name):
    """Since 2025, the names of files begin with the label, as in the other tasks of DCASE."""
    task = tasks.read(name)
    label = f"Nam_IND_task{name[-1]}_1"
    fields = task.label_fields(label)
    suffix = {"5": ".csv", "6": ".jsonl"}[name[-1]]
    assert task.sets["test"].file.value.format(**fields) == f"{label}.output{suffix}"
    assert task.package.metadata.value.format(**fields) == f"{label}.meta.yaml"
    assert task.package.report.value.format(**fields).endswith("/" + label[:-2] + ".technical_report.pdf")


@pytest.mark.parametrize("name", EXPECTED)
def test_metadata_keys(name):
    task = tasks.read(name)
    assert list(task.metadata) == ["submission", "system", "results"]
    above = {key: fact.value.keys for key, fact in task.metadata.items()}
    assert list(above["submission"]) == ["label", "name", "abbreviation", "authors"]
    assert above["submission"]["abbreviation"].most == 10
    assert above["submission"]["authors"].many
    author = above["submission"]["authors"].keys
    assert [key for key, fact in author.items() if fact.need == "required"] == [
        *("lastname", "firstname", "email", "affiliation")
    ]
    assert author["affiliation"].keys["department"].need == "optional"
    assert len(above["system"]["description"].keys) == 15
    assert above["system"]["complexity"].keys["total_parameters"].type == "integer"
    assert ("training_datasets" in above["system"]) == (task.kind == "retrieval")
    (results,) = above["results"].values()
    assert task.metrics.value[0].replace("_", "") in results.keys
    known = {"dcase2022-6b", "dcase2023-6a"}
    assert (task.metadata["system"].certainty == "verified") == (name in known)


def test_a_new_year_is_a_new_file(tmp_path, monkeypatch):
    """The output of an invented task is written and checked by the facts in its file."""
    facts = {"name": "dcase2031-3", "title": "Humming", "extends": "dcase2022-6b"}
    new = {"source": "the task page of 2031", "certainty": "verified"}
    for key, value in {"columns": ["hum", "sound {rank}"], "k": 2, "separator": ";", "line_end": "\r\n"}.items():
        facts[key] = {"value": value, **new}
    facts["separators_accepted"] = {"value": [";", ","], **new}
    output = {"rows": {"value": 2, **new}, "file": {"value": "{label}_output.csv", **new}}
    facts["sets"] = {"retrieval": None, "test": output}
    shutil.copy(tasks.FOLDER / "dcase2022-6b.yaml", tmp_path)
    monkeypatch.setattr(tasks, "FOLDER", tmp_path)
    (tmp_path / "dcase2031-3.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    assert tasks.names() == ["dcase2022-6b", "dcase2031-3"]
    task = tasks.read("dcase2031-3")
    names = ("a.wav", "b;c.wav", "d.wav")
    split = Split("test", tuple(Clip(name, (), Path(name)) for name in names), None, ("hm", "hm; hm"))
    scores = predictions.Similarity(split.queries, names, np.float32([[1, 2, 3], [3, 2, 1]]))
    path = tmp_path / "out.csv"
    outputs.write(task, scores, split, path)
    assert path.read_bytes() == b'hum;sound 1;sound 2\r\nhm;d.wav;"b;c.wav"\r\n"hm; hm";a.wav;"b;c.wav"\r\n'
    assert outputs.validate(task, path, split) == outputs.validate(task, path) == []
    path.write_bytes(path.read_bytes().replace(b"hm;d.wav", b"hm;a.wav;d.wav"))
    (finding,) = outputs.validate(task, path)
    assert finding.message == "must have 3 columns, the query and 2 clips; found 4; quote a cell that holds a semicolon"


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


def tracks(key="system.complexity.total_parameters", limits=({"name": "small", "below": 5},)) -> dict:
    """Return facts about tracks."""
    return {
        "key": {"value": key, "source": "a page", "certainty": "inferred"},
        "limits": {"value": list(limits), "source": "a page", "certainty": "inferred"},
        "overall": {"value": True, "source": "a page", "certainty": "inferred"},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(colour="red"), "colour\n  Extra inputs are not permitted"),
        (lambda facts: facts["k"].update(colour="red"), "k.colour\n  Extra inputs are not permitted"),
        (lambda facts: facts.pop("columns"), "columns\n  Field required"),
        (lambda facts: facts["k"].pop("source"), "k.source\n  Field required"),
        (lambda facts: facts["k"].pop("certainty"), "k.certainty\n  Field required"),
        (lambda facts: facts["k"].update(certainty="sure"), "k.certainty\n  Input should be 'verified', 'inferred' or"),
        (lambda facts: facts["k"].update(value="ten"), "k.value\n  Input should be a valid integer"),
        (lambda facts: facts.update(k=10), "k\n  Input should be a valid dictionary"),
        (lambda facts: facts["k"].update(value="10"), "k.value\n  Input should be a valid integer"),
        (lambda facts: facts["k"].update(value=0), "k.value\n  Input should be greater than or equal to 1"),
        (lambda facts: facts.update(kind="singing"), "kind\n  unknown kind 'singing'; there are: captioning, "),
        (lambda facts: facts.update(kind="captioning"), "\n  form.value must fit the kind captioning"),
        (
            lambda facts: facts["metrics"]["value"].append("nDGC@10"),
            "\n  metrics.value: unknown metric 'nDGC'; did you mean 'nDCG'?",
        ),
        (
            lambda facts: facts["baselines"][0]["value"]["metrics"].update({"R@5": 18.8}),
            "\n  baselines.1.value.metrics.R@5 must be 0 to 1, higher is better; found 18.8",
        ),
        (lambda facts: facts.pop("k"), "\n  k must be given for the form top-k"),
        (
            lambda facts: facts["form"].update(value="matrix"),
            "\n  columns.value must have two names for the form matrix: of the key and of the answer, the second",
        ),
        (
            lambda facts: facts["separators_accepted"].update(value=["\t"]),
            "\n  separators_accepted.value must contain separator.value",
        ),
        (lambda facts: facts["separator"].update(value=":"), "separator.value\n  unknown separator ':'"),
        (
            lambda facts: facts["interval"].update(value="guess"),
            "interval.value\n  unknown method 'guess'",
        ),
        (
            lambda facts: facts["sets"].update(retrieva=facts["sets"].pop("retrieval")),
            "sets.retrieva\n  unknown split 'retrieva'; did you mean 'retrieval'?",
        ),
        (
            lambda facts: facts["sets"]["retrieval"]["file"].update(value="{auhtor}.csv"),
            "sets.retrieval.file.value\n  unknown field 'auhtor'; did you mean 'author'?",
        ),
        (lambda facts: facts["label"].update(value="x_1"), "label.value\n  must have the fields {author}, {institute}"),
        (
            lambda facts: facts["characteristics"]["value"].append("system.description.los_function"),
            "\n  system.description.los_function: unknown key 'los_function'; did you mean 'loss_function'?",
        ),
        (
            lambda facts: facts.update(tracks=tracks(key="system.complexity.params")),
            "\n  system.complexity.params: unknown key 'params'",
        ),
        (
            lambda facts: facts.update(tracks=tracks(limits=[{"name": "a", "most": 5}, {"name": "b"}])),
            "tracks.limits.value.1\n  must have one limit, below or most",
        ),
        (
            lambda facts: facts.update(tracks=tracks(limits=[{"name": "a", "below": 6}, {"name": "b", "most": 5}])),
            "tracks\n  limits must rise; found b (at most 5) after a (below 6): put the smaller limit first",
        ),
        (
            lambda facts: facts["metadata"]["submission"]["value"]["keys"]["label"].update(need="perhaps"),
            "metadata.submission.value.keys.label.need\n  Input should be 'required', 'nullable' or 'optional'",
        ),
    ],
)
def test_a_file_of_facts_is_read_strictly(change, message, facts):
    assert read(facts).name == "changed"
    change(facts)
    with pytest.raises(Faulty) as refusal:
        read(facts)
    (finding,) = refusal.value.findings
    assert finding.file == str(tasks.FOLDER / "changed.yaml")
    assert f"{finding.column}\n  {finding.message}".startswith(message)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name: x\nk: [1\n", 3, "is not valid YAML: "),
        ("name: x\n\tk: 1\n", 2, "is not valid YAML: found"),
        (b"name: \xff\n", 0, "is not valid YAML: 'utf-8' codec"),
        ("", 0, "Input should be a valid dictionary"),
        ("- 1\n", 0, "Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_none(text, line, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "FOLDER", tmp_path)
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Faulty) as refusal:
        tasks.read("x")
    (finding,) = refusal.value.findings
    assert finding.line == line
    assert finding.message.startswith(message)


CHANGED = {"source": "a page", "certainty": "inferred"}


def extend(facts: dict, changes: dict) -> tasks.Task:
    """Write a task and another that extends it, and read the second."""
    (tasks.FOLDER / "changed.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    (tasks.FOLDER / "next.yaml").write_text(yaml.safe_dump({"name": "next", **changes}), encoding="utf-8")
    return tasks.read("next")


def test_a_task_states_only_what_differs(facts):
    changes = {"extends": "changed", "k": {"value": 3, **CHANGED}, "separator": CHANGED, "interval": None}
    base, task = read(facts), extend(facts, changes)
    assert (task.k.value, task.k.source, task.k.certainty) == (3, "a page", "inferred")
    assert (task.separator.value, task.separator.source) == (base.separator.value, "a page")
    assert task.interval is None
    assert task.metadata == base.metadata
    assert task.package == base.package


def test_a_block_below_a_fact_is_joined(facts):
    (above,) = facts["metadata"]["results"]["value"]["keys"]
    added = {"need": "optional", "type": "number", "metric": "MRR"}
    results = {"value": {"keys": {above: {"keys": {"MRR": added}}}}, **CHANGED}
    task = extend(facts, {"extends": "changed", "metadata": {"results": results}})
    keys = task.metadata["results"].value.keys[above].keys
    assert [*keys] == [*read(facts).metadata["results"].value.keys[above].keys, "MRR"]


@pytest.mark.parametrize(
    ("changes", "column", "message"),
    [
        ({"extends": "chnged"}, "extends", "must name another task; unknown task 'chnged'; did you mean 'changed'?"),
        ({"extends": ["changed"]}, "extends", "must name another task; unknown task"),
        ({"extends": "next"}, "extends", "must not lead back to the task itself; found next -> next"),
        (
            {"extends": "changed", "k": {"value": 3, "source": "a page"}},
            "k.certainty",
            "must be given where a fact is stated again; add certainty to k",
        ),
        (
            {"extends": "changed", "package": {"file": {"value": "{author}_{institute}.zip", "certainty": "inferred"}}},
            "package.file.source",
            "must be given where a fact is stated again; add source to package.file",
        ),
        ({"extends": "changed", "columns": None}, "columns", "Field required"),
    ],
)
def test_an_extending_file_is_read_strictly(changes, column, message, facts):
    with pytest.raises(Faulty) as refusal:
        extend(facts, changes)
    (finding,) = refusal.value.findings
    assert (finding.file, finding.column) == (str(tasks.FOLDER / "next.yaml"), column)
    assert finding.message.startswith(message)


def test_a_file_is_named_as_its_task(facts):
    facts["name"] = "dcase2022-6b"
    with pytest.raises(Faulty, match="name: error: must be changed, the name of the file; found dcase2022-6b"):
        read(facts)


def test_the_header_follows_the_facts(facts):
    facts["k"]["value"] = 2
    facts["columns"]["value"] = ["query", "fname_{rank}"]
    assert read(facts).header() == ["query", "fname_1", "fname_2"]


def test_every_field_of_a_task_file_is_described():
    """Every key of the real files is one of the fields that `tasks --fields` lists, and each has a description."""
    described = dict(tasks.describe_fields())
    assert all(description and "None" not in description for description in described.values())
    scored = "number of rows that are scored, if not all rows are scored (optional) (a fact)"
    assert described["sets.NAME.scored"] == scored
    for name in tasks.names():
        for path, _ in tasks.read(name).facts():
            general = re.sub(r"^(sets|metadata)\.[^.]+", r"\1.NAME", path)
            general = re.sub(r"^(metadata|baselines)\..*", r"\1", general)
            assert general in described, path
