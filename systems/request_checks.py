"""Quick checks of a user's request, made before torch and Lightning are imported.

The import takes many seconds, so users should learn of their mistakes earlier. These checks look at names of modules,
keys of configs, Lightning's flags and sweep files. They usually do not run a system's code, and they do not find all
mistakes. The code that carries out the request checks it again, and completely.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.extras import EXTRAS, absent
from evaluation.findings import BadRequest, Faulty, Finding, raise_errors
from evaluation.text import quoted, unknown_key
from systems import contract, modules
from systems.config_source import Unreadable, read_config

MOST_RUNS = 2  # maximum number of runs in a demo
LAST_PORT = 65535
LAST_SEED = 2**32 - 1
ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
PRECISIONS = (
    *("transformer-engine", "transformer-engine-float16"),
    *("16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true"),
    *("16", "bf16", "32", "64"),  # these mean 16-mixed, bf16-mixed, 32-true and 64-true
)
FIGURES = (".svg", ".png", ".pdf")


def check_module(name: str) -> None:
    """Check that the module of a system exists.

    Raises:
        BadRequest: There is no module with this name.
    """
    if modules.source(name) is None:
        contract.import_system_module(name)  # a module without a source file can exist too


def check_config(name: str, file: Path | None, settings: Sequence[str]) -> None:
    """Check the keys and values that the user gives for a system's `Config`, as far as its source tells them.

    Args:
        name: The system's import name.
        file: The config file, if any.
        settings: `key=value` settings.

    Raises:
        BadRequest: The file does not exist, or a setting does not have the form `key=value` with a YAML value.
        Faulty: The file is not a YAML mapping, or keys or values are not valid. The exception lists all findings.
    """
    values, where = contract.read_settings(file, settings)
    with contextlib.suppress(Unreadable):
        contract.validate(read_config(name), values, where)


def check_seed(seed: int) -> None:
    """Check the seed of a training.

    Raises:
        BadRequest: NumPy cannot use the seed.
    """
    if not 0 <= seed <= LAST_SEED:
        raise BadRequest(f"the seed must be from 0 to {LAST_SEED}; found {seed}: give another seed")


def check_run_folder(folder: Path) -> None:
    """Check that a folder contains a run, is empty or does not exist.

    Raises:
        Faulty: The folder contains other files and no config.yaml, or config.yaml is damaged. The exception lists all
            findings.
    """
    if (folder / "config.yaml").is_file():
        contract.read_run(folder)
    else:
        raise_errors(contract.foreign_files(folder))


def check_rerank(retriever: Path | None, data: Path | None, weight: str) -> None:
    """Check how a user re-ranks candidates.

    Args:
        retriever: The retriever's run folder, if any.
        data: The data folder, if any.
        weight: The weight of the retriever, or `search`.

    Raises:
        BadRequest: A retriever is given without the data folder, or the weight is not a number from 0 to 1.
    """
    if retriever and not data:
        raise BadRequest("--retriever must be given with --data; found no --data: give the data folder")
    if weight == "search":
        return
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise BadRequest(f"--weight must be a number from 0 to 1, or search; found {quoted(weight)}: correct it")
    if not retriever:
        raise BadRequest("--weight must be given with --retriever; found no --retriever: give the run of a retriever")


def check_search(query: str | None, sound: Path | None, number: int) -> None:
    """Check what a user searches for.

    Args:
        query: The text, if any.
        sound: The audio file, if any.
        number: The number of clips to return.

    Raises:
        BadRequest: Both or neither of `query` and `sound` are given, the text is blank, the file does not exist, or the
            number is below 1.
    """
    if (query is None) == (sound is None):
        found = "neither" if query is None else "both"
        raise BadRequest(f"search needs a text or --sound FILE; found {found}: give one of them")
    if query is not None and not query.strip():
        raise BadRequest("the text to search for must not be blank; found only blanks: write what you look for")
    if sound is not None and not sound.is_file():
        raise BadRequest(f"--sound {sound}: no such file; give an audio file")
    if number < 1:
        raise BadRequest(f"-n must be 1 or more; found {number}")


def check_demo(runs: Sequence[Path], space: Path | None, port: int | None) -> None:
    """Check the runs and the port of a demo, and that Gradio is installed.

    Args:
        runs: The runs, as the user gives them.
        space: The folder of the Space to write, if any.
        port: The port of the page, if the user gives one.

    Raises:
        BadRequest: There are more than two runs, Gradio is not installed, the folder of the Space has files, or there
            is no such port.
    """
    if absent(["gradio"]):
        raise BadRequest(f"gradio must be installed; install dcase-kit[{EXTRAS['gradio']}]")
    if len(runs) > MOST_RUNS:
        raise BadRequest(f"demo takes one or {MOST_RUNS} runs; found {len(runs)}: give fewer")
    if space is not None and space.exists() and (not space.is_dir() or any(space.iterdir())):
        raise BadRequest(f"--space {space}: must be a new or empty folder; found files: give another folder")
    if port is not None and not 1 <= port <= LAST_PORT:
        raise BadRequest(f"--port must be from 1 to {LAST_PORT}; found {port}: give another port")


def check_flags(flags: Mapping[str, Any]) -> None:
    """Check the accelerator, the precision and the numbers among Lightning's flags.

    This function does not check whether this machine has the devices.

    Args:
        flags: Arguments for `lightning.Trainer`.

    Raises:
        BadRequest: Lightning has no such accelerator or precision, or a number is below 1.
    """
    for name, choices in (("accelerator", ACCELERATORS), ("precision", PRECISIONS)):
        if flags[name] not in choices:
            message = f"{name} must be one of {', '.join(choices)}; found {flags[name]!r}"
            raise BadRequest(f"lightning's flags: {message}")
    for name in ("num_nodes", "accumulate_grad_batches"):
        if flags[name] < 1:
            raise BadRequest(f"lightning's flags: {name} must be 1 or more; found {flags[name]}")


def check_figure(file: Path) -> None:
    """Check that the suffix of a file names a format of figures.

    Raises:
        BadRequest: It does not.
    """
    if file.suffix.lower() not in FIGURES:
        raise BadRequest(f"{file}: the name of a figure must end with {', '.join(FIGURES)}; give such a name")


def check_sweep(file: Path) -> None:
    """Check a sweep file, the name of the system in it, and the config keys that it sets.

    Args:
        file: The sweep file.

    Raises:
        BadRequest: There is no such file, system or config file.
        Faulty: The file is not valid, or config keys are unknown. The exception lists all findings.
    """
    from systems.sweeps import grid  # imports more than other commands need

    plan = grid.parse(file)
    check_module(plan.system)
    findings = [*grid.check_search(plan, file), *grid.check_metric(plan, file)]
    keys = grid.config_keys(plan, file)
    with contextlib.suppress(Unreadable):
        fields = list(read_config(plan.system).model_fields)
        for key, place in keys.items():
            if isinstance(key, str) and key not in fields:
                findings.append(Finding(str(place), column=key, message=unknown_key(key, fields)))
    if findings:
        raise Faulty(findings, status=2)
    grid.read(file)
