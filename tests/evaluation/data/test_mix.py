"""Mixed clips: their audio, their captions, and the folder that is written."""

import csv
import signal
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import soundfile

from evaluation.__main__ import parser
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.data.mix import draw_pairs, join_captions, mix, mix_clips
from evaluation.findings import BadRequest, Faulty

RATES = (8000, 8000, 16000, 8000)
CAPTIONS = (
    ("A dog barks.", "One dog."),
    ("Rain falls.", "It rains"),
    ("TV sounds.", "Talk."),
    ("Rain falls.", "Wet."),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with four clips of different lengths. The second and the fourth share a caption."""
    folder = tmp_path_factory.mktemp("mix") / "data"
    (folder / "development").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [["file_name", "caption_1", "caption_2"]]
    for number, (rate, captions) in enumerate(zip(RATES, CAPTIONS, strict=True)):
        name = f" clip, {number}.wav"
        samples = 10.0**-number * rng.uniform(-0.9, 0.9, rate // 20 + 100 * number)
        soundfile.write(folder / "development" / name, samples, rate, subtype="FLOAT")
        rows.append([name, *captions])
    with (folder / "captions_development.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_new_folder_is_a_data_folder(data, tmp_path, capsys):
    before = files(data)
    words = ["data", "mix", str(data), str(tmp_path / "mixed"), "--pairs", "5", "--seed", "3"]
    assert command(parser(), words) == 0
    assert capsys.readouterr().out == f"{tmp_path}/mixed: 5 mixed clips with 2 captions each\n"
    assert files(data) == before
    dataset = read_dataset(tmp_path / "mixed")
    assert dataset.findings == ()
    split = dataset["development"]
    assert split.file_names == tuple(f"mix_0000{number}.wav" for number in range(1, 6))
    captions = dict(zip((f" clip, {number}.wav" for number in range(4)), CAPTIONS, strict=True))
    pairs = set()
    for clip in split.clips:
        first, second = clip.metadata["first"], clip.metadata["second"]
        pairs.add(frozenset([first, second]))
        own = {join_captions(*texts) for texts in zip(captions[first], captions[second], strict=True)}
        turned = {join_captions(*texts) for texts in zip(captions[first], captions[second][::-1], strict=True)}
        assert set(clip.captions) in (own, turned)
        info = soundfile.info(clip.path)
        assert info.samplerate == (16000 if " clip, 2.wav" in (first, second) else 8000)
        assert -5 <= float(clip.metadata["decibels"]) <= 5
    everything = {frozenset(pair) for pair in combinations(captions, 2)}
    assert pairs == everything - {frozenset([" clip, 1.wav", " clip, 3.wav"])}


def test_a_seed_gives_the_same_files(data, tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        mix_clips(data, tmp_path / name, pairs=3, seed=seed)
    assert files(tmp_path / "one") == files(tmp_path / "again")
    assert files(tmp_path / "one") != files(tmp_path / "other")


@pytest.mark.parametrize(
    ("lengths", "place", "start"), [((900, 300), 0.5, 300), ((300, 900), 1, 600), ((5, 5), 0.9, 0)]
)
def test_the_sum_has_the_ratio_of_energies_that_was_drawn(lengths, place, start):
    rng = np.random.default_rng(0)
    first, second = (scale * rng.normal(size=length) for scale, length in zip((0.001, 0.02), lengths, strict=True))
    total = mix(first, second, 3.0, place)
    gain = np.sqrt(np.mean(first**2) / np.mean(second**2)) * 10 ** (-3 / 20)
    ratio = 10 * np.log10(np.mean(first**2) / np.mean((gain * second) ** 2))
    assert ratio == pytest.approx(3)
    expected = np.zeros(max(lengths))
    for samples in (first, gain * second):
        begin = start if len(samples) == min(lengths) else 0
        expected[begin : begin + len(samples)] += samples
    np.testing.assert_allclose(total, expected, atol=1e-12)


def test_a_loud_sum_is_scaled_and_silence_is_not():
    loud = np.array([0.9, -0.9, 0.9])
    np.testing.assert_allclose(mix(loud, loud, 0.0, 0.0), [1, -1, 1])
    np.testing.assert_array_equal(mix(loud, np.zeros(2), 5.0, 0.0), loud)
    np.testing.assert_array_equal(mix(np.zeros(2), loud, 5.0, 0.0), loud)


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("a dog barks", "rain falls", "a dog barks and rain falls"),
        ("A dog barks.", "Rain falls.", "A dog barks and rain falls."),
        ("A dog barks .", "I sing.", "A dog barks and I sing."),
        ("Is it a dog?", "DJs play", "Is it a dog? and DJs play"),
        ("...", "Éclats de rire", "... and éclats de rire"),
        ("Rain", " 'Wind' blows", "Rain and  'Wind' blows"),
    ],
)
def test_captions_are_joined(first, second, joined):
    assert join_captions(first, second) == joined


def test_pairs_are_drawn_from_all_pairs(data):
    clips = read_dataset(data)["development"].clips
    drawn = []
    for seed in range(200):
        ((first, second),) = draw_pairs(clips, 1, np.random.default_rng(seed))
        drawn.append((first.file_name, second.file_name))
    counts = [drawn.count(pair) for pair in set(drawn)]
    assert len(counts) == 10  # five pairs in both orders
    assert min(counts) > 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--pairs", "6"],
            "--pairs must be at most the number of pairs of clips that share no caption; found 6, and on",
        ),
        (["--pairs", "0"], "--pairs: must be a whole number of 1 or more; found '0'"),
        (["--pairs", "2", "--seed", "-1"], "the seed must be 0 or more; found -1"),
    ],
)
def test_a_request_that_cannot_be_met(data, tmp_path, capsys, options, message):
    status = 0
    try:
        status = command(parser(), ["data", "mix", str(data), str(tmp_path / "mixed"), *options])
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_user_is_overwritten(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadRequest, match="must not exist or must be an empty folder"):
        mix_clips(data, tmp_path, pairs=1)
    assert files(tmp_path) == {(tmp_path / "notes.txt").relative_to(tmp_path): b"mine"}


def test_all_clips_that_cannot_be_decoded_are_reported(data, tmp_path):
    folder = tmp_path / "data"
    (folder / "development").mkdir(parents=True)
    (folder / "captions_development.csv").write_bytes((data / "captions_development.csv").read_bytes())
    for number in range(4):
        (folder / "development" / f" clip, {number}.wav").write_bytes(b"junk")
    with pytest.raises(Faulty) as faulty:
        mix_clips(folder, tmp_path / "mixed", pairs=5)
    assert len(faulty.value.findings) == 4
    assert not (tmp_path / "mixed").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from evaluation.data import mix
mix.tables.write_table = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
mix.mix_clips(Path(sys.argv[1]), Path(sys.argv[2]), pairs=2)
"""


def test_a_killed_call_leaves_nothing_and_can_be_repeated(data, tmp_path):
    """The call is killed in a process of its own, because torch may not be used in a fork of a process that used it."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data), str(tmp_path / "mixed")])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mixed").exists()
    mix_clips(data, tmp_path / "mixed", pairs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]
