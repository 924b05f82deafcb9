"""Collection of the examples in docstrings."""

from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule

ROOT = Path(__file__).parent
PACKAGES = ("evaluation", "submission", "systems", "baseline")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> DoctestModule | None:
    """Collect the examples of a module of the kit.

    pytest's option `--doctest-modules` would import every module to look for examples, which takes many seconds for
    modules that import large libraries. This function collects only modules whose text contains an example.
    """
    is_module = file_path.suffix == ".py" and file_path.relative_to(ROOT).parts[0] in PACKAGES
    if is_module and ">>>" in file_path.read_text(encoding="utf-8"):
        return DoctestModule.from_parent(parent, path=file_path)
    return None
