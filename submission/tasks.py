"""The facts of each task, which are read from `tasks/NAME.yaml`. The task of a new year needs only a new file.

Every fact has a `value`, a `source` and a `certainty`: `verified` (read in the source), `inferred` (follows from
something that was read) or `recalled` (not confirmed). Facts that are not known are not in the file.

A file with `extends: NAME` states only the differences from the task NAME:

- Blocks are joined key by key.
- Lists and single values replace those of the other task.
- `null` removes a key.
- A fact that is stated again needs its own source and certainty. Its `value` can be left out if it is the same as in
  the other task.

`dcase-submission tasks NAME` prints all facts of a task. `dcase-submission tasks --fields` explains every field.

To add the task of a new year:

1. Write `tasks/dcaseYEAR-TASK.yaml` with `name`, `title` and `extends` (the task of the year before).
2. State every fact that differs, with its source and certainty. The facts that differ are mostly `sets`, `label`,
   `metrics` (the first one ranks), `interval`, `baselines`, `package`, `excluded_ids` and `metadata`.
3. Run `dcase-submission tasks dcaseYEAR-TASK`. It prints all facts and reports errors in the file.
4. Add the task to the tests that list all tasks: `EXPECTED` in `tests/submission/test_tasks.py`, `LAYOUT` in
   `test_package.py`, and the sets in `tests/evaluation/metrics/test_sets.py`.

`evaluation.metrics.sets` reads the metric set `dcaseYEAR` of `dcase-evaluation score` from the same file. If a metric
is new to the kit, add it to `evaluation.metrics.catalogue` first.
"""

import re
import string
import typing
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from evaluation.data.dataset import SPLITS
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import catalogue
from evaluation.metrics.sets import check_extends
from evaluation.statistics.intervals import METHODS
from evaluation.text import quoted, unknown_key
from submission.kinds import KINDS
from submission.outputs.form import Form
from submission.outputs.tables import SEPARATORS

FOLDER = Path(__file__).parent / "tasks"
FACTS_OF_FORMS = ("k", "scores", "separator", "separators_accepted")  # facts that only some forms of outputs have
PLACEHOLDERS = ("author", "institute", "index", "label")  # names that may be in braces in a pattern

# The C loader is several times as fast. Some builds of PyYAML lack it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

T = TypeVar("T")


def _one_of(names: Iterable[str], kind: str) -> AfterValidator:
    """Return a validator that accepts only these names, and suggests one of them for a misspelt name."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_key(name, list(names), kind))
        return name

    return AfterValidator(check)


def _placeholders(pattern: str) -> list[str]:
    """Return the names in braces, in the order of the pattern."""
    return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]


def _check_pattern(pattern: str) -> str:
    """Check that all names in the braces of a pattern are known."""
    for name in _placeholders(pattern):
        if name not in PLACEHOLDERS:
            raise ValueError(unknown_key(name, PLACEHOLDERS, "field"))
    return pattern


def _check_system_pattern(pattern: str) -> str:
    """Check that a pattern gives different file names to any two systems."""
    names = set(_placeholders(pattern))
    if "label" not in names and not {"author", "institute", "index"} <= names:
        raise ValueError("must have the field {label}, or {author}, {institute} and {index}")
    return pattern


def _check_folder(pattern: str) -> str:
    """Check that the folder of a system is inside the task's folder."""
    if not re.fullmatch(r"([^{}/]+/)+\{label\}", pattern):
        message = f"must be a folder for each system inside the task's folder, such as task6/{{label}}; found {pattern}"
        raise ValueError(message)
    return pattern


def _check_label(pattern: str) -> str:
    """Check that a label has an author, an institute and an index, in this order."""
    if _placeholders(pattern) != ["author", "institute", "index"]:
        raise ValueError("must have the fields {author}, {institute} and {index}, in this order")
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
SystemPattern = Annotated[Pattern, AfterValidator(_check_system_pattern)]
FolderPattern = Annotated[Pattern, AfterValidator(_check_folder)]
LabelPattern = Annotated[str, AfterValidator(_check_label)]
Separator = Annotated[str, _one_of(SEPARATORS, "separator")]
SplitName = Annotated[str, _one_of(SPLITS, "split")]
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]  # strict mode accepts no YAML list as a tuple
PositiveInt = Annotated[int, Field(ge=1)]


class Strict(BaseModel, extra="forbid", frozen=True, strict=True):
    """A part of a task's file. It does not accept unknown keys, or values of another type."""


class Fact(Strict, Generic[T]):
    """A rule of a task, with its source and its certainty."""

    value: T = Field(description="the fact itself")
    source: str = Field(min_length=1, description="where the fact is stated")
    certainty: Literal["verified", "inferred", "recalled"] = Field(description="how certain the fact is")


class Output(Strict):
    """One output file of a system. It has the predictions for one split."""

    rows: Fact[int] | None = Field(None, description="number of rows, not counting the header")
    scored: Fact[int] | None = Field(None, description="number of rows that are scored, if not all rows are scored")
    file: Fact[SystemPattern] = Field(description="pattern of the file's name")

    def is_named(self, name: str) -> bool:
        """Return whether the name of a file fits the output's pattern."""
        return match_pattern(self.file.value, name) is not None


class PackageFacts(Strict):
    """The names of the zip of a package and of the files in it."""

    file: Fact[Pattern] = Field(description="pattern of the zip's name")
    folder: Fact[FolderPattern] = Field(description="pattern of the folder with a system's outputs and metadata")
    metadata: Fact[SystemPattern] = Field(description="pattern of the metadata file's name, in the system's folder")
    report: Fact[Pattern] = Field(description="pattern of the technical report's path in the zip")


class Excluded(Strict):
    """The list of Freesound sounds that systems must not be trained on."""

    url: Fact[str] = Field(description="address where the list is published")
    column: Fact[str | int] = Field(description="column of the ids: its name, or if that is unknown, its number from 1")


class PublishedResults(Strict):
    """The results of a published system, in the units of `evaluation`."""

    split: SplitName = Field(description="name in the kit of the split for which the results were measured")
    clips: PositiveInt | None = Field(
        None, description="number of clips of that split, which must be the same for a comparison"
    )
    queries: PositiveInt | None = Field(None, description="number of queries of that split, in retrieval tasks")
    questions: PositiveInt | None = Field(None, description="number of questions of that split, in question answering")
    system: str = Field(description="name of the system")
    metrics: dict[str, float] = Field(description="value of each metric")

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers of clips, queries or questions of the split, as far as they are given."""
        numbers = {"clips": self.clips, "queries": self.queries, "questions": self.questions}
        return {name: number for name, number in numbers.items() if number is not None}

    @model_validator(mode="after")
    def _has_size(self) -> "PublishedResults":
        """Check that a size is given. Otherwise results of any split with this name would be compared."""
        if not self.sizes:
            raise ValueError("must have the number of clips, queries or questions of the split; add one")
        return self


class Track(Strict):
    """A group of systems that has a ranking of its own."""

    name: str = Field(description="name of the track in tables")
    below: PositiveInt | None = Field(None, description="limit that the number of a system must be below")
    most: PositiveInt | None = Field(None, description="largest number that a system may have")

    @model_validator(mode="after")
    def _has_limit(self) -> "Track":
        """Check that the track has exactly one limit."""
        if (self.below is None) == (self.most is None):
            raise ValueError("must have one limit, below or most")
        return self

    def __str__(self) -> str:
        """Return the name and the limit."""
        if self.below is not None:
            return f"{self.name} (below {self.below:,})"
        return f"{self.name} (at most {self.most:,})"

    def admits(self, number: int) -> bool:
        """Return whether a system with this number keeps the limit."""
        return number <= self.largest

    @property
    def largest(self) -> int:
        """The largest number that a system may have."""
        if self.below is not None:
            return self.below - 1
        return cast(int, self.most)


class Tracks(Strict):
    """The tracks of a task, which are ranked apart."""

    key: Fact[str] = Field(description="metadata key with the whole number that decides the track of a system")
    limits: Fact[Annotated[tuple[Track, ...], Field(strict=False, min_length=1)]] = Field(
        description="the tracks; a system is in the first one whose limit it keeps"
    )
    overall: Fact[bool] = Field(description="whether there is also a ranking of the systems of all tracks")

    @model_validator(mode="after")
    def _limits_rise(self) -> "Tracks":
        """Check that no system is in an earlier track only because the limits are in the wrong order."""
        for track, following in pairwise(self.limits.value):
            if following.largest <= track.largest:
                raise ValueError(f"limits must rise; found {following} after {track}: put the smaller limit first")
        return self

    def no_track(self, number: str) -> str:
        """Return the message about a system that is in no track, without advice.

        Args:
            number: The value of the metadata key, as text; empty if it is missing.
        """
        tracks = ", ".join(map(str, self.limits.value))
        found = quoted(number) if number else "no value"
        return f"must be a whole number within the limit of a track: {tracks}; found {found}: the system is in no track"

    def track_with(self, number: str) -> str:
        """Return the name of the track for a number, or an empty text if the number is in no track.

        Args:
            number: The value of the metadata key, as text.
        """
        if number.isascii() and number.isdigit():
            for track in self.limits.value:
                if track.admits(int(number)):
                    return track.name
        return ""


class Key(Strict):
    """A key of the metadata file, with the keys below it."""

    need: Literal["required", "nullable", "optional"] = Field(
        description="required: must have a value; nullable: must be there, but may be null; optional: may be missing"
    )
    type: Literal["text", "number", "integer", "yes-no"] = Field("text", description="type of the value")
    most: int | None = Field(None, description="maximum number of characters")
    hint: str = Field("", description="explanation, written as a comment next to the key in the metadata file")
    metric: str = Field("", description="name in `evaluation` of the metric whose value the key has")
    many: bool = Field(False, description="whether the value is a list")
    split: SplitName = Field("", description="split of the data folder that the key describes")
    keys: dict[str, "Key"] = Field({}, description="keys below this key")


class Task(Strict):
    """The rules of one task in one year."""

    name: str = Field(description="name of the task and of its file")
    title: str = Field(description="title for tables and pages")
    kind: Annotated[str, _one_of(KINDS, "kind")] = Field(
        description="kind of systems, which decides how they are scored"
    )
    form: Fact[str] = Field(
        description="form of an output: captions (a caption for each clip), top-k (the k best clips of each query), "
        "matrix (all similarities), choices (an option for each question), or windows (the best windows of each query)"
    )
    columns: Fact[Texts] = Field(
        description="name of the first column, and pattern of the others: {rank} is 1 to k, {clip} a clip's name; in "
        "the form windows, the keys of the query's id, the query, the recording and the windows"
    )
    k: Fact[PositiveInt] | None = Field(
        None, description="number of clips for each query in the form top-k, or maximum number of windows in windows"
    )
    scores: Fact[bool] | None = Field(
        None, description="whether each window ends with its score, in the form windows only"
    )
    separator: Fact[Separator] | None = Field(None, description="separator of columns that the kit writes, in tables")
    separators_accepted: Fact[Texts] | None = Field(
        None, description="separators of columns that the kit accepts, in tables"
    )
    line_end: Fact[Literal["\n", "\r\n"]] = Field(description="end of each line")
    sets: dict[SplitName, Output] = Field(description="outputs; each key is the name in the kit of the output's split")
    label: Fact[LabelPattern] = Field(description="pattern of a system's label")
    systems: Fact[int] = Field(description="maximum number of systems for each team")
    metrics: Fact[Texts] = Field(description="the metrics of the results table; the first one ranks")
    tracks: Tracks | None = Field(None, description="tracks that are ranked apart")
    interval: Fact[Annotated[str, _one_of(METHODS, "method")]] | None = Field(
        None, description="method of the confidence intervals"
    )
    baselines: tuple[Fact[PublishedResults], ...] = Field(
        (), strict=False, description="published results of the baselines"
    )
    characteristics: Fact[Texts] = Field(description="metadata keys that the table of systems shows")
    package: PackageFacts = Field(description="names of the zip and of the files in it")
    publication: Fact[str] | None = Field(None, description="what is published of a submission, and its licence")
    excluded_ids: Excluded | None = Field(None, description="list of sounds that systems must not be trained on")
    metadata: dict[str, Fact[Key]] = Field(description="blocks of a system's metadata file")

    @model_validator(mode="after")
    def _agrees(self) -> "Task":
        """Check that the facts agree with each other."""
        if self.form.value not in KINDS[self.kind].forms:
            forms = " or ".join(KINDS[self.kind].forms)
            raise ValueError(f"form.value must fit the kind {self.kind}, which has {forms}; found {self.form.value}")
        self.output_form.check_facts(self)
        for name in FACTS_OF_FORMS:
            is_given = getattr(self, name) is not None
            if name in self.output_form.facts and not is_given:
                raise ValueError(f"{name} must be given for the form {self.form.value}")
            if is_given and name not in self.output_form.facts:
                raise ValueError(f"{name} must not be given for the form {self.form.value}; remove it")
        for path in self.characteristics.value:
            self.key(path)
        if self.tracks:
            self.key(self.tracks.key.value)
        for name in self.metrics.value:
            self._metric("metrics.value", name)
        for number, baseline in enumerate(self.baselines, start=1):
            for name, figure in baseline.value.metrics.items():
                path = f"baselines.{number}.value.metrics"
                metric = self._metric(path, name)
                if not metric.low <= figure <= metric.high:
                    raise ValueError(f"{path}.{name} must be {metric.values}; found {figure}")
        return self

    def _metric(self, path: str, name: str) -> catalogue.Metric:
        """Return a metric for tasks of this kind.

        Raises:
            ValueError: The metric is unknown. The message begins with the path in the file.
        """
        metrics = KINDS[self.kind].metrics
        kind, _, _ = name.partition("@")
        if kind not in metrics:
            raise ValueError(f"{path}: {unknown_key(kind, list(metrics), 'metric')}")
        return metrics[kind]

    def header(self, file_names: Iterable[str] = ()) -> list[str]:
        """Return the first line of an output file.

        Args:
            file_names: The names of the clips. Only the form "matrix" needs them.
        """
        header: list[str] = []
        for column in self.columns.value:
            if "{clip}" in column:
                header += [column.replace("{clip}", name) for name in file_names]
            elif "{rank}" in column and self.k:
                header += [column.replace("{rank}", str(rank)) for rank in range(1, self.k.value + 1)]
            else:
                header.append(column)
        return header

    @property
    def about(self) -> str:
        """What the systems do and what a team submits, for participants."""
        submitted = self.output_form.submitted
        if self.k:
            submitted = submitted.format(k=self.k.value)
        return KINDS[self.kind].about.format(submitted=submitted)

    @property
    def output_form(self) -> Form:
        """The form of the task's output files."""
        return KINDS[self.kind].forms[self.form.value]

    def measured_on(self, results: PublishedResults, split: Any) -> bool:
        """Return whether published results were measured on a split: its name and sizes must be the same."""
        sizes = KINDS[self.kind].sizes(split)
        return results.split == split.name and results.sizes.items() <= sizes.items()

    def label_of(self, pattern: str, name: str) -> str | None:
        """Return the label in the name of a system's file, or None if the name does not fit the pattern."""
        fields = match_pattern(pattern, name)
        if fields is None:
            return None
        return fields.get("label") or self.label.value.format(**fields)

    def label_fields(self, label: str) -> dict[str, str] | None:
        """Return a dict with the author, institute and index in a label, and with the label itself.

        The result is None if the label breaks the task's rule. The index must be from 1 to the maximum number of
        systems.
        """
        fields = match_pattern(self.label.value, label)
        if fields is None or fields["index"] not in map(str, range(1, self.systems.value + 1)):
            return None
        return {**fields, "label": label}

    @property
    def whole(self) -> Key:
        """The key above all blocks of the metadata file."""
        return Key(need="required", keys={name: fact.value for name, fact in self.metadata.items()})

    def key(self, path: str) -> Key:
        """Return the metadata key at a path such as `system.description.loss_function`.

        Raises:
            ValueError: There is no such key.
        """
        key = self.whole
        for name in path.split("."):
            if name not in key.keys:
                raise ValueError(f"{path}: {unknown_key(name, list(key.keys))}")
            key = key.keys[name]
        return key

    def facts(self) -> list[tuple[str, Fact]]:
        """Return every fact with its path."""
        return list(_facts(self, ""))


def match_pattern(pattern: str, text: str) -> dict[str, str] | None:
    """Return a dict from each name in a pattern's braces to its value in a text.

    The result is None if the text does not fit the pattern. Values cannot contain `/`. Only that of `label` can contain
    `_`.

    >>> match_pattern("{author}_{institute}_task6_{index}", "Wu_Mila_task6_1")
    {'author': 'Wu', 'institute': 'Mila', 'index': '1'}
    """
    rule = ""
    for before, field, _, _ in string.Formatter().parse(pattern):
        rule += re.escape(before)
        if field == "label":
            rule += "(?P<label>[^/]+)"
        elif field:
            rule += f"(?P<{field}>[^_/]+)"
    match = re.fullmatch(rule, text)
    if match:
        return match.groupdict()
    return None


def _facts(part: object, path: str) -> Iterator[tuple[str, Fact]]:
    """Yield every fact in a part of a task, with its path."""
    if isinstance(part, Fact):
        yield path, part
        return
    below: Iterable[tuple[object, object]] = ()
    if isinstance(part, Mapping):
        below = part.items()
    elif isinstance(part, BaseModel):
        below = part
    elif isinstance(part, tuple):
        below = enumerate(part, start=1)
    for key, value in below:
        yield from _facts(value, f"{path}.{key}".lstrip("."))


def describe_fields() -> list[tuple[str, str]]:
    """Return the path and the description of every field of a task file, from the schema.

    In a path, `NAME` stands for any key, and `N` for the index of a list entry (from 1). Fields that may be missing are
    marked as optional.
    """
    return list(_describe_model(Task, ""))


def _describe_model(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the description of every field of a model at a path."""
    for name, field in model.model_fields.items():
        here = f"{path}.{name}".lstrip(".")
        description = str(field.description)
        if not field.is_required():
            description += " (optional)"
        inner, below = _inner_model(field.annotation)
        if inner is not None and issubclass(inner, Fact):
            description += " (a fact)"
            inner, below_value = _inner_model(inner.model_fields["value"].annotation)
            below += ".value" + below_value
        yield here, description
        if inner is not None and inner is not model:  # `Key` contains itself; describe it once
            yield from _describe_model(inner, here + below)


def _inner_model(annotation: object) -> tuple[type[BaseModel] | None, str]:
    """Return the model in a type such as `dict[str, Output] | None`, and the path to it.

    The model is None if the type does not contain one.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    steps: dict[object, str] = {dict: ".NAME", tuple: ".N"}
    step = steps.get(typing.get_origin(annotation), "")
    for argument in typing.get_args(annotation):
        model, path = _inner_model(argument)
        if model is not None:
            return model, step + path
    return None, ""


def names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Task:
    """Read a task's facts.

    Raises:
        BadRequest: There is no such task; the message lists the names.
        Faulty: The task's file is not YAML, its chain of `extends` is not valid, or it does not fit the schema. The
            exception lists all findings, each with the path of its key.
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
        message = f"must be {name}, the name of the file; found {task.name}"
        raise Faulty([Finding(str(path), column="name", message=message)])
    return task


def _facts_of(name: str, extended_by: tuple[str, ...] = ()) -> object:
    """Return the content of a task's file, joined with that of the task that it extends.

    Args:
        name: The task.
        extended_by: The chain of tasks that led to this one through `extends`. A task must not extend a task of this
            chain.

    Raises:
        Faulty: The file is not YAML; it extends an unknown task, or leads back to itself; or it states a fact again
            without a source or certainty of its own.
    """
    path = FOLDER / f"{name}.yaml"
    facts = _load_yaml(path)
    if not isinstance(facts, dict) or "extends" not in facts:
        return facts
    base = str(facts.pop("extends"))
    chain = (*extended_by, name)
    check_extends(base, chain, names(), FOLDER)
    inherited = _facts_of(base, chain)
    if not isinstance(inherited, dict):
        raise Faulty([Finding(str(FOLDER / f"{base}.yaml"), message="must be a mapping of keys to facts")])
    findings = list(_facts_without_source(inherited, facts, "", str(path)))
    if findings:
        raise Faulty(findings)
    return _joined(inherited, facts)


def _load_yaml(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506, both loaders are safe
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = 0
        mark = getattr(error, "problem_mark", None)
        if mark:
            line = mark.line + 1
        reason = getattr(error, "problem", None) or error
        raise Faulty([Finding(str(path), line, message=f"is not valid YAML: {reason}")]) from None


def _joined(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return a block of facts with the changes that an extending task makes to it."""
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
    """Yield a finding for each fact that is stated again without a source or certainty of its own.

    Args:
        base: The block of the task that is extended.
        changes: The same block of the extending task.
        path: The path of the block.
        file: The file of the extending task.
    """
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
