"""The table of families: the names of methods, grouped, that the analysis of submissions looks for in metadata.

`families.yaml` is the table of the kit. Its head explains the format.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from evaluation.findings import Faulty, Finding
from evaluation.yamlfiles import read_yaml

FAMILIES = Path(__file__).parent / "families.yaml"

Names = dict[str, list[str]]  # from the name of a family to its models
Place = tuple[str, ...]  # the group, the family and the model of a name, as far as it has them


class Aspect(BaseModel, extra="forbid", frozen=True, strict=True):
    """One aspect of a system, such as its loss."""

    keys: list[str] = Field(min_length=1, description="metadata keys that the names are looked for in")
    as_text: list[str] = Field([], description="keys whose text is listed as it is if no name is found in it")
    families: dict[str, list[str] | Names] = Field({}, description="families with their models, in groups or not")

    @cached_property
    def places(self) -> list[tuple[re.Pattern[str], Place]]:
        """A pattern for each name, with the place of the name. Longer names are first."""
        places = dict(_places(self.families))
        names = sorted(places, key=len, reverse=True)
        return [(_pattern(name), places[name]) for name in names]


def _places(families: Mapping[str, list[str] | Names]) -> Iterator[tuple[str, Place]]:
    """Yield each name of a table with its place.

    The name of a group is not looked for in texts. If the same name is in several places, the last one counts.
    """
    for name, content in families.items():
        if isinstance(content, list):
            yield from _family_places(name, content, ())
        else:
            for family, models in content.items():
                yield from _family_places(family, models, (name,))


def _family_places(family: str, models: Iterable[str], group: Place) -> Iterator[tuple[str, Place]]:
    yield family, (*group, family)
    for model in models:
        yield model, (*group, family, model)


def _pattern(name: str) -> re.Pattern[str]:
    """Return a pattern that finds a name, in upper or lower case, with any separators, and with a plural s.

    >>> bool(_pattern("CNN14").search("a cnn-14 network")), bool(_pattern("BERT").search("RoBERTa"))
    (True, False)
    """
    parts = re.findall(r"[^\W\d_]+|\d+", name)
    joined = r"[\s_\-]*".join(map(re.escape, parts))
    return re.compile(rf"(?<![^\W_]){joined}s?(?![^\W_])", re.IGNORECASE)


def read_families(file: Path) -> dict[str, Aspect]:
    """Read a table of families.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not YAML, or it has a wrong key or value. The exception lists all findings.
    """
    aspects = {}
    findings = []
    for name, content in read_yaml(file).items():
        try:
            aspects[name] = Aspect.model_validate(content)
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False):
                key = ".".join(map(str, (name, *error["loc"])))
                message = f"must be as in {FAMILIES.name} of the kit; {error['msg']}"
                findings.append(Finding(str(file), column=key, message=message))
    if findings:
        raise Faulty(findings, status=2)
    return aspects
