"""The table of families: the names of methods, grouped, that the analysis of submissions looks for in metadata.

`families.yaml` is the table of the kit. Its head explains the format.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from evaluation.findings import Faulty, Finding
from evaluation.text import unknown_key
from evaluation.yamlfiles import read_yaml
from submission.kinds import KINDS
from submission.tasks import Task

FAMILIES = Path(__file__).parent / "families.yaml"

Place = tuple[str, ...]  # the group, the family and the model of a name, as far as it has them


def _check_kind(name: str) -> str:
    """Check that there is a kind of tasks with a name."""
    if name not in KINDS:
        raise ValueError(unknown_key(name, list(KINDS), "kind"))
    return name


class Aspect(BaseModel, extra="forbid", frozen=True, strict=True):
    """One aspect of a system, such as its loss."""

    keys: list[str] = Field(min_length=1, description="metadata keys that the names are looked for in")
    as_text: list[str] = Field([], description="keys whose text is listed as it is if no name is found in it")
    kind: Annotated[str, AfterValidator(_check_kind)] | None = Field(
        None, description="kind of tasks that have the aspect"
    )
    families: dict[str, Any] = Field({}, description="the names, in groups and families")

    @model_validator(mode="after")
    def _check_names(self) -> "Aspect":
        """Check that the table of names is a tree of texts, and that no name or spelling is in two places."""
        seen: dict[str, Place] = {}
        for name, place in _places(self.families, ()):
            other = seen.setdefault(name.casefold(), place)
            if other != place:
                raise ValueError(f"{name!r} must be in one place only; found it below {other[0]!r} and {place[0]!r}")
        return self

    def is_of(self, task: Task) -> bool:
        """Return whether tasks of a task's kind have the aspect."""
        return self.kind in (None, task.kind)

    @cached_property
    def places(self) -> list[tuple[re.Pattern[str], Place]]:
        """A pattern for each name and each spelling, with the place of the name. Longer names are first."""
        places = dict(_places(self.families, ()))
        names = sorted(places, key=len, reverse=True)
        return [(_pattern(name), places[name]) for name in names]


def _places(tree: object, above: Place) -> Iterator[tuple[str, Place]]:
    """Yield each name and each spelling of a tree with its place.

    The name of a group, which has families with models below it, is not looked for in texts.

    Raises:
        ValueError: The tree has something else than names.
    """
    if not isinstance(tree, Mapping):
        where = " / ".join(above)
        raise ValueError(f"{where} must have a list of other spellings, or names below it; found {tree!r}")
    for name, content in tree.items():
        place = (*above, str(name))
        if isinstance(content, list) and all(isinstance(spelling, str) for spelling in content):
            yield place[-1], place
            for spelling in content:
                yield spelling, place
        else:
            if above:  # a family with models
                yield place[-1], place
            yield from _places(content, place)


def _pattern(name: str) -> re.Pattern[str]:
    """Return a pattern that finds a name, in upper or lower case, with any separators, and with a plural s.

    >>> bool(_pattern("CNN14").search("a cnn-14 network")), bool(_pattern("BERT").search("RoBERTa"))
    (True, False)
    >>> bool(_pattern("SpecAugment").search("spec-augment")), bool(_pattern("Qwen2.5-Omni").search("Qwen2.5-Omni-7B"))
    (True, True)
    """
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+|\d+", name)
    joined = "".join(map(re.escape, parts[:1]))
    for before, after in itertools.pairwise(parts):
        separators = r"[\s_\-]*"
        if before.isdigit() and after.isdigit():  # numbers of a version
            separators = r"[\s_\-.]*"
        joined += separators + re.escape(after)
    return re.compile(rf"(?<![^\W_]){joined}s?(?![^\W_])", re.IGNORECASE)


def read_families(file: Path) -> dict[str, Aspect]:
    """Read a table of families.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not YAML, has no aspect, or has a wrong key or value. The exception lists all findings.
    """
    aspects = {}
    findings = []
    contents = read_yaml(file)
    if not contents:
        message = "must have an aspect, such as loss; found none: copy families.yaml of the kit, and change the copy"
        findings.append(Finding(str(file), message=message))
    for name, content in contents.items():
        if not isinstance(content, Mapping):
            message = f"must have keys and families, as in families.yaml of the kit; found {content!r}"
            findings.append(Finding(str(file), column=name, message=message))
            continue
        try:
            aspects[name] = Aspect.model_validate(content)
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False):
                key = ".".join(map(str, (name, *error["loc"])))
                findings.append(Finding(str(file), column=key, message=_message(error, list(Aspect.model_fields))))
    if findings:
        raise Faulty(findings, status=2)
    return aspects


def _message(error: ErrorDetails, fields: list[str]) -> str:
    """Return the message about an error of an aspect."""
    if error["type"] == "missing":
        return "is missing; list the metadata keys that the names are looked for in"
    if error["type"] == "extra_forbidden":
        return unknown_key(str(error["loc"][-1]), fields)
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"must be as in families.yaml of the kit ({error['msg']}); found {error['input']!r}"


def check_keys(aspects: Mapping[str, Aspect], task: Task, file: Path) -> None:
    """Check that the metadata of a task have a key of each aspect that its kind of tasks has.

    Raises:
        Faulty: They have no key of an aspect, so all systems would count as systems that do not state it.
    """
    findings = []
    for name, aspect in aspects.items():
        if aspect.is_of(task) and not any(_is_key(task, key) for key in aspect.keys):
            message = f"must have a key of the metadata of {task.name}; found {', '.join(aspect.keys)}"
            message += f" (`submission tasks {task.name}` lists the keys)"
            findings.append(Finding(str(file), column=f"{name}.keys", message=message))
    if findings:
        raise Faulty(findings, status=2)


def _is_key(task: Task, path: str) -> bool:
    try:
        task.key(path)
    except ValueError:
        return False
    return True
