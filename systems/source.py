"""The source files of a system, and the changes in them since a run was trained.

The file sources.yaml in a run folder contains a digest of the code of each source file (`Sources`). The digest is
computed from the syntax tree without docstrings. Therefore a change in comments, docstrings or formatting does not
count as a change of the code.
"""

import ast
import hashlib
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from evaluation import yamlfiles
from evaluation.files import replacing
from evaluation.findings import WARNING, BadRequest, Faulty, Finding
from evaluation.text import first_items
from systems import modules

FILE = "sources.yaml"  # a file in the run folder
NAMED = 20  # maximum number of modules that a warning names
KIT = ("evaluation", "systems", "baseline")
HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class CodeChange(BaseModel, extra="forbid"):
    """A change of the code during a training, which the user allowed.

    Attributes:
        date: The time at which the training was resumed with the changed code.
        modules: The import names of the changed modules.
    """

    date: str
    modules: list[str]


class Sources(BaseModel, extra="forbid"):
    """The content of sources.yaml.

    Attributes:
        system: The system's import name.
        digests: A dict from the import name of each module to a digest of its code. If the code changed during the
            training, these are the digests of the latest code.
        code_changes: The changes of the code during the training.
    """

    system: str
    digests: dict[str, str]
    code_changes: list[CodeChange] = []


# Digests --------------------------------------------------------------------------------------------------------------


def digests(system: str, *others: str) -> dict[str, str]:
    """Return a dict from the import name of each module of a system to a digest of its code.

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
        digest_by_name[name] = code_digest(content)
        package = name
        if file.name != "__init__.py":
            package = name.rpartition(".")[0]
        waiting += _imports(content, package)
    return dict(sorted(digest_by_name.items()))


@cache  # all runs of a sweep have the same files
def code_digest(content: bytes) -> str:
    """Return a digest of Python code that does not depend on its comments, docstrings and formatting.

    If the content is not valid Python, the digest depends on every byte.
    """
    try:
        words: list[str] = []
        _add_words(ast.parse(content), words)
        content = " ".join(words).encode("utf-8", "backslashreplace")
    except (SyntaxError, ValueError, RecursionError):
        pass
    return hashlib.sha256(content).hexdigest()[:16]


def _add_words(value: object, words: list[str]) -> None:
    """Append the description of a part of a syntax tree to a list of words.

    `ast.dump` cannot be used, because its output for the same code depends on the version of Python: new versions add
    fields, which are empty for code without new syntax.
    """
    if isinstance(value, list):
        for item in value:
            _add_words(item, words)
    elif isinstance(value, ast.AST):
        words.append(type(value).__name__)
        for field in value._fields:
            inner = getattr(value, field, None)
            if field == "body" and isinstance(value, HAVE_DOCSTRINGS) and ast.get_docstring(value, clean=False):
                inner = value.body[1:]
            if inner is None or inner == []:
                continue
            words.append(field)
            _add_words(inner, words)
        words.append(")")
    else:
        words.append(repr(value))


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


# The digests in a run folder ------------------------------------------------------------------------------------------


def write_digests(folder: Path, system: str, *others: str) -> None:
    """Write the digests of a system's present code into sources.yaml in a run folder.

    Args:
        folder: The run folder.
        system: As for `digests`.
        *others: As for `digests`.
    """
    _write(folder, Sources(system=system, digests=digests(system, *others)))


def read_sources(folder: Path) -> Sources | None:
    """Read the sources.yaml of a run folder.

    Returns:
        The content, or None if the file does not exist or cannot be read. Earlier versions of the kit wrote other
        digests, which cannot be read either.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Sources.model_validate(yamlfiles.read_yaml(file))
    except (BadRequest, Faulty, ValidationError):
        return None


def changed_modules(folder: Path) -> list[str]:
    """Return the import names of the modules whose code differs from the digests in a run folder.

    The list includes modules that the system did not import before, and modules that no longer exist. It is empty if
    the folder contains no digests.
    """
    sources = read_sources(folder)
    if sources is None:
        return []
    before = sources.digests
    now = digests(sources.system, *before)
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def source_changes(folder: Path) -> list[Finding]:
    """Compare the source files of a run's system with their digests in the run folder.

    Returns:
        A list with one warning that names the changed modules, or that the digests cannot be read. The list is empty if
        nothing changed, or if the run folder contains no digests.
    """
    file = folder / FILE
    if file.is_file() and read_sources(folder) is None:
        message = "is damaged or from an earlier version of the kit, so changes in the code are not noticed"
        return [Finding(str(file), message=message, severity=WARNING)]
    changed = changed_modules(folder)
    if not changed:
        return []
    message = (
        f"the code changed since this run was trained: {first_items(changed, NAMED)}; the run's weights come from the "
        "earlier code. To use the present code, train into a new folder"
    )
    return [Finding(str(folder), message=message, severity=WARNING)]


def require_same_code(folder: Path) -> None:
    """Make sure that the code of a run's system has not changed since the training began.

    Raises:
        BadRequest: The code has changed. The message names the changed modules.
    """
    changed = changed_modules(folder)
    if changed:
        raise BadRequest(
            f"{folder}: a training must resume with the code that it began with; found changes in "
            f"{first_items(changed, NAMED)}: undo them, train into a new folder, or add --code-changed to resume with "
            "the changed code"
        )


def accept_changes(folder: Path) -> None:
    """Record that the training of a run resumes with changed code: the time, the modules, and their digests.

    A training in several stages has a run folder for some of its stages in the run folder. The change is recorded in
    each of them.

    Args:
        folder: The run folder.
    """
    date = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    for file in sorted(folder.rglob(FILE)):
        sources = read_sources(file.parent)
        if sources is None:
            continue
        changed = changed_modules(file.parent)
        if changed:
            sources.code_changes.append(CodeChange(date=date, modules=changed))
            sources.digests = digests(sources.system, *sources.digests)
            _write(file.parent, sources)


def _write(folder: Path, sources: Sources) -> None:
    with replacing(folder / FILE) as part:
        part.write_text(yaml.safe_dump(sources.model_dump(), sort_keys=False), encoding="utf-8")
