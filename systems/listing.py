"""Which systems lie in this checkout: found by reading the sources, so that a list takes no time and needs no register.

A system's module says `PAPER` (where it was published) and `PARAMETERS` (how many; a number, or a text where they
depend on the data) as constants. Its configs are the YAML files beside it that are named NAME.yaml and NAME-….yaml or,
if the system is a package, those in its folder. A file that has a `grid` or a `search` is a sweep, not a config.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from evaluation.ordering import natural_key

ROOT = Path(__file__).parents[1]
ROOMS = ("baseline", "systems")
PARTS = {"Config", "train", "load_model"}
TASKS = {"embed_audio": "retrieval", "caption": "captioning"}  # by the method that the task needs
EXAMPLES = "examples"  # a folder of systems to copy, which the list leaves out
PUBLISHED = "published"  # a package's paper's figures are in published.yaml, a module's in published/NAME.yaml


@dataclass(frozen=True)
class Found:
    """One system, as its source describes it."""

    name: str
    task: str
    paper: str
    parameters: str
    configs: tuple[Path, ...]


def systems(root: Path = ROOT) -> list[Found]:
    """Every system in the rooms below `root`, by name."""
    found: list[Found] = []
    for room in ROOMS:
        packages: list[Path] = []  # systems of several files: what lies in them is theirs
        # A package's own file before those in it.
        for path in sorted((root / room).rglob("*.py"), key=lambda path: (path.name != "__init__.py", path)):
            if any(package in path.parents for package in packages):
                continue
            if EXAMPLES in path.relative_to(root).parts:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if not set(_names(tree)) >= PARTS:
                continue
            package = path.parent if path.name == "__init__.py" else None
            packages += [package] if package else []
            found.append(_describe(root, package or path.with_suffix(""), tree, package))
    return sorted(found, key=lambda one: one.name)


def _describe(root: Path, place: Path, tree: ast.Module, package: Path | None) -> Found:
    sources = sorted(package.rglob("*.py")) if package else []
    trees = [tree, *(ast.parse(path.read_text(encoding="utf-8")) for path in sources)]
    nodes = chain.from_iterable(map(ast.walk, trees))
    methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    constants = dict(_constants(tree))
    parameters = constants.get("PARAMETERS", "")
    files = configs(package or place)
    return Found(
        name=".".join(place.relative_to(root).parts),
        task=" and ".join(task for method, task in TASKS.items() if method in methods),
        paper=str(constants.get("PAPER", "")),
        parameters=f"{parameters:,}" if isinstance(parameters, int) else str(parameters),
        configs=tuple(path.relative_to(root) for path in files),
    )


def configs(place: Path) -> list[Path]:
    """Return the config files of a system.

    Args:
        place: The folder of a package, or the path of a module's file without its suffix.
    """
    if place.is_dir():
        files = [
            path
            for path in sorted(place.rglob("*.yaml"), key=lambda path: natural_key(str(path)))
            if path != published_file(place)
        ]
    else:
        own = place.with_suffix(".yaml")
        files = [own] * own.is_file() + sorted(place.parent.glob(f"{place.name}-*.yaml"))
    return [path for path in files if not _is_sweep(path)]


def _is_sweep(file: Path) -> bool:
    """Return whether a YAML file is a sweep file."""
    return re.search(r"^(grid:|search: *optuna)", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


def published_file(place: Path) -> Path:
    """Return where the published figures of a system are, if it has any.

    Args:
        place: The folder of a package, or the path of a module's file without its suffix.
    """
    if place.is_dir():
        return place / f"{PUBLISHED}.yaml"
    return place.parent / PUBLISHED / f"{place.name}.yaml"


def _names(tree: ast.Module) -> Iterator[str]:
    """What a module's top level defines or imports."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))
