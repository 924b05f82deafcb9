"""Downloads of published files, from a server on this machine with files that are made here."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from evaluation.assets import first_file
from evaluation.downloads import Asset, Download, download_missing, fetch_file, fetch_model
from evaluation.findings import BadRequest, Faulty
from tests.file_server import Server, serving

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as server:
        yield server


def file_download(asset: Asset, target: Path) -> Download:
    """Return the download of a file to `target`."""
    return Download(asset, target, partial(first_file, [target]), partial(fetch_file, asset, target))


def rows(out: str) -> list[list[str]]:
    """Return the cells of the table at the beginning of an output."""
    table = out.partition("\n\n")[0]
    return [re.split(r"\s{2,}", line) for line in table.splitlines()[2:]]


def test_everything_is_listed_before_what_is_missing_is_fetched(server, tmp_path, capsys):
    server.files["/a.pth"] = server.files["/b.pth"] = CONTENT
    known = Asset("A", f"{server.url}/a.pth", len(CONTENT), "MIT", checksum=f"sha256:{SHA256}")
    unknown = Asset("B", f"{server.url}/b.pth", 0)
    downloads = [
        file_download(known, tmp_path / "cache" / "a.pth"),
        file_download(unknown, tmp_path / "cache" / "b.pth"),
    ]
    folder = str(tmp_path / "cache")
    missing = [
        ["A", "about 10 kB", "MIT", "sha256", "a.pth", folder, "missing"],
        ["B", "not known", "not known", "unverified", "b.pth", folder, "missing"],
    ]
    download_missing(downloads, dry_run=True)
    assert rows(capsys.readouterr().out) == missing
    assert not (tmp_path / "cache").exists()
    download_missing(downloads)
    out = capsys.readouterr().out
    assert rows(out) == missing
    assert out.count("unverified: sha256") == 1
    assert f"  unverified: sha256 {SHA256} of b.pth\n" in out
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a.pth", "b.pth"]
    download_missing(downloads)
    assert [row[-1] for row in rows(capsys.readouterr().out)] == ["already here"] * 2
    assert len(server.ranges) == 2


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        (Asset("A", "/a.pth", 0, checksum="sha256:beef"), f"sha256 must be beef, as published, found {SHA256}"),
        (Asset("A", "/a.pth", 327_000_000), "must be about 327 MB, found 10240 bytes"),
        (Asset("A", "/none.pth", 0), "the server answered 404"),
    ],
    ids=["checksum", "size", "absent"],
)
def test_a_wrong_file_is_not_kept(asset, message, server, tmp_path):
    server.files["/a.pth"] = CONTENT
    asset = Asset(asset.title, server.url + asset.source, asset.bytes, checksum=asset.checksum)
    with pytest.raises(BadRequest, match=message) as refusal:
        download_missing([file_download(asset, tmp_path / "a.pth")])
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_resumes(server, tmp_path):
    server.files["/a.pth"] = server.files["/b.pth"] = CONTENT
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "a.pth.part").write_bytes(CONTENT[:1000])
    fetch_file(Asset("B", f"{server.url}/b.pth", 0), tmp_path / "b.pth")
    assert (tmp_path / ".downloads" / "a.pth.part").is_file(), "another download does not remove it"
    fetch_file(Asset("A", f"{server.url}/a.pth", 0, checksum=f"sha256:{SHA256}"), tmp_path / "a.pth")
    assert server.ranges == [None, "bytes=1000-"]
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert not (tmp_path / ".downloads").exists()


def test_one_member_of_an_archive_is_kept(server, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("../evil.txt", "evil")
        bundle.writestr("vectors.txt", "a 1 2")
    server.files["/v.zip"] = archive.getvalue()
    asset = Asset("vectors", f"{server.url}/v.zip", 0)
    target = tmp_path / "cache" / "vectors.txt"
    fetch_file(asset, target, member="vectors.txt")
    assert target.read_text() == "a 1 2"
    with pytest.raises(BadRequest, match="is not the published archive"):
        fetch_file(asset, tmp_path / "cache" / "other.txt", member="other.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "vectors.txt"]


def test_all_failures_are_reported_at_once(tmp_path, monkeypatch):
    """The hub cannot be reached, and one asset must be fetched by hand."""
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:1"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    downloads = [
        Download(Asset(name, f"owner/{name}", 0), tmp_path / "hub", lambda: None, partial(fetch_model, f"owner/{name}"))
        for name in ("one", "two")
    ]
    downloads.append(
        Download(Asset("three", "three.txt", 0), tmp_path / "three.txt", lambda: None, advice="put it there")
    )
    with pytest.raises(Faulty) as refusal:
        download_missing(downloads)
    assert refusal.value.status == 2
    lines = str(refusal.value).splitlines()
    assert len(lines) == 3
    for name, line in zip(("one", "two"), (lines[0], lines[2]), strict=True):
        assert line.startswith(f"{name}: error: {nowhere}/owner/{name}: cannot be downloaded: ")
        assert f"or copy the folder models--owner--{name} from another machine's hub cache" in line
    assert lines[1] == "three: error: put it there"
