"""What a sweep is to run: every combination of a grid's levels, with every seed.

system: systems.atae                           # import name
config: systems/atae/yamnet-minilm.yaml        # optional: the config that the keys below change
set: {epochs: 4}                               # optional: keys that are the same in all runs
grid:                                          # factors; every combination of their levels is a setting
  loss: [contrastive, nt_xent]                 # a key of the config and its values, or
  text: {mean: {text_output: mean}, all: {}}   # names of levels, each with the keys that it changes
seeds: 3                                       # how many (0, 1, 2), or which: [0, 1, 2]
metric: mAP@10                                 # what is compared, a metric of captions or of retrieval
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from evaluation import yamlfiles
from evaluation.findings import BadRequest, Faulty, Finding, unknown_key
from evaluation.metrics import captioning, retrieval
from evaluation.statistics import factors
from systems import contract

LONGEST = 200  # bytes of a run's name, which names files too


class Plan(BaseModel, extra="forbid", frozen=True):
    """A sweep's file."""

    system: str
    config: Path | None = None
    set: dict[str, Any] = {}
    grid: dict[str, dict[str, dict[str, Any]]] = Field(min_length=1)  # factor: level: what it changes
    seeds: list[int] = Field(min_length=1)
    metric: str

    @field_validator("grid", mode="before")
    @classmethod
    def _levels(cls, grid: object) -> object:
        """Give the levels of a plain list their names: what they look like."""
        if not isinstance(grid, dict):
            return grid
        named = {}
        for factor, levels in grid.items():
            if isinstance(levels, list | dict) and len({_shown(level) for level in levels}) < len(levels):
                raise ValueError(f"the levels of {factor} must differ; one stands there twice")
            if isinstance(levels, list):
                levels = {_shown(level): {str(factor): level} for level in levels}
            elif isinstance(levels, dict):
                levels = {_shown(level): changes for level, changes in levels.items()}
            if not levels:
                raise ValueError(f"{factor} must have a level or more; it is empty")
            named[str(factor)] = levels
        return named

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, seeds: object) -> object:
        if type(seeds) is int:
            return list(range(seeds))
        if isinstance(seeds, list) and (
            any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds)
        ):
            raise ValueError("seeds must be different numbers from 0")
        return seeds


class Planned(NamedTuple):
    """One run that a sweep is to make."""

    name: str  # of its folder
    levels: Mapping[str, str]  # of each factor
    seed: int
    values: Mapping[str, object]  # of the config's keys


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n").removesuffix("\n...")


def _named(level: str) -> str:
    """A level in the name of a folder.

    >>> _named("-2"), _named("half a window"), _named(".hidden")
    ('-2', 'half-a-window', 'hidden')
    """
    sign = "-" if level.startswith("-") else ""
    return sign + re.sub(r"[^\w.+]+|_", "-", level).strip("-.")


def read(file: Path) -> Plan:
    """Read a sweep's file.

    Raises:
        BadRequest: There is no such file, or it is no YAML mapping.
        Faulty: It does not hold; with every finding.
    """
    values = yamlfiles.read(file)
    try:
        plan = Plan.model_validate(values)
    except ValidationError as invalid:
        findings = []
        for error in invalid.errors():
            key = ".".join(map(str, error["loc"]))
            message = f"{error['msg'].removeprefix('Value error, ')}; found {error['input']!r:.80}"
            if error["type"] == "extra_forbidden":
                message = unknown_key(key, list(Plan.model_fields))
            elif error["type"] == "missing":
                message = "is missing; give it"
            elif key == "grid" and error["type"] == "too_short":
                message = "must have a factor or more; it is empty"
            findings.append(Finding(str(file), column=key, message=message))
        raise Faulty(findings, status=2) from None
    findings = []
    if plan.metric not in captioning.METRICS:
        try:
            retrieval.resolve_metrics([plan.metric])
        except BadRequest as mistake:
            message = f"{mistake}; or of captions {', '.join(captioning.METRICS)}"
            findings.append(Finding(str(file), column="metric", message=message))
    reserved = {*factors.AROUND, *captioning.METRICS, plan.metric}
    setters: dict[str, str] = dict.fromkeys(plan.set, "set")
    for factor, levels in plan.grid.items():
        if factor in reserved:
            message = "is a column of the results already; give the factor another name, and its levels their keys"
            findings.append(Finding(str(file), column=f"grid.{factor}", message=message))
        for key in dict.fromkeys(key for changes in levels.values() for key in changes):
            if key in setters:
                message = f"must be in one place, but {key} is in {setters[key]} too; leave one out"
                findings.append(Finding(str(file), column=f"grid.{factor}", message=message))
            setters[key] = f"grid.{factor}"
    if findings:
        raise Faulty(findings, status=2)
    return plan


def planned(plan: Plan, file: Path) -> list[Planned]:
    """Every run of a plan, the seeds of a setting one after another.

    Raises:
        Faulty: Two runs have one name; with every finding.
    """
    found, named = [], {}
    findings = []
    for levels in itertools.product(*plan.grid.values()):
        chosen = dict(zip(plan.grid, levels, strict=True))
        values = dict(plan.set)
        for factor, level in chosen.items():
            values |= plan.grid[factor][level]
        name = "_".join(_named(level) for level in levels)
        if other := named.get(name.casefold()):
            message = f"two runs would have the name {name!r}: {', '.join(other)} and {', '.join(levels)}; "
            findings.append(Finding(str(file), column="grid", message=message + "name their levels otherwise"))
        named[name.casefold()] = levels
        found += [Planned(f"{name}_{seed}", chosen, seed, values) for seed in plan.seeds]
    longest = max((run.name for run in found), key=lambda name: len(name.encode()))
    if (size := len(longest.encode())) > LONGEST:
        message = f"names of levels must be short enough for a file's name; {longest[:40]!r}… has {size} bytes"
        findings.append(Finding(str(file), column="grid", message=message))
    if findings:
        raise Faulty(findings, status=2)
    return found


def configured(plan: Plan, runs: Sequence[Planned], file: Path) -> dict[str, BaseModel]:
    """The config of every run, by its name.

    Raises:
        BadRequest: There is no such system, or its config's file does not hold.
        Faulty: Keys or values do not hold; with every finding.
    """
    model = contract.system(plan.system).Config
    below = yamlfiles.read(plan.config) if plan.config else {}
    found, findings = {}, {}
    known: dict[str, BaseModel] = {}
    for run in runs:
        setting = repr(run.values)
        if setting not in known:

            def source(key: str, run: Planned = run) -> str:
                return str(file if key.partition(".")[0] in run.values else plan.config or file)

            try:
                known[setting] = contract.validate(model, below | dict(run.values), source)
            except Faulty as faulty:
                findings |= dict.fromkeys(faulty.findings)
                continue
        found[run.name] = known[setting]
    if findings:
        raise Faulty(findings, status=2)
    return found
