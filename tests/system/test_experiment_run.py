"""`blossom-edge experiment run`: from a file to tables, on worker processes, killed and gone on with."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.durable.lock import FolderLock
from tests.live import until as wait_until
from tests.support.experiments import EXPERIMENT, toml_of, write_tiny

pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def experiment(folder: Path, **changes: Any) -> Path:
    write_tiny(folder)
    file = folder / "tiny-runs.toml"
    file.write_text(toml_of({**EXPERIMENT, **changes}))
    return file


def test_a_file_becomes_records_tables_and_page_and_is_not_done_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = experiment(tmp_path), tmp_path / "tiny-runs"
    assert run(program, ["experiment", "run", str(file), "--workers", "1"]) == 0
    assert len(list((out / "runs").glob("*.json"))) == 4
    assert {"results.csv", "clients.csv", "summary.json", "index.html"} <= {path.name for path in out.iterdir()}
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    capsys.readouterr()

    assert run(program, ["experiment", "run", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_runs"] == 4
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == before

    assert run(program, ["experiment", "list", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_done"] == 4

    experiment(tmp_path, rounds=3)
    assert run(program, ["experiment", "run", str(file)]) == 2
    assert "experiment-changed" in capsys.readouterr().err

    assert run(program, ["experiment", "list", str(file), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["num_done"], listed["num_changed"]) == (0, 4)

    (tmp_path / "tiny.npz").unlink()
    assert run(program, ["experiment", "list", str(file)]) == 0
    said = capsys.readouterr()
    assert "4 of 4 runs are done" in said.out
    assert "not checked" in said.err


def test_a_folder_that_another_run_works_in_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = experiment(tmp_path)
    with FolderLock.acquire(tmp_path / "tiny-runs", what="experiment run tiny-runs.toml"):
        assert run(program, ["experiment", "run", str(file)]) == 1
    said = capsys.readouterr().err
    assert "folder-in-use" in said
    assert "--out" in said


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = experiment(tmp_path, modes=["majority"], splits=["iid", "by-subject"], unseen=3, seeds=1)
    assert run(program, ["experiment", "run", str(file), "--workers", "1"]) == 1
    said = capsys.readouterr().err
    assert "by-subject_all_majority_seed0 failed: by-subject: found 3 known people" in said
    assert [path.name for path in (tmp_path / "tiny-runs" / "runs").iterdir()] == [
        "tiny_1-1-2_iid_all_majority_seed0.json"
    ]


@pytest.mark.slow
def test_killed_in_mid_run_it_leaves_nobody_behind_and_goes_on_where_it_was(tmp_path: Path) -> None:
    file = experiment(tmp_path, rounds=30, seeds=3)
    done = tmp_path / "tiny-runs" / "runs"
    first = start(file)
    until(lambda: len(list(done.glob("*.json"))) >= 1, 60)
    workers = children(first.pid)
    first.kill()
    first.wait()
    until(lambda: not any(map(alive, workers)), 30)
    kept = {path: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert workers
    assert 1 <= len(kept) < 6
    assert start(file).wait(120) == 0
    assert len(list(done.glob("*.json"))) == 6
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_gives_130(tmp_path: Path) -> None:
    process = start(experiment(tmp_path, rounds=300), stderr=subprocess.PIPE)
    until(lambda: children(process.pid), 60)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"stopped with 0 of 4 runs done; the same command goes on from there" in said
    assert not any(map(alive, workers))


@pytest.mark.slow
def test_an_order_to_end_leaves_neither_workers_nor_memory_behind(tmp_path: Path) -> None:
    scratch = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    before = set(scratch.glob("blossom-edge-*"))
    process = start(experiment(tmp_path, rounds=300))
    until(lambda: children(process.pid) and set(scratch.glob("blossom-edge-*")) - before, 60)
    workers = children(process.pid)
    process.terminate()
    assert process.wait(30) == 143
    assert not any(map(alive, workers))
    assert not set(scratch.glob("blossom-edge-*")) - before


@pytest.mark.slow
def test_a_worker_that_dies_is_noticed_and_the_other_runs_are_done(tmp_path: Path) -> None:
    process = start(experiment(tmp_path, rounds=20), stderr=subprocess.PIPE)
    until(lambda: children(process.pid), 60)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"killed by SIGKILL" in said
    assert len(list((tmp_path / "tiny-runs" / "runs").glob("*.json"))) == 3


def until(condition: Callable[[], object], timeout_s: float) -> None:
    wait_until(condition, "the experiment", (), timeout_s=timeout_s)


def start(file: Path, **streams: Any) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "blossom_edge.cli.main", "experiment", "run", str(file), "--workers", "1"]
    # a shell starts what runs in the background deaf to Ctrl-C
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, preexec_fn=hear, **{**quiet, **streams})


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
