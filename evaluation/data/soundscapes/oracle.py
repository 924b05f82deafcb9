"""Oracles: retrieval with perfect knowledge of the sources of every clip."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.data.dataset import read_dataset
from evaluation.data.soundscapes.grammar import StatedScene, understand
from evaluation.data.soundscapes.scenes import scene_from
from evaluation.data.soundscapes.synthesis import Scene


def oracle_similarity(
    folder: Path, split: str, knows: Literal["kinds", "scene"] = "scene"
) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the similarities of an oracle that recognises every source, as an upper bound for systems.

    Args:
        folder: A folder that `make_soundscapes` wrote.
        split: One of its splits.
        knows: The knowledge about a clip. `kinds`: only the kinds of its sources. `scene`: also their order, overlap
            and counts. The oracle understands everything that a caption states about these.

    Returns:
        similarity: (distinct captions, clips) float32; greater is more similar. Ties are broken by random numbers that
            are smaller than any difference, so that the order of the clips gives no information.
        queries: The distinct captions, in order of first appearance.
        file_names: The names of the clips.
    """
    clips = read_dataset(folder, split, sound=False)[split]
    scenes = {}
    with (folder / f"sources_{split}.csv").open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            scenes[record["file_name"]] = scene_from(record["scene"])
    queries = list(clips.captions)
    similarity = np.zeros((len(queries), len(clips.file_names)))
    for row, query in enumerate(queries):
        asked = understand(query)
        for column, name in enumerate(clips.file_names):
            similarity[row, column] = _same_kinds(asked, scenes[name])
            if knows == "scene":
                similarity[row, column] += _same_roles(asked, scenes[name])
    noise = np.random.default_rng(0).uniform(0, 1e-3, similarity.shape)
    return (similarity + noise).astype(np.float32), queries, list(clips.file_names)


def _same_kinds(asked: StatedScene, scene: Scene) -> float:
    """Return the number of kinds in both a caption and a scene, divided by the number of kinds in either."""
    asked_kinds = {kind for kind, _ in asked.values()}
    scene_kinds = {kind for kind, _ in scene.values()}
    return len(asked_kinds & scene_kinds) / len(asked_kinds | scene_kinds)


def _same_roles(asked: StatedScene, scene: Scene) -> float:
    """Return the share of roles with the same kind, plus the share whose count is also the same or not stated."""
    same_kind = same_count = 0
    for role in asked.keys() & scene.keys():
        (asked_kind, stated_count), (kind, count) = asked[role], scene[role]
        if asked_kind != kind:
            continue
        same_kind += 1
        if stated_count is None or stated_count == count:
            same_count += 1
    return (same_kind + same_count) / len(asked.keys() | scene.keys())
