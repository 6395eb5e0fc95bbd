"""`sensors find` on one machine that has everything, and what its proposals are worth."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Found, Host, driver_class
from blossom_edge.sensors.drivers.adafruit import AdafruitDriver
from blossom_edge.sensors.drivers.adafruit_chips import GUESSES
from blossom_edge.sensors.finding import find_sensors, source_lines
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.fake_ads1115 import FakeAds1115
from blossom_edge.testing.fake_i2c import FakeMpu6050
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import BME280, LSM6DSOX, MPU6050
from blossom_edge.testing.fake_serial import FakeSerial
from blossom_edge.testing.fake_smbus2 import install_fake_smbus2
from firmware_profiles import load_profile
from tests.hil.iio_board import gather

CARDS = """ 2 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media Electronics Inc. USB PnP Sound Device at usb-3f980000.usb-1.3, full spe
"""
FAKED = {"iio", "mpu6050", "serial"}
"""Drivers whose proposals can be opened here, beside the ADS1115."""


class Silent:
    """A chip that answers a read, and must not be written to."""

    def __init__(self) -> None:
        self.num_read = 0

    def write(self, data: bytes) -> None:
        raise AssertionError(f"{data.hex()} was written to it")

    def read(self, length: int) -> bytes:
        self.num_read += length
        return bytes(length)


class Held(Silent):
    """A chip that a driver of the kernel holds."""

    def write(self, data: bytes) -> None:
        raise OSError(errno.EBUSY, "held")

    def read(self, length: int) -> bytes:
        raise OSError(errno.EBUSY, "held")


class Clock(Silent):
    """A real-time clock at 0x68: registers may be chosen, its identity is none of the MPU-6050's."""

    def write(self, data: bytes) -> None:
        if len(data) > 1:
            super().write(data)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    monkeypatch.setenv("BLOSSOM_ROOT", str(root))
    return root


@pytest.fixture
def everything(root: Path) -> Iterator[Path]:
    """Three IIO chips, three I2C buses, a serial port, a sound card and a camera."""
    pytest.importorskip("serial")
    for number in (1, 3, 7):
        (root / f"dev/i2c-{number}").touch()
    (root / "proc/asound").mkdir(parents=True)
    (root / "proc/asound/cards").write_text(CARDS)
    video = root / "sys/class/video4linux/video0"
    video.mkdir(parents=True)
    (video / "name").write_text("HD Webcam: HD Webcam\n")
    (video / "index").write_text("0\n")
    (root / "dev/video0").touch()
    held = {0x68: Held(), 0x6A: Held(), 0x76: Held()}
    buses = {1: {**held, 0x28: Silent()}, 3: {}, 7: {0x68: FakeMpu6050(), 0x48: FakeAds1115(lambda pin, t: 1.5)}}
    with (
        FakeIio(root) as iio,
        install_fake_smbus2(buses),
        FakeSerial(lambda channel, t: 1.25, 100.0, path=root / "dev/ttyACM0"),
    ):
        iio.add(MPU6050)
        iio.add_all(LSM6DSOX)
        iio.add(BME280)
        yield root


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(program, ["sensors", "find", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def whole_profile(entry: dict[str, Any]) -> str:
    """A profile with the proposed lines, and a modality for each unit."""
    source, sensor = entry["source"], entry["sensor"]
    channels = entry["channels"] or [["value", "V", -10.0, 10.0]]
    if not entry["channels"]:  # a serial port does not tell what it sends
        head = f'[sensors.{sensor}]\nchannels = [{{ name = "value", unit = "V", range = [-10.0, 10.0] }}]\n'
        source = f"{head}\n{source}"
    lines = ["schema = 1", 'title = "Found"', "", source]
    for number, unit in enumerate(dict.fromkeys(channel[1] for channel in channels)):
        names = ", ".join(f'"{channel[0]}"' for channel in channels if channel[1] == unit)
        lines += ["", f"[modalities.m{number}]", f'sensor = "{sensor}"', f"channels = [{names}]"]
        lines += [f"rate_hz = {entry['rate_hz']}", "window = 10", "hop = 5"]
    return "\n".join(lines) + "\n"


def test_everything_that_is_here_is_found(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = found(capsys)
    assert sorted((entry["driver"], entry["what"].partition(" (")[0]) for entry in told["found"]) == [
        ("adafruit", "ADS1115, perhaps, on I2C bus 7, address 0x48"),
        ("adafruit", "BNO055, perhaps, on I2C bus 1, address 0x28"),
        ("camera", "camera HD Webcam: HD Webcam"),
        ("iio", "bme280"),
        ("iio", "lsm6dsox_accel"),
        ("iio", "lsm6dsox_gyro"),
        ("iio", "mpu6050"),
        ("microphone", "sound card 2 [Device] USB PnP Sound Device"),
        ("mpu6050", "MPU-6050 on I2C bus 7, address 0x68"),
        ("serial", "serial port /dev/ttyACM0"),
    ]
    assert told["silent"] == {}
    assert [note.partition(" at the")[0] for note in told["notes"]] == ["adafruit: nothing answers on I2C bus 3"]


def test_each_proposal_is_a_valid_profile_and_opens(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []
    for number, entry in enumerate(found(capsys)["found"]):
        file = tmp_path / f"found-{number}.toml"
        file.write_text(whole_profile(entry))
        assert run(program, ["profiles", "validate", str(file)]) == 0, capsys.readouterr().err + file.read_text()
        sensor = load_profile(str(file)).sensors[entry["sensor"]]
        driver_class(entry["driver"])
        if entry["driver"] not in FAKED and not entry["what"].startswith("ADS1115"):
            continue
        if entry["driver"] == "adafruit":
            pytest.importorskip("adafruit_ads1x15")
        live = LiveSensor(entry["sensor"], sensor, needed=[c.name for c in sensor.channels], host=Host(everything))
        live.open()
        try:
            opened.append((entry["what"].partition(" ")[0], gather(live, 2).values[0].tolist()))
        finally:
            live.close()
    g = 9.80665
    for name, expected in [
        ("bme280", [25.0, 101325.0, 45.0]),
        ("lsm6dsox_accel", [0, 0, g]),
        ("lsm6dsox_gyro", [0, 0, 0]),
        ("mpu6050", [0, 0, g, 25.0, 0, 0, 0]),
        ("MPU-6050", [0, 0, g, 0, 0, 0]),
        ("ADS1115,", [1.5]),
        ("serial", [1.25]),
    ]:
        (values,) = [values for what, values in opened if what == name]
        assert sorted(values) == pytest.approx(sorted(expected), abs=0.02), name
    assert len(opened) == 7


def test_a_framed_source_brings_its_shape(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {entry["driver"]: entry["shape"] for entry in found(capsys)["found"] if entry["shape"]}
    assert shapes == {"microphone": [40], "camera": [96, 96]}
    lines = source_lines(Found("camera", "c", "cam", 5.0, {}, (("r", "/", 0.0, 1.0),), shape=(96, 96)))
    assert lines[:2] == ["[sensors.cam]", "shape = [96, 96]"]


def test_drivers_that_cannot_look_are_named_and_the_others_find_what_they_can(
    everything: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:  # ended before the fakes are
        without.setitem(sys.modules, "smbus2", None)
        told = found(capsys)
        assert set(told["silent"]) == {"adafruit", "mpu6050"}
        assert "smbus2" in told["silent"]["mpu6050"]
        assert {entry["driver"] for entry in told["found"]} == {"camera", "iio", "microphone", "serial"}
        assert run(program, ["sensors", "find"]) == 0
        assert "mpu6050 could not look: smbus2" in capsys.readouterr().err


def test_people_read_the_proposals_on_stdout_and_the_notes_beside_them(
    everything: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, ["sensors", "find"]) == 0
    said = capsys.readouterr()
    assert "mpu6050: MPU-6050 on I2C bus 7, address 0x68" in said.out
    assert '  driver = "mpu6050"\n  rate_hz = 100.0\n  bus = 7\n  address = 104\n' in said.out
    assert "nothing answers on I2C bus 3" in said.err
    assert "bus 3" not in said.out


def test_an_empty_machine_has_nothing_and_is_no_failure(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["sensors", "find"]) == 0
    said = capsys.readouterr()
    assert said.out == "nothing found\n"
    assert "docs/hardware.md" in said.err


def test_an_address_is_a_guess_only_where_no_other_driver_knows_the_chip(root: Path) -> None:
    for number in (1, 2):
        (root / f"dev/i2c-{number}").touch()
    with install_fake_smbus2({1: {0x68: FakeMpu6050()}, 2: {0x68: Clock()}}):
        search = find_sensors(Host(root))
    assert [(f.driver, f.options["bus"]) for f in search.found if f.options] == [("adafruit", 2), ("mpu6050", 1)]
    guess = search.found[0]
    assert guess.what == "ICM-20948, perhaps, on I2C bus 2, address 0x68"
    assert guess.note.startswith("by its address only: check the chip")


def test_every_chip_is_looked_for_where_it_can_be_and_nothing_is_written(root: Path) -> None:
    (root / "dev/i2c-1").touch()
    addresses = (0x28, 0x29, 0x48, 0x49, 0x4A, 0x4B, 0x68, 0x69, 0x6A, 0x6B, 0x76, 0x77)
    chips = {address: Silent() for address in range(0x08, 0x78)}
    with install_fake_smbus2({1: chips}):
        proposals = list(AdafruitDriver.find(Host(root)))
    assert [address for address, chip in chips.items() if chip.num_read] == list(addresses)
    assert all(chip.num_read <= 1 for chip in chips.values())
    assert sorted(f.options["address"] for f in proposals) == list(addresses)
    assert {f.what.partition(",")[0] for f in proposals} == {guess.name for guess in GUESSES}


def test_a_bus_of_kernel_drivers_alone_is_neither_empty_nor_ours(root: Path) -> None:
    (root / "dev/i2c-1").touch()
    with install_fake_smbus2({1: {0x76: Held()}}):
        assert list(AdafruitDriver.find(Host(root))) == []


def test_the_bus_of_a_pc_mainboard_is_left_alone(root: Path) -> None:
    (root / "dev/i2c-0").touch()
    name = root / "sys/bus/i2c/devices/i2c-0/name"
    name.parent.mkdir(parents=True)
    chip = Silent()
    with install_fake_smbus2({0: {0x69: chip}}):
        name.write_text("SMBus I801 adapter at efa0\n")
        assert find_sensors(Host(root)).found == ()
        assert chip.num_read == 0
        name.write_text("bcm2835 (i2c@7e804000)\n")
        assert [f.options["address"] for f in AdafruitDriver.find(Host(root))] == [0x69]


def test_without_a_bus_no_package_is_needed_and_with_one_it_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smbus2", None)
    assert list(AdafruitDriver.find(Host(root))) == []
    (root / "dev/i2c-1").touch()
    with pytest.raises(ConfigError, match="smbus2") as error:
        list(AdafruitDriver.find(Host(root)))
    assert error.value.error_id == "package-missing"
