"""The similarities of clips and captions that teachers compute. A teacher is a trained retriever.

Primus, Schmid and Widmer (2024), "Estimated Audio-Caption Correspondences Improve Language-Based Audio Retrieval", use
these similarities as targets for the training of a new retriever (`systems.parts.losses.distilled`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.data.dataset import Clip, Split
from evaluation.files import replacing
from evaluation.findings import BadRequest
from systems import contract
from systems.caching.embeddings import cache_embeddings
from systems.parts import texts
from systems.parts.devices import default_device
from systems.parts.losses import dot_products
from systems.parts.sequences import chunks
from systems.runs import loaded, missing_methods


class Teachers:
    """The embeddings that teachers compute for the clips and captions of a training.

    Args:
        clips: For each teacher, (clips, size) embeddings of length 1.
        captions: For each teacher, (captions, size) embeddings of length 1.
    """

    def __init__(self, clips: Sequence[Tensor], captions: Sequence[Tensor]):
        self.clips, self.captions = clips, captions

    def similarity(self, clips: Tensor, captions: Tensor) -> Tensor:
        """Return the mean of the teachers' cosine similarities between clips and captions.

        Args:
            clips: (N,) indices of clips.
            captions: (M,) indices of captions.

        Returns:
            (N, M) similarities.
        """
        # Only the first call moves the embeddings to another device.
        self.clips = [embeddings.to(clips.device) for embeddings in self.clips]
        self.captions = [embeddings.to(clips.device) for embeddings in self.captions]
        total = torch.zeros(len(clips), len(captions), device=clips.device)
        for of_clips, of_captions in zip(self.clips, self.captions, strict=True):
            total += dot_products(of_clips[clips], of_captions[captions])
        return total / len(self.clips)


def read_or_embed(
    file: Path, folders: Sequence[str], clips: Sequence[Clip], captions: Sequence[str], cache: Path
) -> Teachers:
    """Read the teachers' embeddings from a file. If the file does not exist, compute the embeddings and write it.

    Args:
        file: The file, in .npz format.
        folders: The run folders of the teachers.
        clips: The clips for training and validation.
        captions: The captions and queries for training and validation, each text once.
        cache: Folder of the cache for the embeddings of frozen encoders.

    Raises:
        BadRequest: A folder does not contain the trained run of a retriever, or embeddings are not finite.
        Faulty: Audio files cannot be used. The exception lists all findings.
    """
    if not file.is_file():
        arrays = {}
        for number, folder in enumerate(folders):
            of_clips, of_captions = _embed(Path(folder), clips, captions, cache)
            arrays[f"clips {number}"] = of_clips.numpy()
            arrays[f"captions {number}"] = of_captions.numpy()
        with replacing(file) as part, part.open("wb") as stream:
            np.savez(stream, **arrays)
    with np.load(file, allow_pickle=False) as stored:
        numbers = range(len(folders))
        of_clips = [torch.from_numpy(stored[f"clips {number}"]) for number in numbers]
        of_captions = [torch.from_numpy(stored[f"captions {number}"]) for number in numbers]
    return Teachers(of_clips, of_captions)


def _embed(folder: Path, clips: Sequence[Clip], captions: Sequence[str], cache: Path) -> tuple[Tensor, Tensor]:
    """Return a teacher's embeddings of clips and captions, of shape (clips, size) and (captions, size)."""
    with loaded(folder) as run:
        model, device = run.model, default_device()
        missing = missing_methods(model, "retrieval")
        if missing:
            message = f"a teacher must be a retriever; the model of {run.system} has no method {missing[0]}"
            raise BadRequest(f"{folder}: {message}: give the run of a retriever")
        cache_embeddings(model, cache)
        of_clips = contract.embeddings(model, Split("training", tuple(clips)), device=device)
        with torch.inference_mode():
            parts = [model.embed_text(part).float().cpu() for part in chunks(captions, texts.TEXTS_PER_BATCH)]
    of_captions = torch.cat(parts)
    contract.require_finite(of_captions, captions, "embed_text must give finite values", "caption")
    return F.normalize(of_clips, dim=1), F.normalize(of_captions, dim=1)
