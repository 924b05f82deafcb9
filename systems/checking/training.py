"""The check of a system's config and training."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from evaluation import yamlfiles
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION
from systems import contract
from systems.asked import CLIPS, read_data
from systems.checking.asked import make_asked_data
from systems.checking.material import make_data
from systems.checking.report import Report
from systems.training import Run

FORBID = 'write `class Config(pydantic.BaseModel, extra="forbid")`'


def check_config(module: ModuleType, file: Path | None, settings: Sequence[str], report: Report) -> BaseModel | None:
    """Check a system's `Config`, and build the config that the check trains with.

    Args:
        module: The system's module.
        file: YAML file of the config (default: the system's defaults).
        settings: `key=value` settings, which override the config file.
        report: The report to which broken rules are added.

    Returns:
        The config; None if it cannot be built. If it has a key `epochs`, its value is 1 unless `settings` change it.

    Raises:
        BadRequest: There is no such file, or a setting does not have the form `key=value` with a YAML value.
        Faulty: The file or the settings are not valid. The exception lists all findings.
    """
    model = getattr(module, "Config", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        report.add("Config", "be a pydantic model", repr(model), FORBID)
        return None
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    for name in required:
        report.add("Config", "have a default for every field", "none", "write the value that you would use", name)
    if not _refuses_unknown_keys(model):
        found = "that the unknown key no_such_key is accepted, so misspelt keys would be accepted too"
        report.add("Config", "refuse unknown keys", found, FORBID)
    short = []
    if "epochs" in model.model_fields:
        short = ["epochs=1"]
    given = {setting.partition("=")[0] for setting in settings}
    if file:
        given |= yamlfiles.read_yaml(file).keys()
    if not given.issuperset(required):
        return None
    if file or settings:  # if these are not valid, the user's request is wrong, not the system
        return contract.configure(model, file, [*short, *settings])
    with report.catching("Config", "be valid with its defaults"):
        return contract.configure(model, None, short)
    return None


def _refuses_unknown_keys(model: type[BaseModel]) -> bool:
    """Return whether a config model refuses a key that is not one of its fields."""
    try:
        model.model_validate({"no_such_key": 0})
    except ValidationError as error:
        return any(detail["type"] == "extra_forbidden" for detail in error.errors())
    return False


def check_training(module: ModuleType, config: BaseModel, folder: Path, report: Report) -> list[Path]:
    """Train a system twice with the same seed on awkward data, and check which files it writes.

    The second training is left out if the first one raises an exception or writes no checkpoint.

    Args:
        module: The system's module.
        config: The config to train with.
        folder: An empty folder for the data, the runs and the cache.
        report: The report to which broken rules are added.

    Returns:
        The checkpoints of the trainings that raised no exception and wrote a checkpoint.
    """
    kind = getattr(module, "DATA", CLIPS)
    if kind == CLIPS:
        make_data(folder / "data")
    else:
        make_asked_data(folder / "data", kind)
    dataset = read_data(folder / "data", DEVELOPMENT, VALIDATION, EVALUATION)
    digests = {name: split.digest for name, split in dataset.splits.items()}
    checkpoints = []
    for number, name in enumerate(("first", "second")):
        # At the start, the random generators are in different states, as can happen in different processes.
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)
        flags = {"accelerator": "auto", "devices": 1}
        run = Run(folder / name, module.__name__, config, digests, 1, folder / "cache", flags)
        rules_before = len(report.rules)
        with report.catching("train", "train on clips, names and captions as awkward as real ones"):
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
        advice = "call run.start(), which creates the folder, before anything else is written"
        report.add("train", "write config.yaml into the run folder", "no such file", advice)


def _check_folder(run: Run, report: Report) -> None:
    _check_started(run, report)
    files = {
        run.best: "save there what load_model needs, or let run.fit do it",
        run.folder / "system.yaml": "end with run.describe(model, {…}), or write entries of a submission's metadata",
    }
    for path, advice in files.items():
        if not path.is_file():
            name = path.relative_to(run.folder)
            report.add("train", f"write {name} into the run folder", "no such file", advice)
