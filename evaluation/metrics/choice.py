"""Metrics of audio question answering: the share of multiple-choice questions with the right answer.

    score = evaluate(read_questions("dev.jsonl")[0], read_answers("output.csv"))

The tasks are DCASE 2025 task 5 and 2026 task 5. Their metric is top-1 accuracy.

Conventions
-----------
- **An answer is right if it is the text of the right option, verbatim.** Letters, indices and other spellings are not
  answers. So the order of the options does not affect a score.
- **Each question must be answered exactly once, with one of its options.** An answer that is not an option is an error,
  and so is an unknown, missing or repeated id. So leaving out hard questions does not raise a score.
- **Intervals.** All questions are left out in turn, also for the accuracy of one type or part. The interval by clip
  leaves out all questions about a clip together. If all questions of a type or part are about a single clip, its
  accuracy has no interval.
- **Chance** is the expected value if each answer is drawn from the options of its question.

Metrics
-------
- `accuracy`: the share of right answers over all questions (micro average).
- `macro_types` and `macro_parts`: the mean of the accuracies of the types of questions, or of the parts of the data set
  (macro average). On the data set's page, the overall accuracy of a baseline of 2025 is such a mean: the parts have
  45.2, 38.7 and 31.4, and the mean is 38.4. We could not confirm that the ranking of 2025 used this mean.
- `type@NAME` and `part@NAME`: the accuracy on the questions of a type or part.

Sources: dcase.community/challenge2025/task-audio-question-answering; PeacefulData/2025_DCASE_AudioQA_Official (data
card); dcase.community/challenge2026/task-audio-dependent-question-answering.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.choice_formats import Answers
from evaluation.data.questions import Question, Questions
from evaluation.findings import NOTE, BadRequest, Faulty, Finding, raise_errors
from evaluation.metrics.answered import check_ids
from evaluation.metrics.sets import MetricSet, named_metrics
from evaluation.names import closest, hint
from evaluation.scores import VERSION, Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate
from evaluation.text import first_items, quoted, unknown_key
from evaluation.values import require_dict

ACCURACY, MACRO_TYPES, MACRO_PARTS = "accuracy", "macro_types", "macro_parts"
TYPE, PART = "type", "part"
OPTIONS_SHOWN = 4  # number of options in a message

_NO_TEXTS: Mapping[str, str] = {}


def is_right(given: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Return (n,) floats, 1 for each of n answers that equals the right one, otherwise 0.

    >>> is_right(["rain", "Wind"], ["rain", "wind"])
    array([1., 0.])
    """
    return np.array([float(answer == expected) for answer, expected in zip(given, right, strict=True)])


def label_statistics(right: np.ndarray, labels: Sequence[str], chosen: Sequence[str]) -> np.ndarray:
    """Return statistics of each question, from whose sums `mean_of_labels` computes a metric.

    Args:
        right: (n,) 1 for each question with the right answer, otherwise 0.
        labels: The label (type or part) of each question.
        chosen: The c labels that the metric is about.

    Returns:
        (n, 2c) floats. Columns 0 to c - 1 have 1 where the question has the label and its answer is right, and columns
        c to 2c - 1 have 1 where the question has the label.
    """
    has_label = np.array([[float(label == other) for other in chosen] for label in labels])
    return np.concatenate([has_label * right[:, None], has_label], axis=1)


def mean_of_labels(sums: np.ndarray) -> np.ndarray:
    """Return the mean of the accuracies of c labels, from (..., 2c) sums of `label_statistics`.

    Labels without a question are left out. If no label has a question, the mean is NaN.
    """
    right, counts = np.split(sums, 2, axis=-1)
    accuracies = np.divide(right, counts, out=np.zeros_like(right), where=counts > 0)
    present = (counts > 0).sum(axis=-1)
    return np.divide(accuracies.sum(axis=-1), present, out=np.full(present.shape, np.nan), where=present > 0)


def validate(truth: Questions, answers: Answers, file: str = "prediction", form: Sequence[Finding] = ()) -> None:
    """Check answers against the questions.

    Args:
        truth: The questions.
        answers: The answers.
        file: The name of the answers in findings.
        form: Findings about answers that cannot be read and that `answers` lacks, to report all findings together.

    Raises:
        Faulty: An id is missing, unknown or repeated, or an answer is not an option of its question. The exception
            lists all findings.
    """
    findings = [*form, *check_ids(truth.by_id, answers.ids, answers.lines, file, is_whole=not form)]
    for index, (name, answer) in enumerate(zip(answers.ids, answers.answers, strict=True)):
        question = truth.by_id.get(name)
        if question is None or answer in question.options:
            continue
        line = answers.lines[index] if answers.lines else 0
        message = not_an_option(f"the answer to {quoted(name)} must be an option", answer, question.options)
        findings.append(Finding(file, line, message=message))
    raise_errors(findings)


def not_an_option(must: str, answer: str, options: Sequence[str], guess: str | None = None) -> str:
    """Return the message about an answer that is not an option.

    Args:
        must: The beginning of the message, such as "must be an option".
        answer: The answer.
        options: The options.
        guess: The option that the answer probably means, for an answer that is not similar to an option.
    """
    message = f"{must}, verbatim; found {quoted(answer)}"
    similar = closest(options, texts=True)(answer)
    if similar is not None:
        return message + hint(answer, similar, "answers")
    if guess is not None:
        return f"{message}; did you mean {quoted(guess)}?"
    return f"{message}; the options are: {first_items([quoted(option) for option in options], OPTIONS_SHOWN)}"


def resolve_metrics(names: Sequence[str] | None, truth: Questions) -> MetricSet:
    """Return the metrics that a request names, each once.

    Args:
        names: Names of metrics and of sets (default: all metrics that the questions allow).
        truth: The questions, whose types and parts are names of metrics.

    Raises:
        BadRequest: There is no such metric or set.
        Faulty: See `sets.year_sets`.
    """
    allowed = [ACCURACY]
    for kind, macro in ((TYPE, MACRO_TYPES), (PART, MACRO_PARTS)):
        labels = [label for label in dict.fromkeys(_labels(truth, kind)) if label]
        if len(labels) > 1:
            allowed += [macro, *(f"{kind}@{label}" for label in sorted(labels))]
    if names is None:
        return MetricSet(tuple(allowed))

    def unknown(name: str, sets: Sequence[str]) -> str:
        return unknown_key(name, [*allowed, *sets], "metric")

    known = {*allowed, MACRO_TYPES, MACRO_PARTS}  # a set may name a macro average that the questions do not allow
    return named_metrics(names, "choice", known.__contains__, unknown)


def _labels(truth: Questions, kind: str) -> list[str]:
    """Return the type or part of each question."""
    if kind == TYPE:
        return [question.type for question in truth.questions]
    return [question.part for question in truth.questions]


def evaluate(
    truth: Questions | Mapping[str, str],
    answers: Answers | Mapping[str, str],
    *,
    options: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] = _NO_TEXTS,
    parts: Mapping[str, str] = _NO_TEXTS,
    clips: Mapping[str, str] = _NO_TEXTS,
    metrics: Sequence[str] | None = None,
    interval: str = "jackknife",
    file: str = "prediction",
) -> Score:
    """Score a question answering system.

    Args:
        truth: The questions, or a dict from ids to the right answers; `options` is then required.
        answers: The answers, or a dict from ids to answers.
        options: A dict from ids to options, if `truth` is a dict.
        types: A dict from ids to types, if `truth` is a dict (default: no types).
        parts: A dict from ids to parts, if `truth` is a dict (default: no parts).
        clips: A dict from ids to the clips that the questions are about, if `truth` is a dict (default: each question
            is about a clip of its own).
        metrics: Names of metrics or of sets, such as `dcase2026` (default: the accuracy; if there are several types or
            parts, also their macro average and the accuracy of each).
        interval: One of `intervals.METHODS`.
        file: The name of the answers in findings.

    Returns:
        The score. Its items are the questions in the order of the truth. The interval by clip leaves out all questions
        about a clip together.

    Raises:
        BadRequest: There is no such metric or interval method, the right answers are not known, or `options` are
            missing.
        Faulty: As `validate`, or an answer is not a text.

    >>> truth, options = {"q1": "rain", "q2": "a dog"}, {"q1": ["rain", "wind"], "q2": ["a cat", "a dog"]}
    >>> evaluate(truth, {"q1": "rain", "q2": "a cat"}, options=options).metrics["accuracy"].estimate.value
    0.5
    """
    if not isinstance(truth, Questions):
        truth = _questions(truth, options, types, parts, clips)
    if truth.is_blind:
        source = truth.source or "the truth"
        raise BadRequest(f"{source} has no answers, so it is a blind set; give a file with the ground truth")
    names = resolve_metrics(metrics, truth).metrics
    interval_method(interval)
    if not isinstance(answers, Answers):
        try:
            answers = Answers.of(answers)
        except ValueError as wrong:
            raise Faulty([Finding(file, message=str(wrong))]) from None
    validate(truth, answers, file)
    given = dict(zip(answers.ids, answers.answers, strict=True))
    right = is_right(
        [given[question.id] for question in truth.questions], [question.answer or "" for question in truth.questions]
    )
    numbers: dict[str, int] = {}
    groups = tuple(numbers.setdefault(question.audio, len(numbers)) for question in truth.questions)
    items = Items("questions", tuple(truth.by_id), groups)
    measured, unavailable = {}, {}
    for name in names:
        if name == ACCURACY:
            measured[name] = measure(right, items, interval, chance=float(np.mean(truth.chances)))
            continue
        kind, chosen = _chosen(name, truth)
        if chosen:
            measured[name] = _measure_labels(right, truth, items, interval, kind, chosen)
        else:
            unavailable[name] = f"the questions have no {kind}s"
    notes = _notes(truth, measured, file)
    return Score(measured, items, _signature(truth, interval), unavailable, findings=tuple(notes))


def _questions(
    truth: Mapping[str, str],
    options: Mapping[str, Sequence[str]] | None,
    types: Mapping[str, str],
    parts: Mapping[str, str],
    clips: Mapping[str, str],
) -> Questions:
    """Return the questions of a dict of right answers.

    Raises:
        BadRequest: The truth or the options are not dicts, or the options of an id are missing, repeated or without the
            right answer.
    """
    if isinstance(truth, Mapping) and options is None:
        raise BadRequest("if the truth is a dict of answers, options must be a dict from each id to its options")
    try:
        answers = require_dict(truth, "the answers of the truth", "from ids to the right answers, or Questions")
        options_of = require_dict(options, "the options", "from each id to its options")
    except ValueError as wrong:
        raise BadRequest(str(wrong)) from None
    questions = []
    for name, answer in answers.items():
        texts = tuple(options_of.get(name, ()))
        if not texts:
            raise BadRequest(f"the options must have an entry for each id; found none for {name!r}: add its options")
        if answer not in texts or len(set(texts)) < max(len(texts), 2):
            message = f"the options of {name!r} must be different texts, with the right answer {answer!r}"
            raise BadRequest(f"{message}; found {list(texts)!r}")
        clip = clips.get(name, name)
        questions.append(Question(name, name, texts, answer, clip, types.get(name, ""), parts.get(name, "")))
    return Questions(tuple(questions))


def _chosen(name: str, truth: Questions) -> tuple[str, list[str]]:
    """Return the kind of labels of a metric, `TYPE` or `PART`, and the labels that it is about."""
    kind, _, label = name.partition("@")
    if label:
        return kind, [label]
    kind = TYPE if name == MACRO_TYPES else PART
    return kind, [label for label in dict.fromkeys(_labels(truth, kind)) if label]


def _measure_labels(
    right: np.ndarray, truth: Questions, items: Items, interval: str, kind: str, chosen: Sequence[str]
) -> Measured:
    """Compute the mean accuracy of some types or parts with its intervals."""
    labels = _labels(truth, kind)
    statistics = label_statistics(right, labels, chosen)
    by_chance = mean_of_labels(label_statistics(np.array(truth.chances), labels, chosen).sum(axis=0))
    groups = {group for group, label in zip(items.groups, labels, strict=True) if label in chosen}
    if len(groups) < 2:  # a single clip cannot be left out
        value = float(mean_of_labels(statistics.sum(axis=0)))
        estimate = Estimate(value, np.nan, np.nan, np.nan, 1, f"{interval}-95")
        return Measured(estimate, chance=float(by_chance))
    return measure(statistics, items, interval, mean_of_labels, chance=float(by_chance))


def _notes(truth: Questions, measured: Mapping[str, Measured], file: str) -> list[Finding]:
    """Return notes with the number of questions of each type and part that has a metric of its own."""
    notes = []
    for kind in (TYPE, PART):
        counts = Counter(_labels(truth, kind))
        texts = [
            f"{name.partition('@')[2]} {counts[name.partition('@')[2]]}" for name in measured if _is_of(name, kind)
        ]
        if texts:
            message = f"questions of each {kind}: {', '.join(texts)}; their intervals are computed over all questions"
            notes.append(Finding(file, message=message, severity=NOTE))
    return notes


def _is_of(name: str, kind: str) -> bool:
    return name.startswith(f"{kind}@")


def _signature(truth: Questions, interval: str) -> str:
    """Return a text that names the data, rules and versions that the scores depend on."""
    counts = [len(question.options) for question in truth.questions]
    return "|".join(
        [
            f"dcase-kit:{VERSION}",
            f"truth:questions#{truth.fingerprint}",
            f"questions:{len(counts)}",
            f"options:{min(counts)}-{max(counts)}",
            "answer:verbatim",
            "missing,unknown,duplicate,no-option:error",
            f"interval:{interval_method(interval)}",
            f"numpy:{np.__version__}",
        ]
    )
