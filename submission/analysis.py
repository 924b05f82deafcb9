"""The analysis of the submitted systems: which methods they use, and how the systems with each method rank.

Xie et al. 2022, section 4.2, analyse the metadata of a challenge's systems in this way. The names of methods come from
a table of families, `families.yaml`, which an organiser can replace.

    aspects = read_families(FAMILIES)
    uses = analyse(board.systems.rows, aspects)
    table(uses)                                  # a DataFrame, one row for each aspect and method

Conventions
-----------
- **Aspects** are the blocks of the table of families, such as `audio encoder` and `loss`, and then every other key of
  the metadata. The values of these other keys are compared as they are written, except for upper and lower case.
- **Names** are looked for in the text of the metadata. Longer names are found first, and a part of the text is used
  only once, so `Sentence-BERT` does not also count as `BERT`.
- **Levels**: a system that uses a model also counts for the family and the group of the model, once for each.
- **Counts** of systems and teams leave out the organisers' baseline. `baseline` says whether it uses the method, too.
- A system whose metadata do not have the aspect counts as `NOT_STATED`. For an aspect with families, a text such as
  `no` or `n/a` counts as `NONE`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from evaluation.natural_sort import natural_key
from submission.families import Aspect, Place
from submission.scoring import ScoredSystem

if TYPE_CHECKING:
    import pandas as pd

NOT_STATED = "not stated"
NONE = "none"
NONE_WORDS = {"none", "no", "n/a", "na", "-", "–", "not applicable"}
COLUMNS = ("aspect", "level", "method", "part_of", "systems", "teams", "baseline", "best_rank", "median_rank", "ranks")

# Counting -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """The systems that use one method.

    Attributes:
        aspect: The aspect, such as `loss`.
        place: The method: its group, family and model, as far as it has them.
        systems: Labels of the systems, best first.
        teams: Their teams, best first.
        ranks: Ranks of the systems that have one, best first.
        baseline: True if the organisers' baseline uses the method, too.
    """

    aspect: str
    place: Place
    systems: tuple[str, ...]
    teams: tuple[str, ...]
    ranks: tuple[int, ...]
    baseline: bool = False

    @property
    def ranks_text(self) -> str:
        """The ranks, with ranges.

        >>> Use("loss", ("InfoNCE",), (), (), (1, 2, 3, 7)).ranks_text
        '1–3, 7'
        """
        ranges: list[list[int]] = []
        for rank in self.ranks:
            if ranges and rank <= ranges[-1][1] + 1:
                ranges[-1][1] = rank
            else:
                ranges.append([rank, rank])
        parts = []
        for first, last in ranges:
            if first == last:
                parts.append(str(first))
            else:
                parts.append(f"{first}–{last}")
        return ", ".join(parts)


def methods(system: ScoredSystem, aspect: Aspect) -> list[Place]:
    """Return the methods of one system in one aspect, without repetition, in the order of the text.

    Args:
        system: The system.
        aspect: The aspect.

    Returns:
        The places of the names that are found. A text that has no known name is its own place. The list is
        `[(NOT_STATED,)]` if the metadata do not have the aspect, and `[(NONE,)]` if they say that there is none.
    """
    found: dict[Place, None] = {}
    is_none = False
    for key in aspect.keys:
        for text in system.texts(key):
            if aspect.families and text.strip().casefold() in NONE_WORDS:
                is_none = True
                continue
            places = _places_in(text, aspect)
            if not places and key in aspect.as_text:
                places = [(text.strip(),)]
            found.update(dict.fromkeys(places))
    if found:
        return list(found)
    if is_none:
        return [(NONE,)]
    return [(NOT_STATED,)]


def _places_in(text: str, aspect: Aspect) -> list[Place]:
    """Return the places of the names in a text, in the order of the text."""
    starts: dict[Place, int] = {}
    for pattern, place in aspect.places:
        for match in pattern.finditer(text):
            starts.setdefault(place, match.start())
        text = pattern.sub(lambda match: "\0" * len(match[0]), text)  # a part of the text is used only once
    return sorted(starts, key=lambda place: starts[place])


def families_of(system: ScoredSystem, aspect: Aspect) -> list[str]:
    """Return the families of a system's methods in one aspect, as in Table 4 of Xie et al. 2022."""
    names: dict[str, None] = {}
    for place in methods(system, aspect):
        names[_family(place, aspect)] = None
    return list(names)


def _family(place: Place, aspect: Aspect) -> str:
    """Return the family of a method: the second level of a group, the first level of everything else."""
    if len(place) > 1 and isinstance(aspect.families.get(place[0]), dict):
        return place[1]
    return place[0]


def analyse(
    rows: Sequence[tuple[int | None, ScoredSystem]], aspects: Mapping[str, Aspect], keys: Iterable[str] = ()
) -> list[Use]:
    """Count the systems and teams that use each method.

    Args:
        rows: The ranking: the rank of each system (None if it has none) and the system, best first.
        aspects: The aspects of the table of families.
        keys: Other metadata keys, which are analysed as they are written.

    Returns:
        The uses, aspect by aspect. In an aspect, a group is followed by its families, and a family by its models. The
        methods of most systems are first; `NONE` and `NOT_STATED` are last.
    """
    covered: set[str] = set()
    for aspect in aspects.values():
        covered.update(aspect.keys)
    all_aspects = dict(aspects)
    for key in keys:
        if key not in covered:
            all_aspects[key.removeprefix("system.")] = Aspect(keys=[key], as_text=[key])
    uses: list[Use] = []
    for name, aspect in all_aspects.items():
        uses += _uses(rows, name, aspect)
    return uses


def _uses(rows: Sequence[tuple[int | None, ScoredSystem]], name: str, aspect: Aspect) -> list[Use]:
    """Return the uses in one aspect."""
    users: dict[Place, list[tuple[int | None, ScoredSystem]]] = {}
    spelling: dict[Place, Place] = {}  # texts that differ in upper and lower case only count as one method
    for rank, system in rows:
        places: dict[Place, None] = {}
        for place in methods(system, aspect):
            level: Place = ()
            for part in place:
                level = (*level, part)
                level = spelling.setdefault(tuple(each.casefold() for each in level), level)
                places[level] = None
        for place in places:
            users.setdefault(place, []).append((rank, system))
    uses = {place: _use(name, place, systems) for place, systems in users.items()}
    return sorted(uses.values(), key=lambda use: _order(use, uses))


def _use(aspect: str, place: Place, users: Sequence[tuple[int | None, ScoredSystem]]) -> Use:
    submitted = [(rank, system) for rank, system in users if not system.is_baseline]
    return Use(
        aspect,
        place,
        systems=tuple(system.label for _, system in submitted),
        teams=tuple(dict.fromkeys(system.team for _, system in submitted)),
        ranks=tuple(rank for rank, _ in submitted if rank is not None),
        baseline=len(submitted) < len(users),
    )


def _order(use: Use, uses: Mapping[Place, Use]) -> list[tuple[object, ...]]:
    """Return the sort key of a use: those of the levels above it, then its own."""
    key: list[tuple[object, ...]] = []
    for depth in range(1, len(use.place) + 1):
        place = use.place[:depth]
        level = uses[place]
        is_last = place[0] in (NONE, NOT_STATED)
        key.append((is_last, -len(level.systems), -len(level.teams), natural_key(place[-1])))
    return key


def table(uses: Iterable[Use]) -> "pd.DataFrame":
    """Return the uses as a DataFrame with the columns `COLUMNS`.

    The level of a group is 1, that of its families 2. `part_of` is the family or group that the method belongs to.
    """
    import pandas as pd

    rows = []
    for use in uses:
        row: dict[str, object] = {"aspect": use.aspect, "level": len(use.place), "method": use.place[-1]}
        row["part_of"] = " / ".join(use.place[:-1])
        row["systems"] = len(use.systems)
        row["teams"] = len(use.teams)
        row["baseline"] = use.baseline
        if use.ranks:
            row["best_rank"] = use.ranks[0]
            row["median_rank"] = float(median(use.ranks))
        row["ranks"] = use.ranks_text
        rows.append(row)
    frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    return frame.astype({"best_rank": "Int64"})
