"""A system's published figures, and beside them those that were measured here, each with the data that it is of.

A system that was published keeps `published.yaml` beside its module:

    source: where the figures are from
    metrics: [METRIC, …]
    data: {SPLIT: what the paper calls it, …}
    results:
      - {config: NAME, runs: 5, SPLIT: {METRIC: [value, low, high] or [value] or {mean: value, sd: value}, …}, …}

`metrics` are those to show, `config` names a YAML file there, `runs` how many a figure is the mean of where it is not
of one, or the best of where it says `best: true`. Where a paper gives standard deviations, so do measured figures.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from evaluation import factors, scores, yamlfiles
from evaluation.data import Split
from evaluation.findings import BadRequest, Faulty, Finding, table, unknown_key
from evaluation.intervals import Estimate, jackknife
from evaluation.scores import Score
from systems import listing

FILE = listing.PUBLISHED


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
    folder = _folder(system)
    content = yamlfiles.read(folder / FILE)
    metrics = content["metrics"]
    figures = [
        figures
        for result in content["results"]
        for name in content["data"]
        for figures in result.get(name, {}).values()
    ]
    spread = any(isinstance(one, dict) for one in figures)
    rows = []
    for result in content["results"]:
        for name, called in content["data"].items():
            if name in result:
                of = "best" if result.get("best") else "mean and SD" if spread else "mean"
                how = f"published, {of} of {result['runs']} runs" if "runs" in result else "published"
                values = {metric: _published(figures, spread) for metric, figures in result[name].items()}
                rows.append([result["config"], called, *(values.get(metric, "") for metric in metrics), how])
    for configs, measured in _measured(system, folder, runs, split).items():
        items = measured[0].items
        queries = f"{len(items.names)} {items.kind}, " if items.kind != "clips" else ""
        called = f"{data} {split.name} ({queries}{len(split.clips)} clips)"
        rows.append([configs, called, *(_figure(measured, metric, spread) for metric in metrics)])
        rows[-1].append(_how(measured, spread))
    heads = ["config", "data", *metrics, "how"]
    return table(rows, heads, numbers=range(2, 2 + len(metrics))) + f"\npublished: {content['source']}"


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
    chosen = {one.levels for one in factors.best(results, by)}
    return [sweep / "runs" / run.name for run in results.runs if run.levels in chosen]


def _folder(system: str) -> Path:
    try:
        spec = find_spec(system)
    except (ImportError, ValueError):  # of a name that none can have, such as one that begins with a dot
        spec = None
    if spec is None or not spec.origin:
        raise BadRequest(f"no module {system!r}; give a system's import name, such as systems.atae")
    folder = Path(spec.origin).parent
    if not (folder / FILE).is_file():
        raise BadRequest(f"{system} has no published figures: there is no {folder / FILE}")
    return folder


def _measured(system: str, folder: Path, runs: Sequence[Path], split: Split | None) -> dict[str, list[Score]]:
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
            called = _called(contract.system(system).Config, trained.config, folder)
            found.setdefault(called, []).append(score)
    if findings:
        raise Faulty(findings)
    return found


def _called(config: type[BaseModel], values: dict[str, object], folder: Path) -> str:
    """The config file that has most in common with a run's config, and in what the run differs."""
    differences = {}
    for file in listing.configs(folder):
        there = config(**yamlfiles.read(file)).model_dump(mode="json")
        differences[file.stem] = [f"{key}={value}" for key, value in values.items() if there.get(key) != value]
    name = min(differences, key=lambda name: len(differences[name]))
    return " ".join([name, *differences[name]])


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
