"""Packages are scored in separate processes, so that a bad package does not harm the others."""

import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest

from submission import leaderboard, package, scoring
from submission.kinds import KINDS
from tests.submission.made_boards import SPLIT, TASK, hand_in, knowing

WORK = scoring._work


def harm(sender, path, scratch, *rest):
    """Do to the process what a bad package may do to it."""
    if path.name.startswith("Exit"):
        (Path(scratch) / "left").touch()
        os._exit(3)
    if path.name.startswith("Sleep"):
        time.sleep(100)
    if path.name.startswith("Greedy"):
        KINDS["retrieval"].memory = 3 * 2**28
        package.checked = lambda *_: bytearray(4 * 2**30)
    if path.name.startswith("Raise"):
        package.checked = lambda *_: {}["nothing"]
    WORK(sender, path, scratch, *rest)


def test_a_bad_package_takes_nothing_with_it(tmp_path, monkeypatch):
    hand_in(tmp_path, "Wu", knowing(3))
    folder = tmp_path / "in"
    for name in ("Exit", "Greedy", "Raise", "Broken"):
        (folder / f"{name}.ZIP").write_bytes(b"PK\3\4 no zip at all")
    (folder / "Empty").mkdir()
    (folder / ".hidden.zip").touch()
    (folder / "readme.md").touch()
    with zipfile.ZipFile(folder / "Wu_Mila_task6b.zip") as good, zipfile.ZipFile(folder / "Part.zip", "w") as bad:
        for name in good.namelist():  # rows are missing
            content = good.read(name)
            bad.writestr(name, content[: len(content) // 2] if name.endswith(".csv") else content)
    monkeypatch.setattr(scoring, "_work", harm)
    board = leaderboard.run(TASK, folder, {"retrieval": SPLIT}, tmp_path / "out")
    assert [(e.label, rank) for rank, e in board.systems.rows] == [("Wu_Mila_task6b_1", 1)]
    said = {one.name: [str(finding) for finding in one.findings] for one in board.packages}
    assert said["Exit.ZIP"] == [
        "Exit.ZIP: error: ended the process that checked it, with status 3; check it separately"
    ]
    assert said["Greedy.ZIP"] == [
        "Greedy.ZIP: error: needed more than 0.75 GiB of memory, so its check was stopped; check it separately"
    ]
    assert said["Raise.ZIP"] == ["Raise.ZIP: error: could not be checked (KeyError: 'nothing'); please report this"]
    assert said["Broken.ZIP"]
    assert said["Empty"]
    assert any("no row answers" in text for text in said["Part.zip"])
    assert not said["Wu_Mila_task6b.zip"]
    assert [str(finding) for finding in board.findings] == ["readme.md: note: is ignored: it is not a package"]
    text = (tmp_path / "out" / "private" / "findings.txt").read_text(encoding="utf-8")
    assert all(line in text for lines in said.values() for line in lines)
    assert str(tmp_path) not in text


def test_a_package_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    """The package after it is checked, even if packages are checked one at a time."""
    monkeypatch.setattr(scoring, "_work", harm)
    monkeypatch.setattr(scoring, "SECONDS", 5)
    monkeypatch.setattr(scoring, "WORKERS", 1)
    paths = [tmp_path / "Sleep.zip", tmp_path / "Exit.zip"]
    packages = scoring.score_packages(TASK, paths, {"retrieval": SPLIT}, "retrieval", tmp_path, tmp_path)
    said = [str(finding) for package_ in packages for finding in package_.findings]
    assert said == [
        "Sleep.zip: error: needed more than 5 s, so its check was stopped; check it separately",
        "Exit.zip: error: ended the process that checked it, with status 3; check it separately",
    ]
    assert not multiprocessing.active_children()


def test_an_interrupt_ends_the_processes(tmp_path, monkeypatch):
    """Ctrl-C ends a process that still runs, and the command."""
    monkeypatch.setattr(scoring, "_work", harm)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does, but only in this process
    signal.setitimer(signal.ITIMER_REAL, 3)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            scoring.score_packages(
                TASK, [tmp_path / "Sleep.zip"], {"retrieval": SPLIT}, "retrieval", tmp_path, tmp_path
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert not multiprocessing.active_children()
    assert time.monotonic() - began < 60  # less than the 100 s that the package sleeps
