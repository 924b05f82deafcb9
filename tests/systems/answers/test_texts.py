"""Statements are made from questions whose verb is known."""

import pytest

from systems.answers.texts import TEXTS, statement


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which sound is heard last?", "rain is heard last."),
        ("What can be heard", "rain can be heard."),
        ("WHICH of the birds has a low voice?", "rain has a low voice."),
        ("Which island?", "Which island? rain"),
        ("Who is it?", "Who is it? rain"),
    ],
)
def test_statements(question, expected):
    assert statement(question, "rain") == expected


def test_the_texts():
    texts = [make("Which sound is it?", "rain") for make in TEXTS.values()]
    assert texts == ["rain", "Which sound is it? rain", "rain is it."]
