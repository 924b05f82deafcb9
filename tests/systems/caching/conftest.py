"""Sounds of several lengths, for the tests of caches."""

import numpy as np
import pytest
import soundfile


@pytest.fixture
def sounds(tmp_path):
    """Five files of noise, from 0.7 to 6 seconds long."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, rng.normal(0, 0.1, 30_000 + 60_000 * number), 44_100)
    return paths
