"""The bundle of a competition on Codabench, which organisers upload to the platform.

The zip contains:

- `competition.yaml`, `logo.png` and `pages/`: the competition, with a page for each topic, from the task's facts.
- `reference_data/`: a data folder with the ground truth of the scored set, and `score.SETTINGS`. It contains no audio.
  In Clotho's layout, the clips of the task's other sets, which are only validated, are empty files.
- `scoring_program/`: `score.py`, `metadata.yaml` with its command, and the packages `evaluation` and `submission`.
- `Dockerfile` and `requirements.txt`: the image in which the scoring program runs.
- `README.txt`: the steps for the organisers.

Conventions
-----------
- **Dates** are days in UTC. The phase includes the whole first and last day. The platform sets every time to midnight,
  so the end in `competition.yaml` is the day after the last one.
- **A column's key** has only lower-case letters, digits and `_`.
- **Folders** end in `/` in `competition.yaml`. The platform then zips them inside its own temporary folder.
- **Reproducible bytes**: the same inputs and dates give the same bytes.

Source: codalab/codabench@c7dbc75: `documentation/docs/Organizers/Benchmark_Creation/Yaml-Structure.md`,
`src/apps/competitions/unpackers/v2.py`, `base_unpacker.py` (`_get_data_key`) and `utils.py` (`get_datetime`,
`zip_if_directory`), `src/apps/competitions/models.py` and `src/apps/leaderboards/models.py` (maximum lengths).
"""

import importlib.metadata
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import cast

import yaml

from evaluation import assets
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, catalogue
from evaluation.text import cut, plural
from submission import archive, leaderboard, scoring
from submission.codabench import score
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.tasks import Task

KIT = Path(__file__).parents[2]
TEMPLATES = KIT / "submission" / "templates" / "codabench"
COPIED = (".py", ".yaml", ".class", ".css", ".j2")  # suffixes of the kit's files that the scoring program needs
NOT_COPIED = ("submission/codabench/", "submission/templates/codabench/")
COMMAND = "python3 /app/program/score.py /app/input /app/output"
PAGES = ("overview", "evaluation", "submission")
DECIMALS = 3  # number of decimals on the platform's leaderboard
SUBMISSIONS, SUBMISSIONS_PER_DAY = 10, 2  # maximum numbers of scored submissions of a participant
# Maximum numbers of characters on the platform.
TITLE, COLUMN_TITLE, IMAGE, EMAIL = 256, 36, 128, 256

# The packages from PyPI that the scoring program imports. The tests compare them with the modules that it imports.
LIBRARIES = (
    *("jinja2", "matplotlib", "numpy", "pandas", "pydantic", "pypdf"),
    *("pyyaml", "scipy", "soundfile", "tabulate", "threadpoolctl", "tqdm", "wcwidth"),
)
# The packages that download and run the models of some caption metrics, by component of `catalogue.Metric`.
DOWNLOADERS = ("filelock", "huggingface-hub", "pooch", "py7zr", "requests")
MODEL_LIBRARIES: Mapping[str, Sequence[str]] = {
    "spice": DOWNLOADERS,
    "fer": (*DOWNLOADERS, "aac-metrics", "sentence-transformers", "torch", "transformers"),
    "sbert_sim": (*DOWNLOADERS, "aac-metrics", "sentence-transformers", "torch", "transformers"),
    "bert_score": (*DOWNLOADERS, "torch", "transformers"),
}


@dataclass(frozen=True)
class Column:
    """A column of the platform's leaderboard.

    Attributes:
        metric: Name of the metric in the kit, such as `mAP@10`.
        key: Key of the column, which `scores.json` uses.
        title: Heading of the column.
        sorting: `asc` if lower values are better, otherwise `desc`.
        values: Range of the values, and which values are better.
    """

    metric: str
    key: str
    title: str
    sorting: str
    values: str


@dataclass(frozen=True)
class Options:
    """What the organisers decide about a competition.

    Attributes:
        start: First day (UTC).
        end: Last day (UTC); None for a competition without an end.
        image: Docker image of the scoring program; "" if there is none yet.
        contact: E-mail address of the organisers; "" for no address.
    """

    start: date
    end: date | None = None
    image: str = ""
    contact: str = ""

    def check(self) -> None:
        """Check that the platform accepts the options.

        Raises:
            BadRequest: An option is not valid.
        """
        if self.end and self.end < self.start:
            message = f"must not be before the first day, {self.start}; give a later day, or an earlier --start"
            raise BadRequest(f"--end {self.end}: {message}")
        if self.image and (not re.fullmatch(r"[\w./:@-]+", self.image, re.ASCII) or len(self.image) > IMAGE):
            message = f"must be a Docker image of at most {IMAGE} characters, such as NAME/scoring:1"
            raise BadRequest(f"--image {cut(self.image)!r}: {message}")
        is_address = re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", self.contact)
        if self.contact and (not is_address or len(self.contact) > EMAIL):
            raise BadRequest(f"--contact {cut(self.contact)!r}: must be an e-mail address, such as name@example.org")


def write(task: Task, splits: Mapping[str, Asked], options: Options, out: Path) -> list[str]:
    """Write the bundle of a competition. If anything fails, no file is written.

    Args:
        task: The task.
        splits: A dict from each of the task's sets to the split that its outputs are for. The first set whose split has
            a ground truth is scored.
        options: What the organisers decide.
        out: The zip to write, which must not exist.

    Returns:
        The names of the files in the zip.

    Raises:
        BadRequest: `out` exists or is not a zip, an option is not valid, or no split has a ground truth that can be
            written as a data folder.
        Faulty: The ground truth has an error.
    """
    if out.suffix.lower() != ".zip":
        raise BadRequest(f"{out}: the file's name must end in .zip; give another name with --out")
    if out.exists() or out.is_symlink():
        raise BadRequest(f"{out} already exists; give another name with --out, or remove it")
    options.check()
    ranked = leaderboard.ranked_set(task, splits)
    KINDS[task.kind].check_truth(splits[ranked])
    with tempfile.TemporaryDirectory(prefix="dcase-") as scratch:
        folder = Path(scratch)
        _write_reference(task, splits, ranked, folder / "reference_data")
        _write_image(task, folder)
        _write_pages(task, splits, ranked, options, folder)
        _draw_logo(task, folder / "logo.png")
        _write_text(folder / "competition.yaml", _competition(task, splits[ranked], options))
        _write_text(folder / "scoring_program" / "metadata.yaml", f"command: {COMMAND}\n")
        files = _program_files()
        for path in folder.rglob("*"):
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path
        archive.pack(files, out)
    return sorted(files)


def columns(task: Task) -> list[Column]:
    """Return the columns of the platform's leaderboard: the task's metrics, the one that ranks first.

    >>> from submission import tasks
    >>> [(column.key, column.title) for column in columns(tasks.read("dcase2022-6b"))][:2]
    [('map_at_10', 'mAP@10'), ('r_at_1', 'R@1')]
    """
    made = []
    for name in task.metrics.value:
        metric = cast(catalogue.Metric, catalogue.find(name))  # the metrics of a task are known
        key = re.sub(r"[^a-z0-9]+", "_", name.lower().replace("@", "_at_"))
        sorting = "desc"
        if metric.lower_is_better:
            sorting = "asc"
        heading = cut(catalogue.heading(name), COLUMN_TITLE - 1)
        made.append(Column(name, key, heading, sorting, metric.values))
    return made


# Reference data -------------------------------------------------------------------------------------------------------


def _write_reference(task: Task, splits: Mapping[str, Asked], ranked: str, folder: Path) -> None:
    """Write a data folder with the ground truth of the ranked set and the names of the other sets, and `SETTINGS`.

    Raises:
        BadRequest: A split cannot be written as a data folder.
    """
    folder.mkdir()
    by_name = {split.name: split for split in splits.values()}
    kind = KINDS[task.kind]
    for name, split in by_name.items():
        kind.write_data(split, name == splits[ranked].name, folder)
    written = kind.read_data(folder, splits[ranked].name)[splits[ranked].name]
    if written.fingerprint != splits[ranked].fingerprint:
        message = f"{splits[ranked].name} cannot be written as a data folder; give another --truth folder"
        raise BadRequest(f"the ground truth of {message}")
    split_names = {name: split.name for name, split in splits.items()}
    keys = {column.metric: column.key for column in columns(task)}
    settings = score.Settings(task.name, ranked, split_names, keys)
    _write_text(folder / score.SETTINGS, json.dumps(asdict(settings), indent=1) + "\n")


# Scoring program and its image ----------------------------------------------------------------------------------------


def _program_files() -> dict[str, Path]:
    """Return a dict from the path in the zip of each file of the kit that the scoring program needs to the file."""
    files = {"scoring_program/score.py": Path(score.__file__)}
    for package in ("evaluation", "submission"):
        for path in (KIT / package).rglob("*"):
            inner = path.relative_to(KIT).as_posix()
            if path.suffix in COPIED and not inner.startswith(NOT_COPIED):
                files[f"scoring_program/{inner}"] = path
    return files


def _components(task: Task) -> dict[str, None]:
    """Return the components that the task's caption metrics are computed from, each once."""
    components: dict[str, None] = {}
    for name in task.metrics.value:
        if name in catalogue.CAPTIONING:
            components.update(dict.fromkeys(catalogue.CAPTIONING[name].components))
    return components


def downloads(task: Task) -> list[str]:
    """Return the names, for `dcase-evaluation download`, of the files that the task's metrics need."""
    needs: set[str] = set()
    for name in task.metrics.value:
        needs.update(captioning.NEEDS.get(name, ()))
    return [download for download, names in assets.DOWNLOADS.items() if needs.intersection(names)]


def requirements(task: Task) -> dict[str, str]:
    """Return a dict from each package from PyPI that the scoring program needs to the version in this environment.

    Packages that these packages need are included. A package that is not installed here, because this platform does not
    need it, is left out.
    """
    pending = list(LIBRARIES)
    pending += KINDS[task.kind].libraries
    for component in _components(task):
        pending += MODEL_LIBRARIES.get(component, ())
    versions: dict[str, str] = {}
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in versions:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        versions[name] = distribution.version.partition("+")[0]  # PyPI has no local versions such as 2.11.0+cpu
        for requirement in distribution.requires or ():
            if not re.search(r"\bextra\s*==", requirement):
                pending.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return dict(sorted(versions.items()))


def _write_image(task: Task, folder: Path) -> None:
    """Write the Dockerfile and the requirements of the scoring program's image, which has this version of Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [f"{name}=={version}" for name, version in requirements(task).items()]
    _write_text(folder / "requirements.txt", "\n".join(lines) + "\n")
    _write_text(folder / "Dockerfile", _render("Dockerfile.j2", python=python, downloads=downloads(task)))


# Competition and pages ------------------------------------------------------------------------------------------------


def image(task: Task, options: Options) -> str:
    """Return the Docker image: the given one, or a name that no registry has."""
    return options.image or f"localhost/{task.name}-scoring:1"


def _competition(task: Task, split: Asked, options: Options) -> str:
    """Return the content of `competition.yaml`."""
    first = columns(task)[0]
    title = cut(f"{task.title} ({task.name})", TITLE - 1)
    phase: dict[str, object] = {
        "index": 0,
        "name": "Evaluation",
        "description": f"Submit a package with up to {plural(task.systems.value, 'system')}.",
        "start": options.start,
        "tasks": [0],
        "accepts_only_result_submissions": True,
        "execution_time_limit": scoring.SECONDS,
        "max_submissions": SUBMISSIONS,
        "max_submissions_per_day": SUBMISSIONS_PER_DAY,
    }
    if options.end:
        phase["end"] = options.end + timedelta(days=1)
    board = []
    for index, column in enumerate(columns(task)):
        about = {"title": column.title, "key": column.key, "index": index, "sorting": column.sorting}
        board.append({**about, "precision": DECIMALS})
    items, number = next(iter(KINDS[task.kind].sizes(split).items()))
    content: dict[str, object] = {
        "version": 2,
        "title": title,
        "description": f"{task.title}, with the rules of {task.name}. Systems are ranked by {first.title}.",
        "image": "logo.png",
        "terms": "pages/terms.md",
        "registration_auto_approve": False,
        "docker_image": image(task, options),
        "enable_detailed_results": True,
        "make_programs_available": False,
        "make_input_data_available": False,
        "pages": [{"title": name.capitalize(), "file": f"pages/{name}.md"} for name in PAGES],
        "tasks": [
            {
                "index": 0,
                "name": title,
                "description": f"Predictions for {number} {items}.",
                "reference_data": "reference_data/",
                "scoring_program": "scoring_program/",
            }
        ],
        "phases": [phase],
        "leaderboards": [{"title": "Results", "key": "main", "submission_rule": "Force_Last", "columns": board}],
    }
    if options.contact:
        content["contact_email"] = options.contact
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _write_pages(task: Task, splits: Mapping[str, Asked], ranked: str, options: Options, folder: Path) -> None:
    """Write the pages for participants and `README.txt` for organisers."""
    fields = {"author": "AUTHOR", "institute": "INSTITUTE", "index": "1"}
    fields["label"] = task.label.value.format(**fields)
    rehearsal = ""
    if splits[ranked].name != ranked:
        rehearsal = f" --split {splits[ranked].name}"
    facts: dict[str, object] = {
        "task": task,
        "columns": columns(task),
        "ranked": ranked,
        "split": splits[ranked],
        "fields": fields,
        "sizes": KINDS[task.kind].sizes(splits[ranked]),
        "suffixes": KINDS[task.kind].suffixes,
        "rehearsal": rehearsal,
        "options": options,
        "image": image(task, options),
        "requirements": requirements(task),
        "downloads": downloads(task),
        "minutes": scoring.SECONDS // 60,
        "submissions": SUBMISSIONS,
        "per_day": SUBMISSIONS_PER_DAY,
    }
    for name in (*PAGES, "terms"):
        _write_text(folder / "pages" / f"{name}.md", _render(f"{name}.md.j2", **facts))
    _write_text(folder / "README.txt", _render("README.txt.j2", **facts))


def _render(template: str, **facts: object) -> str:
    """Return a template with the facts filled in. The result is not HTML, so nothing is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701, the texts are facts of the kit, and the platform cleans the HTML of pages
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**facts)


def _draw_logo(task: Task, path: Path) -> None:
    """Draw a logo with the task's name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 3), dpi=100, facecolor="#0a5cb8")
    year, _, number = task.name.partition("-")
    figure.text(0.5, 0.58, year.upper(), size=22, color="white", weight="bold", ha="center", va="center")
    figure.text(0.5, 0.38, f"Task {number.upper()}", size=18, color="white", ha="center", va="center")
    figure.savefig(path, format="png", metadata={"Software": None})


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
