"""The command line of the evaluation package: data sets, scores, comparisons and reports on sweeps."""

import argparse
import signal
import sys
from pathlib import Path

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.check import check_dataset
from evaluation.data.dataset import EVALUATION, read_dataset
from evaluation.data.relevance import Relevance, read_relevance
from evaluation.findings import BadRequest, count, say
from evaluation.metrics import retrieval
from evaluation.scores import Score
from evaluation.statistics.intervals import METHODS
from evaluation.text import plural, table, unknown_key


def make(options: argparse.Namespace) -> None:
    """Synthesise the default data set; print the scores of chance and of two oracles on it."""
    from evaluation.data.soundscapes import generate, oracle

    generate.make_soundscapes(options.folder, seed=options.seed)
    split = read_dataset(options.folder, EVALUATION, sound=False)[EVALUATION]
    scores = {}
    for knows in ("kinds", "scene"):
        matrix, queries, names = oracle.oracle_similarity(options.folder, EVALUATION, knows=knows)
        scores[knows] = retrieval.evaluate(split, predictions.Similarity(tuple(queries), tuple(names), matrix))
    chance = [measured.chance for measured in scores["kinds"].metrics.values()]
    kinds = [measured.estimate.value for measured in scores["kinds"].metrics.values()]
    scene = [measured.estimate.value for measured in scores["scene"].metrics.values()]
    rows = []
    for name, values in (
        ("chance", chance),
        ("oracle that knows the kinds of sounds", kinds),
        ("oracle that also knows their order and number", scene),
    ):
        rows.append([name, *(f"{value:.3f}" for value in values)])
    print(f"{options.folder}: {len(split.clips)} evaluation clips, {len(split.queries)} queries; reference scores:")
    print(table(rows, ["", *retrieval.TASK_METRICS], numbers=(1, 2, 3, 4)))


def check(options: argparse.Namespace) -> int:
    """Read every split and decode every audio file; print all findings and a table of the splits."""
    text, findings = check_dataset(options.folder)
    say(findings)
    errors = count(findings)
    print(text)
    if errors:
        print(f"{options.folder}: {plural(errors, 'error')}")
        return 1
    print(f"{options.folder}: no errors")
    return 0


def download(options: argparse.Namespace) -> int:
    """Download a data set from its publishers and check it."""
    from evaluation.data import download as downloads

    downloads.clotho(options.folder)
    return check(options)


def score_retrieval(options: argparse.Namespace) -> None:
    """Score a prediction of a retrieval system, with 95 % intervals and the chance level."""
    split = read_dataset(options.truth, options.split, sound=False)[options.split]
    truth: Relevance | None = None
    if options.relevance == Path("captions"):
        truth = split.captions
    elif options.relevance:
        if not options.relevance.is_file():
            raise BadRequest(f"{options.relevance}: no such file; give a relevance file or `captions`")
        truth = read_relevance(options.relevance, split.file_names)
    queries = max(len(split.queries), len(truth or ()))
    score = retrieval.evaluate(
        split,
        predictions.read_retrieval(options.prediction, (queries, len(split.clips))),
        relevance=truth,
        metrics=options.metrics,
        interval=options.interval,
        file=str(options.prediction),
    )
    _report(score, options)


def score_captions(options: argparse.Namespace) -> int:
    """Score a prediction of a captioning system, with 95 % intervals over clips."""
    split = read_dataset(options.truth, options.split, sound=False)[options.split]
    prediction = predictions.read_captions(options.prediction)
    from evaluation.metrics import captioning  # imports scipy's sparse matrices, which takes time

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the Java processes, as Ctrl-C does
    resolved = captioning.resolve_metrics(options.metrics)
    score = captioning.evaluate(
        prediction,
        split,
        metrics=options.metrics,
        interval=options.interval,
        idf=options.idf,
        cache=options.cache,
        file=str(options.prediction),
    )
    _report(score, options)
    missing = list(score.unavailable)
    if options.metrics[0] not in captioning.METRICS:  # a metric set requires only the metric that ranks systems
        first = resolved.metrics[0]
        if first in score.unavailable:
            missing = [f"{first}, which ranks the systems,"]
        else:
            missing = []
    for name in missing:
        print(f"error: {name} is not available", file=sys.stderr)
    if missing:
        return 1
    return 0


def _report(score: Score, options: argparse.Namespace) -> None:
    if options.json:  # before anything is printed
        score.save(options.json)
    say(score.findings)
    print(score)


def compare(options: argparse.Namespace) -> None:
    """Compare scores of the same items: differences, 95 % intervals, and paired tests with Holm's correction."""
    from evaluation.statistics import comparison

    scores = comparison.read_scores([options.first, *options.others])
    compared = comparison.compare(scores, pairs=options.pairs, seed=options.seed)
    if options.json:  # before anything is printed
        compared.save(options.json)
    formats = {"text": compared.__str__, "csv": compared.csv, "latex": compared.latex}
    print(formats[options.format]())


def report(options: argparse.Namespace) -> None:
    """Report the effect of each factor of a sweep: mean and SD of settings, best settings, tests between levels."""
    from evaluation.statistics import factors

    results = factors.read(options.results, options.metric)
    by = options.by or results.factors[0]
    if by not in results.factors:
        raise BadRequest(f"--by: {unknown_key(by, results.factors, 'factor')}")
    if options.against is not None and options.against not in results.levels(by):
        raise BadRequest(f"--against: {unknown_key(options.against, results.levels(by), f'level of {by}')}")
    tests = {"against": options.against, "normal": options.normal}
    written = []
    if options.out:  # before anything is printed
        from evaluation.statistics import figures

        written = factors.save(results, by, options.out, **tests) + figures.draw(results, by, options.out)
    print(factors.summary(results, by, **tests))
    if written:
        print(f"\n{options.out}: {', '.join(path.name for path in written)}")


def download_models(options: argparse.Namespace) -> None:
    """Download the files that caption metrics need and no Python package contains; skip files that exist already."""
    from evaluation import assets

    assets.fetch(options.names, options.cache)


def info(options: argparse.Namespace) -> None:
    """Print the versions of packages, Java and models, and the requirements and state of each caption metric."""
    from evaluation import assets
    from evaluation.metrics import captioning

    print(assets.info(captioning.NEEDS, options.cache))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("python -m evaluation", description="Data sets, scores and comparisons.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_data(commands.add_parser("data", help="make, check or download a data set"))
    _add_score(commands.add_parser("score", help="score a prediction"))

    verb = commands.add_parser("compare", help="compare scores", description=compare.__doc__)
    text = "score file of the reference system, written by `score … --json`"
    verb.add_argument("first", type=Path, metavar="FILE", help=text)
    verb.add_argument("others", type=Path, nargs="+", metavar="OTHER", help="score files of the other systems")
    text = "compare each system with all systems before it (default: with the first system only)"
    verb.add_argument("--pairs", action="store_true", help=text)
    text = "format of the table (default: text)"
    verb.add_argument("--format", choices=["text", "csv", "latex"], default="text", help=text)
    verb.add_argument("--json", type=Path, metavar="FILE", help="output file for the comparison at full precision")
    verb.add_argument("--seed", type=int, default=0, help="seed of the paired randomisation test (default: 0)")
    verb.set_defaults(run=compare)

    verb = commands.add_parser("report", help="report the effects of a sweep's factors", description=report.__doc__)
    verb.add_argument("results", type=Path, metavar="RESULTS.csv", help="results file, written by `systems sweep`")
    text = "metric to compare (default: the first metric of the file)"
    verb.add_argument("--metric", metavar="NAME", help=text)
    text = (
        "factor to report in detail: the best setting for each of its levels, tests within each level, and the "
        "horizontal axis of the plots (default: the first factor)"
    )
    verb.add_argument("--by", metavar="FACTOR", help=text)
    text = "compare the levels of --by with this level only, which makes fewer tests (default: compare all pairs)"
    verb.add_argument("--against", metavar="LEVEL", help=text)
    text = "use the normal approximation for p, as in Weck et al. 2021 (default: exact p if there are few pairs)"
    verb.add_argument("--normal", action="store_true", help=text)
    verb.add_argument("--out", type=Path, metavar="DIR", help="output folder for tables (CSV) and plots (SVG, PNG)")
    verb.set_defaults(run=report)

    text = "download the files that caption metrics need"
    verb = commands.add_parser("download", help=text, description=download_models.__doc__)
    text = "spice (400 MB), fense (0.7 GB) or bert_score (1.4 GB)"
    verb.add_argument("names", nargs="+", metavar="NAME", help=text)
    _add_cache(verb, "folder for SPICE's jars")
    verb.set_defaults(run=download_models)

    text = "show what caption metrics need and what is installed"
    verb = commands.add_parser("info", help=text, description=info.__doc__)
    _add_cache(verb, "folder with SPICE's jars")
    verb.set_defaults(run=info)
    return top


def _add_data(command: argparse.ArgumentParser) -> None:
    """Add the verbs of `data`."""
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser("make", help="synthesise the default data set", description=make.__doc__)
    verb.add_argument("folder", type=Path, metavar="DIR", help="output folder; must be empty or not exist")
    verb.add_argument("--seed", type=int, default=0, help="seed of the data set (default: 0)")
    verb.set_defaults(run=make)

    verb = verbs.add_parser("check", help="check a data folder", description=check.__doc__)
    verb.add_argument("folder", type=Path, metavar="DIR", help="data folder in Clotho's layout")
    verb.set_defaults(run=check)

    verb = verbs.add_parser("download", help="download a data set", description=download.__doc__)
    text = "clotho: version 2.1; 7 GB to download, 12 GB on disk"
    verb.add_argument("name", choices=["clotho"], help=text)
    text = "output folder; an interrupted download resumes there"
    verb.add_argument("folder", type=Path, metavar="DIR", help=text)
    verb.set_defaults(run=download)


def _add_score(command: argparse.ArgumentParser) -> None:
    """Add the verbs of `score`."""
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--truth", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    shared.add_argument("--split", default=EVALUATION, help=f"split to score (default: {EVALUATION})")
    shared.add_argument("--json", type=Path, metavar="FILE", help="output file for the scores at full precision")

    text = "score a retrieval system"
    verb = verbs.add_parser("retrieval", parents=[shared], help=text, description=score_retrieval.__doc__)
    text = "prediction: the .npz of a run, a CSV of each query's best clips, or a CSV of a similarity matrix"
    verb.add_argument("--prediction", type=Path, required=True, metavar="FILE", help=text)
    text = (
        "CSV with the relevant clips of each query, or `captions`: the clips that have the query as a caption "
        "(default: the data folder's relevance_SPLIT.csv, or captions if there is no such file)"
    )
    verb.add_argument("--relevance", type=Path, metavar="FILE", help=text)
    text = (
        "metrics, such as mAP@16 R@5 nDCG@10 success@1 MRR@10 MRR medR, or a set of metrics, such as dcase2025 "
        "(default: dcase2022)"
    )
    verb.add_argument("--metrics", nargs="+", default=["dcase2022"], metavar="NAME", help=text)
    text = "method of the intervals (default: jackknife)"
    verb.add_argument("--interval", default="jackknife", choices=METHODS, help=text)
    verb.set_defaults(run=score_retrieval)

    text = "score a captioning system"
    verb = verbs.add_parser("captions", parents=[shared], help=text, description=score_captions.__doc__)
    text = "prediction: a CSV with the columns file_name and caption_predicted"
    verb.add_argument("--prediction", type=Path, required=True, metavar="FILE", help=text)
    text = (
        "metrics, or a set of metrics: basic (CIDEr-D, BLEU, METEOR and ROUGE-L), a year's set such as dcase2024, "
        "or all (default: basic)"
    )
    verb.add_argument("--metrics", nargs="+", default=["basic"], metavar="NAME", help=text)
    text = "method of the intervals (default: jackknife; bootstrap for dcase2024, as in that year's challenge)"
    verb.add_argument("--interval", choices=METHODS, help=text)
    text = (
        "CIDEr-D's n-gram weights when the jackknife leaves a clip out: keep them (fixed) or compute them again "
        "(exact) (default: fixed)"
    )
    verb.add_argument("--idf", choices=("fixed", "exact"), default="fixed", help=text)
    _add_cache(verb, "cache folder for tokenised captions")
    verb.set_defaults(run=score_captions)


def _add_cache(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument("--cache", type=Path, default=Path(".cache"), metavar="DIR", help=f"{what} (default: .cache)")


if __name__ == "__main__":
    sys.exit(command(parser()))
