"""The steps of `dcase-systems check`.

1. Import the system and check its config.
2. Train the system twice, for one epoch unless a setting gives another number, on a small data folder with awkward
   names, captions and lengths. To check a trained run, this step is skipped, and the checkpoint of the run is used.
3. Load the model and compare its outputs for the same clips and texts: alone, in batches, and for clips also with zeros
   added at the end.
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
    """Check that a system keeps the rules of `systems.contract`.

    Args:
        name: The system's import name.
        run_folder: The folder of a trained run, whose best.ckpt is checked (default: train the system).
        file: YAML file of the config to train with (default: the system's defaults).
        settings: `key=value` settings, which override the config file.
        trusted: Import names of further modules that the user allows the run to name. Modules of the kit and installed
            modules are always allowed.

    Returns:
        A description of the model in words, which is empty if no model could be probed; and a finding for each rule
        that the system breaks.

    Raises:
        BadRequest: There is no such module; the folder is not a run of this system, or the run names a module that is
            not allowed; or a config is given together with a run, although the run includes a config.
        Faulty: The config file or the settings are not valid, or the run's config.yaml is damaged. The exception lists
            all findings.
    """
    if run_folder and (file or settings):
        message = "--run cannot be combined with --config or --set, because a trained run includes its config"
        raise BadRequest(f"{message}; leave out --run, or --config and --set")
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
        say(source.source_changes(run_folder))
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
    """Return the path of best.ckpt in the folder of a run of the system.

    Raises:
        BadRequest: The folder contains no best.ckpt, or a run of another system.
        Faulty: The run's config.yaml is damaged.
    """
    checkpoint = run_folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(f"{checkpoint}: no such file; give the folder of a trained run, or leave --run out")
    trained = contract.read_run(run_folder).system
    if trained != name:
        raise BadRequest(
            f"{run_folder}: must be a run of {name}; found a run of {trained}: check {trained}, or give a run of {name}"
        )
    return checkpoint


def _import_module(name: str, report: Report) -> ModuleType | None:
    """Import a system's module. If its code cannot be imported, add a finding to the report and return None.

    Raises:
        BadRequest: There is no such module.
    """
    module = refusal = None
    with report.catching("import", "be importable"):
        try:
            module = contract.import_system_module(name)
        except BadRequest as error:  # the module does not exist, so this is not a finding about its code
            refusal = error
    if refusal:
        raise refusal
    return module
