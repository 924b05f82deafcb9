import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.data.dataset import read_dataset
from evaluation.metrics import ptb_tokenizer
from evaluation.metrics.java import Java, Unavailable, find_java, lay_out_jars
from evaluation.metrics.ptb_tokenizer import depends_on_next, ptb_tokenize
from tests.evaluation.metrics.fake_java import HOSTILE, fake_java


@pytest.fixture(scope="module")
def machine() -> Java:
    return find_java()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_tokenise(machine, cache):
    assert ptb_tokenize(HOSTILE, machine, cache) == [
        "a dog 's bark twice",
        "",
        "two lines",
        "a tab a return and a vertical feed",
        "separators of lines and files",
        "",
        "",
        "she said hello twice",
        "emoji and and é",
        "a | | | b",
        "null byte mark",
        "-lrb- -lrb- paren -rrb- -lsb- bracket -rsb- -lcb- brace -rcb-",
        "a broken surrogate",
        "< zqav | | | zqav > < a | | | b > < c | | | d >",
        "< a href =",
        "</b>",
        "> and < a href =",
        "< a | | | b >",
        "* nl * eval | | | 1 score",
        "me@home.org and http://a.b/c | | | d",
        "x" * 3000,
        "",
        "",
    ]
    assert ptb_tokenize([], machine, cache) == []
    assert ptb_tokenize([""], machine, cache) == [""]


def test_equals_aac_metrics_on_clotho(shared, machine, cache):
    from aac_metrics.utils.tokenization import preprocess_mono_sents

    split = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    captions = [caption for clip in split.clips for caption in clip.captions]
    lay_out_jars(cache)
    theirs = preprocess_mono_sents(captions, cache_path=cache, java_path=str(machine.path))
    assert ptb_tokenize(captions, machine, cache) == theirs


def test_a_caption_s_tokens_do_not_depend_on_its_neighbours(shared, machine, cache):
    """The next line decides whether some full stops stay. No caption of Clotho ends like that."""
    dataset = read_dataset(shared / "clotho", sound=False)
    captions = [caption for split in dataset.splits.values() for clip in split.clips for caption in clip.captions]
    captions += ["It is in the U.S.", "It is Inc.", "The end etc.", "Then at 5 p.m.", "No. 5"]
    order = np.random.default_rng(0).permutation(len(captions))
    tokens = ptb_tokenize(captions, machine, cache)
    assert ptb_tokenize([captions[index] for index in order], machine, cache) == [tokens[index] for index in order]
    assert depends_on_next(captions, machine, cache) == []


def test_captions_that_depend_on_the_next_one_are_known(machine, cache):
    captions = ["an with t t.", "The dog", "take no.", "5 dogs", "a stop.", "in the U.S.", "see p.m.", "a cat, e.g. b."]
    depending = depends_on_next(captions, machine, cache)
    assert depending == [0, 2, 7]
    tokens = ptb_tokenize(captions, machine, cache)
    assert (tokens[0], tokens[2]) == ("an with t t", "take no.")
    back = ptb_tokenize(captions[::-1], machine, cache)[::-1]
    assert (back[0], back[2]) == ("an with t t.", "take no")
    assert [place for place in range(len(captions)) if tokens[place] != back[place]] == [0, 2]
    assert depends_on_next(["a dog barks."], Java(cache / "none", "11", "none"), cache) == [], "needs no JVM"


# Each example starts Java, so there are few examples with many texts.
MARKUP = st.text("<>!?/ab='\"|& \ud800\n\x00-t.", max_size=12)


@given(st.lists(MARKUP, min_size=20, max_size=60))
@settings(deadline=None, max_examples=2)
def test_markup_changes_no_other_caption_and_is_no_protocol(machine, cache, hostile):
    """Any text of marks gets the same tokens as it does alone, and changes no other caption's tokens."""
    lines = [text for caption in hostile for text in (caption, "a dog t.")]
    tokens = ptb_tokenize(lines, machine, cache)
    assert set(tokens[1::2]) == {"a dog t."}
    assert not any("|||" in text for text in tokens)
    other = ptb_tokenize([text for caption in reversed(hostile) for text in (caption, "a dog t.")], machine, cache)
    assert other[::2] == tokens[::2][::-1]


@given(st.lists(st.text(), min_size=20, max_size=60))
@settings(deadline=None, max_examples=3)
def test_lines_never_shift(machine, cache, sentences):
    marked = [text for number, sentence in enumerate(sentences) for text in (sentence, f"marker{number}")]
    tokens = ptb_tokenize(marked, machine, cache)
    assert tokens[1::2] == [f"marker{number}" for number in range(len(sentences))]
    assert not any("\n" in text for text in tokens)


def test_the_machine_s_locale_changes_nothing(machine, cache, monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII")
    assert ptb_tokenize(["Café in 3.5 sizes"], machine, cache) == ["café in 3.5 sizes"]


def test_answers_are_kept_by_content(machine, tmp_path, monkeypatch):
    captions = ["A dog barks.", "Rain."]
    ptb_tokenize(["Never kept."], machine, tmp_path)
    assert not (tmp_path / "ptb").exists()
    first = ptb_tokenize(captions, machine, tmp_path, keep=True)
    (kept,) = (tmp_path / "ptb").iterdir()

    runs = []
    run = ptb_tokenizer.running
    monkeypatch.setattr(ptb_tokenizer, "running", lambda *given: runs.append(given) or run(*given))
    assert ptb_tokenize(captions, machine, tmp_path, keep=True) == first
    assert not runs
    assert ptb_tokenize(captions[::-1], machine, tmp_path, keep=True) == first[::-1]
    assert len(runs) == 1
    content = json.loads(kept.read_text())
    changed = json.dumps(content | {"tokens": ["another", "rain"]})
    for broken in ("{", '"text"', "[]", json.dumps(["one", "two"]), changed, '{"tokens": 1, "sha256": 2}'):
        kept.write_text(broken)
        assert ptb_tokenize(captions, machine, tmp_path, keep=True) == first
        assert json.loads(kept.read_text()) == content
    assert len(runs) == 7


def test_a_tokeniser_that_fails(tmp_path):
    broken = Java(fake_java(tmp_path / "bin", "echo 'no memory' >&2; exit 1") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match=r"the tokeniser failed on Java 11.0.1 \(.*\): no memory"):
        ptb_tokenize(["a"], broken, tmp_path)
    short = Java(fake_java(tmp_path / "short", "cat > /dev/null; printf one") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match="it printed 1 lines for 2 sentences"):
        ptb_tokenize(["a", "b"], short, tmp_path)


def test_a_tokeniser_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(ptb_tokenizer, "SECONDS", 0.3)
    endless = Java(fake_java(tmp_path / "bin", "exec sleep 60") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match="the tokeniser did not finish within"):
        ptb_tokenize(["a"], endless, tmp_path)
