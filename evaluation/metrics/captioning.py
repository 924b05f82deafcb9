"""How well predicted captions say what the clips' own captions say.

    score = evaluate(split, read_captions(Path("predictions.csv")), metrics=["dcase2023"])

Conventions
-----------
- A *prediction* has one caption for each clip of the split; a clip's own captions, one or more, are its *references*.
  Every clip must be there, once: a missing or a repeated clip is an error, neither a zero nor scored twice. Captions of
  clips beyond the split's are left out, with a note.
- **Captions are tokenised first**, predictions and references alike, as COCO's evaluation does
  (`evaluation.metrics.ptb_tokenizer`), for every metric: the neural ones get the tokens too, as in aac-metrics. White
  space of any kind is a blank. Markup acts on no other caption, and a text is read up to a length
  (`evaluation.data.caption_text`): a warning names the caption.
- **The order is that of the file names**, whatever the order of the files, as in the official tool: `evaluate_metrics`
  of caption-evaluation-tools sorts predictions and references by `file_name` (by code points, as Python sorts). Its
  tokeniser reads all predictions as one text, and all references as another: those of the first clip in the order of
  their columns, then those of the next clip. The tokeniser looks into the next line for what a full stop means, so the
  order can change a token; a note names the captions where it can. Sums are taken in that order too, so that the order
  of the files changes no digit. A score lists its clips in the order of the split.
- **An empty caption**, also one of punctuation alone, scores 0 wherever words are compared, with a warning.
- **BLEU and METEOR are of the corpus**; every other metric is a mean over clips (`evaluation.metrics.overlap`).
- **CIDEr-D weighs n-grams by the references of the split**. For its interval, and those of SPIDEr and SPIDEr-FL, these
  weights stay what they are when a clip is left out (`idf="fixed"`), or are computed again each time (`"exact"`). Of a
  single clip CIDEr-D is 0, whatever the caption says.
- **A metric whose model is not on this machine** (SPICE's parser, the models of FENSE and BERTScore) is reported as
  unavailable, with the command that fetches it. The other metrics are computed.

Metrics
-------
`bleu_1` … `bleu_4`, `meteor`, `rouge_l`, `cider_d` (what DCASE calls CIDEr), `spice`; `spider`, the mean of CIDEr-D and
SPICE; `sbert_sim`, the mean cosine of the sentence embeddings of caption and references; `fer`, the share of captions
with a fluency error; `spider_fl` and `fense`: `spider` and `sbert_sim`, of which such a caption keeps a tenth;
`bert_score`, F1 with the reference that fits best; `vocab`, how many different words all captions use, and
`vocab_ratio`, that over how many the references do. The last two have no interval: words are not a mean over clips.
`evaluation.metrics.catalogue` has all of them as a table, and says how to add one.

Sources: aac-metrics 0.5.4, its `METRICS_SETS` and README; Liu et al. 2017 (SPIDEr); Zhou et al. 2022 (FENSE);
felixgontier/dcase-2023-baseline, `metrics.py` (SPIDEr-FL); audio-captioning/caption-evaluation-tools @ c1798df,
`eval_metrics.py` and `ptbtokenizer.py` (the order).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from evaluation.data.dataset import Clip, Split, of_another_split
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.metrics import bert_score, catalogue, fense, meteor, overlap, spice
from evaluation.metrics.java import Java, Unavailable, find_java
from evaluation.metrics.ptb_tokenizer import VERSION as TOKENIZER
from evaluation.metrics.ptb_tokenizer import depends_on_next, ptb_tokenize, token_file
from evaluation.metrics.sets import MetricSet, year_sets
from evaluation.names import closest, explain, hint
from evaluation.predictions import Captions
from evaluation.scores import Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate, from_left_out, jackknife
from evaluation.text import unknown_key

METRICS = tuple(catalogue.CAPTIONING)
BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
BASIC = ("cider_d", *BLEU, "meteor", "rouge_l")  # what needs no download

PENALTY = 0.9  # of a fluency error
IDF = ("fixed", "exact")


# What metrics are computed from -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Tokenised captions and references in the official order, and what computes with them.

    Attributes:
        captions: A tokenised caption for each clip.
        references: The tokenised references of each clip.
        java: The JVM.
        cache: Folder of the cache.
        stack: Ends the processes that parts start.
        meteor_process: METEOR's process, started; why it could not be; or None where no metric needs it.
    """

    captions: Sequence[str]
    references: Sequence[Sequence[str]]
    java: Java
    cache: Path
    stack: ExitStack
    meteor_process: meteor.Meteor | Unavailable | None = None


@dataclass(frozen=True)
class Part:
    """Something that metrics are computed from; computed once, however many metrics need it.

    Attributes:
        compute: Computes it from the texts; raises Unavailable where it cannot.
        needs: What must be on this machine beside the tokeniser, as `assets.missing` takes it.
        signature: Returns what the part depends on, for the signature, from the `idf` of the request; None where it
            depends on nothing that could differ.
        process: True for a Java process, which runs while the other parts are computed.
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
    """Return the number of different words in all captions, and in all references."""
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


# In the order of the signature.
PARTS: Mapping[str, Part] = {
    "bleu": Part(
        compute=lambda texts: overlap.bleu_statistics(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: "corpus-closest",
    ),
    "meteor": Part(
        compute=_meteor_statistics,
        needs=("meteor",),
        signature=lambda idf: "1.5-en-norm",
        process=True,
    ),
    "rouge_l": Part(
        compute=lambda texts: overlap.rouge_l(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: "beta-1.2",
    ),
    "cider_d": Part(
        compute=lambda texts: overlap.CiderD(texts.captions, texts.references),
        needs=(),
        signature=lambda idf: f"idf-of-split-left-out-{idf}",
    ),
    "spice": Part(
        compute=lambda texts: spice.spice(texts.captions, texts.references, texts.java, texts.cache, texts.stack),
        needs=("spice",),
        signature=lambda idf: f"1.0-corenlp-3.6.0-{spice.WORDS}-words",
        process=True,
    ),
    "fer": Part(
        compute=lambda texts: fense.fluency_error(texts.captions),
        needs=("fluency",),
        signature=lambda idf: _fense_signature("fluency"),
    ),
    "sbert_sim": Part(
        compute=lambda texts: fense.sbert_similarity(texts.captions, texts.references),
        needs=("sbert",),
        signature=lambda idf: _fense_signature("sbert"),
    ),
    "bert_score": Part(
        compute=lambda texts: bert_score.bert_score(texts.captions, texts.references),
        needs=("bert",),
        signature=lambda idf: f"{assets.identity('bert')}+best-reference+{_versions('transformers', 'torch')}",
    ),
    "vocab": Part(
        compute=_word_counts,
        needs=(),
        signature=None,
    ),
}


# How metrics follow from their parts ---------------------------------------------------------------------------------


def spider(cider_d: np.ndarray, spice_f1: np.ndarray) -> np.ndarray:
    """Return SPIDEr of each caption, in [0, 5.5]: the mean of CIDEr-D and SPICE (Liu et al. 2017)."""
    return (cider_d + spice_f1) / 2


def penalised(score: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return scores of which a caption with a fluency error (1, else 0) keeps a tenth: makes SPIDEr-FL, and FENSE."""
    return score * (1 - PENALTY * error)


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


# The arguments are the metric's parts, as the catalogue names them; of a corpus metric, the sum of its part over clips.
FORMULAS: Mapping[str, Callable[..., Any]] = {
    "bleu_1": partial(overlap.bleu, order=1),
    "bleu_2": partial(overlap.bleu, order=2),
    "bleu_3": partial(overlap.bleu, order=3),
    "bleu_4": partial(overlap.bleu, order=4),
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
    for name in metric.parts:
        if name in PARTS:  # a test names the parts that are missing
            needs += PARTS[name].needs
    return tuple(needs)


# What each metric needs, as `assets.missing` takes it.
NEEDS: Mapping[str, tuple[str, ...]] = {name: _needs(metric) for name, metric in catalogue.CAPTIONING.items()}


# Scoring -------------------------------------------------------------------------------------------------------------


def metric_sets() -> dict[str, MetricSet]:
    """Return the sets of metrics that a request can name: `basic`, those of the years, and `all`.

    Raises:
        Faulty: As `sets.year_sets`.
    """
    return {"basic": MetricSet(BASIC), **year_sets("captioning"), "all": MetricSet(METRICS)}


def resolve_metrics(names: Sequence[str]) -> MetricSet:
    """Return the metrics that a request names, and their interval method.

    Args:
        names: Names of metrics, or the name of one set.

    Raises:
        BadRequest: A name is not known.
        Faulty: As `sets.year_sets`.
    """
    unknown = [name for name in names if name not in METRICS]
    if not unknown:
        return MetricSet(tuple(dict.fromkeys(names)))
    sets = metric_sets()
    if len(names) == 1 and names[0] in sets:
        wanted = sets[names[0]]
        unknown = [name for name in wanted.metrics if name not in METRICS]
        if not unknown:
            return wanted
    message = unknown_key(unknown[0].lower().replace("-", "_"), METRICS, "metric")
    raise BadRequest(f"{message}; or one of the sets {', '.join(sets)}")


def validate(split: Split, prediction: Captions, file: str = "prediction") -> list[Finding]:
    """Check a prediction against the clips of its split.

    Args:
        split: The split.
        prediction: A caption for each of its clips.
        file: The prediction's name in findings.

    Returns:
        Warnings and notes.

    Raises:
        Faulty: A clip is missing or repeated; with every finding.
    """
    findings = _check_rows(prediction, file)
    findings += _check_clips(split, prediction, file)
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
    return findings


def _check_rows(prediction: Captions, file: str) -> list[Finding]:
    """Find clips that are repeated, and captions that have no word or are not read as they stand."""
    findings = []
    lines = prediction.lines or (0,) * len(prediction.file_names)
    first_lines: dict[str, int] = {}
    for name, caption, line in zip(prediction.file_names, prediction.captions, lines, strict=True):
        if name in first_lines:
            if line:
                where = f"stands in line {first_lines[name]} already"
            else:
                where = "stands there twice"
            findings.append(Finding(file, line, message=f"clip {name!r} {where}; give each clip one caption"))
        first_lines.setdefault(name, line)
        if not any(character.isalnum() for character in caption):
            message = f"the caption of {name!r} has no word; it scores 0 wherever words are compared"
            findings.append(Finding(file, line, message=message, severity=WARNING))
        for _, remark in caption_text.caption_remarks(caption):
            message = f"the caption of {name!r} {remark}"
            findings.append(Finding(file, line, message=message, severity=WARNING))
    return findings


def _check_clips(split: Split, prediction: Captions, file: str) -> list[Finding]:
    """Find clips that are missing or unknown; raise Faulty where it is the prediction of another split."""
    findings = []
    given = dict.fromkeys(prediction.file_names)
    clips = dict.fromkeys(split.file_names)
    extra = dict.fromkeys(name for name in given if name not in clips)
    missing = dict.fromkeys(name for name in clips if name not in given)
    if missing and not given:
        raise Faulty([Finding(file, message=f"has no rows; give one for each of {split.name}'s {len(missing)} clips")])
    other = of_another_split(split, given, "names") if missing else ""
    if other:
        message = f"names {len(clips) - len(missing) or 'none'} of {split.name}'s {len(clips)} clips; {other}"
        raise Faulty([Finding(file, message=message)])
    match = explain(extra, missing)
    if match:
        message = match.message(len(given), "names", split.source.name if split.source else "")
        findings.append(Finding(file, _line_of(next(iter(match.pairs)), prediction), message=message))
        for name, expected in match.pairs.items():
            del extra[name], missing[expected]
    meant = closest(extra)
    close = {name: meant(name) for name in missing}
    if len(missing) == len(split.clips) and not any(close.values()):  # every other finding would only repeat it
        message = f"names none of {split.name}'s {len(split.clips)} clips"
        message += "; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for name in missing:
        findings.append(Finding(file, message=f"no caption for clip {name!r}{hint(name, close[name])}"))
    if extra:
        message = f"captions of clips beyond the split's are left out: {len(extra)}, first {next(iter(extra))!r}"
        findings.append(Finding(file, message=message, severity=NOTE))
    return findings


def _line_of(name: str, prediction: Captions) -> int:
    """Return the line of a clip's first caption; 0 where it is not known."""
    if prediction.lines:
        return prediction.lines[prediction.file_names.index(name)]
    return 0


def evaluate(
    split: Split,
    prediction: Captions,
    *,
    metrics: Sequence[str] = BASIC,
    interval: str | None = None,
    idf: str = "fixed",
    cache: Path = Path(".cache"),
    file: str = "prediction",
) -> Score:
    """Score a prediction for a split.

    Args:
        split: The split, with captions.
        prediction: A caption for each of its clips.
        metrics: Names out of `METRICS`, or the name of one of `metric_sets` (default: what needs no download).
        interval: One of `intervals.METHODS` (default: the set's; the jackknife for metrics by name).
        idf: Whether CIDEr-D's weights stay what they are when a clip is left out (`fixed`), or are computed again
            (`exact`).
        cache: Folder of the cache, for tokenised references and the jars.
        file: The prediction's name in findings.

    Returns:
        The score, its clips in the order of the split.

    Raises:
        BadRequest: A metric or method is not known, the split has no captions, or there is no Java.
        Faulty: As `validate`.
    """
    resolved = resolve_metrics(metrics)
    interval = interval or resolved.interval
    if idf not in IDF:
        raise BadRequest(unknown_key(idf, IDF, "idf"))
    if idf == "exact" and not interval.startswith("jackknife"):
        raise BadRequest("idf `exact` leaves clips out one by one; give it with the interval jackknife or jackknife-t")
    if not all(clip.captions for clip in split.clips):
        raise BadRequest(f"the split {split.name} has clips without captions: there is nothing to compare with")
    interval_method(interval)  # an unknown one is refused before the work, not after
    findings = validate(split, prediction, file)
    # The official order. Everything is computed in it, and put into the split's order at the end.
    clips = sorted(split.clips, key=lambda clip: clip.file_name)
    items = Items("clips", tuple(clip.file_name for clip in clips), tuple(range(len(clips))))
    place = {name: index for index, name in enumerate(items.names)}
    back = [place[name] for name in split.file_names]
    predicted = dict(zip(prediction.file_names, prediction.captions, strict=True))
    captions = [predicted[name] for name in items.names]
    references = [clip.captions for clip in clips]
    wanted = _parts_of(resolved.metrics)
    try:
        java = find_java()
        parts = _compute_parts(wanted, captions, references, java, cache)
        findings += _prediction_notes(prediction, items.names, captions, java, cache, file)
        findings += _reference_findings(split.name, clips, java, cache)
    except Unavailable as reason:  # the tokeniser's, which every metric needs
        raise BadRequest(str(reason)) from None
    measured, unavailable = {}, {}
    for name in resolved.metrics:
        reasons = [str(parts[part]) for part in _parts_of([name]) if isinstance(parts[part], Unavailable)]
        if reasons:
            unavailable[name] = "; ".join(dict.fromkeys(reasons))
            continue
        result = _measure(name, parts, items, interval, idf)
        if result.values is not None:
            result = replace(result, values=result.values[back])
        measured[name] = result
    if len(items.names) == 1 and any("cider_d" in _parts_of([name]) for name in measured):
        message = "of a single clip CIDEr-D is 0 whatever the caption says: it weighs words by how few clips have them"
        findings.append(Finding(file, message=message, severity=WARNING))
    listed = replace(items, names=split.file_names)
    signature = _signature(split, _parts_of(measured), interval, idf)
    return Score(measured, listed, signature, unavailable, tuple(findings))


def _parts_of(metrics: Iterable[str]) -> list[str]:
    """Return the parts that metrics are computed from, each once."""
    parts: dict[str, None] = {}
    for name in metrics:
        parts.update(dict.fromkeys(catalogue.CAPTIONING[name].parts))
    return list(parts)


_LOOKS_AHEAD = (
    "ends in a full stop that the official tokeniser keeps or removes by how the caption after it begins; captions are "
    "tokenised in the order of their file names"
)


def _prediction_notes(
    prediction: Captions, names: Sequence[str], captions: Sequence[str], java: Java, cache: Path, file: str
) -> list[Finding]:
    """Name the predicted captions whose tokens depend on the caption after them."""
    lines = dict(zip(prediction.file_names, prediction.lines, strict=False))
    notes = []
    for index in depends_on_next(captions, java, cache):
        message = f"the caption of {names[index]!r} {_LOOKS_AHEAD}"
        notes.append(Finding(file, lines.get(names[index], 0), message=message, severity=NOTE))
    return notes


def _reference_findings(split: str, clips: Sequence[Clip], java: Java, cache: Path) -> list[Finding]:
    """Name the references that are not read whole, and those whose tokens depend on the caption after them."""
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
    for index in depends_on_next(captions, java, cache, keep=True):
        message = f"the reference of {names[index]!r} {_LOOKS_AHEAD}"
        findings.append(Finding(split, 0, columns[index], message, NOTE))
    return findings


def _compute_parts(
    wanted: Sequence[str], captions: Sequence[str], references: Sequence[Sequence[str]], java: Java, cache: Path
) -> dict[str, Any]:
    """Return each wanted part, or the Unavailable that says why it could not be computed.

    METEOR takes longest, nearly all of it to start, so that it starts first. References that are scored for the second
    time get a table of paraphrases of their own, from which METEOR starts in less than half the time from the third
    time on. It is made while METEOR reads the whole table. To make it first and use it at once would take longer: on
    Clotho's evaluation split it takes 20 s of one core to make, and METEOR 22 s with the whole table and 9 s with it.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())  # left last: the processes that its threads wait for end first
        all_references = list(chain.from_iterable(references))
        again = token_file(all_references, cache).is_file()
        tokenised = ptb_tokenize(all_references, java, cache, keep=True)
        process = None
        if "meteor" in wanted:
            table = meteor.paraphrase_table(tokenised, cache)
            process = _attempt(lambda: stack.enter_context(meteor.Meteor(java, cache, table)))
            if again and table is None:
                meteor.make_paraphrase_table(tokenised, cache)
        remaining = iter(tokenised)
        by_clip = [list(islice(remaining, len(texts))) for texts in references]
        texts = Texts(ptb_tokenize(captions, java, cache), by_clip, java, cache, stack, process)
        running = {}
        for name in wanted:
            if PARTS[name].process:
                running[name] = pool.submit(_attempt, partial(PARTS[name].compute, texts))
        parts = {}
        for name in PARTS:
            if name in wanted and name not in running:
                parts[name] = _attempt(partial(PARTS[name].compute, texts))
        for name, future in running.items():
            parts[name] = future.result()
        return parts


def _attempt(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or the Unavailable that it raises."""
    try:
        return function()
    except Unavailable as reason:
        return reason
    except RuntimeError as failure:  # of a model, such as too little memory on a GPU: the other metrics are computed
        return Unavailable(f"failed: {' '.join(str(failure).split())[:300]}")


def _measure(name: str, parts: Mapping[str, Any], items: Items, interval: str, idf: str) -> Measured:
    """Compute a metric with its interval, by the kind of statistic that it is."""
    metric, formula = catalogue.CAPTIONING[name], FORMULAS[name]
    inputs = {part: parts[part] for part in metric.parts}
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
    """Compute CIDEr-D, SPIDEr or SPIDEr-FL with an interval for which each clip left out changes CIDEr-D's weights.

    Leaving a clip out computes CIDEr-D's share of the mean again. SPICE's share, which no other clip changes, loses the
    clip's own.
    """
    n = len(values)
    kept = np.ones(n)
    if "fer" in inputs:
        kept = penalised(kept, inputs["fer"])
    left_out = inputs["cider_d"].left_out(kept)
    if "spice" in inputs:
        spice_share = kept * inputs["spice"]
        left_out = (left_out + (spice_share.sum() - spice_share) / (n - 1)) / 2
    value = float(values.mean())
    pseudo_values = from_left_out(value, left_out)
    return Measured(jackknife(pseudo_values, value=value, t=interval == "jackknife-t"), values=pseudo_values)


def _signature(split: Split, computed: Sequence[str], interval: str, idf: str) -> str:
    """Name everything that the computed parts depend on, and nothing of the others."""
    counts = [len(clip.captions) for clip in split.clips]
    tokenizer = f"{TOKENIZER}-coco-lowercase-no-punctuation-by-file-name-safe-markup-{caption_text.WORDS}-words"
    signature = [
        f"dcase-kit:{scores.VERSION}",
        f"split:{split.name}#{split.fingerprint}",
        f"clips:{len(split.clips)}",
        f"references:{min(counts)}-{max(counts)}",
        f"tokenizer:{tokenizer}",
        "missing,repeated:error",
        "extra:left-out",
    ]
    for name, part in PARTS.items():
        if name in computed and part.signature:
            signature.append(f"{name}:{part.signature(idf)}")
    signature += [f"interval:{interval_method(interval)}", f"numpy:{np.__version__}"]
    return "|".join(signature)
