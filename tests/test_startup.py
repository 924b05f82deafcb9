"""A wrong request is answered before the libraries that take seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# pandas is not among them, because `evaluation report` begins with it; `LIGHT` packages start without it.
HEAVY = ("torch", "lightning", "torchmetrics", "transformers", "gensim", "ray", "matplotlib", "sklearn", "jinja2")
LIGHT = ("submission",)
SCRIPT = """
import importlib, json, sys
statuses = []
for package, *arguments in json.loads(sys.argv[1]):
    module = importlib.import_module(f"{package}.__main__")
    try:
        status = module.command(module.parser(), arguments)
    except SystemExit as ended:
        status = ended.code
    statuses.append(status)
print(json.dumps([statuses, [name for name in json.loads(sys.argv[2]) if name in sys.modules]]))
"""
TRAIN = "systems train baseline.retriever --data nowhere --run run"
SCORE = "--truth nowhere --prediction nowhere.csv"
REQUESTS = [
    *("systems --help", "systems train --help", "systems predict --help", "systems sweep --help"),
    "systems train no.such.system --data nowhere --run run",
    "systems train baseline.retreiver --data nowhere --run run",
    *(TRAIN, f"{TRAIN} --set epoch=3", f"{TRAIN} --set epochs", f"{TRAIN} --config nowhere.yaml"),
    *(f"{TRAIN} --accelerator abacus", f"{TRAIN} --precision half", f"{TRAIN} --num-nodes 0"),
    "systems check no.such.system",
    "systems check baseline.retriever --set epoch=3",
    "systems predict nowhere --data nowhere",
    "systems sweep nowhere.yaml --data nowhere --out sweep",
    "systems sweep systems/offtheshelf/grid.yaml --data nowhere --out sweep",
    "systems published no.such.system",
    *("evaluation --help", "evaluation score retrieval --help", "evaluation score captions --help"),
    *(f"evaluation score retrieval {SCORE}", f"evaluation score captions {SCORE}"),
    "evaluation compare nowhere.json nowhere.json",
    "evaluation report nowhere.csv",
    "evaluation data check nowhere",
    *("submission --help", "submission validate --help", "submission package --help"),
    "submission validate nowhere.zip --task dcase2022-6b",
    "submission package nowhere --task dcase2022-6b --team baseline/team.yaml --data nowhere",
    "submission leaderboard nowhere --task dcase2022-6b --truth nowhere",
    "submission leaderboard nowhere --task dcase2022-6b --truth DATA --split evaluation",
    "submission leaderboard DATA --task dcase2022-6b --truth DATA --split evaluation",
    "submission leaderboard DATA --task dcase2022-6b --truth DATA --split evaluation --out DATA",
    "submission new --task dcase2022-6x",
]


@pytest.mark.parametrize("package", ["systems", "evaluation", "submission"])
def test_a_wrong_request_imports_no_heavy_library(package, tmp_path):
    (tmp_path / "captions_evaluation.csv").write_text("file_name,caption_1\n1.wav,It rains.\n", encoding="utf-8")
    requests = []
    for request in REQUESTS:
        if request.startswith(f"{package} "):
            requests.append(request.replace("DATA", str(tmp_path)).split())
    heavy = HEAVY
    if package in LIGHT:
        heavy = (*HEAVY, "pandas")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(requests), json.dumps(heavy)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    statuses, imported = json.loads(done.stdout.splitlines()[-1])
    for request, status in zip(requests, statuses, strict=True):
        assert status == (0 if "--help" in request else 2), request
    assert imported == []
