"""The evaluation's command line: make, check and fetch data, score predictions, compare scores, report on sweeps."""

import argparse
import signal
import sys
from pathlib import Path

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.check import check_dataset
from evaluation.data.dataset import EVALUATION, read_dataset
from evaluation.data.relevance import read_relevance
from evaluation.findings import BadRequest, count, say
from evaluation.metrics import retrieval
from evaluation.scores import Score
from evaluation.statistics.intervals import METHODS
from evaluation.text import plural, table, unknown_key


def make(options: argparse.Namespace) -> None:
    """Synthesise the default data set, and say what chance and two oracles reach on it."""
    from evaluation.data.soundscapes import generate, oracle

    generate.make_soundscapes(options.folder, seed=options.seed)
    split = read_dataset(options.folder, EVALUATION, sound=False)[EVALUATION]
    scores = {}
    for knows in ("kinds", "scene"):
        matrix, queries, names = oracle.oracle_similarity(options.folder, EVALUATION, knows=knows)
        scores[knows] = retrieval.evaluate(split, predictions.Similarity(tuple(queries), tuple(names), matrix))
    rows = [["chance", *(f"{measured.chance:.3f}" for measured in scores["kinds"].metrics.values())]]
    for knows, who in (
        ("kinds", "an oracle that knows which kinds sound"),
        ("scene", "… and in which order, how often"),
    ):
        rows.append([who, *(f"{measured.estimate.value:.3f}" for measured in scores[knows].metrics.values())])
    print(f"{options.folder}: {len(split.clips)} evaluation clips, {len(split.queries)} queries; what can be reached:")
    print(table(rows, ["", *retrieval.TASK_METRICS], numbers=(1, 2, 3, 4)))


def check(options: argparse.Namespace) -> int:
    """Read every split strictly, decode every sound, and print all findings and a table."""
    text, findings = check_dataset(options.folder)
    say(findings)
    errors = count(findings)
    print(text)
    verdict = plural(errors, "error") if errors else "all is well"
    print(f"{options.folder}: {verdict}")
    if errors:
        return 1
    return 0


def download(options: argparse.Namespace) -> int:
    """Fetch a data set from where it is published, and check it."""
    from evaluation.data import download as downloads

    downloads.clotho(options.folder)
    return check(options)


def score_retrieval(options: argparse.Namespace) -> None:
    """Score a retriever's prediction, with 95 % intervals and the chance level."""
    split = read_dataset(options.truth, options.split, sound=False)[options.split]
    truth = None
    if options.relevance == Path("captions"):
        truth = split.captions
    elif options.relevance:
        if not options.relevance.is_file():
            raise BadRequest(f"{options.relevance}: no such file; give a relevance file, or `captions`")
        truth = read_relevance(options.relevance, split.file_names)
    queries = max(len(split.queries), len(truth or ()))
    score = retrieval.evaluate(
        split,
        predictions.read_retrieval(options.prediction, (queries, len(split.clips))),
        truth=truth,
        metrics=options.metrics,
        interval=options.interval,
        file=str(options.prediction),
    )
    _report(score, options)


def score_captions(options: argparse.Namespace) -> int:
    """Score a captioner's prediction, with 95 % intervals over clips."""
    split = read_dataset(options.truth, options.split, sound=False)[options.split]
    prediction = predictions.read_captions(options.prediction)
    from evaluation.metrics import captioning  # scipy's sparse matrices take their time to import

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the Java processes as Ctrl-C does
    resolved = captioning.resolve_metrics(options.metrics)
    score = captioning.evaluate(
        split,
        prediction,
        metrics=options.metrics,
        interval=options.interval,
        idf=options.idf,
        cache=options.cache,
        file=str(options.prediction),
    )
    _report(score, options)
    missing = list(score.unavailable)
    if options.metrics[0] not in captioning.METRICS:  # a set: only the metric that ranks must be there
        first = resolved.metrics[0]
        if first in score.unavailable:
            missing = [f"{first}, the metric that ranks,"]
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
    """Compare systems by their scores of the same items: differences, 95 % intervals, and paired tests by Holm."""
    from evaluation.statistics import comparison

    given = comparison.read_scores([options.first, *options.others])
    compared = comparison.compare(given, pairs=options.pairs, seed=options.seed)
    if options.json:  # before anything is printed
        compared.save(options.json)
    formats = {"text": compared.__str__, "csv": compared.csv, "latex": compared.latex}
    print(formats[options.format]())


def report(options: argparse.Namespace) -> None:
    """Say what each factor of a sweep does: settings by mean and SD, the best of each level, tests by Holm, figures."""
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
    """Fetch what metrics need that comes with no package; what is there is left alone."""
    from evaluation import assets

    assets.fetch(options.names, options.cache)


def info(options: argparse.Namespace) -> None:
    """Print versions, Java, jars and models, and of each caption metric what it needs and whether that is there."""
    from evaluation import assets
    from evaluation.metrics import captioning

    print(assets.info(captioning.NEEDS, options.cache))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m evaluation", description="Data and scores.")
    rooms = top.add_subparsers(required=True, metavar="WHAT")

    room = rooms.add_parser("data", help="make, check or download a data set").add_subparsers(
        required=True, metavar="VERB"
    )
    verb = room.add_parser("make", help="synthesise the default data set", description=make.__doc__)
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder to write; must not exist, or be empty")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=make)
    verb = room.add_parser("check", help="check a data folder", description=check.__doc__)
    verb.add_argument("folder", type=Path, metavar="DIR", help="data folder in Clotho's layout")
    verb.set_defaults(run=check)
    verb = room.add_parser("download", help="fetch a data set", description=download.__doc__)
    verb.add_argument("name", choices=["clotho"], help="clotho: version 2.1; 7 GB to fetch, 12 GB in the end")
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder to write, or to go on with")
    verb.set_defaults(run=download)

    room = rooms.add_parser("score", help="score a prediction").add_subparsers(required=True, metavar="VERB")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--truth", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    shared.add_argument("--split", default=EVALUATION, help="which split (evaluation)")
    shared.add_argument("--json", type=Path, metavar="FILE", help="write the figures at full precision")
    verb = room.add_parser("retrieval", parents=[shared], help="score a retriever", description=score_retrieval.__doc__)
    verb.add_argument(
        "--prediction",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npz of a run, or a CSV of best clips or of a matrix",
    )
    verb.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE",
        help="which clips answer which query; `captions`: those that have it as a caption. Without, the data folder's "
        "relevance_SPLIT.csv where there is one, else captions",
    )
    verb.add_argument(
        "--metrics",
        nargs="+",
        default=["dcase2022"],
        metavar="NAME",
        help="such as mAP@16 R@5 nDCG@10 success@1 MRR@10 MRR medR, or a set such as dcase2025 (dcase2022)",
    )
    verb.add_argument("--interval", default="jackknife", choices=METHODS, help="how it is made (jackknife)")
    verb.set_defaults(run=score_retrieval)

    verb = room.add_parser("captions", parents=[shared], help="score a captioner", description=score_captions.__doc__)
    verb.add_argument(
        "--prediction", type=Path, required=True, metavar="FILE", help="CSV of file_name, caption_predicted"
    )
    verb.add_argument(
        "--metrics",
        nargs="+",
        default=["basic"],
        metavar="NAME",
        help="a set (basic: what needs no download; that of a year, such as dcase2024; all) or metrics",
    )
    verb.add_argument("--interval", choices=METHODS, help="jackknife; with dcase2024, as that year, bootstrap")
    verb.add_argument(
        "--idf",
        choices=("fixed", "exact"),
        default="fixed",
        help="whether CIDEr-D's weights stay what they are when a clip is left out (fixed) or are computed anew",
    )
    verb.add_argument("--cache", type=Path, default=Path(".cache"), help="where tokenised captions are kept (.cache)")
    verb.set_defaults(run=score_captions)

    verb = rooms.add_parser("compare", help="compare scores", description=compare.__doc__)
    verb.add_argument("first", type=Path, metavar="FILE", help="what `score … --json` wrote: what to compare with")
    verb.add_argument("others", type=Path, nargs="+", metavar="FILE", help="the same of each other system")
    verb.add_argument("--pairs", action="store_true", help="compare every system with all before it, too")
    verb.add_argument("--format", choices=["text", "csv", "latex"], default="text", help="of the table (text)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the figures at full precision")
    verb.add_argument("--seed", type=int, default=0, help="where the test's draws start from (0)")
    verb.set_defaults(run=compare)
    verb = rooms.add_parser("report", help="what the factors of a sweep do", description=report.__doc__)
    verb.add_argument("results", type=Path, metavar="RESULTS.csv", help="what `systems sweep` wrote")
    verb.add_argument("--metric", metavar="NAME", help="what to compare; the file's first metric without")
    text = "the best setting for each of its levels, tests within them, and the axis of figures (the first factor)"
    verb.add_argument("--by", metavar="FACTOR", help=text)
    text = "compare the levels of --by with this one alone, which makes fewer tests (default: each with each)"
    verb.add_argument("--against", metavar="LEVEL", help=text)
    text = "p by the normal approximation, as Weck et al. 2021 have it (default: exact where there are few pairs)"
    verb.add_argument("--normal", action="store_true", help=text)
    verb.add_argument("--out", type=Path, metavar="DIR", help="write tables as CSV, and figures as SVG and PNG")
    verb.set_defaults(run=report)
    verb = rooms.add_parser("download", help="fetch what metrics need", description=download_models.__doc__)
    verb.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="spice (400 MB), fense (0.7 GB) or bert_score (1.4 GB)",
    )
    verb.add_argument("--cache", type=Path, default=Path(".cache"), help="where SPICE's jars go (.cache)")
    verb.set_defaults(run=download_models)
    verb = rooms.add_parser("info", help="what metrics depend on, and what is there", description=info.__doc__)
    verb.add_argument("--cache", type=Path, default=Path(".cache"), help="where SPICE's jars are (.cache)")
    verb.set_defaults(run=info)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
