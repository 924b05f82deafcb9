"""Functions that import modules by name, and that decide which modules a run folder may name.

Importing a module runs its code. Users may import any module. But a run folder or a checkpoint may have been
downloaded, so it may only name the modules that `must_be_trusted` accepts:

- modules that ship with the kit, in its packages `SYSTEM_PACKAGES`;
- modules that are installed in this environment, also as an editable installation;
- modules that the user named in this command (`trusting`).

All other modules are refused, such as files in the working directory and modules of the standard library. The functions
that decide this find the source file of a module without importing the module or its packages.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import pkgutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from evaluation.findings import BadRequest
from systems.listing import ROOT, SYSTEM_PACKAGES

# The modules that the user named in this command. They are not passed as an argument, because the only argument of a
# system's `load_model` is the checkpoint.
TRUSTED: ContextVar[frozenset[str]] = ContextVar("TRUSTED", default=frozenset())


class UntrustedModule(BadRequest):
    """A run folder names a module whose code must not run unless the user allows it."""


class NoSuchModule(BadRequest):
    """The exception for a name that no module has.

    Attributes:
        name: The name.
    """

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


def imported(name: str, otherwise: str) -> ModuleType:
    """Import a module.

    Args:
        name: The module's import name.
        otherwise: The message if there is no module with this name.

    Raises:
        NoSuchModule: There is no module with this name.
        ModuleNotFoundError: The module exists, but it imports another module that does not exist.
    """
    if not _is_import_name(name):
        raise NoSuchModule(otherwise, name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module may exist, but import another module that does not exist.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise NoSuchModule(otherwise, name) from None
        raise


@contextlib.contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Within the block, allow runs and checkpoints to name these modules. The code of the modules may then run.

    Args:
        names: The import names of the modules.
    """
    before = TRUSTED.set(TRUSTED.get() | frozenset(names))
    try:
        yield
    finally:
        TRUSTED.reset(before)


def must_be_trusted(name: str, otherwise: str) -> None:
    """Make sure that a run may name a module. Call this before the module or one of its packages is imported.

    Args:
        name: The module's import name.
        otherwise: The message if there is no module with this name.

    Raises:
        UntrustedModule: The user did not name the module (`trusting`), and the module or a package that contains it is
            neither a part of the kit nor installed.
        BadRequest: There is no module with this name.
    """
    if name in TRUSTED.get():
        return
    if not _is_import_name(name):
        raise BadRequest(otherwise)
    top = name.partition(".")[0]
    specs = []
    for spec in _specs(name):
        specs.append(spec)
        file = _file(spec)
        is_package_without_code = file is None and spec.origin is None
        if not is_package_without_code and not _is_permitted(file, top, specs):
            place = file or "Python itself"
            raise UntrustedModule(
                "a run may only name modules that ship with the kit or are installed, because importing a module runs "
                f"its code; it names {name}, which is in {place}: read that code, and if you trust it, add "
                f"--trust {name} (in Python: systems.modules.trusting)"
            )
    if not specs or specs[-1].name != name or _file(specs[-1]) is None:
        raise BadRequest(otherwise)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--trust` to a command that loads runs. With it, a user names the modules for `trusting`."""
    text = (
        "allow the run to name this module, and run its code; modules of the kit and installed modules need no --trust"
    )
    parser.add_argument("--trust", action="append", default=[], metavar="MODULE", help=text)


def source(name: str) -> Path | None:
    """Return the source file of a module, or None if there is no such file.

    Neither the module nor its packages are imported.
    """
    if not _is_import_name(name):
        return None
    specs = list(_specs(name))
    if not specs or specs[-1].name != name:
        return None
    return _file(specs[-1])


def is_installed(file: Path) -> bool:
    """Return whether a file is in a folder of installed packages (site-packages or dist-packages)."""
    return any(_is_in(file, folder) for folder in _site_folders())


def is_shipped(file: Path) -> bool:
    """Return whether a file is in one of the kit's packages that contain systems."""
    return any(_is_in(file, ROOT / package) for package in SYSTEM_PACKAGES)


def _is_import_name(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_permitted(file: Path | None, top: str, specs: Sequence[ModuleSpec]) -> bool:
    """Return whether a run may import a file.

    Args:
        file: The source file; None for a built-in module.
        top: Import name of the outermost package.
        specs: The specs of the packages that contain the module, the outermost first, and of the module.
    """
    if file is None:
        return False
    if is_installed(file):
        return True
    if is_shipped(file):
        # Every package of the kit has an __init__.py. A folder without this file is not a part of the kit.
        return all(_file(spec) for spec in specs)
    return _is_installed_editable(file, top)


def _is_installed_editable(file: Path, top: str) -> bool:
    """Return whether a file belongs to an editable installation, which is a link to the folder of the sources."""
    for distribution in importlib.metadata.distributions(path=[str(folder) for folder in _site_folders()]):
        try:
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
            if not origin.get("dir_info", {}).get("editable"):
                continue
            folder = Path(unquote(urlsplit(origin["url"]).path))
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
        modules = distribution.read_text("top_level.txt") or distribution.name.replace("-", "_")
        if top in modules.split() and _is_in(file, folder):
            return True
    return False


@cache
def _site_folders() -> tuple[Path, ...]:
    """Return the folders of this environment in which packages are installed."""
    folders = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    # The names are checked because on Windows, the first folder is the folder of the whole environment.
    return tuple({Path(folder) for folder in folders if Path(folder).name in ("site-packages", "dist-packages")})


def _is_in(file: Path, folder: Path) -> bool:
    """Return whether a file is in a folder, either by the given paths or by the paths with all links resolved."""
    path = Path(os.path.normpath(file.absolute()))
    if path.is_relative_to(os.path.normpath(folder.absolute())):
        return True
    return file.resolve().is_relative_to(folder.resolve())


def _file(spec: ModuleSpec) -> Path | None:
    """Return the source file of a module, or None if the module has no file."""
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    return None


def _specs(name: str) -> Iterator[ModuleSpec]:
    """Yield the specs of a module's packages, the outermost first, and then the spec of the module.

    Nothing is imported. The iterator ends before the first package or module that does not exist.
    """
    places: Sequence[str] | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:count]), places)
        if spec is None:
            return
        yield spec
        if spec.submodule_search_locations is None:
            return
        package = sys.modules.get(spec.name)
        places = list(getattr(package, "__path__", spec.submodule_search_locations))


def _spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """Find a module in the same way as Python.

    Args:
        name: The module's import name.
        places: The search path of the module's package; None for a module that is not in a package.
    """
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    if places is None:
        for finder in sys.meta_path:
            if spec := finder.find_spec(name, None):
                return spec
        return None
    # `PathFinder` cannot be used, because it needs the package to be imported.
    folders: list[str] = []
    for place in places:
        importer = pkgutil.get_importer(place)
        if importer is None:
            continue
        spec = importer.find_spec(name)
        if spec and spec.loader:
            return spec
        if spec:
            folders += spec.submodule_search_locations or []
    if not folders:
        return None
    # This is a package without an __init__.py, which may consist of several folders.
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = folders
    return package
