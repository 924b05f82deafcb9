"""The check of a system's config and training."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from evaluation import yamlfiles
from evaluation.data.dataset import read_dataset
from systems import contract
from systems.checking.material import make_data
from systems.checking.report import Report
from systems.training import Run

FORBID = 'write `class Config(pydantic.BaseModel, extra="forbid")`'


def check_config(module: ModuleType, file: Path | None, settings: Sequence[str], report: Report) -> BaseModel | None:
    """Check a system's `Config`, and build the config for the training of the check.

    Args:
        module: The system's module.
        file: YAML file of the config (default: the system's defaults).
        settings: `key=value` settings of the config, which win.
        report: Gets what is wrong.

    Returns:
        The config, of one epoch unless a setting says otherwise; None if it cannot be built.

    Raises:
        BadRequest: There is no such file, or a setting is not of the form `key=value`.
        Faulty: The file or the settings are not valid; with every finding.
    """
    model = getattr(module, "Config", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        report.add("Config", "be a pydantic model", repr(model), FORBID)
        return None
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    for name in required:
        report.add("Config", "have a default for every field", "none", "write the value that you would use", name)
    if not _refuses_unknown_keys(model):
        found = "that it accepts no_such_key, so it would accept a misspelt key too"
        report.add("Config", "refuse unknown keys", found, FORBID)
    short = []
    if "epochs" in model.model_fields:
        short = ["epochs=1"]
    given = {setting.partition("=")[0] for setting in settings}
    if file:
        given |= yamlfiles.read_yaml(file).keys()
    if not given.issuperset(required):
        return None
    if file or settings:  # if they are not valid, the request is wrong, not the system
        return contract.configure(model, file, [*short, *settings])
    with report.catching("Config", "be valid with its defaults"):
        return contract.configure(model, None, short)
    return None


def _refuses_unknown_keys(model: type[BaseModel]) -> bool:
    """Return whether a config refuses a key that it does not have."""
    try:
        model.model_validate({"no_such_key": 0})
    except ValidationError as error:
        return any(detail["type"] == "extra_forbidden" for detail in error.errors())
    return False


def check_training(module: ModuleType, config: BaseModel, folder: Path, report: Report) -> list[Path]:
    """Train a system twice with the same seed on awkward data, and check what it writes.

    Args:
        module: The system's module.
        config: Its config.
        folder: A free folder for the data, the runs and the cache.
        report: Gets what is wrong.

    Returns:
        The checkpoint of each training that wrote one.
    """
    make_data(folder / "data")
    dataset = read_dataset(folder / "data")
    digests = {name: split.digest for name, split in dataset.splits.items()}
    checkpoints = []
    for number, name in enumerate(("first", "second")):
        # The generators begin in different states, as they may in different processes.
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)
        flags = {"accelerator": "auto", "devices": 1}
        run = Run(folder / name, module.__name__, config, digests, 1, folder / "cache", flags)
        rules_before = len(report.rules)
        with report.catching("train", "train on sounds, names and captions as awkward as real ones"):
            contract.train(module, config, dataset, run)
        if len(report.rules) > rules_before:
            _check_started(run, report)
            break
        _check_folder(run, report)
        if not run.best.is_file():
            break
        checkpoints.append(run.best)
    return checkpoints


def _check_started(run: Run, report: Report) -> None:
    if not (run.folder / "config.yaml").is_file():
        advice = "call run.start() before anything else is written: it makes the folder"
        report.add("train", "write config.yaml into the run folder", "no such file", advice)


def _check_folder(run: Run, report: Report) -> None:
    _check_started(run, report)
    files = {
        run.best: "save there what load_model needs, or let run.fit do it",
        run.folder / "system.yaml": "end with run.describe(model, {…}), or write what a submission's metadata asks for",
    }
    for path, advice in files.items():
        if not path.is_file():
            name = path.relative_to(run.folder)
            report.add("train", f"write {name} into the run folder", "no such file", advice)
