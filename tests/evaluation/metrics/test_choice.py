"""Question answering: accuracies equal pandas, the order of options does not matter, and bad answers are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.choice_formats import read_answers
from evaluation.data.questions import Question, Questions
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics.choice import evaluate, validate
from evaluation.metrics.sets import year_sets
from evaluation.scores import Score, check
from evaluation.statistics import comparison
from evaluation.statistics.intervals import jackknife

SOUNDS = ["rain", "wind", "a dog", "a bell"]


def random_questions(number, seed=0):
    """Return questions of three types and two parts, two about each clip, and random answers."""
    rng = np.random.default_rng(seed)
    questions, answers = [], {}
    for index in range(number):
        options = tuple(rng.permutation(SOUNDS)[: 2 + index % 3].tolist())
        answer, guess = rng.choice(options, 2).tolist()
        kind, part = ["count", "order", "presence"][rng.integers(3)], ["BQA", "TSQA"][rng.integers(2)]
        questions.append(Question(f"q{index}", "Which?", options, answer, f"{index // 2}.wav", kind, part))
        answers[f"q{index}"] = guess
    return Questions(tuple(questions)), answers


def test_accuracies_equal_pandas():
    truth, answers = random_questions(1000)
    score = evaluate(truth, answers)
    table = pd.DataFrame([vars(question) for question in truth.questions])
    table["right"] = table["answer"] == table["id"].map(answers)
    table["chance"] = 1 / table["options"].str.len()
    values = {name: measured.estimate.value for name, measured in score.metrics.items()}
    chances = {name: measured.chance for name, measured in score.metrics.items()}
    for column, found in (("right", values), ("chance", chances)):
        expected = {"accuracy": table[column].mean()}
        for kind in ("type", "part"):
            accuracies = table.groupby(kind)[column].mean()
            expected[f"macro_{kind}s"] = accuracies.mean()
            expected |= {f"{kind}@{label}": value for label, value in accuracies.items()}
        assert found == pytest.approx(expected, abs=1e-12)
        assert list(values) == list(expected)


def test_intervals_leave_out_all_questions_about_a_clip():
    truth, answers = random_questions(200)
    score = evaluate(truth, answers)
    right = score.items.values["accuracy"]
    groups = [question.audio for question in truth.questions]
    assert score.metrics["accuracy"].by_clip == jackknife(right, groups=groups)
    assert check(score, "score.json") == []
    left_out = []
    for clip in dict.fromkeys(groups):
        kept = Questions(tuple(question for question in truth.questions if question.audio != clip))
        of_kept = {question.id: answers[question.id] for question in kept.questions}
        left_out.append(evaluate(kept, of_kept, metrics=["macro_types"]).metrics["macro_types"].estimate.value)
    n = len(left_out)
    error = np.sqrt((n - 1) / n * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert score.metrics["macro_types"].by_clip.std_error == pytest.approx(error, rel=1e-9)


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_options_does_not_matter(random):
    truth, answers = random_questions(12)
    shuffled = []
    for question in truth.questions:
        options = tuple(random.sample(question.options, len(question.options)))
        shuffled.append(
            Question(question.id, question.text, options, question.answer, question.audio, question.type, question.part)
        )
    first, second = evaluate(truth, answers), evaluate(Questions(tuple(shuffled)), answers)
    assert first.metrics == second.metrics
    assert first.signature == second.signature


def test_a_type_with_one_question_has_no_interval():
    truth, options = {"q1": "rain", "q2": "rain", "q3": "wind"}, dict.fromkeys(["q1", "q2", "q3"], SOUNDS)
    types = {"q1": "one", "q2": "two", "q3": "two"}
    score = evaluate(truth, truth, options=options, types=types)
    estimate = score.metrics["type@one"].estimate
    assert (estimate.value, estimate.n) == (1, 1)
    assert np.isnan(estimate.low)
    assert "questions of each type: one 1, two 2" in str(score.findings[0])


def test_saved_scores_are_compared(tmp_path):
    truth, answers = random_questions(60)
    evaluate(truth, answers).save(tmp_path / "one.json")
    evaluate(truth, random_questions(60, seed=1)[1] | answers).save(tmp_path / "other.json")
    compared = comparison.compare(comparison.read_scores([tmp_path / "one.json", tmp_path / "other.json"]))
    assert {difference.metric for difference in compared.differences} == set(Score.load(tmp_path / "one.json").metrics)


QUESTIONS = Questions(
    (
        Question("q1", "What is it?", ("Rain", "Wind"), "Rain", "a.wav"),
        Question("q2", "What is it?", ("A dog", "A cat", "A cow"), "A cat", "b.wav"),
    )
)
BAD_ANSWERS = [
    ("question,answer\nq1,rain\nq2,A cat\n", ":2: error: the answer to 'q1' must be an option, verbatim; found 'rain'"),
    ("question,answer\nq1,rain\nq2,A cat\n", "there is 'Rain', and answers are compared verbatim"),
    ("question,answer\nq1,Rain\nq2,B\n", "found 'B'; the options are: 'A dog', 'A cat', 'A cow'"),
    ("question,answer\nq1,\nq2,A cat\n", ":2: error: the answer to 'q1' must be an option, verbatim; found ''"),
    ("question,answer\nq1,Rain\n", "error: has no answer for the id 'q2'; add one"),
    ("question,answer\nq1,Rain\nq2,A cat\nq3,Rain\n", ":4: error: must be an id of the truth; found 'q3'"),
    ("question,answer\nq1,Rain\nq2,A cat\nq1,Wind\n", ":4: error: id 'q1' has two answers (first in line 2)"),
    ("question,answer\nx,Rain\ny,A cat\n", "answers none of the 2 ids of the truth, for example 'q1'; found 'x'"),
    ("question,answer\n", "has no answers; give one for each of the 2 ids"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ANSWERS)
def test_answers_that_break_a_rule_are_refused(tmp_path, text, message):
    path = tmp_path / "output.csv"
    path.write_text(text)
    with pytest.raises(Faulty) as caught:
        validate(QUESTIONS, read_answers(path), str(path))
    assert message in str(caught.value)


def test_all_findings_are_reported_at_once(tmp_path):
    path = tmp_path / "output.csv"
    path.write_text("question,answer\nq1,Snow\nq1,Rain\nq3,Rain\n")
    with pytest.raises(Faulty) as caught:
        validate(QUESTIONS, read_answers(path), "output.csv")
    assert [(finding.line, finding.message.partition(";")[0]) for finding in caught.value.findings] == [
        (0, "has no answer for the id 'q2'"),
        (2, "the answer to 'q1' must be an option, verbatim"),
        (3, "id 'q1' has two answers (first in line 2)"),
        (4, "must be an id of the truth"),
    ]


def test_requests_are_checked():
    with pytest.raises(BadRequest, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        evaluate(QUESTIONS, {"q1": "Rain", "q2": "A cat"}, metrics=["acuracy"])
    with pytest.raises(BadRequest, match="options must be a dict"):
        evaluate({"q1": "Rain"}, {"q1": "Rain"})
    with pytest.raises(BadRequest, match="the options of 'q1' must be different texts"):
        evaluate({"q1": "Rain"}, {"q1": "Rain"}, options={"q1": ["Wind", "Snow"]})
    with pytest.raises(BadRequest, match="the options must have an entry for each id; found none for 'q1': add"):
        evaluate({"q1": "Rain"}, {"q1": "Rain"}, options={})
    with pytest.raises(BadRequest, match="the options must be a dict from each id to its options; found a list"):
        evaluate({"q1": "Rain"}, {"q1": "Rain"}, options=["Rain", "Wind"])
    with pytest.raises(BadRequest, match=r"the answers of the truth must be a dict from ids to .*; found a tuple"):
        evaluate((QUESTIONS, []), {"q1": "Rain"})
    with pytest.raises(Faulty, match="the answers must be a dict from ids to answers, or Answers; found a list"):
        evaluate(QUESTIONS, ["Rain", "A cat"])
    with pytest.raises(Faulty, match="the answer of 'q2' must be a text; found None"):
        evaluate(QUESTIONS, {"q1": "Rain", "q2": None})
    with pytest.raises(Faulty, match="found 'Q2'; there is 'q2', and ids are compared verbatim: use that id"):
        evaluate(QUESTIONS, {"q1": "Rain", "Q2": "A cat", "q3": "A cat"})
    blind = Questions((Question("q1", "What?", ("Rain", "Wind"), None, "a.wav"),))
    with pytest.raises(BadRequest, match="it is a blind set"):
        evaluate(blind, {"q1": "Rain"})
    score = evaluate(QUESTIONS, {"q1": "Rain", "q2": "A cat"}, metrics=["dcase2025"])
    assert score.unavailable == {"macro_parts": "the questions have no parts"}
    assert year_sets("choice")["dcase2026"].metrics == ("accuracy",)
