"""The results of a search, as a table or as a JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path

from evaluation.files import replacing
from evaluation.text import cut, printable, table
from systems.search.collection import Match

CAPTION_WIDTH = 80  # maximum number of characters of a caption in the table


def as_table(matches: Sequence[Match]) -> str:
    """Return a table with the rank, name, score and first caption (if there is one) of each clip."""
    has_captions = any(match.caption for match in matches)
    headers = ["rank", "name", "score"]
    if has_captions:
        headers.append("caption")
    rows = []
    for rank, match in enumerate(matches, start=1):
        row = [str(rank), printable(match.file_name), f"{match.score:.3f}"]
        if has_captions:
            row.append(printable(cut(match.caption or "", CAPTION_WIDTH)))
        rows.append(row)
    return table(rows, headers, numbers=[0, 2])


def write_json(file: Path, query: str, matches: Sequence[Match]) -> None:
    """Write the results as JSON, with scores at full precision.

    Args:
        file: The output file.
        query: The text, or the path of the audio file, that was searched for.
        matches: The clips, best first.
    """
    results = []
    for rank, match in enumerate(matches, start=1):
        results.append({"rank": rank, "file_name": match.file_name, "score": match.score, "caption": match.caption})
    with replacing(file) as part:
        part.write_text(json.dumps({"query": query, "results": results}, indent=1) + "\n", encoding="utf-8")
