"""Read the fields of a system's `Config` from its source, without importing the system.

Importing a system imports torch, which takes seconds. The keys and most values of a config can be checked without it.
`read_config` reads the source of the class and of its base classes, and returns a class with the same fields. This
class lacks two things: it has no validators, and a field whose type the source does not tell takes any value. So it may
accept a value that the system's own class refuses, but not the other way round.
"""

import ast
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict

from systems import modules

PLAIN_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
CONTAINERS = {"tuple": tuple, "list": list, "dict": dict}
LIMITS = ("gt", "ge", "lt", "le", "multiple_of")  # arguments of pydantic's `Field` that limit a value
# Arguments of a class that inherits from pydantic's `BaseModel`. Others may change the fields.
SETTINGS = ("extra", "frozen", "allow_inf_nan")


class Unreadable(Exception):
    """The fields of a config cannot be determined from the source."""


@dataclass
class _Class:
    """The fields of a class in the source.

    Attributes:
        fields: A dict from the name of each field, also of inherited ones, to its type (`Any` if it is not known) and
            the limits of its values.
        settings: The arguments of the class, also inherited ones.
    """

    fields: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class _Sources:
    """The sources of modules. Each module is parsed once."""

    def __init__(self) -> None:
        self.parsed: dict[str, tuple[Path, ast.Module]] = {}

    def origin(self, module: str, node: ast.expr) -> tuple[str, str]:
        """Return the module and the name that an expression in a module means, such as `Schedule` or `texts.Output`."""
        if isinstance(node, ast.Name):
            return module, node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            imported = self.definition(module, node.value.id)
            if isinstance(imported, tuple):
                return ".".join(part for part in imported if part), node.attr
        raise Unreadable(f"{ast.unparse(node)} is not a plain name")

    def definition(self, module: str, name: str) -> ast.stmt | tuple[str, str] | None:
        """Find the definition of a name at the top level of a module.

        Returns:
            The statement, if it defines a class or assigns the name. For an imported name, the module from which it is
            imported, and its name in that module (empty for `import module`). None if no statement defines the name, or
            if several statements do.

        Raises:
            Unreadable: The module has no source file, or the file is not valid Python.
        """
        file, tree = self._parse(module)
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

    def _parse(self, module: str) -> tuple[Path, ast.Module]:
        """Return the file of a module and its syntax tree."""
        if module not in self.parsed:
            file = modules.source(module)
            if file is None or file.suffix != ".py":
                raise Unreadable(f"{module} has no source file")
            try:
                self.parsed[module] = file, ast.parse(file.read_bytes())
            except (SyntaxError, ValueError) as error:
                raise Unreadable(f"{file} is not valid Python") from error
        return self.parsed[module]


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


def read_config(name: str) -> type[BaseModel]:
    """Return a class with the fields of a system's `Config`, in pydantic's order.

    All fields have the default None, because the defaults of the system are not read.

    Args:
        name: The system's import name.

    Raises:
        Unreadable: The fields cannot be determined from the source, or the config may accept further keys.
    """
    found = _read_class(_Sources(), name, "Config")
    if found.settings.get("extra") != "forbid":
        raise Unreadable(f"{name}.Config may accept further keys")
    fields: dict[str, Any] = {}
    for key, (kind, limits) in found.fields.items():
        fields[key] = (kind, pydantic.Field(None, **limits))
    settings = ConfigDict(extra="forbid", allow_inf_nan=found.settings.get("allow_inf_nan", True))
    return pydantic.create_model("Config", __config__=settings, **fields)


# Classes --------------------------------------------------------------------------------------------------------------


def _read_class(sources: _Sources, module: str, name: str) -> _Class:
    """Read the fields and the settings of a class and of its base classes."""
    if (module, name) == ("pydantic", "BaseModel"):
        return _Class()
    node = sources.definition(module, name)
    if isinstance(node, tuple):  # imported from another module
        return _read_class(sources, *node)
    if not isinstance(node, ast.ClassDef):
        raise Unreadable(f"{module}.{name} is not defined as a class in the source")
    read = _Class()
    for base in reversed(node.bases):
        inherited = _read_class(sources, *sources.origin(module, base))
        read.fields |= inherited.fields
        read.settings |= inherited.settings
    for keyword in node.keywords:
        if keyword.arg not in SETTINGS:
            raise Unreadable(f"{module}.{name} has settings that may change its fields")
        read.settings[keyword.arg] = _literal(keyword.value)
    for statement in node.body:
        _read_statement(sources, module, statement, read)
    return read


def _read_statement(sources: _Sources, module: str, statement: ast.stmt, read: _Class) -> None:
    """Add the field that a statement in a config's class defines, if it defines one."""
    if isinstance(statement, ast.FunctionDef):
        decorators = "".join(map(ast.unparse, statement.decorator_list))
        if any(mode in decorators for mode in ("before", "wrap", "plain")):
            raise Unreadable("a validator may change the keys or the values before they are checked")
        return
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    if is_docstring:
        return
    if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
        raise Unreadable("the class contains more than fields and functions")
    if statement.value is not None and "alias" in ast.unparse(statement.value):
        raise Unreadable("a field may have another name")
    name = statement.target.id
    is_field = not name.startswith("_") and "ClassVar" not in ast.unparse(statement.annotation)
    if not is_field:
        return
    try:
        kind = _type(sources, module, statement.annotation)
    except Unreadable:
        kind = Any
    limits = {} if kind is Any else _limits(statement.value)
    read.fields[name] = (kind, limits)


def _limits(default: ast.expr | None) -> dict[str, Any]:
    """Return the limits that the default of a field states, such as `{"ge": 1}` for `Field(3, ge=1)`.

    A limit that is not written as a number is left out.
    """
    limits = {}
    if isinstance(default, ast.Call):
        for keyword in default.keywords:
            if keyword.arg in LIMITS:
                with contextlib.suppress(Unreadable):
                    limits[keyword.arg] = _literal(keyword.value)
    return limits


# Types ----------------------------------------------------------------------------------------------------------------


def _type(sources: _Sources, module: str, node: ast.expr) -> Any:
    """Return the type that an annotation means.

    Args:
        sources: The sources of modules.
        module: The module with the annotation.
        node: The annotation.

    Raises:
        Unreadable: The annotation contains more than plain types, containers of them, `Literal`, and names of these.
    """
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Constant) and node.value is ...:
        return ...
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type(sources, module, node.left) | _type(sources, module, node.right)
    if isinstance(node, ast.Subscript):
        return _subscripted_type(sources, module, node)
    if isinstance(node, ast.Name) and node.id in PLAIN_TYPES:
        return PLAIN_TYPES[node.id]
    return _named_type(sources, *sources.origin(module, node))


def _subscripted_type(sources: _Sources, module: str, node: ast.Subscript) -> Any:
    """Return the type that an annotation such as `Literal["beam", "greedy"]` or `tuple[int, ...]` means."""
    if isinstance(node.value, ast.Name) and node.value.id in CONTAINERS:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = tuple(_type(sources, module, part) for part in parts)
        return GenericAlias(CONTAINERS[node.value.id], inner)
    if sources.definition(*sources.origin(module, node.value)) == ("typing", "Literal"):
        return Literal[_literal(node.slice)]
    raise Unreadable(f"{ast.unparse(node)} is not a known type")


def _named_type(sources: _Sources, module: str, name: str) -> Any:
    """Return the type that a name at the top level of a module means, such as `Option = bool | int | float | str`."""
    definition = sources.definition(module, name)
    if isinstance(definition, tuple):  # imported from another module
        return _named_type(sources, *definition)
    if isinstance(definition, ast.Assign):
        return _type(sources, module, definition.value)
    raise Unreadable(f"{module}.{name} is not defined as a plain type in the source")


def _literal(node: ast.expr) -> Any:
    """Return the value of an expression that is written as a number, a text, or a tuple of them."""
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(f"{ast.unparse(node)} is not a plain value") from error
