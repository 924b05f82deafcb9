"""The submission's command line: what a task asks for, its output file, and whether that is right."""

import argparse
import sys
from pathlib import Path

from evaluation import data, retrieval
from evaluation.findings import ERROR, command, printable, say, table
from submission import outputs, tasks


def show(options: argparse.Namespace) -> None:
    """List the tasks, or print what one of them asks for, with sources."""
    if not options.name:
        found = [tasks.read(name) for name in tasks.names()]
        print(
            table(
                [[task.name, task.title, ", ".join(task.metrics.value)] for task in found], ["task", "what", "metrics"]
            )
        )
        return
    task = tasks.read(options.name)
    facts = [(key, value) for key, value in task if isinstance(value, tasks.Fact)]
    rows = [[key, printable(str(fact.value)), fact.certainty, fact.source] for key, fact in facts]
    print(f"{task.name}: {task.title}")
    print(table(rows, ["fact", "value", "certainty", "source"]))


def write(options: argparse.Namespace) -> None:
    """Write a run's prediction for a split as the task's output file, and check it."""
    task = tasks.read(options.task)
    split = data.read(options.data, options.split, sound=False)[options.split]
    source = options.run_folder / "predictions" / f"{options.split}.npz"
    prediction = retrieval.read(source)
    path = options.out or options.run_folder / "submission" / f"{task.name}_{options.split}.csv"
    outputs.write(task, prediction, split, path, str(source))
    print(f"{path}: {len(prediction.queries)} queries, valid for {task.name}")


def validate(options: argparse.Namespace) -> int:
    """Check an output file against the task and the split that it answers."""
    task = tasks.read(options.task)
    split = data.read(options.data, options.split, sound=False)[options.split]
    findings = outputs.validate(task, options.path, split)
    say(findings)
    errors = sum(finding.severity == ERROR for finding in findings)
    verdict = f"not valid for {task.name}, {errors} error{'s' * (errors > 1)}" if errors else f"valid for {task.name}"
    print(f"{options.path}: {verdict}")
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
    shared.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    shared.add_argument("--split", default=data.EVALUATION, help="the split that is answered (evaluation)")

    verb = verbs.add_parser("write", parents=[shared], help="write a run's output file", description=write.__doc__)
    verb.add_argument("run_folder", type=Path, metavar="RUN", help="run folder with a prediction for the split")
    verb.add_argument("--out", type=Path, metavar="FILE", help="where to; RUN/submission/TASK_SPLIT.csv without")
    verb.set_defaults(run=write)
    verb = verbs.add_parser("validate", parents=[shared], help="check an output file", description=validate.__doc__)
    verb.add_argument("path", type=Path, metavar="FILE", help="the output file")
    verb.set_defaults(run=validate)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
