"""The loggers of Lightning that `dcase-systems train --logger` offers."""

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from evaluation.findings import BadRequest
from systems import loggers


@pytest.mark.parametrize(("name", "kind"), [("tensorboard", TensorBoardLogger), ("csv", CSVLogger)])
def test_a_logger_writes_into_the_run_folder(tmp_path, name, kind):
    loggers.check_logger(name)
    logger = loggers.make_logger(name, tmp_path, "mine")
    assert isinstance(logger, kind)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.save()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert name in loggers.FOLDERS


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named(monkeypatch, name):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    expected = f"--logger {name} needs the package {name}; install it with: pip install {name}"
    with pytest.raises(BadRequest, match=expected):
        loggers.check_logger(name)
