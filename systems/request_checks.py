"""Quick checks of a user's request, made before torch and Lightning are imported.

The import takes many seconds, so users should learn of their mistakes earlier. These checks look at names of modules,
keys of configs, Lightning's flags and sweep files. They usually do not run a system's code, and they do not find all
mistakes. The code that carries out the request checks it again, and completely.
"""

import ast
import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.extras import EXTRAS, absent
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import quoted, unknown_key
from systems import contract, modules

MOST_RUNS = 2  # maximum number of runs in a demo
LAST_PORT = 65535
ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
PRECISIONS = (
    *("transformer-engine", "transformer-engine-float16"),
    *("16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true"),
    *("16", "bf16", "32", "64"),  # these mean 16-mixed, bf16-mixed, 32-true and 64-true
)
FIGURES = (".svg", ".png", ".pdf")


class Unreadable(Exception):
    """The fields of a config cannot be determined from the source."""


def check_module(name: str) -> None:
    """Check that the module of a system exists.

    Raises:
        BadRequest: There is no module with this name.
    """
    if modules.source(name) is None:
        contract.import_system_module(name)  # a module without a source file can exist too


def check_keys(name: str, file: Path | None, settings: Sequence[str]) -> None:
    """Check that a system's `Config` has a field for each key that the user gives.

    Unknown keys are not found if the fields cannot be determined from the source (`config_fields`).

    Args:
        name: The system's import name.
        file: The config file, if any.
        settings: `key=value` settings.

    Raises:
        BadRequest: The file does not exist, or a setting does not have the form `key=value` with a YAML value.
        Faulty: The file is not a YAML mapping, or keys are unknown. The exception lists all unknown keys.
    """
    values, where = contract.read_settings(file, settings)
    try:
        fields = config_fields(name)
    except Unreadable:
        return
    unknown = [key for key in values if isinstance(key, str) and key not in fields]
    if unknown:
        findings = [Finding(where(key), column=key, message=unknown_key(key, fields)) for key in unknown]
        raise Faulty(findings, status=2)


def check_rerank(retriever: Path | None, data: Path | None, weight: str) -> None:
    """Check how a user re-ranks candidates.

    Args:
        retriever: The retriever's run folder, if any.
        data: The data folder, if any.
        weight: The weight of the retriever, or `search`.

    Raises:
        BadRequest: A retriever is given without the data folder, or the weight is not a number from 0 to 1.
    """
    if retriever and not data:
        raise BadRequest("--retriever must be given with --data; found no --data: give the data folder")
    if weight == "search":
        return
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise BadRequest(f"--weight must be a number from 0 to 1, or search; found {quoted(weight)}: correct it")
    if not retriever:
        raise BadRequest("--weight must be given with --retriever; found no --retriever: give the run of a retriever")


def check_search(query: str | None, sound: Path | None, number: int) -> None:
    """Check what a user searches for.

    Args:
        query: The text, if any.
        sound: The audio file, if any.
        number: The number of clips to return.

    Raises:
        BadRequest: Both or neither of `query` and `sound` are given, the text is blank, the file does not exist, or the
            number is below 1.
    """
    if (query is None) == (sound is None):
        found = "neither" if query is None else "both"
        raise BadRequest(f"search needs a text or --sound FILE; found {found}: give one of them")
    if query is not None and not query.strip():
        raise BadRequest("the text to search for must not be blank; found only blanks: write what you look for")
    if sound is not None and not sound.is_file():
        raise BadRequest(f"--sound {sound}: no such file; give an audio file")
    if number < 1:
        raise BadRequest(f"-n must be 1 or more; found {number}")


def check_demo(runs: Sequence[Path], space: Path | None, port: int | None) -> None:
    """Check the runs and the port of a demo, and that Gradio is installed.

    Args:
        runs: The runs, as the user gives them.
        space: The folder of the Space to write, if any.
        port: The port of the page, if the user gives one.

    Raises:
        BadRequest: There are more than two runs, Gradio is not installed, the folder of the Space has files, or there
            is no such port.
    """
    if absent(["gradio"]):
        raise BadRequest(f"gradio must be installed; install dcase-kit[{EXTRAS['gradio']}]")
    if len(runs) > MOST_RUNS:
        raise BadRequest(f"demo takes one or {MOST_RUNS} runs; found {len(runs)}: give fewer")
    if space is not None and space.exists() and (not space.is_dir() or any(space.iterdir())):
        raise BadRequest(f"--space {space}: must be a new or empty folder; found files: give another folder")
    if port is not None and not 1 <= port <= LAST_PORT:
        raise BadRequest(f"--port must be from 1 to {LAST_PORT}; found {port}: give another port")


def check_flags(flags: Mapping[str, Any]) -> None:
    """Check the accelerator, the precision and the numbers among Lightning's flags.

    This function does not check whether this machine has the devices.

    Args:
        flags: Arguments for `lightning.Trainer`.

    Raises:
        BadRequest: Lightning has no such accelerator or precision, or a number is below 1.
    """
    for name, choices in (("accelerator", ACCELERATORS), ("precision", PRECISIONS)):
        if flags[name] not in choices:
            message = f"{name} must be one of {', '.join(choices)}; found {flags[name]!r}"
            raise BadRequest(f"lightning's flags: {message}")
    for name in ("num_nodes", "accumulate_grad_batches"):
        if flags[name] < 1:
            raise BadRequest(f"lightning's flags: {name} must be 1 or more; found {flags[name]}")


def check_figure(file: Path) -> None:
    """Check that the suffix of a file names a format of figures.

    Raises:
        BadRequest: It does not.
    """
    if file.suffix.lower() not in FIGURES:
        raise BadRequest(f"{file}: the name of a figure must end with {', '.join(FIGURES)}; give such a name")


def check_sweep(file: Path) -> None:
    """Check a sweep file, the name of the system in it, and the config keys that it sets.

    Args:
        file: The sweep file.

    Raises:
        BadRequest: There is no such file, system or config file.
        Faulty: The file is not valid, or config keys are unknown. The exception lists all findings.
    """
    from systems.sweeps import grid  # imports more than other commands need

    plan = grid.parse(file)
    check_module(plan.system)
    findings = [*grid.check_search(plan, file), *grid.check_metric(plan, file)]
    keys = grid.config_keys(plan, file)
    with contextlib.suppress(Unreadable):
        fields = config_fields(plan.system)
        for key, place in keys.items():
            if isinstance(key, str) and key not in fields:
                findings.append(Finding(str(place), column=key, message=unknown_key(key, fields)))
    if findings:
        raise Faulty(findings, status=2)
    grid.read(file)


# Reading the fields of a config from the source -----------------------------------------------------------------------


def config_fields(name: str) -> list[str]:
    """Return the field names of a system's `Config` in pydantic's order, without importing the system.

    Args:
        name: The system's import name.

    Raises:
        Unreadable: The fields cannot be determined from the source, or the config may accept further keys.
    """
    fields, forbids_others = _class_fields(name, "Config")
    if not forbids_others:
        raise Unreadable(f"{name}.Config may accept further keys")
    return fields


def _class_fields(module: str, name: str) -> tuple[list[str], bool]:
    """Return the names of the fields of a class and of its base classes, and whether the class refuses further keys."""
    if (module, name) == ("pydantic", "BaseModel"):
        return [], False
    node = _definition(module, name)
    if isinstance(node, tuple):  # imported from another module
        return _class_fields(*node)
    if not isinstance(node, ast.ClassDef):
        raise Unreadable(f"{module}.{name} is not defined as a class in the source")
    fields: dict[str, None] = {}
    forbids_others = False
    for base in reversed(node.bases):
        inherited, base_forbids = _class_fields(*_base(module, base))
        fields |= dict.fromkeys(inherited)
        forbids_others |= base_forbids
    for keyword in node.keywords:
        if keyword.arg == "extra":
            forbids_others = ast.unparse(keyword.value) == "'forbid'"
        elif keyword.arg not in ("frozen", "allow_inf_nan"):
            raise Unreadable(f"{module}.{name} has settings that may change its fields")
    for statement in node.body:
        fields |= dict.fromkeys(_own_fields(statement))
    return list(fields), forbids_others


def _own_fields(statement: ast.stmt) -> list[str]:
    """Return the name of the field that a statement in a config's class defines, or an empty list."""
    if isinstance(statement, ast.FunctionDef):
        if "before" in "".join(map(ast.unparse, statement.decorator_list)):
            raise Unreadable("a validator may change the keys before they are checked")
        return []
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    if is_docstring:
        return []
    if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
        raise Unreadable("the class contains more than fields and functions")
    if statement.value is not None and "alias" in ast.unparse(statement.value):
        raise Unreadable("a field may have another name")
    name = statement.target.id
    is_field = not name.startswith("_") and "ClassVar" not in ast.unparse(statement.annotation)
    if is_field:
        return [name]
    return []


def _base(module: str, base: ast.expr) -> tuple[str, str]:
    """Return the module and the name of a base class, such as `Schedule` or `generation.Decoding`."""
    if isinstance(base, ast.Name):
        return module, base.id
    if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
        imported = _definition(module, base.value.id)
        if isinstance(imported, tuple):
            return ".".join(part for part in imported if part), base.attr
    raise Unreadable(f"{ast.unparse(base)} is not a plain name")


def _definition(module: str, name: str) -> ast.stmt | tuple[str, str] | None:
    """Find the definition of a name at the top level of a module.

    Returns:
        The statement, if it defines a class or assigns the name. For an imported name, the module from which it is
        imported, and its name in that module (empty for `import module`). None if no statement defines the name, or if
        several statements do.

    Raises:
        Unreadable: The module has no source file, or the file is not valid Python.
    """
    file = modules.source(module)
    if file is None or file.suffix != ".py":
        raise Unreadable(f"{module} has no source file")
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"{file} is not valid Python") from error
    definitions: list[ast.stmt | tuple[str, str]] = []
    for node in tree.body:
        is_class = isinstance(node, ast.ClassDef) and node.name == name
        is_assigned = isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets)
        if is_class or is_assigned:
            definitions.append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    definitions.append(_imported_from(node, alias, module, file))
    if len(definitions) == 1:
        return definitions[0]
    return None


def _imported_from(node: ast.Import | ast.ImportFrom, alias: ast.alias, module: str, file: Path) -> tuple[str, str]:
    """Return the module from which a name is imported, and its name in that module (empty for `import module`)."""
    if isinstance(node, ast.Import):
        return alias.name, ""
    package = module.split(".")
    if file.name != "__init__.py":
        package.pop()
    if node.level:  # one dot means the package itself, each further dot its parent package
        package = package[: len(package) - node.level + 1]
        outer = ".".join(package)
        if node.module:
            outer += f".{node.module}"
        return outer, alias.name
    return node.module or "", alias.name
