"""A retriever, or a captioner and a language model, answer questions about tones; wrong requests get advice."""

import sys

import pytest
import torch
import yaml

from evaluation.choice_formats import read_answers
from evaluation.cli import command
from evaluation.findings import BadRequest, Faulty
from systems import answers, runs
from systems.__main__ import parser
from systems.answering import answer_questions
from systems.asked import read_data
from systems.modules import trusting
from tests.systems.asked_data import make_questions, make_recordings
from tests.systems.made import NAME, make_module, make_run
from tests.systems.tiny import causal_model


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder with runs of a retriever and a captioner, a language model and questions; the module may be named."""
    top = tmp_path_factory.mktemp("answers")
    make_module(top)
    make_run(top / "retriever", "Retriever")
    make_run(top / "captioner", "Captioner")
    causal_model(top / "language")
    make_questions(top / "data")
    with pytest.MonkeyPatch.context() as patch, trusting([NAME]):
        patch.syspath_prepend(str(top))
        yield top
    sys.modules.pop(NAME, None)


@pytest.fixture
def dataset(top):
    return read_data(top / "data", "development", "validation", "evaluation")


def test_a_retriever_is_fitted_and_predicts(top, capsys):
    folder, data = top / "run", str(top / "data")
    settings = ["--set", f"retriever={top / 'retriever'}"]
    assert command(parser(), ["train", "systems.answers", "--data", data, "--run", str(folder), *settings]) == 0
    assert "option: accuracy 1.000 on 4 validation questions" in capsys.readouterr().out
    assert (folder / "search.csv").read_text().splitlines()[0] == "way,accuracy"
    description = yaml.safe_load((folder / "system.yaml").read_text())["description"]
    assert description == {"input_sampling_rate": "8kHz", "metric_monitored": "validation accuracy"}
    assert command(parser(), ["predict", str(folder), "--data", data]) == 0
    file = folder / "predictions" / "evaluation.csv"
    assert f"{file}: 4 questions about 2 clips" in capsys.readouterr().out
    assert read_answers(file).answers == ("a low one", "a high one") * 2
    assert command(parser(), ["predict", str(folder), "--data", str(make_recordings(top / "recordings"))]) == 2
    assert "has no method moments, which moments needs; it can do choice" in capsys.readouterr().err


def test_answers_do_not_depend_on_the_batch_or_the_padding(top, dataset):
    model = answers.make_model(answers.Config(retriever=str(top / "retriever")))
    model.way = "statement"
    split = dataset["evaluation"]
    given = answer_questions(model, split, device=model.device)
    assert given.answers == ("a low one", "a high one") * 2
    together = dict(zip(given.ids, given.answers, strict=True))
    for question in split.content.questions:
        samples = torch.sin(2 * torch.pi * (2000 if "high" in question.audio else 500) * torch.arange(4000) / 8000)
        padded = torch.zeros(1, 9000)
        padded[0, :4000] = samples
        alone = model.answer(padded, torch.tensor([4000]), [question.text], [question.options])
        assert alone == [together[question.id]]


def test_a_language_model_reads_the_captions(top, dataset, tmp_path):
    settings = {"captioner": str(top / "captioner"), "language_model": str(top / "language")}
    run = runs.train("systems.answers", dataset, tmp_path / "run", settings)
    model = answers.load_model(run.best)
    assert model.way in ("total", "mean", "gain")
    model.way = ""
    question = dataset["validation"].content.questions[0]
    clip = model.listen(torch.sin(torch.arange(8000) * 2)[None], torch.tensor([8000]))[0]
    assert clip == "a high tone"
    scores = model.scores(clip, question.text, question.options)
    assert set(scores) == {"total", "mean", "gain"}
    with_caption = model.reader.read([answers.prompt(question.text, clip)] * 2, question.options)
    without = model.reader.read([answers.prompt(question.text, None)] * 2, question.options)
    for number in range(2):
        assert scores["gain"][number] == pytest.approx(with_caption[number].total - without[number].total, abs=1e-4)


def test_a_language_model_alone_does_not_listen(top, dataset, tmp_path):
    run = runs.train("systems.answers", dataset, tmp_path / "run", {"language_model": str(top / "language")})
    model = answers.load_model(run.best)
    given = answer_questions(model, dataset["evaluation"], device=model.device).answers
    assert given[0] == given[1] and given[2] == given[3]  # the same question about different clips


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, BadRequest, "retriever must be the folder of a trained run; found none"),
        ({"retriever": "a", "captioner": "b"}, Faulty, "retriever must not be combined with captioner"),
        ({"captioner": "b"}, Faulty, "captioner must be given with a language_model"),
        ({"language_model": "nowhere"}, BadRequest, "nowhere"),
    ],
)
def test_parts_that_do_not_fit_are_refused(dataset, tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        runs.train("systems.answers", dataset, tmp_path / "run", config)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_questions_that_cannot_be_used_are_refused(top, tmp_path):
    repeated = make_questions(tmp_path / "repeated", multi_choice=["a high one", "a low one", "a low one"])
    with pytest.raises(Faulty, match="multi_choice: error: must be different; found 'a low one' 2 times"):
        read_data(repeated, "development", "validation")
    blind = read_data(make_questions(tmp_path / "blind", answer=None), "development", "validation")
    with pytest.raises(BadRequest, match=r"questions_validation.jsonl: must have answers"):
        runs.train("systems.answers", blind, tmp_path / "run", {"retriever": str(top / "retriever")})
