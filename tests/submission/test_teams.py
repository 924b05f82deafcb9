"""Team files are read and written; random edits of them and of metadata files."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.findings import ERROR, WARNING, Faulty, Finding
from submission import metadata, metadata_text, teams
from tests.submission import made
from tests.submission.test_metadata import AUTHORS, TASKS, VALID, A, B, said

TEAM = """\
author: Gontier
institute: INRIA
report: report.pdf
metadata:
  submission:
    name: Our system
    abbreviation: Ours
    authors:
      - lastname: Gontier
        firstname: Felix
        email: felix.gontier@inria.fr
        corresponding: true
        affiliation: {abbreviation: INRIA, institute: INRIA, location: 'Nancy, France'}
  system:
    description:
      audio_modelling: cnn
      word_modelling:
systems:
  - submission: {name: Our first system, abbreviation: First}
  - submission: {abbreviation: Second}
"""


def read_team(content: str, folder: Path, name: str = A) -> tuple[teams.Team, list[Finding]]:
    (folder / "team.yaml").write_text(content)
    if not (folder / "report.pdf").exists():
        (folder / "report.pdf").write_bytes(made.PDF)
    return teams.read(TASKS[name], folder / "team.yaml")


def test_the_teams_file(tmp_path):
    team, findings = read_team(TEAM, tmp_path)
    assert findings == []
    assert (team.author, team.institute, team.report) == ("Gontier", "INRIA", tmp_path / "report.pdf")
    assert team.metadata["system"] == {"description": {"audio_modelling": "cnn"}}
    run = {"system": {"description": {"audio_modelling": "rnn", "word_modelling": "bert"}}}
    first, second = (metadata.merged(run, team.metadata, system) for system in team.systems)
    assert first["submission"]["name"], second["submission"]["name"] == ("Our first system", "Our system")
    assert second["submission"]["abbreviation"] == "Second"
    assert second["submission"]["authors"] == team.metadata["submission"]["authors"]
    assert first["system"]["description"] == {"audio_modelling": "cnn", "word_modelling": "bert"}
    assert run == {"system": {"description": {"audio_modelling": "rnn", "word_modelling": "bert"}}}
    assert metadata.merged({"a": 1, "b": {"c": [1, 2]}}, {"a": {"d": 2}, "b": {"c": [3]}}) == {
        "a": {"d": 2},
        "b": {"c": [3]},
    }


TEAM_MUTATIONS = {
    "author": ("author: Gontier\n", "", ": author: error: must not be empty; fill it in"),
    "misspelt": (
        "institute: INRIA\n",
        "institut: INRIA\n",
        ":2: institut: error: unknown key 'institut'; did you mean 'institute'? there are: author, institute, report, "
        "metadata, systems",
    ),
    "a _": (
        "institute: INRIA\n",
        "institute: IN_RIA\n",
        ":2: institute: error: must not contain '_' or '/', or start or end with a blank, because it is part of the "
        "labels; found 'IN_RIA'",
    ),
    "a number": (
        "institute: INRIA\n",
        "institute: 5\n",
        ":2: institute: error: must be text; found 5: put it in quotes",
    ),
    "no report": (
        "report.pdf",
        "x.pdf",
        ":3: report: error: must be the path of a PDF, relative to the folder of this file; found no file 'x.pdf'",
    ),
    "a report that is no PDF": (
        "report.pdf",
        "team.yaml",
        ":3: report: error: 'team.yaml' must be a PDF; found a file that begins with b'author: ': export the report as "
        "PDF",
    ),
    "a name no file has": (
        "report.pdf",
        '"a\\0b"',
        r":3: report: error: must be the path of a PDF, relative to the folder of this file; found no file 'a\x00b'",
    ),
    "a block outside": (
        "systems:\n",
        "results: {}\nsystems:\n",
        ":18: results: error: belongs under metadata; move it there",
    ),
    "unknown": (
        "name: Our system",
        "nam: Our system",
        ":6: metadata.submission.nam: error: unknown key 'nam'; did you mean 'name'? there are: label, name, "
        "abbreviation, authors",
    ),
    "too long": (
        "abbreviation: First",
        "abbreviation: First of all",
        ":19: systems.1.submission.abbreviation: error: must not have more than 10 characters; found 12: "
        "'First of all'",
    ),
    "empty": (
        "firstname: Felix",
        "firstname:",
        ":10: metadata.submission.authors.1.firstname: error: must not be empty; fill it in",
    ),
    "label": (
        "    name: Our",
        "    label: a_b_task6a_1\n    name: Our",
        ":6: metadata.submission.label: error: must not be given, because author and institute make it; remove it",
    ),
    "too many systems": (
        "systems:\n",
        "systems:\n" + "  - {}\n" * 3,
        ":18: systems: error: must not have more than 4 entries; found 5",
    ),
    "no list": (
        "systems:\n",
        "systems: 5\nx:\n",
        None,
    ),
    "authors at the wrong place": (
        "    authors:",
        "  authors:",
        ":8: metadata.authors: error: belongs under submission; move it there, indented like the keys there",
    ),
    "none": (
        "        corresponding: true\n",
        "",
        f":8: metadata.submission.authors: error: {AUTHORS}",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), TEAM_MUTATIONS.values(), ids=TEAM_MUTATIONS)
def test_one_mutation_of_the_teams_file_gives_one_finding(old, new, message, tmp_path):
    assert old in TEAM
    with pytest.raises(Faulty) as caught:
        read_team(TEAM.replace(old, new, 1), tmp_path)
    if message is None:
        assert len(caught.value.findings) == 2
    else:
        assert [str(finding) for finding in caught.value.findings] == [f"{tmp_path}/team.yaml{message}"]


def test_warnings_do_not_stop_a_team(tmp_path):
    team, findings = read_team(TEAM.replace("author: Gontier", "author: Van Dam"), tmp_path)
    assert [(finding.line, finding.severity) for finding in findings] == [(1, WARNING), (8, WARNING)]
    assert "write 'Van-Dam'" in findings[0].message
    assert team.author == "Van Dam"


@pytest.mark.parametrize("name", TASKS)
def test_the_teams_template(name, tmp_path):
    """The template is valid, its check lists the empty keys, and once these are filled in, a package can be made."""
    text = teams.text(TASKS[name])
    assert max(map(len, text.splitlines())) <= 120
    assert yaml.safe_load(text)["metadata"]["submission"]["authors"][0]["corresponding"] is True
    with pytest.raises(Faulty) as caught:
        read_team(text, tmp_path, name)
    assert all(finding.message.startswith("must not be empty; fill it in") for finding in caught.value.findings)
    rows = text.splitlines()
    for finding in caught.value.findings:
        key = finding.column.rpartition(".")[2]
        word = {"report": "report.pdf", "email": "a@b.org"}.get(key, "Ours")
        row = rows[finding.line - 1]
        assert re.match(rf"[ -]*{key}:(  #|$)", row)
        rows[finding.line - 1] = row.replace(f"{key}:", f"{key}: {word}", 1)
    team, findings = read_team("\n".join(rows), tmp_path, name)
    assert findings == [] and team.systems == []
    label = TASKS[name].label.value.format(author=team.author, institute=team.institute, index=1)
    run = {"system": {"complexity": {"total_parameters": 5}}, "submission": {"label": label}}
    assert said(name, metadata_text.text(TASKS[name], metadata.merged(run, team.metadata)), tmp_path) == []
    everything = re.sub(r"(?m)^( *)# (?=[ -]*\w+:)", r"\1", text.partition("metadata:")[2])  # without the '#'
    assert all(not line.lstrip().startswith("# ") or ":" not in line for line in everything.splitlines()[:5])
    yaml.safe_load("metadata:" + everything)


PIECES = [
    b"\t",
    b"  ",
    b"\n",
    b":",
    b": ",
    b"- ",
    b"#",
    b"'",
    b'"',
    b"[",
    b"{",
    b"*a",
    b"&a ",
    b"!!null",
    b"!!python/x ",
    b"\0",
]
PIECES += [
    b"\xff",
    b"\xef\xbb\xbf",
    b"---\n",
    b"1e-5",
    b"Yes",
    b"<<: ",
    b"? ",
    b"|\n",
    b">\n",
    b"%",
    b"@",
    b".nan",
    b"!!set ",
    b"=\n",
]
PIECES += [
    b"1:30",
    b"2020-13-01",
    b"!!int x",
    b"!!binary x",
    b"\\",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"name",
    b"submission:\n",
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([A, B, "team"]),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.binary(max_size=4), st.sampled_from(PIECES))),
        min_size=1,
        max_size=4,
    ),
)
def test_random_edits_never_break_the_check(tmp_path, name, changes):
    """No edit leads to an exception or a changed file, and PyYAML reads every file without an error."""
    raw = (TEAM if name == "team" else VALID[name]).encode()
    for where, cut, piece in changes:
        at = int(where * len(raw))
        raw = raw[:at] + piece + raw[at + cut :]
    path = tmp_path / "m.yaml"
    path.write_bytes(raw)
    (tmp_path / "report.pdf").write_bytes(made.PDF)
    if name == "team":
        try:
            _, findings = teams.read(TASKS[A], path)
        except Faulty as fault:
            findings = fault.findings
    else:
        values, findings = metadata.validate(TASKS[name], path, "m.yaml")
    assert path.read_bytes() == raw
    assert all(isinstance(finding, Finding) and str(finding).isprintable() for finding in findings)
    if name != "team" and not findings:
        assert values == yaml.safe_load(raw.decode())
        assert without_none(yaml.safe_load(metadata_text.text(TASKS[name], values))) == without_none(values)
    if not any(finding.severity == ERROR for finding in findings):
        yaml.safe_load(raw.decode("utf-8-sig"))


def without_none(value: object) -> object:
    """Return a value without its null keys, because null keys that may be absent are not written."""
    if isinstance(value, dict):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value
