"""Data folders in Clotho's layout, which captioning and retrieval share."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from evaluation.data.dataset import BLIND, Dataset, Split, read_dataset
from evaluation.data.tables import write_table
from evaluation.findings import BadRequest
from submission.kinds.kind import Kind


class ClothoKind(Kind, ABC):
    """A kind of task whose data folders have Clotho's layout."""

    def read_data(self, folder: Path, name: str = "") -> Dataset:
        """Read a data folder in Clotho's layout. The audio files need not be there."""
        if name:
            return read_dataset(folder, name, sound=False)
        return read_dataset(folder, sound=False)

    def sizes(self, split: Split) -> dict[str, int]:
        """Return the number of clips."""
        return {"clips": len(split.clips)}

    def picklable(self, split: Split) -> Split:
        """Return the same split without the clips' metadata and with plain dicts."""
        clips = tuple(replace(clip, metadata={}) for clip in split.clips)
        if split.relevance is None:
            return replace(split, clips=clips)
        relevance = {}
        for query, names in split.relevance.items():
            if isinstance(names, Mapping):
                names = dict(names)
            relevance[query] = names
        return replace(split, clips=clips, relevance=relevance)

    def write_data(self, split: Split, truth: bool, folder: Path) -> None:
        """Write a split in Clotho's layout.

        Args:
            split: The split.
            truth: Whether to write the captions and the relevance. Otherwise only the names of the clips and the
                queries are written, if the layout allows it: only a blind set can have clips without captions.
            folder: The data folder.

        Raises:
            BadRequest: Some clips have more captions than others.
        """
        has_captions = any(clip.captions for clip in split.clips)
        if split.name in BLIND and not (truth and has_captions):
            clips = folder / split.name
            clips.mkdir()
            for name in split.file_names:
                (clips / name).touch()
            queries = split.queries
            if truth:
                queries = split.blind_queries
            if queries:
                write_table(folder / f"{split.name}_captions.csv", [["caption"], *([query] for query in queries)])
        else:
            counts = {len(clip.captions) for clip in split.clips}
            if len(counts) > 1:
                message = f"every clip of {split.name} must have the same number of captions"
                raise BadRequest(f"{message}; found {min(counts)} to {max(counts)}: give another --truth folder")
            header = ["file_name", *(f"caption_{number}" for number in range(1, max(counts) + 1))]
            rows = [[clip.file_name, *clip.captions] for clip in split.clips]
            write_table(folder / f"captions_{split.name}.csv", [header, *rows])
        if truth and split.relevance is not None:
            _write_relevance(split.relevance, folder / f"relevance_{split.name}.csv")


def _write_relevance(relevance: Mapping[str, frozenset[str] | Mapping[str, float]], path: Path) -> None:
    """Write a relevance file, with grades if the first query has grades."""
    header = ["query", "audio_filenames"]
    rows = []
    for query, relevant in relevance.items():
        row = [query, repr(sorted(relevant))]
        if isinstance(relevant, Mapping):
            header = ["query", "audio_filenames", "grades"]
            row.append(repr([relevant[name] for name in sorted(relevant)]))
        rows.append(row)
    write_table(path, [header, *rows])
