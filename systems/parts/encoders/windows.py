"""How a sound is cut into windows and frames: what all encoders' front ends share.

Window k begins `k` hops into the sound. There is one wherever its middle still lies in the sound, and at least one; the
last ones reach beyond the end, where there are zeros. (Of the authors' own tools YAMNet's fills the last hop up,
VGGish's and COALA's leave incomplete windows out, and OpenL3's puts half a window of zeros in front by default.)
Timestamps are the middles of the windows. A hop is a whole number of samples, so that none drifts.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest

CHUNK = 16  # windows that go through a network at once: what they need at a time stays small, on a CPU in its cache


def get_timestamp_embeddings(audio: Tensor, model: nn.Module, hop: float | None = None) -> tuple[Tensor, Tensor]:
    """Embed the windows of sounds.

    Args:
        audio: (n_sounds, n_samples) mono in [-1, 1] at `model.sample_rate`.
        model: Maps (n, `model.window`) samples to (n, `model.timestamp_embedding_size`).
        hop: ms from window to window; `model.hop` where not given.

    Returns:
        (n_sounds, n_timestamps, size) float32, and (n_sounds, n_timestamps), the middle of each window in ms. Each
        sound is embedded on its own: its embeddings do not depend on the others.

    Raises:
        BadRequest: `audio` is not of that shape, or `hop` not positive.
    """
    return over_windows(model, checked(audio), model.sample_rate, model.window, model.hop if hop is None else hop)


def get_scene_embeddings(audio: Tensor, model: nn.Module) -> Tensor:
    """Embed sounds as (n_sounds, `model.scene_embedding_size`) float32: the mean over windows."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)


def over_windows(
    function: Callable[[Tensor], Tensor], audio: Tensor, sample_rate: int, size: int, hop: float, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """Map windows of sounds to vectors.

    Args:
        function: (n, size) samples to (n, values).
        audio: (n_sounds, margin + n_samples + margin).
        sample_rate: Hz.
        size: Samples of a window.
        hop: ms.
        margin: Samples at both ends that are no part of the sound; the first window begins with them.

    Returns:
        (n_sounds, n_timestamps, values), and (n_sounds, n_timestamps) ms.

    Raises:
        BadRequest: `hop` is not positive.
    """
    if not (math.isfinite(hop) and round(hop * sample_rate / 1000) >= 1):
        raise BadRequest(f"hop must be ms, a sample ({1000 / sample_rate:.3g} ms) or more; found {hop}")
    step = round(hop * sample_rate / 1000)
    middle = size / 2 - margin
    count = max(0, int((audio.shape[1] - 2 * margin - middle) // step)) + 1
    audio = nn.functional.pad(audio, (0, max(0, (count - 1) * step + size - audio.shape[1])))
    windows = audio.unfold(1, size, step)[:, :count]  # (n_sounds, count, size)
    embeddings = []
    for sound in windows:
        embeddings.append(torch.cat([function(part) for part in sound.split(CHUNK)]))
    values = torch.stack(embeddings)
    return values, milliseconds(torch.arange(count, device=audio.device) * step + middle, sample_rate, len(audio))


def milliseconds(positions: Tensor, sample_rate: int, sounds: int) -> Tensor:
    """Positions in samples as ms, the same for all sounds: (n_sounds, n_timestamps) float32."""
    return (positions.double() * 1000 / sample_rate).float().expand(sounds, -1)


def checked(audio: Tensor) -> Tensor:
    """Return sounds as float32.

    Raises:
        BadRequest: They are not (n_sounds, n_samples) with a sample or more.
    """
    if audio.ndim != 2 or not audio.numel() or not audio.is_floating_point():
        found = f"{tuple(audio.shape)} of {str(audio.dtype).removeprefix('torch.')}"
        raise BadRequest(f"audio must be (n_sounds, n_samples) floats in [-1, 1], at least one of each; found {found}")
    return audio.float()


def magnitudes(audio: Tensor, window: int, hop: int, fft: int) -> Tensor:
    """Magnitude spectra of the whole frames in (n, samples): (n, frames, fft // 2 + 1), each under a periodic Hann."""
    frames = audio.unfold(-1, window, hop) * torch.hann_window(window, device=audio.device)
    return torch.fft.rfft(frames, fft).abs()
