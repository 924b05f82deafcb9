"""The leaderboard: its ranks and its files, which no hostile submission can damage."""

import csv
import io
import json
import math
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.data.dataset import Split, read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import choice, retrieval
from evaluation.statistics import comparison
from submission import leaderboard_page as pages
from submission import tasks
from submission.leaderboard import FILES, PUBLIC, run, save
from submission.ranking import rank
from submission.scoring import ScoredPackage, ScoredSystem
from tests.submission import made
from tests.submission.made_boards import CLIPS, EVIL, SPLIT, TASK, entry, hand_in, hostile_board, knowing, ranked


def read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


# ------------------------------------------------------------------------------------------------ ranking


def test_a_folder_of_packages(tmp_path):
    """The ranks and scores equal those of systems scored one by one; the same folder gives the same bytes."""
    systems = {
        "Wu_Mila_task6b_1": knowing(1, 0),
        "Wu_Mila_task6b_2": knowing(4, 1),
        "Xu_Mila_task6b_1": knowing(2, 2),
        "Li_Mila_task6b_1": knowing(0, 3),
    }
    hand_in(tmp_path, "Wu", *list(systems.values())[:2], loss_function="<b>InfoNCE</b>")
    hand_in(tmp_path, "Xu", systems["Xu_Mila_task6b_1"])
    with zipfile.ZipFile(hand_in(tmp_path, "Li", systems["Li_Mila_task6b_1"])) as file:  # a package may be a folder
        file.extractall(tmp_path / "in" / "Li_unpacked")
    (tmp_path / "in" / "Li_Mila_task6b.zip").unlink()
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")

    alone = {
        label: retrieval.evaluate(SPLIT, scores.top(10), metrics=TASK.metrics.value)
        for label, scores in systems.items()
    }
    assert board.errors == 0, board.findings_text()
    order = sorted(alone, key=lambda label: -alone[label].metrics["mAP@10"].estimate.value)
    assert [(rank, e.label) for rank, e in board.systems.rows] == list(enumerate(order, start=1))
    assert [e.label for _, e in board.teams.rows] == [label for label in order if label != "Wu_Mila_task6b_1"]
    assert [(rank, e.team) for rank, e in board.teams.rows] == [(1, "Wu_Mila"), (2, "Xu_Mila"), (3, "Li_Mila")]
    for _, e in board.systems.rows:
        assert e.score.metrics == alone[e.label].metrics
        assert e.score.signature == alone[e.label].signature
    written = json.loads((tmp_path / "out" / "board.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader(io.StringIO(board.csv())))
    for system in written["systems"]:
        for metric, measured in alone[system["system"]].metrics.items():
            assert system["metrics"][metric]["low"] == measured.estimate.low
            found = [r for r in rows if (r["table"], r["system"], r["what"]) == ("systems", system["system"], metric)]
            assert [float(row["value"]) for row in found] == [measured.estimate.value]
    assert "<b>InfoNCE</b>" in board.csv()
    assert "&lt;b&gt;InfoNCE&lt;/b&gt;" in pages.html(board)
    assert "<b>InfoNCE</b>" not in pages.html(board)

    for ranking in (board.teams, board.systems):  # `dcase-evaluation compare` gives the same results
        labels = [e.label for _, e in ranking.rows]
        p = []
        for difference, upper, lower in zip(ranking.neighbours, labels, labels[1:], strict=False):
            pair = comparison.compare({lower: alone[lower], upper: alone[upper]})
            [same] = [d for d in pair.differences if d.metric == "mAP@10"]
            assert (difference.system, difference.against) == (upper, lower)
            assert difference.difference.value == pytest.approx(same.difference.value, abs=1e-15)
            assert difference.difference.low == pytest.approx(same.difference.low, abs=1e-15)
            assert difference.p == same.p
            p.append(same.p)
        assert [d.p_holm for d in ranking.neighbours] == comparison.holm(np.array(p)).tolist()

    first = read(tmp_path / "out")
    (tmp_path / "out" / "private" / "findings.txt").write_text("of another time")
    run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")  # replaces the earlier leaderboard
    assert read(tmp_path / "out") == first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*PUBLIC, "private", "reports"])
    reports = {path.name: path.read_bytes() for path in (tmp_path / "out" / "reports").iterdir()}
    assert reports == dict.fromkeys(("Li_unpacked.pdf", "Wu_Mila_task6b.pdf", "Xu_Mila_task6b.pdf"), made.PDF)
    (tmp_path / "in" / "Xu_Mila_task6b.zip").unlink()
    (tmp_path / "out" / "reports" / "notes.pdf").touch()
    run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out" / "reports").iterdir())
    assert left == ["Li_unpacked.pdf", "Wu_Mila_task6b.pdf", "notes.pdf"]  # only our own report of Xu is removed


def test_ties_share_a_rank():
    """Equal systems share a rank, in the order of their labels; the next rank counts all of them."""
    board = ranked(
        entry("B_x_task6b_1", knowing(9)),
        entry("A_x_task6b_1", knowing(9)),
        entry("C_x_task6b_1", knowing(0)),
        entry("A_x_task6b_2", knowing(9)),
    )
    assert [(rank, e.label[0]) for rank, e in board.systems.rows] == [(1, "A"), (1, "A"), (1, "B"), (4, "C")]
    assert [(rank, e.label) for rank, e in board.teams.rows] == [
        (1, "A_x_task6b_1"),
        (1, "B_x_task6b_1"),
        (3, "C_x_task6b_1"),
    ]
    assert [d.p for d in board.systems.neighbours][:2] == [1, 1]
    assert board.systems.neighbours[0].difference.value == 0
    assert not board.alarm


def test_a_system_without_the_metric_has_no_rank():
    with_it, without = entry("A_x_task6b_1"), entry("B_x_task6b_1")
    rest = {name: m for name, m in without.score.metrics.items() if name != "mAP@10"}
    board = ranked(replace(without, score=replace(without.score, metrics=rest)), with_it)
    assert [(rank, e.label[0]) for rank, e in board.systems.rows] == [(1, "A"), (None, "B")]
    assert board.systems.neighbours == ()
    assert "B_x_task6b_1" in board.alarm
    for text in (str(board), pages.html(board), board.csv()):
        assert "B_x_task6b_1" in text


def test_an_interval_that_is_none(tmp_path):
    one = entry("A_x_task6b_1")
    metrics = {
        name: replace(m, estimate=replace(m.estimate, std_error=math.nan, low=math.nan, high=math.nan))
        for name, m in one.score.metrics.items()
    }
    board = ranked(replace(one, score=replace(one.score, metrics=metrics)))
    save(board, tmp_path)
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in FILES]
    assert not any("nan" in text.lower() for text in texts)
    assert json.loads(texts[0])["systems"][0]["metrics"]["mAP@10"]["low"] is None
    assert "<title>A_x_task6b_1: " in texts[1]


def test_less_is_better_of_some_metrics():
    facts = TASK.metrics.model_copy(update={"value": ("medR",)})
    task = TASK.model_copy(update={"metrics": facts})
    entries = []
    for label, much in (("A_x_task6b_1", 0), ("B_x_task6b_1", 9)):
        score = retrieval.evaluate(SPLIT, knowing(much), metrics=("medR",))
        entries.append(replace(entry(label), score=score))
    board = ranked(*entries, task=task)
    assert [e.label[0] for _, e in board.systems.rows] == ["B", "A"]
    assert "lower is better" in str(board)
    assert board.systems.neighbours == ()  # a median has no values for single queries


def test_a_label_in_two_packages_is_nobodys():
    board = ranked(
        entry("A_x_task6b_1", package="one.zip"),
        entry("A_x_task6b_1", package="two.zip"),
        entry("B_x_task6b_1", package="two.zip"),
    )
    assert [e.label for _, e in board.systems.rows] == ["B_x_task6b_1"]
    assert board.errors == 2
    assert "one.zip/A_x_task6b_1: error: must be in one package only; found it in two.zip, too" in board.findings_text()


def test_published_baseline_is_shown_only_on_its_own_set():
    on_evaluation, on_retrieval = (fact.value for fact in TASK.baselines)
    board = ranked(entry("A_x_task6b_1"))
    assert board.published == ()  # the split has the name of the official set, but 24 clips and not 1000
    here = replace(board, published=(on_retrieval,))
    (line,) = {" ".join(line.split()) for line in str(here).splitlines() if "organisers (published)" in line}
    assert line == "– organisers (published) baseline 0.061 0.026 0.102 0.176 published results, not ranked"
    assert "The organisers' baseline is shown with its published results for this set" in str(here)
    assert re.search(
        r"baseline <small>organisers \(published\) \(published results, not ranked\)", pages.html(here), re.DOTALL
    )
    rows = [row for row in csv.DictReader(io.StringIO(here.csv())) if row["table"] == "published"]
    assert [row["team"] for row in rows] == ["organisers (published)"] * 4
    assert {row["what"]: float(row["value"]) for row in rows} == on_retrieval.metrics
    assert len(here.systems.rows) == 1  # it has no rank

    clips = SPLIT.clips * 50
    for name, count, captions, shown in (
        ("retrieval", 1000, 1, on_retrieval),
        ("retrieval", 1000, 5, None),
        ("retrieval", 999, 1, None),
        ("evaluation", 1000, 1, None),
        ("evaluation", 1045, 5, on_evaluation),
    ):
        said = [tuple(f"{n}.{c}" for c in range(captions)) for n in range(count)]
        made_up = [replace(clip, captions=own) for clip, own in zip(clips, said, strict=False)]
        split = Split(name, tuple(made_up))
        assert [fact.value for fact in TASK.baselines if TASK.measured_on(fact.value, split)] == [shown] * bool(shown)


def test_captions_of_clotho_are_told_by_their_number():
    task = tasks.read("dcase2020-6")
    facts = task.baselines[0].value
    assert task.measured_on(facts, Split("evaluation", SPLIT.clips * 43 + SPLIT.clips[:13]))
    assert not task.measured_on(facts, replace(SPLIT, name="evaluation"))


def test_the_baseline_stands_beside_real_clotho(shared):
    split = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    for name in ("dcase2022-6b", "dcase2023-6b", "dcase2025-6"):
        task = tasks.read(name)
        facts = [fact.value for fact in task.baselines if task.measured_on(fact.value, split)]
        assert facts
        assert all("mAP@16" not in one.metrics for one in facts)  # mAP@16 needs the annotation of 2025


def test_a_rehearsal_with_relevance(tmp_path):
    """Another split replaces the set; if it has a relevance, that is the ground truth."""
    clips = tuple(replace(clip, captions=(f"One {n}.", f"Two {n}.")) for n, clip in enumerate(CLIPS))
    relevance = {f"One {n}.": frozenset(SPLIT.file_names[n : n + 2]) for n in range(20)}
    split = Split("evaluation", clips, relevance)
    scores = knowing(2, split=split)
    hand_in(tmp_path, "Wu", scores, splits={"evaluation": split}, answered="evaluation")
    board = run(TASK, tmp_path / "in", {"retrieval": split}, tmp_path / "out")
    assert not board.errors, board.findings_text()
    [(_, found)] = board.systems.rows
    assert found.score.metrics == retrieval.evaluate(split, scores.top(10), metrics=TASK.metrics.value).metrics
    assert len(found.score.items.names) == 20
    assert "This is a rehearsal: the split evaluation replaces this set." in str(board)
    assert board.published == ()


def test_a_matrix(tmp_path):
    task = tasks.read("dcase2025-6")
    hand_in(tmp_path, "Wu", knowing(2), task=task)
    board = run(task, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    assert not board.errors, board.findings_text()
    [(_, found)] = board.systems.rows
    assert found.score.metrics == retrieval.evaluate(SPLIT, knowing(2), metrics=task.metrics.value).metrics
    assert board.metric == "mAP@16"


def test_another_metric_ranks_if_the_first_is_not_available(tmp_path):
    """Without SPICE's parser the task's next metric ranks, and the leaderboard begins with a warning."""
    task = tasks.read("dcase2024-6")
    facts = task.metrics.model_copy(update={"value": ("spider", "rouge_l", "bleu_1")})
    task = task.model_copy(update={"metrics": facts, "interval": None})
    said = tuple(f"{made.WORDS[n % 8]} and {made.WORDS[n // 2]} are heard" for n in range(12))
    clips = tuple(replace(clip, captions=(text, f"{text} twice")) for clip, text in zip(CLIPS, said, strict=False))
    splits = {"analysis": Split("analysis", CLIPS[:12]), "test": Split("test", clips)}
    hand_in(tmp_path, "Wu", said, ("a dog is heard", *said[1:]), task=task, splits=splits)
    hand_in(tmp_path, "Xu", ["a dog barks"] * 12, task=task, splits=splits)
    board = run(task, tmp_path / "in", splits, tmp_path / "out", cache=tmp_path / "cache")
    assert not board.errors, board.findings_text()
    assert [e.label for _, e in board.systems.rows] == ["Wu_Mila_task6_1", "Wu_Mila_task6_2", "Xu_Mila_task6_1"]
    assert (board.ranked, board.metric, board.metrics) == ("test", "rouge_l", ["rouge_l", "bleu_1"])
    assert board.systems.rows[0][1].value("rouge_l") == pytest.approx(1)
    assert "THIS IS NOT THE TASK'S RANKING: the task ranks by SPIDEr" in str(board).split("\n\n")[1]
    assert 'role="alert"' in pages.html(board)
    assert "not available" in str(board)
    assert len(board.systems.neighbours) == 2


# ------------------------------------------------------------------------------------------------ bad packages


def test_a_fault_of_the_report_alone_is_a_remark(tmp_path):
    """The systems are ranked, the package still counts as faulty, and the page does not link to the report."""
    for author in ("Wu", "Xu"):
        hand_in(tmp_path, author, knowing(2))
    path = tmp_path / "in" / "Wu_Mila_task6b.zip"
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist() if not name.endswith(".pdf")}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    assert (board.errors, board.refused) == (1, 0)
    assert {e.label for e in board.entries} == {"Wu_Mila_task6b_1", "Xu_Mila_task6b_1"}
    assert [path.name for path in (tmp_path / "out" / "reports").iterdir()] == ["Xu_Mila_task6b.pdf"]
    [line] = [line for line in str(board.rows(board.systems)).split("Row(") if "'Wu_Mila_task6b_1'" in line]
    assert "without a valid technical report" in line
    assert "without a valid technical report" in pages.html(board)


def test_the_organisers_baseline(tmp_path):
    """It is ranked like the others, but does not count as a submission; a faulty one is refused."""
    hand_in(tmp_path, "Wu", knowing(3))
    baseline = hand_in(tmp_path, "Base", knowing(1))
    elsewhere = tmp_path / "Base.zip"
    baseline.rename(elsewhere)
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out", baseline=elsewhere)
    assert [(rank, e.label, e.is_baseline) for rank, e in board.systems.rows] == [
        (1, "Wu_Mila_task6b_1", False),
        (2, "Base_Mila_task6b_1", True),
    ]
    assert board.about.startswith("1 system of 1 team, ")
    assert re.search(r"Base_Mila_task6b_1 .*organisers' baseline", str(board))
    elsewhere.write_bytes(b"no zip")
    with pytest.raises(
        Faulty, match=r"Base\.zip: error: must be valid, because it is the package of the organisers' baseline"
    ):
        run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out2", baseline=elsewhere)
    with pytest.raises(BadRequest, match="give the package of the organisers' baseline"):
        run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out2", baseline=tmp_path / "none.zip")
    assert not (tmp_path / "out2").exists()


def test_nobody_can_remove_the_baseline(tmp_path):
    """A package with the label of the baseline is refused; the baseline stays."""
    hand_in(tmp_path, "Wu", knowing(3))
    baseline = hand_in(tmp_path, "Base", knowing(1))
    (tmp_path / "in" / "Copy.zip").write_bytes(baseline.read_bytes())
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out", baseline=baseline)
    assert [(e.label, e.is_baseline) for e in board.entries] == [
        ("Wu_Mila_task6b_1", False),
        ("Base_Mila_task6b_1", True),
    ]
    assert "1 package of 2 refused" in board.about
    assert "Copy.zip/Base_Mila_task6b_1: error: must be in one package only" in board.findings_text()


def test_a_team_in_two_packages_gets_a_warning():
    board = ranked(entry("A_x_task6b_1", package="one.zip"), entry("A_x_task6b_2", package="two.zip"))
    assert "one.zip: warning: has systems of the team A_x; so has two.zip" in board.findings_text()
    assert board.errors == 0


def test_zips_are_found_by_their_content(tmp_path):
    hand_in(tmp_path, "Wu", knowing(3)).rename(tmp_path / "in" / "Wu")
    (tmp_path / "in" / "Xu.tar.gz").touch()
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    assert [e.label for e in board.entries] == ["Wu_Mila_task6b_1"]
    assert "Xu.tar.gz: warning: is ignored: a package must be a zip" in str(board.findings[0])


def test_no_address_and_no_path_is_published(tmp_path):
    hand_in(tmp_path, "Wu", knowing(3), audio_modelling="ask wu@example.org for the CNN14")
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    score = replace(board.entries[0].score, unavailable={"mAP@10": f"nothing here; fetch it with: --cache {tmp_path}"})
    board = ranked(replace(board.entries[0], score=score))
    save(board, tmp_path / "out")
    for name in PUBLIC:
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "@example" not in text
        assert str(tmp_path) not in text
    assert "ask (email address) for the CNN14" in board.csv()


def test_no_valid_system(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Empty.zip").touch()
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    assert board.errors
    assert "No system could be scored" in str(board)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*PUBLIC, "private"}


@pytest.mark.parametrize(
    ("make", "splits", "message"),
    [
        ((), {"retrieval": SPLIT}, "in: no such folder; give a folder that contains packages"),
        (("in/",), {"retrieval": SPLIT}, "in: must contain packages; found none: give a folder of zips"),
        (("in/", "in/notes.txt"), {"retrieval": SPLIT}, "in: must contain packages; found none"),
        (("in/", "in/A/", "in/A/1.wav", "in/B/"), {"retrieval": SPLIT}, "in: must contain packages; found none"),
        (("in/", "in/config.yaml", "in/scores/", "in/scores/s.csv"), {"retrieval": SPLIT}, "found a run folder: give"),
        (("in/", "in/A/", "out/"), {}, "must have captions or relevance for the set retrieval; found none of these"),
        (
            ("in/", "in/A/"),
            {"retrieval": made.split("retrieval", 9, 3)},
            "found retrieval without this ground truth: give another",
        ),
        (("in/", "in/A/", "out"), {"retrieval": SPLIT}, "out: must be a folder, or not exist yet; found a file"),
        (("in/", "in/A/", "out/", "out/findings.txt"), {"retrieval": SPLIT}, "found 'findings.txt': give another"),
        (("in/", "in/A/", "out/", "out/board.json", "out/my.tex"), {"retrieval": SPLIT}, "found 'my.tex': give"),
    ],
)  # fmt: skip
def test_bad_requests(make, splits, message, tmp_path):
    for name in make:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadRequest) as refusal:
        run(TASK, tmp_path / "in", splits, tmp_path / "out")
    assert message in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_leftover_files_are_ignored_with_a_note(tmp_path, capsys):
    """Both in the folder of packages and in the output folder, where Finder and Explorer may leave files."""
    hand_in(tmp_path, "Wu", knowing(1))
    for name in (".DS_Store", "Thumbs.db", "__MACOSX/", ".board.json.77.part", ".x.zip.part/", ".hidden"):
        for folder in (tmp_path / "in", tmp_path / "out"):
            folder.mkdir(exist_ok=True)
            (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    (tmp_path / "out" / ".hidden").unlink()
    board = run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")
    assert len(board.entries) == 1
    part = "note: is ignored: an interrupted command left it; delete it"
    notes = [
        ".DS_Store: note: is ignored: macOS adds it",
        f".board.json.77.part: {part}",
        f".x.zip.part: {part}",
        "Thumbs.db: note: is ignored: Windows adds it",
        "__MACOSX: note: is ignored: macOS adds it",
    ]
    assert [str(finding) for finding in board.findings] == notes
    assert capsys.readouterr().err.splitlines() == [f"{tmp_path}/out/{note}" for note in notes]
    run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out")  # and once more


def test_a_truth_that_does_not_hold_is_no_packages_fault(tmp_path):
    (tmp_path / "in" / "A").mkdir(parents=True)
    with pytest.raises(Faulty, match=r"the split has no 'nowhere\.wav'"):
        run(
            TASK,
            tmp_path / "in",
            {"retrieval": replace(SPLIT, relevance={"Sound 1.": {"nowhere.wav"}})},
            tmp_path / "o",
        )


def test_no_form_is_harmed(tmp_path):
    board = hostile_board()
    save(board, tmp_path)
    content = json.loads((tmp_path / "board.json").read_text(encoding="utf-8"))
    assert len(content["systems"]) == len(EVIL)
    assert EVIL[0] in {system["system"] for system in content["systems"]}
    with (tmp_path / "board.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert len({len(row) for row in rows}) == 1
    cells = {cell for row in rows for cell in row}
    assert not any(cell.lstrip().startswith(("=", "@", "＝", "＠")) for cell in cells)
    assert {"' =cmd", "'＝cmd"} <= cells
    text = (tmp_path / "board.txt").read_text(encoding="utf-8")
    assert not any(c in text for c in "\0\x1b\r\u202e")


# ------------------------------------------------------------------------------------------------ tracks

TRACKS_TASK = tasks.read("dcase2026-5")
SMALL, LARGE = (track.name for track in TRACKS_TASK.tracks.limits.value)
SIZES = {  # number of right answers of 10, and number of parameters
    "A_x_task5_1": (9, "38000000000"),
    "A_x_task5_2": (8, "8000000000"),
    "B_x_task5_1": (7, "10000000000"),  # not under 10 billion
    "B_x_task5_2": (6, "9999999999"),
    "C_x_task5_1": (5, "100000000001"),
    "D_x_task5_1": (4, "about 8B"),
}


def track_board(task=TRACKS_TASK):
    """Rank systems of several sizes."""
    questions = made.questions("test", 10, blind=False)
    packages = []
    for label, (right, parameters) in SIZES.items():
        answers = {}
        for place, question in enumerate(questions.content.questions):
            answers[question.id] = question.options[0 if place < right else 1]
        score = choice.evaluate(questions.content, answers, metrics=["accuracy"])
        metadata = {"system.complexity.total_parameters": parameters}
        system = ScoredSystem(label, label.rsplit("_", 2)[0], f"{label}.zip", metadata, score)
        packages.append(ScoredPackage(system.package, (system,), ()))
    return rank(task, packages, questions, "test", {})


def test_tracks_are_ranked_apart():
    board = track_board()
    found = {}
    for ranking in board.rankings:
        found[ranking.name, ranking.track] = [
            (rank, system.label[0], system.label[-1]) for rank, system in ranking.rows
        ]
    assert found == {
        ("teams", ""): [(1, "A", "1"), (2, "B", "1"), (3, "C", "1"), (4, "D", "1")],
        ("systems", ""): [(number, label[0], label[-1]) for number, label in enumerate(SIZES, start=1)],
        ("teams", SMALL): [(1, "A", "2"), (2, "B", "2")],
        ("systems", SMALL): [(1, "A", "2"), (2, "B", "2")],
        ("teams", LARGE): [(1, "A", "1"), (2, "B", "1")],
        ("systems", LARGE): [(1, "A", "1"), (2, "B", "1")],
    }
    [difference] = board.tracks[0].neighbours
    assert (difference.system, difference.against) == ("A_x_task5_2", "B_x_task5_2")
    findings = [finding for package in board.packages for finding in package.findings if "track" in finding.message]
    assert [finding.file for finding in findings] == ["C_x_task5_1.zip/C_x_task5_1", "D_x_task5_1.zip/D_x_task5_1"]
    assert "found 'about 8B': the system is in no track" in findings[1].message


def test_the_files_show_the_tracks(tmp_path):
    board = track_board()
    save(board, tmp_path)
    page = (tmp_path / "board.html").read_text()
    for title in ("All systems", f"All systems, {SMALL}", f"All systems, {LARGE}"):
        assert f"<h2>{title}</h2>" in page
    assert "<small>A_x (under 10B parameters)</small>" in page
    assert "<small>D_x (in no track)</small>" in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {"plot-systems-960", "plot-systems-under-10B-parameters-960", "plot-teams-up-to-100B-parameters-360"} <= {
        *ids
    }
    assert "The tracks (under 10B parameters and up to 100B parameters) are ranked apart" in page
    assert "contain the systems of all tracks (inferred: arXiv 2607.18718" in page
    results = board.results()
    small = results[(results.table == "systems") & (results.track == SMALL)]
    assert dict(zip(small.system, small["rank"], strict=True)) == {"A_x_task5_2": 1, "B_x_task5_2": 2}
    facts = results[results.table == "characteristics"]
    tracks = [LARGE, SMALL, LARGE, SMALL, "", ""]
    assert list(zip(facts.system, facts.track.fillna(""), strict=True)) == list(zip(SIZES, tracks, strict=True))
    written = json.loads((tmp_path / "board.json").read_text())
    assert [(each["ranking"], each["track"]) for each in written["tracks"]] == [
        *(("teams", SMALL), ("systems", SMALL), ("teams", LARGE), ("systems", LARGE))
    ]
    assert written["systems"][0]["track"] == LARGE
    assert f"All systems, {SMALL}, by accuracy" in (tmp_path / "board.txt").read_text()


def test_a_task_may_rank_only_its_tracks():
    facts = TRACKS_TASK.tracks
    apart = facts.model_copy(update={"overall": facts.overall.model_copy(update={"value": False})})
    board = track_board(TRACKS_TASK.model_copy(update={"tracks": apart}))
    assert [ranking.track for ranking in board.rankings] == [SMALL, SMALL, LARGE, LARGE]
    assert not any("of all tracks" in note for note in board.notes)
