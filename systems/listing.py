"""A list of the systems that the kit contains.

This module finds systems by reading source files. It imports none of them, and systems need not be registered.

A module is a system if it defines `CONTRACT_NAMES`. The list also shows two constants of the module: `PAPER`, where the
system was published, and `PARAMETERS`, the number of its parameters (a text if the number depends on the data).

The configs of a system that is a package are the YAML files in the package's folder. The configs of a system that is a
module are the files NAME.yaml and NAME-….yaml next to the module. A YAML file with the key `grid` or with
`search: optuna` is a sweep file and not a config.

The list does not include the systems in the folder `EXAMPLES`.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.natural_sort import natural_key

ROOT = Path(__file__).parents[1]
SYSTEM_PACKAGES = ("baseline", "systems")  # the packages that contain systems
CONTRACT_NAMES = ("Config", "train", "load_model")  # what every system must define (`systems.contract`)
# From a method of a model to the task that needs it.
TASKS = {"embed_audio": "retrieval", "caption": "captioning", "answer": "choice", "moments": "moments"}
BASES = {"WordByWord": "caption"}  # for each base class of `systems.parts`, the method in `TASKS` that it defines
EXAMPLES = "examples"  # a folder of systems to copy
LIKENESS = 0.75  # minimum similarity (0 to 1) of a misspelt name and the name that a message suggests
PUBLISHED = "published"  # name of the file (of a package) or folder (of a module) with the published results


@dataclass(frozen=True)
class System:
    """The facts about a system that its source files give.

    Attributes:
        name: The system's import name.
        task: The task or tasks that its models perform.
        paper: Where the system was published; empty if the source does not give this.
        parameters: The number of its parameters, as text; empty if the source does not give it.
        configs: Its config files, with paths relative to the root.
    """

    name: str
    task: str
    paper: str
    parameters: str
    configs: tuple[Path, ...]


@dataclass(frozen=True)
class Source:
    """The source of a system.

    Attributes:
        place: The folder of a package, or the path of a module's file without its suffix.
        tree: The syntax tree of the package's `__init__.py` or of the module.
    """

    place: Path
    tree: ast.Module

    def name(self, root: Path) -> str:
        """Return the import name of the system.

        Args:
            root: The folder that contains the outermost package.
        """
        return ".".join(self.place.relative_to(root).parts)


def systems(root: Path = ROOT) -> list[System]:
    """Return all systems in the packages `SYSTEM_PACKAGES` in the folder `root`, sorted by name."""
    found = [_describe(source, root) for source in _sources(root)]
    return sorted(found, key=lambda system: natural_key(system.name))


def kit_file(path: Path | str) -> Path:
    """Return the path of a YAML file that a user gives: a file in the current folder, or else the kit's own file.

    So `baseline/retriever.yaml` names the kit's file, whatever the current folder is. If no such file exists, the path
    is returned as it is.
    """
    path = Path(path)
    is_of_kit = path.parts[:1] and path.parts[0] in SYSTEM_PACKAGES and ".." not in path.parts
    if is_of_kit and not path.exists() and (ROOT / path).is_file():
        return ROOT / path
    return path


def closest_name(name: str, root: Path = ROOT) -> str | None:
    """Return the name of the system that the user probably meant, or None if no system has a similar name.

    Args:
        name: A name that no module has. It may lack the package, such as `retriever` for `baseline.retriever`.
        root: The folder that contains the packages.
    """
    names = [source.name(root) for source in _sources(root)]
    candidates = {full_name.rpartition(".")[2]: full_name for full_name in names}
    candidates |= {full_name: full_name for full_name in names}
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=LIKENESS)
    if matches:
        return candidates[matches[0]]
    return None


def _sources(root: Path) -> Iterator[Source]:
    """Yield the source of every system."""
    for top in SYSTEM_PACKAGES:
        packages: list[Path] = []
        # Every __init__.py comes first. If a package is a system, its other files belong to this system.
        paths = sorted((root / top).rglob("*.py"), key=lambda path: (path.name != "__init__.py", path))
        for path in paths:
            if any(package in path.parents for package in packages):
                continue
            if EXAMPLES in path.relative_to(root).parts:
                continue
            text = path.read_text(encoding="utf-8")
            if not all(name in text for name in CONTRACT_NAMES):  # much faster than parsing
                continue
            tree = ast.parse(text)
            if not set(_top_level_names(tree)).issuperset(CONTRACT_NAMES):
                continue
            if path.name == "__init__.py":
                packages.append(path.parent)
                yield Source(path.parent, tree)
            else:
                yield Source(path.with_suffix(""), tree)


def _describe(source: Source, root: Path) -> System:
    constants = dict(_constants(source.tree))
    parameters = constants.get("PARAMETERS", "")
    if isinstance(parameters, int):
        parameters = f"{parameters:,}"
    methods = _function_names(source)
    return System(
        name=source.name(root),
        task=" and ".join(task for method, task in TASKS.items() if method in methods),
        paper=str(constants.get("PAPER", "")),
        parameters=str(parameters),
        configs=tuple(path.relative_to(root) for path in configs(source.place)),
    )


def configs(place: Path) -> list[Path]:
    """Return the config files of a system.

    Args:
        place: The folder of a package, or the path of a module's file without its suffix.
    """
    if place.is_dir():
        files = [path for path in place.rglob("*.yaml") if path != published_file(place)]
    else:
        files = list(place.parent.glob(f"{place.name}-*.yaml"))
    files.sort(key=lambda path: natural_key(str(path)))
    own = place.with_suffix(".yaml")
    if not place.is_dir() and own.is_file():
        files.insert(0, own)
    return [path for path in files if not _is_sweep(path)]


def _is_sweep(file: Path) -> bool:
    """Return whether a YAML file is a sweep file."""
    return re.search(r"^(grid:|search: *optuna)", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


def published_file(place: Path) -> Path:
    """Return the path of the file with a system's published results, which may not exist.

    Args:
        place: The folder of a package, or the path of a module's file without its suffix.
    """
    if place.is_dir():
        return place / f"{PUBLISHED}.yaml"
    return place.parent / PUBLISHED / f"{place.name}.yaml"


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines or imports at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _function_names(source: Source) -> set[str]:
    """Return the names of all functions and methods in a system's files, and of those that `BASES` define."""
    trees = [source.tree]
    if source.place.is_dir():
        paths = [path for path in sorted(source.place.rglob("*.py")) if path != source.place / "__init__.py"]
        trees += [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                names.update(method for base, method in BASES.items() if base in bases)
    return names


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """Yield the names and values of a module's constants."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))
