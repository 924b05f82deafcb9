import csv
import os
import re
import signal
import time
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluation.data.dataset import Split, read_dataset
from evaluation.data.soundscapes import generate, grammar, oracle, scenes, synthesis
from evaluation.data.soundscapes.grammar import TEMPLATES, TIMES
from evaluation.data.soundscapes.synthesis import SAMPLE_RATE, SOUND_KINDS
from evaluation.findings import BadRequest

FEW = {"development": 5, "validation": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("soundscapes") / "data"
    generate.make_soundscapes(place, clips=FEW, workers=1, progress=False)
    return place


@pytest.fixture(scope="module")
def many_scenes() -> list[synthesis.Scene]:
    return scenes.plan(np.random.default_rng(0), 600)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ the folder


def test_a_seed_gives_the_same_bytes_for_any_number_of_workers(folder, tmp_path):
    generate.make_soundscapes(tmp_path / "again", clips=FEW, workers=2, progress=False)
    assert content(tmp_path / "again") == content(folder)


def test_another_seed_gives_another_data_set(folder, tmp_path):
    generate.make_soundscapes(tmp_path / "other", seed=1, clips=FEW, workers=1, progress=False)
    first, other = content(folder), content(tmp_path / "other")
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_layout(folder):
    tables = [f"{table}_{split}.csv" for table in ("captions", "sources") for split in FEW]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FEW, *tables])
    dataset = read_dataset(folder)
    assert {name: len(split.clips) for name, split in dataset.splits.items()} == FEW
    names = [name for split in dataset.splits.values() for name in split.file_names]
    assert len(set(names)) == len(names)
    assert not any(kind in name for kind in SOUND_KINDS for name in names)
    for split in dataset.splits.values():
        assert any(name.startswith(" ") for name in split.file_names)
        assert any("," in name for name in split.file_names)
        assert any(name.count(".") > 1 for name in split.file_names)
    table = (folder / "captions_development.csv").read_bytes()
    assert table.startswith(b"file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n")
    assert b"\r" not in table


def test_sound_is_16_bit_mono_of_varied_length_and_never_clips(folder):
    lengths = set()
    for path in folder.rglob("*.wav"):
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        lengths.add(len(samples))
        assert 3.5 * SAMPLE_RATE <= len(samples) <= 4.5 * SAMPLE_RATE
        assert 0.25 * 32767 < np.abs(samples.astype(int)).max() < 0.95 * 32767
        assert abs(int(samples[0])) < 10
        assert abs(int(samples[-1])) < 10
    assert len(lengths) == sum(FEW.values())


def test_an_empty_folder_is_filled(folder, tmp_path):
    generate.make_soundscapes(tmp_path, clips=FEW, workers=1, progress=False)
    assert content(tmp_path) == content(folder)


def test_what_is_there_is_never_overwritten(tmp_path):
    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    for place in (tmp_path, kept):
        with pytest.raises(BadRequest, match="must not exist or must be an empty folder"):
            generate.make_soundscapes(place, clips=FEW, progress=False)
    assert content(tmp_path) == {"mine.txt": b"mine"}


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="must be 0 or more; found -1"):
        generate.make_soundscapes(tmp_path / "data", seed=-1)


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_left_of_a_run_that_fails_midway(tmp_path, monkeypatch, workers):
    good = [{"a": ("dog", 1)}, {"a": ("dog", 2)}]
    monkeypatch.setattr(generate, "plan", lambda rng, clips: [*good, {"a": ("no such kind", 1)}])
    with pytest.raises(KeyError):
        generate.make_soundscapes(tmp_path / "data", clips=FEW, workers=workers, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_workers_end_when_their_parent_is_killed(tmp_path, monkeypatch):
    def kill_the_parent(*_):
        (tmp_path / str(os.getpid())).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    monkeypatch.setattr(generate, "render", kill_the_parent)
    child = os.fork()
    if not child:
        generate.make_soundscapes(tmp_path / "data", clips={"evaluation": 16}, workers=2, progress=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    worker, *_ = (path.name for path in tmp_path.iterdir() if path.name.isdigit())
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(process):
    """Return True if the process with this number is running."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# ------------------------------------------------------------------------------------------------ sounds


@pytest.mark.parametrize("kind", SOUND_KINDS)
@pytest.mark.parametrize("seconds", [0.0501, 0.333, 1.07, 3.999])
def test_every_kind_sounds_at_any_length(kind, seconds):
    sound = synthesis.play(np.random.default_rng(3), kind, seconds)
    assert sound.shape == (round(seconds * SAMPLE_RATE),)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() == pytest.approx(1)
    assert np.sqrt(np.mean(sound**2)) > 0.01


def log_bands(sound: np.ndarray) -> np.ndarray:
    """Return mean and deviation over time of the log energy in 40 bands, evenly spaced in log Hz (50 Hz to 8 kHz)."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (0, 2048)), 2048)[::1024] * np.hanning(2048)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.round(np.geomspace(50, 8000, 41) * 2048 / SAMPLE_RATE).astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-3)
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


def test_kinds_can_be_told_apart_by_their_sound():
    rng = np.random.default_rng(0)
    known, asked = (
        np.array(
            [
                [log_bands(synthesis.play(rng, name, kind.lasts or rng.uniform(1, 3))) for _ in range(12)]
                for name, kind in SOUND_KINDS.items()
            ]
        )
        for _ in range(2)
    )  # (kinds, 12, features) each
    centre = known.mean(axis=1)
    scale = known.std(axis=(0, 1))
    distance = np.linalg.norm((asked[:, :, None] - centre) / scale, axis=-1)  # (kinds, 12, kinds)
    accuracy = np.mean(distance.argmin(axis=-1) == np.arange(len(SOUND_KINDS))[:, None])
    assert len(SOUND_KINDS) >= 24
    assert accuracy > 0.95


def test_what_is_said_to_come_first_sounds_first():
    """The bass drum is all below 500 Hz and the glass all above."""
    for scene, first_is_low in [("drum:3>glass:3", True), ("glass:3>drum:3", False)]:
        for seed in range(5):
            sound = synthesis.render(np.random.default_rng(seed), scenes.scene_from(scene))
            loud = np.abs(sound) > 0.02
            low = np.abs(synthesis._filter(sound, (20, 1), (500, 1))) > 0.02
            assert (np.mean(np.flatnonzero(low)) < np.mean(np.flatnonzero(loud))) == first_is_low


@pytest.mark.parametrize("count", [count for count in TIMES if count])
def test_events_occur_as_often_as_the_scene_says(count):
    for seed in range(5):
        sound = synthesis.render(np.random.default_rng(seed), {"a": ("drum", count)})
        frames = sound[: len(sound) // 441 * 441].reshape(-1, 441)  # 10 ms
        loud = np.abs(frames).max(axis=1) > 0.3 * np.abs(sound).max()
        silent_runs = re.findall(r"0{4,}", "".join(str(int(frame)) for frame in loud))
        assert len(silent_runs) == count + 1


# ------------------------------------------------------------------------------------------------ scenes and captions


def test_scenes_are_distinct_and_many_share_their_kinds(many_scenes):
    texts = [scenes.scene_text(scene) for scene in many_scenes]
    assert len(set(texts)) == len(texts)
    assert [scenes.scene_from(text) for text in texts] == many_scenes
    same_kinds = Counter(frozenset(kind for kind, _ in scene.values()) for scene in many_scenes)
    assert sum(number for number in same_kinds.values() if number > 1) > 0.7 * len(many_scenes)
    assert {"".join(scene) for scene in many_scenes} == set(TEMPLATES)
    assert {kind for scene in many_scenes for kind, _ in scene.values()} == set(SOUND_KINDS)
    assert {count for scene in many_scenes for _, count in scene.values()} == set(TIMES)


@pytest.mark.parametrize("clips", range(8))
def test_any_number_of_scenes_can_be_planned(clips):
    assert all(len(scenes.plan(np.random.default_rng(seed), clips)) == clips for seed in range(50))


def test_captions_say_what_is_in_the_scene(many_scenes):
    rng = np.random.default_rng(1)
    for scene in many_scenes:
        captions = grammar.describe(rng, scene)
        assert len(set(captions)) == 5
        for caption in captions:
            assert 8 <= len(caption.split()) <= 20
            assert re.fullmatch(r"[A-Z][a-z ,;]+[a-z]\.", caption)
            assert not re.search(r"\b(a [aeiou]|an [^aeiou]|of is|of are)|  |,,", caption)
            said = grammar.understand(caption)
            assert said.keys() == scene.keys()
            assert all(said[role] in (source, (source[0], None)) for role, source in scene.items())


def test_the_grammar_can_be_read_in_one_way_only():
    kinds_of: dict[str, set[str]] = {}
    for kind, about in SOUND_KINDS.items():
        for count in TIMES if about.lasts else [0]:
            for ways in grammar.phrases(kind, count).values():
                for text, _ in ways:
                    kinds_of.setdefault(text, set()).add(kind)
    assert [text for text, kinds in kinds_of.items() if len(kinds) > 1] == []
    pattern, _, outlines = grammar._grammar_backwards()
    templates = [template for ways in TEMPLATES.values() for template in ways]
    assert len(outlines) == len(set(templates)) == len(templates)
    assert not any(pattern.search(re.sub(r"\{.*?\}", "", template)) for template in templates)


# ------------------------------------------------------------------------------------------------ oracles


def mean_average_precision(similarity: np.ndarray, queries: list[str], names: list[str], split: Split) -> float:
    """Return mAP@10, whose denominator is the number of relevant clips."""
    values = []
    for row, query in zip(similarity, queries, strict=True):
        hits = np.array([names[clip] in split.captions[query] for clip in np.argsort(-row)[:10]])
        values.append(np.sum(hits * np.cumsum(hits) / np.arange(1, 11)) / len(split.captions[query]))
    return float(np.mean(values))


def test_an_oracle_that_knows_more_finds_more_but_not_all(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "render", lambda rng, scene: np.zeros(2))  # the oracles read tables only
    generate.make_soundscapes(tmp_path / "data", clips={"evaluation": 120}, workers=1, progress=False)
    split = read_dataset(tmp_path / "data")["evaluation"]
    with (tmp_path / "data" / "sources_evaluation.csv").open(newline="") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == list(split.file_names)
    scores = {}
    for knows in ("kinds", "scene"):
        similarity, queries, names = oracle.oracle_similarity(tmp_path / "data", "evaluation", knows)
        assert similarity.dtype == np.float32
        assert similarity.shape == (len(queries), len(names)) == (len(split.captions), 120)
        scores[knows] = mean_average_precision(similarity, queries, names, split)
    chance = mean_average_precision(np.random.default_rng(0).random(similarity.shape), queries, names, split)
    assert chance < 0.05 < 0.4 < scores["kinds"] < 0.75 < 0.9 < scores["scene"] < 1
    assert sum(len(owners) > 1 for owners in split.captions.values()) < 0.03 * len(queries)
