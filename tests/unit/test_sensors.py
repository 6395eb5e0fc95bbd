"""Opening the sensors of a profile: simulated, replayed, or a plain word why nothing answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.opening import close_sensors, open_sensors
from blossom_edge.sensors.recordings import Recording, Stream, Track, write_recording
from firmware_profiles.loading import load_profile, profile_folders
from firmware_profiles.schema import Profile

HAR = load_federation("har")
SHIPPED = [profile_folders()[-1]]


def profile(name: str, *sets: str) -> Profile:
    return load_profile(name, sets=sets, folders=SHIPPED)


NOWHERE = Host(root=Path("/nonexistent"))


def test_a_board_without_its_sensor_lists_every_source_and_why() -> None:
    with pytest.raises(HardwareError) as caught:
        open_sensors(profile("jetson-imu"), federation=HAR, host=NOWHERE)
    assert (caught.value.error_id, caught.value.exit_status) == ("sensor-missing", 4)
    assert str(caught.value).startswith("imu: no source answered (iio: ")
    assert "; mpu6050: " in str(caught.value)
    assert "blossom-edge sensors find" in caught.value.hint


def test_a_misspelt_driver_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="there is no such driver, did you mean 'synthetic'"):
        open_sensors(profile("generic-mock", 'sensors.imu.sources=[{driver="syntetic", rate_hz=50}]'), federation=HAR)


def test_a_simulation_named_after_hardware_stands_in_for_it() -> None:
    sources = '[{driver="iio", rate_hz=100, device="none"}, {driver="synthetic", rate_hz=25}]'
    sensors = open_sensors(profile("generic-mock", f"sensors.imu.sources={sources}"), federation=HAR, host=NOWHERE)
    assert sensors["imu"].rate_hz == 25


def test_mock_opens_every_needed_sensor_of_a_board_that_is_not_there() -> None:
    sensors = open_sensors(profile("jetson-imu"), federation=HAR, mock=True)
    assert list(sensors) == ["imu"]
    assert sensors["imu"].channels == ("ax", "ay", "az", "gx", "gy", "gz")
    assert sensors["imu"].units == ("m/s2",) * 3 + ("rad/s",) * 3
    close_sensors(sensors)


def test_a_sensor_that_the_federation_does_not_need_is_not_opened() -> None:
    assert list(open_sensors(profile("rpi5-imu-ecg"), federation=HAR, mock=True)) == ["imu"]


def test_a_replay_needs_only_the_channels_that_the_modalities_use(tmp_path: Path) -> None:
    values = np.zeros((10, 3), dtype=np.float32)
    stream = Stream(("gx", "gy", "gz"), ("rad/s",) * 3, 50.0, {0: Track(0.0, values)})
    write_recording(tmp_path / "person.npz", Recording("test", {"watch": stream}, {}))
    sensors = open_sensors(profile("rpi4-gyro"), federation=HAR, replay=tmp_path)
    assert sensors["imu"].channels == ("gx", "gy", "gz")
    with pytest.raises(ConfigError, match="found the channels watch: gx, gy, gz, expected ax, ay, az in one stream"):
        open_sensors(profile("rpi4-accel"), federation=HAR, replay=tmp_path)


def test_a_recording_whose_classes_are_all_unknown_is_refused(tmp_path: Path) -> None:
    track = Track(0.0, np.zeros((10, 3), dtype=np.float32), {"har": np.zeros(10, dtype=np.int64)})
    stream = Stream(("gx", "gy", "gz"), ("rad/s",) * 3, 50.0, {0: track})
    write_recording(tmp_path / "person.npz", Recording("test", {"watch": stream}, {"har": ("sit", "stand")}))
    with pytest.raises(ConfigError, match="labels/har: found sit, stand, expected some of PEN, ABD"):
        open_sensors(profile("rpi4-gyro"), federation=HAR, replay=tmp_path)


TWO = """
schema = 1
title = "One sensor that is here, one that is not"

[sensors.here]
channels = [
  { name = "x", unit = "m/s2", range = [-20.0, 20.0] },
  { name = "y", unit = "m/s2", range = [-20.0, 20.0] },
  { name = "z", unit = "m/s2", range = [-20.0, 20.0] },
]

[[sensors.here.sources]]
driver = "test_live:Ramp"
rate_hz = 50

[sensors.away]
channels = [
  { name = "x", unit = "rad/s", range = [-9.0, 9.0] },
  { name = "y", unit = "rad/s", range = [-9.0, 9.0] },
  { name = "z", unit = "rad/s", range = [-9.0, 9.0] },
]

[[sensors.away.sources]]
driver = "test_live:Ramp"
rate_hz = 50
missing = true

[modalities.accel]
sensor = "here"
channels = ["x", "y", "z"]
rate_hz = 50
window = 128
hop = 64

[modalities.gyro]
sensor = "away"
channels = ["x", "y", "z"]
rate_hz = 50
window = 128
hop = 64
"""


def test_a_board_with_one_of_its_sensors_goes_on_and_tells_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    sensors = open_sensors(load_profile(str(path)), federation=HAR)
    try:
        assert sorted(sensors) == ["away", "here"]
        with pytest.raises(HardwareError, match=r"away: no source answered .*nothing at this address"):
            sensors["away"].read(0.0)
        collector = Collector(load_profile(str(path)), HAR, sensors)
        collector.poll(0.0)
        assert list(collector.failures) == ["away"]
    finally:
        close_sensors(sensors)
