"""The submission's command line: what a task asks for, its output files, and whether they are right."""

import argparse
import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

from evaluation import data, retrieval
from evaluation.files import replacing
from evaluation.findings import ERROR, BadRequest, command, printable, say, table, unknown_key
from submission import outputs, tasks


def show(options: argparse.Namespace) -> None:
    """List the tasks, or print all that one of them asks for, with sources."""
    if not options.name:
        found = [tasks.read(name) for name in tasks.names()]
        rows = [[task.name, task.title, task.form.value, task.metrics.value[0]] for task in found]
        print(table(rows, ["task", "what", "form", "ranked by"]))
        return
    task = tasks.read(options.name)
    facts = task.facts()
    print(f"{task.name}: {task.title}")
    indent, width = " " * 4, max(60, min(120, shutil.get_terminal_size().columns))
    for path, fact in facts:
        print(f"\n{path}")
        lines = _metadata(fact.value, "") if isinstance(fact.value, tasks.Key) else [_plain(fact.value)]
        for line in [*lines, f"({fact.certainty}: {fact.source})"]:
            print(textwrap.fill(printable(line), width, initial_indent=indent, subsequent_indent=indent + "  "))


def _plain(value: object) -> str:
    if isinstance(value, tasks.Figures):
        return f"{value.system}, {value.split}: " + ", ".join(f"{name} {x:g}" for name, x in value.metrics.items())
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return tasks.SEPARATORS.get(value, str(value)) if isinstance(value, str) else str(value)


def _metadata(key: tasks.Key, path: str) -> list[str]:
    """The keys of a metadata file, a line each, with what is needed of them."""
    lines = []
    for name, below in key.keys.items():
        kind = f", {below.type}" if not below.keys and below.type != "text" else ", a list" if below.many else ""
        most = f", {below.most} characters at most" if below.most else ""
        hint = f" – {below.hint}" if below.hint else ""
        lines.append(f"{path}{name}: {below.need}{kind}{most}{hint}")
        lines += _metadata(below, f"{path}{name}.")
    return lines


def write(options: argparse.Namespace) -> None:
    """Write a run's prediction for a split as the task's output file, and check it."""
    task = tasks.read(options.task)
    split = data.read(options.data, options.split, sound=False)[options.split]
    captions = task.form.value == "captions"
    source = options.run_folder / "predictions" / f"{options.split}.{'csv' if captions else 'npz'}"
    if captions:
        from evaluation import captioning  # takes scipy along, which no other verb needs

        prediction = captioning.read(source)
    else:
        prediction = retrieval.read(source)
    path = options.out or options.run_folder / "submission" / f"{task.name}_{options.split}.csv"
    outputs.write(task, prediction, split, path, str(source))
    count = f"{len(split.clips)} clips" if captions else f"{len(split.queries)} queries"
    print(f"{path}: {count}, valid for {task.name}")


def validate(options: argparse.Namespace) -> int:
    """Check an output file against the task, and against the split that it answers where there are data."""
    task = tasks.read(options.task)
    if options.data:
        name = options.split or data.EVALUATION
        split = data.read(options.data, name, sound=False)[name]
    else:
        split = options.split or ""
        if split and split not in data.SPLITS:
            raise BadRequest(unknown_key(split, data.SPLITS, "split"))
    findings = outputs.validate(task, options.path, split)
    say(findings)
    errors = sum(finding.severity == ERROR for finding in findings)
    verdict = f"not valid for {task.name}, {errors} error{'s' * (errors > 1)}" if errors else f"valid for {task.name}"
    print(f"{options.path}: {verdict}")
    if options.json:
        said = {"task": task.name, "file": str(options.path), "valid": not errors}
        said["findings"] = [asdict(finding) for finding in findings]
        with replacing(options.json) as part:
            part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return 1 if errors else 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m submission", description="Write and check what is handed in.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("tasks", help="what each task asks for, and how sure that is", description=show.__doc__)
    verb.add_argument("name", nargs="?", help="one task; all of them, briefly, without")
    verb.set_defaults(run=show)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--task", required=True, help=", ".join(tasks.names()))

    verb = verbs.add_parser("write", parents=[shared], help="write a run's output file", description=write.__doc__)
    verb.add_argument("run_folder", type=Path, metavar="RUN", help="run folder with a prediction for the split")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    verb.add_argument("--split", default=data.EVALUATION, help="the split that is answered (evaluation)")
    verb.add_argument("--out", type=Path, metavar="FILE", help="where to; RUN/submission/TASK_SPLIT.csv without")
    verb.set_defaults(run=write)
    verb = verbs.add_parser("validate", parents=[shared], help="check an output file", description=validate.__doc__)
    verb.add_argument("path", type=Path, metavar="FILE", help="the output file")
    text = "data folder in Clotho's layout; without it the file is checked by itself and by the task's official numbers"
    verb.add_argument("--data", type=Path, metavar="DIR", help=text)
    text = "the split that is answered: evaluation with --data, else told from the file's name"
    verb.add_argument("--split", help=text)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    verb.set_defaults(run=validate)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
