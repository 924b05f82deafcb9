"""Windows and frames of audio, shared by the encoders' front ends.

Window k begins k hops after the beginning of the clip. A clip has all windows with a middle inside the clip, and at
least one window. The last windows may reach beyond the clip's end, where they are padded with zeros. (The authors' own
tools differ: YAMNet's pads the last hop, VGGish's and COALA's leave out incomplete windows, and OpenL3's puts half a
window of zeros before the clip by default.) Timestamps are the middles of the windows. A hop is rounded to a whole
number of samples, so that timestamps do not drift.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest

CHUNK = 16  # windows that a network processes at once, few enough for a CPU's cache


def get_timestamp_embeddings(audio: Tensor, model: nn.Module, hop: float | None = None) -> tuple[Tensor, Tensor]:
    """Embed the windows of clips.

    Args:
        audio: (n_sounds, n_samples) mono in [-1, 1] at `model.sample_rate`.
        model: A network that maps (n, `model.window`) samples to (n, `model.timestamp_embedding_size`) values.
        hop: ms between the beginnings of windows (default: `model.hop`).

    Returns:
        (n_sounds, n_timestamps, size) float32, and (n_sounds, n_timestamps), the middle of each window in ms. Each clip
        is embedded separately, so its embeddings do not depend on other clips.

    Raises:
        BadRequest: `audio` does not have this shape, or `hop` is less than a sample.
    """
    if hop is None:
        hop = model.hop
    return over_windows(model, checked(audio), model.sample_rate, model.window, hop)


def get_scene_embeddings(audio: Tensor, model: nn.Module) -> Tensor:
    """Embed clips as (n_sounds, `model.scene_embedding_size`) float32, the mean over windows."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)


def over_windows(
    function: Callable[[Tensor], Tensor], audio: Tensor, sample_rate: int, size: int, hop: float, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """Map windows of clips to vectors.

    Args:
        function: Maps (n, size) samples to (n, values).
        audio: (n_sounds, margin + n_samples + margin).
        sample_rate: Sample rate in Hz.
        size: Number of samples of a window.
        hop: ms between the beginnings of windows.
        margin: Number of samples at each end that are not part of the clip. The first window begins with them.

    Returns:
        (n_sounds, n_timestamps, values), and (n_sounds, n_timestamps), the middle of each window in ms.

    Raises:
        BadRequest: `hop` is less than a sample.
    """
    if not (math.isfinite(hop) and round(hop * sample_rate / 1000) >= 1):
        raise BadRequest(
            f"hop must be at least one sample, {1000 / sample_rate:.3g} ms; found {hop} ms: give a longer hop"
        )
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


def segments(sound: Tensor, size: int) -> Tensor:
    """Cut a clip into segments without overlap. The last segment is padded with zeros.

    Args:
        sound: (samples,).
        size: Number of samples of a segment.

    Returns:
        (segments, size), with at least one segment.
    """
    count = max(1, math.ceil(len(sound) / size))
    return nn.functional.pad(sound, (0, count * size - len(sound))).view(count, size)


def milliseconds(positions: Tensor, sample_rate: int, sounds: int) -> Tensor:
    """Convert positions in samples, (n_timestamps,), to ms, and repeat them: (n_sounds, n_timestamps) float32."""
    return (positions.double() * 1000 / sample_rate).float().expand(sounds, -1)


def checked(audio: Tensor) -> Tensor:
    """Check the shape of audio and return it as float32.

    Raises:
        BadRequest: The audio is not (n_sounds, n_samples) floats with at least one clip and one sample.
    """
    if audio.ndim != 2 or not audio.numel() or not audio.is_floating_point():
        found = f"{tuple(audio.shape)} of {str(audio.dtype).removeprefix('torch.')}"
        raise BadRequest(
            "audio must be (n_sounds, n_samples) floats in [-1, 1], with at least one clip and one sample; "
            f"found {found}: convert it"
        )
    return audio.float()


def magnitudes(audio: Tensor, window: int, hop: int, fft: int) -> Tensor:
    """Compute magnitude spectra of the complete frames in audio, with a periodic Hann window.

    Args:
        audio: (n, samples).
        window: Number of samples of a frame.
        hop: Number of samples between the beginnings of frames.
        fft: Number of points of the transform.

    Returns:
        (n, frames, fft // 2 + 1).
    """
    frames = audio.unfold(-1, window, hop) * torch.hann_window(window, device=audio.device)
    return torch.fft.rfft(frames, fft).abs()
