"""The model card of an exported run: README.md with metadata in YAML, as the Hugging Face hub shows and indexes it.

The metadata contain the run's scores in the hub's form `model-index`. The intervals are in `args` of each metric.

Source: huggingface.co/docs/hub/model-cards, and `huggingface_hub.EvalResult`, which reads this form.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evaluation import report, scores, yamlfiles
from evaluation.data.dataset import SPLITS, Dataset
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from evaluation.scores import Measured, Score
from systems.contract import RunConfig, texts_in
from systems.modules import imported
from systems.parts import encoders
from systems.sharing.folders import SCORES

LIBRARY = "dcase-kit"
TASKS = {  # for each task: its name in the card, and its tags
    "captioning": ("Automated audio captioning", ["audio-captioning"]),
    "retrieval": ("Language-based audio retrieval", ["audio-retrieval", "text-to-audio-retrieval"]),
}
TO_FILL_IN = "(to be filled in)"
FROZEN = (
    "The repository does not contain the frozen parts of the model. They must be on the machine that loads the model, "
    "with the same weights as in training. The config below names them:"
)

TEXT = """\
# {title}

This model was trained with dcase-kit, which evaluates and runs systems for DCASE's audio-language tasks. Task: {tasks}.
System: `{system}`.

## Use it

In a clone of dcase-kit, give the name of this repository, or a local copy of it, in place of a run folder:

```shell
dcase-systems predict USER/NAME --data DIR --split evaluation
```

`DIR` is a data folder in Clotho's layout. The weights are in `model.safetensors`, and the other values of the
checkpoint in `model.json`. No file of this repository is a pickle, and no code from it is run.{trust}

## Needs

{needs}

## Data

{data}

## Results

{results}

## Training

{description}

The config:

```yaml
{config}```

## Licence, limits and citation

{to_fill_in}
"""


def require_training_data(run: Path, config: RunConfig, dataset: Dataset | None) -> None:
    """Make sure that a data folder contains the data that a run was trained on.

    Raises:
        BadRequest: A split is missing or differs.
    """
    if dataset is None:
        return
    for name, digest in config.data.items():
        if name not in SPLITS:  # further data that the system read
            continue
        if name not in dataset.splits or dataset.splits[name].digest != digest:
            message = f"must have the {name} split that {run} was trained on (digest {digest})"
            raise BadRequest(f"{dataset.folder}: {message}; found another, or none: give the training data")


def write_card(
    run: Path,
    title: str,
    config: RunConfig,
    tasks: Sequence[str],
    frozen: Collection[str],
    dataset: Dataset | None,
) -> str:
    """Return the text of the model card.

    Args:
        run: The run folder.
        title: The title of the model.
        config: The content of the run's config.yaml.
        tasks: The tasks that the model can do.
        frozen: The prefixes of the weights of frozen parts, such as `audio_encoder.`, which the run does not contain.
        dataset: The data that the run was trained on, if they are known.

    Raises:
        Faulty: A score file or system.yaml is damaged. The exception lists all findings.
    """
    measured = {file.stem: scores.Score.load(file) for file in sorted((run / SCORES).glob("*.json"))}
    metadata: dict[str, Any] = {
        "language": ["en"],
        "library_name": LIBRARY,
        "tags": ["audio", "dcase", *(tag for task in tasks for tag in TASKS[task][1])],
        "datasets": [],
    }
    if list(tasks) == ["retrieval"]:
        metadata["pipeline_tag"] = "feature-extraction"
    results = [_result(score, dataset) for score in measured.values()]
    if results:
        metadata["model-index"] = [{"name": title, "results": results}]
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    front = front.replace("datasets: []\n", "datasets: []  # fill in: the names of the data sets on the hub\n")
    licence = "license:  # fill in: such as mit, or cc-by-4.0; the licences of the data may limit your choice\n"

    trust = ""
    if config.system.partition(".")[0] not in ("baseline", "systems"):
        trust = f" The module `{config.system}` must be installed, or be allowed with `--trust {config.system}`."
    text = TEXT.format(
        title=title,
        tasks=", ".join(TASKS[task][0].lower() for task in tasks) or TO_FILL_IN,
        system=config.system,
        trust=trust,
        needs=_needs(config, frozen),
        data=_data(config, dataset),
        results=_tables(measured, dataset),
        description=_description(run / "system.yaml", config),
        config=yaml.safe_dump(config.config, sort_keys=False, allow_unicode=True),
        to_fill_in=TO_FILL_IN,
    )
    return f"---\n{licence}{front}---\n\n{text}"


def _split_of(score: Score) -> tuple[str, str]:
    """Return the name and the digest of the split that a score is for, from its signature."""
    for part in score.signature.split("|"):
        key, _, value = part.partition(":")
        if key == "split":
            name, _, digest = value.partition("#")
            return name, digest
    return TO_FILL_IN, ""


def _data_name(dataset: Dataset | None, score: Score) -> str:
    """Return the name of the data set that a score is for, if the given data are those of the score."""
    split, fingerprint = _split_of(score)
    if dataset and split in dataset.splits and dataset.splits[split].fingerprint == fingerprint:
        return dataset.folder.resolve().name
    return TO_FILL_IN


def _task_of(score: Score) -> str:
    if score.items.kind == "queries":
        return "retrieval"
    return "captioning"


def _result(score: Score, dataset: Dataset | None) -> dict[str, Any]:
    """Return a score as an entry of `model-index`."""
    split, digest = _split_of(score)
    name = _data_name(dataset, score)
    task = _task_of(score)
    metrics = []
    for metric, measured in score.metrics.items():
        if math.isfinite(measured.estimate.value):
            figures = measured.figures()
            value = figures.pop("value")
            metrics.append({"type": metric, "name": metric, "value": value, "args": figures})
    return {
        "task": {"type": TASKS[task][1][0], "name": TASKS[task][0]},
        "dataset": {"name": name, "type": name, "split": split, "args": {"digest": digest}},
        "metrics": metrics,
    }


def _tables(measured: Mapping[str, Score], dataset: Dataset | None) -> str:
    """Return a table of the metrics for each score file."""
    if not measured:
        return f"{TO_FILL_IN} The run had no scores when it was exported."
    parts = []
    for file, score in measured.items():
        split, digest = _split_of(score)
        rows = [
            f"Data: {_data_name(dataset, score)}, split `{split}` (digest {digest}), scored by `{SCORES}/{file}.json`.",
            "",
        ]
        rows += [f"| metric | value | 95 % interval | by clip | {score.items.kind} |", "|---|---|---|---|---|"]
        rows += [_row(name, one) for name, one in score.metrics.items()]
        rows += ["", f"Signature: `{score.signature}`"]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _row(name: str, measured: Measured) -> str:
    estimate = measured.estimate
    by_clip = report.NOTHING
    if measured.by_clip:
        by_clip = report.interval(measured.by_clip.low, measured.by_clip.high)
    interval = report.interval(estimate.low, estimate.high)
    return f"| {name} | {report.number(estimate.value)} | {interval} | {by_clip} | {estimate.n} |"


def _needs(config: RunConfig, frozen: Collection[str]) -> str:
    """Return a list of what a user must have besides this folder: the encoders' files, and other frozen parts.

    Args:
        config: The content of the run's config.yaml.
        frozen: The prefixes of the weights of frozen parts, such as `audio_encoder.`.
    """
    lines = []
    for name in sorted(texts_in(config.config) & set(encoders.NAMES)):
        asset = getattr(imported(f"{encoders.__name__}.{name}", name), "ASSET", None)
        if isinstance(asset, Asset):
            lines.append(f"- the weights of `{name}`: {asset.file_name} ({asset.size}) from {asset.source}")
    for prefix in frozen:
        key = prefix.removesuffix(".")
        value = config.config.get(key)
        named = f", which is `{value}`" if isinstance(value, str) else ""
        lines.append(f"- the frozen part `{key}`{named}")
    if not lines:
        return "The repository contains all weights."
    return "\n".join([FROZEN, "", *lines])


def _data(config: RunConfig, dataset: Dataset | None) -> str:
    """Return a table of the splits that the run was trained on."""
    name = dataset.folder.resolve().name if dataset else TO_FILL_IN
    rows = [f"Trained on: {name}", "", "| split | digest | clips | captions |", "|---|---|---|---|"]
    for name, digest in config.data.items():
        sizes = "| | |"
        if dataset and name in dataset.splits:
            split = dataset.splits[name]
            sizes = f"| {len(split.clips)} | {len(split.all_captions)} |"
        rows.append(f"| {name} | {digest} {sizes}")
    return "\n".join(rows)


def _description(file: Path, config: RunConfig) -> str:
    """Return a list of the training's settings and of the entries of system.yaml."""
    lines = [f"- seed: {config.seed}", *(f"- {key}: {value}" for key, value in config.training.items())]
    if file.is_file():
        content = yamlfiles.read_yaml(file)
        for group in ("description", "complexity", "versions"):
            for key, value in _mapping(content.get(group)).items():
                if value is not None:
                    lines.append(f"- {str(key).replace('_', ' ')}: {value}")
        commit = _mapping(content.get("git")).get("commit")
        if commit:
            lines.append(f"- commit of dcase-kit: {commit}")
    return "\n".join(lines)


def _mapping(value: object) -> Mapping[object, object]:
    """Return a value if it is a dict, and otherwise an empty dict."""
    if isinstance(value, dict):
        return value
    return {}
