"""Captions retrieved by similar audio: BERTScore of all pairs, the triplet loss, the search, and runs."""

import csv
import importlib
import itertools
import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch

from evaluation.cli import command
from evaluation.data.dataset import Clip, read_dataset
from evaluation.findings import BadRequest, Faulty
from systems import caption_retrieval, contract, guided_gpt2
from systems.__main__ import parser
from systems.caption_retrieval import similarity
from systems.parts import texts, vocabulary
from systems.parts.optimizers import AdaBound
from tests.systems.runs import cut_off, same, train_arguments
from tests.systems.tiny import WORDS, make_hear_data, text_model, trusting_hear

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in (ROOT / "systems" / "caption_retrieval").glob("*.yaml") if p.stem != "published")
CAPTIONS = [
    "A dog barks.",
    "Rain falls and falls again, birds sing.",
    "a crowd",
    "an engine evaluation; bells ring",
    "bird",
    "A dog barks again!",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny models and data."""
    folder = tmp_path_factory.mktemp("retrieval")
    text_model(folder / "text")
    make_hear_data(folder, development=12, validation=6, evaluation=5)
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    with trusting_hear(place, monkeypatch):
        yield


@pytest.fixture
def encode(place):
    return texts.load_text_encoder(str(place / "text"), 2)


def arguments(place, run, *settings):
    settings = (
        "audio_encoder=tiny_hear",
        f"similarity_model={place / 'text'}",
        "similarity_layer=2",
        "threshold=0.5",
        "epochs=2",
        "batch=4",
        *settings,
    )
    return train_arguments("systems.caption_retrieval", place, run, settings)


def trained(place, run, *settings):
    assert command(parser(), arguments(place, run, *settings)) == 0
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


# BERTScore -----------------------------------------------------------------------------------------------------------


def scored(captions, encode, cache):
    tokens = similarity.Tokens.of(captions, encode, cache)
    every = tokens.some(np.arange(len(captions)))
    return similarity.f1(every, every).numpy()


@pytest.mark.parametrize("layer", [1, 3])
def test_scores_are_those_of_bert_score(place, tmp_path, layer):
    bert_score = pytest.importorskip("bert_score")
    folder = text_model(tmp_path / "text")
    file = folder / "tokenizer_config.json"  # bert-score fails with a tokeniser that has no maximum length
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 38}))
    ours = scored(CAPTIONS, texts.load_text_encoder(str(folder), layer), tmp_path)
    pairs = [(one, other) for one in CAPTIONS for other in CAPTIONS]
    *_, theirs = bert_score.score(*zip(*pairs, strict=True), model_type=str(folder), num_layers=layer, device="cpu")
    np.testing.assert_allclose(ours, theirs.view(ours.shape).numpy(), atol=0.002)
    assert ours.max() - ours.min() > 0.1


def plain(captions, encode, threshold, cache):
    """Find the similar pairs by a loop over all pairs."""
    scores = scored(captions, encode, cache)
    pairs = [(a, b) for a in range(len(captions)) for b in range(a)]
    least = min(scores[pair] for pair in pairs)
    return {frozenset(pair) for pair in pairs if (scores[pair] - least) / (1 - least) > threshold}, least


def pairs_of(found, count):
    return {frozenset((a, int(b))) for a in range(count) for b in found.of(a)}


def many(count):
    rng = np.random.default_rng(0)
    return list(dict.fromkeys(" ".join(rng.choice(WORDS.split(), rng.integers(1, 7))) for _ in range(count)))


@pytest.mark.parametrize("side", [7, 16, 1024])
def test_blocks_find_what_a_loop_over_all_pairs_finds(encode, tmp_path, monkeypatch, side):
    monkeypatch.setattr(similarity, "SIDE", side)
    monkeypatch.setitem(similarity.TILE, "cpu", 5)
    captions = many(40)
    expected, least = plain(captions, encode, 0.5, tmp_path)
    found = similarity.similar(captions, encode, tmp_path, threshold=0.5)
    assert len(expected) > 10
    assert pairs_of(found, len(captions)) == expected
    assert found.least == pytest.approx(least, abs=1e-5)
    assert found.pairs == len(expected)
    (folder,) = tmp_path.glob("similar-*")
    assert [path.name for path in folder.glob("*.npz")] == ["similar.npz"], "the blocks are put together"


def test_a_smaller_score_that_is_found_late_brings_pairs_back(encode, tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "SIDE", 8)
    monkeypatch.setattr(similarity, "SPARE", 0)
    captions, asked = many(40), []
    expected, _ = plain(captions, encode, 0.5, tmp_path)
    original = similarity.Blocks.find

    def find(self, name, *rest):
        asked.append(name)
        return original(self, name, *rest)

    monkeypatch.setattr(similarity.Blocks, "find", find)
    found = similarity.similar(captions, encode, tmp_path, threshold=0.5)
    assert pairs_of(found, len(captions)) == expected
    assert len(asked) > len(set(asked)), "no block was done again"


def test_a_killed_computation_goes_on_where_it_was(place, tmp_path, encode, monkeypatch):
    monkeypatch.setattr(similarity, "SIDE", 8)
    monkeypatch.setattr(similarity, "SPARE", 1)  # so that no block is computed again
    captions = many(40)
    expected = similarity.similar(captions, encode, tmp_path / "whole", threshold=0.5)

    def work():
        similarity.similar(captions, encode, tmp_path / "killed", threshold=0.5)

    assert cut_off(work, similarity.Blocks, "find", 6) == -signal.SIGKILL
    (folder,) = (tmp_path / "killed").glob("similar-*")
    assert len([*folder.glob("block-*.npz")]) == 5
    asked, original = [], similarity.Blocks.find
    monkeypatch.setattr(similarity.Blocks, "find", lambda self, *rest: asked.append(rest[0]) or original(self, *rest))
    found = similarity.similar(captions, encode, tmp_path / "killed", threshold=0.5)
    assert len(asked) == 15 - 5
    assert np.array_equal(found.neighbours, expected.neighbours)
    assert np.array_equal(found.starts, expected.starts)


def test_workers_find_the_same(encode, tmp_path, monkeypatch):
    """Workers that answer in this process; `sweeps/test_nodes.py` tests Ray's own workers."""

    def start(worker, number, *given):
        instances = itertools.cycle([worker(*given) for _ in range(number)])
        return SimpleNamespace(map=lambda method, calls: (getattr(next(instances), method)(*call) for call in calls))

    monkeypatch.setattr(similarity, "Workers", start)
    captions = many(40)
    expected = similarity.similar(captions, encode, tmp_path / "here", threshold=0.5)
    found = similarity.similar(captions, encode, tmp_path / "there", threshold=0.5, workers=2)
    assert np.array_equal(found.neighbours, expected.neighbours)
    assert found.least == expected.least


def test_a_prefilter_reduces_pairs_and_reports_its_recall(place, encode, tmp_path, monkeypatch):
    mean = texts.load_text_encoder(str(place / "text"), 3, "mean")  # as good as a sentence encoder here
    captions = many(40)
    expected, _ = plain(captions, encode, 0.5, tmp_path)
    sentences = np.concatenate(texts.embed(captions, mean, tmp_path))
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    cosines = [float(sentences[a] @ sentences[b]) for a, b in map(tuple, expected)]
    above = float(np.median(cosines))
    passing = {pair for pair, cosine in zip(expected, cosines, strict=True) if cosine > above}
    filtered = similarity.Prefilter(mean, above)
    found = similarity.similar(captions, encode, tmp_path, threshold=0.5, prefilter=filtered)
    assert pairs_of(found, len(captions)) == passing
    assert found.recall == pytest.approx(len(passing) / len(expected))
    everything = similarity.similar(captions, encode, tmp_path, threshold=0.5, prefilter=replace(filtered, above=-1))
    assert everything.recall == 1
    assert pairs_of(everything, len(captions)) == expected


@pytest.mark.parametrize("side", [7, 1024])
def test_the_best_captions_are_those_of_the_highest_score(encode, tmp_path, monkeypatch, side):
    monkeypatch.setattr(similarity, "SIDE", side)
    laid = []
    some = similarity.Tokens.some
    monkeypatch.setattr(similarity.Tokens, "some", lambda self, numbers: laid.append(numbers) or some(self, numbers))
    captions = many(30)
    asked = [(captions[3], captions[8]), ("a dog and a bird",)]
    scores = scored([*captions, "a dog and a bird"], encode, tmp_path)
    expected = [scores[[3, 8], : len(captions)].max(0), scores[-1, : len(captions)]]
    laid.clear()
    found = similarity.nearest(asked, captions, encode, tmp_path, 4)
    assert len(laid) == 2 * -(-30 // side), "as often for many clips as for few"
    for row, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(values[row], np.sort(values)[::-1][:4], atol=1e-5)
    assert set(found[0][:2]) == {3, 8}
    (every,) = similarity.nearest(asked[1:], captions, encode, tmp_path, 30)
    assert sorted(every) == list(range(30))
    np.testing.assert_allclose(expected[1][every], np.sort(expected[1])[::-1], atol=1e-5)


def test_captions_without_a_token_are_named_all_at_once(encode, tmp_path):
    with pytest.raises(Faulty) as faulty:
        similarity.similar(["a dog", " ", "", "a bird"], encode, tmp_path)
    assert len(faulty.value.findings) == 2
    assert "a caption must have a word" in str(faulty.value)


# The triplet loss ----------------------------------------------------------------------------------------------------


def test_semi_hard_negatives_are_those_of_a_plain_loop():
    rng = torch.Generator().manual_seed(0)
    embedded = torch.nn.functional.normalize(torch.randn(24, 4, generator=rng), dim=1)
    strange = torch.rand(12, 24, generator=rng) > 0.4
    distances = caption_retrieval.squared(embedded[:12], embedded)
    positive = distances.diagonal(12)
    found = caption_retrieval.semi_hard(distances, positive, strange, 0.3)
    expected = torch.zeros_like(found)
    for a in range(12):
        for n in range(24):
            near = float((embedded[a] - embedded[12 + a]).square().sum())
            far = float((embedded[a] - embedded[n]).square().sum())
            expected[a, n] = bool(strange[a, n]) and near <= far < near + 0.3
    assert torch.equal(found, expected)
    assert 10 < int(found.sum()) < 200


def test_the_loss_is_that_of_the_triplets_that_are_drawn(place):
    model = caption_retrieval.Retriever(caption_retrieval.Config(audio_encoder="tiny_hear", dropout=0))
    training = caption_retrieval.Training(model, None)
    training.log = lambda *_, **__: None
    torch.manual_seed(0)
    frames, lengths = torch.randn(8, 5, 12), torch.full((8,), 5)
    strange = torch.ones(4, 8, dtype=torch.bool)
    strange[torch.arange(4), torch.arange(4)] = strange[torch.arange(4), torch.arange(4) + 4] = False
    embedded = model.embed(frames, lengths).detach()
    np.testing.assert_allclose(embedded.norm(dim=1), 1, atol=1e-5)
    possible = []
    for a in range(4):
        near = (embedded[a] - embedded[4 + a]).square().sum()
        far = [(embedded[a] - embedded[n]).square().sum() for n in range(8) if strange[a, n]]
        possible.append([float(near - one + 0.3) for one in far if near <= one < near + 0.3])
    possible = [some for some in possible if some]
    loss = training.training_step(caption_retrieval.Batch(frames, lengths, strange), 0).item()
    assert len(possible) > 1
    assert sum(map(min, possible)) <= loss * len(possible) + 1e-5
    assert loss * len(possible) <= sum(map(max, possible)) + 1e-5


def test_clips_are_alike_by_any_of_their_captions():
    said = [("a", "b"), ("c",), ("b",), ("d",), ("e", "c")]
    clips = [Clip(str(number), captions, Path(str(number))) for number, captions in enumerate(said)]
    near = scipy.sparse.csr_array(([1, 1], ([0, 3], [3, 0])), (5, 5))  # a and d
    similar = similarity.Similar(near.indptr, near.indices, 0.0)
    found = caption_retrieval.alike_clips(clips, list("abcde"), similar)
    expected = {0: [2, 3], 1: [4], 2: [0], 3: [0], 4: [1]}
    assert {row: found.indices[found.indptr[row] : found.indptr[row + 1]].tolist() for row in range(5)} == expected


def test_adabound_steps_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    weight, gradients = rng.normal(size=5), rng.normal(size=(300, 5)) * [1, 10, 0.01, 0, 1e-6]
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = AdaBound([parameter], lr=1e-3, final_lr=0.1, gamma=1e-2)
    mean, square = np.zeros(5), np.zeros(5)
    clipped = set()
    for step, gradient in enumerate(gradients, 1):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        low, high = 0.1 - 0.1 / (1e-2 * step + 1), 0.1 + 0.1 / (1e-2 * step)
        rate = 1e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) / (np.sqrt(square) + 1e-8)
        clipped |= {*np.where(rate < low, "low", np.where(rate > high, "high", "none"))}
        weight = weight - np.clip(rate, low, high) * mean
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-9)
    assert clipped == {"low", "high", "none"}


# The model -----------------------------------------------------------------------------------------------------------


def library(place, **settings):
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(30, 6, 12)).astype(np.float32)
    lengths = rng.integers(1, 7, 30)
    frames *= np.arange(6)[:, None] < lengths[:, None, None]
    known = caption_retrieval.Library(frames, lengths, [[f"caption {number}", "other"] for number in range(30)])
    torch.manual_seed(0)
    config = caption_retrieval.Config(audio_encoder="tiny_hear", dropout=0.5, **settings)
    return caption_retrieval.Retriever(config, known).eval()


@pytest.mark.parametrize("embedding", ["triplet", "raw"])
@pytest.mark.parametrize("faiss", [False, True])
def test_the_nearest_are_those_of_a_plain_loop(place, embedding, faiss):
    if faiss:
        pytest.importorskip("faiss")
    model = library(place, embedding=embedding, faiss=faiss)
    asked, lengths = torch.from_numpy(model.library.frames[[4, 9]] + 0.01), torch.tensor([6, 3])
    known = model.embed(torch.from_numpy(model.library.frames), torch.from_numpy(model.library.lengths))
    distances = (model.embed(asked, lengths)[:, None] - known).square().sum(2).detach().numpy()
    found = model.nearest(asked, lengths, 5)
    for row, near in zip(distances, found, strict=True):
        np.testing.assert_allclose(row[near], np.sort(row)[:5], rtol=1e-4)
    assert model.captions(asked, lengths, 1) == [[f"caption {row[0]}"] for row in found]
    assert model.nearest(asked, lengths, 99).shape == (2, 30), "no more than there are"


def test_cut_and_padded_clips_are_answered_alike_in_any_batch(place, capsys):
    model = library(place)
    sounds = torch.zeros(3, 9000)
    lengths = torch.tensor([9000, 4000, 800])
    for row, length in enumerate(lengths):
        sounds[row, :length] = torch.rand(int(length)) - 0.5
    together = model.caption(sounds, lengths)
    alone = [model.caption(sounds[row : row + 1, :n], lengths[row : row + 1])[0] for row, n in enumerate(lengths)]
    assert together == alone
    said = capsys.readouterr()
    assert (said.out + said.err).count("clips are cut to 6 frames, as in training; one clip has 12") == 1
    noise = torch.cat([torch.randn(1, 3, 12), torch.full((1, 3, 12), 9.0)], dim=1)
    padded = torch.cat([noise[:, :3], torch.zeros(1, 3, 12)], dim=1)
    torch.testing.assert_close(model.embed(noise, torch.tensor([3])), model.embed(padded, torch.tensor([3])))


def test_weights_begin_as_published(place):
    model = caption_retrieval.Retriever(caption_retrieval.Config(audio_encoder="tiny_hear", hidden=2048))
    layer = model.embedder.layer
    for weight in (layer.linear1.weight, layer.linear2.weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not layer.linear1.bias.any()
    assert bool((layer.norm1.weight == 1).all())


def test_audio_options_reach_the_encoder_of_both_systems(place):
    with pytest.raises(BadRequest, match=r"tiny_hear: audio_options must be options of its load_model, .* found loud"):
        caption_retrieval.Retriever(caption_retrieval.Config(audio_encoder="tiny_hear", audio_options={"loud": True}))
    both = contract.configure(guided_gpt2.Config, None, ["retrieval.audio_options={post_activation: false}"])
    assert both.retrieval.audio_options == {"post_activation": False}


def test_a_model_without_clips_does_not_search(place):
    model = caption_retrieval.Retriever(caption_retrieval.Config(audio_encoder="tiny_hear", heads=1))
    with pytest.raises(ValueError, match="the model has no clips to search; give it a library"):
        model.nearest(torch.zeros(1, 2, model.audio.size), torch.tensor([2]), 1)


# Runs ----------------------------------------------------------------------------------------------------------------


def test_every_config_is_one():
    configs = {path.stem: contract.configure(caption_retrieval.Config, path) for path in CONFIGS}
    assert configs["triplet"] == caption_retrieval.Config()
    assert configs["nearest"].embedding == configs["yamnet-nearest"].embedding == "raw"
    encoder = torch.nn.Module()
    encoder.embedder = caption_retrieval.Embedder(128, 4, 512, 0.3)
    count = sum(p.numel() for p in encoder.parameters())
    assert caption_retrieval.PARAMETERS.split()[0] == f"{count:,}"


def test_it_predicts_without_the_data_as_it_validated(place, tmp_path, capsys):
    state = trained(place, tmp_path / "run", "monitor=CIDEr-D")
    assert not any("audio_encoder" in name for name in state["state_dict"])
    assert "clips 6 are cut" in capsys.readouterr().err
    model = caption_retrieval.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    split = read_dataset(place / "data", "validation")["validation"]
    said, _ = contract.captions(model, split, device=torch.device("cpu"))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        best = max(float(row["validation_CIDEr-D"]) for row in csv.DictReader(file))
    assert vocabulary.validation_cider_d(split, said) == pytest.approx(best, abs=1e-9)
    first = {clip.captions[0] for clip in read_dataset(place / "data", "development")["development"].clips}
    assert set(said) <= first

    (tmp_path / "run" / "library.npz").rename(tmp_path / "library.npz")
    with pytest.raises(BadRequest, match=r"library.npz: no such file; it is written when training begins"):
        caption_retrieval.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    model.library._replace(captions=[["another"]] * 12).write(tmp_path / "run" / "library.npz")
    with pytest.raises(BadRequest, match=r"must hold the clips that .* was trained with; found other clips"):
        caption_retrieval.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")


def test_a_damaged_library_is_refused(tmp_path):
    path = tmp_path / "library.npz"
    frames, lengths, captions = np.ones((2, 3, 4), np.float32), np.array([3, 2]), [["a dog"], ["rain", "wind"]]
    caption_retrieval.Library(frames, lengths, captions).write(path)
    library = caption_retrieval.read_library(path)
    assert (library.frames == frames).all()
    assert (library.lengths.tolist(), library.captions) == ([3, 2], captions)
    whole = path.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"no library",
        "a changed byte": whole.replace(b"wind", b"win\xff"),
    }
    for name, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(
            BadRequest, match=r"library.npz: must hold the training clips' .*, but it is damaged \(.+\); p"
        ):
            caption_retrieval.read_library(path)
            pytest.fail(name)
    caption_retrieval.Library(frames, lengths, captions[:1]).write(path)
    with pytest.raises(BadRequest, match=r"damaged \(its frames, lengths and captions belong to different numbers"):
        caption_retrieval.read_library(path)
    np.savez_compressed(path, frames=np.zeros((2, 1000, 1000), np.float32), lengths=lengths, captions=np.zeros(2, "u1"))
    with pytest.raises(BadRequest, match=r"damaged \(its arrays would take 8000018 bytes, but the file has \d{4,5}\)"):
        caption_retrieval.read_library(path)


def test_nothing_learns_by_the_frames_as_they_are(place, tmp_path):
    assert trained(place, tmp_path / "run", "embedding=raw", "similarity_model=nowhere")["state_dict"] == {}
    assert command(parser(), ["predict", str(tmp_path / "run"), "--data", str(place / "data")]) == 0
    assert len((tmp_path / "run" / "predictions" / "evaluation.csv").read_text().splitlines()) == 6


def test_a_killed_run_ends_with_the_same_weights(place, tmp_path):
    expected = trained(place, tmp_path / "whole", "epochs=3")["state_dict"]
    asked = arguments(place, tmp_path / "killed", "epochs=3")
    assert cut_off(asked, caption_retrieval.Training, "training_step", 5) == -signal.SIGKILL
    assert (tmp_path / "killed" / "metrics.csv").exists()
    # The number of workers may change. Here the cache has the similar pairs, so no worker starts.
    assert same(trained(place, tmp_path / "killed", "epochs=3", "workers=2")["state_dict"], expected)
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("killed", "whole")]
    assert rows[0] == rows[1]


def test_it_goes_on_over_no_other_encoder(place, tmp_path, capsys, monkeypatch):
    asked = arguments(place, tmp_path / "run")
    assert cut_off(asked, caption_retrieval.Training, "on_validation_epoch_start", 2) == -signal.SIGKILL
    tiny_hear = importlib.import_module("tiny_hear")
    load = tiny_hear.load_model
    monkeypatch.setattr(tiny_hear, "load_model", lambda path="": load("another seed"))
    assert command(parser(), asked) == 2
    error = capsys.readouterr().err
    assert "last.ckpt: the frozen parts must be those it was trained with" in error
    assert "found other weights or settings of the audio encoder" in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("threshold=1.0",),
            "the validation split must have two clips with similar captions; found none: among its 30 captions, no two",
        ),
        (("heads=5",), "heads must divide the 12 values of a frame; found 5"),
        (("similarity_model=nowhere/at/all",), "nowhere/at/all: no such folder"),
        (
            ("similarity_model={place}/words.txt",),
            "words.txt: must be a transformers model, because BERTScore compares its token embeddings; found word",
        ),
        (("similarity_layer=9",), "the layer must be 0 to 3"),
        (("audio_encoder=nothing_heard",), "no encoder 'nothing_heard'"),
        (("margin=0",), "Input should be greater than 0"),
    ],
)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(place, tmp_path, capsys, settings, message):
    (place / "words.txt").write_text("rain 0.1 0.2\n")
    asked = arguments(place, tmp_path / "run", *(setting.format(place=place) for setting in settings))
    assert command(parser(), asked) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "note: " not in line]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_no_similar_pair_in_the_training_set_is_one_error(place, tmp_path, clotho_like, capsys):
    asked = arguments(place, tmp_path / "run", "threshold=1", "monitor=CIDEr-D")
    asked[asked.index("--data") + 1] = str(clotho_like())
    assert command(parser(), asked) == 2
    (line,) = capsys.readouterr().err.splitlines()[:1]
    assert "the development split must have two clips with similar captions; found none: among its 30 captions" in line
    assert line.endswith("lower threshold")
    assert not (tmp_path / "run").exists()


def test_published_figures_are_shown(capsys):
    assert command(parser(), ["published", "systems.caption_retrieval"]) == 0
    (triplet,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("triplet")]
    assert triplet.split()[3:11] == ["0.475", "0.288", "0.177", "0.104", "0.162", "0.306", "0.331", "0.109"]
