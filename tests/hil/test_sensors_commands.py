"""`sensors watch` and `sensors calibrate` as a person uses them: on a terminal, on a device that lies, turns, moves."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.board import clock
from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.calibration import read_calibrations
from blossom_edge.sensors.opening import close_sensors, open_sensors
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import LSM6DSOX
from firmware_profiles import load_profile
from tests.hil.iio_board import gather
from tests.support.terminal import ESCAPE, Terminal, screen

EDGE = [sys.executable, "-m", "blossom_edge.cli.main"]
G = 9.80665
PROFILE = """schema = 1
title = "Mine"
extends = "jetson-imu"
"""
TWO = """
schema = 1
title = "Two sensors"
""" + "".join(
    f"""
[sensors.{name}]
channels = [{{ name = "{name[0]}x", unit = "{unit}", range = [-{limit}, {limit}] }}]
[[sensors.{name}.sources]]
driver = "iio"
rate_hz = 52
device = "lsm6dsox_{kind}"
[modalities.{name}]
sensor = "{name}"
channels = ["{name[0]}x"]
rate_hz = 52
window = 32
hop = 16
"""
    for name, unit, limit, kind in (("linear", "m/s2", 39.2, "accel"), ("angular", "rad/s", 4.3, "gyro"))
)


class Body:
    """How the device lies, and what its gyroscope shows then. up: in the axes of the sensor."""

    def __init__(self) -> None:
        self.up: tuple[float, float, float] = (0.0, 0.0, 1.0)
        self.bias = {"gx": 0.02, "gy": -0.01, "gz": 0.005}
        self.swing = 0.0

    def __call__(self, channel: str, seconds: float) -> float:
        if channel in self.bias:
            return self.bias[channel]
        return G * self.up["xyz".index(channel[-1])] + self.swing * math.sin(20 * seconds)


@pytest.fixture
def body() -> Body:
    return Body()


@pytest.fixture
def board(tmp_path: Path, body: Body, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBoard]:
    """The board of a profile of our own, which lies somehow."""
    (tmp_path / "mine.toml").write_text(PROFILE)
    with FakeBoard(str(tmp_path / "mine.toml"), tmp_path / "board", only=["iio"], signal=body) as board:
        monkeypatch.setenv("BLOSSOM_ROOT", str(board.host.root))
        yield board


def edge(*words: str, root: Path | None = None) -> tuple[int, str, str]:
    """Run a command to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"} | ({} if root is None else {"BLOSSOM_ROOT": str(root)})
    done = subprocess.run(
        [*EDGE, *words], env=env, capture_output=True, text=True, timeout=50, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout, done.stderr


def calibrate(tmp_path: Path, *words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    """In this process, for device `a`."""
    command = ["sensors", "calibrate", "--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data")]
    assert run(program, [*command, "--id=a", "--yes", "--seconds=0.7", "--json", *words]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def watched(tmp_path: Path, device: str, *, capsys: pytest.CaptureFixture[str]) -> list[float]:
    command = ["sensors", "watch", "--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data")]
    assert run(program, [*command, f"--id={device}", "--seconds=0.6", "--json"]) == 0
    last: list[float] = json.loads(capsys.readouterr().out)["sensors"]["imu"]["last"]
    return last


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def terminal(board: FakeBoard, tmp_path: Path) -> Iterator[Terminal]:
    """`sensors watch` on that board, on a terminal."""
    words = ["--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data")]
    terminal = Terminal([*EDGE, "sensors", "watch", *words], {"BLOSSOM_ROOT": str(board.host.root)})
    yield terminal
    terminal.close()


def test_bars_are_redrawn_in_place_within_80_columns_until_ctrl_c(terminal: Terminal) -> None:
    terminal.wait_for(lambda said: said.count("\x1b[7A\x1b[J") >= 2, "seven lines, drawn anew twice")
    code, said = terminal.end()
    assert code == 0, said
    assert max(len(ESCAPE.sub("", line)) for line in said.splitlines()) <= 80
    shown = [line for line in screen(said) if line and line != "^C"]
    assert len(shown) == 7, shown
    assert re.fullmatch(r"imu \(iio\): \d+\.\d of 50 Hz, \d+ samples", shown[0])
    #  0 of -39.2 to 39.2 is in the middle; 9.81 is (9.81 + 39.2) / 78.4 * 20 = 12.5
    assert re.fullmatch(r"  ax +-39\.2 \[\.{10}#\.{9}\] 39\.2 +\S+ m/s2", shown[1])
    assert re.fullmatch(r"  az +-39\.2 \[\.{12}#\.{7}\] 39\.2 +9\.8\d* m/s2", shown[3])
    assert re.fullmatch(r"  gx .* 0\.0[12]\d* rad/s", shown[4])


def test_an_unplugged_sensor_says_why_on_the_screen_and_the_code_is_4(board: FakeBoard, terminal: Terminal) -> None:
    terminal.wait_for(lambda said: "az" in said, "the first bars")
    board.fakes["imu"].unplug()
    said = terminal.wait_for(lambda said: screen(said)[1].startswith("  imu: "), "the reason below the sensor's name")
    code, said = terminal.end()
    assert code == 4
    assert max(len(ESCAPE.sub("", line)) for line in said.splitlines()) <= 80
    shown = [line for line in screen(said) if line and line != "^C"]
    assert sum(line.startswith("imu (iio)") for line in shown) == 1  # drawn over, not below
    assert "the device" in shown[1]


@pytest.mark.slow
def test_a_sensor_that_is_plugged_in_again_is_shown_again(board: FakeBoard, terminal: Terminal) -> None:
    terminal.wait_for(lambda said: "az" in said, "the first bars")
    board.fakes["imu"].unplug()
    gone = terminal.wait_for(lambda said: "no samples for" in screen(said)[0], "that nothing comes")
    assert not [line for line in screen(gone) if line.startswith("  az")]  # an old bar looks like one of now
    board.fakes["imu"].replug()
    terminal.wait_for(lambda said: any(line.startswith("  az") for line in screen(said)), "bars again")
    code, said = terminal.end()
    assert code == 0, said
    assert "Hz" in screen(said)[0]


def test_ctrl_c_while_calibrate_waits_for_a_key_ends_it_with_130(board: FakeBoard, tmp_path: Path) -> None:
    words = ["--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data")]
    terminal = Terminal([*EDGE, "sensors", "calibrate", *words], {"BLOSSOM_ROOT": str(board.host.root)})
    try:
        terminal.wait_for(lambda said: "then press Enter" in said, "the question")
        code, said = terminal.end()
    finally:
        terminal.close()
    assert code == 130
    assert said.endswith("\n")
    assert not (tmp_path / "data").exists()


def test_calibrate_without_anybody_to_press_a_key_names_yes(board: FakeBoard, tmp_path: Path) -> None:
    words = ["--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data")]
    code, _, err = edge("sensors", "calibrate", *words, root=board.host.root)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: the input ended at a question")
    assert "--yes" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sensor=angular", "--up=+z", "--then-up=+x"), "angular has 0 channels in m/s2, expected the 3 axes"),
        (("--sensor=linear", "--up=+z"), "linear has 1 channels in m/s2, expected the 3 axes"),
        (("--sensor=linear",), "linear has channels in m/s2, expected a gyroscope's in rad/s; say with --up"),
    ],
)
def test_what_cannot_be_calibrated_is_said_before_the_sensor_is_opened(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.toml").write_text(TWO)
    command = ["sensors", "calibrate", "--profile", str(tmp_path / "two.toml"), "--data-dir", str(tmp_path / "data")]
    assert run(program, [*command, *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "press Enter" not in err


@pytest.mark.parametrize("command", [("sensors", "watch"), ("sensors", "calibrate"), ("doctor",)])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(
    command: tuple[str, ...], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, [*command, "--profile=jetson-imu", f"--seconds={seconds}"]) == 2
    assert f"found {seconds}, expected a number of seconds above 0" in capsys.readouterr().err


@pytest.mark.slow
def test_watch_tells_numbers_as_json(board: FakeBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data"), "--seconds=2", "--json"]
    assert run(program, ["sensors", "watch", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    imu = told["sensors"]["imu"]
    assert told["failed"] == {}
    assert (imu["source"], imu["wanted_hz"], imu["failed"]) == ("iio", 50.0, "")
    assert imu["units"] == ["m/s2"] * 3 + ["rad/s"] * 3
    assert imu["rate_hz"] == pytest.approx(50, rel=0.1)
    assert imu["samples"] >= 50
    assert imu["last"] == pytest.approx([0, 0, G, 0.02, -0.01, 0.005], abs=2e-3)  # steps of 1.2e-3 and 2.7e-4


def test_a_simulated_sensor_is_shown_as_join_would_simulate_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--profile", "generic-mock", "--data-dir", str(tmp_path)]
    assert run(program, ["sensors", "watch", *where, "--seconds=1.2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == {}
    imu = told["sensors"]["imu"]
    assert (imu["source"], imu["failed"]) == ("synthetic", "")
    assert imu["rate_hz"] == pytest.approx(50, rel=0.05)
    assert 0 <= imu["last_age_s"] < 0.5
    assert run(program, ["sensors", "calibrate", *where, "--yes"]) == 2
    assert "sensor imu is simulated here" in capsys.readouterr().err


def test_a_wrong_key_of_a_source_is_an_error_of_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.toml").write_text(TWO.replace('device = "lsm6dsox_gyro"', 'devise = "lsm6dsox_gyro"'))
    assert run(program, ["sensors", "watch", "--profile", str(tmp_path / "two.toml"), "--data-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "sensor angular: iio: device: is missing; devise: unknown key (did you mean 'device'?)" in err
    assert "--mock" not in err


@pytest.mark.slow
def test_one_of_two_sensors_is_missing_and_the_other_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.toml").write_text(TWO)
    monkeypatch.setenv("BLOSSOM_ROOT", str(tmp_path / "root"))

    def watch(*words: str) -> tuple[int, dict[str, Any], str]:
        command = ["sensors", "watch", "--profile", str(tmp_path / "two.toml"), "--seconds=0.6", "--json", *words]
        code = run(program, [*command, "--data-dir", str(tmp_path / "data")])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    with FakeIio(tmp_path / "root") as fakes:
        fakes.add(LSM6DSOX[1])
        code, told, err = watch()
        assert code == 4
        assert list(told["sensors"]) == ["linear"]
        assert "lsm6dsox_gyro" in told["failed"]["angular"]
        assert "warning: angular: no source answered (iio: " in err
        code, told, _ = watch("--sensor=linear")
        assert (code, told["failed"]) == (0, {})
        code, told, _ = watch("--sensor=heart")
        assert (code, told["error"]["id"]) == (2, "usage")
        code, told, _ = watch("--sensor=angular")
        assert (code, told["error"]["id"]) == (4, "sensor-missing")


def test_a_tilted_sensor_is_turned_back_for_its_device_alone(
    board: FakeBoard, body: Body, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tilted by 30 degrees around x: at rest it shows (0, g/2, 0.866 g)."""
    body.up = (0.0, 0.5, math.sqrt(0.75))
    profile, before = tmp_path / "mine.toml", PROFILE.encode()
    told = calibrate(tmp_path, "--up=+z", capsys=capsys)
    assert told["bias"] == pytest.approx(body.bias, abs=3e-4)
    s, c = 0.5, math.sqrt(0.75)
    assert np.array(told["mount"]) == pytest.approx(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), abs=1e-3)
    assert profile.read_bytes() == before
    assert files(tmp_path / "data") == ["devices/a/calibration.json"]
    assert watched(tmp_path, "a", capsys=capsys) == pytest.approx([0, 0, G, 0, 0, 0], abs=5e-3)
    assert watched(tmp_path, "b", capsys=capsys) == pytest.approx([0, G * s, G * c, 0.02, -0.01, 0.005], abs=5e-3)


def test_join_opens_its_sensors_with_the_calibration_of_its_device(
    board: FakeBoard, body: Body, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body.up = (0.0, -1.0, 0.0)
    calibrate(tmp_path, "--up=+z", capsys=capsys)
    sensors = open_sensors(
        load_profile(str(tmp_path / "mine.toml")),
        federation=load_federation("har"),
        host=board.host,
        calibrations=read_calibrations(tmp_path / "data/devices/a"),
    )
    try:
        values = gather(sensors["imu"], 10).values  # type: ignore[arg-type]  # it has what LiveSensor has
        assert values.mean(axis=0) == pytest.approx([0, 0, G, 0, 0, 0], abs=5e-3)
    finally:
        close_sensors(sensors)


def test_without_up_only_the_bias_is_kept(board: FakeBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = calibrate(tmp_path, capsys=capsys)
    assert told["mount"] is None
    assert told["bias"] == pytest.approx({"gx": 0.02, "gy": -0.01, "gz": 0.005}, abs=3e-4)


@pytest.mark.slow
def test_a_second_position_asked_for_on_the_terminal_fixes_the_turn(
    board: FakeBoard, body: Body, tmp_path: Path
) -> None:
    """Turned by 90 degrees around z, which gravity alone cannot see: the device's x is minus y of the sensor."""
    words = ["--profile", str(tmp_path / "mine.toml"), "--data-dir", str(tmp_path / "data"), "--id=a", "--seconds=1"]
    command = [*EDGE, "sensors", "calibrate", *words, "--up=+z", "--then-up=+x", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ}) as child:
        assert child.stdin is not None
        assert child.stderr is not None

        def asked(words: str) -> None:
            said = b""
            while words.encode() not in said:
                assert child.stderr is not None
                byte = child.stderr.read(1)
                assert byte, said.decode()
                said += byte

        asked("lay the device down, +z up, then press Enter")
        child.stdin.write(b"\n")
        child.stdin.flush()
        asked("turn it until +x points up, then press Enter")
        body.up = (0.0, -1.0, 0.0)
        child.stdin.write(b"\n")
        child.stdin.flush()
        out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err.decode()
    mount = np.array(json.loads(out)["mount"])
    assert mount == pytest.approx(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), abs=1e-3)
    kept = read_calibrations(tmp_path / "data/devices/a")["imu"]
    assert kept.mount is not None
    assert np.array(kept.mount) == pytest.approx(mount)


def test_a_moving_device_is_refused_and_nothing_is_kept(
    board: FakeBoard, body: Body, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body.swing = 3.0
    told = calibrate(tmp_path, "--up=+z", capsys=capsys, code=4)
    assert told["error"]["id"] == "not-at-rest"
    assert "m/s2, expected at most 0.5" in told["error"]["message"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", [["--then-up=+x"], ["--up=+w"], ["--up=+x", "--then-up=-x"], ["--sensor=heart"]])
def test_wrong_words_are_refused_before_anything_is_measured(
    words: list[str], board: FakeBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(tmp_path, *words, capsys=capsys, code=2)["error"]["id"] == "usage"


def test_the_time_is_kept_only_where_it_is_known(
    board: FakeBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = board.host.root / clock.SYNCHRONISED
    mark.parent.mkdir(parents=True)
    mark.touch()  # systemd-timesyncd has set the clock
    told = calibrate(tmp_path, capsys=capsys)
    assert abs(datetime.fromisoformat(told["made_utc"]).timestamp() - time.time()) < 60
    monkeypatch.setattr(clock, "NOT_BEFORE", math.inf)  # a board that stands in the past
    assert calibrate(tmp_path, capsys=capsys)["made_utc"] is None
    assert read_calibrations(tmp_path / "data/devices/a")["imu"].made_utc is None
