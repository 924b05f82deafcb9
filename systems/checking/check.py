"""The steps of `systems check`: import a system, check its config, train it, and probe the model that it loads.

The system is trained twice for an epoch on a small data folder with awkward names, captions and lengths. Its model then
gets sounds and texts one at a time, in batches, and with zeros behind their ends. For a trained run, training is
skipped and the run's checkpoint is used.
"""

import contextlib
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType

from evaluation.findings import BadRequest, Finding, say
from systems import contract, source
from systems.checking.loading import check_models
from systems.checking.report import Report
from systems.checking.training import check_config, check_training
from systems.modules import trusting

FUNCTIONS = {"train": "train(config, dataset, run)", "load_model": "load_model(checkpoint)"}


def check_system(
    name: str,
    run_folder: Path | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    trusted: Collection[str] = (),
) -> tuple[str, list[Finding]]:
    """Check a system against the contract.

    Args:
        name: Import name of its module.
        run_folder: A trained run, whose best epoch is checked (default: the system is trained).
        file: YAML file of the config to train with (default: the system's defaults).
        settings: `key=value` settings of the config, which win.
        trusted: Import names of modules that the user allows the run to name, in addition to the kit's and installed
            ones.

    Returns:
        What the system is, in words, and a finding for each rule that it breaks, with what must hold, what was found
        and what to do.

    Raises:
        BadRequest: There is no such module; the folder is no run of it, or names a module that it must not; or a config
            is given together with a run, which has its own.
        Faulty: The config file or the settings are not valid; with every finding.
    """
    if run_folder and (file or settings):
        raise BadRequest("--run checks a trained run, which has its config; leave --config and --set out, or --run")
    checkpoint = None
    if run_folder:
        checkpoint = _trained_checkpoint(run_folder, name)
    report = Report(name)
    module = _import_module(name, report)
    if module is None:
        return "", report.findings
    config = check_config(module, file, settings, report)
    for function, form in FUNCTIONS.items():
        attribute = getattr(module, function, None)
        if not callable(attribute):
            report.add(function, f"be a function, {form}", repr(attribute), "write it")
    if run_folder:
        say(source.source_changes(run_folder, name))
    allowed = [*trusted]
    if config and not run_folder:
        allowed += contract.text_values(config)
    description = ""
    with (
        tempfile.TemporaryDirectory(prefix="check-") as temporary,
        contextlib.redirect_stdout(sys.stderr),
        trusting(allowed),
    ):
        checkpoints = []
        if checkpoint:
            checkpoints = [checkpoint]
        elif config and callable(getattr(module, "train", None)):
            checkpoints = check_training(module, config, Path(temporary), report)
        if checkpoints and callable(getattr(module, "load_model", None)):
            description = check_models(name, checkpoints, report)
    return description, report.findings


def _trained_checkpoint(run_folder: Path, name: str) -> Path:
    """Return the best checkpoint of a run of a system."""
    checkpoint = run_folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; give the folder of a trained run, or leave --run out")
    trained = contract.read_run(run_folder).system
    if trained != name:
        raise BadRequest(f"{run_folder}: is a run of {trained}; check that, or give a run of {name}")
    return checkpoint


def _import_module(name: str, report: Report) -> ModuleType | None:
    """Import a system's module; None, with a finding, if its code cannot be imported."""
    module = refusal = None
    with report.catching("import", "be importable"):
        try:
            module = contract.import_system_module(name)
        except BadRequest as error:  # there is no such module, which is no fault of its code
            refusal = error
    if refusal:
        raise refusal
    return module
