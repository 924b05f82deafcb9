"""Oracles: the retrieval results of a listener who recognises every source."""

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
    """Retrieve as one would who hears every source rightly: what a system could reach at best, and what that takes.

    Args:
        folder: A folder that `make_soundscapes` wrote.
        split: One of its splits.
        knows: `kinds`: which kinds of sources are in a clip, nothing else. `scene`: also their order, overlap and
            number. Both use everything that a caption states about these.

    Returns:
        similarity: Distinct captions × clips, float32, greater is better. Ties are broken at random, by less than any
            difference: a rule for ties must not decide what is known.
        queries: The distinct captions, in order of first appearance.
        file_names: The clips.
    """
    clips = read_dataset(folder, split, sound=False)[split]
    scenes = {}
    with (folder / f"sources_{split}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            scenes[row["file_name"]] = scene_from(row["scene"])
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
    """Return the share of kinds that a caption and a scene have in common, of all kinds in either."""
    asked_kinds = {kind for kind, _ in asked.values()}
    scene_kinds = {kind for kind, _ in scene.values()}
    return len(asked_kinds & scene_kinds) / len(asked_kinds | scene_kinds)


def _same_roles(asked: StatedScene, scene: Scene) -> float:
    """Return the share of roles with the same kind, plus the share where the count agrees or is not stated."""
    same_kind = same_count = 0
    for role in asked.keys() & scene.keys():
        (asked_kind, stated_count), (kind, count) = asked[role], scene[role]
        if asked_kind != kind:
            continue
        same_kind += 1
        if stated_count is None or stated_count == count:
            same_count += 1
    return (same_kind + same_count) / len(asked.keys() | scene.keys())
