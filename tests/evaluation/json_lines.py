"""Files of JSON lines for tests."""

import json


def written(folder, rows, name="submission.jsonl"):
    """Write JSON lines to a folder; rows are objects, or texts that are written as they are."""
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path
