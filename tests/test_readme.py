"""The commands of the README and the guides are run as they are written, in a copy of the checkout, on tiny data.

Blocks marked `sh` are run, in the order of the files. A command that has been run already, by `make baseline` or in an
earlier guide, is not run again. Blocks marked `shell` are not run: they download, take hours, or need a cluster.

`make` runs its recipes itself. This process runs the kit's commands in the recipes and in the guides. A new process
runs the first training, as for a user.
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
from evaluation.data.soundscapes.questions import make_questions
from evaluation.data.soundscapes.recordings import make_recordings
from evaluation.files import cache_folder
from evaluation.metrics import java, ptb_tokenizer
from tests.brief import make_brief_soundscapes
from tests.evaluation.metrics.small_tables import make_small_table

ROOT = Path(__file__).parents[1]
GUIDES = [
    ROOT / "README.md",  # its `make baseline` makes what the others use
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("systems/*/README.md")),
]
BASELINE_GUIDE = ROOT / "baseline" / "README.md"
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("*/RESULTS.md"))]
TINY = {"development": 12, "validation": 11, "evaluation": 11}
PYTHON = ["python", "-m"]
BIN = ".venv/bin/"  # the guides leave it out, because the user has activated the environment
SCRIPTS = {f"dcase-{package}": package for package in ("evaluation", "submission", "systems")}

# What a command must print, by its beginning.
EXPECTED = {
    "make baseline": (
        "epoch 1/",
        "queries x 11 clips",
        "valid for dcase2022-6b",
        "mAP@10",
        "valid for dcase2023-6a",
        "nearest development clip's",
        "signature: ",
    ),
    "systems predict runs/spectra": ("queries x 11 clips",),
    "systems export": ("fill in the model card",),
    "evaluation score retrieval": ("mAP@10",),
    "submission package runs/spectra": ("1 system, valid for",),
    "submission validate": ("valid for dcase2022-6b",),
}


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of a guide that are marked with a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """The commands of a guide that are run."""
    return [line.strip() for block in blocks(path, "sh") for line in block.splitlines()]


def as_module(words: list[str]) -> list[str] | None:
    """Return the module and the arguments that a command of the kit runs, or None for any other command.

    `dcase-systems list` and `python -m systems list` both run the module `systems`.
    """
    if words[:2] == PYTHON:
        return words[2:]
    if words[0] in SCRIPTS:
        return [SCRIPTS[words[0]], *words[1:]]
    return None


# The programs that `make` finds in the environment. They ask this process to run the command, which saves ten seconds
# of imports for each command. For a command that a new process must run, a real Python replaces the program.
CLIENT = """\
#!{python} -IS
import json, os, socket, sys
name = os.path.basename(sys.argv[0])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    with server.makefile("rw", encoding="utf-8") as stream:
        print(json.dumps([name, *sys.argv[1:]]), file=stream, flush=True)
        answer = json.loads(stream.readline())
if isinstance(answer, list):
    os.execv({real!r}, [{real!r}, "-m", *answer])
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
    programs = top / "kit" / ".venv" / "bin"
    programs.mkdir(parents=True)
    system_python = Path(sys.executable).resolve()  # without an environment it starts at once
    for name in ("python", *SCRIPTS):
        client = CLIENT.format(python=system_python, address=server.getsockname(), real=sys.executable)
        (programs / name).write_text(client)
        (programs / name).chmod(0o755)
    (top / "kit" / ".venv" / ".core").touch()
    data = make_brief_soundscapes(top / "kit" / "data" / "soundscapes", **TINY)
    make_questions(top / "kit" / "data" / "questions", sets={"evaluation": 1}, workers=1, progress=False)
    make_recordings(top / "kit" / "data" / "recordings", recordings={"evaluation": 1}, workers=1, progress=False)
    references = read_dataset(data, "evaluation", sound=False)["evaluation"].all_captions
    cache = cache_folder()
    make_small_table(ptb_tokenizer.ptb_tokenize(references, java.find_java(), cache, keep=True), cache)
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
        module = as_module(words)
        if module:
            return self.run_module(module)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(command, shell=True, stdout=out, stderr=err)
            while process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    self.answer(self.server.accept()[0], fresh)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())

    def answer(self, connection, fresh):
        """Run the command of a client, and send what it printed, or the module and arguments for a new process."""
        connection.setblocking(True)
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            words = as_module(json.loads(stream.readline()))
            assert words
            answer = words
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
    # Last, as the installed commands do, so that a run names modules of the kit and not their copies in the checkout.
    monkeypatch.setattr(sys, "path", [*sys.path, str(checkout)])
    for name in ("EPOCHS", "CAPTIONER_EPOCHS", "MAKEFLAGS", "MAKELEVEL"):  # of the user, and of `make test`
        monkeypatch.delenv(name, raising=False)
    return Shell(server, monkeypatch, capfd)


def test_the_readme_begins_with_make_baseline():
    assert commands(GUIDES[0]) == ["make baseline"]
    assert len(GUIDES[0].read_text(encoding="utf-8").splitlines()) <= 150


def test_the_baselines_guide_lists_what_make_baseline_runs(run):
    dry = run("make --dry-run baseline").stdout.replace("\\\n", " ")
    made = [shlex.split(line.removeprefix(BIN)) for line in dry.splitlines() if line.startswith(BIN)]
    assert [shlex.split(command) for command in commands(BASELINE_GUIDE)] == made


@pytest.mark.slow
def test_every_command_of_the_guides_works(checkout, run, monkeypatch):
    monkeypatch.setenv("EPOCHS", "1")
    monkeypatch.setenv("CAPTIONER_EPOCHS", "1")
    (first,) = commands(GUIDES[0])
    assert_works(first, run(first, fresh="systems train baseline.retriever"))
    known = commands(BASELINE_GUIDE)  # `make baseline` has run them, with fewer epochs
    for guide in GUIDES[1:]:
        for command in commands(guide):
            if command not in known:
                assert_works(command, run(command))
        names: dict[str, object] = {}  # a block may use the names of the blocks before it
        for block in blocks(guide, "python"):
            exec(compile(block, str(guide), "exec"), names)  # noqa: S102, the guide's own code
        known += commands(guide)
    assert (checkout / "runs" / "soundscapes" / "scores" / "evaluation.json").is_file()


def assert_works(command, done):
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for beginning, parts in EXPECTED.items():
        if command.removeprefix("dcase-").startswith(beginning):
            for part in parts:
                assert part in done.stdout, f"{command}: no {part!r} in\n{done.stdout}"


def test_another_data_folder_has_a_run_of_its_own(run):
    done = run("make --dry-run baseline DATA='../my data'")
    assert done.returncode == 0
    assert 'dcase-systems train baseline.retriever --config baseline/retriever.yaml --data "../my data"' in done.stdout
    assert "data make" not in done.stdout


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"(?:\]\(|src=\")([^)\s\":]+)[)\"]", text)
    wrong = []
    for link in links:
        file, _, heading = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (heading and heading not in headings(target)):
            wrong.append(link)
    assert not wrong


def headings(path: Path) -> list[str]:
    """The headings of a page, as links name them."""
    names = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names]
