"""Features are computed once for each sound, also if an extraction is killed."""

import os
import signal
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from threadpoolctl import threadpool_limits

from evaluation.data.audio import LogMel, load_audio
from evaluation.findings import Faulty
from systems.caching import features, store
from tests.systems.runs import Fork, run_in_fork


@pytest.fixture
def computed(monkeypatch):
    """The names of the sounds whose features were computed."""
    names = []
    original = features.audio.load_audio
    monkeypatch.setattr(
        features.audio, "load_audio", lambda path, rate: (names.append(path.name), original(path, rate))[1]
    )
    return names


def expected(paths):
    with threadpool_limits(1, "blas"):  # a product's last bit depends on the number of threads
        return [LogMel()(load_audio(path, 44_100)) for path in paths]


def equal(values, others):
    return len(values) == len(others) and all(np.array_equal(a, b) for a, b in zip(values, others, strict=True))


def test_computed_once_and_read_from_one_file(sounds, tmp_path, computed):
    cache = tmp_path / "cache"
    first = features.log_mels(sounds, LogMel(), cache)
    assert equal(first, expected(sounds))
    assert all(isinstance(view.base, np.memmap) and not view.flags.writeable for view in first)
    assert sorted(set(computed)) == [path.name for path in sounds]
    computed.clear()
    assert equal(features.log_mels(sounds[::-1], LogMel(), cache), first[::-1])
    assert computed == []
    (folder,) = cache.iterdir()
    assert {path.name for path in folder.iterdir()} == {"features.f32", "index.sqlite", "lock"}


def test_sounds_are_identified_by_content_not_by_name(sounds, tmp_path, computed):
    cache = tmp_path / "cache"
    features.log_mels(sounds, LogMel(), cache)
    computed.clear()
    sounds[0].rename(tmp_path / "renamed.wav")
    features.log_mels([tmp_path / "renamed.wav"], LogMel(), cache)
    assert computed == []
    soundfile.write(sounds[1], np.full(20_000, 0.5), 44_100)  # the same name, another sound
    assert equal(features.log_mels(sounds[1:2], LogMel(), cache), expected(sounds[1:2]))
    assert set(computed) == {"1.wav"}


def test_copies_of_a_sound_are_computed_once(sounds, tmp_path, computed):
    (tmp_path / "twin.wav").write_bytes(sounds[0].read_bytes())
    one, other = features.log_mels([sounds[0], tmp_path / "twin.wav"], LogMel(), tmp_path / "cache")
    assert np.array_equal(one, other)
    assert len(computed) == 1


def test_other_settings_have_their_own_file(sounds, tmp_path):
    cache = tmp_path / "cache"
    wide, narrow = (features.log_mels(sounds, LogMel(mels=mels), cache)[0] for mels in (64, 40))
    assert (wide.shape[1], narrow.shape[1]) == (64, 40)
    assert len(list(cache.iterdir())) == 2


def test_another_rate_is_resampled(tmp_path):
    soundfile.write(tmp_path / "slow.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (view,) = features.log_mels([tmp_path / "slow.wav"], LogMel(), tmp_path / "cache")
    assert len(view) == LogMel().frames(44_100)


def test_unusable_sounds_are_reported_and_the_others_kept(sounds, tmp_path, computed):
    sounds[1].write_text("no sound")
    soundfile.write(sounds[3], np.zeros(0), 44_100)
    with pytest.raises(Faulty) as fault:
        features.log_mels(sounds, LogMel(), tmp_path / "cache")
    assert [Path(finding.file).name for finding in fault.value.findings] == ["1.wav", "3.wav"]
    computed.clear()
    assert len(features.log_mels([sounds[0], sounds[4]], LogMel(), tmp_path / "cache")) == 2
    assert computed == []


def extract_until_killed(sounds, cache, count):
    """Extract features, and store each of them immediately. Kill this process after `count` sounds."""
    store.time = SimpleNamespace(monotonic=iter(range(0, 1000, 2)).__next__)
    parallel = features.map_parallel

    def killed(function, items, label):
        for number, result in enumerate(parallel(function, items, label)):
            if number == count:
                os.kill(os.getpid(), signal.SIGKILL)
            yield result

    features.map_parallel = killed
    features.log_mels(sounds, LogMel(), cache)


def test_a_killed_extraction_is_resumed(sounds, tmp_path, computed):
    cache = tmp_path / "cache"
    assert run_in_fork(lambda: extract_until_killed(sounds, cache, 3)) == -signal.SIGKILL
    assert equal(features.log_mels(sounds, LogMel(), cache), expected(sounds))
    assert sorted(computed) == ["3.wav", "4.wav"]


def test_frames_that_were_never_entered_are_overwritten(sounds, tmp_path):
    cache = tmp_path / "cache"
    features.log_mels(sounds[:2], LogMel(), cache)
    (folder,) = cache.iterdir()
    with (folder / "features.f32").open("ab") as file:
        file.write(b"half a frame")
    assert equal(features.log_mels(sounds, LogMel(), cache), expected(sounds))


def test_a_truncated_file_is_filled_again(sounds, tmp_path):
    cache = tmp_path / "cache"
    features.log_mels(sounds, LogMel(), cache)
    (folder,) = cache.iterdir()
    os.truncate(folder / "features.f32", 5_000)
    assert equal(features.log_mels(sounds, LogMel(), cache), expected(sounds))


def test_several_processes_share_a_cache(sounds, tmp_path):
    def extract():
        features.log_mels(sounds, LogMel(), tmp_path / "cache")

    processes = [Fork(extract) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    (folder,) = (tmp_path / "cache").iterdir()
    rows = sum(len(values) for values in expected(sounds))
    assert (folder / "features.f32").stat().st_size == rows * 64 * 4
    with sqlite3.connect(folder / "index.sqlite") as index:
        assert index.execute("SELECT COUNT(*) FROM features").fetchone() == (len(sounds),)
