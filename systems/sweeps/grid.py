"""The sweep file, which describes the runs of a sweep. It is a YAML file with these keys:

    system: systems.atae                           # import name
    config: systems/atae/yamnet-minilm.yaml        # optional: config file that the keys below change
    set: {epochs: 4}                               # optional: config keys with the same value in all runs
    grid:                                          # factors; each has levels, which are
      loss: [contrastive, nt_xent]                 # the values of a config key, or
      text: {mean: {text_output: mean}, all: {}}   # names, each with the config keys that it changes
    seeds: 3                                       # number of seeds (3 means 0, 1 and 2), or a list: [0, 1, 2]
    metric: mAP@10                                 # the metric to compare, of captioning or of retrieval

A *setting* is a choice of one level for each factor. Without `search`, every combination of levels is a setting. With
`search`, Optuna chooses the settings, and a config key can have a range of numbers instead of levels:

    search: optuna
    ranges:
      learning_rate: {low: 1e-5, high: 1e-2, log: true}   # log: sample the logarithm evenly
      size: {low: 64, high: 1024}                         # whole numbers, because both ends are whole
    samples: 20                                           # number of settings; each is run with every seed

`stop_early: asha` stops runs that are not among the best after the same number of epochs (`systems.sweeps.tune`).
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from evaluation import yamlfiles
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import retrieval
from evaluation.metrics.catalogue import CAPTIONING
from evaluation.text import unknown_key
from systems import contract, listing

LONGEST_NAME = 200  # maximum number of bytes in the name of a run, which is a part of file names


class Range(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """A range of numbers from which a search chooses the value of a config key.

    The numbers are whole if both ends of the range are whole.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _check_ends(self) -> "Range":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 if log is true")
        return self

    @property
    def is_whole(self) -> bool:
        """True if the range has only whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Plan(BaseModel, extra="forbid", frozen=True):
    """The content of a sweep file."""

    system: str
    config: Path | None = None
    set: dict[str, Any] = {}
    grid: dict[str, dict[str, dict[str, Any]]] = {}  # from factor to level to the config keys that the level changes
    search: Literal["optuna"] | None = None
    ranges: dict[str, Range] = {}
    samples: int = Field(0, ge=1)  # 0 means that the file does not have this key
    stop_early: Literal["asha"] | None = None
    seeds: list[int] = Field(min_length=1)
    metric: str

    @property
    def factors(self) -> tuple[str, ...]:
        """The names of all factors: first the factors of the grid, then the config keys that have a range."""
        return (*self.grid, *self.ranges)

    @field_validator("grid", mode="before")
    @classmethod
    def _name_levels(cls, grid: object) -> object:
        """Give each factor named levels. Levels in a plain list get their values as names."""
        if not isinstance(grid, dict):
            return grid
        named = {}
        for factor, levels in grid.items():
            if isinstance(levels, list | dict):
                names = [show(level) for level in levels]
                if len(set(names)) < len(names):
                    raise ValueError(f"the levels of {factor} must differ")
                if isinstance(levels, list):
                    levels = {name: {str(factor): level} for name, level in zip(names, levels, strict=True)}
                else:
                    levels = dict(zip(names, levels.values(), strict=True))
            if not levels:
                raise ValueError(f"{factor} must have at least one level")
            named[str(factor)] = levels
        return named

    @field_validator("seeds", mode="before")
    @classmethod
    def _list_seeds(cls, seeds: object) -> object:
        """Turn a number of seeds into a list of seeds, from 0 on."""
        if type(seeds) is int:
            return list(range(seeds))
        if isinstance(seeds, list):
            numbers = [seed for seed in seeds if type(seed) is int and seed >= 0]
            if len(set(numbers)) < len(seeds):
                raise ValueError("seeds must be different whole numbers of at least 0")
        return seeds


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: Name of the run, which is also the name of its folder.
        levels: A dict from each factor to its level.
        seed: The seed of the training.
        values: A dict from each config key that the sweep sets to its value.
    """

    name: str
    levels: Mapping[str, str]
    seed: int
    values: Mapping[str, object]


def show(value: object) -> str:
    """Return the text of a config value, which is used as the name of a level.

    >>> show("mean"), show(1e-4), show([1, 2])
    ('mean', '0.0001', '[1, 2]')
    """
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n").removesuffix("\n...")


def _file_name(level: str) -> str:
    """Turn a level's name into a part of a folder name.

    >>> _file_name("-2"), _file_name("half a window"), _file_name(".hidden")
    ('-2', 'half-a-window', 'hidden')
    """
    name = re.sub(r"[^\w.+]+|_", "-", level).strip("-.")
    if level.startswith("-"):
        name = f"-{name}"
    return name


# Reading -------------------------------------------------------------------------------------------------------------


def read(file: Path) -> Plan:
    """Read a sweep file.

    Args:
        file: The YAML file.

    Returns:
        The content of the file. Everything is checked, except whether the system accepts the config keys and values.
        `configure` checks this.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    plan = parse(file)
    findings = [*check_search(plan, file), *check_metric(plan, file), *_check_keys(plan, file)]
    if findings:
        raise Faulty(findings, status=2)
    return plan


def parse(file: Path) -> Plan:
    """Read a sweep file, and check each of its keys on its own.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    values = yamlfiles.read_yaml(file)
    try:
        return Plan.model_validate(values)
    except ValidationError as invalid:
        findings = [_explain(error, file) for error in invalid.errors()]
        raise Faulty(findings, status=2) from None


def _explain(error: ErrorDetails, file: Path) -> Finding:
    """Turn an error of pydantic into a finding."""
    key = ".".join(map(str, error["loc"]))
    message = f"{error['msg'].removeprefix('Value error, ')}; found {error['input']!r:.80}"
    if error["type"] == "extra_forbidden":
        model: type[BaseModel] = Range
        if len(error["loc"]) == 1:
            model = Plan
        message = unknown_key(str(error["loc"][-1]), list(model.model_fields))
    elif error["type"] == "missing":
        message = "is missing; give it"
    return Finding(str(file), column=key, message=message)


def check_search(plan: Plan, file: Path) -> Iterator[Finding]:
    """Yield a finding for each key that is missing or must not be given, which depends on whether there is a search."""
    if not plan.search:
        if not plan.grid:
            yield Finding(str(file), column="grid", message="must have at least one factor; found none: add one")
        for key in ("ranges", "samples"):
            if getattr(plan, key):
                message = "must come with a search; add `search: optuna`, or leave it out"
                yield Finding(str(file), column=key, message=message)
        return
    if not plan.factors:
        message = "must come with `ranges` or `grid`; found neither: give at least one of them"
        yield Finding(str(file), column="search", message=message)
    if not plan.samples:
        yield Finding(str(file), column="samples", message="is missing; give the number of settings to try")


def check_metric(plan: Plan, file: Path) -> Iterator[Finding]:
    """Yield a finding if the metric is not a metric of captioning or of retrieval."""
    if plan.metric in CAPTIONING:
        return
    try:
        retrieval.resolve_metrics([plan.metric])
    except BadRequest as mistake:
        message = f"{mistake}; or for captions, one of {', '.join(CAPTIONING)}"
        yield Finding(str(file), column="metric", message=message)


def _check_keys(plan: Plan, file: Path) -> Iterator[Finding]:
    """Yield a finding for each config key that is set in two places, and each factor named like a results column."""
    from evaluation.statistics import factors  # imports pandas, which takes half a second

    reserved = {*factors.AROUND, *CAPTIONING, plan.metric}
    places: dict[str, str] = dict.fromkeys(plan.set, "set")
    keys_of = {f"grid.{factor}": _changed_keys(levels) for factor, levels in plan.grid.items()}
    keys_of |= {f"ranges.{key}": [key] for key in plan.ranges}
    for place, keys in keys_of.items():
        factor = place.partition(".")[2]
        if factor in reserved:
            message = (
                "must not be the name of a column of results.csv; "
                "give the factor another name, and list the config keys that its levels change"
            )
            yield Finding(str(file), column=place, message=message)
        if place.startswith("ranges.") and factor in plan.grid and factor not in places:
            message = f"must be in one place, but grid has a factor {factor} too; rename that factor"
            yield Finding(str(file), column=place, message=message)
        for key in keys:
            if key in places:
                message = f"must be in one place, but {key} is in {places[key]} too; remove it from one of them"
                yield Finding(str(file), column=place, message=message)
            places[key] = place


def _changed_keys(levels: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return all different config keys that the levels of a factor change."""
    keys: dict[str, None] = {}
    for changes in levels.values():
        keys |= dict.fromkeys(changes)
    return list(keys)


# Planning ------------------------------------------------------------------------------------------------------------


def plan_runs(plan: Plan, file: Path) -> list[PlannedRun]:
    """Plan a run for every combination of the grid's levels and every seed.

    Args:
        plan: The content of a sweep file that has no `search`.
        file: The sweep file, for messages.

    Returns:
        The runs. The runs of a setting follow one another.

    Raises:
        Faulty: Two settings would have the same name, or a name would be too long. The exception lists all findings.
    """
    runs: list[PlannedRun] = []
    findings: list[Finding] = []
    named: dict[str, Sequence[str]] = {}
    for levels in itertools.product(*plan.grid.values()):
        setting = dict(zip(plan.grid, levels, strict=True))
        name = "_".join(_file_name(level) for level in levels)
        other = named.get(name.casefold())
        if other:
            levels_of_both = f"{', '.join(other)} and {', '.join(levels)}"
            message = f"runs must have different names; found {name!r} for {levels_of_both}: rename their levels"
            findings.append(Finding(str(file), column="grid", message=message))
        named[name.casefold()] = levels
        runs += _with_seeds(plan, name, setting)
    longest = max((run.name for run in runs), key=lambda name: len(name.encode()))
    size = len(longest.encode())
    if size > LONGEST_NAME:
        found = f"{longest[:40]!r}… with {size} bytes"
        message = f"names of runs must have at most {LONGEST_NAME} bytes; found {found}: shorten their levels' names"
        findings.append(Finding(str(file), column="grid", message=message))
    if findings:
        raise Faulty(findings, status=2)
    return runs


def plan_sample(plan: Plan, number: int, setting: Mapping[str, object]) -> list[PlannedRun]:
    """Plan the runs of a setting that a search chose, one for each seed.

    Args:
        plan: The content of the sweep file.
        number: The index of the setting, from 0.
        setting: A dict from each factor of the grid to its level, and from each key that has a range to a number.
    """
    return _with_seeds(plan, f"sample-{number:03}", setting)


def _with_seeds(plan: Plan, name: str, setting: Mapping[str, object]) -> list[PlannedRun]:
    """Plan the runs of a setting, one for each seed.

    Args:
        plan: The content of the sweep file.
        name: The name of the setting.
        setting: As for `plan_sample`.
    """
    levels = {factor: show(level) for factor, level in setting.items()}
    values = dict(plan.set)
    for factor, level in setting.items():
        if factor in plan.grid:
            values |= plan.grid[factor][str(level)]
        else:
            values[factor] = level
    return [PlannedRun(f"{name}_{seed}", levels, seed, values) for seed in plan.seeds]


def extremes(plan: Plan) -> list[PlannedRun]:
    """Plan runs in which every level and both ends of every range occur, so that `configure` can check all of them.

    Args:
        plan: The content of a sweep file with a search.
    """
    choices: dict[str, list[object]] = {factor: list(levels) for factor, levels in plan.grid.items()}
    choices |= {key: [limits.low, limits.high] for key, limits in plan.ranges.items()}
    first = {factor: levels[0] for factor, levels in choices.items()}
    settings = [first]
    for factor, levels in choices.items():
        settings += [{**first, factor: level} for level in levels[1:]]
    return [plan_sample(plan, number, setting)[0] for number, setting in enumerate(settings)]


def config_keys(plan: Plan, file: Path) -> dict[str, Path]:
    """Return a dict from each config key that a sweep sets to the file in which it is set.

    Args:
        plan: The content of the sweep file.
        file: The sweep file.

    Raises:
        BadRequest: The sweep file names a config file that does not exist.
        Faulty: The config file is not a YAML mapping.
    """
    keys = dict.fromkeys(read_base(plan), plan.config or file)
    keys |= dict.fromkeys([*plan.set, *plan.ranges], file)
    for levels in plan.grid.values():
        keys |= dict.fromkeys(_changed_keys(levels), file)
    return keys


def read_base(plan: Plan) -> dict[str, object]:
    """Return the content of the config file that a sweep file names, or an empty dict if it names no config file."""
    if plan.config:
        return yamlfiles.read_yaml(listing.kit_file(plan.config))
    return {}


def configure(plan: Plan, runs: Sequence[PlannedRun], file: Path) -> dict[str, BaseModel]:
    """Build the config of every run.

    Args:
        plan: The content of the sweep file.
        runs: The runs.
        file: The sweep file, for messages.

    Returns:
        A dict from the name of each run to its config.

    Raises:
        BadRequest: There is no such system, or no such config file.
        Faulty: Keys or values are not valid. The exception lists all findings.
    """
    model = contract.system(plan.system).Config
    base = read_base(plan)
    configs: dict[str, BaseModel] = {}
    findings: dict[Finding, None] = {}
    by_values: dict[str, BaseModel] = {}  # runs that differ only in their seeds share a config
    for run in runs:

        def place(key: str, run: PlannedRun = run) -> str:
            is_from_sweep = key.partition(".")[0] in run.values
            return str(file if is_from_sweep else plan.config or file)

        values = repr(run.values)
        if values not in by_values:
            try:
                by_values[values] = contract.validate(model, base | dict(run.values), place)
            except Faulty as faulty:
                findings |= dict.fromkeys(faulty.findings)
                continue
        configs[run.name] = by_values[values]
    if findings:
        raise Faulty(list(findings), status=2)
    return configs
