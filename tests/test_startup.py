"""A wrong request is answered before libraries whose import takes seconds are imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("torch", "lightning", "torchmetrics", "transformers", "gensim", "ray", "sklearn", "gradio"),
    *("pandas", "matplotlib", "seaborn", "jinja2"),
)
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
    *(f"{TRAIN} --set epochs=0", f"{TRAIN} --set dropout=x", f"{TRAIN} --set sampler=pair --set margin=-1"),
    *(f"{TRAIN} --seed -1", f"{TRAIN} --seed 4294967296", "systems train systems.atae --data FOLDER --run FOLDER"),
    "systems train systems.offtheshelf --data nowhere --run run --set decoding=best",
    *(f"{TRAIN} --accelerator abacus", f"{TRAIN} --precision half", f"{TRAIN} --num-nodes 0"),
    *(f"{TRAIN} --logger wandb", f"{TRAIN} --logger none", "systems curves --help", "systems curves run --out run.gif"),
    "systems check no.such.system",
    "systems check baseline.retriever --set epoch=3",
    "systems predict nowhere --data nowhere",
    *("systems search --help", "systems search nowhere --data nowhere", "systems search nowhere rain --data nowhere"),
    *("systems search nowhere rain --data nowhere -n 0", "systems search nowhere --sound nowhere.wav --data nowhere"),
    *("systems demo --help", "systems demo nowhere", "systems demo nowhere --space out"),
    *("systems export --help", "systems export nowhere FOLDER/export", "systems export FOLDER out --data nowhere"),
    "systems sweep nowhere.yaml --data nowhere --out sweep",
    "systems sweep systems/offtheshelf/grid.yaml --data nowhere --out sweep",
    *(f"systems sweep FOLDER/{name}.yaml --data nowhere --out sweep" for name in ("key", "config_key", "system")),
    "systems published no.such.system",
    "systems published systems.atea",
    *("evaluation --help", "evaluation score retrieval --help", "evaluation score captions --help"),
    *(f"evaluation score retrieval {SCORE}", f"evaluation score captions {SCORE}"),
    *("evaluation score choice --help", f"evaluation score choice {SCORE}", f"evaluation score moments {SCORE}"),
    "evaluation compare nowhere.json nowhere.json",
    *("evaluation report nowhere.csv", "evaluation report evaluation"),
    "evaluation report nowhere.csv --out figures",
    "evaluation data check nowhere",
    *("evaluation inspect --help", "evaluation inspect nowhere.npz --truth nowhere --out page"),
    "evaluation inspect nowhere.npz --truth FOLDER --out page",
    *("evaluation data convert --help", "evaluation data convert nowhere.json --out data"),
    "evaluation score captions --truth FOLDER --prediction nowhere.csv --columns cap=x",
    *("submission --help", "submission validate --help", "submission package --help"),
    "submission validate nowhere.zip --task dcase2022-6b",
    "submission package nowhere --task dcase2022-6b --team baseline/team.yaml --data nowhere",
    "submission leaderboard nowhere --task dcase2022-6b --truth nowhere",
    "submission leaderboard nowhere --task dcase2022-6b --truth FOLDER --split evaluation",
    "submission leaderboard FOLDER --task dcase2022-6b --truth FOLDER --split evaluation",
    "submission leaderboard FOLDER --task dcase2022-6b --truth FOLDER --split evaluation --out FOLDER",
    "submission codabench --task dcase2022-6b --truth nowhere --out b.zip",
    "submission codabench --task dcase2022-6b --truth FOLDER --split evaluation --out FOLDER/b.zip --end 2020-01-01",
    "submission codabench --task dcase2022-6b --truth FOLDER --split evaluation --out FOLDER/key.yaml",
    "submission codabench --task dcase2022-6b --truth FOLDER --split evaluation --out b.zip --start 1.6.2026",
    "submission new --task dcase2022-6x",
    "systems download FOLDER/none.yaml",
]
SWEEP = """
system: systems.atae
grid: {size: [8, 16]}
seeds: 1
metric: mAP@10
"""
WRONG_SWEEPS = {
    "key": SWEEP.replace("seeds", "seed"),
    "config_key": SWEEP.replace("size", "sise"),
    "system": SWEEP.replace("atae", "atea"),
}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the files that requests name in FOLDER, which is also a data folder."""
    for name, content in WRONG_SWEEPS.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    (tmp_path / "captions_evaluation.csv").write_text("file_name,caption_1\n1.wav,It rains.\n")
    return tmp_path


def status_of(request):
    """Return the exit status of a request."""
    if "--help" in request:
        return 0
    if request.endswith("--run FOLDER"):  # the folder contains other files
        return 1
    return 2


@pytest.mark.parametrize("package", ["systems", "evaluation", "submission"])
def test_a_wrong_request_imports_no_heavy_library(package, folder):
    requests = [request for request in REQUESTS if request.startswith(f"{package} ")]
    commands = [request.replace("FOLDER", str(folder)).split() for request in requests]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), json.dumps(HEAVY)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    statuses, imported = json.loads(done.stdout.splitlines()[-1])
    for request, status in zip(requests, statuses, strict=True):
        assert status == status_of(request), request
    assert imported == []
