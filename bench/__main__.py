"""Measure the kit's speed and print one table: `python -m bench [MEASURE …]`.

Each row is printed as soon as it is measured, and again in the table at the end. The exit status is 0 even if a target
is missed. Do not run other programs on the machine at the same time.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import (
    atae,
    captioner,
    captions,
    clip_aac,
    encoders,
    ensembles,
    gpu,
    growth,
    guided,
    inspection,
    measuring,
    offtheshelf,
    retrieval,
    rivals,
    startup,
    submissions,
    sweeps,
    training,
)
from bench.report import Report, changes, read_report
from evaluation.cli import command
from evaluation.files import require_other_files
from evaluation.findings import BadRequest
from evaluation.text import unknown_key

VERSIONS = (
    "numpy",
    "torch",
    "librosa",
    "astropy",
    "ranx",
    "pytrec-eval-terrier",
    "torchmetrics",
    "aac-metrics",
    "transformers",
    "faiss-cpu",
)
MODULES = (
    training,
    retrieval,
    rivals,
    captions,
    captioner,
    encoders,
    offtheshelf,
    clip_aac,
    atae,
    guided,
    ensembles,
    submissions,
    inspection,
    startup,
    sweeps,
    growth,
    gpu,
)
DESCRIPTION = "Measure the kit's speed, and compare it with other libraries."
MEASURES: dict[str, measuring.Measure] = {}
for module in MODULES:
    MEASURES |= module.MEASURES
DISK = 3 * 10**9  # bytes for the feature store and the default data


def main(options: argparse.Namespace) -> None:
    """Take the measures one after another, each in processes of its own, and print the table."""
    measures = resolve_measures(options.measures)
    before = None
    if options.against:
        require_other_files({"--json": options.json}, {"--against": options.against})
        before = read_report(options.against)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM then removes temporary files as Ctrl-C does
    began = time.monotonic()
    report = Report(machine=_machine(), versions=_versions())
    print(f"{report.machine}\n{report.versions}")
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        free = shutil.disk_usage(folder).free
        if free < DISK:
            space = f"must have {DISK / 1e9:.0f} GB of free space; found {free / 1e9:.1f} GB"
            raise BadRequest(f"{Path(folder).parent}: {space}; set TMPDIR to another folder")
        for name in tqdm(measures, "measuring", leave=False, disable=None):
            for row in MEASURES[name](alone, Path(folder)):
                tqdm.write(str(row))
                report = report.model_copy(update={"rows": (*report.rows, row)})
                if options.json:
                    report.save(options.json)
    total = time.monotonic() - began
    print(f"\neach value is the best of several alternating rounds, unless noted otherwise; total {total:.0f} s\n")
    print(report.table())
    if before:
        print(f"\nbefore: {before.machine}; {before.versions}\n")
        print(changes(before, report))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("python -m bench", description=DESCRIPTION)
    top.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(MEASURES)} (default: all)")
    text = "write the rows to this file, again after each measure"
    top.add_argument("--json", type=Path, metavar="FILE", help=text)
    text = "compare the rows with those of a file that --json wrote before"
    top.add_argument("--against", type=Path, metavar="FILE", help=text)
    top.set_defaults(run=main)
    return top


def resolve_measures(names: Sequence[str]) -> list[str]:
    """Return the measures that a request names, as `MEASURES` spells them.

    Args:
        names: Names of measures. A hyphen and an underscore are equivalent. If there are no names, all measures are
            returned.

    Raises:
        BadRequest: There is no such measure.
    """
    if not names:
        return list(MEASURES)
    spellings = {measure.replace("-", "_"): measure for measure in MEASURES}
    measures = []
    for name in names:
        key = name.replace("-", "_")
        if key not in spellings:
            raise BadRequest(unknown_key(name, list(MEASURES), "measure"))
        measures.append(spellings[key])
    return measures


def alone(function: measuring.Function, *arguments: object) -> Any:
    """Call a function in a new process, and return its result.

    In a new process, the peak memory is that of this function only, and libraries start as in a command of the kit.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result()
        except BaseException:  # interrupted: stop the process instead of waiting for it
            for process in active_children():
                process.terminate()
            raise


def _machine() -> str:
    """Return the processor, its cores, the load, and the operating system."""
    return f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {platform.platform()}"


def _versions() -> str:
    """Return the versions of Python and of the libraries, and the settings of the C library."""
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    tunables = os.environ.get("GLIBC_TUNABLES", "no GLIBC_TUNABLES")  # `make` sets them to request huge pages
    return f"python {platform.python_version()}, {versions}; {tunables}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(command(parser()))
