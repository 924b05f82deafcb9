import contextlib
import gzip
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import meteor
from evaluation.metrics.java import Java, Unavailable, find_java, lay_out_jars
from evaluation.metrics.meteor import Meteor
from evaluation.metrics.ptb_tokenizer import ptb_tokenize
from evaluation.statistics.intervals import from_left_out, pseudo_values
from tests.evaluation.metrics.fake_java import HOSTILE, fake_java
from tests.evaluation.metrics.small_tables import make_small_table


@pytest.fixture(scope="module")
def machine() -> Java:
    return find_java()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_meteor_of_hostile_captions_in_a_hostile_folder(machine, tmp_path, monkeypatch):
    """Each caption keeps its statistics: in a folder with a blank, a colon and an umlaut, and under other locales."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII")
    monkeypatch.setenv("LC_ALL", "C")
    folder = tmp_path / "a blank, a colon: and ü"
    captions = ptb_tokenize([*HOSTILE, "a dog barks"], machine, folder)
    references = [["a dog barks loudly", "rain"]] * len(captions)
    with Meteor(machine, folder, make_small_table(references[0], folder)) as process:
        statistics = process.statistics(captions, references)
    assert statistics.shape == (len(captions), 23)
    lengths = [len(caption.split()) for caption in captions]
    plain = [index for index, caption in enumerate(captions) if caption.replace(" ", "").isalpha()]
    assert plain
    np.testing.assert_array_equal(statistics[plain, 0], np.array(lengths)[plain])
    assert list(statistics[-1, [0, 1, 20, 21, 22]]) == [3, 4, 1, 3, 3]
    assert not statistics[[index for index, length in enumerate(lengths) if not length], 21].any()


def test_a_meteor_that_dies(tmp_path):
    broken = Java(fake_java(tmp_path / "bin", "echo 'Error: no memory' >&2; exit 1") / "java", "11.0.1", "system")
    with Meteor(broken, tmp_path) as process, pytest.raises(Unavailable, match="METEOR failed: Error: no memory"):
        process.statistics(["a dog"] * 20_000, [["a dog barks"]] * 20_000)  # more than a pipe holds


def test_meteor_ends_with_its_block(machine, tmp_path):
    with Meteor(machine, tmp_path) as process:
        popen = process._program.process
        assert popen.poll() is None
    assert popen.poll() is not None


def test_no_caption_separates_captions_for_meteor(machine, tmp_path):
    """For any text, METEOR reads one candidate and the right number of references."""
    reference = "a dog barks"
    hostile = [
        "zqav ||| a dog barks",
        "zqav\nSCORE ||| a ||| a dog barks",
        "zqav|||||a dog barks",
        "\udc80\r\x85|||\u2028a",
    ]
    sent = []
    with fake_meteor(tmp_path, sent) as process:
        process.statistics(hostile, [[reference, text] for text in hostile])
    assert len(sent) == len(hostile)
    for request in sent:
        command, *references, candidate = request.split("|||")
        assert (command, len(references)) == ("SCORE ", 2)
        assert references[0] == f" {reference} "
        assert candidate == references[1].rstrip() or candidate.rstrip() == references[1].rstrip()


@contextlib.contextmanager
def fake_meteor(folder, sent):
    """A stand-in for METEOR that stores its requests, split into lines as Java does, and answers 23 numbers."""
    answer = "echo " + " ".join(["1"] * 23)
    script = f"while IFS= read -r line; do printf '%s\\n' \"$line\" >> '{folder}/sent'; {answer}; done"
    with Meteor(Java(fake_java(folder / "bin", script) / "java", "11.0.1", "system"), folder) as process:
        yield process
    sent += re.split("\r\n|\r|\n", (folder / "sent").read_text(encoding="utf-8").removesuffix("\n"))


def test_a_meteor_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(meteor, "SECONDS", 0.3)
    endless = Java(fake_java(tmp_path / "bin", "exec sleep 60") / "java", "11.0.1", "system")
    with Meteor(endless, tmp_path) as process, pytest.raises(Unavailable, match="METEOR did not finish within"):
        process.statistics(["a"], [["a"]])


def test_a_damaged_table_of_paraphrases_is_made_again(tmp_path, monkeypatch):
    rows = [("0.5", "a dog", "a hound"), ("0.4", "a dog", "the dog"), ("0.3", "some rain", "a shower")]
    folder = tmp_path / "jars" / "meteor" / "data"
    folder.mkdir(parents=True)
    with gzip.open(folder / "paraphrase-en.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{cell}\n" for row in rows for cell in row)
    monkeypatch.setattr(meteor, "lay_out_jars", lambda cache: tmp_path / "jars")
    table = meteor.make_paraphrase_table(["a dog"], tmp_path)
    whole = table.read_bytes()
    assert gzip.decompress(whole).decode().split("\n")[:-1] == [cell for row in rows[:2] for cell in row]
    shorter = gzip.compress(gzip.decompress(whole)[: len(gzip.decompress(whole)) // 2])
    for damaged in (whole[: len(whole) // 4], shorter, b""):
        table.write_bytes(damaged)
        assert meteor.paraphrase_table(["a dog"], tmp_path) is None
        assert meteor.make_paraphrase_table(["a dog"], tmp_path) == table
        assert table.read_bytes() == whole
    table.with_suffix(".sha256").unlink()  # as for tables of older versions
    assert meteor.paraphrase_table(["a dog"], tmp_path) is None


def test_an_interrupted_table_of_paraphrases_leaves_nothing(tmp_path, monkeypatch):
    whole = tmp_path / "jars" / "meteor" / "data" / "paraphrase-en.gz"
    whole.parent.mkdir(parents=True)
    whole.write_bytes(gzip.compress(b"0.5\na dog\na hound\n0.4\ncut")[:-9])  # the last paraphrase is cut off
    monkeypatch.setattr(meteor, "lay_out_jars", lambda cache: tmp_path / "jars")
    with pytest.raises(EOFError):
        meteor.make_paraphrase_table(["a dog barks"], tmp_path)
    assert not list((tmp_path / "meteor").iterdir())


def test_meteor_says_what_the_jar_says(tmp_path):
    """Each caption, the corpus, and the corpus without each caption: METEOR's own EVAL, in one process.

    The captions have no match, some, one reference word for word, paraphrases, and nothing at all.
    """
    predicted = [
        "a dog barks",
        "the car is driving fast",
        "rain",
        "",
        "a man speaks and a crowd cheers",
        "water is poured",
    ]
    references = [
        ["a dog barks", "a hound is barking"],
        ["an automobile drives quickly", "a vehicle passes by at high speed"],
        ["birds sing in the morning"],
        ["a door shuts", "it shuts"],
        ["a person talks while people clap", "a crowd cheers as a man speaks", "someone speaks"],
        ["someone pours water into a glass"],
    ]
    java, jar = find_java(), lay_out_jars(tmp_path) / "meteor" / "meteor-1.5.jar"
    table = make_small_table([text for texts in references for text in texts], tmp_path)
    lines = ["SCORE ||| " + " ||| ".join([*texts, text]) for text, texts in zip(predicted, references, strict=True)]
    with subprocess.Popen(
        [java.path, "-Xmx2G", "-jar", jar, "-", "-", "-stdio", "-l", "en", "-norm", "-a", table],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(line: str, answers: int) -> list[str]:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return [process.stdout.readline().strip() for _ in range(answers)]

        raw = [ask(line, 1)[0] for line in lines]
        said = ask("EVAL ||| " + " ||| ".join(raw), len(raw) + 1)
        without = [ask("EVAL ||| " + " ||| ".join(raw[:i] + raw[i + 1 :]), len(raw))[-1] for i in range(len(raw))]
        process.kill()
    with Meteor(java, tmp_path, table) as ours:
        statistics = ours.statistics(predicted, references)
    np.testing.assert_allclose(meteor.meteor(statistics), np.array(said[:-1], dtype=float), rtol=0, atol=1e-14)
    assert meteor.meteor(statistics.sum(axis=0)) == pytest.approx(float(said[-1]), abs=1e-14)
    value, values = pseudo_values(statistics, meteor.meteor)
    np.testing.assert_allclose(values, from_left_out(value, np.array(without, dtype=float)), rtol=0, atol=1e-12)
    assert meteor.meteor(statistics)[0] == 1  # equal word by word, so without fragmentation penalty
    assert 0 < value < 1
