"""Audio moment retrieval: the windows of a long recording that answer a query."""

import json
from pathlib import Path
from typing import Any

from evaluation.data.dataset import EVALUATION
from evaluation.moment_formats import Moments, read_moments
from submission.kinds.files import FileKind
from submission.outputs.form import FileSplit
from submission.outputs.windows import WindowLines


class MomentRetrieval(FileKind):
    """Audio moment retrieval from long recordings."""

    name = "moments"
    forms = {"windows": WindowLines()}  # noqa: RUF012, nothing changes it
    unit = "recording"
    memory = 2 * 2**30
    suffixes = (".jsonl",)
    answers = "windows of recordings"
    of_system = "windows of recordings"
    system = "moment retrieval system"
    scored = "windows"
    score_name = f"{EVALUATION}-moments"
    about = (
        "Audio moment retrieval systems find the moments of a long recording that a query in natural language "
        "describes. You run your system on the queries and recordings of the evaluation set and submit {submitted}. "
        "The windows are compared with those that people marked."
    )
    signature = "truth:moments"

    def sizes(self, split: FileSplit) -> dict[str, int]:
        """Return the number of queries."""
        return {"queries": len(split.content.queries)}

    def read_prediction(self, path: Path, split: FileSplit) -> Moments:
        """Read windows with or without scores."""
        return read_moments(path)

    def write_data(self, split: FileSplit, truth: bool, folder: Path) -> None:
        """Write the queries as JSON lines."""
        with (folder / f"{self.stem}_{split.name}.jsonl").open("w", encoding="utf-8") as file:
            for query in split.content.queries:
                content: dict[str, Any] = {
                    "qid": query.id,
                    "query": query.text,
                    "duration": query.seconds,
                    "vid": query.recording,
                }
                if truth:
                    content["relevant_windows"] = query.windows
                file.write(json.dumps(content, ensure_ascii=False) + "\n")
