"""Embeddings are computed once for each sound, also if an extraction is killed."""

import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from evaluation.findings import BadRequest, Faulty
from systems.caching import embeddings, store
from systems.parts import encoders
from systems.parts.encoders import coala
from tests.systems.runs import run_in_fork


def small(seed=0, hop=None, **settings):
    """COALA with random weights: the smallest encoder of the kit."""
    torch.manual_seed(seed)
    return encoders.Encoder("coala", coala, coala.Coala().eval().requires_grad_(False), hop, **settings)


@pytest.fixture
def embedded(monkeypatch):
    """The number of samples of each sound that was encoded."""
    lengths = []
    original = encoders.Encoder.encode_one
    monkeypatch.setattr(
        encoders.Encoder, "encode_one", lambda self, sound: (lengths.append(len(sound)), original(self, sound))[1]
    )
    return lengths


def test_computed_once_and_read_from_one_file(sounds, tmp_path, embedded):
    cache, encoder = tmp_path / "cache", small()
    first = embeddings.embed(sounds, encoder, cache)
    assert [view.shape for view in first] == [(1, 1152), (1, 1152), (2, 1152), (2, 1152), (3, 1152)]
    assert all(isinstance(view.base, np.memmap) and not view.flags.writeable for view in first)
    assert first[0].dtype == np.float32
    samples, _ = soundfile.read(sounds[3], dtype="float32")
    expected = coala.get_timestamp_embeddings(torch.from_numpy(samples)[None], encoder.model)[0][0]
    assert np.allclose(first[3], expected, atol=1e-6)
    embedded.clear()
    again = embeddings.embed(sounds[::-1], small(), cache)  # loaded again: the same weights are the same encoder
    assert embedded == []
    assert all(np.array_equal(one, other) for one, other in zip(first, again[::-1], strict=True))


def test_a_clips_embedding_does_not_depend_on_the_others(sounds, tmp_path):
    together = embeddings.embed(sounds, small(), tmp_path / "together")
    for number, path in enumerate(sounds):
        (alone,) = embeddings.embed([path], small(), tmp_path / f"alone {number}")
        assert np.array_equal(alone, together[number])


def test_threads_give_the_same_embeddings_in_the_same_order(sounds, tmp_path, monkeypatch):
    threads = set()
    original = encoders.Encoder.encode_one

    def encode_one(self, sound):
        threads.add((threading.current_thread(), torch.get_num_threads()))
        return original(self, sound)

    monkeypatch.setattr(encoders.Encoder, "encode_one", encode_one)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_threads = embeddings.embed(sounds, small(), tmp_path / "threads")
        assert {number for _, number in threads} == {1}
        assert threading.main_thread() not in {thread for thread, _ in threads}
        assert torch.get_num_threads() == 2
        threads.clear()
        in_turn = embeddings.embed(sounds, replace(small(), name="another package's encoder"), tmp_path / "in turn")
        assert threads == {(threading.main_thread(), 2)}
    finally:
        torch.set_num_threads(before)
    for one, other in zip(in_threads, in_turn, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_work_that_was_not_begun_is_cancelled():
    begun = []
    results = store.map_parallel(begun.append, range(100), "stopped", threads=1)
    next(results)
    results.close()  # as an interrupt does
    assert len(begun) < 100
    assert begun == list(range(len(begun)))


def test_other_weights_hops_and_scenes_have_their_own_store(sounds, tmp_path):
    cache = tmp_path / "cache"
    stores = [small(), small(seed=1), small(hop=1117.0), small(scene=True)]
    embedded = [embeddings.embed(sounds[4:], encoder, cache)[0] for encoder in stores]
    assert [values.shape[0] for values in embedded] == [3, 3, 5, 1]
    assert not np.allclose(embedded[0], embedded[1])
    assert len(list(cache.iterdir())) == 4
    fine_tuned = small()
    with torch.no_grad():
        next(fine_tuned.model.parameters()).mul_(2)
    assert fine_tuned.identity != stores[0].identity


def test_unusable_sounds_are_reported_and_the_others_kept(sounds, tmp_path, embedded):
    sounds[1].write_text("no sound")
    soundfile.write(sounds[3], np.zeros(0), 44_100)
    with pytest.raises(Faulty) as fault:
        embeddings.embed(sounds, small(), tmp_path / "cache")
    assert [Path(finding.file).name for finding in fault.value.findings] == ["1.wav", "3.wav"]
    embedded.clear()
    assert len(embeddings.embed([sounds[0], sounds[2], sounds[4]], small(), tmp_path / "cache")) == 3
    assert embedded == []


def test_embeddings_that_are_not_finite_are_never_kept(sounds, tmp_path):
    broken = small()
    with torch.no_grad():
        next(broken.model.parameters()).fill_(torch.nan)
    with pytest.raises(Faulty, match="coala must give finite embeddings; found NaN or infinity") as fault:
        embeddings.embed(sounds[:2], broken, tmp_path / "cache")
    assert len(fault.value.findings) == 2


def embed_until_killed(sounds, cache, count):
    """Embed sounds, and store each of them immediately. Kill this process before it stores more than `count`."""
    store.time = SimpleNamespace(monotonic=iter(range(0, 1000, 2)).__next__)
    original, written = store._write, []

    def write(file, content):
        if len(written) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(content)
        original(file, content)

    store._write = write
    embeddings.embed(sounds, small(), cache)


def test_a_killed_extraction_is_resumed_and_shared(sounds, tmp_path, embedded):
    cache = tmp_path / "cache"
    assert run_in_fork(lambda: embed_until_killed(sounds, cache, 3)) == -signal.SIGKILL
    # Two that share the cache finish it together; the sounds that were entered are not embedded again.
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=embed_until_killed, args=(sounds, cache, 2)) for _ in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    resumed = embeddings.embed(sounds, small(), cache)
    assert embedded == []
    undisturbed = embeddings.embed(sounds, small(), tmp_path / "other")
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(resumed, undisturbed, strict=True))
    (folder,) = cache.iterdir()
    assert (folder / "features.f32").stat().st_size == sum(len(view) for view in undisturbed) * 1152 * 4


def test_a_model_reads_sounds_it_encoded_before_from_the_cache(tmp_path, embedded):
    model = torch.nn.Module()
    model.audio = small()
    sounds, lengths = torch.rand(2, 90_000) - 0.5, torch.tensor([90_000, 60_000])
    uncached = model.audio(sounds, lengths)
    embeddings.cache_embeddings(model, tmp_path)
    first = model.audio(sounds, lengths)
    embedded.clear()
    again = model.audio(sounds.flip(0), lengths.flip(0))
    assert embedded == []
    for one, other, plain in zip(first, again[::-1], uncached, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, plain)


def test_an_encoder_that_learns_is_not_cached(tmp_path):
    model = torch.nn.Module()
    model.audio = small()
    model.audio.model.requires_grad_(True)
    embeddings.cache_embeddings(model, tmp_path)
    (values,) = model.audio(torch.rand(1, 90_000), torch.tensor([90_000]))
    assert values.requires_grad
    assert list(tmp_path.iterdir()) == []


def test_no_sounds_have_no_embeddings(tmp_path):
    assert embeddings.embed([], small(), tmp_path / "cache") == []


def test_workers_without_ray_are_refused(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadRequest, match=r"workers need ray; install dcase-kit\[cluster\]"):
        embeddings.embed(sounds[:1], small(), tmp_path / "cache", workers=1)


def test_on_real_sound(shared, tmp_path):
    encoder = encoders.load_encoder("yamnet", str(shared / "yamnet"), 480)
    paths = sorted((shared / "esc10" / "evaluation").iterdir())[:3]
    values = embeddings.embed(paths, encoder, tmp_path)
    assert all(view.shape[1] == 1024 and 9 <= len(view) <= 10 for view in values)
