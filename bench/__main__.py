"""Measures the kit's speed and prints one table: `python -m bench [MEASURE …]`.

The figures are measurements: the exit status is 0 whether or not a target is met. Give the machine to it alone.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path

from tqdm import tqdm

from bench import (
    captioner,
    captions,
    clip_aac,
    encoders,
    guided,
    measuring,
    offtheshelf,
    retrieval,
    submissions,
    sweeps,
    training,
)
from evaluation.findings import BadRequest, command, table

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
MODULES = (training, retrieval, captions, captioner, encoders, offtheshelf, clip_aac, guided, submissions, sweeps)
MEASURES = {name: measure for module in MODULES for name, measure in module.MEASURES.items()}
DISK = 3 * 10**9  # bytes: the store, and the default data


def main(options: argparse.Namespace) -> None:
    """Take the measures one after another, each in processes of its own, and print the table."""
    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown:
        raise BadRequest(f"unknown measure {unknown[0]!r}; there are: {', '.join(MEASURES)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill clears up as Ctrl-C does
    began, load, rows = time.monotonic(), os.getloadavg()[0], []
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        free = shutil.disk_usage(folder).free
        if free < DISK:
            message = f"{DISK / 1e9:.0f} GB are needed, {free / 1e9:.1f} are free; name a folder in TMPDIR"
            raise BadRequest(f"{Path(folder).parent}: {message}")
        for name in tqdm(options.measures or MEASURES, "measuring", leave=False, disable=None):
            rows += MEASURES[name](alone, Path(folder))
    marks = {True: "met", False: "missed", None: ""}
    print(f"{_processor()}, {os.cpu_count()} cores, load {load:.1f} before; {platform.platform()}")
    tunables = os.environ.get("GLIBC_TUNABLES", "no GLIBC_TUNABLES")  # `make` asks for huge pages with them
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    print(f"python {platform.python_version()}, {versions}; {tunables}")
    print(f"the best of several rounds in turns, unless said otherwise; {time.monotonic() - began:.0f} s in all\n")
    headers = ["what / against what", "kit", "other", "ratio", "target", "", "how"]
    print(table([row._replace(met=marks[row.met]) for row in rows], headers, numbers=(1, 2, 3, 4)))


def alone(function: measuring.Function, *arguments: object) -> object:
    """Call in a new process: its peak memory is its own, and the libraries start as in a command of the kit."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result()
        except BaseException:  # interrupted: the process must not go on, nor be waited for
            for process in active_children():
                process.terminate()
            raise


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(MEASURES)}; all by default")
    parser.set_defaults(run=main)
    sys.exit(command(parser))
