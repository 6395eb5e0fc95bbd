"""The adapter for CircuitPython drivers: the real one of the MPU-6050 on the register model, and what can go wrong."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Driver, Request
from blossom_edge.sensors.drivers.adafruit import AdafruitDriver
from blossom_edge.sensors.drivers.mpu6050 import Mpu6050Driver
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.fake_i2c import FakeMpu6050
from blossom_edge.testing.fake_smbus2 import FakeBusIo, install_fake_smbus2
from firmware_profiles.schema import ProfileChannel, ProfileSensor

IMU = (
    *(ProfileChannel(name=f"a{axis}", unit="m/s2", range=(-39.2, 39.2)) for axis in "xyz"),
    *(ProfileChannel(name=f"g{axis}", unit="rad/s", range=(-8.73, 8.73)) for axis in "xyz"),
    ProfileChannel(name="temp", unit="Cel", range=(-40.0, 85.0)),
)
SOURCE: dict[str, Any] = {
    "class": "adafruit_mpu6050.MPU6050",
    "bus": 7,
    "address": 0x68,
    "read": [*(f"acceleration[{i}]" for i in range(3)), *(f"gyro[{i}]" for i in range(3)), "temperature"],
    "setup": {"accelerometer_range": 1},  # 4 g
}
STEPS = np.array([9.80665 / 8192] * 3 + [np.pi / 180 / 65.5] * 3 + [1 / 340])
SIGNALS = (
    {"ax": 0.0, "ay": 0.0, "az": 9.80665, "gx": 0.0, "gy": 0.0, "gz": 0.0, "temp": 25.0},
    {"ax": -9.7, "ay": 38.1, "az": -39.0, "gx": -8.6, "gy": 0.0123, "gz": 7.77, "temp": -12.0},
)


class Probe:
    """A CircuitPython driver of the test; counts how often it is asked."""

    asked: ClassVar[list[str]] = []
    answers: ClassVar[dict[str, Any]] = {}
    made: ClassVar[list[Probe]] = []
    mode = 0

    def __init__(self, bus: object, address: int = 0x40) -> None:
        self.address = address
        Probe.made.append(self)

    @property
    def fixed(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        Probe.asked.append(name)
        if name not in Probe.answers:
            raise AttributeError(name)
        answer = Probe.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "asked", [])
    monkeypatch.setattr(Probe, "made", [])
    monkeypatch.setattr(Probe, "answers", {"triple": (1.0, 2.0, 3.0), "single": 4})


class OwnBus(AdafruitDriver):
    """With a bus of its own."""

    chip: ClassVar[FakeMpu6050]

    def open_bus(self) -> FakeBusIo:
        return FakeBusIo({0x68: self.chip})


def channels(*names: str, unit: str = "m/s2") -> tuple[ProfileChannel, ...]:
    return tuple(ProfileChannel.model_validate({"name": n, "unit": unit, "range": [-40.0, 40.0]}) for n in names)


def probe(**options: Any) -> dict[str, Any]:
    return {"class": f"{__name__}:Probe", "bus": 7, "read": ["triple[0]"], **options}


def first(driver: Driver) -> np.ndarray[Any, np.dtype[np.float64]]:
    driver.open()
    try:
        while not len(samples := driver.read(0.2)):
            pass
        return samples.values[-1]
    finally:
        driver.close()


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_real_adafruit_driver_and_ours_give_the_same_values(signal: dict[str, float]) -> None:
    pytest.importorskip("adafruit_mpu6050")
    chip = FakeMpu6050(lambda channel, t: signal[channel])
    with install_fake_smbus2({7: {0x68: chip}}):
        theirs = first(AdafruitDriver(Request("imu", IMU, 50.0, options=SOURCE)))
        ours = first(Mpu6050Driver(Request("imu", IMU, 50.0, options={"bus": 7, "address": 0x68})))
    truth = np.array([signal[channel.name] for channel in IMU])
    assert (np.abs(theirs - ours) <= 1e-6 + STEPS).all()
    assert (np.abs(theirs - truth) <= STEPS).all()
    assert (np.abs(ours - truth) <= STEPS).all()


def test_a_bus_of_ones_own_serves_the_real_driver_too() -> None:
    pytest.importorskip("adafruit_mpu6050")
    OwnBus.chip = FakeMpu6050()
    values = first(OwnBus(Request("imu", IMU, 50.0, options=SOURCE)))
    assert values == pytest.approx([0, 0, 9.80665, 0, 0, 0, 25.0], abs=0.003)


def test_what_is_not_there_or_is_another_chip_is_said_by_the_real_driver() -> None:
    pytest.importorskip("adafruit_mpu6050")
    with install_fake_smbus2({7: {0x68: FakeMpu6050(who_am_i=0x12)}}):
        driver = AdafruitDriver(Request("imu", IMU, 50.0, options=SOURCE))
        with pytest.raises(HardwareError, match="at 0x68: Failed to find MPU6050") as caught:
            driver.open()
        driver.close()
        with pytest.raises(HardwareError, match="at 0x69: No I2C device at address: 0x69"):
            AdafruitDriver(Request("imu", IMU, 50.0, options={**SOURCE, "address": 0x69})).open()
    assert caught.value.error_id == "sensor-missing"


def test_unplugged_in_mid_read_is_a_failed_sensor() -> None:
    pytest.importorskip("adafruit_mpu6050")
    chip = FakeMpu6050()
    with install_fake_smbus2({7: {0x68: chip}}):
        driver = AdafruitDriver(Request("imu", IMU, 50.0, options=SOURCE))
        driver.open()
        assert len(driver.read(0.1)) > 0
        chip.unplug()
        with pytest.raises(HardwareError, match="Remote I/O error") as caught:
            driver.read(0.1)
        driver.close()
    assert caught.value.error_id == "sensor-failed"


def test_an_attribute_is_read_once_per_sample_also_when_several_channels_index_it() -> None:
    options = probe(read=["triple[2]", "single", "triple[0]"], address=0x28)
    with install_fake_smbus2({7: {}}):
        driver = AdafruitDriver(Request("probe", channels("a", "b", "c"), 10.0, options=options))
        driver.open()
    Probe.asked.clear()
    assert driver.sample() == [3.0, 4.0, 1.0]
    assert Probe.asked == ["triple", "single"]


def test_none_of_a_driver_that_is_not_ready_becomes_nan() -> None:
    Probe.answers["triple"] = (None, 2.0, None)
    with install_fake_smbus2({7: {}}):
        driver = AdafruitDriver(Request("p", channels("a", "b"), 10.0, options=probe(read=["triple[0]", "triple[1]"])))
        driver.open()
    values = driver.sample()
    assert np.isnan(values[0])
    assert values[1] == 2.0


@pytest.mark.parametrize("error", [RuntimeError("CRC mismatch"), ValueError("odd"), TypeError("no tuple")])
def test_an_error_of_the_driver_is_a_failed_sensor(error: Exception) -> None:
    with install_fake_smbus2({7: {}}):
        driver = AdafruitDriver(Request("p", channels("a"), 10.0, options=probe()))
        driver.open()
    Probe.answers["triple"] = error
    with pytest.raises(HardwareError, match=str(error)) as caught:
        driver.read(0.2)
    assert caught.value.error_id == "sensor-failed"


def test_native_units_of_a_channel_are_converted_to_those_of_the_profile() -> None:
    settings = ProfileSensor.model_validate(
        {
            "channels": [
                {"name": "pressure", "unit": "Pa", "range": [3e4, 1.1e5]},
                {"name": "field", "unit": "T", "range": [-1e-3, 1e-3]},
            ],
            "sources": [
                {
                    "driver": "adafruit",
                    "rate_hz": 50.0,
                    **probe(read=["single", "triple[1]"], units={"pressure": "hPa", "field": "uT"}),
                }
            ],
        }
    )
    sensor = LiveSensor("env", settings, needed=("pressure", "field"), host=Request("x", (), 1.0).host)
    Probe.answers["single"] = 1013.25
    with install_fake_smbus2({7: {}}):
        sensor.open()
        try:
            readings: list[Any] = []
            while not readings:
                readings = list(sensor.read(0.0))
        finally:
            sensor.close()
    assert readings[0].values[0] == pytest.approx([101325.0, 2e-6])


def test_setup_sets_attributes_and_refuses_those_that_are_not_there() -> None:
    with install_fake_smbus2({7: {}}):
        driver = AdafruitDriver(Request("p", channels("a"), 10.0, options=probe(setup={"mode": 12})))
        driver.open()
        with pytest.raises(ConfigError, match="has no attribute moode"):
            AdafruitDriver(Request("p", channels("a"), 10.0, options=probe(setup={"moode": 12}))).open()
        with pytest.raises(ConfigError, match=r"setup: fixed of .* can be read only"):
            AdafruitDriver(Request("p", channels("a"), 10.0, options=probe(setup={"fixed": 12}))).open()
        with pytest.raises(ConfigError, match=r"read: .* has no attribute trriple"):
            AdafruitDriver(Request("p", channels("a"), 10.0, options=probe(read=["trriple[0]"]))).open()
    assert Probe.made[0].mode == 12


def test_voltages_of_a_converter_are_read_per_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class AnalogIn:
        def __init__(self, ads: Probe, positive: int, negative: int | None = None) -> None:
            self.voltage = 0.1 * positive + (0 if negative is None else 1 + negative) + ads.data_rate / 1000

    package, analog = types.ModuleType("acme_ads"), types.ModuleType("acme_ads.analog_in")
    vars(package).update(ADS=type("ADS", (Probe,), {"data_rate": 128}))
    vars(analog).update(AnalogIn=AnalogIn)
    monkeypatch.setitem(sys.modules, "acme_ads", package)
    monkeypatch.setitem(sys.modules, "acme_ads.analog_in", analog)
    options = {"class": "acme_ads.ADS", "bus": 7, "analog_in": [3, [0, 1]], "setup": {"data_rate": 860}}
    with install_fake_smbus2({7: {}}):
        driver = AdafruitDriver(Request("ecg", channels("a", "b", unit="V"), 250.0, options=options))
        driver.open()
    assert driver.sample() == pytest.approx([0.3 + 0.86, 2.0 + 0.86])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"read": []}, "either read or analog_in"),
        ({"analog_in": [0]}, "either read or analog_in"),
        ({"read": ["a", "b"]}, "found 2 values to read, expected one for each of x"),
        ({"read": ["triple[x]"]}, r"read\[0\]: found 'triple\[x\]', expected an attribute such as"),
        ({"class": "Probe"}, "class: found 'Probe', expected a class such as"),
        ({"units": {"y": "hPa"}}, "units of y, expected some of x"),
        ({"units": {"x": "furlong"}}, "units: found 'furlong' for x, expected"),
        ({"adress": 0x40}, r"adress: unknown key \(did you mean 'address'\?\)"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_imported(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found) as caught:
        AdafruitDriver(Request("p", channels("x"), 10.0, options=probe(**options)))
    assert caught.value.error_id == "profile-invalid"


def test_a_missing_driver_names_the_extra_and_its_package() -> None:
    options = probe(**{"class": "adafruit_nosuch_chip.sub.Chip"})
    with pytest.raises(ConfigError) as caught:
        AdafruitDriver(Request("p", channels("x"), 10.0, options=options)).open()
    assert caught.value.error_id == "package-missing"
    assert (
        caught.value.hint == "pip install 'blossom-edge[adafruit]'; and pip install adafruit-circuitpython-nosuch-chip"
    )
    with pytest.raises(ConfigError, match="has no Probbe"):
        AdafruitDriver(Request("p", channels("x"), 10.0, options=probe(**{"class": f"{__name__}:Probbe"}))).open()


@pytest.mark.parametrize(
    "source",
    [
        "raise NotImplementedError('unable to identify\\n the board')",
        "def I2C():\n  raise ValueError('No Hardware I2C')",
    ],
)
def test_a_board_that_blinka_does_not_know_is_told_to_number_the_bus(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "board.py").write_text(source)
    monkeypatch.delitem(sys.modules, "board", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(HardwareError, match=r"unable to identify the board|No Hardware I2C") as caught:
        AdafruitDriver(Request("p", channels("x"), 10.0, options=probe(bus="i2c"))).open()
    assert "bus = 1" in caught.value.hint
    sys.modules.pop("board", None)


def test_without_blinka_the_boards_own_bus_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "board", None)
    with pytest.raises(ConfigError) as caught:
        AdafruitDriver(Request("p", channels("x"), 10.0, options=probe(bus="i2c"))).open()
    assert caught.value.error_id == "package-missing"
    assert "blossom-edge[adafruit]" in caught.value.hint
