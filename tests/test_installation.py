"""The package `dcase-kit`: its core, its extras, its files and its commands."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from evaluation.extras import EXTRAS, absent
from systems.listing import kit_file

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = PROJECT["project"]["dependencies"]
OPTIONAL = PROJECT["project"]["optional-dependencies"]
PACKAGES = ("evaluation", "submission", "systems", "baseline")


def names(requirements):
    """Return the names of the packages that requirements ask for."""
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def pins():
    """Return a dict from each package in constraints.txt to the versions that the file allows on some platform."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)
        (version,) = [specifier.version for specifier in requirement.specifier]
        pinned.setdefault(canonicalize_name(requirement.name), []).append(version)
    return pinned


def test_constraints_pin_every_package_of_the_project():
    pinned = pins()
    for requirements in (CORE, *OPTIONAL.values()):
        for line in requirements:
            requirement = Requirement(line)
            versions = pinned.get(canonicalize_name(requirement.name), [])
            assert versions, f"constraints.txt lacks {requirement.name}"
            assert all(requirement.specifier.contains(version) for version in versions), line


def imported(package):
    """Return the top-level modules that a package of the kit imports, also inside functions."""
    modules = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - set(PACKAGES)


def test_every_imported_package_is_a_dependency():
    distributions = packages_distributions()
    declared = names(CORE) | names(OPTIONAL["train"]) | names(OPTIONAL["metrics"]) | names(OPTIONAL["reports"])
    declared |= names(OPTIONAL["cluster"]) | names(OPTIONAL["demo"])
    # pydantic, jinja2, transformers and gradio require them
    declared |= {"pydantic-core", "markupsafe", "tokenizers", "starlette"}
    declared |= {"faiss-cpu"}  # optional: without it, the search for similar captions is slower
    for package in PACKAGES:
        for module in imported(package):
            owners = {canonicalize_name(name) for name in distributions.get(module, [module])}
            assert owners & declared, f"{package} imports {module}, which no extra for users installs"


def test_each_extra_of_a_message_installs_its_package():
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for module, extra in EXTRAS.items():
        assert canonicalize_name(distributions.get(module, module)) in names(OPTIONAL[extra]), module
        assert canonicalize_name(distributions.get(module, module)) not in names(CORE), module


def test_all_files_of_the_packages_are_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            name = path.relative_to(ROOT).as_posix()
            assert any(fnmatch(name, f"*{pattern.removeprefix('**/')}") for pattern in patterns), name


@pytest.mark.parametrize("package", ["evaluation", "submission", "systems"])
def test_each_command_is_a_function_and_has_its_own_name(package):
    module, _, function = PROJECT["project"]["scripts"][f"dcase-{package}"].partition(":")
    assert (module, function) == (f"{package}.__main__", "main")
    program = f"import sys; from {module} import main; sys.argv = ['any', '--help']; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: dcase-{package} [-h] COMMAND ...")
    source = (ROOT / package / "__main__.py").read_text(encoding="utf-8")
    assert source.startswith("# PYTHON_ARGCOMPLETE_OK\n")  # the global completion of argcomplete looks for this line


# The core, without the packages of extras ----------------------------------------------------------------------------

# Runs a command in a process that cannot import the packages of extras.
WITHOUT_EXTRAS = """
import importlib, json, sys
packages, package, *arguments = json.loads(sys.argv[1])

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from importlib import util
whole = util.find_spec
util.find_spec = lambda name, *rest: None if name in packages else whole(name, *rest)
sys.argv = [package, *arguments]
sys.exit(importlib.import_module(f"{package}.__main__").main())
"""


def run_core(folder, package, *arguments):
    request = json.dumps([list(EXTRAS), package, *map(str, arguments)])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_EXTRAS, request]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_the_core_scores_captions_and_retrieval(clotho_like, tmp_path):
    data = clotho_like({"evaluation": 3})
    lines = (data / "captions_evaluation.csv").read_text(encoding="utf-8").splitlines()
    captions = ["file_name,caption_predicted"]
    for line in lines[1:]:
        name, caption = re.match(r'(".*?"|[^,]*),("(?:.*?)"|[^,]*)', line).groups()
        captions.append(f"{name},{caption}")
    (tmp_path / "captions.csv").write_text("\n".join(captions), encoding="utf-8")
    done = run_core(tmp_path, "evaluation", "data", "check", data)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    arguments = ["--truth", data, "--prediction", "captions.csv", "--metrics", "bleu_1", "rouge_l", "cider_d", "fense"]
    done = run_core(tmp_path, "evaluation", "score", "captions", *arguments)
    assert re.search("bleu_1 +1.000", done.stdout), done.stdout + done.stderr
    assert "error: fense is not available" in done.stderr
    assert "install dcase-kit[metrics]" in done.stdout + done.stderr
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        (
            ("systems", "train", "baseline.retriever", "--data", "data", "--run", "run"),
            "must be installed; install dcase-kit[train]",
        ),
        (("systems", "check", "baseline.retriever"), "must be installed; install dcase-kit[train]"),
        (("systems", "demo", "run"), "gradio must be installed; install dcase-kit[demo]"),
        (("submission", "leaderboard", ".", "--task", "dcase2023-6a", "--truth", "no"), "install dcase-kit[reports]"),
        (("evaluation", "download", "fense"), "needs the package huggingface_hub; install dcase-kit[metrics]"),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line(arguments, lacking, clotho_like, tmp_path):
    clotho_like({"development": 2, "validation": 2, "evaluation": 2})
    done = run_core(tmp_path, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert lacking in line


def test_packages_that_are_installed_are_not_absent():
    assert absent(["numpy", "json"]) is None
    assert absent(["numpy", "no_such_one", "no_such_two"]) == "no_such_one"


# Commands in any folder ----------------------------------------------------------------------------------------------


def test_a_system_in_the_current_folder_is_found(tmp_path):
    (tmp_path / "my_system.py").write_text("")
    program = "import sys; sys.path.remove(''); from systems.__main__ import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    reasons = []
    for system in ("my_system", "your_system"):
        request = ["train", system, "--data", "nowhere", "--run", "run"]
        command = [sys.executable, "-c", program, *request]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        reasons.append(done.stderr)
    assert reasons[0].startswith("error: nowhere: no such folder")
    assert reasons[1].startswith("error: no module 'your_system'")


def test_the_kit_s_configs_are_found_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("baseline/retriever.yaml", "systems/atae/atae.yaml"):
        assert kit_file(name) == ROOT / name
    for name in ("retriever.yaml", "baseline/none.yaml", "systems/../pyproject.toml", "pyproject.toml"):
        assert kit_file(name) == Path(name)
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "retriever.yaml").touch()
    assert kit_file("baseline/retriever.yaml") == Path("baseline/retriever.yaml")


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("dcase-evaluation sc", ["score "]),
        ("dcase-evaluation score captions --idf ", ["fixed", "exact"]),
        ("dcase-submission val", ["validate "]),
        ("dcase-submission validate --task dcase2022", ["dcase2022-6a", "dcase2022-6b"]),
        ("dcase-systems train baseline.ca", ["baseline.captioner "]),
    ],
)
def test_tab_completes_commands_options_and_names(line, completions, tmp_path):
    pytest.importorskip("argcomplete")
    package = line.split()[0].removeprefix("dcase-")
    completing = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash"}
    completing |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "o")}
    command = [sys.executable, "-c", f"from {package}.__main__ import main; main()"]
    subprocess.run(command, cwd=ROOT, env=os.environ | completing, check=True)
    assert (tmp_path / "o").read_text().split("\n") == completions
