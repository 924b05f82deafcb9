"""The READMEs' commands are run as they stand, in a copy of the checkout, on a tiny data set.

`make` runs its recipes itself; Python's commands in them, and those of the READMEs, are run by this process. The first
training is run by a new process, as a user's is.
"""

import contextlib
import json
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evaluation.data.dataset import read_dataset
from evaluation.metrics import java, meteor, ptb_tokenizer
from tests.brief import make_brief_soundscapes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
READMES = [ROOT / "README.md", *sorted((ROOT / "systems").glob("*/README.md"))]
BLOCKS = [block for path in READMES for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.S | re.M)]
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
(SYSTEM,) = [block for block in re.findall(r"^```python\n(.*?)^```", README, re.S | re.M) if "def load_model" in block]
OF_SYSTEM = [line for line in COMMANDS if "spectra" in line]
TINY = {"development": 12, "validation": 11, "evaluation": 11}


# What `make` finds as the environment's Python: it asks this process to run the command, which spares each one ten
# seconds of imports. It becomes a real Python for a command that is to be run by a new process.
CLIENT = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    with server.makefile("rw", encoding="utf-8") as stream:
        print(json.dumps(sys.argv[1:]), file=stream, flush=True)
        answer = json.loads(stream.readline())
if answer is None:
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["status"])
"""


@pytest.fixture(scope="module")
def server():
    """A socket that `CLIENT` connects to."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:  # a path must be short
        server.bind(f"{folder}/socket")
        server.listen()
        server.settimeout(0.05)
        yield server


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, server):
    """A copy of the checkout that has an environment already, and tiny data where the README's would be."""
    top = tmp_path_factory.mktemp("readme")
    files = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    )
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (top / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, top / "kit" / name)
    python = top / "kit" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    system_python = Path(sys.executable).resolve()  # without an environment it starts at once
    python.write_text(CLIENT.format(python=system_python, address=server.getsockname(), real=sys.executable))
    python.chmod(0o755)
    (top / "kit" / ".venv" / ".core").touch()
    (top / "kit" / "spectra.py").write_text(SYSTEM, encoding="utf-8")
    data = make_brief_soundscapes(top / "kit" / "data" / "soundscapes", **TINY)
    # METEOR starts four times; with a table of these references it starts in a fifth of the time.
    references = read_dataset(data, "evaluation", sound=False)["evaluation"].all_captions
    cache = top / "kit" / ".cache"
    meteor.make_paraphrase_table(ptb_tokenizer.ptb_tokenize(references, java.find_java(), cache, keep=True), cache)
    shutil.copytree(top / "kit" / "data" / "soundscapes", top / "shared" / "data" / "esc10")
    return top / "kit"


# What `runpy` says of a module that this process has imported already.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


class Shell:
    """Runs commands in the checkout: what Python is to run in this process, and the rest as a shell does."""

    def __init__(self, server, monkeypatch, capfd):
        self.server, self.monkeypatch, self.capfd = server, monkeypatch, capfd

    def __call__(self, command, fresh=None):
        """Run a command.

        Args:
            command: The command line.
            fresh: The beginning of Python's commands that `make` is to run by a new process (default: none).
        """
        words = shlex.split(command)
        if words[:2] == [".venv/bin/python", "-m"]:
            return self.run_module(words[2:])
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(command, shell=True, stdout=out, stderr=err)
            while process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    self.answer(self.server.accept()[0], fresh)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())

    def answer(self, connection, fresh):
        """Run what a client asks for, and send it what was printed; null if it is to run a new process."""
        connection.setblocking(True)
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            option, *words = json.loads(stream.readline())
            assert option == "-m"
            answer = None
            if fresh is None or not " ".join(words).startswith(fresh):
                done = self.run_module(words)
                answer = {"stdout": done.stdout, "stderr": done.stderr, "status": done.returncode}
            print(json.dumps(answer), file=stream, flush=True)

    def run_module(self, words):
        """Run a module in this process as `python -m` does."""
        self.monkeypatch.setattr(sys, "argv", words)
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        printed = self.capfd.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code or 0, printed.out, printed.err)


@pytest.fixture
def run(checkout, server, monkeypatch, capfd):
    """Run a command in the checkout."""
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(checkout))
    for name in ("EPOCHS", "CAPTIONER_EPOCHS"):
        monkeypatch.setenv(name, "1")
    for name in ("MAKEFLAGS", "MAKELEVEL"):  # of `make test`
        monkeypatch.delenv(name, raising=False)
    return Shell(server, monkeypatch, capfd)


def test_the_readme_has_commands():
    assert COMMANDS[:2] == ["make baseline", "make baseline DATA=../shared/data/esc10"]
    assert len(COMMANDS) >= 10


@pytest.mark.slow
def test_every_command_of_the_readme_works(checkout, run):
    for command in COMMANDS:
        if command in OF_SYSTEM:
            continue
        is_first = command == COMMANDS[0]
        done = run(command, fresh="systems train baseline.retriever" if is_first else None)
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


def test_a_system_of_sixty_lines_gets_to_a_valid_package(run):
    assert len(SYSTEM.splitlines()) < 60
    verbs = ["systems check", "systems train", "systems predict", "evaluation score", "submission package"]
    verbs += ["submission validate"]
    said = ["nothing to fix", "", "queries x 11 clips", "mAP@10", "1 system, valid for", "valid for dcase2022-6b"]
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
