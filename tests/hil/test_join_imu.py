"""`join` on fake hardware in a real federation: it trains, its sensor dies in mid-window and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live import TINY, WINDOWS

from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.processes import Gateway

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]

ENDLESS = TINY.replace("stop_rounds = 3", "stop_rounds = 0").replace("deadline_s = 40.0", "deadline_s = 20.0")
COMPANION = ["--profile", "generic-mock", "--mock", *WINDOWS]
ON_BOARD = [*WINDOWS, "--label=move=walk"]

TWO_SENSORS = """
schema = 1
title = "Accelerometer and gyroscope as two sensors"

[sensors.linear]
channels = [
  { name = "ax", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "ay", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "az", unit = "m/s2", range = [-39.2, 39.2] },
]

[[sensors.linear.sources]]
driver = "iio"
rate_hz = 52
device = "lsm6dsox_accel"

[sensors.angular]
channels = [
  { name = "gx", unit = "rad/s", range = [-4.3, 4.3] },
  { name = "gy", unit = "rad/s", range = [-4.3, 4.3] },
  { name = "gz", unit = "rad/s", range = [-4.3, 4.3] },
]

[[sensors.angular.sources]]
driver = "iio"
rate_hz = 52
device = "lsm6dsox_gyro"

[modalities.accel]
sensor = "linear"
channels = ["ax", "ay", "az"]
rate_hz = 50
window = 32
hop = 16
preprocess = ["resample"]

[modalities.gyro]
sensor = "angular"
channels = ["gx", "gy", "gz"]
rate_hz = 50
window = 32
hop = 16
preprocess = ["resample"]
"""


@pytest.fixture
def running(tmp_path: Path, gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that never finishes, with a companion that owns both modalities."""
    federation = tmp_path / "tiny.toml"
    federation.write_text(ENDLESS)
    running = gateway(str(federation))
    running.join("companion", *COMPANION)
    return running


def outcome(gateway: Gateway, block: str) -> tuple[int, str]:
    """Round and words of what last became of a block, as the board tells it."""
    text = str(gateway.device("board")["outcomes"].get(f"encoder/{block}", "round 0: none"))
    number, _, words = text.removeprefix("round ").partition(": ")
    return int(number), words


def both(gateway: Gateway, words: str, *, after: int = 0) -> int:
    """Wait until a round after this one ended for both encoders with these words; returns its number."""

    def ended() -> int:
        if not gateway.device("board").get("outcomes"):
            return 0
        found = [outcome(gateway, block) for block in ("accel", "gyro")]
        fits = all(number > after and said.endswith(words) for number, said in found)
        return found[0][0] if fits else 0

    return gateway.wait_for(ended, f"a round after {after} in which both encoders are {words!r}")


def of_sensor(gateway: Gateway, name: str) -> dict[str, Any]:
    sensors: dict[str, Any] = gateway.device("board").get("sensors", {})
    return sensors.get(name, {})


@pytest.mark.parametrize("source", ["iio", "mpu6050"])
def test_a_board_trains_and_uploads_from_its_imu(source: str, running: Gateway, tmp_path: Path) -> None:
    with FakeBoard("jetson-imu", tmp_path / "board", only=[source]) as board:
        board.activity = 1
        joined = board.join(running, *ON_BOARD, device="board")
        both(running, "1 other and this device")
        assert of_sensor(running, "imu")["state"] == "ok"
        assert joined.running()


def test_a_fifo_that_dies_in_mid_window_takes_its_modalities_out_and_brings_them_back(
    running: Gateway, tmp_path: Path
) -> None:
    with FakeBoard("jetson-imu", tmp_path / "board", only=["iio"]) as board:
        joined = board.join(running, *ON_BOARD, device="board")
        before = both(running, "1 other and this device")
        board.fakes["imu"].unplug(torn=True)  # half a scan, then the end of the file
        running.wait_for(lambda: of_sensor(running, "imu")["state"] == "unplugged", "the board notices")
        without = both(running, "from 1 other", after=before)
        assert of_sensor(running, "imu")["reason"]
        board.fakes["imu"].replug()
        back = both(running, "1 other and this device", after=without)
        assert back > without > before
        assert joined.running()  # without a restart
        assert of_sensor(running, "imu")["state"] == "ok"


def test_one_of_two_sensors_is_pulled_and_put_back_and_the_other_goes_on(running: Gateway, tmp_path: Path) -> None:
    profile = tmp_path / "two-sensors.toml"
    profile.write_text(TWO_SENSORS)
    with FakeBoard(str(profile), tmp_path / "board") as board:
        board.join(running, "--label=move=walk", device="board")
        before = both(running, "1 other and this device")
        board.fakes["angular"].unplug()

        def only_accel() -> int:
            (number, accel), (_, gyro) = outcome(running, "accel"), outcome(running, "gyro")
            return number if number > before and "this device" in accel and "this device" not in gyro else 0

        without = running.wait_for(only_accel, "a round with the accelerometer of the board alone")
        assert of_sensor(running, "linear")["state"] == "ok"
        assert of_sensor(running, "angular")["state"] == "unplugged"
        board.fakes["angular"].replug()
        assert both(running, "1 other and this device", after=without) > without
