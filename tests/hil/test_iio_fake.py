"""The fake board itself: its description for umockdev, its traces, its cost. libiio is the independent oracle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Host
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import ADS1015, BME280, LSM6DSOX, MPU6050
from blossom_edge.testing.iio_trace import IioTrace, record_iio
from tests.hil.iio_board import ACCEL, GYRO, gather, sensor
from tests.live import until

FACTORS = {"accel": 1.0, "anglvel": 1.0, "temp": 1e-3, "pressure": 1e3, "humidityrelative": 1e-3, "voltage": 1e-3}
"""From the units of the ABI to ours, written down once more."""

READ = """
import json
from blossom_edge.sensors.driver import Host, Request
from blossom_edge.sensors.drivers.iio import IioDriver
from blossom_edge.sensors.drivers.iio_channels import pick
from blossom_edge.sensors.drivers.iio_device import find_device
from firmware_profiles.schema import ProfileChannel
host, told = Host.here(), {}
for found in IioDriver.find(host):
    channels = tuple(ProfileChannel(name=n, unit=u, range=(low, high)) for n, u, low, high in found.channels)
    device = find_device(host, found.options["device"])
    names = [one.name for one in pick(channels, found.options.get("map", {}), device)]
    options = {**found.options, "buffer": False}
    driver = IioDriver(Request(found.sensor, channels, found.rate_hz, options=options, host=host))
    driver.open()
    values = dict(zip(names, driver.sample()))
    driver.close()
    scale = {name: device.number(name, "scale", 1.0) for name in names}
    offset = {name: device.number(name, "offset", 0.0) for name in names}
    told[device.name] = {"values": values, "scale": scale, "offset": offset,
                         "rates": device.read("sampling_frequency_available")}
print(json.dumps(told))
"""


def signal(channel: str, seconds: float) -> float:
    """Something else on every channel."""
    return {
        "in_accel_x": -3.25, "in_accel_y": 0.75, "in_accel_z": 9.5, "in_anglvel_x": 0.5, "in_anglvel_y": -0.25,
        "in_anglvel_z": 0.125, "in_temp": 36600.0, "in_pressure": 98.7, "in_humidityrelative": 55500.0,
        "in_voltage0": 250.0, "in_voltage1": -125.0, "in_voltage2": 60.0, "in_voltage3": 90.0,
    }.get(channel, 0.0)  # fmt: skip


def oracle(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """What iio_info prints: device -> channel ("" for the device) -> attribute -> value."""
    told: dict[str, dict[str, dict[str, str]]] = {}
    device: dict[str, dict[str, str]] = {}
    part: dict[str, str] = {}
    for line in text.splitlines():
        if found := re.match(r"\s+iio:device\d+: (\S+)", line):
            device = told[found[1]] = {"": {}}
        elif found := re.match(r"\s+(\S+):\s+\((input|output)", line):
            part = device[f"in_{found[1]}"] = {}
        elif "device-specific attributes found" in line:
            part = device[""]
        elif found := re.match(r"\s+attr\s+\d+: (\S+) value: (.*)", line):
            part[found[1]] = found[2].strip()
    return told


@pytest.mark.skipif(not shutil.which("umockdev-run"), reason="umockdev-run is not installed (apt: umockdev)")
@pytest.mark.skipif(not shutil.which("iio_info"), reason="iio_info is not installed (apt: libiio-utils)")
def test_libiio_and_our_reader_see_the_same_in_a_mocked_sys(tmp_path: Path) -> None:
    with FakeIio(tmp_path / "root") as board:
        chips = [board.add(part, signal) for part in (MPU6050, *LSM6DSOX, BME280, ADS1015)]
        ready = ("in_accel_z_raw", "in_anglvel_z_raw", "in_accel_z_raw", "in_pressure_input", "in_voltage0_raw")
        until(lambda: all(c.attribute(n) != "0" for c, n in zip(chips, ready, strict=True)), "values in the files", ())
        description = tmp_path / "board.umockdev"
        description.write_text(board.to_umockdev())
    mock = ["umockdev-run", "-d", str(description), "--"]
    # iio_info fails in the end for lack of a bus to scan; what it found of the local devices it has printed by then
    printed = subprocess.run([*mock, "iio_info"], capture_output=True, text=True, timeout=30, check=False).stdout
    libiio = oracle(printed)
    done = subprocess.run(
        [*mock, sys.executable, "-c", READ], capture_output=True, text=True, timeout=30, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    assert set(ours) == set(libiio) == {"mpu6050", "lsm6dsox_gyro", "lsm6dsox_accel", "bme280", "ads1015"}
    compared = 0
    for name, device in ours.items():
        assert libiio[name][""].get("sampling_frequency_available") == device["rates"]
        for channel, value in device["values"].items():
            theirs = libiio[name][channel]
            scale, offset = float(theirs.get("scale", 1)), float(theirs.get("offset", 0))
            assert (device["scale"][channel], device["offset"][channel]) == (scale, offset)
            factor = FACTORS[re.sub(r"in_([a-z]+).*", r"\1", channel)]
            expected = (float(theirs["raw"]) + offset) * scale if "raw" in theirs else float(theirs["input"])
            assert value == pytest.approx(expected * factor, rel=1e-12)
            assert value == pytest.approx(signal(channel, 0.0) * factor, abs=1.01 * scale * factor)
            compared += 1
    assert compared == 7 + 3 + 3 + 3 + 4


def test_a_recorded_trace_plays_the_same_numbers_on_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    with FakeIio(tmp_path / "board") as board:
        chip = board.add(MPU6050, lambda channel, t: float(hash((channel, round(t * 100))) % 2000), raw=True)
        chip.set_attribute("sampling_frequency", "100")
        chip.set_attribute("in_accel_scale", "0.002392")
        trace = record_iio(Host(tmp_path / "board"), "mpu6050", seconds=0.6)
        trace.save(path)
    assert trace.rate_hz == 100
    assert list(trace.types) == [channel.name for channel in MPU6050.channels]
    assert len(trace.raw) > 30
    with FakeIio.from_trace(tmp_path / "ci", path) as board:
        assert board.devices[0].attribute("in_accel_scale") == "0.002392"
        live = sensor(tmp_path / "ci", "mpu6050", (*ACCEL, *GYRO), rate_hz=100)
        live.open()
        try:
            reading = gather(live, 40)
        finally:
            live.close()
    scales = np.array([0.001196] * 3 + [0.000266181] * 3)  # the driver chose its own ranges; the raw numbers count
    played = np.round(reading.values / scales).astype(int).tolist()
    names = list(trace.types)
    columns = [names.index(f"in_{kind}_{axis}") for kind in ("accel", "anglvel") for axis in "xyz"]
    recorded = trace.raw[:, columns].tolist()
    first = recorded.index(played[0])
    assert played == [recorded[(first + i) % len(recorded)] for i in range(len(played))]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut"])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no trace of an IIO device"):
        IioTrace.load(path)


def test_a_trace_whose_scans_do_not_fit_its_channels_is_refused(tmp_path: Path) -> None:
    good = IioTrace("chip", "1-0068", 100.0, {}, {"in_accel_x": (0, "le:s16/16>>0")}, np.zeros((3, 2), np.int64))
    good.save(tmp_path / "x.npz")
    with pytest.raises(ConfigError, match=r"found scans of shape \(3, 2\), expected \(n, 1\)"):
        IioTrace.load(tmp_path / "x.npz")


def test_a_closed_board_leaves_neither_threads_nor_files(tmp_path: Path) -> None:
    before = threading.active_count()
    board = FakeIio(tmp_path)
    board.add(MPU6050)
    board.close()
    board.close()
    assert threading.active_count() == before
    assert list((tmp_path / "dev").iterdir()) == []
    assert list((tmp_path / "sys/bus/iio/devices").iterdir()) == []


def test_reader_and_fake_together_take_little_of_a_core_at_100_hz(tmp_path: Path) -> None:
    with FakeIio(tmp_path) as board:
        board.add(MPU6050)
        live = sensor(tmp_path, "mpu6050", (*ACCEL, *GYRO))
        live.open()
        try:
            gather(live, 20)
            spent, begun = time.process_time(), time.monotonic()
            threading.Event().wait(1.0)
            share = (time.process_time() - spent) / (time.monotonic() - begun)
        finally:
            live.close()
    assert share < 0.06  # 1 to 2 % here; a busy loop takes more than half
