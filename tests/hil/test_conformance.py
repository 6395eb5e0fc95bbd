"""The conformance suite on the drivers that no shipped profile puts first: a topic of a real broker, and an Adafruit
driver of an MPU-6050. The others are in test_boards; and the suite itself must be able to fail."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest

from aggregator.broker import start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers import mqtt_topic
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.conformance import CHECKS, Heard, Subject, Verdict, run_check, run_checks
from firmware_profiles.schema import ProfileSensor

AXES = [{"name": name, "unit": "m/s2", "range": [-39.2, 39.2]} for name in ("ax", "ay", "az")]


def failed(verdicts: list[Verdict]) -> list[str]:
    return [f"{v.check}: {v.detail}" for v in verdicts if v.status == "failed"]


class Station:
    """Another program that publishes an accelerometer at 50 Hz, until its plug is pulled."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="station")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._plugged, self._stop = threading.Event(), threading.Event()
        self._plugged.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def unplug(self) -> None:
        self._plugged.clear()

    def replug(self) -> None:
        self._plugged.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if self._plugged.is_set():
                values = [math.sin(6 * due), 0.3 * math.cos(11 * due), 9.8 + 0.1 * math.sin(17 * due)]
                self._client.publish("station/imu", json.dumps({"t": time.time(), "values": values}), qos=1)
            due += 0.02


@pytest.fixture
def station(tmp_path: Path) -> Iterator[tuple[int, Station]]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with start_broker("mosquitto", tmp_path, port=0) as broker:
        station = Station(broker.port)
        yield broker.port, station
        station.close()


@pytest.mark.broker
@pytest.mark.slow
def test_a_topic_of_a_broker_meets_every_check(station: tuple[int, Station], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_topic, "SILENT_S", 1.0)
    port, publisher = station
    source = {"driver": "mqtt-topic", "rate_hz": 50.0, "topic": "station/imu", "port": port}
    settings = ProfileSensor.model_validate({"channels": AXES, "sources": [source]})
    subject = Subject("imu", settings, unplug=publisher.unplug, replug=publisher.replug, seconds=1.5, missing_share=0.3)
    verdicts = list(run_checks(subject))
    assert failed(verdicts) == []
    assert [v.check for v in verdicts] == list(CHECKS)


ADAFRUIT = """
schema = 1
title = "An MPU-6050 through Adafruit's driver"

[sensors.imu]
channels = [
  { name = "ax", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "ay", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "az", unit = "m/s2", range = [-39.2, 39.2] },
]

[[sensors.imu.sources]]
driver = "adafruit"
rate_hz = 50
class = "adafruit_mpu6050.MPU6050"
bus = 3
address = 0x68
read = ["acceleration[0]", "acceleration[1]", "acceleration[2]"]

[modalities.accel]
sensor = "imu"
channels = ["ax", "ay", "az"]
rate_hz = 50
window = 128
hop = 64
"""


@pytest.mark.slow
def test_the_real_adafruit_driver_meets_every_check(tmp_path: Path) -> None:
    pytest.importorskip("adafruit_mpu6050")
    profile = tmp_path / "adafruit.toml"
    profile.write_text(ADAFRUIT)
    with FakeBoard(str(profile), tmp_path / "board") as board:
        verdicts = list(run_checks(board.subject("imu", seconds=1.5, missing_share=0.3)))
        assert failed(verdicts) == []
        assert [v.status for v in verdicts] == ["ok"] * len(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "options", "channels", "found"),
    [
        ("answers", {"missing": True}, AXES, "nothing at this address"),
        ("units", {"scale": 0.1}, AXES, "expected about 9.81 of gravity"),
        ("range", {"scale": 10.0}, AXES, "expected -39.2 to 39.2 m/s2"),
        ("rate", {"lie": 2.0}, AXES, "the driver says 200 Hz"),
        ("time", {"early": 5.0}, AXES, "s old, expected 0 to 2 s"),
        ("gaps", {"pause": 0.6}, AXES, "found a pause of "),
        ("restart", {"once": True}, AXES, "after a restart: imu: no source answered"),
        ("unplug", {"deaf": True}, AXES, "unplugged, and no error within"),
    ],
)
def test_a_driver_that_does_wrong_fails_the_check(
    check: str, options: dict[str, Any], channels: list[Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("blossom_edge.testing.conformance.ANSWER_S", 1.5)
    source = {"driver": "wrong_driver:WrongDriver", "rate_hz": 100.0, **options}
    settings = ProfileSensor.model_validate({"channels": channels, "sources": [source]})
    plug: dict[str, bool] = {}
    subject = Subject(
        "imu", settings, Host(), unplug=lambda: plug.update(out=True), replug=lambda: plug.clear(), seconds=1.2
    )
    verdict = run_check(check, subject)
    assert verdict.status == "failed", verdict
    assert found in verdict.detail
    assert verdict.fix or check in ("units", "answers")


SIX = [*AXES, *({"name": name, "unit": "rad/s", "range": [-8.73, 8.73]} for name in ("gx", "gy", "gz"))]


def heard(values: list[list[float]], channels: list[Any]) -> Subject:
    """A sensor that was listened to and delivered these samples."""
    settings = ProfileSensor.model_validate({"channels": channels, "sources": [{"driver": "iio", "rate_hz": 100.0}]})
    subject = Subject("imu", settings, Host())
    reading = Reading(np.arange(len(values)) / 100, np.array(values))
    names, units = tuple(c["name"] for c in channels), tuple(c["unit"] for c in channels)
    subject.__dict__["heard"] = Heard(reading, names, units, 100.0, "iio", 0.0)
    return subject


def test_a_moved_board_is_not_said_to_be_at_rest_and_its_ranges_are_told_by_unit() -> None:
    """Means 0, 0 and (8 + 12) / 2 = 10: 10 m/s2 in all."""
    moved = heard([[-3.0, 1.0, 8.0, -0.5, 0.0, 0.25], [3.0, -1.0, 12.0, 0.5, 0.0, 0.25]], SIX)
    assert run_check("units", moved).detail == "10.00 m/s2 in all on average"
    assert run_check("range", moved).detail == "-3 to 12 m/s2, -0.5 to 0.5 rad/s"


def test_a_channel_out_of_range_is_told_with_its_own_values_and_range() -> None:
    wrong = heard([[0.0, 0.0, 9.0, -20.0, 0.0, 0.0], [0.0, 0.0, 30.0, 3.0, 0.0, 0.0]], SIX)
    verdict = run_check("range", wrong)
    assert (verdict.status, verdict.detail) == ("failed", "gx: found -20 to 3, expected -8.73 to 8.73 rad/s")


def test_where_nobody_pulled_the_plug_the_next_step_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("blossom_edge.testing.conformance.ANSWER_S", 0.5)
    source = {"driver": "wrong_driver:WrongDriver", "rate_hz": 100.0}
    settings = ProfileSensor.model_validate({"channels": AXES, "sources": [source]})
    verdict = run_check("unplug", Subject("imu", settings, Host(), unplug=lambda: None, replug=lambda: None))
    assert verdict.detail == "unplugged, and no error within 0.5 s"
    assert verdict.fix == "was the plug pulled? if it was, please report it"
