# PYTHON_ARGCOMPLETE_OK
"""The command line of `submission`: show tasks, make and check packages, rank them, and run a task on Codabench."""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import textwrap
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from evaluation import extras
from evaluation.cli import command, complete
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, SPLITS, VALIDATION
from evaluation.files import DEFAULT_CACHE, cache_folder, replacing
from evaluation.findings import BadRequest, Finding, count, say
from evaluation.hub import prediction_folder
from evaluation.text import plural, printable, table, unknown_key
from submission import archive, excluded, metadata, outputs, package, tasks, teams
from submission.families import FAMILIES
from submission.kinds import KINDS
from submission.outputs.form import Asked

INDENT = "    "


def show(options: argparse.Namespace) -> None:
    """List the tasks, or print every fact of one task with its source."""
    if options.fields:
        print(table(tasks.describe_fields(), ["field of a task file", "meaning"]))
        print("\nA fact has a value, a source (where it is stated) and a certainty: verified, inferred or recalled.")
    elif options.name:
        _show_task(tasks.read(options.name))
    else:
        rows = []
        for name in tasks.names():
            task = tasks.read(name)
            rows.append([task.name, task.title, task.form.value, task.metrics.value[0]])
        print(table(rows, ["task", "title", "form", "ranked by"]))


def _show_task(task: tasks.Task) -> None:
    print(f"{task.name}: {task.title}")
    width = max(60, min(120, shutil.get_terminal_size().columns))
    for path, fact in task.facts():
        print(f"\n{path}")
        if isinstance(fact.value, tasks.Key):
            lines = _metadata_lines(fact.value, "")
        else:
            lines = [_value_text(fact.value)]
        lines.append(f"({fact.certainty}: {fact.source})")
        for line in lines:
            print(textwrap.fill(printable(line), width, initial_indent=INDENT, subsequent_indent=INDENT + "  "))


def _value_text(value: object) -> str:
    """Return the value of a fact as text."""
    if isinstance(value, tasks.PublishedResults):
        size = ", ".join(f"{number} {what}" for what, number in value.sizes.items())
        results = ", ".join(f"{name} {result:g}" for name, result in value.metrics.items())
        return f"{value.system}, {value.split} ({size}): {results}"
    if isinstance(value, tuple):
        return ", ".join(map(_value_text, value))
    if isinstance(value, str):
        return tasks.SEPARATORS.get(value, value)
    return str(value)


def _metadata_lines(key: tasks.Key, path: str) -> list[str]:
    """Return a line for each key below a key of a metadata file, with its path, its need, its type and its hint."""
    lines = []
    for name, below in key.keys.items():
        line = f"{path}{name}: {below.need}"
        if not below.keys and below.type != "text":
            line += f", {below.type}"
        elif below.many:
            line += ", a list"
        if below.most:
            line += f", {below.most} characters at most"
        if below.hint:
            line += f" – {below.hint}"
        lines.append(line)
        lines += _metadata_lines(below, f"{path}{name}.")
    return lines


def new(options: argparse.Namespace) -> None:
    """Write a team file with comments, which the team fills in once."""
    task = tasks.read(options.task)
    if options.out.exists():
        raise BadRequest(f"{options.out} already exists; give another name with --out")
    with replacing(options.out) as part:
        part.write_text(teams.text(task), encoding="utf-8")
    command = f"dcase-submission package RUN --task {task.name} --team {options.out} …"
    print(f"{options.out}: written; fill it in, then run: {command}")


def make(options: argparse.Namespace) -> None:
    """Make a package from run folders: a zip with outputs, metadata and a report. The zip passes `validate`."""
    task = tasks.read(options.task)
    team, findings = teams.read(task, options.team)
    dataset = KINDS[task.kind].read_data(options.data)
    file = task.package.file.value.format(author=team.author, institute=team.institute)
    runs = []
    for given in options.runs:
        folder = prediction_folder(given)
        if folder != given and not folder.is_dir():
            message = f"no such folder, and {folder} has no predictions of the system with this name on the hub"
            raise BadRequest(f"{given}: {message}; predict first: dcase-systems predict {given} …")
        runs.append(folder)
    target = options.out or runs[0] / "submission" / file
    findings += _find_excluded_sounds(task, options)
    say(findings)
    say(package.make(task, runs, team, dataset, target, options.split))
    with zipfile.ZipFile(target) as made:
        for entry in made.infolist():
            print(f"  {printable(entry.filename)}  ({entry.file_size:,} bytes)")
    print(f"{target}: {plural(len(options.runs), 'system')}, valid for {task.name}")
    if options.split:
        print(f"This is a rehearsal: the outputs are for {options.split} in place of {' and '.join(task.sets)}.")


def validate(options: argparse.Namespace) -> int:
    """Check a package, an output file or a metadata file against the task's rules and, with --data, the data."""
    task, path = tasks.read(options.task), options.path
    if options.split and options.split not in SPLITS:
        raise BadRequest(unknown_key(options.split, SPLITS, "split"))
    if options.json and options.json.suffix.lower() != ".json":
        raise BadRequest(f"--json {options.json}: the file's name must end in .json; give another name")
    if path.is_dir() or archive.is_one(path):
        with package.checked(task, path, _splits(task, options)) as content:
            findings = content.findings
    elif path.suffix.lower() in (".yaml", ".yml"):
        _, findings = metadata.validate(task, path)
        findings = metadata.of_others(task, [path], str(path)) + findings
    else:
        findings = outputs.validate(task, path, _answered_split(task, options))
    findings += _find_excluded_sounds(task, options)
    errors = count(findings)
    if options.json:  # written first: nothing is printed if the file cannot be written
        result: dict[str, object] = {"task": task.name, "file": str(path), "valid": not errors}
        result["findings"] = [asdict(finding) for finding in findings]
        with replacing(options.json) as part:
            part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(findings)
    if errors:
        verdict = f"not valid for {task.name}, {plural(errors, 'error')}"
    else:
        verdict = f"valid for {task.name}"
    print(f"{path}: {verdict}")
    if errors:
        return 1
    return 0


def make_leaderboard(options: argparse.Namespace) -> int:
    """Check every package in a folder, score the valid ones, and write the tables of results."""
    package_needed = extras.absent(("pandas", "matplotlib"))
    if package_needed:  # before hours of scoring
        raise BadRequest(f"{package_needed} must be installed; install dcase-kit[reports]")
    from submission import leaderboard  # the other commands do not need what it imports

    # SIGTERM then ends the scoring processes in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    task = tasks.read(options.task)
    shown_date = _date("--date", options.date) or _today()
    board = leaderboard.run(
        task,
        options.folder,
        _read_splits(task, options),
        options.out,
        cache=options.cache,
        baseline=options.baseline,
        families=options.families,
        date=shown_date.isoformat(),
    )
    say(board.findings)
    say(finding for package in board.packages for finding in package.findings)
    print(board)
    print(f"\n{options.out}: files to publish: {', '.join(leaderboard.PUBLIC)}")
    print(f"{options.out}: private files: {', '.join(leaderboard.PRIVATE)}")
    for metric, reason in board.unavailable.items():
        print(f"{metric}: {reason}", file=sys.stderr)
    if board.errors or not board.is_task_ranking:
        return 1
    return 0


def make_codabench(options: argparse.Namespace) -> None:
    """Write the bundle of a competition for the platform Codabench, with the ground truth and the scoring program."""
    from submission.codabench import bundle  # imports scipy, which the other commands do not need

    task = tasks.read(options.task)
    start = _date("--start", options.start) or _today()
    decided = bundle.Options(start, _date("--end", options.end), options.image, options.contact)
    files = bundle.write(task, _read_splits(task, options), decided, options.out)
    print(f"{options.out}: written, {plural(len(files), 'file')}; unpack it and follow README.txt")
    if not options.image:
        note = f"{options.out}: note: has no Docker image yet; build one as README.txt describes, or give --image"
        print(note, file=sys.stderr)


def _today() -> date:
    return datetime.now(UTC).date()


def _date(option: str, text: str) -> date | None:
    """Return the date that an option has, or None if it is not given."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"must be a date such as 2026-06-30 (YYYY-MM-DD); found {text!r}"
        raise BadRequest(f"{option}: {message}: give a day that exists") from None


def _splits(task: tasks.Task, options: argparse.Namespace) -> Mapping[str, Asked | str]:
    """Return a dict from each of the task's sets to the split that its outputs are checked against.

    Without --data, the dict has only the split's name, which is given by --split. If --split is not given either, the
    dict is empty.
    """
    if options.data:
        return _read_splits(task, options)
    if options.split:
        return dict.fromkeys(task.sets, options.split)
    return {}


def _read_splits(task: tasks.Task, options: argparse.Namespace) -> dict[str, Asked]:
    """Return a dict from each of the task's sets to its split, which is read from the data folder.

    Sets that the folder does not have are left out. With --split, every set has the split that --split names.

    Raises:
        BadRequest: The data folder does not have the split, or has no set of the task.
    """
    if options.split:
        return dict.fromkeys(task.sets, _read_split(task, options))
    dataset = KINDS[task.kind].read_data(options.data)
    splits: dict[str, Asked] = {name: dataset[name] for name in task.sets if name in dataset.splits}
    if not splits:
        sets = ", ".join(task.sets)
        message = f"must have a set of {task.name} ({sets}); found none of them"
        raise BadRequest(f"{options.data}: {message}; for a rehearsal, give --split evaluation")
    return splits


def _answered_split(task: tasks.Task, options: argparse.Namespace) -> Asked | str:
    """Return the split that a single output file is for. If the data are not available, return only its name.

    The split is the one that --split names. Without --split, it is the set in the file's name. If the name does not fit
    the pattern of a set, it is the evaluation split. If the data folder does not have an evaluation split, it is the
    only one of the task's sets in the folder. Without --data, the name may be unknown; it is then an empty text.
    """
    if not options.split:
        for name, output in task.sets.items():
            if output.is_named(options.path.name):
                return _splits(task, options).get(name, name)
    if not options.data:
        return options.split or ""
    if options.split:
        return _read_split(task, options)
    try:
        return _read_split(task, options)
    except BadRequest:
        splits = {}
        for name in task.sets:
            with contextlib.suppress(BadRequest):
                splits[name] = KINDS[task.kind].read_data(options.data, name)[name]
        if not splits:
            raise
    if len(splits) > 1:
        message = f"must have the name of a {task.name} output, because {options.data} has the sets"
        message = f"{message} {' and '.join(splits)}; rename it, or give --split {' or --split '.join(splits)}"
        raise BadRequest(f"{options.path}: {message}")
    return next(iter(splits.values()))


def _read_split(task: tasks.Task, options: argparse.Namespace) -> Asked:
    """Read the split that --split names (default: evaluation) from the data folder."""
    name = options.split or EVALUATION
    return KINDS[task.kind].read_data(options.data, name)[name]


def _find_excluded_sounds(task: tasks.Task, options: argparse.Namespace) -> list[Finding]:
    """Return warnings about excluded sounds in the lists of training data, if --excluded is given.

    Without --training, the lists are the metadata files of the development and validation splits in the data folder.
    """
    if not options.excluded:
        if options.training:
            raise BadRequest("--training needs the task's list of excluded sounds; give it with --excluded FILE")
        return []
    lists = options.training
    if not lists and options.data:
        lists = []
        for split in (DEVELOPMENT, VALIDATION):
            lists += options.data.glob(f"*metadata_{split}.csv")
    if not lists:
        raise BadRequest("--excluded needs lists of the training data; give them with --training FILE …")
    return excluded.training_sounds(task, lists, options.excluded)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("dcase-submission", description="Make, check and rank submissions.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser("tasks", help="list the tasks, or print the facts of one", description=show.__doc__)
    complete(verb.add_argument("name", nargs="?", help="name of a task (default: list all tasks)"), tasks.names)
    verb.add_argument("--fields", action="store_true", help="print the meaning of each field of a task file")
    verb.set_defaults(run=show)

    task = argparse.ArgumentParser(add_help=False)
    name = task.add_argument("--task", required=True, help=f"name of the task: {', '.join(tasks.names())}")
    complete(name, tasks.names)
    training = argparse.ArgumentParser(add_help=False)
    text = "the task's list of Freesound sounds that systems must not be trained on (`tasks NAME` prints its address)"
    training.add_argument("--excluded", type=Path, metavar="FILE", help=text)
    text = "lists of the training sounds, for --excluded: a CSV with the column sound_id, or a text with one Freesound "
    text += "id or link in each line (default: the metadata files in --data)"
    training.add_argument("--training", type=Path, nargs="+", metavar="FILE", help=text)

    verb = verbs.add_parser("new", parents=[task], help="write a team file to fill in", description=new.__doc__)
    verb.add_argument(
        "--out", type=Path, default=Path("team.yaml"), metavar="FILE", help="output file (default: team.yaml)"
    )
    verb.set_defaults(run=new)

    verb = verbs.add_parser(
        "package", parents=[task, training], help="make a package from run folders", description=make.__doc__
    )
    text = "run folder, or folder or hub name of an exported run that `systems predict` was given; one for each system"
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=text)
    verb.add_argument("--team", type=Path, required=True, metavar="FILE", help="team file (`new` writes one)")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder with the task's sets")
    text = "for a rehearsal: split that the outputs are for, in place of the task's sets (default: the task's sets)"
    verb.add_argument("--split", default="", help=text)
    text = "output file (default: the task's file name, in submission/ of the first RUN)"
    verb.add_argument("--out", type=Path, metavar="FILE", help=text)
    verb.set_defaults(run=make)

    verb = verbs.add_parser(
        "validate", parents=[task, training], help="check a package or a part of one", description=validate.__doc__
    )
    text = "package (a zip or an unpacked folder), output file or metadata file"
    verb.add_argument("path", type=Path, metavar="PATH", help=text)
    text = "data folder (default: check only the format and the official number of answers)"
    verb.add_argument("--data", type=Path, metavar="DIR", help=text)
    text = "split that the outputs are for (default: the task's sets; for a single output file, the set in its name, "
    text += "otherwise evaluation, or the only set in --data)"
    verb.add_argument("--split", help=text)
    verb.add_argument("--json", type=Path, metavar="FILE", help="also write the findings to this file")
    verb.set_defaults(run=validate)

    verb = verbs.add_parser(
        "leaderboard", parents=[task], help="rank the packages in a folder", description=make_leaderboard.__doc__
    )
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder that contains the packages (zips or folders)")
    text = "data folder with the ground truth"
    verb.add_argument("--truth", type=Path, required=True, dest="data", metavar="DIR", help=text)
    text = "for a rehearsal: split that the outputs are for, in place of the task's sets (default: the task's sets)"
    verb.add_argument("--split", help=text)
    text = "package of the organisers' baseline, which is ranked but not counted (default: none)"
    verb.add_argument("--baseline", type=Path, metavar="PACKAGE", help=text)
    text = "table that groups methods into families for the analysis (default: submission/families.yaml of the kit)"
    verb.add_argument("--families", type=Path, default=FAMILIES, metavar="FILE", help=text)
    text = "date to show on the page (default: today, in UTC)"
    verb.add_argument("--date", default="", metavar="YYYY-MM-DD", help=text)
    verb.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="output folder (default: leaderboard)"
    )
    verb.add_argument(
        "--cache",
        type=Path,
        default=cache_folder(),
        metavar="DIR",
        help=f"folder for tokenised captions (default: {DEFAULT_CACHE})",
    )
    verb.set_defaults(run=make_leaderboard)

    verb = verbs.add_parser(
        "codabench", parents=[task], help="write a competition for Codabench", description=make_codabench.__doc__
    )
    text = "data folder with the ground truth"
    verb.add_argument("--truth", type=Path, required=True, dest="data", metavar="DIR", help=text)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="zip to write; it must not exist")
    text = "for a rehearsal: split that the outputs are for, in place of the task's sets (default: the task's sets)"
    verb.add_argument("--split", help=text)
    text = "first day of the competition in UTC (default: today)"
    verb.add_argument("--start", default="", metavar="YYYY-MM-DD", help=text)
    text = "last day of the competition in UTC (default: no end)"
    verb.add_argument("--end", default="", metavar="YYYY-MM-DD", help=text)
    text = "Docker image of the scoring program (default: set it in competition.yaml)"
    verb.add_argument("--image", default="", metavar="IMAGE", help=text)
    text = "e-mail address of the organisers (default: no address)"
    verb.add_argument("--contact", default="", metavar="EMAIL", help=text)
    verb.set_defaults(run=make_codabench)
    return top


def main() -> int:
    """Run the command line, and return the exit status."""
    return command(parser())


if __name__ == "__main__":
    sys.exit(main())
