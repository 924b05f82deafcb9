"""Metrics of captioning: compare each predicted caption with the reference captions of its clip.

    score = evaluate({"dog.wav": "A dog barks."}, {"dog.wav": ["A dog is barking.", "Barking."]}, metrics=["rouge_l"])
    score = evaluate(read_captions("predictions.csv"), split, metrics=["dcase2023"])

Conventions
-----------
- A *prediction* has one caption for each clip of the split. The clip's own captions, one or more, are its *references*.
  Each clip must appear exactly once: a missing or repeated clip is an error. Captions of clips that are not in the
  split are ignored, and a note counts them.
- **Captions are tokenised first.** Predictions and references are tokenised as in COCO's evaluation
  (`evaluation.metrics.ptb_tokenizer`). Texts that are tokens already can be left as they are (`tokenized`), and the
  signature then says so. All metrics use these tokens. The neural metrics use them too, as in
  aac-metrics. White space of any kind counts as a blank. Markup in a caption cannot change another caption, and only
  the first part of a very long caption is read (`evaluation.data.caption_text`). A warning names each such caption.
- **Captions are processed in the order of their file names**, not in the order of the prediction file. The official
  tool does the same: `evaluate_metrics` of caption-evaluation-tools sorts predictions and references by `file_name` (by
  code points, as Python sorts). Its tokeniser reads all predictions as one text, and all references as another text.
  This second text has the references of the first clip in the order of their columns, then those of the next clip. The
  tokeniser looks at the next line to decide what a full stop means, so the order can change a token. A note names the
  captions that this can affect. Sums are computed in the same order, so the order of rows in the files does not affect
  the result. A score lists its clips in the order of the split.
- **An empty caption**, or one with only punctuation, scores 0 in every metric that compares words. A warning names it.
- **BLEU and METEOR are corpus metrics** (`evaluation.metrics.word_overlap`), and `vocab` and `vocab_ratio` are computed
  from all captions together. Every other metric is a mean over clips.
- **CIDEr-D weights n-grams by the references of the split.** The intervals of CIDEr-D, SPIDEr and SPIDEr-FL leave out
  one clip at a time. The weights then stay as they are (`idf="fixed"`), or are computed again (`idf="exact"`). If the
  split has a single clip, CIDEr-D is 0 for any caption.
- **Predictions that equal references** of their clips verbatim give a warning if they are more than a quarter of all
  predictions, and five or more.
- **A metric whose model is not on this machine** (SPICE's parser, the models of FENSE and BERTScore) is reported as
  unavailable, with the command that downloads it. The other metrics are computed.

Metrics
-------
- `bleu_1` … `bleu_4`, `meteor`, `rouge_l`, `cider_d` (which DCASE calls CIDEr), `spice`.
- `spider`: the mean of CIDEr-D and SPICE.
- `sbert_sim`: the mean cosine similarity between the sentence embeddings of the caption and its references.
- `fer`: the share of captions with a fluency error.
- `spider_fl` and `fense`: `spider` and `sbert_sim`, multiplied by 0.1 for a caption with a fluency error.
- `bert_score`: F1 with the best-matching reference.
- `vocab`: the number of different words in all captions. `vocab_ratio`: this number divided by the number of different
  words in all references. These two do not have an interval, because they cannot be computed from sums over clips.

`evaluation.metrics.catalogue` contains a table of all metrics, and explains how to add one.

Sources: aac-metrics 0.5.4, its `METRICS_SETS` and README; Liu et al. 2017 (SPIDEr); Zhou et al. 2022 (FENSE);
felixgontier/dcase-2023-baseline, `metrics.py` (SPIDEr-FL); audio-captioning/caption-evaluation-tools @ c1798df,
`eval_metrics.py` and `ptbtokenizer.py` (the order).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import assets, scores
from evaluation.data import caption_text
from evaluation.data.dataset import Clip, Split, other_split_hint
from evaluation.files import cache_folder
from evaluation.findings import NOTE, WARNING, BadRequest, Faulty, Finding, raise_errors
from evaluation.inputs import captioning_inputs
from evaluation.metrics import bert_score, catalogue, fense, meteor, spice, word_overlap
from evaluation.metrics.java import Java, Unavailable, find_java
from evaluation.metrics.ptb_tokenizer import PUNCTUATION, depends_on_next, ptb_tokenize, token_file
from evaluation.metrics.ptb_tokenizer import VERSION as TOKENIZER
from evaluation.metrics.sets import MetricSet, check_names, year_sets
from evaluation.names import closest, explain, format_rules, hint
from evaluation.predictions import Captions
from evaluation.scores import Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate, from_left_out, jackknife
from evaluation.text import plural, quoted, unknown_key

METRICS = tuple(catalogue.CAPTIONING)
BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
BASIC = ("cider_d", *BLEU, "meteor", "rouge_l")  # need no download

PENALTY = 0.9  # the share of its score that a caption with a fluency error loses
IDF = ("fixed", "exact")
TOKENIZED = ("predictions", "references")  # texts that may be tokens already
EQUAL_SHARE, EQUAL_NUMBER = 0.25, 5  # there is a warning if more predictions than this equal a reference of their clip


# The components that metrics are computed from ----------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Tokenised captions and references in the official order, with the resources that components need.

    Attributes:
        captions: The tokenised caption of each clip.
        references: The tokenised references of each clip.
        java: The JVM.
        cache: Folder of the cache.
        stack: The stack that ends the processes that components start.
        meteor_process: METEOR's running process, or the reason why METEOR is not running.
    """

    captions: Sequence[str]
    references: Sequence[Sequence[str]]
    java: Java
    cache: Path
    stack: ExitStack
    meteor_process: meteor.Meteor | Unavailable


@dataclass(frozen=True)
class Component:
    """A quantity that metrics are computed from. It is computed once, even if several metrics need it.

    Attributes:
        compute: Function that computes the component from the texts. It raises Unavailable if it cannot.
        needs: The models and programs that must be on this machine in addition to the tokeniser, as names for
            `assets.missing`.
        signature: Function that returns the component's entry in the signature, given the request's `idf`; None if no
            setting or version affects the component's values. The entry names these settings and versions.
        process: True if the component runs in a Java process, in parallel with the other components.
    """

    compute: Callable[[Texts], Any]
    needs: tuple[str, ...]
    signature: Callable[[str], str] | None
    process: bool = False


def _meteor_statistics(texts: Texts) -> np.ndarray:
    if isinstance(texts.meteor_process, Unavailable):
        raise texts.meteor_process
    return texts.meteor_process.statistics(texts.captions, texts.references)


def _word_counts(texts: Texts) -> tuple[int, int]:
    """Return the number of different words in all captions, and the number in all references."""
    return _count_words(texts.captions), _count_words(chain.from_iterable(texts.references))


def _count_words(captions: Iterable[str]) -> int:
    words: set[str] = set()
    for caption in captions:
        words.update(caption.split())
    return len(words)


def _versions(*packages: str) -> str:
    return "+".join(f"{package}-{version(package)}" for package in packages)


def _fense_signature(asset: str) -> str:
    packages = _versions("aac-metrics", "sentence-transformers", "transformers", "torch")
    return f"{assets.identity(asset)}+{packages}"


# The signature lists them in this order.
COMPONENTS: Mapping[str, Component] = {
    "bleu": Component(
        compute=lambda texts: word_overlap.bleu_statistics(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: "corpus-closest",
    ),
    "meteor": Component(
        compute=_meteor_statistics,
        needs=("meteor",),
        signature=lambda idf: "1.5-en-norm",
        process=True,
    ),
    "rouge_l": Component(
        compute=lambda texts: word_overlap.rouge_l(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: "beta-1.2",
    ),
    "cider_d": Component(
        compute=lambda texts: word_overlap.CiderD(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: f"idf-of-split-left-out-{idf}",
    ),
    "spice": Component(
        compute=lambda texts: spice.spice(texts.captions, texts.references, texts.java, texts.cache, texts.stack),
        needs=("spice",),
        signature=lambda idf: f"1.0-corenlp-3.6.0-{spice.WORDS}-words",
        process=True,
    ),
    "fer": Component(
        compute=lambda texts: fense.fluency_error(texts.captions),
        needs=("fluency",),
        signature=lambda idf: _fense_signature("fluency"),
    ),
    "sbert_sim": Component(
        compute=lambda texts: fense.sbert_similarity(texts.captions, texts.references),
        needs=("sbert",),
        signature=lambda idf: _fense_signature("sbert"),
    ),
    "bert_score": Component(
        compute=lambda texts: bert_score.bert_score(texts.captions, texts.references),
        needs=("bert",),
        signature=lambda idf: f"{assets.identity('bert')}+best-reference+{_versions('transformers', 'torch')}",
    ),
    "vocab": Component(
        compute=_word_counts,
        needs=(),
        signature=None,
    ),
}


# The formulas of the metrics -----------------------------------------------------------------------------------------


def spider(cider_d: np.ndarray, spice_f1: np.ndarray) -> np.ndarray:
    """Return SPIDEr of each caption, in [0, 5.5]: the mean of CIDEr-D and SPICE (Liu et al. 2017)."""
    return (cider_d + spice_f1) / 2


def penalised(score: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Multiply the scores of captions with a fluency error by 0.1.

    This gives SPIDEr-FL from SPIDEr, and FENSE from `sbert_sim`.

    Args:
        score: (captions,) scores.
        error: (captions,) 1 for a caption with a fluency error, 0 for any other.
    """
    return score * (1 - PENALTY * error)


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


# The arguments of a formula are the metric's components, in the catalogue's order. The formula of a corpus metric
# receives the sums of its component over clips.
FORMULAS: Mapping[str, Callable[..., Any]] = {
    "bleu_1": partial(word_overlap.bleu, order=1),
    "bleu_2": partial(word_overlap.bleu, order=2),
    "bleu_3": partial(word_overlap.bleu, order=3),
    "bleu_4": partial(word_overlap.bleu, order=4),
    "meteor": meteor.meteor,
    "rouge_l": _unchanged,
    "cider_d": lambda cider_d: cider_d.scores,
    "spice": _unchanged,
    "spider": lambda cider_d, spice_f1: spider(cider_d.scores, spice_f1),
    "fer": _unchanged,
    "spider_fl": lambda cider_d, spice_f1, error: penalised(spider(cider_d.scores, spice_f1), error),
    "sbert_sim": _unchanged,
    "fense": penalised,
    "bert_score": _unchanged,
    "vocab": lambda counts: counts[0],
    "vocab_ratio": lambda counts: counts[0] / counts[1] if counts[1] else nan,
}


def _needs(metric: catalogue.Metric) -> tuple[str, ...]:
    needs = ["tokenizer"]
    for name in metric.components:
        if name in COMPONENTS:  # a test reports a component that is not in `COMPONENTS`
            needs += COMPONENTS[name].needs
    return tuple(needs)


# The models and programs that each metric needs on this machine, as names for `assets.missing`.
NEEDS: Mapping[str, tuple[str, ...]] = {name: _needs(metric) for name, metric in catalogue.CAPTIONING.items()}


# Scoring -------------------------------------------------------------------------------------------------------------


def metric_sets() -> dict[str, MetricSet]:
    """Return the sets of metrics that a request can name: `basic`, one for each year, and `all`.

    Raises:
        Faulty: As `sets.year_sets`.
    """
    return {"basic": MetricSet(BASIC), **year_sets("captioning"), "all": MetricSet(METRICS)}


def resolve_metrics(names: Sequence[str]) -> MetricSet:
    """Return the metrics that a request names, and their interval method.

    Args:
        names: Names of metrics, or the name of one set.

    Raises:
        BadRequest: There is no such metric or set.
        Faulty: As `sets.year_sets`.
    """
    check_names(names)
    unknown = [name for name in names if name not in METRICS]
    if not unknown:
        return MetricSet(tuple(dict.fromkeys(names)))
    sets = metric_sets()
    if len(names) == 1 and names[0] in sets:
        metric_set = sets[names[0]]
        unknown = [name for name in metric_set.metrics if name not in METRICS]
        if not unknown:
            return metric_set
    message = unknown_key(unknown[0].lower().replace("-", "_"), METRICS, "metric")
    raise BadRequest(f"{message}; you can also give one set instead of metrics: {', '.join(sets)}")


def validate(split: Split, prediction: Captions, file: str = "prediction", *, may_match: bool = False) -> list[Finding]:
    """Check a prediction against the clips of its split.

    Args:
        split: The split.
        prediction: A caption for each of the split's clips.
        file: The prediction's name in findings.
        may_match: Mention the option `--match` if the names differ from those of the split in the same way.

    Returns:
        Warnings and notes.

    Raises:
        Faulty: A clip is missing or repeated. The exception lists all findings.
    """
    findings = _check_rows(prediction, file)
    findings += _check_clips(split, prediction, file, may_match)
    raise_errors(findings)
    return findings


def _check_rows(prediction: Captions, file: str) -> list[Finding]:
    """Find repeated clips, captions without a word, and captions that are changed or cut when they are read."""
    findings = []
    lines = prediction.lines or (0,) * len(prediction.file_names)
    first_lines: dict[str, int] = {}
    for name, caption, line in zip(prediction.file_names, prediction.captions, lines, strict=True):
        if name in first_lines:
            if line:
                fault = f"has another caption in line {first_lines[name]}"
            else:
                fault = "has more than one caption"
            findings.append(Finding(file, line, message=f"clip {name!r} {fault}; give each clip one caption"))
        first_lines.setdefault(name, line)
        if not any(character.isalnum() for character in caption):
            message = f"the caption of {name!r} has no word; it scores 0 in every metric that compares words"
            findings.append(Finding(file, line, message=message, severity=WARNING))
        for _, remark in caption_text.caption_remarks(caption):
            message = f"the caption of {name!r} {remark}"
            findings.append(Finding(file, line, message=message, severity=WARNING))
    return findings


def _check_clips(split: Split, prediction: Captions, file: str, may_match: bool) -> list[Finding]:
    """Find missing and unknown clips; raise Faulty if the prediction is of another split."""
    findings = []
    given = dict.fromkeys(prediction.file_names)
    clips = dict.fromkeys(split.file_names)
    extra = dict.fromkeys(name for name in given if name not in clips)
    missing = dict.fromkeys(name for name in clips if name not in given)
    if missing and not given:
        raise Faulty([Finding(file, message=f"has no rows; give one for each of {split.name}'s {len(missing)} clips")])
    other = other_split_hint(split, given, "names") if missing else ""
    if other:
        message = f"names {len(clips) - len(missing) or 'none'} of {split.name}'s {len(clips)} clips; {other}"
        raise Faulty([Finding(file, message=message)])
    match = explain(extra, missing)
    if match:
        message = match.message(len(given), "names", split.source.name if split.source else "")
        if may_match:
            rules = [*match.rules, *filter(None, prediction.matched.split("+"))]
            message += f", or give --match {format_rules(rules)}"
        findings.append(Finding(file, _line_of(next(iter(match.pairs)), prediction), message=message))
        for name, expected in match.pairs.items():
            del extra[name], missing[expected]
    meant = closest(extra)
    close = {name: meant(name) for name in missing}
    if len(missing) == len(split.clips) and not any(close.values()):  # all other findings would only repeat this one
        message = f"names none of {split.name}'s {len(split.clips)} clips"
        message += "; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for name in missing:
        findings.append(Finding(file, message=f"no caption for clip {name!r}{hint(name, close[name])}"))
    if extra:
        number = plural(len(extra), "clip")
        message = f"skipped the captions of {number} not in the split, for example {next(iter(extra))!r}"
        findings.append(Finding(file, message=message, severity=NOTE))
    return findings


def _line_of(name: str, prediction: Captions) -> int:
    """Return the line of a clip's first caption, or 0 if the lines are not known."""
    if prediction.lines:
        return prediction.lines[prediction.file_names.index(name)]
    return 0


def evaluate(
    predictions: Captions | Mapping[str, str] | Sequence[str],
    references: Split | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = BASIC,
    interval: str | None = None,
    idf: str = "fixed",
    tokenized: Collection[str] = (),
    cache: Path | str | None = None,
    file: str = "prediction",
) -> Score:
    """Score a captioner.

    The predictions come first, as in aac-metrics. If both arguments are lists, the captions are tokenised in the order
    of the lists, otherwise in the order of the clips' names.

    Args:
        predictions: A caption for each clip: `Captions`, a dict from names of clips to captions, or a list.
        references: The reference captions of each clip: a split, a dict from names of clips to lists of captions, or a
            list of lists in the order of the list of predictions.
        metrics: Names from `METRICS`, or the name of one of `metric_sets` (default: the metrics that need no download).
        interval: One of `intervals.METHODS` (default: the set's method, or the jackknife for single metrics).
        idf: How CIDEr-D's weights are treated when a clip is left out for the interval: `fixed` keeps them, `exact`
            computes them again.
        tokenized: Which texts are tokens already, joined by blanks, and must not be tokenised: names from `TOKENIZED`
            (default: none of them).
        cache: Folder of the cache, for tokenised references and the jars (default: `files.cache_folder`).
        file: The name of the predictions in findings.

    Returns:
        The score. Its clips are in the order of the split or list. The clips of a dict are sorted by name.

    Raises:
        BadRequest: There is no such metric, method, `idf` or `tokenized`, `idf` does not fit the method, the split has
            a clip without captions, or Java or the tokeniser does not run.
        Faulty: As `validate`, or an input has a form that `evaluation.inputs` does not accept.
    """
    prediction, split = captioning_inputs(predictions, references, file)
    cache = Path(cache or cache_folder())
    resolved = resolve_metrics(metrics)
    interval = interval or resolved.interval
    check_request(split, interval, idf, tokenized)
    findings = validate(split, prediction, file, may_match=True)
    clips, items = official_order(split)  # everything is computed in this order, and put into the split's at the end
    predicted = dict(zip(prediction.file_names, prediction.captions, strict=True))
    captions = [predicted[name] for name in items.names]
    references = [clip.captions for clip in clips]
    findings += _equal_to_references(captions, references, split.name)
    needed = components_of(resolved.metrics)
    try:
        java = find_java()
        components = compute_components(needed, captions, references, java, cache, tokenized)
        if "predictions" in tokenized:
            findings += _warn_of_untokenised(captions, file)
        else:
            findings += _prediction_notes(prediction, items.names, captions, java, cache, file)
        findings += _reference_findings(split.name, clips, java, cache, tokenized="references" in tokenized)
    except Unavailable as reason:  # of Java or the tokeniser, which every metric needs
        raise BadRequest(str(reason)) from None

    def measure_one(name: str) -> Measured:
        return measure_metric(name, components, items, interval, idf)

    measured, unavailable = measure_available(resolved.metrics, [components], measure_one, items, split)
    if len(items.names) == 1 and any("cider_d" in components_of([name]) for name in measured):
        message = "CIDEr-D is 0 for a split with a single clip, because all words then have the weight 0"
        findings.append(Finding(file, message=message, severity=WARNING))
    listed = replace(items, names=split.file_names)
    signature = make_signature(split, components_of(measured), interval, idf, tokenized, prediction.matched)
    return Score(measured, listed, signature, unavailable, tuple(findings))


def official_order(split: Split) -> tuple[list[Clip], Items]:
    """Return the clips of a split in the order of the official tools, which sort them by name, and their items."""
    clips = sorted(split.clips, key=lambda clip: clip.file_name)
    return clips, Items("clips", tuple(clip.file_name for clip in clips), tuple(range(len(clips))))


def measure_available(
    names: Sequence[str],
    all_components: Sequence[Mapping[str, Any]],
    measure_one: Callable[[str], Measured],
    items: Items,
    split: Split,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Compute the metrics whose components are available.

    Args:
        names: Names of the metrics.
        all_components: The components, once, or for each fold.
        measure_one: Function that computes a metric. Its values are in the order of `items`.
        items: The items.
        split: The split.

    Returns:
        A dict from the name of each computed metric to the metric, with its values in the split's order; and a dict
        from the name of each other metric to the reasons why it is not available.
    """
    index_of = {name: index for index, name in enumerate(items.names)}
    split_order = [index_of[name] for name in split.file_names]
    measured, unavailable = {}, {}
    for name in names:
        reasons: dict[str, None] = {}
        for components in all_components:
            for component in components_of([name]):
                if isinstance(components[component], Unavailable):
                    reasons[str(components[component])] = None
        if reasons:
            unavailable[name] = "; ".join(reasons)
            continue
        result = measure_one(name)
        if result.values is not None:
            result = replace(result, values=result.values[split_order])
        measured[name] = result
    return measured, unavailable


def check_request(split: Split, interval: str, idf: str, tokenized: Collection[str]) -> None:
    """Check a request before the long computation.

    Raises:
        BadRequest: As `evaluate`.
    """
    if idf not in IDF:
        raise BadRequest(unknown_key(idf, IDF, "idf"))
    if idf == "exact" and not interval.startswith("jackknife"):
        message = f"idf exact works only with the interval jackknife or jackknife-t; found {interval}"
        raise BadRequest(f"{message}; give one of these, or idf fixed")
    for name in tokenized:
        if name not in TOKENIZED:
            raise BadRequest(unknown_key(name, TOKENIZED, "tokenized"))
    if not all(clip.captions for clip in split.clips):
        message = f"every clip of the split {split.name} must have a reference caption; some have none"
        raise BadRequest(f"{message}; choose another split, or add captions")
    interval_method(interval)


def components_of(metrics: Iterable[str]) -> list[str]:
    """Return the components that metrics are computed from, each once."""
    components: dict[str, None] = {}
    for name in metrics:
        components.update(dict.fromkeys(catalogue.CAPTIONING[name].components))
    return list(components)


_LOOKS_AHEAD = (
    "ends in a full stop that the official tokeniser keeps or removes depending on how the next caption begins; "
    "captions are tokenised in the order of their file names"
)


def _equal_to_references(captions: Sequence[str], references: Sequence[Sequence[str]], split: str) -> list[Finding]:
    """Warn if many predictions are verbatim references of their clips, except for white space.

    The finding is about the split, because it depends on the references, which participants of a challenge must not
    learn anything about (`submission.codabench.score`).
    """
    equal = 0
    for caption, texts in zip(captions, references, strict=True):
        line = caption_text.one_line(caption)
        equal += any(line == caption_text.one_line(text) for text in texts)
    if equal <= EQUAL_SHARE * len(captions) or equal < EQUAL_NUMBER:
        return []
    message = f"predictions should not equal references of their clips; {equal} of {len(captions)} do"
    advice = "is this the truth, or was the system trained on these clips?"
    return [Finding(split, message=f"{message}: {advice}", severity=WARNING)]


def _warn_of_untokenised(texts: Iterable[str], file: str) -> list[Finding]:
    """Warn if texts that should be tokens have upper case or punctuation, as captions have before tokenisation."""
    wrong = []
    for text in texts:
        words = text.replace(".", " . ").replace(",", " , ").split()
        if text != text.lower() or PUNCTUATION.intersection(words):
            wrong.append(text)
    if not wrong:
        return []
    message = f"tokens should be in lower case, without punctuation; {plural(len(wrong), 'text')} given as tokens"
    advice = f"for example {quoted(wrong[0])}: should --tokenized be left out?"
    return [Finding(file, message=f"{message} differ, {advice}", severity=WARNING)]


def _prediction_notes(
    prediction: Captions, names: Sequence[str], captions: Sequence[str], java: Java, cache: Path, file: str
) -> list[Finding]:
    """Find the predicted captions with tokens that depend on the next caption."""
    lines = dict(zip(prediction.file_names, prediction.lines, strict=False))
    notes = []
    for index in depends_on_next(captions, java, cache):
        message = f"the caption of {names[index]!r} {_LOOKS_AHEAD}"
        notes.append(Finding(file, lines.get(names[index], 0), message=message, severity=NOTE))
    return notes


def _reference_findings(
    split: str, clips: Sequence[Clip], java: Java, cache: Path, *, tokenized: bool
) -> list[Finding]:
    """Find references that are changed or cut when they are read, or have tokens that depend on the next reference.

    If the references are tokens already, find references that do not look like tokens instead of the latter.
    """
    captions, columns, names = [], [], []
    for clip in clips:
        for number, caption in enumerate(clip.captions, start=1):
            captions.append(caption)
            columns.append(f"caption_{number}")
            names.append(clip.file_name)
    findings = []
    for caption, column, name in zip(captions, columns, names, strict=True):
        for _, remark in caption_text.caption_remarks(caption):
            findings.append(Finding(split, 0, column, f"the reference of {name!r} {remark}", WARNING))
    if tokenized:
        return findings + _warn_of_untokenised(captions, split)
    for index in depends_on_next(captions, java, cache, keep=True):
        message = f"the reference of {names[index]!r} {_LOOKS_AHEAD}"
        findings.append(Finding(split, 0, columns[index], message, NOTE))
    return findings


def compute_components(
    needed: Sequence[str],
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    cache: Path,
    tokenized: Collection[str] = (),
) -> dict[str, Any]:
    """Return each needed component, or the Unavailable that explains why it could not be computed.

    The captions and references must be in the official order. `tokenized` is as for `evaluate`.

    METEOR takes the longest time, and starting it takes nearly all of this time. So it starts first.

    When the same references are scored for the second time, a smaller table of paraphrases is made for them, while
    METEOR reads the whole table. From the third time on, METEOR reads the smaller table, which takes less than half the
    time. If METEOR waited for the smaller table in the second scoring, the scoring would take longer. On Clotho's
    evaluation split, making the smaller table takes 20 s of one core. METEOR takes 22 s with the whole table and 9 s
    with the smaller one.
    """
    with ExitStack() as stack:
        # The pool is entered first, so it is left last. The processes that its threads wait for have then ended.
        pool = stack.enter_context(ThreadPoolExecutor())
        all_references = list(chain.from_iterable(references))
        if "references" in tokenized:
            scored_before = False
            tokenised = list(map(caption_text.tokens_line, all_references))
        else:
            scored_before = token_file(all_references, cache).is_file()
            tokenised = ptb_tokenize(all_references, java, cache, keep=True)
        process: meteor.Meteor | Unavailable = Unavailable("no requested metric needs METEOR")
        if "meteor" in needed:
            table = meteor.paraphrase_table(tokenised, cache)
            process = _attempt(lambda: stack.enter_context(meteor.Meteor(java, cache, table)))
            if scored_before and table is None:
                meteor.make_paraphrase_table(tokenised, cache)
        remaining = iter(tokenised)
        by_clip = [list(islice(remaining, len(texts))) for texts in references]
        if "predictions" in tokenized:
            tokens = list(map(caption_text.tokens_line, captions))
        else:
            tokens = ptb_tokenize(captions, java, cache)
        texts = Texts(tokens, by_clip, java, cache, stack, process)
        running = {}
        for name in needed:
            if COMPONENTS[name].process:
                running[name] = pool.submit(_attempt, partial(COMPONENTS[name].compute, texts))
        components = {}
        for name in COMPONENTS:
            if name in needed and name not in running:
                components[name] = _attempt(partial(COMPONENTS[name].compute, texts))
        for name, future in running.items():
            components[name] = future.result()
        return components


def _attempt(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or the Unavailable that it raises."""
    try:
        return function()
    except Unavailable as reason:
        return reason
    except RuntimeError as failure:  # a model failed, for example on a full GPU; the other metrics are still computed
        return Unavailable(f"failed: {' '.join(str(failure).split())[:300]}")


def measure_metric(name: str, components: Mapping[str, Any], items: Items, interval: str, idf: str) -> Measured:
    """Compute a metric with its interval, in the way that its kind of statistic requires."""
    metric, formula = catalogue.CAPTIONING[name], FORMULAS[name]
    inputs = {component: components[component] for component in metric.components}
    if metric.statistic == "corpus":
        [statistics] = inputs.values()
        return measure(statistics, items, interval, formula)
    values = formula(*inputs.values())
    if metric.statistic == "total":
        return Measured(Estimate(float(values), nan, nan, nan, len(items.names), "none"))
    if metric.statistic == "weighted" and idf == "exact" and len(items.names) > 1:
        return _measure_reweighted(values, inputs, interval)
    return measure(values, items, interval)


def _measure_reweighted(values: np.ndarray, inputs: Mapping[str, Any], interval: str) -> Measured:
    """Compute CIDEr-D, SPIDEr or SPIDEr-FL. For the interval, CIDEr-D's weights are computed again without each clip.

    The SPICE of a clip does not depend on the other clips, so leaving out a clip only removes its own SPICE.
    """
    n = len(values)
    factors = np.ones(n)
    if "fer" in inputs:
        factors = penalised(factors, inputs["fer"])
    left_out = inputs["cider_d"].left_out(factors)
    if "spice" in inputs:
        spice_share = factors * inputs["spice"]
        left_out = (left_out + (spice_share.sum() - spice_share) / (n - 1)) / 2
    value = float(values.mean())
    pseudo_values = from_left_out(value, left_out)
    return Measured(jackknife(pseudo_values, value=value, t=interval == "jackknife-t"), values=pseudo_values)


def make_signature(
    split: Split,
    computed: Sequence[str],
    interval: str,
    idf: str,
    tokenized: Collection[str] = (),
    matched: str = "",
    predictions: int = 0,
) -> str:
    """Return a text that names the data, settings and versions that the computed components depend on.

    Args:
        split: The split.
        computed: The components that are computed.
        interval: As for `evaluate`.
        idf: As for `evaluate`.
        tokenized: As for `evaluate`.
        matched: How the names of the predictions were matched, from `Captions`.
        predictions: The number of references of each clip that are predictions in turn, for the human topline; 0 for a
            system.
    """
    counts = [len(clip.captions) - bool(predictions) for clip in split.clips]
    tokenizer = f"{TOKENIZER}-coco-lowercase-no-punctuation-by-file-name-safe-markup-{caption_text.WORDS}-words"
    if set(tokenized) == set(TOKENIZED):
        tokenizer = f"none-tokens-as-given-{caption_text.WORDS}-words"
    elif tokenized:
        tokenizer += f"-{next(iter(tokenized))}-tokens-as-given"
    signature = [
        f"dcase-kit:{scores.VERSION}",
        f"split:{split.name}#{split.fingerprint}",
        f"clips:{len(split.clips)}",
        f"references:{min(counts)}-{max(counts)}",
        f"tokenizer:{tokenizer}",
        "missing,repeated:error",
        "extra:left-out",
    ]
    if matched:
        signature.append(f"match:{matched}")
    for name, component in COMPONENTS.items():
        if name in computed and component.signature:
            signature.append(f"{name}:{component.signature(idf)}")
    signature += [f"interval:{interval_method(interval)}", f"numpy:{np.__version__}"]
    if predictions:
        signature.append(f"topline:mean-over-{predictions}-references-as-predictions")
    return "|".join(signature)
