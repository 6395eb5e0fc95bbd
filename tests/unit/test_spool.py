"""The spool: content under its hash, checked on the way out, written once, kept as long as told."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.spool import Spool
from blossom_edge.core.errors import StorageError

DATA = b"delta of pi-a"
SHA = hashlib.sha256(DATA).hexdigest()


def test_content_comes_back_under_its_hash(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "data" / "spool")
    assert not spool.has(SHA)
    assert spool.put(DATA) == SHA
    assert spool.has(SHA)
    assert spool.get(SHA) == DATA
    assert Spool(tmp_path / "data" / "spool").get(SHA) == DATA
    assert spool.put(b"") == hashlib.sha256(b"").hexdigest()


def test_content_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(DATA)
    before = (tmp_path / SHA).stat()
    spool.put(DATA)
    after = (tmp_path / SHA).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_damaged_file_is_refused_and_healed_by_the_same_content(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(DATA)
    (tmp_path / SHA).write_bytes(DATA[:-1] + b"b")
    with pytest.raises(StorageError, match=SHA) as caught:
        spool.get(SHA)
    assert caught.value.error_id == "file-damaged"
    spool.put(DATA)
    assert spool.get(SHA) == DATA


def test_missing_content_is_a_typed_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"{SHA}: No such file") as caught:
        Spool(tmp_path).get(SHA)
    assert caught.value.error_id == "file-damaged"


@pytest.mark.parametrize("name", ["", "../ledger", SHA.upper(), SHA[:-1], SHA + "\n", f"a/{SHA}"])
def test_name_that_is_no_hash_never_reaches_the_disk(tmp_path: Path, name: str) -> None:
    (tmp_path / "ledger").write_bytes(b"")
    spool = Spool(tmp_path / "spool")
    for call in (spool.get, spool.has):
        with pytest.raises(ValueError, match="SHA-256"):
            call(name)


def test_drop_keeps_what_is_named_and_touches_no_other_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    one, two, three = (spool.put(text) for text in (b"1", b"22", b"333"))
    (tmp_path / "README").write_text("not ours")
    assert spool.size_bytes() == 6
    assert spool.drop({two}) == 2
    assert [spool.has(sha) for sha in (one, two, three)] == [False, True, False]
    assert spool.size_bytes() == 2
    assert (tmp_path / "README").exists()


@pytest.mark.parametrize(("place", "kept"), [("half", False), ("prerename", False), ("done", True)])
def test_killed_writer_leaves_the_whole_content_or_none(tmp_path: Path, place: str, kept: bool) -> None:
    code = (
        "import sys, pathlib; from aggregator.spool import Spool\n"
        "Spool(pathlib.Path(sys.argv[1])).put(b'delta of pi-a')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "versions")]
    environment = {**os.environ, "BLOSSOM_FAILPOINT": f"versions:{place}"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    spool = Spool(tmp_path / "versions")
    assert spool.has(SHA) == kept
    assert os.listdir(spool.folder) == ([SHA] if kept else [])
    spool.put(DATA)
    assert spool.get(SHA) == DATA
