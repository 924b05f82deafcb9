"""The report of a benchmark: a file with the rows that were measured, which a later benchmark can be compared with."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from bench.measuring import Row
from evaluation.files import no_file, replacing
from evaluation.findings import BadRequest
from evaluation.text import cut, table

HEADERS = ["measure / compared with", "kit", "other", "ratio", "target", "", "note"]
COMPARED_HEADERS = ["measure / compared with", "kit before", "kit now", "other before", "other now"]
RATIO_HEADERS = ["ratio before", "ratio now", "target", ""]


class Report(BaseModel, extra="forbid", frozen=True):
    """The rows that a benchmark measured, and the machine that it ran on.

    Attributes:
        machine: The processor, its cores, the load before the benchmark, and the operating system.
        versions: The versions of Python and of the libraries.
        rows: The rows, in the order in which they were measured.
    """

    machine: str
    versions: str
    rows: tuple[Row, ...] = ()

    def save(self, path: Path) -> None:
        """Write the report as JSON, completely or not at all."""
        with replacing(path) as part:
            part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def table(self) -> str:
        """Return a text table of all rows."""
        return table([row.cells() for row in self.rows], HEADERS, numbers=(1, 2, 3, 4))


def read_report(path: Path) -> Report:
    """Read what `Report.save` wrote.

    Raises:
        BadRequest: There is no such file, or it is not a report.
    """
    if not path.is_file():
        raise no_file(path, "a report that --json wrote")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        found = cut(f"{place}: {first['msg']}".removeprefix(": "))
        raise BadRequest(f"{path}: must be a report of `python -m bench --json`; {found}: give another file") from None


def changes(before: Report, now: Report) -> str:
    """Return a text table that shows the rows of a report next to the same rows of an earlier one.

    Two rows are the same if they have the same description. Rows that only the later report contains show empty values.
    Rows that only the earlier report contains are left out, because a benchmark may take only some of the measures.
    """
    earlier = {row.what: row for row in before.rows}
    rows = []
    for row in now.rows:
        old = earlier.get(row.what, Row(row.what, ""))
        mark = row.cells()[5]
        rows.append([row.what, old.ours, row.ours, old.theirs, row.theirs, old.ratio, row.ratio, row.target, mark])
    return table(rows, [*COMPARED_HEADERS, *RATIO_HEADERS], numbers=range(1, 8))
