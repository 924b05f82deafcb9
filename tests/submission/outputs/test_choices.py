"""Outputs of question answering: every single mutation of a valid file gives one finding."""

import csv
import io

import pytest

from evaluation.choice_formats import Answers, read_answers
from evaluation.data.questions import Question, Questions
from evaluation.findings import Faulty
from submission import outputs, tasks
from submission.outputs.choices import meant_option
from submission.outputs.form import FileSplit

TASK = tasks.read("dcase2026-5")
OPTIONS = (
    ("Rain", "A door, closing", "Music", "Applause"),
    ("A. rain", "B. wind", "C. a dog"),
    ("one time", "two times", "three times"),
    ('the word "stop"', "é", " leading"),
    ("yes", "no"),
)
QUESTIONS = tuple(Question(f"dev_{n:04}", f"What {n}?", each, None, f"{n}.wav") for n, each in enumerate(OPTIONS, 1))
SPLIT = FileSplit("test", Questions(QUESTIONS))
ANSWERS = {question.id: question.options[1] for question in QUESTIONS}


def rows(**changes: str) -> list[list[str]]:
    return [["question", "answer"], *([name, changes.get(name, answer)] for name, answer in ANSWERS.items())]


def table(lines, separator=",") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator="\r\n").writerows(lines)
    return file.getvalue()


GOOD = table(rows())


def check(content: str | bytes, folder, split=SPLIT) -> list[str]:
    path = folder / "out.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(finding) for finding in outputs.validate(TASK, path, split, "out.csv")]


def test_a_written_file_reads_back_equal(tmp_path):
    shuffled = Answers.of(dict(reversed(ANSWERS.items())))
    outputs.write(TASK, shuffled, SPLIT, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == GOOD.encode()
    read = read_answers(tmp_path / "out.csv")
    assert dict(zip(read.ids, read.answers, strict=True)) == ANSWERS
    assert check(GOOD, tmp_path) == check(GOOD.replace("\r\n", "\n"), tmp_path) == []


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({**ANSWERS, "dev_0001": "rain"}, "must be an option, verbatim; found 'rain'; there is 'Rain'"),
        ({name: ANSWERS[name] for name in list(ANSWERS)[1:]}, "has no answer for the id 'dev_0001'; add one"),
    ],
)
def test_a_prediction_that_does_not_fit_is_not_written(answers, message, tmp_path):
    with pytest.raises(Faulty, match=message):
        outputs.write(TASK, Answers.of(answers), SPLIT, tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def no_option(line: int, found: str, rest: str) -> str:
    return f"out.csv:{line}: answer: error: must be an option of 'dev_000{line - 1}', verbatim; found {found}; {rest}"


MUTATIONS = {
    "case": (
        table(rows(dev_0001="rain")),
        no_option(2, "'rain'", "there is 'Rain', and answers are compared verbatim"),
    ),
    "blank": (
        table(rows(dev_0001="Music ")),
        no_option(2, "'Music '", "there is 'Music', and answers are compared verbatim"),
    ),
    "no leading blank": (
        table(rows(dev_0004="leading")),
        no_option(5, "'leading'", "there is ' leading', and answers are"),
    ),
    "no comma": (table(rows(dev_0001="A door closing")), no_option(2, "'A door closing'", "there is 'A door, cl")),
    "separate accent": (table(rows(dev_0004="e\u0301")), no_option(5, "'e\u0301'", "there is 'é' in Unicode form NFC")),
    "a letter": (table(rows(dev_0001="C")), no_option(2, "'C'", "did you mean 'Music'?")),
    "a letter in brackets": (table(rows(dev_0003="(b)")), no_option(4, "'(b)'", "did you mean 'two times'?")),
    "a letter of the options": (table(rows(dev_0002="C")), no_option(3, "'C'", "did you mean 'C. a dog'?")),
    "a letter without option": (table(rows(dev_0005="D")), no_option(6, "'D'", "the options are: 'yes', 'no'")),
    "a letter and the text": (
        table(rows(dev_0003="B. two times")),
        no_option(4, "'B. two times'", "did you mean 'two"),
    ),
    "another letter": (table(rows(dev_0002="C. wind")), no_option(3, "'C. wind'", "did you mean 'B. wind'?")),
    "no letter": (table(rows(dev_0002="wind")), no_option(3, "'wind'", "did you mean 'B. wind'?")),
    "a typo": (table(rows(dev_0003="three tmes")), no_option(4, "'three tmes'", "did you mean 'three times'?")),
    "a number": (table(rows(dev_0003="2")), no_option(4, "'2'", "the options are: 'one time', 'two times', 'three t")),
    "of another question": (table(rows(dev_0003="Rain")), no_option(4, "'Rain'", "the options are: 'one time',")),
    "a sentence": (
        table(rows(dev_0001="It is rain.")),
        no_option(2, "'It is rain.'", "the options are: 'Rain', 'A do"),
    ),
    "two options": (table(rows(dev_0001="Rain; Music")), no_option(2, "'Rain; Music'", "the options are: 'Rain', 'A")),
    "None": (table(rows(dev_0001="None")), no_option(2, "'None'", "the options are: 'Rain'")),
    "empty": (table(rows(dev_0001="")), "out.csv:2: answer: error: must not be empty; write the text of an option"),
    "only blanks": (table(rows(dev_0001="  ")), "out.csv:2: answer: error: must not be empty; write the text of an op"),
    "missing": (table(rows()[:-1]), "out.csv: question: error: no row answers the question 'dev_0005'; add one"),
    "repeated": (
        table([*rows(), ["dev_0001", "Rain"]]),
        "out.csv:7: question: error: must not repeat a question; 'dev_0001' is in line 2 already: keep one of the rows",
    ),
    "unknown": (
        table([*rows(), ["eval_9", "Rain"]]),
        "out.csv:7: question: error: 'eval_9' is not a question of test",
    ),
    "id in upper case": (
        GOOD.replace("dev_0002", "DEV_0002"),
        "out.csv:3: question: error: 'DEV_0002' is not a question of test; there is 'dev_0002', and ids are compared",
    ),
    "id with a suffix": (
        GOOD.replace("dev_0002", "dev_0002.json"),
        "out.csv:3: question: error: 'dev_0002.json' is not a question of test; there is 'dev_0002', and ids are com",
    ),
    "all ids with a folder": (
        GOOD.replace("dev_", "dev/dev_"),
        "out.csv:2: question: error: all 5 ids differ from the data's only in",
    ),
    "of another set": (
        GOOD.replace("dev_000", "eval_7"),
        "out.csv: error: has none of the 5 questions of test; is this the prediction of another split or data set?",
    ),
    "three columns": (
        GOOD.replace("dev_0005,no", "dev_0005,no,1"),
        "out.csv:6: error: must have 2 columns, the question and its answer; found 3; quote a cell that holds a comma",
    ),
    "a comma without quotes": (
        GOOD.replace('"A door, closing"', "A door, closing"),
        "out.csv:2: error: must have 2 columns, the question and its answer; found 3; quote a cell that holds a comma",
    ),
    "one column": (GOOD.replace("dev_0005,no", "dev_0005"), "out.csv:6: error: must have 2 columns, the question and"),
    "no header": (table(rows()[1:]), "out.csv:1: error: the header must be question,answer; found dev_0001,A door"),
    "other header": (
        GOOD.replace("question,", "id,"),
        "out.csv:1: error: the header must be question,answer; found id",
    ),
    "header in upper case": (
        GOOD.replace("question,answer", "Question,Answer"),
        "out.csv:1: error: the header must be question,answer; found Question,Answer; blanks, and upper and lower case",
    ),
    "columns exchanged": (
        table([row[::-1] for row in rows()][:1] + rows()[1:]),
        "out.csv:1: error: the header must be question,answer; found answer,question; put the columns in this order",
    ),
    "tabs": (
        table(rows(), "\t"),
        "out.csv:1: error: the header must be question,answer; found question\\tanswer; separate the columns by commas",
    ),
    "semicolons": (
        table(rows(), ";"),
        "out.csv:1: error: the header must be question,answer; found question;answer; s",
    ),
    "BOM": ("\ufeff" + GOOD, "out.csv:1: warning: starts with a BOM; save it as plain UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "out.csv: error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "Latin-1": (GOOD.encode("latin-1"), "out.csv:5: answer: error: must be UTF-8; byte 0xE9 is not"),
    "a NUL byte": (
        GOOD.replace("yes", "y").replace(",no", ",n\0o"),
        "out.csv:6: error: must be text; found a NUL byte",
    ),
    "CR without LF": (
        GOOD.replace("\r\n", "\r"),
        "out.csv:1: error: lines must end in LF or CRLF; found CR without LF",
    ),
    "empty file": ("", "out.csv:1: error: the header must be question,answer; found nothing"),
    "only a header": (table(rows()[:1]), "out.csv: error: has none of the 5 questions of test; add them"),
    "an open quote": (GOOD.replace("dev_0005,no", 'dev_0005,"no'), "out.csv:6: error: "),
    "far too many lines": (
        GOOD + "a,b\r\n" * 200,
        "out.csv: error: must have one line for each of 5 questions; found 206",
    ),
}


@pytest.mark.parametrize(("content", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_one_mutation_gives_one_finding(content, message, tmp_path):
    (finding,) = check(content, tmp_path)
    assert finding.startswith(message)


def test_findings_of_a_kind_are_counted(tmp_path):
    """A system that writes letters gets 20 findings and the number of the others."""
    asked = tuple(Question(f"q{n}", "What?", ("rain", "wind"), None, "a.wav") for n in range(50))
    content = table([["question", "answer"], *([question.id, "A"] for question in asked)])
    findings = check(content, tmp_path, FileSplit("test", Questions(asked)))
    assert len(findings) == 21
    assert "and 30 more of this kind" in findings[-1]


def test_without_the_data_answers_are_counted(tmp_path):
    assert check(GOOD, tmp_path, "test") == ["out.csv: question: error: must answer 3000 (test) questions; found 5"]
    assert check(GOOD, tmp_path, "evaluation") == []


@pytest.mark.parametrize(
    ("answer", "options", "meant"),
    [
        ("A", ("rain", "A"), "A"),
        ("E", ("rain", "wind"), None),
        ("rain", ("A. rain", "B. rain"), None),  # both options have this text
        ("raim", ("rain", "rail"), None),
        ("", ("rain", "wind"), None),
    ],
)
def test_which_option_is_meant(answer, options, meant):
    assert meant_option(answer, options) == meant
