"""A device killed at every write of an exchange, and one whose new model kills it: old or new runs, never half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

TESTS = Path(__file__).parents[1]
KILLED, ABORTED = -signal.SIGKILL, -signal.SIGABRT
NUM_BLOCKS = 6
NUM_FILES = 5
"""Of a version in this test: `fusion/har` is all zeros in each, so it stays one file."""


def start(root: Path, *words: str, failpoint: str = "") -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "BLOSSOM_FAILPOINT"}
    environment |= {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    if failpoint:
        environment["BLOSSOM_FAILPOINT"] = failpoint
    program = [sys.executable, "-m", "support.swap_driver", str(root), *words]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def drive(root: Path, *words: str, failpoint: str = "") -> tuple[int, dict[str, Any]]:
    """Its return code, and the last line that it said."""
    with start(root, *words, failpoint=failpoint) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, KILLED, ABORTED), err
    return process.returncode, json.loads(out.splitlines()[-1]) if out else {}


def good(root: Path, *words: str) -> dict[str, Any]:
    status, said = drive(root, *words)
    assert status == 0
    return said


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a device that runs version 1, proved, and what it said."""
    root = tmp_path_factory.mktemp("first")
    return root, good(root, "offer", "1")


@pytest.fixture
def old(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """`tmp_path` is the folder of a device of its own that runs version 1; what it said."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    return first[1]


OLD_WHEN = [
    "block:half#1", f"block:done#{NUM_BLOCKS}",  # the client's own files, before the offer
    "tensors:prerename#1", f"tensors:prerename#{NUM_FILES}", f"tensors:done#{NUM_FILES}",
    "own-head:half", "own-head:prerename", "own-head:done", "model:half", "model:prerename",
]  # fmt: skip


@pytest.mark.parametrize("failpoint", [*OLD_WHEN, "model:done"])
def test_a_device_killed_in_an_exchange_runs_the_old_or_the_new_generation_whole(
    old: dict[str, Any], tmp_path: Path, failpoint: str
) -> None:
    assert (old["number"], old["versions"], old["head"]) == (1, [1], 1.0)
    assert drive(tmp_path, "offer", "2", failpoint=failpoint)[0] == KILLED
    left = good(tmp_path, "show")
    expected = (2, [2], 2.0) if failpoint == "model:done" else (1, [1], 1.0)
    assert (left["number"], left["versions"], left["head"]) == expected
    assert (left["outputs"] == old["outputs"]) is (failpoint != "model:done")
    assert left["damage"] == []
    new = good(tmp_path, "offer", "2")
    assert (new["number"], new["versions"], new["head"]) == (2, [2], 2.0)
    assert new["refused"] == []
    assert good(tmp_path, "show") == new


@pytest.mark.parametrize("failpoint", ["model:half", "model:prerename", "model:done"])
def test_a_device_killed_in_a_rollback_runs_one_generation_whole(
    old: dict[str, Any], tmp_path: Path, failpoint: str
) -> None:
    new = good(tmp_path, "offer", "2")
    assert drive(tmp_path, "rollback", failpoint=failpoint)[0] == KILLED
    left = good(tmp_path, "show")
    if failpoint == "model:done":
        assert (left["number"], left["versions"], left["head"], left["outputs"]) == (3, [1], 1.0, old["outputs"])
    else:
        assert left == new


@pytest.mark.usefixtures("old")
def test_files_of_an_exchange_that_was_killed_are_gone_after_the_next_one(tmp_path: Path) -> None:
    assert drive(tmp_path, "offer", "2", failpoint="own-head:done")[0] == KILLED
    good(tmp_path, "offer", "3")
    folder = next(tmp_path.glob("devices/pi/*/model"))
    assert len(list(folder.glob("*.safetensors"))) == 2 * (NUM_FILES + 1) + 1, "generations 1 and 2, with their heads"
    assert not list(folder.glob(".*.tmp"))


def test_a_model_that_kills_its_process_is_left_at_the_third_start_and_not_taken_again(
    old: dict[str, Any], tmp_path: Path
) -> None:
    status, _ = drive(tmp_path, "offer", "2", failpoint="model:done")  # exchanged, and gone before it proved itself
    assert status == KILLED
    for _ in range(2):
        status, said = drive(tmp_path, "run")
        assert (status, said["versions"]) == (ABORTED, [2])
    with start(tmp_path, "run") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0, "it runs"
    assert (said["number"], said["versions"], said["head"], said["outputs"]) == (3, [1], 1.0, old["outputs"])
    assert said["refused"] == ["crash loop: 3 starts without 10 predictions"]
    assert good(tmp_path, "offer", "2")["versions"] == [1]
    assert good(tmp_path, "offer", "3")["versions"] == [3]


@pytest.mark.usefixtures("old")
def test_plain_restarts_by_a_person_never_count_as_a_crash_loop(tmp_path: Path) -> None:
    assert drive(tmp_path, "offer", "3", failpoint="model:done")[0] == KILLED
    for _ in range(4):
        with start(tmp_path, "run") as process:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert (process.returncode, said["versions"], said["refused"]) == (0, [3], [])
