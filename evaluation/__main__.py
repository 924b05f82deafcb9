# PYTHON_ARGCOMPLETE_OK
"""The command line of the evaluation package: data sets, scores, comparisons and reports on sweeps."""

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from evaluation import caption_formats, predictions
from evaluation.cli import command, complete
from evaluation.data.check import check_dataset
from evaluation.data.dataset import EVALUATION, SPLITS, Split, read_dataset
from evaluation.data.relevance import Relevance, chosen_relevance
from evaluation.embeddings import SIMILARITIES
from evaluation.files import DEFAULT_CACHE, cache_folder, require_other_files
from evaluation.findings import BadRequest, Faulty, Finding, count, say
from evaluation.kinds import KINDS, PAGE_OPTIONS, kind_of_predictions
from evaluation.metrics import retrieval
from evaluation.scores import Score
from evaluation.statistics.intervals import METHODS
from evaluation.text import plural, table, unknown_key

DEPTH = 10  # default number of clips of each query in the file of --ranking
TOKENIZED = {  # what `--tokenized` means: the texts that are tokens already
    "": (),
    "predictions": ("predictions",),
    "references": ("references",),
    "both": ("predictions", "references"),
}


def make(options: argparse.Namespace) -> None:
    """Synthesise the default data set; print the scores of chance and of two oracles on it.

    With --answers, synthesise questions about clips, or queries about long recordings.
    """
    if options.answers == "choice":
        _make_questions(options)
        return
    if options.answers == "moments":
        _make_recordings(options)
        return
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


def _make_questions(options: argparse.Namespace) -> None:
    """Synthesise questions about clips; print the numbers of questions and the accuracy of chance."""
    from evaluation.data.soundscapes.questions import make_questions

    make_questions(options.folder, seed=options.seed)
    questions, _ = KINDS["choice"].read_truth(options.folder, EVALUATION)
    types = Counter(question.type for question in questions.questions)
    chance = sum(questions.chances) / len(questions.chances)
    counts = ", ".join(f"{count} about {name}" for name, count in sorted(types.items()))
    print(
        f"{options.folder}: {len(questions.questions)} evaluation questions ({counts}); accuracy by chance {chance:.3f}"
    )


def _make_recordings(options: argparse.Namespace) -> None:
    """Synthesise queries about long recordings; print the numbers of recordings, queries and windows."""
    from evaluation.data.soundscapes.recordings import make_recordings

    make_recordings(options.folder, seed=options.seed)
    recordings, _ = KINDS["moments"].read_truth(options.folder, EVALUATION)
    seconds = {query.recording: query.seconds for query in recordings.queries}
    windows = sum(len(query.windows) for query in recordings.queries)
    length = f"{min(seconds.values()):.0f} to {max(seconds.values()):.0f} s long"
    counts = f"{plural(len(seconds), 'evaluation recording')}, {length}; {len(recordings.queries)} queries"
    print(f"{options.folder}: {counts} with {windows} windows")


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


def convert(options: argparse.Namespace) -> None:
    """Convert a file with a row for each caption or each clip to captions_SPLIT.csv in Clotho's layout."""
    from evaluation.data.convert import convert_captions

    columns = caption_formats.parse_columns(options.columns)
    converted = convert_captions(options.source, options.out, options.split, columns=columns, captions=options.captions)
    say(converted.notes)
    captions = plural(converted.captions, "caption")
    print(f"{converted.path}: {plural(converted.clips, 'clip')} with {captions} each")


def mix(options: argparse.Namespace) -> None:
    """Write a data set of mixed clips: sums of two development clips, with their captions joined by "and"."""
    from evaluation.data.mix import mix_clips

    mixed = mix_clips(options.folder, options.out, pairs=options.pairs, seed=options.seed)
    clips, captions = plural(mixed.clips, "mixed clip"), plural(mixed.captions, "caption")
    print(f"{options.out}: {clips} with {captions} each")


def download(options: argparse.Namespace) -> int:
    """Download a data set from its publishers and check it."""
    from evaluation.data import download as downloads

    downloads.clotho(options.folder)
    return check(options)


def score_retrieval(options: argparse.Namespace) -> None:
    """Score a prediction of a retrieval system, with 95 % intervals and the chance level; --truth may be TREC qrels."""
    _check_retrieval_options(options)
    directions = retrieval.DIRECTIONS if options.direction == "both" else (options.direction,)
    is_qrels = options.truth.is_file()
    if is_qrels:
        split, findings = _qrels(options)
    else:
        split, findings = read_dataset(options.truth, options.split, sound=False)[options.split], []
    truth = chosen_relevance(options.relevance, split.captions, split.file_names)
    prediction, notes = _retrieval_prediction(options, split, truth, directions)
    if options.ranking and isinstance(prediction, predictions.Ranking):
        raise BadRequest(f"--ranking is for a matrix and embeddings; {options.prediction} is a ranking already")
    given = dict.fromkeys([options.prediction, options.audio_embeddings, options.text_embeddings])
    file = " and ".join(str(path) for path in given if path)
    scored = {}
    for direction in directions:
        scored[direction] = retrieval.evaluate(
            split,
            prediction,
            relevance=truth,
            metrics=options.metrics,
            interval=options.interval,
            direction=direction,
            lists_all_clips=not is_qrels,
            file=file,
        )
    if options.ranking and not isinstance(prediction, predictions.Ranking):
        header = ("caption", "file_name")
        if directions[0] == retrieval.AUDIO_TO_TEXT:
            prediction, header = prediction.reversed(), ("file_name", "caption")
        retrieval.best_clips(prediction, options.depth or DEPTH).save(options.ranking, header)
    say([*findings, *notes])
    for direction, score in scored.items():
        path = options.json
        if path and len(scored) > 1:
            path = path.with_name(f"{path.stem}.{direction}{path.suffix}")
        if path:  # before anything is printed
            score.save(path)
    for direction, score in scored.items():
        say(score.findings)
        if len(scored) > 1:
            print(f"{direction}:")
        print(score)


def _check_retrieval_options(options: argparse.Namespace) -> None:
    """Check that the options fit together."""
    embeddings = [options.audio_embeddings, options.text_embeddings]
    if options.prediction and any(embeddings):
        raise BadRequest("give either --prediction, or --audio-embeddings and --text-embeddings")
    if not options.prediction and not all(embeddings):
        both = "both --audio-embeddings and --text-embeddings"
        raise BadRequest(f"give {both}" if any(embeddings) else f"give --prediction FILE, or {both}")
    if options.prediction:
        if options.similarity:
            raise BadRequest("--similarity is only for embeddings: the scores of --prediction are used as they are")
        names = options.audio_names or options.text_names or options.order
        if names and options.prediction.suffix.lower() not in (".npy", ".npz"):
            message = "--audio-names, --text-names and --order are only for .npy and .npz files"
            raise BadRequest(f"{message}; {options.prediction} contains its names")
    if options.depth and not options.ranking:
        raise BadRequest("--depth is for --ranking FILE; give a file for the best clips, or leave --depth out")
    inputs = {
        "--prediction": options.prediction,
        "--audio-embeddings": options.audio_embeddings,
        "--text-embeddings": options.text_embeddings,
        "--audio-names": options.audio_names,
        "--text-names": options.text_names,
        "--relevance": options.relevance,
        "--truth": options.truth if options.truth.is_file() else None,
    }
    require_other_files({"--ranking": options.ranking, "--json": options.json}, inputs)
    if options.ranking and options.direction == "both":
        raise BadRequest("--ranking writes one direction; give --direction text-to-audio or audio-to-text")


def _qrels(options: argparse.Namespace) -> tuple[Split, list[Finding]]:
    """Read --truth as qrels."""
    from evaluation import trec

    if options.relevance:
        raise BadRequest("--relevance is only for a data folder: qrels contain the relevant clips; leave it out")
    if not trec.is_trec(options.truth, len(trec.QRELS_COLUMNS)):
        columns = " ".join(trec.QRELS_COLUMNS)
        raise BadRequest(f"{options.truth}: must be a data folder, or qrels in TREC's format ({columns})")
    return trec.read_qrels(options.truth)


def _retrieval_prediction(
    options: argparse.Namespace, split: Split, truth: Relevance | None, directions: Sequence[str]
) -> tuple[retrieval.Prediction, list[Finding]]:
    """Read the prediction, and return it with notes about what was assumed."""
    from evaluation import array_files, retrieval_formats

    queries = split.truth if truth is None else truth
    given = array_files.Given(options.audio_names, options.text_names, options.order == "truth")
    if options.audio_embeddings:
        similarity = options.similarity or SIMILARITIES[0]
        return array_files.read_embeddings(
            options.audio_embeddings, options.text_embeddings, split, queries, similarity, given
        )
    expected = None
    if not options.truth.is_file():
        expected = max(len(split.queries), len(truth or ())), len(split.clips)
    prediction, notes = retrieval_formats.read_prediction(
        options.prediction, split, queries, given=given, direction=directions[0], expected=expected
    )
    if isinstance(prediction, predictions.Ranking) and len(directions) > 1:
        message = "has lists, which have one direction; choose a direction, or give a matrix or embeddings"
        raise BadRequest(f"{options.prediction}: {message}")
    return prediction, notes


def score_captions(options: argparse.Namespace) -> int:
    """Score a prediction of a captioning system, or the references themselves, with 95 % intervals over clips."""
    require_other_files({"--json": options.json}, {"--prediction": options.prediction, "--ids": options.ids})
    split = read_dataset(options.truth, options.split, sound=False)[options.split]
    settings = {
        "metrics": options.metrics,
        "interval": options.interval,
        "idf": options.idf,
        "tokenized": TOKENIZED[options.tokenized],
        "cache": options.cache,
    }
    if options.topline:
        for name in ("columns", "ids", "match"):
            if getattr(options, name):
                raise BadRequest(f"--{name} is about a prediction; leave it out for --topline, which does not read one")
        from evaluation.metrics import captioning, topline

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the Java processes, as Ctrl-C does
        score = topline.human_topline(split, **settings)
    else:
        prediction, notes = caption_formats.read_captions(
            options.prediction,
            split,
            columns=caption_formats.parse_columns(options.columns),
            ids=options.ids,
            match=options.match,
        )
        from evaluation.metrics import captioning  # imports scipy's sparse matrices, which takes time

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            score = captioning.evaluate(prediction, split, **settings, file=str(options.prediction))
        except Faulty as faulty:
            raise Faulty([*notes, *faulty.findings], faulty.status) from None
        score = replace(score, findings=(*notes, *score.findings))
    resolved = captioning.resolve_metrics(options.metrics)
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


def score_answers(options: argparse.Namespace) -> int:
    """Score a prediction of one of the kinds that have a verb of their own, with 95 % intervals."""
    require_other_files({"--json": options.json}, {"--prediction": options.prediction, "--truth": options.truth})
    kind = KINDS[options.kind]
    truth, findings = kind.read_truth(options.truth, options.split)
    score = kind.score_file(options.prediction, truth, metrics=options.metrics, interval=options.interval)
    score = replace(score, findings=(*findings, *score.findings))
    _report(score, options)
    missing = [name for name in options.metrics or () if name in score.unavailable]
    for name in missing:
        print(f"error: {name} is not available: {score.unavailable[name]}", file=sys.stderr)
    return 1 if missing else 0


def _report(score: Score, options: argparse.Namespace) -> None:
    if options.json:  # before anything is printed
        score.save(options.json)
    say(score.findings)
    print(score)


def compare(options: argparse.Namespace) -> None:
    """Compare scores of the same items: differences, 95 % intervals, and paired tests with Holm's correction."""
    from evaluation.statistics import comparison

    scores = comparison.read_scores([options.first, *options.others])
    if options.wide and options.pairs:
        raise BadRequest("--wide compares all systems with the first one; leave out --pairs or --wide")
    compared = comparison.compare(scores, pairs=options.pairs, seed=options.seed)
    if options.json:  # before anything is printed
        compared.save(options.json)
    if options.wide:
        print(compared.wide(options.format))
        return
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


def inspect(options: argparse.Namespace) -> None:
    """Write a page on which you look at and listen to predictions of the same split, one or several."""
    from evaluation.inspection import writing
    from evaluation.inspection.content import Request

    writing.check_target(options.out, options.single_file)
    if options.single_file and options.copy_audio:
        raise BadRequest("--single-file contains the sounds; leave out --copy-audio")
    kind = KINDS[kind_of_predictions(options.predictions)]
    for name in sorted(PAGE_OPTIONS - set(kind.page_options)):
        if getattr(options, name):
            raise BadRequest(f"--{name} is for predictions of {_systems_with(name)}; leave it out")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends Java processes, as Ctrl-C does
    request = Request(
        options.predictions,
        options.truth,
        options.split,
        metrics=options.metrics,
        relevance=options.relevance,
        match=options.match,
    )
    content, findings = import_module(kind.page).read_page(request)
    written, unreadable = writing.write_page(
        content,
        options.predictions,
        findings,
        options.out,
        copy_audio=options.copy_audio,
        single_file=options.single_file,
    )
    say([*findings, *unreadable])
    score = content.systems[0].score
    sounds = f"sounds of {written.playable} of {plural(len(content.clips), content.clip_noun)}"
    if not written.playable:
        sounds = "no sounds, because the data folder has no audio files"
    size = f"{written.size / 1e6:.1f} MB"
    print(f"{written.path}: {size}; {len(score.items.names)} {score.items.kind}, {sounds}; open it in a browser")


def _systems_with(option: str) -> str:
    """Return the plural noun for the systems whose pages have an option."""
    nouns = [f"{kind.system.partition(' ')[2]}s" for kind in KINDS.values() if option in kind.page_options]
    return " and ".join(nouns)


def download_models(options: argparse.Namespace) -> None:
    """Download the files that caption metrics need and no Python package contains; skip files that exist already."""
    from evaluation import assets

    assets.fetch(options.names, options.cache, options.dry_run)


def info(options: argparse.Namespace) -> None:
    """Print the versions of packages, Java and models, and the requirements and state of each caption metric."""
    from evaluation import assets
    from evaluation.metrics import captioning

    print(assets.info(captioning.NEEDS, options.cache))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("dcase-evaluation", description="Data sets, scores and comparisons.")
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
    text = "print a row for each system and a column for each metric, with stars for differences from the first"
    verb.add_argument("--wide", action="store_true", help=text)
    verb.add_argument("--json", type=Path, metavar="FILE", help="output file for the comparison at full precision")
    verb.add_argument("--seed", type=int, default=0, help="seed of the paired randomisation test (default: 0)")
    verb.set_defaults(run=compare)

    verb = commands.add_parser("report", help="report the effects of a sweep's factors", description=report.__doc__)
    verb.add_argument(
        "results", type=Path, metavar="RESULTS.csv", help="results file, written by `dcase-systems sweep`"
    )
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

    text = "write a page to look at and listen to predictions"
    verb = commands.add_parser("inspect", help=text, description=inspect.__doc__)
    text = (
        "predictions of one kind: any file that `score retrieval`, `score captions`, `score choice` or `score moments` "
        "reads with --prediction; the others are compared with the first"
    )
    verb.add_argument("predictions", type=Path, nargs="+", metavar="PREDICTION", help=text)
    text = "data folder; or the file of the questions, or of the queries about recordings"
    verb.add_argument("--truth", type=Path, required=True, metavar="PATH", help=text)
    split = verb.add_argument("--split", default=EVALUATION, help=f"split of the predictions (default: {EVALUATION})")
    complete(split, lambda: SPLITS)
    text = "output folder, or output file (.html) for --single-file; must not exist, be empty, or be an earlier page"
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    text = (
        "metrics, or a set of metrics; the first one sorts the page (default: as for `score`, which are mAP@10 and R@k "
        "for retrieval, and the set basic for captions; for moments, mAP is first)"
    )
    verb.add_argument("--metrics", nargs="+", metavar="NAME", help=text)
    text = "relevant clips of each query, as for `score retrieval` (default: the data folder's own)"
    verb.add_argument("--relevance", type=Path, metavar="FILE", help=text)
    text = "how to match names, as for `score captions` (default: names are verbatim)"
    verb.add_argument("--match", default="", metavar="RULES", help=text)
    text = "copy the sounds into the folder, as Ogg or MP3 (default: link to the audio files where they are)"
    verb.add_argument("--copy-audio", action="store_true", help=text)
    text = "write one file that contains everything, with at most 50 MB of sounds"
    verb.add_argument("--single-file", action="store_true", help=text)
    verb.set_defaults(run=inspect)

    text = "download the files that caption metrics need"
    verb = commands.add_parser("download", help=text, description=download_models.__doc__)
    text = "spice (400 MB), fense (0.7 GB) or bert_score (1.4 GB)"
    complete(verb.add_argument("names", nargs="+", metavar="NAME", help=text), lambda: ("spice", "fense", "bert_score"))
    verb.add_argument("--dry-run", action="store_true", help="only print the table")
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
    verb = verbs.add_parser("make", help="synthesise a data set", description=make.__doc__)
    verb.add_argument("folder", type=Path, metavar="DIR", help="output folder; must be empty or not exist")
    verb.add_argument("--seed", type=int, default=0, help="seed of the data set (default: 0)")
    text = (
        "answers that systems give: captions (also for retrieval), choice (questions about clips) or moments (queries "
        "about long recordings) (default: captions)"
    )
    verb.add_argument("--answers", choices=["captions", "choice", "moments"], default="captions", help=text)
    verb.set_defaults(run=make)

    verb = verbs.add_parser("check", help="check a data folder", description=check.__doc__)
    text = "data folder with captions, questions or recordings; or a published file or folder of questions or queries"
    verb.add_argument("folder", type=Path, metavar="DIR", help=text)
    verb.set_defaults(run=check)

    text = "convert a caption file to Clotho's layout"
    verb = verbs.add_parser("convert", help=text, description=convert.__doc__)
    text = "CSV, JSON or JSON lines file with a row for each caption or clip, or COCO's annotations"
    verb.add_argument("source", type=Path, metavar="SOURCE", help=text)
    text = "data folder for captions_SPLIT.csv; must not have captions of the split yet"
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    verb.add_argument("--split", default=EVALUATION, help=f"split of the captions (default: {EVALUATION})")
    text = "columns to read, as name=COLUMN,caption=COLUMN (default: columns with a known name)"
    verb.add_argument("--columns", default="", metavar="NAMES", help=text)
    text = "keep only the first N captions of each clip (default: all; every clip must have the same number)"
    verb.add_argument("--captions", type=int, metavar="N", help=text)
    verb.set_defaults(run=convert)

    verb = verbs.add_parser("mix", help="mix pairs of clips for training", description=mix.__doc__)
    text = "data folder in Clotho's layout, whose development clips are mixed"
    verb.add_argument("folder", type=Path, metavar="DIR", help=text)
    text = "output folder, a data folder with a development split; must be empty or not exist"
    verb.add_argument("out", type=Path, metavar="OUT", help=text)
    verb.add_argument("--pairs", type=_positive, required=True, metavar="N", help="number of mixed clips")
    verb.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    verb.set_defaults(run=mix)

    verb = verbs.add_parser("download", help="download a data set", description=download.__doc__)
    text = "clotho: version 2.1; 7 GB to download, 12 GB on disk"
    verb.add_argument("name", choices=["clotho"], help=text)
    text = "output folder; an interrupted download resumes there"
    verb.add_argument("folder", type=Path, metavar="DIR", help=text)
    verb.set_defaults(run=download)


def _add_score(command: argparse.ArgumentParser) -> None:
    """Add the verbs of `score`."""
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    shared = _shared_options("DIR", "data folder in Clotho's layout", "split to score")

    text = "score a retrieval system"
    verb = verbs.add_parser("retrieval", parents=[shared], help=text, description=score_retrieval.__doc__)
    text = (
        "prediction: the .npz of a run, a CSV of each query's best clips, a similarity matrix (CSV, .npy or .npz), or "
        "a TREC run (.run, .trec or .txt)"
    )
    verb.add_argument("--prediction", type=Path, metavar="FILE", help=text)
    text = "embeddings of the clips (.npy or .npz); give --text-embeddings too, and no --prediction"
    verb.add_argument("--audio-embeddings", type=Path, metavar="FILE", help=text)
    text = "embeddings of the captions (.npy or .npz); this may be the same .npz"
    verb.add_argument("--text-embeddings", type=Path, metavar="FILE", help=text)
    text = "similarity of embeddings (default: cosine)"
    verb.add_argument("--similarity", choices=SIMILARITIES, help=text)
    text = "names of the clips in a .npy: a file with a name on each line, or a CSV with the column file_name"
    verb.add_argument("--audio-names", type=Path, metavar="FILE", help=text)
    text = "captions in a .npy: a file with a caption on each line, or a CSV with the column caption"
    verb.add_argument("--text-names", type=Path, metavar="FILE", help=text)
    text = "`truth`: clips and captions without names are in the order of the truth (default: refuse them)"
    verb.add_argument("--order", choices=["truth"], help=text)
    text = "which one is the query: text-to-audio, audio-to-text or both (default: text-to-audio)"
    verb.add_argument(
        "--direction", choices=[*retrieval.DIRECTIONS, "both"], default=retrieval.TEXT_TO_AUDIO, help=text
    )
    text = (
        "CSV with the relevant clips of each query, or `captions`: the clips that have the query as a caption "
        "(default: the data folder's relevance_SPLIT.csv, or captions if there is no such file)"
    )
    verb.add_argument("--relevance", type=Path, metavar="FILE", help=text)
    text = (
        "metrics, such as mAP@16 R@5 nDCG@10 success@1 MRR@10 MRR medR, or a set of metrics, such as dcase2025 "
        "(default: dcase2022; audio-to-text also has success@1, success@5 and success@10)"
    )
    verb.add_argument("--metrics", nargs="+", metavar="NAME", help=text)
    text = "method of the intervals (default: jackknife)"
    verb.add_argument("--interval", default="jackknife", choices=METHODS, help=text)
    verb.add_argument("--ranking", type=Path, metavar="FILE", help="output CSV with the best clips of each query")
    text = "number of clips of each query in the --ranking file (default: 10)"
    verb.add_argument("--depth", type=_positive, metavar="N", help=text)
    verb.set_defaults(run=score_retrieval)

    text = "score a captioning system"
    verb = verbs.add_parser("captions", parents=[shared], help=text, description=score_captions.__doc__)
    source = verb.add_mutually_exclusive_group(required=True)
    text = (
        "prediction: a CSV with the columns file_name and caption_predicted, or with other columns; a JSON or JSON "
        "lines file; or COCO's results or annotations"
    )
    source.add_argument("--prediction", type=Path, metavar="FILE", help=text)
    text = "score each reference against the other references of its clip, and print the mean, in place of a prediction"
    source.add_argument("--topline", action="store_true", help=text)
    text = "columns (or keys) to read, as name=COLUMN,caption=COLUMN (default: columns with a known name)"
    verb.add_argument("--columns", default="", metavar="NAMES", help=text)
    text = "COCO file with the list images or audios, for predictions with ids (default: names are file names)"
    verb.add_argument("--ids", type=Path, metavar="FILE", help=text)
    text = (
        "how to match names: stem (ignores folder and extension), or path, extension, case, blanks, unicode, entities, "
        "punctuation, also several with commas; or order: by the order of the truth (default: names are verbatim)"
    )
    verb.add_argument("--match", default="", metavar="RULES", help=text)
    text = (
        "texts that are tokens already, and must not be tokenised again: predictions, references or both (default: "
        "none; without a value: both)"
    )
    verb.add_argument("--tokenized", nargs="?", default="", const="both", choices=[*TOKENIZED][1:], help=text)
    text = (
        "metrics, or a set of metrics: basic (CIDEr-D, BLEU, METEOR and ROUGE-L), a year's set such as dcase2024, "
        "or all (default: basic)"
    )
    metrics = verb.add_argument("--metrics", nargs="+", default=["basic"], metavar="NAME", help=text)
    complete(metrics, _caption_metrics)
    text = "method of the intervals (default: jackknife; bootstrap for dcase2024, as in that year's challenge)"
    verb.add_argument("--interval", choices=METHODS, help=text)
    text = (
        "CIDEr-D's n-gram weights when the jackknife leaves a clip out: keep them (fixed) or compute them again "
        "(exact) (default: fixed)"
    )
    verb.add_argument("--idf", choices=("fixed", "exact"), default="fixed", help=text)
    _add_cache(verb, "cache folder for tokenised captions")
    verb.set_defaults(run=score_captions)

    text = (
        "questions with options and answers: JSON lines of DCASE 2026 task 5, a folder of JSON files of 2025 task 5, "
        "or a folder from `data make`"
    )
    _add_score_of_kind(
        verbs,
        "choice",
        "clip",
        truth=text,
        prediction="answers: a CSV with the columns question and answer, or JSON or JSON lines with these keys",
        metrics="accuracy, macro_types or type@NAME, or a set of metrics, such as dcase2026 (default: all that the "
        "questions allow)",
    )
    text = "queries with windows: JSON lines of CASTELLA, Clotho-Moment or QVHighlights, or a folder from `data make`"
    windows = "JSON lines with qid and pred_relevant_windows, each [start, end, score] or [start, end] best first"
    _add_score_of_kind(
        verbs,
        "moments",
        "recording",
        truth=text,
        prediction=f"windows: {windows}",
        metrics="R1@0.5, mAP@0.75 or mAP, or a set of metrics, such as dcase2026 (default: R1@0.5, R1@0.7, mAP, "
        "mAP@0.5 and mAP@0.75)",
    )


def _shared_options(metavar: str, truth: str, split: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all verbs of `score` share.

    Args:
        metavar: The placeholder for the value of `--truth`.
        truth: The help of `--truth`.
        split: The help of `--split`.
    """
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--truth", type=Path, required=True, metavar=metavar, help=truth)
    text = f"{split} (default: {EVALUATION})"
    complete(shared.add_argument("--split", default=EVALUATION, help=text), lambda: SPLITS)
    shared.add_argument("--json", type=Path, metavar="FILE", help="output file for the scores at full precision")
    return shared


def _add_score_of_kind(verbs: Any, kind: str, group: str, *, truth: str, prediction: str, metrics: str) -> None:
    """Add a verb of `score` for one of `KINDS` that is read and scored by `score_answers`.

    Args:
        verbs: The verbs of `score`.
        kind: The name of the kind, which is also the verb.
        group: The noun for what several questions or queries are about.
        truth: The help of `--truth`.
        prediction: The help of `--prediction`.
        metrics: Examples of metrics, and the default, for the help of `--metrics`.
    """
    text = f"score {KINDS[kind].system}"
    description = f"Score a prediction of {KINDS[kind].system}, with 95 % intervals, also by {group}."
    shared = _shared_options("PATH", truth, "split to score, if --truth is a folder from `data make`")
    verb = verbs.add_parser(kind, parents=[shared], help=text, description=description)
    verb.add_argument("--prediction", type=Path, required=True, metavar="FILE", help=prediction)
    verb.add_argument("--metrics", nargs="+", metavar="NAME", help=f"metrics, such as {metrics}")
    text = "method of the intervals (default: jackknife)"
    verb.add_argument("--interval", default="jackknife", choices=METHODS, help=text)
    verb.set_defaults(run=score_answers, kind=kind)


def _caption_metrics() -> list[str]:
    """Return the names that `score captions --metrics` accepts."""
    from evaluation.metrics import captioning

    return [*captioning.METRICS, *captioning.metric_sets()]


def _positive(text: str) -> int:
    """Return the number in an argument.

    Raises:
        argparse.ArgumentTypeError: It is not a whole number of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more; found {text!r}")
    return int(text)


def _add_cache(verb: argparse.ArgumentParser, what: str) -> None:
    text = f"{what} (default: {DEFAULT_CACHE})"
    verb.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help=text)


def main() -> int:
    """Run the command line, and return the exit status."""
    return command(parser())


if __name__ == "__main__":
    sys.exit(main())
