"""The command line of the submission package: tasks, team files, packages, and leaderboards."""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import textwrap
import zipfile
from dataclasses import asdict
from pathlib import Path

from evaluation.cli import command
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, SPLITS, VALIDATION, Split, read_dataset
from evaluation.files import replacing
from evaluation.findings import BadRequest, Finding, count, say
from evaluation.text import plural, printable, table, unknown_key
from submission import archive, excluded, metadata, outputs, package, tasks, teams

INDENT = "    "


def show(options: argparse.Namespace) -> None:
    """List the tasks, or print all that one of them asks for, with sources."""
    if options.fields:
        print(table(tasks.describe_fields(), ["field of a task file", "meaning"]))
        print("\nA fact has three keys: value; source, where it is stated; certainty: verified, inferred or recalled.")
    elif options.name:
        _show_task(tasks.read(options.name))
    else:
        rows = []
        for name in tasks.names():
            task = tasks.read(name)
            rows.append([task.name, task.title, task.form.value, task.metrics.value[0]])
        print(table(rows, ["task", "what", "form", "ranked by"]))


def _show_task(task: tasks.Task) -> None:
    facts = task.facts()
    print(f"{task.name}: {task.title}")
    width = max(60, min(120, shutil.get_terminal_size().columns))
    for path, fact in facts:
        print(f"\n{path}")
        lines = [_value_text(fact.value)]
        if isinstance(fact.value, tasks.Key):
            lines = _metadata_lines(fact.value, "")
        for line in [*lines, f"({fact.certainty}: {fact.source})"]:
            print(textwrap.fill(printable(line), width, initial_indent=INDENT, subsequent_indent=INDENT + "  "))


def _value_text(value: object) -> str:
    """Return the value of a fact as text."""
    if isinstance(value, tasks.PublishedResults):
        queries = f", {value.queries} queries" if value.queries else ""
        figures = ", ".join(f"{name} {x:g}" for name, x in value.metrics.items())
        return f"{value.system}, {value.split} ({value.clips} clips{queries}): {figures}"
    if isinstance(value, tuple):
        return ", ".join(map(_value_text, value))
    if isinstance(value, str):
        return tasks.SEPARATORS.get(value, value)
    return str(value)


def _metadata_lines(key: tasks.Key, path: str) -> list[str]:
    """Return a line for each key of a metadata file, with what it must hold."""
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
    """Write a team file with comments, to be filled in once."""
    task = tasks.read(options.task)
    if options.out.exists():
        raise BadRequest(f"{options.out} is there already; give another name")
    with replacing(options.out) as part:
        part.write_text(teams.text(task), encoding="utf-8")
    print(
        f"{options.out}: fill it in, then: python -m submission package RUN --task {task.name} --team {options.out} …"
    )


def make(options: argparse.Namespace) -> None:
    """Make a task's package from runs: outputs, metadata and report in a zip that passes `validate`."""
    task = tasks.read(options.task)
    team, noticed = teams.read(task, options.team)
    dataset = read_dataset(options.data, sound=False)
    file = task.package.file.value.format(author=team.author, institute=team.institute)
    target = options.out or options.runs[0] / "submission" / file
    noticed += _excluded(task, options)
    say(noticed)
    say(package.make(task, options.runs, team, dataset, target, options.split))
    with zipfile.ZipFile(target) as made:
        for entry in made.infolist():
            print(f"  {printable(entry.filename)}  ({entry.file_size:,} bytes)")
    print(f"{target}: {plural(len(options.runs), 'system')}, valid for {task.name}")
    if options.split:
        print(f"a rehearsal: {options.split} is answered in place of {' and '.join(task.sets)}")


def validate(options: argparse.Namespace) -> int:
    """Check a package, an output file or a metadata file against the task, and against the data where they are."""
    task, path = tasks.read(options.task), options.path
    if options.split and options.split not in SPLITS:
        raise BadRequest(unknown_key(options.split, SPLITS, "split"))
    if options.json and options.json.suffix.lower() != ".json":
        raise BadRequest(f"--json {options.json}: must end in .json; give another name")
    if path.is_dir() or archive.is_one(path):
        with package.checked(task, path, _splits(task, options)) as (_, findings):
            pass
    elif path.suffix.lower() in (".yaml", ".yml"):
        _, findings = metadata.validate(task, path)
        findings = metadata.of_others(task, [path], str(path)) + findings
    else:
        findings = outputs.validate(task, path, _answered(task, options))
    findings += _excluded(task, options)
    errors = count(findings)
    if options.json:  # before anything is printed
        content = {"task": task.name, "file": str(path), "valid": not errors}
        content["findings"] = [asdict(finding) for finding in findings]
        with replacing(options.json) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
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
    """Check every package in a folder, score those that are valid, and write the year's tables."""
    from submission import leaderboard  # pandas, which no other verb needs

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the processes as Ctrl-C does
    task = tasks.read(options.task)
    board = leaderboard.run(task, options.folder, _splits(task, options), options.out, options.cache)
    say(finding for package in board.packages for finding in package.findings)
    print(board)
    print(f"{options.out}: {', '.join(leaderboard.FILES)}")
    if board.errors:
        return 1
    return 0


def _splits(task: tasks.Task, options: argparse.Namespace) -> dict[str, Split | str]:
    """Return what outputs are checked against: the task's sets in the data folder, or one split in place of each."""
    if options.split:
        return dict.fromkeys(task.sets, _split(options))
    if not options.data:
        return {}
    dataset = read_dataset(options.data, sound=False)
    there = {name: dataset[name] for name in task.sets if name in dataset.splits}
    if not there:
        message = f"has none of {task.name}'s sets ({', '.join(task.sets)}); for a rehearsal give --split evaluation"
        raise BadRequest(f"{options.data}: {message}")
    return there


def _answered(task: tasks.Task, options: argparse.Namespace) -> Split | str:
    """Return what a single output file answers: the split that is given, or the set that the file's name says.

    A file that is not named as an output answers the evaluation split, or if the data folder has none, the only one of
    the task's sets that the folder has.
    """
    if not options.split:
        for name, output in task.sets.items():
            if output.is_named(options.path.name):
                return _splits(task, options).get(name, name)
    if not options.data:
        return options.split or ""
    if options.split:
        return _split(options)
    try:
        return _split(options)
    except BadRequest:
        there = {}
        for name in task.sets:
            with contextlib.suppress(BadRequest):
                there[name] = read_dataset(options.data, name, sound=False)[name]
        if not there:
            raise
    if len(there) > 1:
        wanted = f"must be named as an output of {task.name}, or be given with --split"
        raise BadRequest(f"{options.path}: {wanted} {' or --split '.join(there)}: {options.data} has these sets")
    return next(iter(there.values()))


def _split(options: argparse.Namespace) -> Split | str:
    """Return the split that is given (default: evaluation), by name only if there is no data folder."""
    name = options.split or EVALUATION
    if not options.data:
        return name
    return read_dataset(options.data, name, sound=False)[name]


def _excluded(task: tasks.Task, options: argparse.Namespace) -> list[Finding]:
    """Look for excluded sounds in the lists of training data (default: the metadata of the data folder)."""
    if not options.excluded:
        if options.training:
            raise BadRequest("--training is compared with the task's list of excluded sounds; give --excluded FILE")
        return []
    lists = options.training
    if not lists and options.data:
        lists = []
        for split in (DEVELOPMENT, VALIDATION):
            lists += options.data.glob(f"*metadata_{split}.csv")
    if not lists:
        raise BadRequest("nothing is known of the training data; give lists of its sounds: --training FILE …")
    return excluded.training_sounds(task, lists, options.excluded)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m submission", description="Make, check and rank submissions.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("tasks", help="list the tasks, or what one of them asks for", description=show.__doc__)
    verb.add_argument("name", nargs="?", help="a task (default: list all tasks)")
    verb.add_argument("--fields", action="store_true", help="print what each field of a task file means")
    verb.set_defaults(run=show)

    task = argparse.ArgumentParser(add_help=False)
    task.add_argument("--task", required=True, help=", ".join(tasks.names()))
    trained = argparse.ArgumentParser(add_help=False)
    text = "the task's list of Freesound sounds that must not be trained on (`tasks NAME` says where it is)"
    trained.add_argument("--excluded", type=Path, metavar="FILE", help=text)
    text = "lists of the training data: CSVs with the column sound_id, links to Freesound, or an id in each line"
    trained.add_argument(
        "--training", type=Path, nargs="+", metavar="FILE", help=f"{text} (default: the metadata of --data)"
    )

    verb = verbs.add_parser("new", parents=[task], help="write a team file to fill in", description=new.__doc__)
    verb.add_argument(
        "--out", type=Path, default=Path("team.yaml"), metavar="FILE", help="output file (default: team.yaml)"
    )
    verb.set_defaults(run=new)

    verb = verbs.add_parser(
        "package", parents=[task, trained], help="make a package from runs", description=make.__doc__
    )
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, one for each system")
    verb.add_argument("--team", type=Path, required=True, metavar="FILE", help="team file, as `new` writes one")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder with the task's sets")
    verb.add_argument("--split", default="", help="a split to answer in place of the task's sets, for a rehearsal")
    verb.add_argument("--out", type=Path, metavar="FILE", help="output file (default: submission/ in the first RUN)")
    verb.set_defaults(run=make)

    verb = verbs.add_parser(
        "validate", parents=[task, trained], help="check a package or a part of one", description=validate.__doc__
    )
    verb.add_argument("path", type=Path, metavar="PATH", help="a zip, its folder, an output file or a metadata file")
    text = "data folder in Clotho's layout (default: outputs are checked by themselves and by official numbers)"
    verb.add_argument("--data", type=Path, metavar="DIR", help=text)
    text = "the split that is answered (default: the task's sets; for a file that is not named as one, evaluation, or "
    text += "the only set that --data has)"
    verb.add_argument("--split", help=text)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the findings to this file, too")
    verb.set_defaults(run=validate)

    verb = verbs.add_parser(
        "leaderboard", parents=[task], help="rank the packages in a folder", description=make_leaderboard.__doc__
    )
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder of packages, zipped or not")
    verb.add_argument(
        "--truth", type=Path, required=True, dest="data", metavar="DIR", help="data folder with the true answers"
    )
    verb.add_argument("--split", help="the split that is answered in place of the task's sets, for a rehearsal")
    verb.add_argument(
        "--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="output folder (default: leaderboard)"
    )
    verb.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="folder for tokenised captions (default: .cache)"
    )
    verb.set_defaults(run=make_leaderboard)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
