"""The facts of each task, read from `tasks/NAME.yaml`. Nothing about a year stands in Python.

Every fact has its `value`, its `source` and a `certainty`: `verified` (read in the source), `inferred` (follows from
what was read) or `recalled` (not confirmed). A fact that is not known is not there. A new year is a new file.

A file may say `extends: NAME` and state only what differs from that task. Blocks are joined key by key; lists and
single values replace those of the task; `null` removes a key. A fact that is stated again has a source and a certainty
of its own, and may leave out a `value` that stays. `submission tasks NAME` prints the whole.

To add the task of a new year:

1. Write `tasks/dcaseYEAR-TASK.yaml` with `name`, `title`, and `extends`, the task of the year before.
2. State every fact that differs, with its source and certainty: mostly `sets`, `label`, `metrics` (the first one
   ranks), `interval`, `baselines`, `package`, `excluded_ids` and `metadata`.
3. Read `submission tasks dcaseYEAR-TASK`, which prints all facts and reports what is wrong in the file.
4. Add a row to `EXPECTED` in `tests/submission/test_tasks.py`, and one to `LAYOUT` in `test_package.py`.

The set of metrics `dcaseYEAR` of `evaluation score` comes from the same file (`evaluation.metrics.sets`). A metric that
the kit does not have yet is added to `evaluation.metrics.catalogue` first.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from evaluation.data.dataset import SPLITS, Split
from evaluation.findings import BadRequest, Faulty, Finding, unknown_key
from evaluation.metrics import catalogue
from evaluation.statistics.intervals import METHODS

FOLDER = Path(__file__).parent / "tasks"
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast, where PyYAML has it

T = TypeVar("T")


def _known(names: Iterable[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_key(name, list(names), what))
        return name

    return AfterValidator(check)


def _fillable(pattern: str) -> str:
    known = ("author", "institute", "index", "label")
    for _, field, _, _ in string.Formatter().parse(pattern):
        if field is not None and field not in known:
            raise ValueError(unknown_key(field, known, "field"))
    return pattern


def _whose(pattern: str) -> str:
    names = {field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None}
    if "label" not in names and not {"author", "institute", "index"} <= names:
        raise ValueError("must have the field {label}, or {author}, {institute} and {index}")
    return pattern


def _folder(pattern: str) -> str:
    if not re.fullmatch(r"([^{}/]+/)+\{label\}", pattern):
        raise ValueError(f"must be a folder for each system in one for all, such as task6/{{label}}; found {pattern}")
    return pattern


def _label(pattern: str) -> str:
    fields = [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]
    if fields != ["author", "institute", "index"]:
        raise ValueError("must have the fields {author}, {institute} and {index}, in this order")
    return pattern


Pattern = Annotated[str, AfterValidator(_fillable)]  # of a file or folder: {author}, {institute}, {index}, {label}
OfSystem = Annotated[Pattern, AfterValidator(_whose)]  # of a file that each system has
Folder = Annotated[Pattern, AfterValidator(_folder)]
Label = Annotated[str, AfterValidator(_label)]
Separator = Annotated[str, _known(SEPARATORS, "separator")]
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]  # strictly a YAML list would be no tuple


class Strict(BaseModel, extra="forbid", frozen=True, strict=True):
    """A part of a task's file: no other keys, and no value taken for another kind."""


class Fact(Strict, Generic[T]):
    """Something that a task asks for, where that stands, and how sure it is."""

    value: T
    source: Annotated[str, Field(min_length=1)]
    certainty: Literal["verified", "inferred", "recalled"]


class Set(Strict):
    """One output of a system, named by the split that it answers."""

    rows: Fact[int] | None = None
    scored: Fact[int] | None = None  # how many of the rows are
    file: Fact[OfSystem]

    def is_named(self, name: str) -> bool:
        """Whether a file is named as this output is to be."""
        return fields(self.file.value, name) is not None


class Package(Strict):
    """The zip file, and where things lie in it."""

    file: Fact[Pattern]
    folder: Fact[Folder]  # of one system: its outputs and its metadata
    metadata: Fact[OfSystem]
    report: Fact[Pattern]


class Excluded(Strict):
    """A list of Freesound sounds that must not be trained on."""

    url: Fact[str]
    column: Fact[str | int]  # its name; its number from 1 where that is not known


class Figures(Strict):
    """The figures of a published system, in the units of `evaluation`.

    Attributes:
        split: The kit's name of the split that they were measured on.
        clips: The number of clips of that split, by which it is told from splits of other data.
        queries: Its number of queries; None in captioning tasks.
        system: The name of the system.
        metrics: The figures.
    """

    split: Annotated[str, _known(SPLITS, "split")]
    clips: Annotated[int, Field(ge=1)]
    queries: Annotated[int, Field(ge=1)] | None = None
    system: str
    metrics: dict[str, float]

    def measured_on(self, split: Split) -> bool:
        """Return whether a split is the one that the figures were measured on, by name and numbers."""
        if (split.name, len(split.clips)) != (self.split, self.clips):
            return False
        return self.queries is None or len(split.truth) == self.queries


class Key(Strict):
    """A key of the metadata file, and those below it."""

    need: Literal["required", "nullable", "optional"]
    type: Literal["text", "number", "integer", "yes-no"] = "text"
    most: int | None = None  # characters
    hint: str = ""  # goes into the file as a comment
    metric: str = ""  # whose value belongs there, by its name in `evaluation`
    many: bool = False  # a list of these
    split: Annotated[str, _known(SPLITS, "split")] = ""  # of the data folder, which is described there
    keys: dict[str, "Key"] = {}


class Task(Strict):
    """What one task of one year asks for; the fields are described in its file."""

    name: str
    title: str
    kind: Literal["captioning", "retrieval"]
    form: Fact[Literal["captions", "top-k", "matrix"]]
    columns: Fact[Texts]
    k: Fact[Annotated[int, Field(ge=1)]] | None = None
    separator: Fact[Separator]
    separators_accepted: Fact[Texts]
    line_end: Fact[Literal["\n", "\r\n"]]
    sets: dict[Annotated[str, _known(SPLITS, "split")], Set]
    label: Fact[Label]
    systems: Fact[int]
    metrics: Fact[Texts]
    interval: Fact[Annotated[str, _known(METHODS, "method")]] | None = None
    baselines: Annotated[tuple[Fact[Figures], ...], Field(strict=False)] = ()
    characteristics: Fact[Texts]
    package: Package
    excluded_ids: Excluded | None = None
    metadata: dict[str, Fact[Key]]

    @model_validator(mode="after")
    def _agrees(self) -> "Task":
        form = self.form.value
        wanted = [[], {"captions": [], "top-k": ["{rank}"], "matrix": ["{clip}"]}[form]]
        if [re.findall(r"\{\w*\}", column) for column in self.columns.value] != wanted:
            field = f", with {wanted[1][0]} in the second" if wanted[1] else ""
            raise ValueError(f"columns.value must be two for the form {form}, the key's and the answer's{field}")
        if (form == "captions") != (self.kind == "captioning"):
            raise ValueError(f"form.value must go with the kind {self.kind}; found {form}")
        if (form == "top-k") != (self.k is not None):
            raise ValueError("k must be there for the form top-k, and for no other")
        for path in self.characteristics.value:
            self.key(path)
        for name in self.metrics.value:
            self._metric("metrics.value", name)
        for number, baseline in enumerate(self.baselines, start=1):
            for name, figure in baseline.value.metrics.items():
                path = f"baselines.{number}.value.metrics"
                metric = self._metric(path, name)
                if not metric.low <= figure <= metric.high:
                    raise ValueError(f"{path}.{name} must be {metric.values}; found {figure}")
        if self.separator.value not in self.separators_accepted.value:
            raise ValueError("separators_accepted.value must hold separator.value")
        return self

    def _metric(self, path: str, name: str) -> catalogue.Metric:
        """Return the facts about a metric of the task's kind; ValueError with the path where it is unknown."""
        metrics = catalogue.CAPTIONING if self.kind == "captioning" else catalogue.RETRIEVAL
        kind, _, _ = name.partition("@")
        if kind not in metrics:
            raise ValueError(f"{path}: {unknown_key(kind, list(metrics), 'metric')}")
        return metrics[kind]

    def header(self, file_names: Iterable[str] = ()) -> list[str]:
        """The first line of an output file; of a matrix for these clips."""
        key, answer = self.columns.value
        if self.form.value == "matrix":
            return [key, *(answer.replace("{clip}", name) for name in file_names)]
        ranks = range(1, self.k.value + 1) if self.k else (0,)
        return [key, *(answer.replace("{rank}", str(rank)) for rank in ranks)]

    def label_of(self, pattern: str, name: str) -> str | None:
        """The label of the system whose file has a name made from a pattern; None where it was not."""
        found = fields(pattern, name)
        return found and (found.get("label") or self.label.value.format(**found))

    def names(self, label: str) -> dict[str, str] | None:
        """Split a label into its author, institute and index, and itself; None where it breaks the rule.

        The index runs from 1 to the number of systems.
        """
        found = fields(self.label.value, label)
        if found is None or found["index"] not in map(str, range(1, self.systems.value + 1)):
            return None
        return {**found, "label": label}

    @property
    def whole(self) -> Key:
        """A metadata file as one key."""
        return Key(need="required", keys={name: fact.value for name, fact in self.metadata.items()})

    def key(self, path: str) -> Key:
        """The metadata key of a path such as `system.description.loss_function`; ValueError where there is none."""
        key = self.whole
        for name in path.split("."):
            if name not in key.keys:
                raise ValueError(f"{path}: {unknown_key(name, list(key.keys))}")
            key = key.keys[name]
        return key

    def facts(self) -> list[tuple[str, Fact]]:
        """Every fact with the path of its key."""
        return list(_facts(self, ""))


def fields(pattern: str, text: str) -> dict[str, str] | None:
    """What the fields of a pattern are in a text made from it; None where it was not.

    No field holds a `/`, and none but the label a `_`.

    >>> fields("{author}_{institute}_task6_{index}", "Wu_Mila_task6_1")
    {'author': 'Wu', 'institute': 'Mila', 'index': '1'}
    """
    rule = "".join(
        re.escape(before) + (f"(?P<{field}>[^{'' if field == 'label' else '_'}/]+)" if field else "")
        for before, field, _, _ in string.Formatter().parse(pattern)
    )
    found = re.fullmatch(rule, text)
    return found.groupdict() if found else None


def _facts(part: object, path: str) -> Iterator[tuple[str, Fact]]:
    if isinstance(part, Fact):
        yield path, part
    elif isinstance(part, BaseModel | Mapping):
        for key, value in part.items() if isinstance(part, Mapping) else part:
            yield from _facts(value, f"{path}.{key}".lstrip("."))
    elif isinstance(part, tuple):
        for number, value in enumerate(part, start=1):
            yield from _facts(value, f"{path}.{number}")


def names() -> list[str]:
    """Every task that there is a file for."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Task:
    """Read a task's facts.

    Raises:
        BadRequest: There is no such task; with those that there are.
        Faulty: Its file does not hold; every finding has the path of its key.
    """
    if name not in names():
        raise BadRequest(unknown_key(name, names(), "task"))
    path = FOLDER / f"{name}.yaml"
    try:
        task = Task.model_validate(_facts_of(name))
    except ValidationError as error:
        findings = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"] if part != "[key]")
            findings.append(Finding(str(path), column=key, message=fault["msg"].removeprefix("Value error, ")))
        raise Faulty(findings) from None
    if task.name != name:
        raise Faulty([Finding(str(path), column="name", message=f"must be {name}, as the file; found {task.name}")])
    return task


def _facts_of(name: str, extended_by: tuple[str, ...] = ()) -> object:
    """Return the content of a task's file, joined with that of the task that it extends.

    Args:
        name: The task.
        extended_by: The tasks whose files led here, so that a circle is noticed.

    Raises:
        Faulty: The file is not YAML, extends a task that does not exist or itself, or states a fact again without a
            source and a certainty.
    """
    path = FOLDER / f"{name}.yaml"
    facts = _load_yaml(path)
    if not isinstance(facts, dict) or "extends" not in facts:
        return facts
    base = facts.pop("extends")
    chain = (*extended_by, name)
    if base not in names():
        message = f"must name another task; {unknown_key(str(base), names(), 'task')}"
        raise Faulty([Finding(str(path), column="extends", message=message)])
    if base in chain:
        message = f"must not lead back to the task itself; found {' -> '.join([*chain, base])}"
        raise Faulty([Finding(str(path), column="extends", message=message)])
    inherited = _facts_of(base, chain)
    if not isinstance(inherited, dict):
        raise Faulty([Finding(str(FOLDER / f"{base}.yaml"), message="must be a mapping of keys to facts")])
    if findings := [*_facts_without_source(inherited, facts, "", str(path))]:
        raise Faulty(findings)
    return _joined(inherited, facts)


def _load_yaml(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506, both are safe
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        reason = getattr(error, "problem", None) or error
        raise Faulty([Finding(str(path), line, message=f"is no YAML: {reason}")]) from None


def _joined(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return a block of facts with the changes of a task that extends it."""
    joined = dict(base)
    for key, value in changes.items():
        inherited = joined.get(key)
        if value is None:
            joined.pop(key, None)
        elif isinstance(value, dict) and isinstance(inherited, dict):
            joined[key] = _joined(inherited, value)
        else:
            joined[key] = value
    return joined


def _facts_without_source(
    base: Mapping[str, object], changes: Mapping[str, object], path: str, file: str
) -> Iterator[Finding]:
    """Find facts that are stated again and rest on the source of the task that is extended."""
    for key, value in changes.items():
        inherited = base.get(key)
        if not isinstance(value, dict) or not isinstance(inherited, dict):
            continue
        place = f"{path}.{key}".lstrip(".")
        if "certainty" not in inherited:
            yield from _facts_without_source(inherited, value, place, file)
            continue
        for part in ("source", "certainty"):
            if part not in value:
                message = f"must be given where a fact is stated again; add {part} to {place}"
                yield Finding(file, column=f"{place}.{part}", message=message)
