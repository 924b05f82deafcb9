"""The four packages import in one direction, no modules import each other, and names of tests are short."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "evaluation": set(),
    "submission": {"evaluation"},
    "systems": {"evaluation"},
    "baseline": {"systems", "evaluation"},
}


def imported(source: str) -> set[str]:
    """Return the packages that a source imports, also inside functions and with `import_module`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must be absolute, so that their direction can be checked"
            names.append(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return {name.partition(".")[0] for name in names} & MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {}
    for module in modules:
        forbidden = imported(module.read_text(encoding="utf-8")) - MAY_IMPORT[package] - {package}
        if forbidden:
            wrong[str(module.relative_to(ROOT))] = forbidden
    assert not wrong, f"{package} may import only {MAY_IMPORT[package]}"


@pytest.mark.parametrize(
    "source",
    [
        "import systems.training",
        "def f():\n    from systems import x",
        "import_module('systems.x')",
        "import systems as s",
    ],
)
def test_every_form_of_import_is_detected(source):
    assert imported(source) == {"systems"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def imported_modules(source: str, modules: set[str]) -> set[str]:
    """Return the modules of the kit that a source imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                names.append(submodule if submodule in modules else node.module)
    return modules.intersection(names)


def without_type_checking(source: str) -> str:
    """Return the source without `if TYPE_CHECKING:` blocks, which import nothing at run time."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node))]
    return ast.unparse(tree)


def test_no_modules_import_each_other():
    sources = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            sources[module_name(path)] = path.read_text(encoding="utf-8")
    graph = {}
    for name, source in sources.items():
        graph[name] = imported_modules(without_type_checking(source), set(sources)) - {name}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(error.args[1])}")


def test_names_of_tests_have_fewer_than_60_characters():
    long_names = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) >= 60:
                long_names.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not long_names
