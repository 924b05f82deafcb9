"""An approximate index of embeddings, which faiss builds and searches. It is faster for millions of clips.

The index is a graph (HNSW, Malkov and Yashunin 2018) whose search visits only a small part of the clips. It may miss
some of the best clips.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from evaluation.files import replacing
from evaluation.findings import BadRequest

LINKS = 32  # number of links from each clip to similar clips
VISITED = 128  # number of candidates that a search keeps; more find more of the best clips, in more time
CHECKSUM_BYTES = 8
NO_NEIGHBOUR = -1  # the index in place of a clip if the search reaches too few clips


class Neighbours:
    """An index of embeddings. It is built once, and stored in a file whose name depends on the embeddings.

    Args:
        embeddings: (clips, size) float32.
        folder: The folder of the file. It must exist.

    Raises:
        BadRequest: faiss is not installed.
    """

    def __init__(self, embeddings: np.ndarray, folder: Path):
        try:
            import faiss
        except ModuleNotFoundError:
            message = "faiss must be installed for --index faiss; install faiss-cpu, or leave out --index"
            raise BadRequest(message) from None
        self._faiss = faiss
        content = np.ascontiguousarray(embeddings)
        file = folder / f"{xxhash.xxh3_128_hexdigest(content.data)}.faiss"
        self._index = self._read(file)
        if self._index is None:
            self._index = faiss.IndexHNSWFlat(embeddings.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.add(content)
            self._write(file)

    def search(self, queries: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the best clips of each query, best first, and their scores.

        Args:
            queries: (queries, size) float32.
            number: The number of clips to return for each query.

        Returns:
            Two arrays of shape (queries, n), where n is at most `number`. If the search reaches fewer clips, the last
            indices are `NO_NEIGHBOUR`.
        """
        number = min(number, self._index.ntotal)
        self._index.hnsw.efSearch = max(VISITED, number)
        scores, indices = self._index.search(queries, number)
        return indices, scores

    def _write(self, file: Path) -> None:
        """Write the index, and after it a checksum of its bytes."""
        content = self._faiss.serialize_index(self._index).tobytes()
        with replacing(file) as part, part.open("wb") as stream:
            stream.write(content)
            stream.write(xxhash.xxh3_64_digest(content))

    def _read(self, file: Path) -> Any:
        """Return the index in a file, or None if the file is missing or damaged."""
        if not file.is_file():
            return None
        content = memoryview(file.read_bytes())
        index, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if xxhash.xxh3_64_digest(index) != checksum:
            return None
        return self._faiss.deserialize_index(np.frombuffer(index, np.uint8))
