"""The loggers of Lightning that `dcase-systems train --logger` offers.

A logger records the loss of every tenth training step, the validation values of each epoch, and the run's config. With
each logger, the run folder also contains metrics.csv.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.findings import BadRequest

# Lightning is imported in the function that needs it, so that errors in a command are reported within a second.
if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

TENSORBOARD = "tensorboard"
# A dict from the name of each logger to the package that it needs in addition to the kit's extra `train`, or None.
PACKAGES = {TENSORBOARD: None, "csv": None, "wandb": "wandb", "mlflow": "mlflow"}
FOLDERS = (TENSORBOARD, "csv", "wandb", "mlruns")  # the folders that loggers write in a run folder


def check_logger(name: str) -> None:
    """Make sure that the package of a logger is installed.

    Args:
        name: A key of `PACKAGES`.

    Raises:
        BadRequest: The package is not installed.
    """
    package = PACKAGES[name]
    if package and find_spec(package) is None:
        raise BadRequest(f"--logger {name} needs the package {package}; install it with: pip install {package}")


def make_logger(name: str, folder: Path, system: str) -> "Logger":
    """Return a logger of Lightning. It writes into the run folder, unless environment variables name another place.

    Args:
        name: A key of `PACKAGES`.
        folder: The run folder.
        system: Import name of the system.
    """
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    if name == "csv":
        return CSVLogger(folder, name="csv")
    if name == "wandb":
        return WandbLogger(name=folder.name, save_dir=folder)
    if name == "mlflow":
        return MLFlowLogger(experiment_name=system, run_name=folder.name, save_dir=str(folder / "mlruns"))
    return TensorBoardLogger(folder, name="", version=TENSORBOARD)
