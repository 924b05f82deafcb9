"""The metrics of each year's challenge, by a name such as `dcase2024`, read from the facts of the tasks.

    year_sets("captioning")["dcase2024"].metrics[0]        # 'fense', the metric that ranks

The facts are `submission/tasks/*.yaml`: data files, of which this module reads the keys `kind`, `metrics` and
`interval`, and `extends`, the task that a file takes the rest from. `submission.tasks` checks them. A new year is a new
file there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.findings import Faulty, Finding
from evaluation.text import unknown_key

TASKS = Path(__file__).parents[2] / "submission" / "tasks"


@dataclass(frozen=True)
class MetricSet:
    """Metrics that are computed together.

    Attributes:
        metrics: Their names; in a year's set the first one ranks.
        interval: How the results give intervals: one of `intervals.METHODS`.
    """

    metrics: tuple[str, ...]
    interval: str = "jackknife"


def year_sets(kind: str, folder: Path = TASKS) -> dict[str, MetricSet]:
    """Return the metric set of each year that has a task of a kind, by its name, such as `dcase2024`.

    Args:
        kind: `captioning` or `retrieval`.
        folder: The folder of the task files.

    Raises:
        Faulty: A task file is not readable, or names no metrics.
    """
    files = {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}
    sets = {}
    for name in files:
        if _fact(name, "kind", files, folder) != kind:
            continue
        metrics = _fact(name, "metrics", files, folder)
        interval = _fact(name, "interval", files, folder) or "jackknife"
        if not isinstance(metrics, list) or not metrics or not all(isinstance(metric, str) for metric in metrics):
            message = "must be a list of metrics, the first of which ranks"
            raise Faulty([Finding(str(folder / f"{name}.yaml"), column="metrics.value", message=message)])
        year = name.partition("-")[0]
        sets[year] = MetricSet(tuple(metrics), str(interval))
    return sets


def _read(path: Path) -> dict[str, object]:
    import yaml  # only commands that name a year's set read these files

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506, both are safe
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Faulty([Finding(str(path), message=f"must be YAML ({' '.join(str(error).split())[:300]})")]) from None
    if not isinstance(content, dict):
        raise Faulty([Finding(str(path), message="must be a mapping of keys to facts")])
    return content


def _fact(name: str, key: str, files: dict[str, dict[str, object]], folder: Path) -> object:
    """Return the value of a fact: that of the task's own file, or of the nearest task that it extends; None for none.

    A file that states only a new source for a fact leaves its value where it was.
    """
    seen = [name]
    while True:
        facts = files[seen[-1]]
        fact = facts.get(key, {})
        if not isinstance(fact, dict):
            return fact  # `kind`, which is a plain value; or null, which removes a fact
        if "value" in fact:
            return fact["value"]
        if "extends" not in facts:
            return None
        check_extends(str(facts["extends"]), seen, list(files), folder)
        seen.append(str(facts["extends"]))


def check_extends(base: str, seen: Sequence[str], names: Sequence[str], folder: Path) -> None:
    """Check that a task extends another one that exists, and not itself.

    Args:
        base: The task that is extended.
        seen: The tasks whose files led here; the last one states `extends`.
        names: All tasks.
        folder: The folder of the task files, for the message.

    Raises:
        Faulty: There is no such task, or it leads back to one of `seen`.
    """
    message = ""
    if base not in names:
        message = f"must name another task; {unknown_key(base, names, 'task')}"
    elif base in seen:
        message = f"must not lead back to the task itself; found {' -> '.join([*seen, base])}"
    if message:
        raise Faulty([Finding(str(folder / f"{seen[-1]}.yaml"), column="extends", message=message)])
