"""The READMEs' commands are run as they stand, in a copy of the checkout, on a tiny data set."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.data.soundscapes import generate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
READMES = [ROOT / "README.md", *sorted((ROOT / "systems").glob("*/README.md"))]
BLOCKS = [block for path in READMES for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.S | re.M)]
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
(SYSTEM,) = [block for block in re.findall(r"^```python\n(.*?)^```", README, re.S | re.M) if "def load_model" in block]
OF_SYSTEM = [line for line in COMMANDS if "spectra" in line]
TINY = {"development": 12, "validation": 11, "evaluation": 11}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout that has an environment already, and tiny data where the README's would be."""
    top = tmp_path_factory.mktemp("readme")
    files = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    )
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (top / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, top / "kit" / name)
    if (ROOT / ".venv").exists():
        (top / "kit" / ".venv").symlink_to(ROOT / ".venv")
    else:  # an environment that `make` did not set up
        (top / "kit" / ".venv" / "bin").mkdir(parents=True)
        (top / "kit" / ".venv" / "bin" / "python").symlink_to(sys.executable)
        (top / "kit" / ".venv" / ".core").touch()
    (top / "kit" / "spectra.py").write_text(SYSTEM, encoding="utf-8")
    generate.make_soundscapes(top / "kit" / "data" / "soundscapes", clips=TINY, progress=False)
    shutil.copytree(top / "kit" / "data" / "soundscapes", top / "shared" / "data" / "esc10")
    return top / "kit"


# What `runpy` says of a module that this process has imported already.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@pytest.fixture
def run(checkout, monkeypatch, capfd):
    """Run a command in the checkout: `.venv/bin/python -m` in this process, which spares it ten seconds of imports.

    What `make` is asked for starts processes of its own, for every room.
    """
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(checkout))
    for name in ("EPOCHS", "CAPTIONER_EPOCHS"):
        monkeypatch.setenv(name, "1")

    def run(command):
        words = shlex.split(command)
        if words[:2] != [".venv/bin/python", "-m"]:
            return subprocess.run(command, shell=True, capture_output=True, text=True)
        monkeypatch.setattr(sys, "argv", words[2:])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(command, ended.value.code, said.out, said.err)

    return run


def planned(run, command):
    """Do what a `make` command would, without its processes: the first one of the README has started all of them."""
    words = f"{command} --dry-run --no-print-directory"  # which `make test` would have it print
    plan = subprocess.run(words, shell=True, capture_output=True, text=True, check=True).stdout
    said = []
    for line in plan.replace("\\\n", " ").splitlines():
        done = run(line.strip())
        said.append(done.stdout)
        if done.returncode:
            break
    return subprocess.CompletedProcess(command, done.returncode, "".join(said), done.stderr)


def test_the_readme_has_commands():
    assert COMMANDS[:2] == ["make baseline", "make baseline DATA=../shared/data/esc10"]
    assert len(COMMANDS) >= 10


def test_every_command_of_the_readme_works(checkout, run):
    for command in COMMANDS:
        if command in OF_SYSTEM:
            continue
        first = command == COMMANDS[0] or not command.startswith("make ")
        done = run(command) if first else planned(run, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.startswith("make baseline"):
            for part in (
                "all is well",
                "epoch   1",
                "queries x 11 clips",
                "valid for dcase2022-6b",
                "mAP@10",
                "11 clips, ",
                "valid for dcase2023-6a",
                "nearest development clip's",
                "CIDEr-D's interval lies",
                "signature: ",
            ):
                assert part in done.stdout, f"{command}: no {part!r} in\n{done.stdout}"
    assert (checkout / "runs" / "soundscapes" / "scores" / "evaluation.json").is_file()


def test_a_system_of_under_sixty_lines_goes_from_nothing_to_a_validated_package(run):
    assert len(SYSTEM.splitlines()) < 60
    verbs = ["systems check", "systems train", "systems predict", "evaluation score", "submission package"]
    verbs += ["submission validate"]
    said = ["nothing to mend", "", "queries x 11 clips", "mAP@10", "1 system, valid for", "valid for dcase2022-6b"]
    for command, verb, part in zip(OF_SYSTEM, verbs, said, strict=True):
        done = run(command)
        assert verb in command
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert part in done.stdout


def test_make_names_every_target(run):
    done = run("make help")
    targets = set(re.findall(r"^  ([a-z-]+) ", done.stdout, re.M))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert targets == set(phony)


def test_a_wrong_data_folder_gets_one_clear_line(checkout, run):
    done = run("make baseline DATA=nowhere")
    assert done.returncode != 0
    expected = "error: nowhere: no such folder; give a folder in Clotho's layout (captions_SPLIT.csv, SPLIT/)"
    assert expected in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert not (checkout / "runs" / "nowhere").exists()


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_the_readme_names_only_files_that_exist(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
