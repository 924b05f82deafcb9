"""Modules by their import names, as users give them."""

import importlib
from types import ModuleType

from evaluation.findings import BadRequest


def imported(name: str, otherwise: str) -> ModuleType:
    """Import a module; raises BadRequest, saying `otherwise`, where there is none of this name."""
    if "" in name.split("."):  # importlib takes it for a name relative to some package
        raise BadRequest(otherwise)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise BadRequest(otherwise) from None
        raise
