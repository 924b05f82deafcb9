"""The check of the models that a system loads.

The model from the first checkpoint is probed. Then the checkpoint is loaded again, and the checkpoint of the second
training is loaded. The models must give the same outputs.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from evaluation.findings import BadRequest
from systems.checking.asked import MODEL_NOUNS, AskedProbe
from systems.checking.material import TEXTS
from systems.checking.probes import CAPTIONER, RETRIEVER, ModelProbe
from systems.checking.report import Report
from systems.parts.devices import default_device


def check_models(name: str, checkpoints: Sequence[Path], report: Report) -> str:
    """Probe the model of the first checkpoint, and compare it with models that must be the same.

    These models come from loading the first checkpoint again, and from the second checkpoint, if there is one.

    Args:
        name: The system's import name.
        checkpoints: The checkpoint of each training. All trainings used the same seed.
        report: The report to which broken rules are added.

    Returns:
        A description of the model in words; empty if the model cannot be probed.
    """
    device = default_device()
    with _fresh_import(name, report) as module:
        if module is None:
            return ""
        model = load_model(module, checkpoints[0], device, report)
        if model is None:
            return ""
        probe = _make_probe(model, device, report)
        if not probe.kind:
            return ""
        probe.check()
        retrieves_too = probe.kind == CAPTIONER and _can_retrieve(model)
        if retrieves_too:
            ModelProbe(model, device, report, RETRIEVER).check()
        if not probe.answers:
            return ""
        _check_again(module, checkpoints, probe, report)
    kind = f"{probe.kind} and {RETRIEVER}" if retrieves_too else probe.kind
    article = "an" if kind.startswith("a") else "a"
    description = f"{article} {kind} for audio at {model.sample_rate} Hz"
    if len(probe.captions) == 1:
        description += ", which gave all clips the same caption, so a dependence on the batch could not be seen"
    return description


@contextlib.contextmanager
def _fresh_import(name: str, report: Report) -> Iterator[ModuleType | None]:
    """Within the block, use a newly imported copy of a module, which contains nothing that training stored in it.

    Args:
        name: The module's import name.
        report: The report to which an exception of the import is added.

    Yields:
        The module; None if it cannot be imported.
    """
    before = {key: sys.modules.pop(key) for key in list(sys.modules) if _is_within(key, name)}
    parent, _, last = name.rpartition(".")
    module = None
    try:
        with report.catching("import", "be importable again"):
            module = importlib.import_module(name)
        yield module
    finally:
        for key in [key for key in sys.modules if _is_within(key, name)]:
            del sys.modules[key]
        sys.modules.update(before)
        if parent:
            setattr(sys.modules[parent], last, before[name])


def _is_within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def load_model(module: ModuleType, checkpoint: Path, device: torch.device, report: Report) -> Any | None:
    """Load a model and move it to a device, as `dcase-systems predict` does.

    If the model is in training mode, that is reported, and the model is put in evaluation mode.

    Args:
        module: The system's module.
        checkpoint: The checkpoint.
        device: The device.
        report: The report to which broken rules are added.

    Returns:
        The model; None if it cannot be loaded.
    """
    model = None
    with report.catching("load_model", "load the checkpoint from nothing but the files in its run folder"):
        model = module.load_model(checkpoint)
    if model is None:
        if not any(part == "load_model" for part, _ in report.rules):
            report.add("load_model", "return a model", "None", "return it")
        return None
    moved = None
    found = "no method to"
    with report.catching("load_model", "return a model that can be moved to a device"):
        if hasattr(model, "to"):
            found = "None"
            moved = model.to(device)
        if moved is None:
            advice = "make it a torch.nn.Module, or write `def to(self, device): return self`"
            report.add("load_model", "return a model whose to(device) returns the model on that device", found, advice)
    if moved is not None:
        model = moved
    _check_mode(model, report)
    return model


def _check_mode(model: object, report: Report) -> None:
    """Report a model in training mode, and put it in evaluation mode so that other checks do not report it again."""
    parts = [model, *getattr(model, "__dict__", {}).values()]
    for part in parts:
        if isinstance(part, torch.nn.Module) and any(module.training for module in part.modules()):
            advice = "end with `return model.eval()`"
            report.add("load_model", "return a model that is ready to use", "one in training mode", advice)
            part.eval()


def _make_probe(model: Any, device: torch.device, report: Report) -> ModelProbe | AskedProbe:
    """Return the probe of a model; its answers or windows are probed only if it neither captions nor embeds."""
    if not any(hasattr(model, method) for method in ("embed_audio", "embed_text", "caption")):
        for method in MODEL_NOUNS:
            if hasattr(model, method):
                return AskedProbe(model, device, report, method)
    return ModelProbe(model, device, report)


def _can_retrieve(captioner: Any) -> bool:
    """Return whether a captioner can also embed texts and clips. It may refuse to do so with some configs."""
    if not all(callable(getattr(captioner, name, None)) for name in ("embed_audio", "embed_text")):
        return False
    try:
        with torch.inference_mode():
            captioner.embed_text(TEXTS[:1])
    except BadRequest:
        return False
    except Exception:
        return True  # the probe then meets the same error and reports it
    return True


def _check_again(
    module: ModuleType, checkpoints: Sequence[Path], probe: ModelProbe | AskedProbe, report: Report
) -> None:
    """Check that models that must be the same as the probed model give the same outputs."""
    rules_before = len(report.rules)
    again = load_model(module, checkpoints[0], probe.device, report)
    if again is not None and not probe.agrees(again):
        advice = "save and load all weights and settings; do not draw any of them at random again"
        must = "return a model that gives the same outputs every time the checkpoint is loaded"
        report.add("load_model", must, "different outputs", advice)
    if len(checkpoints) > 1 and len(report.rules) == rules_before:
        other = load_model(module, checkpoints[1], probe.device, report)
        if other is not None and not probe.agrees(other):
            advice = "seed every random generator with run.seed before the weights and the batches are drawn"
            report.add("train", "give the same model for the same seed", "a different model the second time", advice)
