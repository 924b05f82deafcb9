"""Made run folders, for ensembles."""

import numpy as np
import yaml

from evaluation import predictions
from evaluation.cli import command
from evaluation.predictions import Similarity
from systems.__main__ import parser

SYSTEM = {
    "description": {"audio_modelling": "CRNN", "optimizer": "Adam", "learning_rate": 0.1, "ensemble": False},
    "complexity": {"total_parameters": 10, "trainable_parameters": 4},
}


def make_run(folder, seed, data, splits=("validation", "evaluation"), **system):
    """Write a run folder with random similarities for some splits."""
    folder.mkdir(parents=True)
    config = {"system": "systems.atae", "seed": seed, "data": {"development": "1234", "validation": str(seed // 2)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "system.yaml").write_text(yaml.safe_dump({**SYSTEM, "description": SYSTEM["description"] | system}))
    rng = np.random.default_rng(seed)
    for name in splits:
        split = data.splits[name]
        scores = rng.normal(seed, 1 + seed, (len(split.queries), len(split.clips)))
        Similarity(split.queries, split.file_names, scores).save(folder / "predictions" / f"{name}.npz")
    return folder


def write_captions(folder, data, texts):
    """Write a run folder whose captions for the clips of the evaluation split are given."""
    make_run(folder, 0, data, splits=())
    names = data.splits["evaluation"].file_names
    predictions.write_captions(folder / "predictions" / "evaluation.csv", names, texts)
    return folder


def combine(*words):
    return command(parser(), ["ensemble", *map(str, words)])
