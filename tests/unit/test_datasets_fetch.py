"""`data list` and `data fetch` against a server of this machine: cuts, checksums, full disks, hostile archives."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.core.errors import BlossomError, ConfigError, LinkError, StorageError
from blossom_edge.datasets import download
from blossom_edge.datasets.obtaining import known_sha256, obtain
from blossom_edge.datasets.sources import SOURCES, Source
from blossom_edge.datasets.unpack import unpack
from blossom_edge.durable.growing import GrowingFile


class Home:
    """A data set's home: serves `content`, cuts connections after `cut_after` bytes as often as `cuts` says."""

    def __init__(self) -> None:
        self.content, self.tag = b"", '"one"'
        self.cuts, self.cut_after = 0, 0
        self.status = 0
        self.ranges: list[str | None] = []
        home = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                home.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/set.zip"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        if self.status:
            handler.send_error(self.status)
            return
        start = 0
        if asked and handler.headers.get("If-Range", self.tag) == self.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        size = len(self.content)
        if start >= size > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{size}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        handler.send_header("Content-Length", str(size - start))
        handler.send_header("ETag", self.tag)
        handler.end_headers()
        body = self.content[start:]
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut_after]
        handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def home() -> Iterator[Home]:
    server = Home()
    yield server
    server.close()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def source_at(home: Home, **changes: Any) -> Source:
    plain = Source("tiny", "A tiny set", "http://127.0.0.1/", "free", url=home.url, size=10_000, unpacked=100_000)
    return replace(plain, **changes)


CONTENT = bytes(range(256)) * 20


def test_cut_connection_goes_on_where_it_ended(home: Home, tmp_path: Path) -> None:
    home.content, home.cuts, home.cut_after = CONTENT, 2, 1000
    seen: list[tuple[int, int]] = []
    got = download.fetch(
        home.url, tmp_path / "a.part", limit=10_000, progress=lambda done, total: seen.append((done, total))
    )
    assert got.path.read_bytes() == CONTENT
    assert got.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert home.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert seen[-1] == (5120, 5120)


def test_killed_fetch_goes_on_in_the_next_run_and_gives_up_after_five_cuts(home: Home, tmp_path: Path) -> None:
    home.content, home.cuts, home.cut_after = CONTENT, 5, 100
    waits: list[float] = []
    with pytest.raises(LinkError, match="connection was cut; 500 bytes are here") as caught:
        download.fetch(home.url, tmp_path / "a.part", limit=10_000, pause=waits.append)
    assert caught.value.error_id == "download-failed"
    assert waits == [0.5] * 4
    assert download.fetch(home.url, tmp_path / "a.part", limit=10_000).size == 5120
    assert home.ranges[-1] == "bytes=500-"


def test_other_file_at_the_same_address_is_fetched_from_its_start(home: Home, tmp_path: Path) -> None:
    home.content, home.cuts, home.cut_after = CONTENT, 5, 100
    with pytest.raises(LinkError):
        download.fetch(home.url, tmp_path / "a.part", limit=10_000)
    home.content, home.tag = bytes(5120), '"two"'  # as long as the old one: only its tag tells
    assert download.fetch(home.url, tmp_path / "a.part", limit=10_000).path.read_bytes() == bytes(5120)


def test_whole_part_is_not_fetched_again(home: Home, tmp_path: Path) -> None:
    home.content = CONTENT
    download.fetch(home.url, tmp_path / "a.part", limit=10_000)
    assert download.fetch(home.url, tmp_path / "a.part", limit=10_000).size == 5120
    assert home.ranges == [None, "bytes=5120-"]


def test_wrong_checksum_removes_the_file_and_names_both(home: Home, tmp_path: Path) -> None:
    home.content = CONTENT
    with pytest.raises(StorageError, match=f"found sha256 {hashlib.sha256(CONTENT).hexdigest()}, expected {'0' * 64}"):
        download.fetch(home.url, tmp_path / "a.part", limit=10_000, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, 5)])
def test_answer_that_will_not_change_is_not_asked_again(home: Home, tmp_path: Path, status: int, tries: int) -> None:
    home.status = status
    with pytest.raises(LinkError, match=f"the server answers {status}"):
        download.fetch(home.url, tmp_path / "a.part", limit=10_000)
    assert len(home.ranges) == tries


def test_file_that_is_too_large_is_not_taken(home: Home, tmp_path: Path) -> None:
    home.content = CONTENT
    with pytest.raises(LinkError, match="expected the data set"):
        download.fetch(home.url, tmp_path / "a.part", limit=5119)


def test_lack_of_room_is_said_before_the_first_byte(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.content = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    with pytest.raises(StorageError, match="found 3 MB free") as caught:
        download.fetch(home.url, tmp_path / "a.part", limit=10_000)
    assert caught.value.error_id == "disk-failed"
    assert (tmp_path / "a.part").stat().st_size == 0


def test_disk_that_fills_up_while_writing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> None:
        raise OSError(28, "No space left on device")

    with GrowingFile(tmp_path / "a.part") as file:
        monkeypatch.setattr("blossom_edge.durable.growing.write_all", full)
        with pytest.raises(StorageError, match="No space left on device"):
            file.append(b"x")


def test_redirect_from_https_to_http_is_refused() -> None:
    handler = download._NoDowngrade()
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(OSError, match="from https to http"):
        handler.redirect_request(request, io.BytesIO(), 302, "", HTTPMessage(), "http://example.org/a")


def test_set_is_unpacked_with_the_archives_in_it_and_noted(home: Home, tmp_path: Path) -> None:
    inner = zipped({"UCI HAR Dataset/README.txt": b"hello"})
    home.content = zipped({"UCI HAR Dataset.zip": inner, "UCI HAR Dataset.names": b"x"})
    source = source_at(home, inner=("UCI HAR Dataset.zip",))
    got = obtain(source, tmp_path)
    assert (tmp_path / "tiny" / "UCI HAR Dataset" / "README.txt").read_bytes() == b"hello"
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["UCI HAR Dataset", "UCI HAR Dataset.names"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.json"]
    assert (got.expected, known_sha256(source, tmp_path)) == ("", got.sha256)


def test_second_fetch_of_a_set_without_known_checksum_is_held_to_the_first(home: Home, tmp_path: Path) -> None:
    home.content = zipped({"a.txt": b"first"})
    source = source_at(home)
    obtain(source, tmp_path)
    shutil.rmtree(tmp_path / "tiny")
    home.content, home.tag = zipped({"a.txt": b"other"}), '"two"'
    with pytest.raises(StorageError, match="found sha256"):
        obtain(source, tmp_path)
    digest = hashlib.sha256(home.content).hexdigest()
    assert obtain(source, tmp_path, sha256=digest.upper()).expected == digest


def test_archive_that_is_damaged_leaves_nothing_behind(home: Home, tmp_path: Path) -> None:
    home.content = zipped({"a.txt": bytes(5000)})[:-30]
    with pytest.raises(ConfigError, match="cannot be"):
        obtain(source_at(home), tmp_path)
    assert list(tmp_path.iterdir()) == []


def refused(archive: Path, folder: Path, *, limit: int = 100_000) -> str:
    with pytest.raises(ConfigError) as caught:
        unpack(archive, folder, limit=limit)
    assert caught.value.error_id == "data-invalid"
    return str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "a\\..\\outside", "C:outside"])
def test_path_that_leaves_the_folder_is_refused_in_zip_and_tar(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.zip").write_bytes(zipped({name: b"x"}))
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    for file in ("bad.zip", "bad.tar.gz"):
        assert "expected paths below the folder" in refused(tmp_path / file, tmp_path / "in")
    assert list((tmp_path / "in").rglob("*")) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    assert "a link or device" in refused(tmp_path / "bad.tar", tmp_path / "in")
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as pack:
        pack.writestr(info, "/etc/passwd")
    assert "a link or device" in refused(tmp_path / "bad.zip", tmp_path / "in")


def test_bytes_that_come_out_are_counted_and_no_file_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(zipped({"a": bytes(60_000), "b": bytes(60_000)}))
    assert "more than 0 MB in it" in refused(tmp_path / "bomb.zip", tmp_path / "in")
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("a")
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    assert "a twice" in refused(tmp_path / "twice.tar", tmp_path / "other")


# commands


def test_fetch_shows_what_it_is_then_asks_and_a_no_fetches_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "tiny", source_at(home, licence="CC BY 4.0", sha256="ab" * 32, vouched="the authors"))
    monkeypatch.setattr("click.confirm", lambda *args, **kwargs: False)
    assert run(program, ["data", "fetch", "tiny", "--data-folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    for part in (home.url, "10 kB", "CC BY 4.0", "ab" * 32, "said by the authors", "nothing was fetched"):
        assert part in said
    assert home.ranges == []


def test_fetch_and_list_name_the_source_that_readers_take(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.content = zipped({"a.txt": b"first"})
    monkeypatch.setitem(SOURCES, "tiny", source_at(home))
    args = ["--data-folder", str(tmp_path)]
    assert run(program, ["data", "fetch", "tiny", "--yes", *args]) == 0
    shown = capsys.readouterr()
    assert f"tiny:{tmp_path / 'tiny'}" in shown.out
    assert hashlib.sha256(home.content).hexdigest() in shown.out
    assert "sha256: not known" in shown.err
    assert run(program, ["data", "fetch", "tiny", *args]) == 0
    assert "is here" in capsys.readouterr().out
    assert run(program, ["data", "list", "--json", *args]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["datasets"]}
    assert entries["tiny"]["source"] == f"tiny:{tmp_path / 'tiny'}"
    assert entries["ucihar"]["source"] is None
    assert run(program, ["data", "list", *args]) == 0
    assert "ptbxl" in capsys.readouterr().out


def test_set_behind_a_form_is_not_fetched_and_has_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["data", "fetch", "iemocap", "--yes", "--data-folder", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "1. fill in the form at https://sail.usc.edu/iemocap/" in out
    assert f"{tmp_path}/iemocap" in out


@pytest.mark.parametrize(("args", "error_id"), [(["mnist"], "nothing-found"), (["ucihar", "--sha256", "12"], "usage")])
def test_wrong_use_is_one_line(
    args: list[str], error_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, ["data", "fetch", *args, "--data-folder", str(tmp_path), "--yes"]) == 2
    assert f"[{error_id}]" in capsys.readouterr().err


def test_sources_can_be_unpacked_and_have_terms() -> None:
    for source in SOURCES.values():
        assert source.licence
        assert source.homepage.startswith("https://")
        assert bool(source.url) or bool(source.steps)
        if source.url:
            assert source.url.startswith("https://")
            assert source.size < source.unpacked
            assert len(source.sha256) in (0, 64)
            assert bool(source.sha256) == bool(source.vouched)
    assert issubclass(StorageError, BlossomError)
