"""librosa, but its functions are not compiled by numba, which would take half a minute on a fresh machine."""

from collections.abc import Callable
from unittest import mock

import librosa
import numba
import numpy as np


def _uncompiled(*arguments: object, **options: object) -> Callable:
    """Return the function that is decorated, or a decorator that returns it."""
    if len(arguments) == 1 and callable(arguments[0]):
        return arguments[0]
    return lambda function: function


_DECORATORS = ("guvectorize", "jit", "stencil", "vectorize")
with mock.patch.multiple(numba, **dict.fromkeys(_DECORATORS, _uncompiled)):
    # librosa imports its modules when they are first used.
    librosa.feature.melspectrogram(y=np.zeros(4096))
