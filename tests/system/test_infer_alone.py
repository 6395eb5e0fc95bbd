"""`blossom-edge infer` with what is on the board's disk: without any gateway, and with one that comes later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from live import until
from support.swapping import FEDERATION, KEYS, held_at

from blossom_edge.client.actions import Held
from blossom_edge.client.store import Store
from blossom_edge.testing.processes import Gateway, Process, free_port

INFER = [sys.executable, "-m", "blossom_edge.cli.main", "infer"]
BOARD = ["--profile", "jetson-imu", "--set", "compute.role=infer", "--id", "board"]


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """The data folder of a board that took part until version 4 and was switched off."""
    store = Store(tmp_path / "edge", "board")
    store.enter(FEDERATION)
    for key, one in held_at(4).items():
        store.keep_block(key, Held(one.version, one.sha256, one.data))
    store.keep_status(
        {"device": "board", "profile": "jetson-imu", "modalities": ["accel", "gyro"], "tasks": [], "role": "infer",
         "federation": FEDERATION.name, "running_here": False}
    )  # fmt: skip
    store.close()
    return tmp_path / "edge"


def call(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*INFER, *map(str, options)], capture_output=True, text=True, timeout=60, check=False)


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_without_a_gateway_the_versions_on_disk_predict_and_count_ends_it(edge: Path) -> None:
    done = call(*BOARD, "--data-dir", edge, "--mock", "--json", "--count", "7")
    assert done.returncode == 0, done
    lines = lines_of(done.stdout)
    assert [line["type"] for line in lines] == ["prediction"] * 7 + ["summary"]
    assert lines[0]["versions"] == {str(block): 4 for block in KEYS}
    assert [line["number"] for line in lines[:7]] == [1, 2, 3, 4, 5, 6, 7]
    assert lines[-1]["score"] == {}  # more windows were predicted than shown
    assert "no gateway: federation har as board has it on disk" in done.stderr
    words = call(*BOARD, "--data-dir", edge, "--mock", "--count", "2")
    assert words.returncode == 0
    assert "generation 1: encoder/accel 4" in words.stdout
    assert words.stdout.rstrip().endswith("2 predictions")


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 2, ["--profile", "--bundle"]),
        (["--profile", "jetson-imu", "--bundle", "x", "--gateway", "h"], 2, ["bundle", "gateway"]),
        (["--profile", "jetson-imu", "--publish"], 2, ["--publish", "--gateway"]),
        (["--profile", "jetson-imu", "--gateway", "127.0.0.1:1"], 2, ["compute.role train", "personalize"]),
        ([*BOARD, "--mock"], 1, ["board", "--gateway", "nothing-found"]),
        ([*BOARD, "--mock", "--gateway", "127.0.0.1:1"], 3, ["gateway-unreachable"]),
        (["--bundle", "nowhere.blossom", "--mock"], 2, ["nowhere.blossom", "nothing-found"]),
    ],
)
def test_a_wrong_use_is_said_in_one_line_and_with_json_in_one_object_a_line(
    tmp_path: Path, options: Sequence[str], status: int, words: list[str]
) -> None:
    done = call(*options, "--data-dir", tmp_path, "--wait", "0.5", "--json")
    assert done.returncode == status, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == []
    (line,) = lines_of(done.stdout)
    assert set(line) == {"error"}


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(150)
def test_a_board_that_finds_no_gateway_predicts_and_joins_it_once_it_is_there(edge: Path, tmp_path: Path) -> None:
    assert call(*BOARD, "--data-dir", edge, "--mock", "--count", "1").returncode == 0  # now it has a model in use
    port = free_port()
    options = [*BOARD, "--data-dir", str(edge), "--mock", "--json", "--gateway", f"127.0.0.1:{port}", "--wait", "1"]
    board = Process("board", [*INFER, *options], tmp_path)
    try:
        until(lambda: len(board.out.splitlines()) > 10, "predictions without a gateway", [])
        with Gateway(tmp_path / "place", options=["--set", "visibility=full", f"--port={port}"]) as gateway:
            gateway.wait_for(lambda: any(d["online"] for d in gateway.status()["devices"]), "the board")
            before = len(board.out.splitlines())
            gateway.wait_for(lambda: len(board.out.splitlines()) > before, "it goes on predicting")
        assert board.running()
        versions = [line["versions"] for line in lines_of(board.out) if line["type"] == "prediction"]
        assert versions[0] == {str(block): 4 for block in KEYS}
        assert "looked for again" in board.err
    finally:
        assert board.end() == 0


def test_a_bundle_of_the_board_runs_where_there_is_nothing_else(edge: Path, tmp_path: Path) -> None:
    assert call(*BOARD, "--data-dir", edge, "--mock", "--count", "1").returncode == 0  # now it has a model in use
    file = tmp_path / "board.bundle"
    export = [*INFER[:-1], "export", "--bundle", str(file), "--id", "board", "--data-dir", str(edge)]
    made = subprocess.run(export, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made
    done = call("--bundle", file, "--mock", "--json", "--count", "3", "--data-dir", tmp_path / "elsewhere")
    assert done.returncode == 0, done
    lines = lines_of(done.stdout)
    assert [line["type"] for line in lines] == ["prediction"] * 3 + ["summary"]
    assert lines[0]["versions"] == {str(block): 4 for block in KEYS}
    assert not (tmp_path / "elsewhere").exists()
