"""SPICE with a stand-in for its parser, and the class that prints its answer."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from evaluation import assets
from evaluation.metrics import spice
from evaluation.metrics.java import Java, find_java, lay_out_jars, source_jar
from tests.evaluation.tiny_models import refused

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
    """Make CoreNLP's two jars with a parser that treats every word as a noun, so SPICE is F1 over the sets of words."""
    if not shutil.which("javac"):
        pytest.skip("there is no javac on this machine")
    root = tmp_path_factory.mktemp("parser")
    files = []
    for name, source in STUBS.items():
        files.append(root / "edu" / "stanford" / "nlp" / f"{name}.java")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(f"package edu.stanford.nlp.{name.rpartition('/')[0].replace('/', '.')}; {source}")
    subprocess.run(["javac", "-nowarn", "--release", "8", *files], cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(root / assets.CORENLP[0], "w") as jar:
        for path in root.rglob("*.class"):
            jar.write(path, path.relative_to(root))
    with zipfile.ZipFile(root / assets.CORENLP[1], "w") as jar:
        jar.writestr("models", "")
    return root


def test_spice_on_the_java_that_is_there(nothing, parser_jars, monkeypatch):
    theirs = nothing.parent / "theirs" / "aac-metrics" / "spice" / "lib"
    theirs.mkdir(parents=True)
    for jar in assets.CORENLP:
        shutil.copy(parser_jars / jar, theirs)
    assert assets.missing("spice", nothing) is None
    long = "dog barks" + " dog" * 200 + " runs"  # SPICE reads the first hundred words
    captions = ["dog barks", "", "birds sing loudly", "🐕", long, 'say "dog" \\ {x} \u2028 [1]']
    references = [["dog barks", "dog runs"], ["rain"], ["loudly birds sing"], ["", "car"], ["dog barks"], ["x y"]]
    monkeypatch.chdir(nothing.parent)
    with ExitStack() as stack:
        found = spice.spice(captions, references, find_java(), Path("cache"), stack)
        np.testing.assert_allclose(found, [0.8, 0, 1, 0, 1, 0])  # the first: precision 2 / 2, recall 2 / 3
        assert spice.spice([], [], find_java(), nothing, stack).shape == (0,)
        np.testing.assert_allclose(spice.spice(captions[:1], references[:1], find_java(), nothing, stack), [0.8])
    lib = nothing / "aac-metrics" / "spice" / "lib"
    assert all((lib / jar).resolve() == (theirs / jar).resolve() for jar in assets.CORENLP)


def test_aac_metrics_cannot_run_spice_on_that_java(nothing, parser_jars, tmp_path):
    from aac_metrics.functional import spice

    lib = lay_out_jars(nothing) / "spice" / "lib"
    for jar in assets.CORENLP:
        shutil.copy(parser_jars / jar, lib)
    (lib / "SceneGraphParser-1.0.jar").unlink()  # replaced by the stub
    shutil.copy(parser_jars / assets.CORENLP[0], lib / "SceneGraphParser-1.0.jar")
    (lib.parent / "cache").mkdir()
    where = {"cache_path": nothing, "java_path": find_java().path, "tmp_path": tmp_path, "java_max_memory": "1G"}

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


def test_the_java_class_belongs_to_its_source(tmp_path):
    source = spice.CLASSES / "edu" / "anu" / "spice" / "Scores.java"
    recorded = (spice.CLASSES / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in recorded, "Scores.java has changed: compile it, and record its SHA-256 in README.md"
    if not shutil.which("javac"):
        return
    jars = [source_jar("spice/spice-1.0.jar"), source_jar("spice/lib/json-simple-1.1.1.jar")]
    path = os.pathsep.join(map(str, jars))
    program = ["javac", "-nowarn", "-g:none", "--release", "8", "-cp", path, "-d", tmp_path, source]
    subprocess.run(program, check=True, capture_output=True)
    assert (tmp_path / spice.SCORES).read_bytes() == (spice.CLASSES / spice.SCORES).read_bytes()


def test_links_to_jars_that_have_gone_are_laid_anew(nothing, tmp_path):
    lib = nothing / "aac-metrics" / "spice" / "lib"
    lib.mkdir(parents=True)
    for jar in assets.CORENLP:
        (lib / jar).symlink_to(tmp_path / "gone" / jar)
    assert assets.missing("spice", nothing)
    theirs = tmp_path / "theirs" / "aac-metrics" / "spice" / "lib"
    theirs.mkdir(parents=True)
    for jar in assets.CORENLP:
        (theirs / jar).write_text(jar)
    spice.lay_out_spice(nothing)
    assert [(lib / jar).read_text() for jar in assets.CORENLP] == list(assets.CORENLP)


def test_what_spice_cannot_do(nothing):
    lib = nothing / "aac-metrics" / "spice" / "lib"
    lib.mkdir(parents=True)
    for jar in assets.CORENLP:
        with zipfile.ZipFile(lib / jar, "w") as empty:
            empty.writestr("empty", "")
    new = Java(Path("/opt/java"), "17.0.2", "system")
    message = "SPICE needs Java 8 to 13; found 17.0.2 (/opt/java); set JAVA_HOME to such a version"
    java = find_java()
    with ExitStack() as stack:
        assert refused(lambda: spice.spice(["a"], [["a"]], new, nothing, stack)) == message
        said = refused(lambda: spice.spice(["a"], [["a"]], java, nothing, stack))
    assert said.startswith(f"SPICE failed on Java {java.version} ({java.path}): ")
    assert "NoClassDefFoundError: edu/stanford/nlp" in said
