"""A table of a system's published results and the results of the user's own runs.

For a system that is a package, the published results are in `published.yaml` in the package's folder. For a system that
is a module, they are in `published/NAME.yaml` next to the module. The file has this form:

    source: where the results were published
    metrics: [METRIC, …]
    data: {SPLIT: the name of the split in the paper, …}
    results:
      - {config: NAME, runs: 5, SPLIT: {METRIC: [value, low, high] or [value] or {mean: value, sd: value}, …}, …}
      - {system: NAME, SPLIT: {METRIC: …}}

- `metrics` lists the metrics to show, in this order.
- `config` is the name of one of the system's YAML files, without .yaml.
- `system` is given instead of `config` for another system that the paper compares with.
- `runs` is the number of runs from which a value was computed: their mean, or with `best: true`, their best value.

If the paper gives standard deviations, the table also shows standard deviations for the user's own runs.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError, model_validator

from evaluation import report, yamlfiles
from evaluation.data.dataset import Split
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.scores import Score
from evaluation.statistics.intervals import Estimate, jackknife
from evaluation.text import unknown_key
from systems import contract, listing

Value = list[float] | dict[Literal["mean", "sd"], float]


class Published(BaseModel, extra="forbid"):
    """The content of a file of published results."""

    source: str
    metrics: list[str]
    data: dict[str, str]
    results: list[dict[str, int | str | dict[str, Value]]]

    def values(self, result: Mapping[str, object]) -> dict[str, dict[str, Value]]:
        """Return the values of a result, as a dict from each data set to a dict from each metric to its value."""
        values = {name: result.get(name) for name in self.data}
        return {name: value for name, value in values.items() if isinstance(value, dict)}

    @property
    def has_sd(self) -> bool:
        """True if the paper gives standard deviations."""
        for result in self.results:
            for values in self.values(result).values():
                if any(isinstance(value, dict) for value in values.values()):
                    return True
        return False

    @model_validator(mode="after")
    def check_results(self) -> "Published":
        """Check that each result has either `config` or `system`, and only data and metrics that the file lists."""
        for number, result in enumerate(self.results, 1):
            if ("config" in result) == ("system" in result):
                raise ValueError(f"result {number}: must have either config or system")
            unknown = result.keys() - {"config", "system", "runs", "best", *self.data}
            if unknown:
                raise ValueError(f"result {number}: unknown key {min(unknown)!r}; it must be one of data")
            for name in self.data.keys() & result.keys():
                values = result[name]
                if not isinstance(values, dict):
                    raise ValueError(f"result {number}: {name} must be a mapping of metrics to values")
                unknown = values.keys() - set(self.metrics)
                if unknown:
                    raise ValueError(f"result {number}: unknown metric {min(unknown)!r}; it must be one of metrics")
        return self


def side_by_side(system: str, runs: Sequence[Path] = (), data: str = "", split: Split | None = None) -> str:
    """Format published results and the results of runs as a table.

    Runs with the same config share a row. The row shows their mean. It also shows the standard deviation if the paper
    gives standard deviations, and otherwise Student's t interval over the runs. For a single run, the row shows the
    interval from the run's score file; if the file contains an interval by clip, this interval is shown.

    Args:
        system: Import name of the system.
        runs: Run folders of the system that were scored on the split. They are ignored if `split` is None.
        data: Name of the data folder, for the table.
        split: The split that the runs were scored on.

    Raises:
        BadRequest: There is no such system, or it has no valid file of published results.
        Faulty: A folder is not a run of the system, or the run was not scored on the split. The exception lists all
            findings.
    """
    place = _place(system)
    content = read_published(listing.published_file(place))

    import pandas as pd

    rows = _published_rows(content)
    if split is not None:
        for config, measured in _scores_by_config(system, place, runs, split).items():
            rows.append(_measured_row(content, config, measured, data, split))
    columns = ["system", "data", *content.metrics, "how"]
    # A cell is empty if the paper does not give the metric for this data set.
    cells = [[row.get(column, "") for column in columns] for row in rows]
    table = pd.DataFrame(cells, columns=columns)
    return report.text(table, dict.fromkeys(content.metrics, str)) + f"\npublished: {content.source}"


def read_published(file: Path) -> Published:
    """Read a file of published results.

    Raises:
        BadRequest: There is no such file, or it does not have the form that this module's docstring describes.
        Faulty: The file is not a YAML mapping.
    """
    try:
        return Published.model_validate(yamlfiles.read_yaml(file))
    except ValidationError as failure:
        first = failure.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = " ".join(first["msg"].split())
        if place:
            reason = f"{place}: {reason}"
        raise BadRequest(f"{file}: {reason}") from None


def best_runs(sweep: Path, by: str) -> list[Path]:
    """Return the run folders of the best settings of a sweep: for each level of a factor, the best setting with it.

    Args:
        sweep: The sweep's folder.
        by: The name of the factor.

    Raises:
        BadRequest: There is no such sweep, or it has no such factor.
        Faulty: The sweep's results.csv is not valid. The exception lists all findings.
    """
    from evaluation.statistics import factors

    results = factors.read(sweep / "results.csv")
    if by not in results.factors:
        raise BadRequest(f"--by: {unknown_key(by, results.factors, 'factor')}")
    chosen = factors.best_settings(results, by).index
    runs = results.runs.set_index(list(results.factors))
    names = runs.loc[runs.index.isin(chosen), "run"]
    return [sweep / "runs" / name for name in names]


def _place(system: str) -> Path:
    """Find a system with published results.

    Returns:
        The folder of a package, or the path of a module's file without its suffix.

    Raises:
        BadRequest: There is no such system, or it has no file of published results.
    """
    try:
        spec = find_spec(system)
    except (ImportError, ValueError):  # a name that no module can have, such as one that begins with a dot
        spec = None
    if spec is None or not spec.origin:
        raise BadRequest(contract.no_such_system(system))
    origin = Path(spec.origin)
    if origin.name == "__init__.py":
        place = origin.parent
    else:
        place = origin.with_suffix("")
    file = listing.published_file(place)
    if not file.is_file():
        raise BadRequest(f"{system} must have a file of published results; found no file {file}: write it")
    return place


def _scores_by_config(system: str, place: Path, runs: Sequence[Path], split: Split) -> dict[str, list[Score]]:
    """Return the scores of runs, as a dict from the name of a config (`_config_name`) to the scores of its runs."""
    measured: dict[str, list[Score]] = {}
    findings = []
    for run in runs:
        try:
            trained = contract.read_run(run)
        except BadRequest:
            trained = None
        except Faulty as faulty:
            findings += faulty.findings
            continue
        if trained is None or trained.system != system:
            message = f"must be the folder of a run of {system}; found another folder: give run folders of {system}"
            findings.append(Finding(str(run), message=message))
            continue
        file = run / "scores" / f"{split.name}.json"
        if not file.is_file():
            findings.append(Finding(str(file), message=f"no such file; score the run: {_score_command(run, split)}"))
            continue
        score = Score.load(file)
        expected = f"split:{split.name}#{split.fingerprint}"
        if expected not in score.signature.split("|"):
            message = f"must be a score on {expected}; found a score on other data: give the other data, or score again"
            findings.append(Finding(str(file), message=message))
            continue
        name = _config_name(contract.system(system).Config, trained.config, place)
        measured.setdefault(name, []).append(score)
    if findings:
        raise Faulty(findings)
    return measured


def _config_name(config: type[BaseModel], values: Mapping[str, object], place: Path) -> str:
    """Name a run's config: the most similar config file of the system, followed by the keys that differ from it."""
    differences = {}
    for file in listing.configs(place):
        content = config(**yamlfiles.read_yaml(file)).model_dump(mode="json")
        differences[file.stem] = [_setting(key, value) for key, value in values.items() if content.get(key) != value]
    name = min(differences, key=lambda name: len(differences[name]))
    return " ".join([name, *differences[name]])


def _setting(key: str, value: object) -> str:
    """Return a setting as text. Of the path of an existing file, only the name is shown."""
    if isinstance(value, str) and Path(value).is_file():
        value = Path(value).name
    return f"{key}={value}"


def _score_command(run: Path, split: Split) -> str:
    """Return the command that scores a run's prediction for a split."""
    kind, suffix = "captions", "csv"
    if (run / "predictions" / f"{split.name}.npz").is_file():
        kind, suffix = "retrieval", "npz"
    prediction = run / "predictions" / f"{split.name}.{suffix}"
    file = run / "scores" / f"{split.name}.json"
    command = f"dcase-evaluation score {kind} --truth DATA --split {split.name}"
    return f"{command} --prediction {prediction} --json {file}"


def _published_rows(content: Published) -> list[dict[str, str]]:
    """Return a row for each published result on each data set."""
    rows = []
    for result in content.results:
        for name, values in content.values(result).items():
            row = {"system": str(result.get("config", result.get("system"))), "data": content.data[name]}
            for metric, value in values.items():
                row[metric] = _published_value(value, content.has_sd)
            rows.append({**row, "how": _how_published(result, content.has_sd)})
    return rows


def _measured_row(
    content: Published, config: str, measured: Sequence[Score], data: str, split: Split
) -> dict[str, str]:
    """Return the table's row for runs with the same config.

    Args:
        content: The published results.
        config: Name of the config.
        measured: The scores of the runs.
        data: Name of the data folder.
        split: The split that the runs were scored on.
    """
    items = measured[0].items
    size = f"{len(split.clips)} clips"
    if items.kind != "clips":
        size = f"{len(items.names)} {items.kind}, {size}"
    row = {"system": config, "data": f"{data} {split.name} ({size})"}
    for metric in content.metrics:
        if all(metric in score.metrics for score in measured):
            row[metric] = _measured_value(measured, metric, content.has_sd)
    return {**row, "how": _how_measured(measured, content.has_sd)}


def _published_value(value: Value, has_sd: bool) -> str:
    if isinstance(value, Mapping):
        return _with_sd(value["mean"], value["sd"])
    decimals = _decimals(has_sd)
    low, high = value[1:] or (None, None)
    return report.with_interval(value[0], low, high, decimals)


def _how_published(result: Mapping[str, object], has_sd: bool) -> str:
    if "runs" not in result:
        return "published"
    statistic = "mean"
    if result.get("best"):
        statistic = "best"
    elif has_sd:
        statistic = "mean and SD"
    return f"published, {statistic} of {result['runs']} runs"


def _measured_value(measured: Sequence[Score], metric: str, has_sd: bool) -> str:
    values = np.array([score.metrics[metric].estimate.value for score in measured])
    if has_sd and len(measured) > 1:
        return _with_sd(values.mean(), values.std(ddof=1))
    if len(measured) > 1:
        estimate = jackknife(values, t=True)
    else:
        estimate = _estimate(measured[0], metric)
    return report.with_interval(estimate.value, estimate.low, estimate.high, _decimals(has_sd))


def _decimals(has_sd: bool) -> int:
    """Return the number of decimals to show: four if the paper gives standard deviations, otherwise three."""
    if has_sd:
        return 4
    return 3


def _how_measured(measured: Sequence[Score], has_sd: bool) -> str:
    if len(measured) > 1:
        if has_sd:
            statistics = f"mean and SD of {len(measured)} runs"
        else:
            statistics = f"mean of {len(measured)} runs, t over runs"
        return f"measured, {statistics}"
    metric = next(iter(measured[0].metrics))
    how = f"measured, {_estimate(measured[0], metric).interval}"
    if measured[0].metrics[metric].by_clip:
        how += ", by clip"
    return how


def _estimate(score: Score, metric: str) -> Estimate:
    """Return the estimate of a metric whose interval is by clip, or the plain estimate if there is no such interval."""
    return score.metrics[metric].by_clip or score.metrics[metric].estimate


def _with_sd(mean: float, sd: float) -> str:
    return f"{report.number(mean, 4)} ± {report.number(sd, 4)}"
