"""A system's published figures, and beside them those that were measured here, each with the data that it is of.

The figures of a system that is a package are in `published.yaml` in its folder, those of a module in
`published/NAME.yaml` beside it:

    source: where the figures are from
    metrics: [METRIC, …]
    data: {SPLIT: what the paper calls it, …}
    results:
      - {config: NAME, runs: 5, SPLIT: {METRIC: [value, low, high] or [value] or {mean: value, sd: value}, …}, …}
      - {system: NAME, SPLIT: {METRIC: …}}

`metrics` are those to show, in order. `config` names a YAML file of the system, `system` another system that the paper
compares with. `runs` is how many runs a figure is the mean of, or the best of if `best: true`. If a paper gives
standard deviations, measured figures have them too.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError, model_validator

from evaluation import scores, yamlfiles
from evaluation.data.dataset import Split
from evaluation.findings import BadRequest, Faulty, Finding, table, unknown_key
from evaluation.scores import Score
from evaluation.statistics import factors
from evaluation.statistics.intervals import Estimate, jackknife
from systems import listing

Figure = list[float] | dict[Literal["mean", "sd"], float]


class Published(BaseModel, extra="forbid"):
    """The content of a file of published figures."""

    source: str
    metrics: list[str]
    data: dict[str, str]
    results: list[dict[str, int | str | dict[str, Figure]]]

    @model_validator(mode="after")
    def check_results(self) -> "Published":
        """Refuse a result without a name, or of data or metrics that are not declared."""
        for number, result in enumerate(self.results, 1):
            if ("config" in result) == ("system" in result):
                raise ValueError(f"result {number}: must have either config or system")
            if unknown := result.keys() - {"config", "system", "runs", "best", *self.data}:
                raise ValueError(f"result {number}: unknown key {min(unknown)!r}; it must be one of data")
            for name in self.data.keys() & result.keys():
                if unknown := result[name].keys() - set(self.metrics):
                    raise ValueError(f"result {number}: unknown metric {min(unknown)!r}; it must be one of metrics")
        return self


def beside(system: str, runs: Sequence[Path] = (), data: str = "", split: Split | None = None) -> str:
    """Lay published and measured figures side by side.

    Runs that differ in their seed alone are one row: their mean, with their standard deviation or Student's t interval
    over runs. A single run has the interval of its score, by clip where there is one.

    Args:
        system: Import name of the system.
        runs: Folders of runs of it that were scored on the split.
        data: What to call the data.
        split: What the scores are of.

    Raises:
        BadRequest: The system has no published figures.
        Faulty: A folder is no run of the system, or was not scored on the split; with every finding.
    """
    place = _place(system)
    content = read(listing.figures(place))
    metrics = content.metrics
    spread = False
    for result in content.results:
        for name in content.data:
            spread |= any(isinstance(figure, dict) for figure in result.get(name, {}).values())
    rows = []
    for result in content.results:
        system_name = result.get("config", result.get("system"))
        for name, called in content.data.items():
            if name in result:
                values = {metric: _published(figures, spread) for metric, figures in result[name].items()}
                cells = [values.get(metric, "") for metric in metrics]
                rows.append([system_name, called, *cells, _how_published(result, spread)])
    for configs, measured in _measured(system, place, runs, split).items():
        items = measured[0].items
        queries = f"{len(items.names)} {items.kind}, " if items.kind != "clips" else ""
        called = f"{data} {split.name} ({queries}{len(split.clips)} clips)"
        rows.append([configs, called, *(_figure(measured, metric, spread) for metric in metrics)])
        rows[-1].append(_how(measured, spread))
    heads = ["system", "data", *metrics, "how"]
    return table(rows, heads, numbers=range(2, 2 + len(metrics))) + f"\npublished: {content.source}"


def read(file: Path) -> Published:
    """Read a file of published figures.

    Raises:
        BadRequest: There is no such file, or it is not of the form that this module describes.
        Faulty: It is not YAML.
    """
    try:
        return Published.model_validate(yamlfiles.read(file))
    except ValidationError as failure:
        first = failure.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = " ".join(first["msg"].split())
        raise BadRequest(f"{file}: {place}: {reason}" if place else f"{file}: {reason}") from None


def best_of(sweep: Path, by: str) -> list[Path]:
    """The run folders of a sweep's best setting of each level of a factor.

    Args:
        sweep: The sweep's folder.
        by: The factor.

    Raises:
        BadRequest: There is no such sweep, or no such factor in it.
        Faulty: Its results do not hold; with every finding.
    """
    results = factors.read(sweep / "results.csv")
    if by not in results.factors:
        raise BadRequest(f"--by: {unknown_key(by, results.factors, 'factor')}")
    chosen = factors.best_settings(results, by).index
    runs = results.runs.set_index(list(results.factors))
    names = runs.loc[runs.index.isin(chosen), "run"]
    return [sweep / "runs" / name for name in names]


def _place(system: str) -> Path:
    """Return the folder of a package, or the path of a module's file without its suffix."""
    try:
        spec = find_spec(system)
    except (ImportError, ValueError):  # of a name that none can have, such as one that begins with a dot
        spec = None
    if spec is None or not spec.origin:
        raise BadRequest(f"no module {system!r}; give a system's import name, such as systems.atae")
    origin = Path(spec.origin)
    place = origin.parent if origin.name == "__init__.py" else origin.with_suffix("")
    if not listing.figures(place).is_file():
        raise BadRequest(f"{system} has no published figures: there is no {listing.figures(place)}")
    return place


def _measured(system: str, place: Path, runs: Sequence[Path], split: Split | None) -> dict[str, list[Score]]:
    """The scores of runs by what their config is called."""
    from systems import contract  # torch, which the published figures alone do without

    found: dict[str, list[Score]] = {}
    findings = []
    for run in runs:
        scored = run / "scores" / f"{split.name}.json"
        try:
            trained = contract.read_run(run)
        except BadRequest:
            trained = None
        except Faulty as faulty:
            findings += faulty.findings
            continue
        if trained is None or trained.system != system:
            findings.append(Finding(str(run), message=f"must be the folder of a run of {system}; give such folders"))
            continue
        if not scored.is_file():
            message = f"no such file; score the run: python -m evaluation score … --json {scored}"
            findings.append(Finding(str(scored), message=message))
            continue
        score = scores.read(scored)
        expected = f"split:{split.name}#{split.fingerprint}"
        if expected not in score.signature.split("|"):
            message = f"must be of the data given, {expected}; the score is of other data: give those, or score again"
            findings.append(Finding(str(scored), message=message))
        else:
            called = _called(contract.system(system).Config, trained.config, place)
            found.setdefault(called, []).append(score)
    if findings:
        raise Faulty(findings)
    return found


def _called(config: type[BaseModel], values: dict[str, object], place: Path) -> str:
    """Return the config file that has most in common with a run's config, and what differs in the run."""
    differences = {}
    for file in listing.configs(place):
        there = config(**yamlfiles.read(file)).model_dump(mode="json")
        differences[file.stem] = [f"{key}={value}" for key, value in values.items() if there.get(key) != value]
    name = min(differences, key=lambda name: len(differences[name]))
    return " ".join([name, *differences[name]])


def _how_published(result: Mapping[str, object], spread: bool) -> str:
    if "runs" not in result:
        return "published"
    if result.get("best"):
        of = "best"
    elif spread:
        of = "mean and SD"
    else:
        of = "mean"
    return f"published, {of} of {result['runs']} runs"


def _published(figures: Sequence[float] | Mapping[str, float], spread: bool) -> str:
    if isinstance(figures, Mapping):
        return f"{figures['mean']:.4f} ± {figures['sd']:.4f}"
    value, *interval = (f"{figure:.{4 if spread else 3}f}" for figure in figures)
    return f"{value} ({'–'.join(interval)})" if interval else value


def _estimate(measured: Sequence[Score], metric: str) -> Estimate:
    if len(measured) > 1:
        return jackknife(np.array([score.metrics[metric].estimate.value for score in measured]), t=True)
    return measured[0].metrics[metric].by_clip or measured[0].metrics[metric].estimate


def _figure(measured: Sequence[Score], metric: str, spread: bool) -> str:
    if any(metric not in score.metrics for score in measured):
        return ""
    if spread and len(measured) > 1:
        values = np.array([score.metrics[metric].estimate.value for score in measured])
        return _published({"mean": values.mean(), "sd": values.std(ddof=1)}, spread)
    estimate = _estimate(measured, metric)
    interval = [estimate.low, estimate.high] if estimate.low == estimate.low else []  # a single item has none
    return _published([estimate.value, *interval], spread)


def _how(measured: Sequence[Score], spread: bool) -> str:
    if len(measured) > 1:
        if spread:
            return f"measured, mean and SD of {len(measured)} runs"
        return f"measured, mean of {len(measured)} runs, t over runs"
    metric = next(iter(measured[0].metrics))
    clip = ", by clip" if measured[0].metrics[metric].by_clip else ""
    return f"measured, {_estimate(measured, metric).interval}{clip}"
