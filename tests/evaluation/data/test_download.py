"""Downloading Clotho from a server on this machine, with archives of a few hundred samples that are made here."""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import numpy as np
import py7zr
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.data import download
from evaluation.findings import BadRequest

PUBLISHED = Path(__file__).parents[3].parent / "shared" / "data" / "clotho"
SPLITS = ("development", "validation", "evaluation")
# Names like Clotho's: a leading space, commas, dots in the stem, entities, and a name that is in two splits.
NAMES = {
    "development": (" Ambience Birds.wav", "FREEZER_DOOR_OPEN_CLOSE.wav", "KOOKABURRA..WAV.wav"),
    "validation": ("a, b, c.wav", "d &amp; e .wav"),
    "evaluation": ("FREEZER_DOOR_OPEN_CLOSE.wav", "z.wav"),
}


@dataclass
class Server:
    """A server with the files of a record, which misbehaves as a test asks."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # file name, Range header
    sent: list[int] = field(default_factory=list)  # bytes of each answer's body
    cuts: dict[str, list[int]] = field(default_factory=dict)  # number of bytes after which the next answers are cut
    statuses: dict[str, list[int]] = field(default_factory=dict)  # statuses of the next answers, which have no file
    ranges: bool = True  # True if the server supports Range
    block: int = 1  # an answer to a Range starts at a multiple of this
    lengths: bool = True  # True if it sends Content-Length; without it, a cut looks like the end

    def count(self, name: str) -> int:
        return sum(asked == name for asked, _ in self.asked)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            name, _, query = self.path.rpartition("/")[2].partition("?")
            asked = self.headers["Range"]
            server.asked.append((name, asked))
            if query != "download=1" or name not in server.files:
                return self.send_error(404)
            if statuses := server.statuses.get(name):
                return self.send_error(statuses.pop(0))
            content, start = server.files[name], 0
            if asked and server.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) // server.block * server.block
                if start >= len(content):
                    return self.send_error(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if server.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cuts = server.cuts.get(name)
            body = content[start:][: cuts.pop(0) if cuts else None]
            server.sent.append(len(body))
            self.wfile.write(body)
            return None

    return Handler


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The nine files of a small record: one archive with a folder, one without, one with files that are not audio."""
    root, noise, made = tmp_path_factory.mktemp("record"), np.random.default_rng(0), {}
    for split, names in NAMES.items():
        folder = root / split
        folder.mkdir()
        for name in names:
            soundfile.write(folder / name, noise.uniform(-0.5, 0.5, 1000), 8000)
        if split == "evaluation":
            (folder / "readme.txt").write_text("not a sound")
            (folder / "._z.wav").write_bytes(b"AppleDouble")
        with py7zr.SevenZipFile(root / "archive.7z", "w") as bundle:
            for path in sorted(folder.iterdir()):
                bundle.write(path, path.name if split == "validation" else f"{split}/{path.name}")
        made[f"clotho_audio_{split}.7z"] = (root / "archive.7z").read_bytes()
        rows = [f'"{name}",one,two,three,four,five' for name in names]
        header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
        made[f"clotho_captions_{split}.csv"] = "\r\n".join([header, *rows, ""]).encode()
        made[f"clotho_metadata_{split}.csv"] = b"file_name,keywords\r\n"
    return made


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(dict(files))
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}/files/"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    monkeypatch.setattr(download, "WAITS", (0, 0, 0))
    monkeypatch.setattr(download, "CHUNK", 256)
    publish(server, monkeypatch)
    yield server
    http.shutdown()
    http.server_close()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the server's files the published record."""
    table = [
        replace(remote, md5=md5(server.files[remote.name]), bytes=remote.bytes and len(server.files[remote.name]))
        for remote in download.CLOTHO
    ]
    monkeypatch.setattr(download, "CLOTHO", tuple(table))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files in a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, server: Server) -> str:
    with pytest.raises(BadRequest) as caught:
        download.clotho(folder, base_url=server.url)
    return str(caught.value)


ARCHIVE, TABLE = "clotho_audio_development.7z", "clotho_captions_development.csv"


def test_a_full_fetch_makes_the_layout_and_a_second_nothing(tmp_path, server, files):
    folder = tmp_path / "data" / "clotho"
    download.clotho(folder, base_url=server.url.rstrip("/"))
    there = contents(folder)
    expected = {f"clotho_{kind}_{split}.csv" for kind in ("captions", "metadata") for split in SPLITS}
    assert set(there) == expected | {f"{split}/{name}" for split, names in NAMES.items() for name in names}
    assert all(there[name] == files[name] for name in expected)
    assert len(soundfile.read(folder / "development" / " Ambience Birds.wav")[0]) == 1000
    assert not (folder / ".downloads").exists()
    assert [name for name, _ in server.asked] == [remote.name for remote in download.CLOTHO]  # tables first

    server.asked.clear()
    before = folder.stat().st_mtime_ns
    download.clotho(folder, base_url=server.url)
    assert not server.asked
    assert folder.stat().st_mtime_ns == before, "a complete folder is not written to"


@pytest.mark.parametrize("lengths", [True, False])
def test_after_a_cut_only_the_rest_is_sent(lengths, tmp_path, server, files):
    server.lengths, server.cuts[ARCHIVE] = lengths, [1000]
    download.clotho(tmp_path, base_url=server.url)
    (_, first), (_, second) = (asked for asked in server.asked if asked[0] == ARCHIVE)
    have = int(second.removeprefix("bytes=").removesuffix("-"))
    assert first is None
    assert 1000 - download.CHUNK < have <= 1000
    assert len(files[ARCHIVE]) - have in server.sent


def test_a_later_call_goes_on_where_the_first_gave_up(tmp_path, server, files):
    server.cuts[ARCHIVE] = [1024]
    server.files = {name: content for name, content in files.items() if name != "clotho_audio_validation.7z"}
    refused(tmp_path, server)  # the validation archive is missing
    shutil.rmtree(tmp_path / "development")
    (tmp_path / ".downloads" / f"{ARCHIVE}.part").write_bytes(files[ARCHIVE][:1024])
    server.files, server.asked = dict(files), []
    download.clotho(tmp_path, base_url=server.url)
    assert server.asked[0] == (ARCHIVE, "bytes=1024-")
    assert {path.name for path in (tmp_path / "development").iterdir()} == set(NAMES["development"])


def test_a_server_that_ignores_ranges_sends_all_again(tmp_path, server):
    server.ranges, server.cuts[ARCHIVE] = False, [1000]
    download.clotho(tmp_path, base_url=server.url)
    assert server.count(ARCHIVE) == 2
    assert (tmp_path / "development").is_dir()


def test_an_answer_may_start_before_what_was_asked(tmp_path, server):
    server.block, server.cuts[ARCHIVE] = 700, [1000]
    download.clotho(tmp_path, base_url=server.url)
    assert (tmp_path / "development").is_dir()


def test_a_whole_part_of_unknown_size_is_not_fetched_again(tmp_path, server, files):
    name = "clotho_audio_evaluation.7z"
    assert next(remote.bytes for remote in download.CLOTHO if remote.name == name) is None
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / f"{name}.part").write_bytes(files[name])
    download.clotho(tmp_path, base_url=server.url)  # the server answers 416: no further bytes
    assert (name, f"bytes={len(files[name])}-") in server.asked
    assert (tmp_path / "evaluation").is_dir()


@pytest.mark.parametrize("name", [TABLE, ARCHIVE])
def test_a_corrupt_file_is_named_with_both_checksums_and_goes(name, tmp_path, server, files):
    server.files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    message = refused(tmp_path, server)
    assert f"{name}?download=1: md5 must be {md5(files[name])}, found {md5(server.files[name])}" in message
    assert not list(tmp_path.rglob(f"{name}*"))
    assert not (tmp_path / "development").exists()
    server.files[name] = files[name]
    download.clotho(tmp_path, base_url=server.url)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_failure_is_tried_again(status, tmp_path, server):
    server.statuses = {TABLE: [status, status], ARCHIVE: [status] * 3}
    download.clotho(tmp_path, base_url=server.url)
    assert (server.count(TABLE), server.count(ARCHIVE)) == (3, 4)


def test_only_failures_in_a_row_count(tmp_path, server):
    server.cuts[ARCHIVE] = [256] * 8  # twice the number of attempts, each with some progress
    download.clotho(tmp_path, base_url=server.url)
    assert server.count(ARCHIVE) == 9


def test_a_lasting_failure_says_what_is_there_and_what_to_do(tmp_path, server, files):
    server.statuses[ARCHIVE] = [503] * 4
    part = tmp_path / ".downloads" / f"{ARCHIVE}.part"
    part.parent.mkdir()
    part.write_bytes(files[ARCHIVE][:1500])
    message = refused(tmp_path, server)
    assert f"{server.url}{ARCHIVE}?download=1: cannot be downloaded: the server answered 503" in message
    assert "1.50kB of " in message
    assert "Run the same command again to resume" in message
    assert part.read_bytes() == files[ARCHIVE][:1500]
    assert server.count(ARCHIVE) == 4


def test_a_file_that_is_not_there_is_not_asked_for_again(tmp_path, server):
    del server.files[ARCHIVE]
    assert "the server answered 404" in refused(tmp_path, server)
    assert server.count(ARCHIVE) == 1


@pytest.mark.parametrize(
    ("url", "message", "again"),
    [
        ("http://127.0.0.1:1/", "Connection refused", True),
        ("nonsense", "Invalid URL", False),
        ("gopher://x/", "gopher", False),
    ],
)
def test_no_server_at_all(url, message, again, tmp_path, server, capsys):
    server.url = url
    assert message in refused(tmp_path, server)
    assert capsys.readouterr().err.count("again in 0 s") == 3 * again


def test_a_page_in_place_of_the_file_does_not_cost_what_is_here(tmp_path, server, files):
    part = tmp_path / ".downloads" / f"{ARCHIVE}.part"
    part.parent.mkdir()
    part.write_bytes(files[ARCHIVE][:1500])
    server.ranges, server.files[ARCHIVE] = False, b"<html>Back in an hour</html>"
    assert f"the server sends 28 bytes, but the published file has {len(files[ARCHIVE])}" in refused(tmp_path, server)
    assert part.read_bytes() == files[ARCHIVE][:1500]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    statuses=st.lists(st.sampled_from([500, 502, 429]), max_size=5),
    ranges=st.booleans(),
    block=st.integers(1, 2000),
    lengths=st.booleans(),
    known=st.booleans(),
    have=st.binary(max_size=300) | st.integers(0, 4000),
)
def test_whatever_happens_the_file_is_right_or_absent(
    cuts, statuses, ranges, block, lengths, known, have, tmp_path_factory, server, monkeypatch
):
    content = np.random.default_rng(1).bytes(3000)
    folder = tmp_path_factory.mktemp("any")
    (folder / ".downloads").mkdir()
    (folder / ".downloads" / "x.csv.part").write_bytes(have if isinstance(have, bytes) else content[:have])
    server.files, server.cuts, server.statuses = {"x.csv": content}, {"x.csv": cuts}, {"x.csv": statuses}
    server.ranges, server.block, server.lengths = ranges, block, lengths
    monkeypatch.setattr(download, "CLOTHO", (download.Remote("x.csv", md5(content), 3000 if known else None),))
    for _ in range(12):
        try:
            download.clotho(folder, base_url=server.url)
            break
        except BadRequest:
            assert not (folder / "x.csv").exists()
    assert contents(folder) == {"x.csv": content}, "every obstacle passes, and then the file is there"


def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> bytes:
    """Return an archive with a member of a name that py7zr itself refuses to write; `link.wav` is a symbolic link."""
    folder = tmp_path / "evil"
    folder.mkdir()
    soundfile.write(folder / "good.wav", np.zeros(10), 8000)
    (folder / "link.wav").symlink_to("good.wav")
    with monkeypatch.context() as patch, py7zr.SevenZipFile(folder / "evil.7z", "w") as bundle:
        patch.setattr(py7zr.SevenZipFile, "_sanitize_archive_arcname", staticmethod(lambda name: name))
        bundle.write(folder / "good.wav", "development/good.wav")
        bundle.write(folder / ("link.wav" if name.endswith("link.wav") else "good.wav"), name)
    return (folder / "evil.7z").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../evil.wav", "development/../../../evil.wav", "{tmp}/evil.wav", "C:\\evil.wav", "..\\evil.wav", "a/link.wav"],
)
def test_members_that_could_leave_the_folder_are_refused(name, tmp_path, server, monkeypatch):
    name = name.format(tmp=tmp_path)
    server.files[ARCHIVE] = hostile(tmp_path, monkeypatch, name)
    publish(server, monkeypatch)
    folder = tmp_path / "inner" / "data"
    message = refused(folder, server)
    name = name.replace("\\", "/")  # as py7zr reads it
    assert f"{ARCHIVE}: members must be plain files and folders inside the archive's folder, found {name!r}" in message
    assert not [path for path in tmp_path.rglob("*.wav") if tmp_path / "evil" not in path.parents]
    assert not (folder / "development").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError, py7zr.exceptions.CrcError(1, 2, "a.wav")])
def test_an_interrupted_unpack_is_redone_from_the_archive(stop, tmp_path, server, monkeypatch):
    def stopped(bundle: py7zr.SevenZipFile, path: Path, **_: object) -> None:
        path.mkdir()
        (path / NAMES["development"][0]).write_bytes(b"half")
        raise stop

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, OSError, BadRequest)):
        patch.setattr(py7zr.SevenZipFile, "extractall", stopped)
        download.clotho(tmp_path, base_url=server.url)
    assert not (tmp_path / "development").exists()
    (tmp_path / ".downloads" / "unpack-killed" / "ready").mkdir(parents=True)  # left by a killed process
    server.asked.clear()
    download.clotho(tmp_path, base_url=server.url)
    assert not server.count(ARCHIVE)
    assert {path.name for path in (tmp_path / "development").iterdir()} == set(NAMES["development"])
    assert not (tmp_path / ".downloads").exists()


def test_a_split_that_lacks_files_is_completed(tmp_path, server):
    download.clotho(tmp_path, base_url=server.url)
    whole = contents(tmp_path)
    (tmp_path / "development" / NAMES["development"][0]).unlink()
    (tmp_path / "development" / "mine.txt").write_text("mine")
    shutil.rmtree(tmp_path / "validation")
    (tmp_path / "disk").mkdir()
    (tmp_path / "validation").symlink_to(tmp_path / "disk")  # the sounds on another disk
    server.asked.clear()
    download.clotho(tmp_path, base_url=server.url)
    assert {name for name, _ in server.asked} == {ARCHIVE, "clotho_audio_validation.7z"}
    assert contents(tmp_path / "development").keys() == {*NAMES["development"], "mine.txt"}
    assert contents(tmp_path / "disk").keys() == set(NAMES["validation"])
    assert all((tmp_path / name).read_bytes() == content for name, content in whole.items())


def test_a_sound_that_differs_is_not_overwritten(tmp_path, server):
    (tmp_path / "development").mkdir()
    mine = tmp_path / "development" / NAMES["development"][0]
    mine.write_bytes(b"mine")
    message = refused(tmp_path, server)
    assert f"development: existing files must be the published ones; 1 differ, for example {mine.name!r}" in message
    assert contents(tmp_path / "development") == {mine.name: b"mine"}
    mine.unlink()
    download.clotho(tmp_path, base_url=server.url)
    assert server.count(ARCHIVE) == 1, "the archive was kept"


@pytest.mark.parametrize("name", [TABLE, ARCHIVE])
def test_a_file_of_the_users_that_differs_is_not_overwritten(name, tmp_path, server, files):
    (tmp_path / name).write_text("mine")
    message = refused(tmp_path, server)
    assert message.startswith(f"{tmp_path / name}: md5 must be {md5(files[name])}, as published, found {md5(b'mine')};")
    assert (tmp_path / name).read_text() == "mine"
    assert not server.count(name)


def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path, server, files):
    (tmp_path / ARCHIVE).write_bytes(files[ARCHIVE])
    download.clotho(tmp_path, base_url=server.url)
    assert not server.count(ARCHIVE)
    assert (tmp_path / ARCHIVE).read_bytes() == files[ARCHIVE]
    assert (tmp_path / "development").is_dir()


def test_another_data_set_in_the_folder(tmp_path, server):
    (tmp_path / "captions_validation.csv").write_text("file_name,caption_1\n")
    assert "captions_validation.csv: the folder must not contain another data set" in refused(tmp_path, server)
    assert not server.asked


def test_an_archive_that_lacks_clips_or_repeats_them(tmp_path, server, files, monkeypatch):
    server.files[ARCHIVE] = files["clotho_audio_evaluation.7z"]
    publish(server, monkeypatch)
    assert "must contain every clip of the caption table; 2 of 3 are missing" in refused(tmp_path / "lacks", server)
    assert not (tmp_path / "lacks" / "development").exists()

    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    with py7zr.SevenZipFile(tmp_path / "twice.7z", "w") as bundle:
        bundle.write(tmp_path / "a.wav", "one/a.wav")
        bundle.write(tmp_path / "a.wav", "two/a.wav")
    server.files[ARCHIVE] = (tmp_path / "twice.7z").read_bytes()
    publish(server, monkeypatch)
    assert "found 'a.wav' in two folders" in refused(tmp_path / "twice", server)


def test_what_is_no_archive(tmp_path, server, monkeypatch):
    server.files[ARCHIVE] = b"not an archive"
    publish(server, monkeypatch)
    assert "cannot be unpacked: not a 7z file" in refused(tmp_path, server)


@pytest.mark.parametrize(("free", "fits"), [(11_000_000_000, False), (13_000_000_000, True)])
def test_a_disk_that_is_too_small_is_said_before_the_archives(free, fits, tmp_path, server, monkeypatch):
    sizes = {ARCHIVE: 4_541_582_263, "clotho_audio_validation.7z": 1_260_701_425}
    table = [replace(remote, bytes=sizes.get(remote.name, remote.bytes)) for remote in download.CLOTHO]
    monkeypatch.setattr(download, "CLOTHO", tuple(table))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    message = refused(tmp_path, server)  # even with enough space, because the server has no such archive
    assert ("11.8GB must be free" in message and "found 11.0GB" in message) is not fits
    assert bool(server.count(ARCHIVE)) is fits
    assert (tmp_path / TABLE).exists()


def test_a_disk_that_is_too_small_to_unpack(tmp_path, server, monkeypatch):
    table = [replace(remote, bytes=None) for remote in download.CLOTHO]
    monkeypatch.setattr(download, "CLOTHO", tuple(table))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "6.13kB must be free" in refused(tmp_path, server)
    assert [path.name for path in (tmp_path / ".downloads").glob("*.7z")] == [ARCHIVE], "the download is kept"


def test_the_space_needed_is_the_peak_less_what_is_there(tmp_path):
    one, two = download.Remote("a.7z", "", 1000, "development"), download.Remote("b.7z", "", 900, "validation")
    assert download._space(tmp_path, []) == 0
    assert download._space(tmp_path, [one]) == 2600  # the archive, and 1.6 times its size of audio
    assert download._space(tmp_path, [one, two]) == 1600 + 900 + 1440
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "a.7z.part").write_bytes(bytes(400))
    (tmp_path / "b.7z").write_bytes(bytes(900))
    assert download._space(tmp_path, [one, two]) == 1600 + 900 + 1440 - 1300


def test_two_at_a_time(tmp_path, server):
    (tmp_path / ".downloads").mkdir()
    with filelock.FileLock(tmp_path / ".downloads" / "lock"):
        assert "another process is downloading into this folder" in refused(tmp_path, server)
    assert not server.asked
    download.clotho(tmp_path, base_url=server.url)


def test_what_is_tried_again_is_said(tmp_path, server, capsys):
    server.statuses[TABLE] = [502]
    download.clotho(tmp_path, base_url=server.url)
    assert f"{TABLE}: the server answered 502 Bad Gateway; trying again in 0 s" in capsys.readouterr().err


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not on this machine")
def test_the_table_has_the_published_checksums_and_sizes():
    tables = [remote for remote in download.CLOTHO if remote.name.endswith(".csv")]
    assert len(tables) == 6
    for remote in tables:
        content = (PUBLISHED / remote.name).read_bytes()
        assert (remote.md5, remote.bytes) == (md5(content), len(content)), remote.name


def test_the_table_names_each_file_of_each_split():
    assert [remote.split for remote in download.CLOTHO if remote.split] == list(SPLITS)
    assert len({remote.name for remote in download.CLOTHO}) == len({remote.md5 for remote in download.CLOTHO}) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", remote.md5) and os.sep not in remote.name for remote in download.CLOTHO)
