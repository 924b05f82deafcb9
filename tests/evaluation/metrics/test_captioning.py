import ast
import csv
import gzip
import json
import re
import subprocess
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import yaml

from evaluation import __main__, assets
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest, Faulty, limited
from evaluation.metrics import bert_score, captioning, fense, java, meteor, ptb_tokenizer, spice, word_overlap
from evaluation.metrics.captioning import BASIC, METRICS, evaluate, penalised, resolve_metrics, spider, validate
from evaluation.metrics.java import Unavailable, find_java, lay_out_jars
from evaluation.metrics.ptb_tokenizer import ptb_tokenize
from evaluation.metrics.sets import MetricSet
from evaluation.metrics.word_overlap import CiderD
from evaluation.predictions import CAPTION_COLUMNS, Captions
from evaluation.scores import Score
from evaluation.statistics.intervals import jackknife
from tests.evaluation.metrics.small_tables import make_small_table

NAMES = (" leading blank.wav", 'comma, "quote" &amp; dots.1.wav', "c.wav", "d.wav")
REFERENCES = (
    ("A dog barks.", "A dog is barking loudly."),
    ("Rain falls on a roof.",),
    ("A man speaks, and a crowd cheers.", "Somebody talks to people.", "People cheer while a man talks."),
    ("Water runs.", "A tap is running."),
)
SPLIT = Split("evaluation", tuple(Clip(name, texts, Path(name)) for name, texts in zip(NAMES, REFERENCES, strict=True)))
GOOD = Captions(NAMES, ("A dog barks.", "Rain falls.", "A man speaks while people cheer.", "Somebody walks."))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


FEW = 250  # golden captions that METEOR also matches with a small table
MODELS = ((spice, "spice"), (fense, "fluency_error"), (fense, "sbert_similarity"), (bert_score, "bert_score"))


@pytest.fixture(autouse=True)
def no_models(monkeypatch):
    """Simulate a machine on which no model or parser was downloaded."""
    for module, name in MODELS:
        monkeypatch.setattr(module, name, lambda *_, name=name: _refuse(name))


def _refuse(name):
    raise Unavailable(f"{name} is not on this machine; fetch it with: dcase-evaluation download {name}")


# ------------------------------------------------------------------------------------------------ golden


@pytest.fixture(scope="module")
def golden(shared):
    with (shared / "golden" / "conette_outputs_clotho_eval.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corpus = yaml.safe_load((shared / "golden" / "conette_scores_clotho_eval.yaml").read_text(encoding="utf-8"))
    each = {name: np.array([float(row[f"best_fense.cands.{name}"]) for row in rows]) for name in METRICS[:13]}
    return rows, each, {name: corpus[f"clotho_eval/best_fense.cands.{name}"] for name in each}


@pytest.fixture(scope="module")
def golden_split(golden):
    """The tokenised references of the golden file."""
    clips = (Clip(row["fname"], tuple(ast.literal_eval(row["mrefs"])), Path(row["fname"])) for row in golden[0])
    return Split("evaluation", tuple(clips))


@pytest.fixture(scope="module")
def golden_prediction(golden):
    return Captions(tuple(row["fname"] for row in golden[0]), tuple(row["cands"] for row in golden[0]))


@pytest.fixture(scope="module")
def scored_with_statistics(golden_split, golden_prediction, cache):
    """The golden captions' score, and METEOR's match statistics in the order of the golden file.

    METEOR reads its whole table of paraphrases, which takes many seconds: the tests share one process.
    """
    answers = []
    ask = meteor.Meteor.statistics

    def keep_answer(process, candidates, references):
        answers.append(ask(process, candidates, references))
        return answers[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meteor.Meteor, "statistics", keep_answer)
        score = evaluate(golden_prediction, golden_split, metrics=BASIC, cache=cache)
    [by_name] = answers
    statistics = np.empty_like(by_name)
    statistics[np.argsort(golden_split.file_names, stable=True)] = by_name
    return score, statistics


@pytest.fixture(scope="module")
def scored(scored_with_statistics):
    return scored_with_statistics[0]


@pytest.fixture(scope="module")
def statistics(scored_with_statistics):
    return scored_with_statistics[1]


def test_golden(golden, scored):
    """Scores from raw text equal the golden ones: BLEU, ROUGE-L and CIDEr-D to 1e-12, METEOR to 1e-6."""
    _, each, corpus = golden
    for name, measured in scored.metrics.items():
        near = 1e-6 if name == "meteor" else 1e-12
        assert measured.estimate.value == pytest.approx(corpus[name], abs=near), name
        assert measured.estimate.n == 1045
    for name in ("rouge_l", "cider_d"):
        np.testing.assert_allclose(scored.metrics[name].values, each[name], rtol=0, atol=1e-12)


def test_golden_tokens(golden, shared, cache):
    """Tokenising Clotho's captions gives the golden references, except four that the authors spelt differently."""
    captions = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"].clips
    published = {clip.file_name: clip.captions for clip in captions}
    texts, expected = [], []
    for row in golden[0]:
        texts += published[row["fname"]]
        expected += ast.literal_eval(row["mrefs"])
    tokens = ptb_tokenize(texts, find_java(), cache)
    different = [pair for pair in zip(tokens, expected, strict=True) if pair[0] != pair[1]]
    assert len(different) == 4
    assert all(ours.replace("walkie-talkie", "walkie talkie") == theirs for ours, theirs in different)


def test_golden_meteor_of_each_caption(golden, statistics):
    _, each, corpus = golden
    np.testing.assert_allclose(meteor.meteor(statistics), each["meteor"], rtol=0, atol=1e-6)
    assert meteor.meteor(statistics.sum(axis=0)) == pytest.approx(corpus["meteor"], abs=1e-6)


def test_meteor_with_the_paraphrases_of_the_references_alone(golden, statistics, tmp_path_factory):
    """The small table gives the same statistics, and has paraphrases of words that METEOR joins (`u.s.` to `us`)."""
    rows = golden[0][:FEW]
    captions = [row["cands"] for row in rows]
    references = [ast.literal_eval(row["mrefs"]) for row in rows]
    odd = "made in the u.s. somewhere"
    folder = tmp_path_factory.mktemp("picked")
    every = [text for texts in references for text in texts]
    assert meteor.paraphrase_table(every, folder) is None
    table = meteor.make_paraphrase_table([*every, odd], folder)
    assert table == meteor.paraphrase_table([odd, *reversed(every)], folder)  # in any order
    with gzip.open(table, "rt", encoding="utf-8", newline="\n") as file:
        paraphrases = list(zip(file, file, file, strict=True))
    assert table.stat().st_size < 61_813_011 / 10
    assert len(paraphrases) < 300_000
    assert {"us\n"} <= {phrase for _, *phrases in paraphrases for phrase in phrases}
    with meteor.Meteor(find_java(), folder, table) as jar:
        np.testing.assert_array_equal(jar.statistics(captions, references), statistics[:FEW])


def test_paraphrases_are_picked_when_references_come_again(cache, monkeypatch):
    """The first scoring reads the whole table, the second makes the small table, and the third uses it."""
    tables, made = {}, []

    def make(references, folder):
        made.append(len(references))
        tables["table"] = Path("made")

    given = []
    monkeypatch.setattr(meteor, "paraphrase_table", lambda *_: tables.get("table"))
    monkeypatch.setattr(meteor, "make_paraphrase_table", make)
    monkeypatch.setattr(meteor, "Meteor", lambda java, cache, table: given.append(table) or _refuse("meteor"))
    split = replace(SPLIT, clips=(replace(SPLIT.clips[0], captions=("Never seen before.",)), *SPLIT.clips[1:]))
    counts = []
    for _ in range(3):
        evaluate(GOOD, split, metrics=["meteor"], cache=cache)
        counts.append(len(made))
    assert counts == [0, 1, 1]
    assert given == [None, None, Path("made")]


def test_golden_combinations(golden):
    """SPIDEr, SPIDEr-FL and FENSE follow from the golden file's components, for each caption and for the corpus."""
    _, each, corpus = golden
    made = {
        "spider": spider(each["cider_d"], each["spice"]),
        "spider_fl": penalised(spider(each["cider_d"], each["spice"]), each["fer"]),
        "fense": penalised(each["sbert_sim"], each["fer"]),
    }
    for name, values in made.items():
        np.testing.assert_allclose(values, each[name], rtol=0, atol=1e-12)
        assert values.mean() == pytest.approx(corpus[name], abs=1e-12)


def test_golden_combinations_through_evaluate(golden, golden_split, golden_prediction, cache, monkeypatch):
    """`evaluate` gives the same values, with the golden components in place of the models."""
    rows, each, corpus = golden
    monkeypatch.setattr(assets, "identity", lambda part: part)
    stand_ins = ((spice, "spice", "spice"), (fense, "fluency_error", "fer"), (fense, "sbert_similarity", "sbert_sim"))
    by_name = np.argsort(golden_split.file_names, stable=True)  # the order in which models receive the captions
    for module, function, name in stand_ins:
        monkeypatch.setattr(module, function, lambda *_, name=name: each[name][by_name])
    wanted = ["fense", "spider", "spider_fl", "cider_d", "vocab", "vocab_ratio"]
    score = evaluate(golden_prediction, golden_split, metrics=wanted, cache=cache)
    for name in wanted[:4]:
        assert score.metrics[name].estimate.value == pytest.approx(corpus[name], abs=1e-12), name
        estimate = jackknife(each[name])
        assert score.metrics[name].estimate.std_error == pytest.approx(estimate.std_error, abs=1e-12)
    assert score.metrics["vocab"].estimate.value == 636
    assert score.metrics["vocab_ratio"].estimate.value == pytest.approx(636 / 3517)
    assert not score.unavailable

    # Compare with scoring the other clips.
    exact = evaluate(golden_prediction, golden_split, metrics=wanted[:4], cache=cache, idf="exact")
    captions, references = [row["cands"] for row in rows], [ast.literal_eval(row["mrefs"]) for row in rows]
    spice_f1, error = each["spice"], each["fer"]
    n = len(captions)
    for clip in (0, 700):
        kept = [at for at in range(n) if at != clip]
        cider = CiderD([captions[at] for at in kept], [references[at] for at in kept]).scores
        without = {
            "cider_d": cider.mean(),
            "spider": spider(cider, spice_f1[kept]).mean(),
            "spider_fl": penalised(spider(cider, spice_f1[kept]), error[kept]).mean(),
        }
        for name, left_out in without.items():
            value = score.metrics[name].estimate.value
            assert exact.metrics[name].values[clip] == pytest.approx(n * value - (n - 1) * left_out, abs=1e-9), name
    for name in wanted[:4]:
        assert exact.metrics[name].estimate.value == score.metrics[name].estimate.value
        both = [score.metrics[name].estimate.std_error, exact.metrics[name].estimate.std_error]
        assert (both[0] == both[1]) == (name == "fense"), name
        assert both[1] == pytest.approx(both[0], rel=0.1)


# ------------------------------------------------------------------------------------------------ evaluate


def test_interval_of_bleu_and_meteor_is_of_the_corpus(scored, golden):
    """The interval of a mean of sentence scores would be another one."""
    _, each, _ = golden
    for name in ("bleu_4", "meteor"):
        estimate = scored.metrics[name].estimate
        assert estimate.low < estimate.value < estimate.high
        assert abs(estimate.std_error / jackknife(each[name]).std_error - 1) > 0.01
    assert (scored.metrics["bleu_4"].estimate.high - scored.metrics["bleu_4"].estimate.low) < 0.05


@pytest.mark.parametrize("method", ["jackknife", "jackknife-t", "bootstrap", "bootstrap-bca"])
def test_intervals(cache, method):
    score = evaluate(GOOD, SPLIT, metrics=["bleu_2", "cider_d", "rouge_l", "vocab"], interval=method, cache=cache)
    for name in ("bleu_2", "cider_d", "rouge_l"):
        estimate = score.metrics[name].estimate
        assert estimate.interval == f"{method}-95"
        assert estimate.low <= estimate.value <= estimate.high
    assert score.metrics["vocab"].estimate.interval == "none"
    assert score.metrics["vocab"].values is None


def test_what_is_missing_is_named_and_the_rest_is_computed(cache):
    score = evaluate(GOOD, SPLIT, metrics=["fense", "spider", "spider_fl", "cider_d", "bert_score", "fer"], cache=cache)
    assert list(score.metrics) == ["cider_d"]
    assert list(score.unavailable) == ["fense", "spider", "spider_fl", "bert_score", "fer"]
    assert score.unavailable["spider"].endswith("fetch it with: dcase-evaluation download spice")
    assert score.unavailable["spider_fl"].count("fetch it with") == 2  # SPICE, and the fluency checker
    assert "not available" in str(score)


@pytest.fixture(scope="module")
def small_table(cache):
    """METEOR starts in a second for the references of `SPLIT`: it reads a table of six paraphrases."""
    references = [text for texts in REFERENCES for text in texts]
    make_small_table(ptb_tokenize(references, find_java(), cache, keep=True), cache)


def test_hostile_captions(cache, small_table):
    captions = ("two\nlines\tand a tab", '"quotes" and emoji 🐕', "", "...")
    prediction = Captions(NAMES, captions)
    score = evaluate(prediction, SPLIT, metrics=[*BASIC, "vocab"], cache=cache)  # METEOR too
    messages = [finding.message for finding in score.findings]
    assert messages == [
        "the caption of 'c.wav' has no word; it scores 0 in every metric that compares words",
        "the caption of 'd.wav' has no word; it scores 0 in every metric that compares words",
    ]
    for measured in score.metrics.values():
        assert np.isfinite(measured.estimate.value)
    # No caption takes the place of another: one good caption among them scores 1 for its own clip only.
    for place, text in enumerate(["A dog barks.", "Rain falls on a roof."]):
        mixed = list(captions)
        mixed[place] = text
        values = (
            evaluate(Captions(NAMES, tuple(mixed)), SPLIT, metrics=["rouge_l"], cache=cache).metrics["rouge_l"].values
        )
        assert values[place] == 1
        assert not values[2:].any()


def test_references_without_a_word(cache):
    split = Split("evaluation", tuple(replace(clip, captions=("...",)) for clip in SPLIT.clips))
    score = evaluate(GOOD, split, metrics=["bleu_1", "rouge_l", "cider_d", "vocab", "vocab_ratio"], cache=cache)
    assert {name: m.estimate.value for name, m in score.metrics.items() if name[0] in "rc"} == {
        "rouge_l": 0,
        "cider_d": 0,
    }
    assert np.isnan(score.metrics["vocab_ratio"].estimate.value)


def test_a_model_that_fails_loses_no_other_metric(cache, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA out of\nmemory")

    monkeypatch.setattr(fense, "fluency_error", fail)
    score = evaluate(GOOD, SPLIT, metrics=["fer", "rouge_l"], cache=cache)
    assert score.unavailable == {"fer": "failed: CUDA out of memory"}
    assert list(score.metrics) == ["rouge_l"]


def test_an_interrupt_ends_running_processes(cache, tmp_path, monkeypatch):
    """SPICE may take minutes. An interrupt must not wait for it, and must end its process."""
    (tmp_path / "java").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "java").chmod(0o755)
    begun, programs = Event(), []

    def hang(ours, theirs, found, folder, stack):
        running = java.running(java.Java(tmp_path / "java", "11.0.1", "system"), "1G", [], tmp_path)
        programs.append(stack.enter_context(running))
        begun.set()
        programs[0].process.communicate()
        return np.zeros(4)

    def interrupt(*_):
        assert begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(spice, "spice", hang)
    monkeypatch.setattr(word_overlap, "rouge_l", interrupt)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        evaluate(GOOD, SPLIT, metrics=["spice", "rouge_l"], cache=cache)
    assert time.monotonic() - before < 30
    assert programs[0].process.poll() is not None


def test_one_clip_alone(cache):
    alone = Split("evaluation", SPLIT.clips[:1])
    score = evaluate(
        Captions(NAMES[:1], ("A dog barks.",)), alone, metrics=["cider_d", "bleu_1", "rouge_l"], cache=cache
    )
    assert score.metrics["cider_d"].estimate.value == 0
    assert score.metrics["rouge_l"].estimate.value == 1
    assert np.isnan(score.metrics["bleu_1"].estimate.std_error)
    (finding,) = score.findings
    assert "CIDEr-D is 0 for a split with a single clip" in finding.message
    assert "–" in str(score)


def test_the_order_of_rows_changes_nothing(cache):
    back = Captions(GOOD.file_names[::-1], GOOD.captions[::-1])
    one, other = (
        evaluate(prediction, SPLIT, metrics=["cider_d", "bleu_2"], cache=cache) for prediction in (GOOD, back)
    )
    assert one.metrics["bleu_2"].estimate == other.metrics["bleu_2"].estimate
    assert str(one) == str(other)


# ------------------------------------------------------------------------------------------------ order, hostile texts

# The official tool sorts by name, with "A.wav" before "b.wav".
LOOKING = {
    "b.wav": ("an with t t.", ("People talk and shout t.", "a man talks t.")),
    "A.wav": ("a dog barks no.", ("The dog barks no.", "5 dogs bark")),
    "c.wav": ("The rain falls.", ("It rains on a roof", "The rain falls.")),
    "d.wav": ("5 cars pass by.", ("Some cars pass by.", "many cars pass t.")),
    "E.wav": ("A man talks t.", ("the man talks t.", "A man talks loudly t.")),
}


def looking(order):
    clips = tuple(Clip(name, LOOKING[name][1], Path(name)) for name in order)
    return Split("evaluation", clips)


def predicted(order):
    return Captions(tuple(order), tuple(LOOKING[name][0] for name in order), tuple(range(2, 2 + len(order))))


def official_tokens(texts, folder, cache):
    """Return the tokens of COCO's PTBTokenizer, from its own command: it reads a file without a final line break."""
    jar = lay_out_jars(cache) / "stanford_nlp" / "stanford-corenlp-3.4.1.jar"
    (folder / "sentences").write_text("\n".join(texts), encoding="utf-8")
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "sentences"]
    done = subprocess.run([find_java().path, *program], cwd=folder, capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")
    assert len(lines) == len(texts)
    return [" ".join(word for word in text.split() if word not in ptb_tokenizer.PUNCTUATION) for text in lines]


def test_tokens_do_not_depend_on_the_order_of_the_truth(cache, tmp_path):
    names = sorted(LOOKING)
    ours = official_tokens([LOOKING[name][0] for name in names], tmp_path, cache)
    theirs = official_tokens([text for name in names for text in LOOKING[name][1]], tmp_path, cache)
    assert "an with t t" in ours, "the next caption by name begins with The"
    expected = CiderD(ours, [theirs[at : at + 2] for at in range(0, len(theirs), 2)]).scores
    score = evaluate(predicted(LOOKING), looking(LOOKING), metrics=["cider_d"], cache=cache)
    assert score.metrics["cider_d"].estimate.value == expected.mean()
    assert dict(zip(score.items.names, score.metrics["cider_d"].values, strict=True)) == dict(
        zip(names, expected, strict=True)
    )


def test_the_order_of_the_files_changes_no_digit(cache):
    wanted = [*BASIC, "vocab", "vocab_ratio"]
    wanted.remove("meteor")

    def figures(truth, prediction):
        score = evaluate(predicted(prediction), looking(truth), metrics=wanted, interval="bootstrap", cache=cache)
        values = {}
        for name, measured in score.metrics.items():
            if measured.values is not None:
                values[name] = dict(zip(score.items.names, measured.values, strict=True))
        notes = sorted(finding.message for finding in score.findings)
        return {name: measured.estimate for name, measured in score.metrics.items()}, values, notes

    expected = figures(LOOKING, LOOKING)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth, prediction = (rng.permutation(list(LOOKING)).tolist() for _ in range(2))
        assert figures(truth, prediction) == expected


def test_captions_that_depend_on_the_next_one_are_named(cache):
    score = evaluate(predicted(LOOKING), looking(LOOKING), metrics=["bleu_1"], cache=cache)
    assert all(finding.severity == "note" for finding in score.findings)
    place = "ends in a full stop that the official tokeniser keeps or removes depending on how the next caption begins"
    assert all(place in finding.message for finding in score.findings)
    named = [(finding.file, finding.line, finding.column, finding.message.split()[3]) for finding in score.findings]
    assert named == [
        ("prediction", 3, "", "'A.wav'"),
        ("prediction", 6, "", "'E.wav'"),
        ("prediction", 2, "", "'b.wav'"),
        ("evaluation", 0, "caption_1", "'A.wav'"),
        ("evaluation", 0, "caption_1", "'E.wav'"),
        ("evaluation", 0, "caption_2", "'E.wav'"),
        ("evaluation", 0, "caption_1", "'b.wav'"),
        ("evaluation", 0, "caption_2", "'b.wav'"),
        ("evaluation", 0, "caption_2", "'d.wav'"),
    ]


@pytest.mark.parametrize("opening", ["<a href='", '<a href="', "<!--x", "<?x", "<b", "x <a b='"])
def test_markup_in_two_captions_changes_no_other(cache, opening):
    names = tuple(f"{number:02}.wav" for number in range(6))
    texts = ("A dog barks.", "Rain falls on a roof.", "A man speaks.", "Water runs.", "A car passes by.", "Birds sing.")
    split = Split("evaluation", tuple(Clip(name, (text,), Path(name)) for name, text in zip(names, texts, strict=True)))
    closing = "'\"> a bell"
    hostile = (opening, *texts[1:4], closing, texts[5])
    score = evaluate(Captions(names, hostile, tuple(range(2, 8))), split, metrics=["rouge_l"], cache=cache)
    assert list(score.metrics["rouge_l"].values[[1, 2, 3, 5]]) == [1, 1, 1, 1]
    (finding,) = score.findings
    assert (finding.line, finding.severity) == (2, "warning")
    assert finding.message.startswith("the caption of '00.wav' should be plain words; found the markup ")


def test_special_tokens_as_in_the_official_tool(cache, tmp_path):
    """The exception is a full stop before them: here the markup of a caption changes no other caption."""
    texts = ["a dog <unk> barks <eos>", "<sos> rain falls . <eos>", "<pad>", "[SEP] a man talks [CLS]", "</s> <|x|> t."]
    assert ptb_tokenize(texts, find_java(), cache) == official_tokens(texts, tmp_path, cache)
    after = ["a man talks t.", "<sos> rain falls"]
    assert ptb_tokenize(after, find_java(), cache)[0] == "a man talks t."
    assert official_tokens(after, tmp_path, cache)[0] == "a man talks t"


def test_a_caption_brings_no_reference_of_its_own(cache, monkeypatch):
    """A `|||` in a caption would separate references in a request to METEOR."""
    given = {}

    class Recorder:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def statistics(self, candidates, references):
            given.update(candidates=candidates, references=references)
            return np.ones((len(candidates), 23))

    monkeypatch.setattr(meteor, "Meteor", Recorder)
    long = " ".join(["dog"] * 20_000)
    captions = ("<!zqav|||!zqav>", long, "a\x00dog <|endoftext|>", "x" * 1_000_000)
    score = evaluate(Captions(NAMES, captions, (2, 3, 4, 5)), SPLIT, metrics=["meteor", "rouge_l"], cache=cache)
    assert not score.unavailable
    by_name = dict(zip(sorted(NAMES), given["candidates"], strict=True))
    assert [by_name[name] for name in NAMES] == [
        "< zqav | | | zqav >",
        " ".join(["dog"] * 500),
        "a dog < | endoftext | >",
        "x" * 3000,
    ]
    said = [f"{finding.line}: {finding.message}" for finding in score.findings]
    limit = "should have at most 500 words and 3000 characters; found"
    assert said == [
        f"2: the caption of {NAMES[0]!r} should be plain words; found the markup '<!zqav|||!zqav>': remove it",
        f"3: the caption of {NAMES[1]!r} {limit} 20000 words and 79999 characters: the rest is not read",
        f"4: the caption of {NAMES[2]!r} should be plain words; found the special token '<|endoftext|>': "
        "remove such tokens when decoding",
        f"5: the caption of {NAMES[3]!r} {limit} 1 words and 1000000 characters: the rest is not read",
    ]


def test_a_long_reference_is_named(cache):
    long = tuple(replace(clip, captions=("dog " * 2000, *clip.captions)) for clip in SPLIT.clips[:2])
    score = evaluate(Captions(NAMES[:2], ("a dog", "rain")), Split("evaluation", long), metrics=["bleu_1"], cache=cache)
    assert [(finding.file, finding.column, finding.severity) for finding in score.findings] == [
        ("evaluation", "caption_1", "warning")
    ] * 2
    assert "the reference of 'comma, " in score.findings[1].message
    assert "found 2000 words and 7999 characters" in score.findings[1].message


def test_twenty_of_a_kind_are_listed_and_the_rest_counted():
    names = tuple(f"{number}.wav" for number in range(50))
    split = Split("evaluation", tuple(Clip(name, ("a",), Path(name)) for name in names))
    captions = ("a <unk>",) * 30 + ("...",) * 20
    findings = limited(validate(split, Captions(names, captions, tuple(range(2, 52))), "it.csv"))
    assert len(findings) == 41
    special = [finding for finding in sorted(findings) if "special token" in finding.message]
    assert str(special[0]) == (
        "it.csv:2: warning: the caption of '0.wav' should be plain words; found the special token '<unk>': "
        "remove such tokens when decoding"
    )
    assert str(special[-1]).startswith("it.csv: warning: and 10 more of this kind: the caption of '20.wav' should be")


def test_captions_beyond_the_split_s_are_left_out(cache):
    more = Captions((*NAMES, "else.wav"), (*GOOD.captions, "A dog barks."))
    one, other = (evaluate(prediction, SPLIT, metrics=["cider_d"], cache=cache) for prediction in (GOOD, more))
    assert one.metrics["cider_d"].estimate == other.metrics["cider_d"].estimate
    (finding,) = other.findings
    assert finding.severity == "note"
    assert finding.message == "skipped the captions of 1 clip not in the split, for example 'else.wav'"


def test_predictions_that_are_references_give_a_warning(cache):
    clips = tuple(Clip(f"{number}.wav", (f"Dog {number} barks.", "Rain."), Path("x")) for number in range(16))
    split = Split("evaluation", clips)
    warnings = {}
    for equal in (0, 4, 5, 16):
        captions = [f"Dog  {number} barks." if number < equal else "A cat." for number in range(16)]
        score = evaluate(Captions(split.file_names, tuple(captions)), split, metrics=["rouge_l"], cache=cache)
        warnings[equal] = [str(finding) for finding in score.findings if "warning" in finding.severity]
    assert warnings[0] == warnings[4] == []
    expected = "evaluation: warning: predictions should not equal references of their clips; {} of 16 do: is this the"
    for equal in (5, 16):
        (warning,) = warnings[equal]
        assert warning.startswith(expected.format(equal))


def test_golden_tokens_are_scored_as_given(golden, golden_split, golden_prediction, cache):
    """The golden captions and references are tokens already."""
    metrics = ("cider_d", "rouge_l", "bleu_4")
    score = evaluate(golden_prediction, golden_split, metrics=metrics, tokenized=captioning.TOKENIZED, cache=cache)
    assert [finding for finding in score.findings if finding.severity != "note"] == []
    for name in metrics:
        assert score.metrics[name].estimate.value == pytest.approx(golden[2][name], abs=1e-9)
    assert parts(score)["tokenizer"] == "none-tokens-as-given-500-words"


def test_only_the_given_texts_are_tokens(cache):
    split = Split(
        "evaluation", (Clip("a.wav", ("a dog 's bark",), Path("a")), Clip("b.wav", ("it 's rain",), Path("b")))
    )
    captions = Captions(("a.wav", "b.wav"), ("A dog's bark.", "It's rain."))
    scores = {}
    for tokenized in ((), ("predictions",), ("references",), captioning.TOKENIZED):
        score = evaluate(captions, split, metrics=["bleu_1"], tokenized=tokenized, cache=cache)
        scores[tokenized] = (score.metrics["bleu_1"].estimate.value, parts(score)["tokenizer"])
    assert scores[()][0] == scores[("references",)][0] == pytest.approx(1)
    assert scores[("predictions",)][0] == scores[captioning.TOKENIZED][0] == pytest.approx(0)
    assert len({signature for _, signature in scores.values()}) == 4
    with pytest.raises(BadRequest, match="unknown tokenized 'prediction'; did you mean 'predictions'"):
        evaluate(captions, split, tokenized=["prediction"], cache=cache)


def parts(score):
    return dict(part.split(":", 1) for part in score.signature.split("|"))


def test_signature_names_all_that_changes_the_number(cache):
    score = evaluate(GOOD, SPLIT, metrics=["cider_d"], cache=cache)
    assert re.sub("#[0-9a-f]{8}", "#…", score.signature) == (
        "dcase-kit:0.2.0|split:evaluation#…|clips:4|references:1-3|"
        "tokenizer:ptb-3.4.1-coco-lowercase-no-punctuation-by-file-name-safe-markup-500-words|"
        "missing,repeated:error|extra:left-out|"
        f"cider_d:idf-of-split-left-out-fixed|interval:jackknife-95-normal|numpy:{np.__version__}"
    )
    for other, differs in [
        (evaluate(GOOD, SPLIT, metrics=["cider_d", "vocab"], cache=cache), set()),
        (evaluate(GOOD, SPLIT, metrics=["cider_d"], interval="bootstrap", cache=cache), {"interval"}),
        (evaluate(GOOD, SPLIT, metrics=["cider_d"], idf="exact", cache=cache), {"cider_d"}),
        (
            evaluate(
                GOOD,
                Split("evaluation", (replace(SPLIT.clips[0], captions=("One.",)), *SPLIT.clips[1:])),
                metrics=["cider_d"],
                cache=cache,
            ),
            {"split"},
        ),
    ]:
        one, two = parts(score), parts(other)
        assert {key for key in one if one[key] != two[key]} == differs


def test_the_signature_names_what_was_computed_and_nothing_else(cache, monkeypatch):
    words = evaluate(GOOD, SPLIT, metrics=["bleu_1", "rouge_l", "cider_d", "fense", "spider"], cache=cache)
    assert {"bleu", "rouge_l", "cider_d"} < parts(words).keys()
    assert not {"meteor", "fer", "sbert_sim", "bert_score", "spice"} & parts(words).keys()
    for module, function in MODELS:
        monkeypatch.setattr(module, function, lambda *_: np.zeros(4))
    monkeypatch.setattr(assets, "identity", lambda part: f"{part}@12345678")
    everything = parts(evaluate(GOOD, SPLIT, metrics=["fense", "spider", "bert_score"], cache=cache))
    assert everything["spice"] == "1.0-corenlp-3.6.0-100-words"
    for part, model in (("fer", "fluency"), ("sbert_sim", "sbert"), ("bert_score", "bert")):
        assert everything[part].startswith(f"{model}@12345678+")
        assert f"transformers-{version('transformers')}+torch-{version('torch')}" in everything[part]
    assert ("aac-metrics" in everything["fer"]) and ("aac-metrics" not in everything["bert_score"])


def test_requests_of_sets_and_metrics():
    assert resolve_metrics(["dcase2024"]).interval == "bootstrap"
    assert resolve_metrics(["dcase2023"]).interval == "jackknife"
    assert resolve_metrics(["basic"]).metrics == BASIC
    assert resolve_metrics(["all"]).metrics == METRICS
    assert resolve_metrics(["bleu_1", "bleu_1", "meteor"]).metrics == ("bleu_1", "meteor")


def test_a_set_with_an_unknown_metric_is_refused(monkeypatch):
    sets = {"dcase2031": MetricSet(("fensee",))}
    monkeypatch.setattr(captioning, "year_sets", lambda kind: sets)
    with pytest.raises(BadRequest, match="unknown metric 'fensee'; did you mean 'fense'"):
        resolve_metrics(["dcase2031"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["cider"]}, "unknown metric 'cider'; did you mean 'cider_d'?"),
        ({"metrics": ["SPIDEr-FL"]}, "did you mean 'spider_fl'?"),
        ({"metrics": ["dcase2020", "fense"]}, "unknown metric 'dcase2020'"),
        ({"interval": "t"}, "unknown interval 't'"),
        ({"idf": "exakt"}, "unknown idf 'exakt'; did you mean 'exact'?"),
        (
            {"idf": "exact", "interval": "bootstrap"},
            "works only with the interval jackknife or jackknife-t; found bootstrap",
        ),
    ],
)
def test_bad_requests(cache, options, message):
    with pytest.raises(BadRequest) as refusal:
        evaluate(GOOD, SPLIT, cache=cache, **options)
    assert message in str(refusal.value)


def test_a_blind_split_cannot_be_scored(cache):
    blind = Split("test", (Clip("a.wav", (), Path("a.wav")),))
    with pytest.raises(BadRequest, match="every clip of the split test must have a reference caption"):
        evaluate(Captions(("a.wav",), ("A dog.",)), blind, cache=cache)


def test_no_java_at_all(monkeypatch, cache):
    monkeypatch.setattr(captioning, "find_java", lambda: _refuse("java"))
    with pytest.raises(BadRequest, match="java is not on this machine"):
        evaluate(GOOD, SPLIT, metrics=["bleu_1"], cache=cache)


# ------------------------------------------------------------------------------------------------ validate


@pytest.mark.parametrize(
    ("prediction", "messages"),
    [
        (
            Captions(NAMES[:3], GOOD.captions[:3]),
            ["no caption for clip 'd.wav'"],
        ),
        (
            Captions(("leading blank.wav", *NAMES[1:3]), GOOD.captions[:3]),
            [
                "no caption for clip ' leading blank.wav'; there is 'leading blank.wav', and names are compared "
                "verbatim",
                "no caption for clip 'd.wav'",
                "skipped the captions of 1 clip not in the split, for example 'leading blank.wav'",
            ],
        ),
        (
            Captions((*NAMES, "c.wav"), (*GOOD.captions, "Again."), (2, 3, 4, 5, 6)),
            ["clip 'c.wav' has another caption in line 4; give each clip one caption"],
        ),
        (
            Captions((*NAMES, "c.wav"), (*GOOD.captions, "Again.")),
            ["clip 'c.wav' has more than one caption; give each clip one caption"],
        ),
        (
            Captions(("x.wav", "y.wav"), ("A.", "B.")),
            ["names none of evaluation's 4 clips; is this the prediction of another split or data set?"],
        ),
        (Captions((), ()), ["has no rows; give one for each of evaluation's 4 clips"]),
    ],
)
def test_validate_refuses(prediction, messages):
    with pytest.raises(Faulty) as faulty:
        validate(SPLIT, prediction)
    assert sorted(finding.message for finding in faulty.value.findings) == sorted(messages)


def test_names_that_all_differ_alike_are_one_finding(tmp_path):
    rows = [f"{number}.wav,A dog no. {number}." for number in range(9)]
    (tmp_path / "captions_test.csv").write_text("\n".join(["file_name,caption_1", *rows]))
    split = read_dataset(tmp_path, "test", sound=False)["test"]
    prediction = Captions(tuple(f"x/{number}" for number in range(9)), ("A dog.",) * 9, tuple(range(2, 11)))
    with pytest.raises(Faulty) as faulty:
        validate(split, prediction, "it.csv")
    assert str(faulty.value) == (
        "it.csv:2: error: all 9 names differ from the data's only in the folder before the name and their extension: "
        "'x/0' where the data have '0.wav'; write the names as in captions_test.csv"
    )


def test_the_captions_of_another_split_name_it(tmp_path):
    for name in ("validation", "evaluation"):
        rows = [f"{name} {number}.wav,A dog." for number in range(9)]
        (tmp_path / f"captions_{name}.csv").write_text("\n".join(["file_name,caption_1", *rows]))
    split = read_dataset(tmp_path, sound=False)["evaluation"]
    prediction = Captions(tuple(f"validation {number}.wav" for number in range(9)), ("A dog.",) * 9)
    with pytest.raises(Faulty) as faulty:
        validate(split, prediction, "it.csv")
    assert str(faulty.value) == (
        "it.csv: error: names none of evaluation's 9 clips; these names are of the split validation; give the "
        "prediction of evaluation, or give --split validation"
    )


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def run(capsys, tmp_path, cache):
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "captions_evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption_1", "caption_2"])
        writer.writerows(
            [name, texts[0], texts[-1] if len(texts) > 1 else texts[0] + " Yes."]
            for name, texts in zip(NAMES, REFERENCES, strict=True)
        )
    with (tmp_path / "good.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([CAPTION_COLUMNS, *zip(NAMES, GOOD.captions, strict=True)])

    def score(*options, prediction=tmp_path / "good.csv"):
        given = ["score", "captions", "--truth", folder, "--prediction", prediction, "--cache", cache, *options]
        status = command(__main__.parser(), [str(each) for each in given])
        return status, *capsys.readouterr()

    return score


def test_score(run, tmp_path):
    status, out, err = run("--metrics", "cider_d", "bleu_1", "rouge_l", "--json", tmp_path / "new" / "score.json")
    assert (status, err) == (0, "")
    header, _, *rows, signature = out.splitlines()
    assert re.split("  +", header) == ["metric", "value", "95 % interval", "clips"]
    assert [row.split()[0] for row in rows] == ["cider_d", "bleu_1", "rouge_l"]
    assert signature.startswith("signature: dcase-kit:")
    saved = json.loads((tmp_path / "new" / "score.json").read_text(encoding="utf-8"))
    assert saved["items"]["names"] == list(NAMES)
    assert saved["items"]["kind"] == "clips"
    assert str(Score.load(tmp_path / "new" / "score.json")) == out.strip()


@pytest.fixture
def no_meteor(monkeypatch):
    """Simulate that METEOR is not available. No table of paraphrases is made for it, which would take many seconds."""
    monkeypatch.setattr(meteor, "Meteor", lambda *_: _refuse("meteor"))
    monkeypatch.setattr(meteor, "make_paraphrase_table", lambda *_: None)


def test_the_metric_that_ranks_is_missing(run, no_meteor, tmp_path):
    """The other metrics are printed, and the exit status is 1."""
    status, out, err = run("--metrics", "dcase2023", "--json", tmp_path / "score.json")
    assert status == 1
    assert err == "error: spider_fl, which ranks the systems, is not available\n"
    assert re.search(r"cider_d +\d", out)
    assert re.search(r"spider_fl +not available", out)
    assert "dcase-evaluation download spice" in out


def test_a_metric_asked_for_by_name_is_missing(run):
    status, out, err = run("--metrics", "cider_d", "spice", "spider")
    assert (status, err) == (1, "error: spice is not available\nerror: spider is not available\n")
    assert "dcase-evaluation download spice" in out


def test_a_metric_of_a_set_that_does_not_rank_is_missing(run, monkeypatch):
    monkeypatch.setattr(captioning, "year_sets", lambda kind: {"dcase2020": MetricSet(("cider_d", "spice"))})
    status, out, err = run("--metrics", "dcase2020")
    assert (status, err) == (0, "")
    assert "dcase-evaluation download spice" in out


def test_dcase2024_draws(run, no_meteor):
    status, out, _ = run("--metrics", "dcase2024")
    assert status == 1
    assert "interval:bootstrap-95-9999-seed-0" in out
    assert "interval:jackknife-95-normal" in run("--metrics", "dcase2024", "--interval", "jackknife")[1]


def test_bad_input(run, tmp_path):
    assert run(prediction=tmp_path / "none.csv")[::2] == (
        2,
        f"error: {tmp_path}/none.csv: no such file; give a CSV with the columns file_name and caption_predicted\n",
    )
    status, out, err = run("--metrics", "cider")
    assert (status, out) == (2, "")
    assert "did you mean 'cider_d'" in err
    bad = tmp_path / "bad.csv"
    bad.write_text("file_name,caption_predicted\nc.wav,A.\nc.wav,B.\n")
    status, out, err = run(prediction=bad)
    assert (status, out) == (1, "")
    assert f"{bad}:3: error: clip 'c.wav' has another caption in line 2" in err
    assert err.count("no caption for clip") == 3
