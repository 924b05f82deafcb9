"""The source files that a system consists of, and which of them changed since a run was trained."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from evaluation import yamlfiles
from evaluation.files import replacing
from evaluation.findings import WARNING, BadRequest, Faulty, Finding
from systems import modules

FILE = "sources.yaml"  # in the run folder: a digest of each module, by import name
NAMED = 20  # modules in a warning
KIT = ("evaluation", "systems", "baseline")


def digests(system: str, *others: str) -> dict[str, str]:
    """Return a digest of each source file of a system, by the module's import name.

    These are the system's module, the modules of its own package, and those of the kit that any of them imports. They
    are found by reading the sources, and nothing is imported.

    Args:
        system: The system's import name.
        *others: Import names of modules that the system imports by name, such as encoders.
    """
    packages = {*KIT, system.partition(".")[0]}
    found: dict[str, str] = {}
    waiting = [system, *others]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        file = modules.source(name)
        if file is None or file.suffix != ".py":
            continue
        content = file.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()[:16]
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imports(content, package)
    return dict(sorted(found.items()))


@cache  # every run of a sweep asks for the same files
def _imports(content: bytes, package: str) -> list[str]:
    """Return what a module of a package imports anywhere: modules, and names of which some are modules."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # one dot is the package itself, each further one the package around it
                parts = package.split(".")
                outer = parts[: len(parts) + 1 - node.level]
                base = ".".join([*outer, base]).rstrip(".")
            names.append(base)
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement of a module, also within others; `ast.walk` would visit every expression too."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, [])


def write(folder: Path, system: str, *others: str) -> None:
    """Write the digests of a system's sources into a run folder that has none; arguments as of `digests`."""
    file = folder / FILE
    if file.exists():
        return
    with replacing(file) as part:
        part.write_text(yaml.safe_dump(digests(system, *others)), encoding="utf-8")


def changes(folder: Path, system: str) -> list[Finding]:
    """Return a warning that names the modules that changed since a run began to be trained; none for an older run.

    Args:
        folder: The run folder.
        system: The system's import name.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    try:
        before = TypeAdapter(dict[str, str]).validate_python(yamlfiles.read(file))
    except (BadRequest, Faulty, ValidationError):
        message = "cannot be read, so changes of the code since the training are not noticed"
        return [Finding(str(file), message=message, severity=WARNING)]
    now = digests(system, *before)
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if not changed:
        return []
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    message = (
        f"the code changed since this run was trained: {', '.join(changed[:NAMED])}{more}; the run's weights come from "
        "the code as it was. Train into a new folder to use the code as it is"
    )
    return [Finding(str(folder), message=message, severity=WARNING)]
