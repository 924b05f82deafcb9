"""An approximate index of embeddings, which makes search in millions of clips faster. It needs faiss.

The index is a graph of similar clips (HNSW, Malkov and Yashunin 2018). A search visits only a small part of the graph,
so it may miss some of the best clips.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from evaluation.files import replacing
from evaluation.findings import BadRequest

LINKS = 32  # number of links from each clip to similar clips
VISITED = 128  # number of candidates that a search keeps; with more candidates, search is slower and misses fewer clips
CHECKSUM_BYTES = 8
NO_NEIGHBOUR = -1  # stands for a missing result if a search finds too few clips


class Neighbours:
    """An index of embeddings, which is built once and stored in a file. The file name depends on the embeddings.

    Args:
        embeddings: (clips, size) float32.
        folder: The folder for the file. It must exist.

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
            number: Maximum number of clips to return for each query.

        Returns:
            Two arrays of shape (queries, n), where n is the smaller of `number` and the number of clips. If a search
            finds fewer than n clips, the remaining indices are `NO_NEIGHBOUR`.
        """
        number = min(number, self._index.ntotal)
        self._index.hnsw.efSearch = max(VISITED, number)
        scores, indices = self._index.search(queries, number)
        return indices, scores

    def _write(self, file: Path) -> None:
        """Write the index to a file, followed by a checksum of its bytes."""
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
