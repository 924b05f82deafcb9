"""Captions in the files of other code bases give the same numbers as the kit's CSV, and every mistake has one line."""

import csv
import json
from pathlib import Path

import pytest

from evaluation import __main__
from evaluation.caption_formats import parse_columns, read_captions
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning
from evaluation.predictions import Captions

NAMES = (" leading, blank.wav", "Dog.1.wav", "c.wav", "d.wav", "été.wav", "f.wav")
TEXTS = ("A dog, barking.", "Rain falls.", "A man speaks.", "", 'A "bell" rings.', "Water runs.")
REFERENCES = ("A dog barks.", "Rain is falling.", "A man talks.", "A crowd cheers.", "A bell rings.", "A tap runs.")
SPLIT = Split(
    "evaluation", tuple(Clip(name, (text,), Path(name)) for name, text in zip(NAMES, REFERENCES, strict=True))
)
PAIRS = list(zip(NAMES, TEXTS, strict=True))


def write_csv(path, header, rows, separator=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])


def objects(name, caption):
    return [{name: file_name, "score": 0.5, caption: text} for file_name, text in PAIRS]


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")


def write_ids(path, clips):
    write_json(path, {clips: [{"id": index, "file_name": name} for index, name in enumerate(NAMES)]})


ANNOTATIONS = [{"id": 70 + index, "image_id": index, "caption": text} for index, text in enumerate(TEXTS)]
FORMATS = {
    "kit.csv": lambda path: write_csv(path, ["file_name", "caption_predicted"], PAIRS),
    "fname.csv": lambda path: write_csv(path, ["fname", "cands", "mcands"], [(*pair, "[]") for pair in PAIRS]),
    "tabs.tsv": lambda path: write_csv(path, ["pred", "filename"], [pair[::-1] for pair in PAIRS], "\t"),
    "list_of_one.csv": lambda path: write_csv(path, ["audio", "candidates"], [(n, repr([t])) for n, t in PAIRS]),
    "file_name_before_id.csv": lambda path: write_csv(path, ["id", "caption", "fname"], [(1, t, n) for n, t in PAIRS]),
    "objects.json": lambda path: write_json(path, objects("key", "caption_prediction")),
    "map.json": lambda path: write_json(path, dict(PAIRS)),
    "map_of_lists.json": lambda path: write_json(path, {name: [text] for name, text in PAIRS}),
    "results.json": lambda path: write_json(path, objects("audio_id", "caption")),
    "lines.jsonl": lambda path: write_lines(path, objects("audio", "prediction")),
    "lines.json": lambda path: write_lines(path, objects("fname", "caption")),
    "coco.json": lambda path: write_json(
        path,
        {
            "images": [{"id": index, "file_name": name} for index, name in enumerate(NAMES)],
            "annotations": ANNOTATIONS,
        },
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_captions(tmp_path, name):
    FORMATS[name](tmp_path / name)
    prediction, notes = read_captions(tmp_path / name, SPLIT)
    assert (prediction.file_names, prediction.captions, prediction.matched) == (NAMES, TEXTS, "")
    if name == "kit.csv":
        assert notes == []
    else:
        (note,) = notes
        assert note.severity == "note"
        assert note.message.startswith("read as ")


def test_every_format_gives_the_same_numbers(tmp_path):
    scores = {}
    for name, write in FORMATS.items():
        write(tmp_path / name)
        prediction, _ = read_captions(tmp_path / name, SPLIT)
        scores[name] = captioning.evaluate(
            prediction, SPLIT, metrics=["cider_d", "rouge_l"], tokenized=captioning.TOKENIZED, cache=tmp_path
        )
    expected = scores.pop("kit.csv")
    for score in scores.values():
        assert (score.metrics, score.signature) == (expected.metrics, expected.signature)


def test_the_note_names_the_columns(tmp_path):
    FORMATS["fname.csv"](tmp_path / "it.csv")
    _, (note,) = read_captions(tmp_path / "it.csv", SPLIT)
    assert str(note).endswith("it.csv: note: read as CSV, with the names in 'fname' and the captions in 'cands'")


def test_the_kits_form_wins_and_other_captions_are_named(tmp_path):
    rows = [(name, text, "other") for name, text in PAIRS]
    write_csv(tmp_path / "it.csv", ["file_name", "caption_predicted", "caption"], rows)
    prediction, (note,) = read_captions(tmp_path / "it.csv", SPLIT)
    assert prediction.captions == TEXTS
    assert note.message == "the captions are read from 'caption_predicted'; not from 'caption'"
    prediction, _ = read_captions(tmp_path / "it.csv", SPLIT, columns={"caption": "caption"})
    assert set(prediction.captions) == {"other"}


def test_columns_that_the_user_names(tmp_path):
    write_csv(tmp_path / "it.csv", ["clip", "cands", "pred"], [(name, text, "other") for name, text in PAIRS])
    prediction, _ = read_captions(tmp_path / "it.csv", SPLIT, columns=parse_columns("name=clip,caption=cands"))
    assert (prediction.file_names, prediction.captions) == (NAMES, TEXTS)


def test_results_with_ids(tmp_path):
    write_json(
        tmp_path / "results.json", [{"image_id": row["image_id"], "caption": row["caption"]} for row in ANNOTATIONS]
    )
    prediction, (note,) = read_captions(tmp_path / "results.json", SPLIT)
    assert prediction.file_names == tuple(map(str, range(len(NAMES))))
    assert note.message.endswith("if the names are ids, give COCO's annotations with --ids")
    for clips in ("images", "audios"):
        write_ids(tmp_path / "ids.json", clips)
        prediction, _ = read_captions(tmp_path / "results.json", SPLIT, ids=tmp_path / "ids.json")
        assert prediction.file_names == NAMES


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("change", "match", "matched"),
    [
        (lambda name: name.removesuffix(".wav"), "extension", "extension"),
        (lambda name: name.removesuffix(".wav"), "stem", "path+extension"),
        (lambda name: f"/data/{name}", "path", "path"),
        (lambda name: f"/data/{name[:-3]}mp3", "stem", "path+extension"),
        (lambda name: name.upper(), "case", "case"),
        (lambda name: name.strip(), "blanks", "blanks"),
        (lambda name: f"x/{name.upper()}", "case,path", "path+case"),
    ],
)
def test_names_are_matched_by_the_rules_that_the_user_gives(tmp_path, change, match, matched):
    write_csv(tmp_path / "it.csv", ["fname", "cands"], [(change(name), text) for name, text in PAIRS])
    prediction, _ = read_captions(tmp_path / "it.csv", SPLIT, match=match)
    assert (prediction.file_names, prediction.matched) == (NAMES, matched)
    score = captioning.evaluate(prediction, SPLIT, metrics=["rouge_l"], tokenized=captioning.TOKENIZED, cache=tmp_path)
    assert f"|extra:left-out|match:{matched}|" in score.signature


def test_names_are_verbatim_without_rules(tmp_path):
    write_csv(tmp_path / "it.csv", ["fname", "cands"], [(name[:-4], text) for name, text in PAIRS])
    prediction, _ = read_captions(tmp_path / "it.csv", SPLIT)
    with pytest.raises(Faulty, match=r"their extension: none where the data have \.wav; .*, or give --match extension"):
        captioning.evaluate(prediction, SPLIT, cache=tmp_path)
    with pytest.raises(Faulty) as faulty:  # the check of submissions does not mention the option
        captioning.validate(SPLIT, prediction)
    assert "--match" not in str(faulty.value)


def test_a_name_that_means_two_clips_is_refused(tmp_path):
    clips = tuple(Clip(name, ("A dog.",), Path(name)) for name in ("a.wav", "a.mp3", "b.wav"))
    write_csv(tmp_path / "it.csv", ["fname", "cands"], [("a", "x"), ("b", "y"), ("a.mp3", "z")])
    with pytest.raises(Faulty) as faulty:
        read_captions(tmp_path / "it.csv", Split("evaluation", clips), match="stem")
    (finding,) = faulty.value.findings
    assert (finding.line, finding.message) == (
        2,
        "'a' means 2 clips with --match stem: 'a.wav', 'a.mp3'; write the name as in the split evaluation",
    )


def test_two_names_of_one_clip_are_refused(tmp_path):
    write_csv(tmp_path / "it.csv", ["fname", "cands"], [*PAIRS, ("x/c.wav", "Again.")])
    prediction, _ = read_captions(tmp_path / "it.csv", SPLIT, match="path")
    with pytest.raises(Faulty, match=r"clip 'c\.wav' has another caption in line 4"):
        captioning.evaluate(prediction, SPLIT, cache=tmp_path)


def test_captions_in_the_order_of_the_split(tmp_path):
    rows = [(index, text, 0.1) for index, text in enumerate(TEXTS)]
    write_csv(tmp_path / "it.csv", ["index", "candidate", "spider"], rows)
    write_json(tmp_path / "it.json", TEXTS)
    for path in (tmp_path / "it.csv", tmp_path / "it.json"):
        prediction, _ = read_captions(path, SPLIT, match="order")
        assert (prediction.file_names, prediction.captions, prediction.matched) == (NAMES, TEXTS, "order")
    write_csv(tmp_path / "it.csv", ["index", "candidate", "spider"], rows[::-1])
    with pytest.raises(Faulty, match="index: error: must count the rows from 0 or 1"):
        read_captions(tmp_path / "it.csv", SPLIT, match="order")
    write_json(tmp_path / "it.json", TEXTS[1:])
    with pytest.raises(Faulty, match="a caption for each of the 6 clips in the split evaluation; found 5"):
        read_captions(tmp_path / "it.json", SPLIT, match="order")


# ------------------------------------------------------------------------------------------------ mistakes

FOUND_TWO = "found 'caption' and 'caption_predicted': choose one with --columns caption=COLUMN"
MISTAKES = [
    (
        "it.csv",
        "fname,text\na.wav,x\n",
        [":1: error: must have a column with the captions (caption_predicted, caption,"],
    ),
    (
        "it.csv",
        "clip,cands\na.wav,x\n",
        [":1: error: must have a column with the names of the clips (file_name, fname,"],
    ),
    ("it.csv", "fname,caption,caption_predicted\na.wav,x,y\n", [FOUND_TWO]),
    ("it.csv", "fname,fname,cands\na.wav,a.wav,y\n", ["found 'fname' and 'fname': choose one"]),
    ("it.csv", "", [":1: error: is empty; the first line must name the columns"]),
    ("it.csv", "fname,cands\n", ["has no captions; give one for each clip"]),
    ("it.csv", "fname,cands\na.wav,x,y\n", [":2: error: must have 2 cells, as the header; found 3: quote a cell"]),
    (
        "it.csv",
        "fname,cands\na.wav,nan\nb.wav,\nc.wav,None\n",
        [
            ":2: cands: error: must be a caption; found 'nan', which stands",
            ":4: cands: error: must be a caption; found",
        ],
    ),
    (
        "it.csv",
        "fname,cands\na.wav,\"['x', 'y']\"\n",
        [":2: cands: error: must have one caption for each clip; found a"],
    ),
    ("it.csv", 'fname,cands\na.wav,"[4, 33]"\n', [":2: cands: error: must be a caption, which is a text; found "]),
    ("it.json", "<html>", [":1: error: must be JSON; Expecting value in column 1: write the file again"]),
    ("it.json", '[{"fname": "a.wav"},', [":1: error: must be JSON; "]),
    ("it.json", "[" * 100_000, ["is too long to read"]),
    ("it.json", "3", ["must be a list of objects, such as "]),
    ("it.json", "[]", ["has no captions; give one for each clip"]),
    ("it.json", '[{"fname": "a", "pred": "x"}, "y"]', [': [1]: error: must be an object, such as {"file_name"']),
    ("it.json", '{"a.wav": "x", "a.wav": "y"}', ["must not repeat a key; found 'a.wav' twice"]),
    (
        "it.json",
        '[{"fname": "a", "pred": null}, {"fname": "b", "pred": NaN}, {"fname": "c"}, {"fname": true, "pred": "x"}]',
        [
            "[0].pred: error: must be a caption, which is a text; found null",
            "[1].pred: error: must be a caption, which is a text; found NaN",
            "[2].pred: error: must be a caption, which is a text; found no such key",
            "[3].fname: error: must be a name, a text or a whole number; found true",
        ],
    ),
    ("it.json", "[]", ["it.json: error: has no captions; give one for each clip"]),
    ("it.jsonl", "", ["it.jsonl: error: has no captions; give one for each clip"]),
    ("it.json", '[{"fname": "\\ud800.wav", "pred": "x"}]', ["must be valid Unicode; found "]),
    (
        "it.jsonl",
        '{"fname": "a", "pred": "x"}\n[1]\n{\n',
        [":2: error: must be a JSON object, such as ", ":3: error: must be JSON; Expecting property name"],
    ),
    (
        "it.json",
        '{"annotations": [{"image_id": 1, "caption": "x"}]}',
        ["must have one list images or audios, with the"],
    ),
    (
        "it.json",
        '{"annotations": [{"image_id": 1, "caption": "x"}], "images": [{"id": 2, "file_name": "a.wav"}]}',
        ["annotations[0].image_id: error: must be the id of a clip; '1' is not in images or audios"],
    ),
    (
        "it.json",
        '{"annotations": [], "images": [{"id": 2, "file_name": "a.wav"}, {"id": 2, "file_name": "b.wav"}]}',
        ["images[1]: error: must have an id of its own and one file name; found the id '2'"],
    ),
    ("it.json", '{"annotations": [], "images": [{"id": 2}]}', ["every clip must have an id and a name in file_name"]),
]


@pytest.mark.parametrize(("name", "text", "messages"), MISTAKES)
def test_every_mistake_has_one_clear_line(tmp_path, name, text, messages):
    (tmp_path / name).write_text(text)
    with pytest.raises(Faulty) as faulty:
        read_captions(tmp_path / name, SPLIT)
    assert len(faulty.value.findings) == len(messages)
    for finding, message in zip(faulty.value.findings, messages, strict=True):
        assert message in str(finding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"columns": {"caption": "x"}},
            "must have one column 'x', which --columns names for the captions; found 'fname'",
        ),
        ({"columns": {"captions": "x"}}, "unknown key 'captions'; did you mean 'caption'?"),
        ({"match": "stm"}, "--match: unknown rule for names 'stm'; did you mean 'stem'?"),
        ({"ids": Path("nowhere.json")}, "nowhere.json: no such file; give --ids a JSON file with the list images"),
    ],
)
def test_wrong_requests(tmp_path, options, message):
    write_csv(tmp_path / "it.csv", ["fname", "cands"], PAIRS)
    with pytest.raises((BadRequest, Faulty)) as wrong:
        read_captions(tmp_path / "it.csv", SPLIT, **options)
    assert message in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme=x", "--columns: unknown key 'nme'; did you mean 'name'? there are: name, caption; write --columns name="),
        ("name=", "--columns must name one column for name; found no column"),
        ("name=x,name=y", "--columns must name one column for name; found two columns"),
        ("name=x,caption=x", "--columns must name different columns; found 'x' twice: write --columns name="),
    ],
)
def test_wrong_columns(text, message):
    with pytest.raises(BadRequest) as wrong:
        parse_columns(text)
    assert message in str(wrong.value)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def score(capsys, tmp_path):
    """Return a function that scores a file against `REFERENCES` with the command line."""
    (tmp_path / "data").mkdir()
    rows = zip(NAMES, REFERENCES, [text.replace("A ", "The ") for text in REFERENCES], strict=True)
    write_csv(tmp_path / "data" / "captions_evaluation.csv", ["file_name", "caption_1", "caption_2"], rows)

    def run(*options):
        given = [
            "score",
            "captions",
            "--truth",
            tmp_path / "data",
            "--metrics",
            "rouge_l",
            "--cache",
            tmp_path / "cache",
        ]
        status = command(__main__.parser(), [str(word) for word in (*given, *options)])
        return status, *capsys.readouterr()

    return run


def test_the_command_says_what_it_assumed(score, tmp_path):
    path = tmp_path / "it.csv"
    write_csv(path, ["fname", "cands"], [(name[:-4], text) for name, text in PAIRS])
    note = f"{path}: note: read as CSV, with the names in 'fname' and the captions in 'cands'"
    status, out, err = score("--prediction", path)
    assert (status, out) == (1, "")
    assert note in err
    assert "or give --match extension\n" in err
    status, out, err = score("--prediction", path, "--match", "stem")
    assert status == 0
    assert note in err
    assert "|match:path+extension|" in out
    assert score("--topline", "--match", "stem")[::2] == (
        2,
        "error: --match is about a prediction; leave it out for --topline, which does not read one\n",
    )


def test_tokens_are_scored_as_given(score, tmp_path):
    path = tmp_path / "it.csv"
    write_csv(path, ["fname", "cands"], [(name, "a dog 's bark") for name in NAMES])
    status, out, err = score("--prediction", path, "--tokenized", "predictions")
    assert status == 0
    assert "words-predictions-tokens-as-given|" in out
    status, out, err = score("--prediction", path, "--tokenized")
    assert "|tokenizer:none-tokens-as-given-500-words|" in out
    expected = (
        "evaluation: warning: tokens should be in lower case, without punctuation; 12 texts given as tokens differ"
    )
    assert expected in err


def test_a_real_file_of_another_code_base(shared):
    path = shared / "golden" / "conette_outputs_clotho_eval.csv"
    split = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    prediction, (note,) = read_captions(path, split)
    assert note.message == "read as CSV, with the names in 'fname' and the captions in 'cands'"
    assert set(prediction.file_names) == set(split.file_names)
    assert isinstance(prediction, Captions)
    assert not any(finding.severity == "error" for finding in captioning.validate(split, prediction))
