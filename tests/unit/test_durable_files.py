"""Whole files, folders and locks: old or new, never half, under kill, full disk and a second process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import FolderLock, atomic_write, make_folder, open_child_log, sweep_temporary

WRITE = "import sys, pathlib; from blossom_edge.durable import atomic_write; " + (
    "atomic_write(pathlib.Path(sys.argv[1]), b'new' * 50_000, name='version')"
)
OLD, NEW = b"old", b"new" * 50_000


def run_python(code: str, *args: object, failpoint: str = "") -> int:
    """Run `code` in a process of its own, killed at `failpoint`; its return code."""
    environment = {k: v for k, v in os.environ.items() if k != "BLOSSOM_FAILPOINT"}
    if failpoint:
        environment["BLOSSOM_FAILPOINT"] = failpoint
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], env=environment, check=False).returncode


def test_written_file_has_the_content_is_ours_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_mode_of_a_file_for_others_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "report.html", b"<html>", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("place", "expected"), [("version:half", OLD), ("version:prerename", OLD), ("version:done", NEW)]
)
def test_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path, place: str, expected: bytes) -> None:
    path = tmp_path / "block"
    path.write_bytes(OLD)
    assert run_python(WRITE, path, failpoint=place) == -signal.SIGKILL
    assert path.read_bytes() == expected
    assert sweep_temporary(tmp_path) == (0 if expected == NEW else 1)
    assert run_python(WRITE, path) == 0
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["block"]


def test_failpoint_counts_visits_and_ignores_other_names(tmp_path: Path) -> None:
    code = "from blossom_edge.durable import failpoint; import sys\nfor i in range(5): failpoint(sys.argv[1]); print(i)"
    assert run_python(code, "a:half", failpoint="a:half#5") == -signal.SIGKILL
    assert run_python(code, "a:half", failpoint="a:half#6") == 0
    assert run_python(code, "b:half", failpoint="a:half#1") == 0


def test_full_disk_is_one_typed_error_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_bytes(OLD)
    code = (
        "import resource, signal, sys, pathlib\n"
        "from blossom_edge.durable import atomic_write\n"
        "from blossom_edge.core.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: atomic_write(pathlib.Path(sys.argv[1]), b'n' * 4000)\n"
        "except StorageError as error: sys.exit(7 if error.error_id == 'disk-failed' else 8)\n"
    )
    assert run_python(code, path) == 7
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["block"]


def test_failed_fsync_is_never_taken_for_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fsync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "block").write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", no_fsync)
    with pytest.raises(StorageError, match=r"block: Input/output error") as caught:
        atomic_write(tmp_path / "block", NEW)
    assert caught.value.error_id == "disk-failed"
    assert (tmp_path / "block").read_bytes() == OLD
    assert os.listdir(tmp_path) == ["block"]


def test_write_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        atomic_write(tmp_path / "nowhere" / "file", b"")


def test_sweep_takes_only_what_writers_left(tmp_path: Path) -> None:
    for name in (".block.0a1b2c3d.tmp", "block", ".hidden", "notes.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert sweep_temporary(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".hidden", "block", "notes.tmp"]


def test_made_folders_are_for_this_user_only_and_existing_ones_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert [p.stat().st_mode & 0o777 for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]


def test_folder_where_a_file_stands_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make the folder") as caught:
        make_folder(tmp_path / "file" / "sub")
    assert caught.value.error_id == "disk-failed"
    with pytest.raises(StorageError):
        make_folder(tmp_path / "file")


def test_output_of_a_child_goes_to_a_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "broker.log").write_text("of the last run, longer than the new one")
    with open_child_log(tmp_path / "broker.log") as output:
        subprocess.run([sys.executable, "-c", "print('hello')"], stdout=output, check=True)
    assert (tmp_path / "broker.log").read_text() == "hello\n"


def test_second_lock_names_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    with FolderLock.acquire(tmp_path / "state", what="gateway"):
        with pytest.raises(StorageError, match=rf"state is in use by gateway \(process {os.getpid()}\)") as caught:
            FolderLock.acquire(tmp_path / "state", what="another")
        assert caught.value.error_id == "folder-in-use"
        assert caught.value.hint
    FolderLock.acquire(tmp_path / "state", what="next").release()


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from blossom_edge.durable import FolderLock\n"
        "lock = FolderLock.acquire(pathlib.Path(sys.argv[1]), what='device pi-7'); print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StorageError, match=rf"device pi-7 \(process {holder.pid}\)"):
            FolderLock.acquire(tmp_path, what="gateway")
        holder.kill()
    lock = FolderLock.acquire(tmp_path, what="gateway")
    lock.release()
    lock.release()
