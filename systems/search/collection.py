"""Searching a collection of clips with the embeddings of a retriever.

The embeddings are computed once, and stored in the cache (`systems.caching.store`). The name of the store depends on
the files of the run and on the source code of the system. If one of them changes, all embeddings are computed again. If
an audio file changes, only its embedding is computed again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash

from evaluation.data import audio
from evaluation.data.dataset import Split
from evaluation.files import cache_folder
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics.retrieval import top_k
from systems import contract, source
from systems.caching.store import Store, map_parallel, or_unusable
from systems.parts.devices import default_device
from systems.runs import LoadedRun, missing_methods, tasks
from systems.search.neighbours import NO_NEIGHBOUR, Neighbours

EXACT, FAISS = "exact", "faiss"
INDEXES = (EXACT, FAISS)
KIND = "collection"
# Files of a run folder that do not affect the model, because `load_model` does not read them.
OTHER_FILES = ("metrics.csv", "system.yaml", source.FILE)
PROBE = "a dog barks"  # a text that is embedded to find the size of the embeddings


@dataclass(frozen=True)
class Match:
    """A clip that a search returns.

    Attributes:
        file_name: The name of the clip.
        score: The similarity of the clip and the query.
        caption: The first caption of the clip; None if the clip does not have captions.
        path: The path of the audio file.
    """

    file_name: str
    score: float
    caption: str | None
    path: Path


class Collection:
    """The clips of a split, with their embeddings by a retriever.

    Args:
        run: The run of a retriever.
        split: The split. The audio files of its clips must exist.
        index: `exact` (compare with all clips), or `faiss` (an approximate index, which may miss clips).

    Raises:
        BadRequest: The model is not a retriever; or the split does not have clips; or the embeddings have different
            sizes; or embeddings are missing in the cache, which cannot be written; or `index` is `faiss`, which is not
            installed.
        Faulty: Audio files cannot be used, or their embeddings are not finite. The exception lists all findings. The
            embeddings of all other files are stored.
    """

    def __init__(self, run: LoadedRun, split: Split, index: str = EXACT):
        require_retriever(run)
        if not split.clips:
            raise BadRequest(f"the split {split.name} must have clips; found none: give another split")
        self.model, self.split = run.model, split
        size = self._embed_text(PROBE).shape[1]
        store = Store(cache_folder(), KIND, _identity(run), size)
        self.embeddings = store.matrix(split.paths, self._embed_files)  # (clips, size)
        self.neighbours = None
        if index == FAISS:
            self.neighbours = Neighbours(self.embeddings, store.folder)

    def search_text(self, text: str, number: int) -> list[Match]:
        """Return the clips that are most similar to a text, best first.

        Args:
            text: The text.
            number: Maximum number of clips to return. A collection with fewer clips returns all of them.

        Raises:
            BadRequest: The embedding of the text is not finite.
        """
        return self._search(self._embed_text(text), number)

    def search_sound(self, path: Path, number: int) -> list[Match]:
        """Return the clips that are most similar to an audio file, best first.

        Args:
            path: The audio file.
            number: As for `search_text`.

        Raises:
            Faulty: The audio file cannot be used.
        """
        try:
            embedding = self._embed_sound(audio.load_audio(path, self.model.sample_rate))
        except audio.UnusableSound as reason:
            raise Faulty([Finding(str(path), message=str(reason))]) from None
        return self._search(embedding, number)

    def _search(self, query: np.ndarray, number: int) -> list[Match]:
        """Return the best clips for a query, an embedding of shape (1, size)."""
        if self.neighbours:
            indices, scores = self.neighbours.search(query, number)
        else:
            indices, scores = top_k(query, self.embeddings, number)
        matches = []
        for index, score in zip(indices[0].tolist(), scores[0].tolist(), strict=True):
            if index == NO_NEIGHBOUR:
                break
            clip = self.split.clips[index]
            caption = clip.captions[0] if clip.captions else None
            matches.append(Match(clip.file_name, score, caption, clip.path))
        return matches

    def _embed_text(self, text: str) -> np.ndarray:
        """Return the embedding of a text, as an array of shape (1, size)."""
        with torch.inference_mode():
            embedding = self.model.embed_text([text]).float().cpu()
        contract.require_finite(embedding, [text], "embed_text must give finite values", "query")
        return embedding.numpy()

    def _embed_sound(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding of mono audio of shape (samples,), as an array of shape (1, size).

        Raises:
            UnusableSound: The embedding is not finite.
        """
        device = default_device()
        sounds = torch.from_numpy(samples)[None].to(device)
        with torch.inference_mode():
            embedding = self.model.embed_audio(sounds, torch.tensor([len(samples)]).to(device)).float().cpu()
        if not embedding.isfinite().all():
            raise audio.UnusableSound("must have a finite embedding; found NaN or infinity: leave the clip out")
        return embedding.numpy()

    def _embed_files(self, paths: Sequence[Path]) -> Iterator[np.ndarray | audio.UnusableSound]:
        """Yield the embedding of each audio file, or the reason why the file cannot be used.

        Files are decoded in threads, but embedded one by one, so that an embedding does not depend on other clips.
        """
        decode = or_unusable(lambda path: audio.load_audio(path, self.model.sample_rate))
        for samples in map_parallel(decode, paths, "embedding"):
            if isinstance(samples, audio.UnusableSound):
                yield samples
                continue
            try:
                yield self._embed_sound(samples)
            except audio.UnusableSound as reason:
                yield reason


def require_retriever(run: LoadedRun) -> None:
    """Make sure that the model of a run can embed audio and texts.

    Raises:
        BadRequest: The model does not have a method that search needs.
    """
    missing = missing_methods(run.model, "retrieval")
    if not missing:
        return
    message = f"the model of {run.system} has no method {missing[0]}, which search needs"
    if tasks(run.model):
        message += f"; it can do {' and '.join(tasks(run.model))}"
    raise BadRequest(f"{message}: give the run of a retriever")


def _identity(run: LoadedRun) -> str:
    """Return a text that changes if the checkpoint, another file of the run folder, or the system's code changes."""
    folder = run.checkpoint.parents[1]
    files = [run.checkpoint]
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name not in OTHER_FILES:
            files.append(path)
    digests = []
    for path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, xxhash.xxh3_128)
        digests.append((path.relative_to(folder).as_posix(), digest.hexdigest()))
    return repr((audio.ARITHMETIC, digests, source.digests(run.system)))
