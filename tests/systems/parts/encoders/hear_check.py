"""Runs the public HEAR validator on every audio encoder: `python -m tests.systems.parts.encoders.hear_check`.

Weights are random where the published ones are not on this machine; it is shapes, times and types that are checked.
"""

import contextlib
import importlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

from evaluation.findings import BadRequest
from systems.parts import encoders
from systems.parts.encoders import weights
from tests.systems.parts.encoders import published

SHARED = Path(__file__).parents[5] / "shared" / "data" / "yamnet"


def checked(name: str, folder: Path) -> bool:
    """Print one line, and the validator's message if it refuses the encoder."""
    from hearvalidator.validate import ModelError, ValidateModel  # not at the top: the tests run without TensorFlow

    module = f"{encoders.__name__}.{name}"
    part = importlib.import_module(module).ASSET
    try:
        path, what = weights.find(part, SHARED if name == "yamnet" and SHARED.is_dir() else ""), "published weights"
    except BadRequest as absent:
        if name == "yamnet":
            print(f"{name}: left out: {absent}")
            return True
        path = published.write(name, folder, published.tensors(published.FILES[name][1]))
        what = "random weights of the published shapes"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it suggests a timestamp every 50 ms, which music transcription needs
            ValidateModel(module, str(path), "cpu")()
    except ModelError as refusal:
        print(f"{name}: refused: {refusal}\n{said.getvalue()}")
        return False
    print(f"{name}: looks good ({what})")
    return True


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        passed = [checked(name, Path(place)) for name in encoders.NAMES]
    sys.exit(0 if all(passed) else 1)
