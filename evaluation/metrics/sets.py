"""The metric sets of the challenge years, such as `dcase2024`, read from the files of task facts.

    year_sets("captioning")["dcase2024"].metrics[0]        # 'fense', the metric that ranks

The facts are in `submission/tasks/*.yaml`. This module reads four keys of each file: `kind`, `metrics`, `interval` and
`extends`. `extends` names another task, which supplies all facts that the file does not state. `submission.tasks`
checks the files. To add a year, add a file to this folder.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import printable, unknown_key

TASKS = Path(__file__).parents[2] / "submission" / "tasks"


@dataclass(frozen=True)
class MetricSet:
    """Metrics that are computed together.

    Attributes:
        metrics: Their names. The first metric of a year's set decides the ranking.
        interval: The method that the challenge used for the intervals of its results, one of `intervals.METHODS`;
            `jackknife` if the task file states none.
    """

    metrics: tuple[str, ...]
    interval: str = "jackknife"


def year_sets(kind: str, folder: Path = TASKS) -> dict[str, MetricSet]:
    """Return the metric set of each year that has a task of the given kind.

    Args:
        kind: `captioning`, `retrieval`, `choice` or `moments`.
        folder: The folder of the task files.

    Returns:
        A dict from the name of each year, such as `dcase2024`, to its set. If a year has several tasks of the kind, the
        keys for this year are the names of the tasks, such as `dcase2024-6`.

    Raises:
        Faulty: A task file cannot be read, does not name metrics, or does not extend a suitable task.
    """
    files = {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}
    sets_of_year: dict[str, dict[str, MetricSet]] = defaultdict(dict)
    for name in files:
        if _fact(name, "kind", files, folder) != kind:
            continue
        metrics = _fact(name, "metrics", files, folder)
        interval = _fact(name, "interval", files, folder) or "jackknife"
        if not isinstance(metrics, list) or not metrics or not all(isinstance(metric, str) for metric in metrics):
            message = "must be a list of metrics; the first one decides the ranking"
            raise Faulty([Finding(str(folder / f"{name}.yaml"), column="metrics.value", message=message)])
        year = name.partition("-")[0]
        sets_of_year[year][name] = MetricSet(tuple(metrics), str(interval))
    sets: dict[str, MetricSet] = {}
    for year, sets_of_task in sets_of_year.items():
        if len(sets_of_task) == 1:
            [sets[year]] = sets_of_task.values()
        else:
            sets |= sets_of_task
    return sets


def named_metrics(
    names: Sequence[str], kind: str, is_metric: Callable[[str], bool], unknown: Callable[[str, Sequence[str]], str]
) -> MetricSet:
    """Return the metrics that a request names, each once.

    Args:
        names: Names of metrics, and of the sets of the years that have a task of the kind.
        kind: As in `year_sets`.
        is_metric: Function that returns True for the name of a metric.
        unknown: Function that returns the message about an unknown name. Its arguments are the name, and the names of
            the sets.

    Raises:
        BadRequest: There is no such metric or set.
        Faulty: As `year_sets`.
    """
    check_names(names)
    metrics: dict[str, None] = {}
    for name in names:
        if is_metric(name):
            metrics[name] = None
            continue
        sets = year_sets(kind)
        members = sets[name].metrics if name in sets else (name,)
        for member in members:
            if not is_metric(member):
                raise BadRequest(unknown(printable(member), list(sets)))
            metrics[member] = None
    return MetricSet(tuple(metrics))


def listed(sets: Sequence[str]) -> str:
    """Return the names of sets with their noun.

    >>> listed(["dcase2026"]), listed(["dcase2025", "dcase2026"])
    ('the set dcase2026', 'the sets dcase2025, dcase2026')
    """
    noun = "set" if len(sets) == 1 else "sets"
    return f"the {noun} {', '.join(sets)}"


def check_names(names: object) -> None:
    """Refuse one text in place of a list of metrics.

    Raises:
        BadRequest: The names are a text.
    """
    if isinstance(names, str):
        raise BadRequest(f"metrics must be a list of names; found the text {names!r}: pass [{names!r}]")


def _read(path: Path) -> dict[str, object]:
    import yaml  # only commands that name a year's set need it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast; some builds of PyYAML lack it
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506, both loaders are safe
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Faulty([Finding(str(path), message=f"must be YAML ({' '.join(str(error).split())[:300]})")]) from None
    if not isinstance(content, dict):
        raise Faulty([Finding(str(path), message="must be a mapping of keys to facts")])
    return content


def _fact(name: str, key: str, files: dict[str, dict[str, object]], folder: Path) -> object:
    """Return the value of a fact from the task's own file, or from the nearest task that it extends and that states it.

    The result is None if all these files lack the fact.

    A file that states only a new source for a fact keeps the value of the task that it extends.
    """
    seen = [name]
    while True:
        facts = files[seen[-1]]
        fact = facts.get(key, {})
        if not isinstance(fact, dict):
            return fact  # a plain value, such as that of `kind`; or null, which removes a fact
        if "value" in fact:
            return fact["value"]
        if "extends" not in facts:
            return None
        check_extends(str(facts["extends"]), seen, list(files), folder)
        seen.append(str(facts["extends"]))


def check_extends(base: str, seen: Sequence[str], names: Sequence[str], folder: Path) -> None:
    """Check that a task extends an existing task, and that the chain of tasks does not form a circle.

    Args:
        base: The task that is extended.
        seen: The chain of tasks so far; the last one states `extends`.
        names: The names of all tasks.
        folder: The folder of the task files, for the message.

    Raises:
        Faulty: There is no such task, or it is already in `seen`.
    """
    message = ""
    if base not in names:
        message = f"must name another task; {unknown_key(base, names, 'task')}"
    elif base in seen:
        message = f"must not lead back to the task itself; found {' -> '.join([*seen, base])}"
    if message:
        raise Faulty([Finding(str(folder / f"{seen[-1]}.yaml"), column="extends", message=message)])
