import numpy as np
import pytest

from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest
from evaluation.metrics.retrieval import AUDIO_TO_TEXT
from evaluation.predictions import Similarity
from evaluation.retrieval_formats import read_prediction

CLIPS = ("dog.wav", "rain.wav")
QUERIES = ("A dog barks.", "Rain falls.")
SCORES = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.fixture
def split(tmp_path):
    clips = [Clip(name, (query,), tmp_path / name) for name, query in zip(CLIPS, QUERIES, strict=True)]
    return Split("evaluation", tuple(clips), source=tmp_path / "captions_evaluation.csv")


def test_each_form_gives_the_same_ranking(split, tmp_path):
    Similarity(QUERIES, CLIPS, SCORES).save(tmp_path / "own.npz")
    np.savez(tmp_path / "other.npz", scores=SCORES, queries=QUERIES, file_names=CLIPS)
    Similarity(CLIPS, QUERIES, SCORES.T).save(tmp_path / "turned.npz")
    (tmp_path / "matrix.csv").write_text("query,dog.wav,rain.wav\nA dog barks.,.9,.1\nRain falls.,.2,.8\n")
    for name in ("own.npz", "other.npz", "turned.npz", "matrix.csv"):
        prediction, notes = read_prediction(tmp_path / name, split, split.truth)
        assert prediction.queries == QUERIES
        assert np.array_equal(prediction.scores, SCORES)
        assert bool(notes) == (name in ("other.npz", "turned.npz"))  # notes say what was assumed


def test_lists_of_the_best_clips(split, tmp_path):
    (tmp_path / "lists.csv").write_text("query,1,2\nA dog barks.,dog.wav,rain.wav\nRain falls.,rain.wav,dog.wav\n")
    lists, _ = read_prediction(tmp_path / "lists.csv", split, split.truth)
    assert lists.file_names == (("dog.wav", "rain.wav"), ("rain.wav", "dog.wav"))


def test_a_missing_file(split, tmp_path):
    for suffix in ("npz", "csv", "run"):
        with pytest.raises(BadRequest):
            read_prediction(tmp_path / f"none.{suffix}", split, split.truth, direction=AUDIO_TO_TEXT)
