"""Inputs of the metrics: what a notebook has, converted to splits and predictions.

`retrieval.evaluate` and `captioning.evaluate` pass their inputs to this module. It accepts

- truth of retrieval: a `Split`, or a dict from each query to a clip, to a list or set of clips, or to a dict of grades,
- scores of retrieval: a `Similarity`, a `Ranking`, an array with the names of its rows and columns, a DataFrame, or a
  dict from each query to its clips, best first, or to a dict with the score of each clip,
- predicted captions: `Captions`, a dict or a Series from each clip to its caption, or a list,
- reference captions: a `Split`, a dict or a Series from each clip to its captions, or a list of lists.

This module checks types and forms. The metrics' own `validate` checks that a prediction fits the split. Names and texts
are not changed. numpy's strings become Python's, and the content alone determines the fingerprint of the split: not the
types, and for dicts not the order.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

from evaluation.data.cells import text_fault
from evaluation.data.dataset import Clip, Split
from evaluation.data.relevance import Relevance
from evaluation.embeddings import Embeddings
from evaluation.findings import Faulty, Finding
from evaluation.names import closest, explain, hint
from evaluation.predictions import Captions, Ranking, Similarity
from evaluation.text import plural
from evaluation.values import advice_for, describe, elements, is_table, numbers, texts

TRUTH, REFERENCES = "truth", "references"  # the names of splits that are made from a notebook's values
_TRUTH_FORM = "must be a dict from each query to the clips that answer it, or a Split"
_SCORES_FORM = (
    "must be a Similarity, an array with `clips=[…]`, a DataFrame, or a dict from each query to its clips, best first"
)
_CAPTIONS_FORM = "must be a dict from each clip to its caption, a list of captions, or Captions"
_REFERENCES_FORM = "must be a dict from each clip to the list of its captions, a list of such lists, or a Split"
_NAMED_BY_SCORES = "the scores"  # messages say "the clips of the scores" for the columns of a matrix
_PAIR = "pass two dicts, or two lists in the same order"


# Retrieval ------------------------------------------------------------------------------------------------------------


def retrieval_inputs(
    truth: object, scores: object, queries: object = None, clips: object = None, file: str = "prediction"
) -> tuple[Split, Similarity | Ranking | Embeddings]:
    """Return the truth as a split, and the scores as a prediction.

    Args:
        truth: The truth, in one of the forms that the module's docstring lists.
        scores: The scores, in one of these forms.
        queries: The queries of an array's rows (default: the queries of the truth, in its order).
        clips: The clips of an array's columns (default: the clips of the split). If the truth is a dict and the scores
            name their clips: the names of all clips (default: the columns of a matrix; for ranked lists, the clips that
            the truth names).
        file: The name of the scores in findings.

    Returns:
        The split and the prediction. A split that is made from a dict has the name `truth`, and its clips are sorted.

    Raises:
        Faulty: An input has none of these forms, or they do not fit together. The exception lists all findings.
    """
    if isinstance(truth, Split):
        return truth, _prediction(scores, truth, queries, clips, file)
    relevance = _relevance(truth)
    named = dict.fromkeys(chain.from_iterable(relevance.values()))  # the clips that the truth names
    prediction = _prediction(scores, relevance, queries, clips, file)
    if clips is not None:
        all_clips: Iterable[str] = _texts(clips, "clips", file)
        owner = "the given clips"
    elif isinstance(prediction, Similarity | Embeddings):
        all_clips = prediction.file_names
        owner = _NAMED_BY_SCORES
    else:
        _check_listed_clips(prediction, named, file)
        all_clips = named
        owner = "the truth"
    _check_truth_names(relevance, set(all_clips), owner)
    return _split(TRUTH, dict.fromkeys(sorted(set(all_clips)), ()), relevance), prediction


def _prediction(
    scores: Any, truth: Split | Relevance, queries: object, clips: object, file: str
) -> Similarity | Ranking | Embeddings:
    """Return scores of any form as a prediction; the arguments are those of `retrieval_inputs`."""
    is_frame = is_table(scores, "DataFrame")
    if not is_frame and not isinstance(scores, Similarity | Ranking | Embeddings | Mapping):
        if isinstance(truth, Split):
            own_queries, own_clips = tuple(truth.truth), truth.file_names
        else:
            own_queries, own_clips = tuple(truth), None
        rows = own_queries if queries is None else _texts(queries, "queries", file)
        columns = own_clips if clips is None else _texts(clips, "clips", file)
        return _matrix(scores, rows, columns, file)
    if queries is not None:
        raise _fault(file, "already names its queries; leave out `queries`")
    if clips is not None and isinstance(truth, Split):
        raise _fault(file, "is for a split, which already names all clips; leave out `clips`")
    if is_frame:
        rows = _texts(scores.index, "the names of rows, which are the queries,", file)
        columns = _texts(scores.columns, "the names of columns, which are the clips,", file)
        return _matrix(scores.to_numpy(), rows, columns, file)
    if isinstance(scores, Mapping):
        return _prediction_of_dict(scores, file)
    return scores


def _relevance(truth: object) -> Relevance:
    """Return a truth in its simplest form: names without grades if all grades are 1, and no clips of grade 0."""
    if is_table(truth, "Series"):
        truth = _series_dict(truth, TRUTH)
    if not isinstance(truth, Mapping):
        swapped = isinstance(truth, Similarity | Ranking) or is_table(truth, "DataFrame") or hasattr(truth, "dtype")
        advice = "; the truth comes first: evaluate(truth, scores)" if swapped else advice_for(truth)
        raise _fault(TRUTH, f"{_TRUTH_FORM}; found {describe(truth)}{advice}")
    if not truth:
        raise _fault(TRUTH, f"{_TRUTH_FORM}; found an empty dict")
    findings: list[Finding] = []
    relevance: dict[str, frozenset[str] | Mapping[str, float]] = {}
    for query, relevant in truth.items():
        if not isinstance(query, str):
            findings.append(Finding(TRUTH, message=f"queries must be texts; found {describe(query)}"))
            continue
        try:
            relevance[str(query)] = _relevant(relevant, query)
        except ValueError as fault:
            findings.append(Finding(TRUTH, message=str(fault)))
    if findings:
        raise Faulty(findings)
    return relevance


def _relevant(relevant: object, query: str) -> frozenset[str] | Mapping[str, float]:
    """Return the clips that answer a query: names, or names with grades.

    Raises:
        ValueError: The value does not have such a form.
    """
    what = f"the clips of {query!r}"
    if isinstance(relevant, Mapping):
        grades = _grades(relevant, query)
        if set(grades.values()) == {1.0}:
            return frozenset(grades)
        return grades
    if isinstance(relevant, str):
        return frozenset([str(relevant)])
    if isinstance(relevant, Set):
        relevant = list(relevant)
    if elements(relevant) is None:
        form = "must be a name, a list or set of names, or a dict from names to grades"
        raise ValueError(f"{what} {form}; found {describe(relevant)}{advice_for(relevant)}")
    names = texts(relevant, what)
    if not names:
        raise ValueError(f"{what} must be one name or more; found none: add a clip, or remove the query")
    repeated = _repeated(names)
    if repeated:
        raise ValueError(f"{what} must be different; {repeated[0]!r} appears more than once")
    return frozenset(names)


def _grades(relevant: Mapping[Any, Any], query: str) -> dict[str, float]:
    names = texts(relevant.keys(), f"the clips of {query!r}")
    grades = {}
    for name, grade in zip(names, relevant.values(), strict=True):
        if not isinstance(grade, Real) or not 0 <= float(grade) < math.inf:
            raise ValueError(f"the grades of {query!r} must be finite and 0 or more; found {describe(grade)}")
        if float(grade) > 0:
            grades[name] = float(grade)
    if not grades:
        raise ValueError(f"{query!r} must have a clip with a grade above 0; add one, or remove the query")
    return grades


def _prediction_of_dict(scores: Mapping[str, Any], file: str) -> Similarity | Ranking:
    """Return a dict of ranked lists, or a dict of dicts with scores, as a prediction."""
    if not scores:
        raise _fault(file, f"{_SCORES_FORM}; found an empty dict")
    queries = _texts(scores.keys(), "queries", file)
    if any(isinstance(answer, Mapping) for answer in scores.values()):
        return _scores_of_dicts(scores, queries, file)
    findings = []
    lists = []
    for query, ranked in scores.items():
        try:
            if isinstance(ranked, str):
                message = f"the clips of {query!r} must be a list of names, best first; found {describe(ranked)}"
                raise ValueError(message)
            lists.append(texts(ranked, f"the clips of {query!r}, best first,"))
        except ValueError as fault:
            findings.append(Finding(file, message=str(fault)))
    if findings:
        raise Faulty(findings)
    return Ranking(queries, tuple(lists))


def _scores_of_dicts(scores: Mapping[str, Any], queries: tuple[str, ...], file: str) -> Similarity:
    """Return a dict from each query to a dict with the score of each clip as a matrix."""
    first = queries[0]
    names: tuple[str, ...] = ()
    rows: list[list[object]] = []
    for query, scores_of_clips in scores.items():
        if not isinstance(scores_of_clips, Mapping):
            message = f"must have a dict with scores for each query, as for {first!r}"
            raise _fault(file, f"{message}; found {describe(scores_of_clips)} for {query!r}")
        if not rows:
            names = _texts(scores_of_clips.keys(), "clips", file)
        if scores_of_clips.keys() != set(names):
            difference = sorted(map(str, scores_of_clips.keys() ^ set(names)))[0]
            message = f"must have a score of the same clips for each query; {query!r} and {first!r} differ in"
            advice = "pass lists of the best clips instead, best first"
            raise _fault(file, f"{message} {difference!r}; {advice}")
        rows.append([scores_of_clips[name] for name in names])
    return _matrix(rows, queries, names, file)


def _matrix(scores: object, queries: tuple[str, ...], clips: tuple[str, ...] | None, file: str) -> Similarity:
    """Return an array with the names of its rows and columns as a prediction."""
    if isinstance(scores, str | Path):
        raise _fault(file, f"{_SCORES_FORM}; found {describe(scores)}; read a file with `read_retrieval(path)`")
    try:
        array = numbers(scores, "scores", 2)
    except ValueError as fault:
        raise _fault(file, f"{_SCORES_FORM}; {fault}") from None
    if clips is None:
        raise _fault(file, "an array must come with the names of its columns; pass `clips=[…]`")
    try:
        return Similarity(queries, clips, array)
    except ValueError as fault:
        raise _fault(file, str(fault)) from None


def _check_listed_clips(prediction: Ranking, known: Collection[str], file: str) -> None:
    """Refuse ranked lists with clips that the truth does not name, because the number of all clips is not known.

    If none of the clips are known, or if they are the truth's clips in another form, `retrieval.validate` explains it.
    """
    listed = dict.fromkeys(chain.from_iterable(prediction.file_names))
    unknown = [name for name in listed if name not in known]
    if not unknown or len(unknown) == len(listed) or explain(unknown, known):
        return
    meant = closest(known)
    example = unknown[0]
    message = f"lists {plural(len(unknown), 'clip')} that the truth does not name, for example {example!r}"
    message += hint(example, meant(example))
    raise _fault(file, f"{message}; pass `clips=[…]`, the names of all clips; the chance levels depend on their number")


def _check_truth_names(relevance: Relevance, known: Collection[str], owner: str) -> None:
    """Refuse a truth that names unknown clips; `owner` is the noun for the input that names the known clips."""
    names = set(chain.from_iterable(relevance.values()))
    unknown = sorted(name for name in names if name not in known)
    if not unknown:
        return
    match = explain(unknown, known)
    if match:
        raise _fault(TRUTH, match.message(len(names), "names", owner=owner))
    meant = closest(known)
    example = unknown[0]
    if len(unknown) == len(names) and not any(map(meant, unknown)):
        message = f"names none of the {len(known)} clips of {owner}; found {example!r}"
        raise _fault(TRUTH, f"{message}; are they of the same data?")
    findings = []
    for query, relevant in relevance.items():
        for name in sorted(relevant):
            if name not in known:
                advice = hint(name, meant(name))
                if not advice and owner == _NAMED_BY_SCORES:
                    advice = "; if it was ranked, pass `clips=[…]`, the names of all clips"
                message = f"must name clips of {owner} for {query!r}; found {name!r}{advice}"
                findings.append(Finding(TRUTH, message=message))
    raise Faulty(findings)


# Captioning -----------------------------------------------------------------------------------------------------------


def captioning_inputs(predictions: object, references: object, file: str = "prediction") -> tuple[Captions, Split]:
    """Return predicted captions with the file names of their clips, and the references as a split.

    Args:
        predictions: The predicted captions, in one of the forms that the module's docstring lists.
        references: The reference captions, in one of these forms.
        file: The name of the predictions in findings.

    Returns:
        The predictions, and the split. A split that is made from a notebook's values has the name `references`. The
        clips of a dict are sorted. The clips of a list are named by their index, with leading zeros, so that the
        alphabetical order of the names is the order of the list.

    Raises:
        Faulty: An input has none of these forms, or they do not fit together. The exception lists all findings.
    """
    if isinstance(predictions, Split) or isinstance(references, Captions):
        message = f"{_CAPTIONS_FORM}; found {describe(predictions)}"
        raise _fault(file, f"{message}; the predictions come first: evaluate(predictions, references)")
    if isinstance(predictions, Captions) and isinstance(references, Split):
        return predictions, references
    captions = predictions if isinstance(predictions, Captions) else _captions(predictions, file)
    split = references if isinstance(references, Split) else _references(references)
    if isinstance(captions, list) and isinstance(split, list):
        if len(captions) != len(split):
            message = f"must have a caption for each of the {len(split)} lists of references"
            raise _fault(file, f"{message}; found {len(captions)}")
        width = len(str(len(split) - 1))
        names = [f"{index:0{width}}" for index in range(len(split))]
        return Captions(tuple(names), tuple(captions)), _split(REFERENCES, dict(zip(names, split, strict=True)))
    if isinstance(captions, list):
        raise _fault(file, f"must be a dict from each clip to its caption, as the references have names; {_PAIR}")
    if isinstance(split, list):
        raise _fault(REFERENCES, f"must be a dict from each clip to its captions, as the predictions; {_PAIR}")
    return captions, split


def _names_and_values(content: object, file: str) -> tuple[tuple[str, ...], list[Any]] | None:
    """Return the names of clips and their values; no names for a list, and None if the content is of another form."""
    if isinstance(content, Mapping):
        return _texts(content.keys(), "the names of clips", file), list(content.values())
    listed = elements(content)
    if listed is None:
        return None
    return (), listed


def _captions(predictions: object, file: str) -> Captions | list[str]:
    """Return predicted captions with the names of their clips, or a list of captions without names."""
    if is_table(predictions, "Series"):
        predictions = _series_dict(predictions, file)
    named = _names_and_values(predictions, file)
    if named is None:
        advice = advice_for(predictions)
        if isinstance(predictions, str | Path):
            advice = ": put a caption into a list, or read a file with `read_captions(path)`"
        raise _fault(file, f"{_CAPTIONS_FORM}; found {describe(predictions)}{advice}")
    names, values = named
    if not values:
        raise _fault(file, f"{_CAPTIONS_FORM}; found {describe(predictions)} without captions")
    findings = []
    for place, caption in zip(names or range(len(values)), values, strict=True):
        if not isinstance(caption, str):
            message = f"the caption of clip {place!r} must be a text; found {describe(caption)}"
            if elements(caption) is not None:
                message += "; a clip has one predicted caption, and the predictions come before the references"
            findings.append(Finding(file, message=message))
    if findings:
        raise Faulty(findings)
    captions = [str(caption) for caption in values]
    if names:
        return Captions(names, tuple(captions))
    return captions


def _references(references: object) -> Split | list[tuple[str, ...]]:
    """Return reference captions as a split if their clips have names, otherwise as a list."""
    if is_table(references, "Series"):
        references = _series_dict(references, REFERENCES)
    named = _names_and_values(references, REFERENCES)
    if named is None:
        advice = advice_for(references)
        if isinstance(references, str | Path):
            advice = ": read a data folder with `read_dataset(folder)`"
        elif is_table(references, "DataFrame"):
            advice = ': if its rows have the names of clips, pass `frame.T.to_dict("list")`'
        raise _fault(REFERENCES, f"{_REFERENCES_FORM}; found {describe(references)}{advice}")
    names, values = named
    if not values:
        raise _fault(REFERENCES, f"{_REFERENCES_FORM}; found {describe(references)} without clips")
    findings = []
    captions = []
    for place, value in zip(names or range(len(values)), values, strict=True):
        try:
            captions.append(_captions_of_clip(value, f"the references of clip {place!r}"))
        except ValueError as fault:
            findings.append(Finding(REFERENCES, message=str(fault)))
    if findings:
        raise Faulty(findings)
    if names:
        return _split(REFERENCES, dict(sorted(zip(names, captions, strict=True))))
    return captions


def _captions_of_clip(value: object, what: str) -> tuple[str, ...]:
    """Return the reference captions of one clip.

    Raises:
        ValueError: The value is not a list of one or more captions, or a caption is blank.
    """
    if isinstance(value, str):
        raise ValueError(f"{what} must be a list of texts; found {describe(value)}: pass a list with this text")
    captions = texts(value, what)
    if not captions:
        raise ValueError(f"{what} must be one caption or more; found none: add a caption, or remove the clip")
    for index, caption in enumerate(captions):
        fault = text_fault(caption)
        if fault:
            raise ValueError(f"caption {index} of {what} {fault}{'' if caption.strip() else ', or leave it out'}")
    return captions


# Both -----------------------------------------------------------------------------------------------------------------


def _split(name: str, captions: Mapping[str, tuple[str, ...]], relevance: Relevance | None = None) -> Split:
    """Return a split of clips that have captions but no audio."""
    clips = tuple(Clip(file_name, texts_of_clip, Path(file_name)) for file_name, texts_of_clip in captions.items())
    return Split(name, clips, relevance)


def _series_dict(series: Any, file: str) -> object:
    """Return a column of pandas as a dict if its rows have names, otherwise as a list."""
    if not any(isinstance(name, str) for name in series.index):
        return series.tolist()
    repeated = _repeated(series.index)
    if repeated:
        raise _fault(file, f"each name must have one row; {repeated[0]!r} has more than one")
    return series.to_dict()


def _repeated(names: Iterable[Any]) -> list[Any]:
    """Return the names that are given more than once, each once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _texts(values: object, what: str, file: str) -> tuple[str, ...]:
    """Return texts as a tuple of Python's own strings, or raise Faulty."""
    try:
        return texts(values, what)
    except ValueError as fault:
        raise _fault(file, str(fault)) from None


def _fault(file: str, message: str) -> Faulty:
    return Faulty([Finding(file, message=message)])
