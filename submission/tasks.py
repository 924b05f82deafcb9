"""The facts of each task, read from `tasks/NAME.yaml`. Nothing about a year stands in Python."""

from pathlib import Path
from typing import Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel

from evaluation.findings import BadRequest, unknown_key

FOLDER = Path(__file__).parent / "tasks"

T = TypeVar("T")


class Fact(BaseModel, Generic[T], extra="forbid", frozen=True):
    """Something that a task asks for, where that stands, and how sure it is."""

    value: T
    source: str
    certainty: Literal["verified", "inferred", "recalled"]


class Task(BaseModel, extra="forbid", frozen=True):
    """What one task of one year asks for; the fields are described in its file."""

    name: str
    title: str
    kind: Literal["retrieval"]
    query_column: Fact[str]
    answer_column: Fact[str]
    k: Fact[int]
    separator: Fact[str]
    queries: Fact[int]
    metrics: Fact[tuple[str, ...]]

    @property
    def header(self) -> list[str]:
        """The first line of an output file."""
        ranks = range(1, self.k.value + 1)
        return [self.query_column.value, *(self.answer_column.value.format(rank=rank) for rank in ranks)]


def names() -> list[str]:
    """Every task that there is a file for."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Task:
    """Read a task's facts, or raise BadRequest naming the tasks that there are."""
    if name not in names():
        raise BadRequest(unknown_key(name, names(), "task"))
    return Task.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))
