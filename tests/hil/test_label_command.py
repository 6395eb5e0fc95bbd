"""`blossom-edge label`: a person says what is going on while the device measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.cli.main import program
from blossom_edge.client.store import Store
from blossom_edge.console.program import run
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.labels import LabelledSensor, LabelTrack, boot_id
from blossom_edge.sensors.opening import open_sensors
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.processes import Gateway
from tests.live import TINY, WINDOWS, until

SETS = [word.removeprefix("--set=") for word in WINDOWS]
REST, WALK, RUN = 0, 1, 2
ENDLESS = TINY.replace("stop_rounds = 3", "stop_rounds = 0").replace("deadline_s = 40.0", "deadline_s = 20.0")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    (tmp_path / "tiny.toml").write_text(TINY)
    return load_federation(str(tmp_path / "tiny.toml"))


@pytest.fixture
def joined(tmp_path: Path, federation: Federation) -> Path:
    """The folder of devices, with what `join` of device `me` leaves in it; it runs, for all that `label` knows."""
    store = Store(tmp_path / "edge", "me")
    store.enter(federation)
    store.keep_status({"device": "me", "federation": "tiny", "running_here": True, "pid": os.getpid()})
    store.close()
    return tmp_path / "edge"


@pytest.fixture
def label(joined: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """`label("move=walk")`: exit code, what it told as JSON, what it said on stderr."""

    def say(*words: str) -> tuple[int, dict[str, Any], str]:
        code = run(program, ["label", *words, "--data-dir", str(joined), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return say


@pytest.mark.slow
def test_a_change_of_class_gives_windows_of_both_classes_and_an_empty_one_ends_it(
    joined: Path, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: Callable[..., Any]
) -> None:
    with FakeBoard("jetson-imu", tmp_path / "board", only=["iio"], sets=SETS) as board:
        monkeypatch.setenv("BLOSSOM_ROOT", str(board.host.root))
        boot = boot_id(board.host.root)
        track = LabelTrack(joined / "devices/me", federation, values={}, now=time.monotonic(), boot=boot)
        sensors = open_sensors(board.profile, federation=federation, host=board.host)
        live = {name: LabelledSensor(sensor, track) for name, sensor in sensors.items()}
        collector = Collector(board.profile, federation, live, split="blocks", holdout=0.0)
        try:

            def windows() -> list[int]:
                collector.poll(time.monotonic())
                labels = collector.train().labels.get("move", np.zeros(0))
                return [int(one) for one in labels]

            def made() -> int:
                windows()
                return collector.counts()["accel"].get("made", 0)

            until(lambda: made() >= 3, "windows of a time of which nobody said anything", ())
            assert windows() == []
            assert label("move=walk") == (0, {"device": "me", "labels": {"move": "walk"}}, "")
            until(lambda: windows().count(WALK) >= 3, "windows of walking", ())
            board.activity = 2
            assert label("move=run")[1]["labels"] == {"move": "run"}
            until(lambda: windows().count(RUN) >= 3, "windows of running", ())
            found = windows()
            assert set(found) == {WALK, RUN}
            assert found == sorted(found)  # first the ones, then the others
            assert label("move=")[1]["labels"] == {}
            before = made()
            until(lambda: made() >= before + 4, "windows after its end", ())  # those that lay across it are through
            ended = windows()
            until(lambda: made() >= before + 7, "more of them", ())
            assert windows() == ended
        finally:
            collector.close()


def test_an_unknown_class_is_refused_with_those_that_exist_and_changes_nothing(label: Callable[..., Any]) -> None:
    assert label("move=rest")[0] == 0
    code, told, _ = label("move=dance")
    assert (code, told["error"]["id"]) == (2, "usage")
    assert "found dance, expected one of rest, walk, run" in told["error"]["message"]
    code, told, _ = label("sleep=deep")
    assert (code, told["error"]["hint"]) == (2, "there are move")
    code, told, _ = label("walk")
    assert (code, told["error"]["id"]) == (2, "usage")
    assert label()[1]["labels"] == {"move": "rest"}


def test_without_a_join_that_runs_it_warns(joined: Path, label: Callable[..., Any]) -> None:
    status = joined / "devices/me/status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "running_here": False}))
    code, told, err = label("move=walk")
    assert (code, told["labels"]) == (0, {"move": "walk"})
    assert "warning: join of me is not running; the label holds from its next start on" in err
    assert label()[2] == "warning: join of me is not running\n"


def test_the_same_task_twice_is_refused_and_says_nothing(label: Callable[..., Any]) -> None:
    code, told, _ = label("move=rest", "move=walk")
    assert (code, told["error"]["id"]) == (2, "usage")
    assert told["error"]["message"] == "task move: found 'rest' and 'walk', expected one class"
    assert label()[1]["labels"] == {}


def test_of_two_that_run_one_must_be_chosen(joined: Path, label: Callable[..., Any]) -> None:
    here = json.loads((joined / "devices/me/status.json").read_text())
    for name, running in (("you", True), ("old", False)):
        folder = joined / "devices" / name
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps({**here, "device": name, "running_here": running}))
    code, told, _ = label("move=walk")
    assert (code, told["error"]["id"]) == (2, "usage")
    assert told["error"]["message"] == "2 devices run here: me, you"
    assert label("move=walk", "--id=you")[1] == {"device": "you", "labels": {"move": "walk"}}
    assert "labels" not in label("--id=old")[1]  # never entered a federation, does not run
    (joined / "devices/you/status.json").unlink()
    assert label("move=run")[1]["device"] == "me"  # the only one that runs, though `old` is newer
    code, told, _ = label("--id=nobody")
    assert told["error"]["hint"] == "there is me"


def test_where_nobody_joined_there_is_nobody_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["label", "move=walk", "--data-dir", str(tmp_path / "none")]) != 0
    assert "no device has joined from" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_label_of_before_the_last_start_of_the_board_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: Callable[..., Any]
) -> None:
    boot = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    monkeypatch.setenv("BLOSSOM_ROOT", str(tmp_path / "root"))
    boot.write_text("first\n")
    assert label("move=walk")[1]["labels"] == {"move": "walk"}
    boot.write_text("second\n")
    assert label()[1]["labels"] == {}


@pytest.mark.torch
@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_running_device_takes_part_from_its_label_on(tmp_path: Path, gateway: Callable[..., Gateway]) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.toml").write_text(ENDLESS)
    running = gateway(str(tmp_path / "tiny.toml"))
    running.join("companion", "--profile", "generic-mock", "--mock", *WINDOWS)

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "blossom_edge.cli.main", "label", "--id=board", *words]
        env = {**os.environ, "BLOSSOM_ROOT": str(board.host.root)}
        command += ["--data-dir", str(running.edge_folder)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)

    def taken() -> int:
        return int(running.device("board").get("sensors", {}).get("imu", {}).get("samples", {}).get("taken", 0))

    def took_part(after: int) -> int:
        """The round in which the last update of the device for `accel` was used."""
        number, _, words = str(running.device("board")["outcomes"].get("encoder/accel", "round 0: ")).partition(": ")
        found = int(number.removeprefix("round "))
        return found if found > after and "this device" in words else 0

    with FakeBoard("jetson-imu", tmp_path / "board", only=["iio"]) as board:
        joined = board.join(running, *WINDOWS, device="board")
        running.wait_for(lambda: taken() > 100, "two seconds of its sensor")
        assert running.device("board")["sent"] == {}  # it measures, and learns nothing yet
        refused = say("move=dance")
        assert refused.returncode == 2
        assert "expected one of rest, walk, run" in refused.stderr
        assert say("move=walk").stdout == "board: move=walk\n"
        walked = running.wait_for(lambda: took_part(0), "a round with what it learned of walking")
        board.activity = 2
        assert say("move=run").stdout == "board: move=run\n"
        running.wait_for(lambda: took_part(walked), "a round with what it learned of running besides")
        ended = say("move=")
        assert (ended.stdout, ended.stderr) == ("board: no label\n", "")
        assert joined.end() == 0
        assert "join of board is not running" in say("move=rest").stderr
