"""Measures of audio encoders, compared with their networks alone and with cached embeddings."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from bench.measuring import CLOTHO, Function, Measure, Row, duration, race, times

if TYPE_CHECKING:
    from systems.parts.encoders import Encoder

YAMNET, ESC10 = CLOTHO.parent / "yamnet", CLOTHO.parent / "esc10"
NETWORKS = {"cnn14": "Cnn14", "coala": "Coala", "openl3": "OpenL3", "passt": "PaSST", "vggish": "VGGish"}
# The number of clips that each encoder gets, so that encoding takes some seconds.
CLIPS = {"cnn14": 24, "coala": 400, "openl3": 16, "passt": 6, "vggish": 40, "yamnet": 800}
SECONDS = 5  # length of a clip


def encoders(alone: Function, folder: Path) -> list[Row]:
    """Measure each audio encoder from audio file to cache.

    It is compared with its network alone on batches in memory, and with reading the embeddings from the filled cache.
    """
    paths = write_noise(folder, max(CLIPS.values()))
    rows = []
    names = [*NETWORKS]
    if YAMNET.is_dir():
        names.append("yamnet")
    for name in names:
        clips = CLIPS[name]
        ours, network, cached = alone(_encoder, name, paths[:clips], folder / name)
        what = f"{name}: {clips} clips of {SECONDS} s, from file to cache / its network alone"
        our_speed, network_speed = (f"{clips / seconds:.3g} clips/s" for seconds in (ours, network))
        note = "" if name == "yamnet" else "random weights"
        rows.append(Row(what, our_speed, network_speed, f"{network / ours:.0%} of it", note=note))
        rows.append(Row("… read from the cache / computed", duration(cached), duration(ours), times(ours / cached)))
    return rows


def _encoder(name: str, paths: list[Path], folder: Path) -> list[float]:
    import torch

    from systems.caching.embeddings import embed
    from systems.memory import configure_allocation

    configure_allocation()  # as dcase-systems does
    encoder, batches = load_encoder(name), []
    caches: Iterator[Path] = (folder / f"{number}" for number in range(1000))
    hook = encoder.model.register_forward_pre_hook(lambda model, inputs: batches.append(inputs[0].clone()))
    filled = folder / "filled"
    embed(paths, encoder, filled)
    hook.remove()

    def network() -> None:
        with torch.inference_mode():
            for batch in batches:
                encoder.model(batch)

    return race(
        lambda: embed(paths, encoder, next(caches)),
        network,
        lambda: [view.sum() for view in embed(paths, encoder, filled)],
        rounds=2,
    )


def write_noise(folder: Path, number: int) -> list[Path]:
    """Write this number of audio files of white noise, of `SECONDS` each, and return their paths."""
    rng = np.random.default_rng(0)
    paths = [folder / f"noise {index}.wav" for index in range(number)]
    for path in paths:
        soundfile.write(path, rng.normal(0, 0.1, SECONDS * 44100), 44100)
    return paths


def load_encoder(name: str) -> "Encoder":
    """Return an encoder. All encoders except YAMNet have random weights, because the published files are too large."""
    import torch

    from systems.parts import encoders

    if name == "yamnet":
        return encoders.load_encoder(name, str(YAMNET))
    torch.manual_seed(0)
    module = importlib.import_module(f"{encoders.__name__}.{name}")
    return encoders.Encoder(name, module, getattr(module, NETWORKS[name])().eval().requires_grad_(False))


def epoch(alone: Function, folder: Path) -> list[Row]:
    """Measure a training epoch of ATAE on real recordings, with embeddings from the cache and with computed ones."""
    if not (YAMNET.is_dir() and ESC10.is_dir()):
        return []
    cached, uncached = alone(_epoch, folder)
    what = "training epoch of ATAE on esc10 (YAMNet, trained words), cached / computed embeddings"
    return [Row(what, duration(cached), duration(uncached), times(uncached / cached), note="240 clips, 1200 captions")]


def _epoch(folder: Path) -> list[float]:
    import lightning
    import torch

    from evaluation.data.dataset import DEVELOPMENT, read_dataset
    from systems import atae
    from systems.parts import words

    split = read_dataset(ESC10, DEVELOPMENT)[DEVELOPMENT]
    config = atae.Config(audio_encoder="yamnet", audio_weights=str(YAMNET), text_encoder="train", loss="nt_xent")
    lightning.seed_everything(0, verbose=False)
    model = atae.Retriever(config, words.train_vectors(split.captions, epochs=1, cbow=True))
    caches: Iterator[Path] = (folder / f"epoch {number}" for number in range(1000))

    def run_epoch(cache: Path) -> None:
        material = atae.Material(split.clips, [], model, cache)
        training = atae.Training(model, split, material)
        training.log = lambda *_, **__: None  # there is no trainer to log to
        optimizer = training.configure_optimizers()
        for indices in torch.randperm(len(material.pairs)).split(config.batch):
            optimizer.zero_grad()
            training.training_step(material.batch([material.pairs[index] for index in indices]), 0).backward()
            optimizer.step()

    filled = next(caches)
    return race(lambda: run_epoch(filled), lambda: run_epoch(next(caches)), rounds=3)


MEASURES: dict[str, Measure] = {"encoders": encoders, "epoch": epoch}
