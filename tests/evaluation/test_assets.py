"""Downloads that metrics need, and their folders, with tiny models and a server on this machine."""

import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
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

from evaluation import assets
from evaluation.__main__ import parser
from evaluation.cli import command
from evaluation.data import download
from evaluation.files import cache_folder
from evaluation.metrics import bert_score, captioning, fense, spice
from evaluation.metrics.java import Unavailable, find_java
from tests.evaluation.tiny_models import SENTENCES, published, refused

# Assets that are absent or present


def test_what_is_absent_is_said_with_its_size_and_command(nothing):
    command_of_fense = "fetch it with: dcase-evaluation download fense"
    said = {part: assets.missing(part, nothing) for part in assets.ASSETS}
    title = "SPICE's parser (Stanford CoreNLP 3.6.0) is not on this machine (about 400 MB); fetch it with: "
    assert said == {
        "spice": f"{title}dcase-evaluation download spice --cache {nothing}",
        "sbert": f"FENSE's sentence encoder is not on this machine (about 268 MB); {command_of_fense}",
        "fluency": f"FENSE's fluency checker is not on this machine (about 438 MB); {command_of_fense}",
        "bert": "BERTScore's model is not on this machine (about 1.4 GB); "
        "fetch it with: dcase-evaluation download bert_score",
    }
    assert assets.missing("spice", cache_folder()) == f"{title}dcase-evaluation download spice"
    assert (
        refused(fense.load_sentence_encoder) == refused(lambda: fense.sbert_similarity(["a"], [["a"]])) == said["sbert"]
    )
    assert refused(fense.load_fluency_checker) == refused(lambda: fense.fluency_error(["a"])) == said["fluency"]
    assert refused(bert_score.load_bert) == refused(lambda: bert_score.bert_score(["a"], [["a"]])) == said["bert"]
    assert refused(lambda: spice.lay_out_spice(nothing)) == said["spice"]
    assert refused(lambda: spice.spice(["a"], [["a"]], find_java(), nothing, ExitStack())) == said["spice"]
    assert not nothing.exists(), "asking writes no file"


def test_assets_are_located_without_large_libraries(home, hub):
    program = (
        "import sys, time; from pathlib import Path; from evaluation import assets; start = time.perf_counter();"
        "needs = [*assets.JAVA_PROGRAMS, *assets.ASSETS];"
        "found = {need: assets.missing(need, Path('.cache')) for need in needs};"
        "print(time.perf_counter() - start, [need for need in found if found[need]],"
        "sorted({'torch', 'transformers', 'aac_metrics', 'sentence_transformers'} & sys.modules.keys()))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "AAC_METRICS_CACHE_PATH": str(home / "theirs")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    seconds, rest = done.stdout.split(maxsplit=1)
    assert rest == "['spice'] []\n"
    assert float(seconds) < 0.5


def test_models_under_other_names_and_folders(nothing, hub, tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    shutil.copytree(hub / "models--roberta-large", tmp_path / "hub" / "models--FacebookAI--roberta-large")
    assert assets.missing("bert", nothing) is None
    weights = next((tmp_path / "hub").rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))  # the name in older versions of transformers
    assert assets.missing("bert", nothing) is None
    weights.with_name("pytorch_model.bin").unlink()
    assert assets.missing("bert", nothing)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(hub))
    assert assets.missing("sbert", nothing) is None


def test_the_checker_is_where_fense_keeps_it(monkeypatch):
    monkeypatch.delenv("FENSE_DATA", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    assert assets.fluency_checkpoint() == Path(torch.hub.get_dir(), "fense_data", "echecker_clotho_audiocaps_base.ckpt")
    monkeypatch.setenv("TORCH_HOME", "~/there")
    assert assets.fluency_checkpoint().parent == Path(torch.hub.get_dir(), "fense_data")


def test_the_table_of_sources_is_that_of_aac_metrics():
    from aac_metrics.download import DATA_URLS
    from aac_metrics.functional import bert_score_mrefs, fer, sbert_sim

    fer, sbert_sim, bert = (sys.modules[function.__module__] for function in (fer, sbert_sim, bert_score_mrefs))
    assert fer._PRETRAIN_ECHECKERS_DICT[fer.DEFAULT_FER_MODEL] == (
        assets.ASSETS["fluency"].source,
        assets.FLUENCY_SHA256,
    )
    assert assets.ASSETS["sbert"].source == f"sentence-transformers/{sbert_sim.DEFAULT_SBERT_SIM_MODEL}"
    assert assets.ASSETS["bert"].source == bert.DEFAULT_BERT_SCORE_MODEL
    assert assets.ASSETS["spice"].source.removeprefix("https") == DATA_URLS["spice_corenlp_zip"]["url"][4:]


def test_loading_is_silent_and_leaves_the_random_state_alone(home, capfd):
    from transformers.utils import logging

    def state() -> list:
        return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()), logging.get_verbosity()]

    before = state()
    fense.load_sentence_encoder(), fense.load_fluency_checker(), bert_score.load_bert()
    assert state() == before
    assert capfd.readouterr() == ("", "")


# Downloading


@dataclass
class Server:
    """A server with files by path and a hub's two answers about its models, which can also misbehave."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range header
    gone: set[str] = field(default_factory=set)  # files that are listed but do not exist
    cuts: list[int] = field(default_factory=list)  # number of bytes after which the next answers are cut


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
    """A server with all files that can be downloaded, and a machine that has none of them."""
    noise, archive, checkpoint = np.random.default_rng(0), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        for name in (*assets.CORENLP, "stanford-corenlp-3.6.0-sources.jar", "../../evil.jar"):
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
        for part, what in assets.ASSETS.items()
    }
    monkeypatch.setattr(assets, "ASSETS", MappingProxyType(parts))
    monkeypatch.setattr(assets, "FLUENCY_SHA256", hashlib.sha256(checkpoint.getvalue()).hexdigest())
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
    assets.fetch(["spice"], nothing)
    lib = nothing / "aac-metrics" / "spice" / "lib"
    said = capsys.readouterr().out.splitlines()
    title = "SPICE's parser (Stanford CoreNLP 3.6.0)"
    row = [title, "about 400 MB", "GPL 3 or later", "unverified", ZIP, str(lib), "missing"]
    assert re.split(r"\s{2,}", said[2]) == row
    assert said[4:6] == [f"{title}: fetching it from {server.url}/{ZIP}", f"{title}: ready in {lib.absolute()}"]
    assert all(line.startswith("  unverified: sha256 ") for line in said[6:])
    assert contents(nothing) == {f"aac-metrics/spice/lib/{jar}" for jar in assets.CORENLP}
    assert all((lib / jar).read_bytes().startswith(jar.encode()) for jar in assets.CORENLP)
    assert not (nothing / "aac-metrics" / "spice" / ".downloads").exists()
    assert assets.missing("spice", nothing) is None
    spice.lay_out_spice(nothing)
    assert not (lib / assets.CORENLP[0]).is_symlink()
    assets.fetch(["spice"], nothing)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[2].endswith("already here")
    assert server.asked == [(f"/{ZIP}", None)]


def test_after_a_cut_the_rest_is_fetched(nothing, server, capsys):
    server.cuts = [3000, 0, 1000]
    assets.fetch(["spice"], nothing)
    assert [start for _, start in server.asked][:2] == [None, "bytes=2816-"]
    assert len(server.asked) == 4
    assert "; trying again in 0 s" in capsys.readouterr().err
    assert assets.missing("spice", nothing) is None


def test_what_was_fetched_by_hand_is_used_and_kept(nothing, server):
    archive = nothing / "aac-metrics" / "spice" / ZIP
    archive.parent.mkdir(parents=True)
    archive.write_bytes(server.files[f"/{ZIP}"])
    assets.fetch(["spice"], nothing)
    assert not server.asked
    assert archive.is_file()
    assert assets.missing("spice", nothing) is None


def test_archives_that_are_not_the_published_one(nothing, server):
    whole, lib = server.files[f"/{ZIP}"], nothing / "aac-metrics" / "spice" / "lib"
    cut = io.BytesIO()
    with zipfile.ZipFile(cut, "w") as bundle:
        bundle.writestr(f"stanford-corenlp-full-2015-12-09/{assets.CORENLP[0]}", "one")
        bundle.writestr(f"elsewhere/{assets.CORENLP[1]}", "two")
    place = whole.index(assets.CORENLP[1].encode()) + 200
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    for wrong, reason in (
        (cut.getvalue(), f"no item named 'stanford-corenlp-full-2015-12-09/{assets.CORENLP[1]}'"),
        (flipped, "Bad CRC-32"),
        (b"<html>Back in an hour</html>", "not a zip file"),
    ):
        server.files[f"/{ZIP}"] = wrong
        assert reason in refused(lambda: assets.fetch(["spice"], nothing))
        assert not list(lib.glob("*")), "both jars or none"
        assert not list(nothing.rglob("*.zip.part")), "a wrong file is downloaded again"
    server.files[f"/{ZIP}"] = whole
    assets.fetch(["spice"], nothing)


def test_no_network(nothing, server, monkeypatch, capsys):
    for url in ("http://127.0.0.1:1",):
        parts = {
            part: replace(what, source=what.source.replace(server.url, url)) for part, what in assets.ASSETS.items()
        }
        monkeypatch.setattr(assets, "ASSETS", MappingProxyType(parts))
        monkeypatch.setattr(constants, "ENDPOINT", url)
    said = refused(lambda: assets.fetch(["spice"], nothing))
    archive = nothing / "aac-metrics" / "spice" / ZIP
    assert said.startswith(f"http://127.0.0.1:1/{ZIP}: cannot be downloaded: ")
    assert said.endswith(
        f"Run the same command again to resume, or download the file by other means and put it at {archive}"
    )
    said = refused(lambda: assets.fetch(["bert_score"], nothing))
    assert said.startswith("http://127.0.0.1:1/roberta-large: cannot be downloaded: ")
    assert f"or copy the folder models--roberta-large from another machine's hub cache to {nothing.parent}" in said


def test_a_disk_that_is_too_small(nothing, server, monkeypatch):
    usage = shutil.disk_usage(nothing.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=700_000_000))
    assert "800MB must be free" in refused(lambda: assets.fetch(["spice"], nothing))
    assert not server.asked
    assets.fetch(["fense"], nothing)


def test_two_at_a_time(nothing, server):
    work = nothing / "aac-metrics" / "spice" / ".downloads"
    work.mkdir(parents=True)
    with filelock.FileLock(work / f"{ZIP}.lock"):
        assert "another process is downloading it" in refused(lambda: assets.fetch(["spice"], nothing))


def test_fense_is_fetched_and_serves_without_a_network(nothing, server, capfd, monkeypatch):
    server.cuts = [5000]
    assets.fetch(["fense"], nothing)
    out = capfd.readouterr().out
    rows = [re.split(r"\s{2,}", line) for line in out.splitlines()[2:4]]
    assert rows[0][1:4] == ["about 268 MB", "Apache 2.0", "unverified"]
    assert rows[1][1:4] == ["about 438 MB", "not known", "sha256"]
    assert out.count("  unverified: sha256 ") == 1
    asked = [path for path, _ in server.asked]
    weights = [path for path in asked if path.endswith(".safetensors")]
    assert len(weights) == 1, "the fluency checker's encoder needs no weights"
    assert asked.count("/echecker_clotho_audiocaps_base.ckpt") <= 2
    server.asked.clear()
    assets.fetch(["fense"], nothing)
    assert not server.asked
    said = capfd.readouterr().out.splitlines()
    assert [line.endswith("already here") for line in said] == [False, False, True, True]
    assert assets.missing("sbert", nothing) is assets.missing("fluency", nothing) is None
    server.files.clear()
    assert fense.fluency_error(SENTENCES[:2]).shape == (2,)
    np.testing.assert_allclose(fense.sbert_similarity(["a"], [["a"]]), 1, atol=1e-5)


def test_a_model_that_was_cut_off_is_not_taken_for_whole(nothing, server):
    server.gone = {path for path in server.files if path.startswith("/roberta-large/") and ".safetensors" in path}
    said = refused(lambda: assets.fetch(["bert_score"], nothing))
    assert said.startswith(f"{server.url}/roberta-large: cannot be downloaded: ")
    assert next((nothing.parent / "hub").rglob("config.json"))
    assert assets.missing("bert", nothing)
    server.gone = set()
    server.asked.clear()
    assets.fetch(["bert_score"], nothing)
    assert [path for path, _ in server.asked] == ["/roberta-large/0123abcd/model.safetensors"], "the rest is there"
    assert assets.missing("bert", nothing) is None


def test_a_checker_that_is_not_the_published_one(nothing, server):
    path = nothing.parent / "fense" / "echecker_clotho_audiocaps_base.ckpt"
    whole = server.files[f"/{path.name}"]
    server.files[f"/{path.name}"] = whole[:-1] + b"?"
    said = refused(lambda: assets.fetch(["fense"], nothing))
    assert f"sha256 must be {assets.FLUENCY_SHA256}, as published, found " in said
    assert not contents(path.parent) - {f".downloads/{path.name}.lock"}
    path.write_bytes(b"mine")
    assert "move it away and run the same command again" in refused(lambda: assets.fetch(["fense"], nothing))
    assert path.read_bytes() == b"mine"
    path.write_bytes(whole)  # downloaded by other means
    server.asked.clear()
    assets.fetch(["fense"], nothing)
    assert f"/{path.name}" not in [asked for asked, _ in server.asked]


# The commands


def run(*arguments: str) -> int:
    return command(parser(), arguments)


def test_an_unknown_name(nothing, capsys):
    assert run("download", "spise", "--cache", str(nothing)) == 2
    assert "unknown name 'spise'; did you mean 'spice'? there are: spice, fense, bert_score" in capsys.readouterr().err


def test_a_dry_run_prints_the_table_and_downloads_nothing(nothing, server, capsys):
    assert run("download", "spice", "--dry-run", "--cache", str(nothing)) == 0
    assert "SPICE" in capsys.readouterr().out
    assert assets.missing("spice", nothing)
    assert not server.asked


def test_the_command_fetches(nothing, server, capsys):
    assert run("download", "spice", "--cache", str(nothing)) == 0
    assert assets.missing("spice", nothing) is None


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
    assert "absent; fetch it with: dcase-evaluation download spice" in lines["SPICE's parser (Stanford CoreNLP 3.6.0)"]
    assert {*captioning.NEEDS} <= {*lines}
    assert lines["fense"].endswith("available")
    assert lines["spider_fl"].endswith("tokenizer, spice, fluency  missing: spice")


def test_info_without_java(nothing, capsys, monkeypatch):
    def none() -> None:
        raise Unavailable("there is no `java`; install Java 11")

    monkeypatch.setattr(assets, "find_java", none)
    assert run("info", "--cache", str(nothing)) == 0
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["java"].endswith("there is no `java`; install Java 11")
    assert lines["meteor"].endswith("missing: tokenizer, meteor")
    assert assets.missing("meteor", nothing) == "there is no `java`; install Java 11"


def test_every_metric_needs_what_there_is():
    assert {need for needs in captioning.NEEDS.values() for need in needs} == {*assets.JAVA_PROGRAMS, *assets.ASSETS}
    assert sorted(part for parts in assets.DOWNLOADS.values() for part in parts) == sorted(assets.ASSETS)
