"""`python -m blossom_edge.testing.board`: a fake board that other processes use, and two of them at one sensor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.board import obey
from blossom_edge.testing.boards import FakeBoard
from firmware_profiles import load_profile
from tests.live import EDGE, until

COMMAND = [sys.executable, "-m", "blossom_edge.testing.board"]
IMU = load_profile("jetson-imu").sensors["imu"]
NEEDED = [channel.name for channel in IMU.channels]


class Terminal:
    """The command in a process, with its stdin."""

    def __init__(self, *options: str) -> None:
        self.child = subprocess.Popen(
            [*COMMAND, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.stdin, self.stdout = self.child.stdin, self.child.stdout

    def line(self) -> str:
        """The next line that it prints."""
        return self.stdout.readline().rstrip("\n")

    def type(self, text: str) -> None:
        """Type a line."""
        self.stdin.write(text + "\n")
        self.stdin.flush()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Ctrl-C; its exit code and what it said on stderr."""
        self.child.send_signal(number)
        _, said = self.child.communicate(timeout=20)
        return self.child.returncode, said


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal("jetson-imu")
    yield made
    made.child.kill()
    made.child.communicate()


def imu(root: Path) -> LiveSensor:
    return LiveSensor("imu", IMU, needed=NEEDED, host=Host(root))


def read(sensor: LiveSensor) -> int:
    return sum(map(len, sensor.read(0.0)))


def refused(sensor: LiveSensor) -> str:
    with pytest.raises(HardwareError) as caught:
        sensor.open()
    return f"{caught.value} {caught.value.hint}"


def test_another_process_reads_the_board_and_a_line_of_stdin_unplugs_it(terminal: Terminal) -> None:
    name, _, folder = terminal.line().partition("=")
    assert name == "export BLOSSOM_ROOT"
    found = subprocess.run(
        [*EDGE, "sensors", "find"],
        env={**os.environ, "BLOSSOM_ROOT": folder},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "mpu6050" in found.stdout, found.stderr
    sensor = imu(Path(folder))
    sensor.open()
    until(lambda: read(sensor) > 0, "samples", ())
    terminal.type("ium unplug")
    terminal.type("imu rate(0)")
    terminal.type("imu unplug")
    until(lambda: not (Path(folder) / "dev/iio:device0").exists(), "the plug to be pulled", ())
    sensor.close()
    terminal.type("imu at 0s replug")
    until(lambda: (Path(folder) / "dev/iio:device0").exists(), "the plug to be back", ())
    code, said = terminal.end()
    assert code == 0, said
    assert "'ium' is no sensor of this board, expected imu, activity [usage]" in said
    assert "found 'rate(0)', expected a factor above 0 [usage]" in said
    assert "Traceback" not in said
    assert not Path(folder).exists()


def test_it_goes_on_when_its_stdin_ends_and_ends_with_sigterm(terminal: Terminal) -> None:
    folder = Path(terminal.line().partition("=")[2])
    terminal.stdin.close()
    terminal.child.stdin = None
    sensor = imu(folder)
    sensor.open()
    until(lambda: read(sensor) > 0, "samples", ())
    sensor.close()
    assert terminal.end(signal.SIGTERM)[0] == 0


def test_a_board_of_i2c_chips_alone_is_refused_with_the_reason() -> None:
    pytest.importorskip("smbus2")
    done = subprocess.run(
        [*COMMAND, "jetson-imu", "--only", "mpu6050"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "imu: only I2C chips, which are faked inside the process that reads them; use `device(...)" in done.stderr
    assert done.stderr.count("use `device(...)") == 1


def test_a_wrong_name_is_said_once_with_the_suggestion() -> None:
    done = subprocess.run(
        [*COMMAND, "jetson-imo"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 2
    assert done.stderr.count("did you mean 'jetson-imu'") == 1
    assert "Traceback" not in done.stderr


def test_activity_is_a_number(tmp_path: Path) -> None:
    with FakeBoard("jetson-imu", tmp_path) as board:
        obey(board, "activity 2")
        assert board.activity == 2
        with pytest.raises(ConfigError, match="'activity' is no sensor"):
            obey(board, "activity running")


def test_a_second_reader_is_refused_and_takes_nothing_from_the_first(tmp_path: Path) -> None:
    with FakeBoard("jetson-imu", tmp_path, only=["iio"]) as board:
        first, second = board.sensor("imu"), board.sensor("imu")
        first.open()
        until(lambda: read(first) > 0, "samples", ())
        said = refused(second)
        assert "another program reads it (is join running?)" in said
        assert board.fakes["imu"].attribute("buffer/enable") == "1"
        until(lambda: read(first) > 0, "samples after the second was refused", ())
        first.close()
        second.open()
        until(lambda: read(second) > 0, "samples for the second", ())
        second.close()


def test_the_kernel_s_icm42688_is_faked_as_its_two_devices(tmp_path: Path) -> None:
    """At rest az is 1 g: 9.80665 / 0.001197101 = 8192.0 steps of the range of 4 g that 39.2 m/s2 asks for."""
    profile = load_profile("jetson-nx-imu-audio")
    with FakeBoard("jetson-nx-imu-audio", tmp_path, media={"mic": tmp_path}, signal=lambda c, t: 9.80665) as board:
        assert set(board.fakes) == {"accel", "gyro", "mic"}
        for name in ("accel", "gyro"):
            sensor = board.sensor(name)
            sensor.open()
            assert sensor.rate_hz == 100
            assert sensor.source == profile.sensors[name].sources[0]
            until(partial(read, sensor), "samples", ())
            sensor.close()
        assert board.fakes["accel"].attribute("in_accel_scale") == "0.001197101"
        assert board.fakes["accel"].attribute("in_accel_z_raw") == "8192"
