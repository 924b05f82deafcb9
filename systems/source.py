"""The source files of a system, and the changes in them since a run was trained."""

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
from evaluation.text import first_items
from systems import modules

FILE = "sources.yaml"  # a file in the run folder, which maps the import name of each module to a digest
NAMED = 20  # maximum number of modules that a warning names
KIT = ("evaluation", "systems", "baseline")


def digests(system: str, *others: str) -> dict[str, str]:
    """Return a dict from the import name of each module of a system to a digest of its source file.

    The modules are the system's module and all modules that it imports, directly or indirectly, from its own package
    and from the kit. The source files are only read, and no module is imported.

    Args:
        system: The system's import name.
        *others: Import names of further modules, such as encoders that the config names.
    """
    packages = {*KIT, system.partition(".")[0]}
    digest_by_name: dict[str, str] = {}
    waiting = [system, *others]
    while waiting:
        name = waiting.pop()
        if name in digest_by_name or name.partition(".")[0] not in packages:
            continue
        file = modules.source(name)
        if file is None or file.suffix != ".py":
            continue
        content = file.read_bytes()
        digest_by_name[name] = hashlib.sha256(content).hexdigest()[:16]
        package = name
        if file.name != "__init__.py":
            package = name.rpartition(".")[0]
        waiting += _imports(content, package)
    return dict(sorted(digest_by_name.items()))


@cache  # all runs of a sweep have the same files
def _imports(content: bytes, package: str) -> list[str]:
    """Return the names that a module imports at its top level or in functions: modules, and names from modules.

    Args:
        content: The content of the module's source file.
        package: Import name of the package that the module is in, or of the module itself if it is a package.
    """
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
            if node.level:  # one dot means the package itself, each further dot its parent package
                parts = package.split(".")
                outer = parts[: len(parts) + 1 - node.level]
                base = ".".join([*outer, base]).rstrip(".")
            names.append(base)
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement of a module, also nested ones. `ast.walk` is slower because it visits all expressions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, [])


def write_digests(folder: Path, system: str, *others: str) -> None:
    """Write the digests of a system's source files into sources.yaml in a run folder, unless this file exists.

    Args:
        folder: The run folder.
        system: As for `digests`.
        *others: As for `digests`.
    """
    file = folder / FILE
    if file.exists():
        return
    with replacing(file) as part:
        part.write_text(yaml.safe_dump(digests(system, *others)), encoding="utf-8")


def source_changes(folder: Path, system: str) -> list[Finding]:
    """Compare a system's source files with their digests from the time when the training of a run began.

    Args:
        folder: The run folder.
        system: The system's import name.

    Returns:
        A list with one warning that names the changed modules, or that the digests cannot be read. The list is empty if
        nothing changed, or if the run folder contains no digests because an earlier version of the kit wrote it.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    try:
        before = TypeAdapter(dict[str, str]).validate_python(yamlfiles.read_yaml(file))
    except (BadRequest, Faulty, ValidationError):
        message = "cannot be read, so changes in the code since the training are not noticed"
        return [Finding(str(file), message=message, severity=WARNING)]
    now = digests(system, *before)
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if not changed:
        return []
    message = (
        f"the code changed since this run was trained: {first_items(changed, NAMED)}; the run's weights come from the "
        "earlier code. To use the present code, train into a new folder"
    )
    return [Finding(str(folder), message=message, severity=WARNING)]
