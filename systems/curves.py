"""The figure that `dcase-systems curves` draws: losses and validation values over the epochs of training runs.

The figure has a panel for the loss and one for each validation value. Each run has a colour. The runs of a sweep that
differ only in their seed share a curve, which shows their mean at each epoch, with a band of one SD. The mean at an
epoch is over the runs that reached this epoch.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.statistics.factors import AROUND
from evaluation.statistics.figures import COLOURS, DPI, GRID, INK, STYLE
from evaluation.text import cut, plural, unknown_key

METRICS, RESULTS = "metrics.csv", "results.csv"
# A dict from each format to the metadata that are removed, because they depend on the time or on a version.
FORMATS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
COLUMNS = 3  # maximum number of panels in a row
PANEL = (3.6, 2.9)  # width and height of a panel in inches
VALIDATION = "validation_"
LOSS = "loss"
DASHES = {"training": (3, 1.5), "validation": ""}  # values of the training have a dashed line
LETTER = 0.083  # the width of a letter in inches
LABEL = 40  # maximum number of letters in a label


def draw_curves(folders: Sequence[Path], metric: str | None, out: Path) -> str:
    """Draw the curves of runs.

    Args:
        folders: Run folders, and folders of sweeps.
        metric: The value to draw in addition to the loss, such as `mAP@10` or another column of metrics.csv (None: all
            validation values).
        out: The file to write. The suffix .svg, .png or .pdf decides the format.

    Returns:
        A text that names the file and what it shows.

    Raises:
        BadRequest: No run has the metric.
        Faulty: A folder is not a run or a sweep, or a run does not have values or the metric. The exception lists all
            findings.
    """
    table = read_curves(folders)
    names = list(table["name"].unique())
    shown = [name for name in names if name != "learning_rate"]
    if metric is not None:
        wanted = metric.removeprefix(VALIDATION)
        if wanted not in names:
            raise BadRequest(f"--metric: {unknown_key(wanted, names, 'metric')}")
        _require_metric(table, wanted)
        shown = list(dict.fromkeys([name for name in (LOSS, wanted) if name in names]))
    with rc_context(STYLE):
        figure = _figure(table, shown)
        kind = out.suffix.lower().removeprefix(".")
        with replacing(out) as part:
            figure.savefig(part, format=kind, dpi=DPI, metadata=FORMATS[kind])
    curves = plural(table["label"].nunique(), "curve")
    runs = plural(table["run"].nunique(), "run")
    return f"{out}: {', '.join(shown)}; {curves} of {runs}"


def read_curves(folders: Sequence[Path]) -> pd.DataFrame:
    """Read the metrics.csv of runs.

    Args:
        folders: Run folders, and folders of sweeps. Runs of a sweep without a complete epoch are left out.

    Returns:
        A table with a row for each value: `label` of the curve, `run`, `epoch`, `name` of the value without the prefix
        `validation_`, `kind` (training or validation) and `value`.

    Raises:
        Faulty: A folder is not a run or a sweep, or a run has no values. The exception lists all findings.
    """
    findings: list[Finding] = []
    rows: list[dict[str, object]] = []
    for folder, label in _labels(folders).items():
        if (folder / RESULTS).is_file():
            runs = _sweep_runs(folder, findings)
            prefix = f"{label}: " if len(folders) > 1 else ""
            runs = {run: f"{prefix}{setting}" for run, setting in runs.items()}
        else:
            finding = _no_metrics(folder)
            if finding:
                findings.append(finding)
                continue
            runs = {folder: label}
        for run, curve in runs.items():
            rows += _read_metrics(run, curve, findings)
    if findings:
        raise Faulty(findings, status=2)
    return pd.DataFrame(rows)


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Return a dict from each folder to its label.

    The label is the folder's name. If several folders have the same name, the labels begin with names of outer folders.

    A folder that is given several times appears once.
    """
    paths = {folder.resolve(): folder for folder in folders}
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(paths.values(), names, strict=True))


def _no_metrics(folder: Path) -> Finding | None:
    """Return a finding if a folder is not a run with metrics.csv, or None if it is."""
    if (folder / METRICS).is_file():
        return None
    stages = sorted(folder.glob(f"*/{METRICS}"))
    if folder.is_file():
        message = "must be a run folder or the folder of a sweep; found a file: give the folder"
    elif not folder.is_dir():
        message = "no such folder; give a run folder, or the folder of a sweep"
    elif not (folder / "config.yaml").is_file():
        message = f"must be a run folder or the folder of a sweep; found neither {METRICS} nor {RESULTS}"
    elif stages:
        names = ", ".join(str(stage.parent) for stage in stages)
        message = f"must have a {METRICS}; found some for stages of the training: give {names}"
    else:
        message = f"must have a {METRICS}; found none: no epoch has ended, or the system does not train with Run.fit"
    return Finding(str(folder), message=message)


def _sweep_runs(sweep: Path, findings: list[Finding]) -> dict[Path, str]:
    """Return a dict from each run folder of a sweep to a label, such as `learning_rate=0.001`.

    The label contains the value of each key that the sweep changes. Runs without metrics.csv are left out.

    Args:
        sweep: The folder of the sweep.
        findings: The list to which a finding is added if results.csv is damaged or no run has a metrics.csv.
    """
    file = sweep / RESULTS
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        reader = csv.DictReader(stream)
        header = list(reader.fieldnames or [])
        if "run" not in header or "seed" not in header:
            message = "must have the columns run and seed, as `dcase-systems sweep` writes them"
            findings.append(Finding(str(file), 1, message=f"{message}; found {', '.join(header)}"))
            return {}
        factors = [name for name in header[: header.index("seed")] if name not in AROUND]
        runs = {}
        for row in reader:
            run = sweep / "runs" / (row["run"] or "")
            if (run / METRICS).is_file():
                runs[run] = ", ".join(f"{factor}={row[factor]}" for factor in factors) or "all runs"
    if not runs:
        findings.append(Finding(str(sweep), message=f"must have a run with {METRICS}; found none in runs/"))
    return runs


def _read_metrics(run: Path, label: str, findings: list[Finding]) -> list[dict[str, object]]:
    """Return the values in the metrics.csv of a run, and add a finding for each cell that is not a finite number."""
    file = run / METRICS
    rows: list[dict[str, object]] = []
    findings_before = len(findings)
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            epoch = _number(row.get("epoch"))
            for column, cell in row.items():
                value = _number(cell)
                if math.isnan(value) or math.isnan(epoch):
                    message = f"must be a number; found {cut(repr(cell))}: train the run again"
                    findings.append(Finding(str(file), reader.line_num, str(column), message))
                elif column != "epoch":
                    kind = "validation" if column.startswith(VALIDATION) else "training"
                    name = column.removeprefix(VALIDATION)
                    values = {"label": label, "run": str(run), "epoch": epoch, "name": name, "kind": kind}
                    rows.append({**values, "value": value})
    if not rows and len(findings) == findings_before:
        findings.append(Finding(str(file), message="must have a row for each epoch; found none: train the run again"))
    return rows


def _number(cell: object) -> float:
    """Return a cell as a number, or NaN if it is not a finite number."""
    try:
        value = float(str(cell))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _require_metric(table: pd.DataFrame, metric: str) -> None:
    """Make sure that every run has a metric.

    Raises:
        Faulty: Some runs do not have the metric. The exception lists all of these runs.
    """
    findings = []
    for run, values in table.groupby("run", sort=False):
        names = values["name"].unique()
        if metric not in names:
            message = f"must have a column for {metric}; found {', '.join(names)}: leave this run out"
            findings.append(Finding(str(Path(str(run)) / METRICS), message=message))
    if findings:
        raise Faulty(findings, status=2)


def _figure(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Return a figure with a panel for each of the named values."""
    labels = list(table["label"].unique())
    palette = dict(zip(labels, _colours(len(labels)), strict=True))
    columns = min(len(names), COLUMNS)
    rows = math.ceil(len(names) / columns)
    longest = max(len("validation loss"), *(len(cut(label, LABEL)) for label in labels))
    width = PANEL[0] * columns + 0.7 + LETTER * longest
    figure = Figure(figsize=(width, PANEL[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        _draw_panel(axes, table[table["name"] == name], name, palette)
    for axes in panels[len(names) :]:
        axes.remove()
    handles = [Line2D([], [], color=palette[label], label=cut(label, LABEL)) for label in labels]
    if LOSS in names:
        for kind, dashes in DASHES.items():
            style = (0, dashes) if dashes else "solid"
            handles.append(Line2D([], [], color=INK, linestyle=style, label=f"{kind} loss"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _colours(number: int) -> list[object]:
    """Return a colour for each curve. Only up to seven colours are easy to distinguish."""
    if number <= len(COLOURS):
        return list(COLOURS[:number])
    return list(seaborn.color_palette("viridis", number))


def _draw_panel(axes: Axes, values: pd.DataFrame, name: str, palette: dict[str, object]) -> None:
    """Draw the curves of one value in a panel."""
    marker = "o" if values["epoch"].nunique() == 1 else None  # a line through one point would be invisible
    seaborn.lineplot(
        values,
        x="epoch",
        y="value",
        hue="label",
        palette=palette,
        style="kind",
        dashes=DASHES,
        errorbar="sd",
        err_kws={"linewidth": 0},
        marker=marker,
        legend=False,
        ax=axes,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    is_validation = (values["kind"] == "validation").all()
    axes.set_ylabel(f"{name} (validation)" if is_validation else name)
