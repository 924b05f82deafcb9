"""The systems' command line: list, check, train, predict and sweep, and published figures beside measured ones."""

import argparse
import contextlib
import gc
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.cli import command
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, read_dataset
from evaluation.findings import BadRequest, say
from systems import contract, listing, modules, request_checks

FLAGS = ("accelerator", "devices", "precision", "strategy", "num_nodes", "accumulate_grad_batches")  # of Lightning
WIDTH = 100  # columns of a list

SWEEP_FILE = """\
the sweep file:
  system: systems.atae                  import name of the system
  config: FILE.yaml                     optional: the config that the keys below change
  set: {epochs: 4}                      optional: config keys that are the same in all runs
  grid:                                 factors; every combination of their levels is run
    audio_adapter: [mlp, mha]           a config key and its values, or names of levels with the keys they change
  seeds: 3                              how many, or which: [0, 1, 2]
  metric: mAP@10                        the metric to compare

to let Optuna choose the settings from the results so far:
  search: optuna
  ranges:                               config keys that get a number from a range; levels of grid are chosen too
    learning_rate: {low: 1e-5, high: 1e-2, log: true}
  samples: 20                           number of settings; each is run with every seed

to stop runs early:
  stop_early: asha                      a run continues after 1, 4, 16, ... epochs if its validation value is among
                                        the best quarter so far; results.csv calls the others stopped"""


def show(options: argparse.Namespace) -> None:
    """List the systems in this checkout."""
    for system in listing.systems():
        print(f"{system.name}: {system.task}")
        lines = {"paper": system.paper, "parameters": system.parameters, "configs": _by_folder(system.configs)}
        for label, text in lines.items():
            indent = f"  {label:12}"
            lines = textwrap.wrap(
                text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
            )
            print(*lines, sep="\n")
        print()
    print("You can use any other module too, by its import name. Check it with: python -m systems check NAME")


def check(options: argparse.Namespace) -> int:
    """Train a system for a moment on awkward data, ask its model awkward things, and say all that is to be mended."""
    if not options.run_folder:
        request_checks.check_system(options.system)
        request_checks.check_keys(options.system, options.config, options.set)
    with _importing():
        from systems.checking.check import check_system

    description, findings = check_system(options.system, options.run_folder, options.config, options.set, options.trust)
    if findings:
        say(findings)
        return 1
    print(f"{options.system}: {description}; nothing to fix")
    return 0


def train(options: argparse.Namespace) -> None:
    """Train a system into a run folder, or go on where it was cut off."""
    flags = {key: getattr(options, key) for key in FLAGS}
    request_checks.check_system(options.system)
    request_checks.check_keys(options.system, options.config, options.set)
    request_checks.check_flags(flags)
    dataset = read_dataset(options.data, DEVELOPMENT, VALIDATION)
    with _importing():
        from systems.training import Run

        system = contract.system(options.system)
    config = contract.configure(system.Config, options.config, options.set)
    digests = {name: split.digest for name, split in dataset.splits.items()}
    run = Run(options.run_folder, options.system, config, digests, options.seed, options.cache, flags)
    contract.train(system, config, dataset, run)


def predict(options: argparse.Namespace) -> None:
    """Score every query of a split against every clip, or caption every clip, with a trained run."""
    contract.read_run(options.run_folder)
    split = read_dataset(options.data, options.split)[options.split]
    with _importing():
        from systems import runs

    print(runs.predict(options.run_folder, split, task=options.task, trusted=options.trust))


def sweep(options: argparse.Namespace) -> int:
    """Train, predict with and score every run of a sweep, on this machine or a cluster.

    The same command skips runs that are done, resumes runs that were interrupted, and tries failed runs again.
    """
    request_checks.check_sweep(options.file)
    read_dataset(options.data, DEVELOPMENT, VALIDATION, options.split, sound=False)
    with _importing():
        from systems.sweeps import sweep

    failed = sweep.sweep(
        options.file,
        options.data,
        options.out,
        split=options.split,
        cache=options.cache,
        address=options.address,
        cpus=options.cpus,
        gpus=options.gpus,
        dry=options.dry_run,
    )
    if failed:
        return 1
    return 0


def published(options: argparse.Namespace) -> None:
    """Show a system's published figures, and beside them those of runs that were scored here."""
    from systems.published import best_runs, side_by_side

    if bool(options.sweep) != bool(options.by):
        raise BadRequest("--sweep and --by belong together; give both, or neither")
    runs = list(options.runs)
    if options.sweep:
        runs += best_runs(options.sweep, options.by)
    if runs and not options.data:
        raise BadRequest("--data must be the folder that the runs were scored on; give it")
    if options.data:
        split = read_dataset(options.data, options.split, sound=False)[options.split]
    else:
        split = None
    print(side_by_side(options.system, runs, options.data and options.data.resolve().name, split))


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Import torch and Lightning in four fifths of the time: without looking for garbage among what is imported."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _by_folder(files: Sequence[Path]) -> str:
    """List files, each folder once.

    >>> _by_folder([Path("a/one.yaml"), Path("a/two.yaml"), Path("b/one.yaml")])
    'a/: one.yaml, two.yaml; b/: one.yaml'
    """
    folders: dict[Path, list[str]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file.name)
    return "; ".join(f"{folder}/: {', '.join(names)}" for folder, names in folders.items())


def _devices(text: str) -> str | int:
    if text.lstrip("-").isdigit():
        return int(text)
    return text


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems", description="Train systems and predict with them.")
    verbs = top.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("list", help="the systems of this checkout", description=show.__doc__)
    verb.set_defaults(run=show)

    verb = verbs.add_parser("check", help="whether a system holds to the contract", description=check.__doc__)
    verb.add_argument("system", help="import name, such as baseline.retriever")
    text = "ask this trained run; without, one is trained"
    verb.add_argument("--run", type=Path, dest="run_folder", metavar="RUN", help=text)
    text = "YAML file of the config to train with, but for its epochs: 1; the system's defaults without"
    verb.add_argument("--config", type=Path, help=text)
    text = "change a key of the config to train with, epochs too"
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=check)

    verb = verbs.add_parser("train", help="train a system, or go on where it was cut off", description=train.__doc__)
    verb.add_argument("system", help="import name, such as baseline.retriever")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    verb.add_argument("--run", type=Path, required=True, dest="run_folder", metavar="RUN", help="run folder to write")
    verb.add_argument("--config", type=Path, help="YAML file of the system's config; its defaults without")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the config (its keys stand in the system's YAML file)",
    )
    verb.add_argument("--seed", type=int, default=0, help="what all randomness follows from (0)")
    verb.add_argument("--cache", type=Path, default=Path(".cache"), help="where features are kept (.cache)")
    lightning = verb.add_argument_group("where to train (lightning's own flags)")
    lightning.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, …")
    lightning.add_argument("--devices", type=_devices, default="auto", help="how many (2), which (0,1), or auto")
    lightning.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, 16-mixed, …")
    lightning.add_argument("--strategy", default="auto", help="auto, ddp, …")
    lightning.add_argument("--num-nodes", type=int, default=1)
    text = "batches whose gradients are added up for a step (1)"
    lightning.add_argument("--accumulate-grad-batches", type=int, default=1, metavar="N", help=text)
    verb.set_defaults(run=train)

    verb = verbs.add_parser(
        "predict", help="answer a split's queries, or caption its clips", description=predict.__doc__
    )
    verb.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    verb.add_argument("--split", default=EVALUATION, help="which split (evaluation)")
    text = "of a system that does both: captioning (without), or retrieval"
    verb.add_argument("--as", dest="task", choices=["captioning", "retrieval"], help=text)
    modules.add_option(verb)
    verb.set_defaults(run=predict)

    verb = verbs.add_parser(
        "sweep",
        help="make many runs of a system",
        description=inspect.cleandoc(sweep.__doc__),
        epilog=SWEEP_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "YAML file of the system, the factors to vary, the seeds and the metric; see below"
    verb.add_argument("file", type=Path, metavar="FILE", help=text)
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    text = "folder to write, or that of an earlier sweep to continue"
    verb.add_argument("--out", type=Path, required=True, metavar="SWEEP", help=text)
    verb.add_argument("--split", default=EVALUATION, help="split to predict and score (default: evaluation)")
    text = "folder where features are kept (default: .cache)"
    verb.add_argument("--cache", type=Path, default=Path(".cache"), help=text)
    verb.add_argument("--dry-run", action="store_true", help="list the runs, time some steps, and estimate the hours")
    workers = verb.add_argument_group("where to run")
    text = "ray cluster: HOST:PORT, or auto for the one on this machine (default: RAY_ADDRESS, or this machine alone)"
    workers.add_argument("--address", default=os.environ.get("RAY_ADDRESS", ""), help=text)
    workers.add_argument("--cpus", type=int, default=1, help="processors of each run (default: 1)")
    text = "GPUs of each run, such as 0.25 (default: 1 if there are any)"
    workers.add_argument("--gpus", type=float, help=text)
    verb.set_defaults(run=sweep)

    verb = verbs.add_parser(
        "published", help="show a system's published figures beside measured ones", description=published.__doc__
    )
    verb.add_argument("system", help="import name, such as systems.atae")
    verb.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folder that was predicted with and scored")
    text = "folder of a sweep: shows the runs of its best setting of each level of --by"
    verb.add_argument("--sweep", type=Path, help=text)
    verb.add_argument("--by", metavar="FACTOR", help="factor of the sweep, such as audio_encoder")
    verb.add_argument("--data", type=Path, metavar="DIR", help="data folder that the runs were scored on")
    verb.add_argument("--split", default=EVALUATION, help="which split (evaluation)")
    verb.set_defaults(run=published)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
