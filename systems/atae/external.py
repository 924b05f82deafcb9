"""Training data besides the data folder: WavCaps, AudioCaps and FSD50K as published, or folders in Clotho's layout."""

from pathlib import Path

import numpy as np

from evaluation.data import freesound, wavcaps
from evaluation.data.dataset import DEVELOPMENT, Split, read_dataset
from evaluation.downloads import Asset, Download
from evaluation.findings import BadRequest, say
from systems.caption_retrieval import fsd50k

# The title and the address of published data, for each usual name of their folder in small letters.
PUBLISHED = {
    "audiocaps": ("AudioCaps", "https://github.com/cdjkim/audiocaps"),
    "fsd50k": ("FSD50K", fsd50k.ADDRESS),
    "wavcaps": ("WavCaps", wavcaps.ADDRESS),
}


def locate_folder(key: str, folder: str) -> Download:
    """Return the state of a folder of training data, which the kit does not download.

    Args:
        key: The config key that names the folder, for messages.
        folder: The folder.
    """
    title, address = PUBLISHED.get(Path(folder).name.lower(), ("training data", ""))
    source = f" as published ({address})" if address else ""
    advice = f"{folder}: no such folder; put {title} there{source}, or change {key}"
    return _by_hand(f"{title} ({key})", Path(folder), advice)


def locate_excluded(file: str) -> Download:
    """Return the state of a list of excluded sounds, which the kit does not download."""
    address = freesound.EXCLUDED_LISTS.get(Path(file).name)
    source = f" ({address})" if address else ""
    advice = f"{file}: no such file; put the list of Freesound ids to exclude there{source}, or set excluded=null"
    return _by_hand("Freesound ids to exclude (excluded)", Path(file), advice)


def _by_hand(title: str, place: Path, advice: str) -> Download:
    """Return the state of a file or folder that the kit does not download."""
    return Download(Asset(title, place.name, 0), place, lambda: place if place.exists() else None, advice=advice)


def read_external(folder: Path, excluded: str | None = None) -> Split:
    """Read further training data. Only the development split is read.

    Warnings and notes about WavCaps are printed.

    Args:
        folder: WavCaps, AudioCaps or FSD50K as published, or a data folder in Clotho's layout.
        excluded: List of Freesound ids (`freesound.read_ids`). Clips of WavCaps with these ids are left out.

    Raises:
        BadRequest: There is no such folder or list, or the list has no ids.
        Faulty: The data are not valid. The exception lists all findings.
    """
    if (folder / fsd50k.METADATA.parent).is_dir():
        return fsd50k.read_fsd50k(folder)
    if (folder / wavcaps.JSON_FILES).is_dir():
        ids: set[str] = set()
        if excluded:
            ids = excluded_ids(Path(excluded))
        dataset = wavcaps.read_wavcaps(folder, ids)
        say(list(dataset.findings))
        return dataset[DEVELOPMENT]
    return read_dataset(folder, DEVELOPMENT)[DEVELOPMENT]


def excluded_ids(file: Path) -> set[str]:
    """Return the Freesound ids in a list. It also raises the errors of `freesound.read_ids`.

    Raises:
        BadRequest: There is no such file.
    """
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give the list of Freesound ids to exclude, or set excluded=null")
    return set(freesound.read_ids(file))


def read_noisy(folder: Path, share: float, seed: int) -> Split:
    """Read noisy captions and draw a share of their clips.

    Args:
        folder: As for `read_external`.
        share: The share of the clips to draw, in (0, 1].
        seed: Seed of the draw.

    Returns:
        A split with the drawn clips.
    """
    split = read_external(folder)
    drawn = np.random.default_rng(seed).permutation(len(split.clips))[: max(1, round(share * len(split.clips)))]
    return Split(split.name, tuple(split.clips[index] for index in sorted(drawn)))
