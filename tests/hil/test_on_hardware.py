"""What only a real board, or modules of the kernel, can show. Skipped elsewhere, each with what it needs.

pytest tests/hil/test_on_hardware.py -m hardware --board jetson-imu
sudo modprobe -a snd-aloop v4l2loopback i2c-stub chip_addr=0x68 iio_dummy ; pytest ... -m hardware
"""

from __future__ import annotations

import contextlib
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.camera import CameraDriver
from blossom_edge.sensors.drivers.iio import IioDriver
from blossom_edge.sensors.drivers.mpu6050 import Mpu6050Driver
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.sensors.opening import needed_channels
from blossom_edge.testing import needs
from blossom_edge.testing.conformance import CHECKS, Subject, run_check
from firmware_profiles import load_profile
from firmware_profiles.schema import ProfileSensor
from tests.live import until

pytestmark = [pytest.mark.hardware, pytest.mark.timeout(120)]

LISTEN_S = 5.0
WHO_AM_I, MPU6050 = 0x75, 0x68


def module(name: str, hint: str) -> pytest.MarkDecorator:
    """A module of the kernel that is loaded."""
    there = (Path("/sys/module") / name.replace("-", "_")).exists()
    return pytest.mark.skipif(not there, reason=f"needs the kernel module {name}: sudo modprobe {hint}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each sensor of the board that --board names."""
    if "its_sensor" in metafunc.fixturenames:
        name = metafunc.config.getoption("--board")
        sensors = list(needed_channels(load_profile(name), None)) if name else [None]
        metafunc.parametrize("its_sensor", sensors)


@pytest.fixture
def subject(its_sensor: str | None, device: Callable[..., Any], request: pytest.FixtureRequest) -> Subject:
    """The sensor of the real board; without --board there is none."""
    board = request.config.getoption("--board")
    if board is None or its_sensor is None:
        pytest.skip("needs a real board: run with --board PROFILE")
    found: Subject = device(board).subject(its_sensor, seconds=LISTEN_S)
    return found


def test_a_sensor_of_the_board_passes_every_check(subject: Subject) -> None:
    verdicts = [run_check(name, subject) for name in CHECKS]
    assert [f"{v.check}: {v.detail}; {v.fix}" for v in verdicts if v.status == "failed"] == []
    assert [v.check for v in verdicts if v.status == "skipped"] == ["unplug"]  # nobody here pulls the plug


def opened(source: dict[str, Any], *channels: tuple[str, str, float, float], shape: tuple[int, ...] = ()) -> LiveSensor:
    """A sensor with this one source, open."""
    columns = [{"name": name, "unit": unit, "range": [low, high]} for name, unit, low, high in channels]
    settings = ProfileSensor.model_validate({"channels": columns, "sources": [source], "shape": list(shape)})
    sensor = LiveSensor("it", settings, needed=[str(column["name"]) for column in columns], host=Host())
    sensor.open()
    return sensor


def values_of(sensor: LiveSensor, count: int) -> np.ndarray[Any, Any]:
    """The next `count` samples or some more."""
    parts: list[np.ndarray[Any, Any]] = []

    def enough() -> bool:
        parts.extend(reading.values for reading in sensor.read(0.0))
        return sum(map(len, parts)) >= count

    until(enough, f"{count} samples", ())
    return np.concatenate(parts)


@module("snd-aloop", "snd-aloop")
@needs.package("sounddevice", extra="audio")
@needs.program("aplay", package="alsa-utils")
def test_what_is_played_into_a_loopback_card_is_heard(tmp_path: Path) -> None:
    """A tone of 1 kHz at half of full scale: root mean square 0.354."""
    tone = (16384 * np.sin(2 * np.pi * 1000 * np.arange(48000 * 20) / 48000)).astype("<i2")
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    player = subprocess.Popen(["aplay", "-q", "-D", "plughw:CARD=Loopback,DEV=0", str(tmp_path / "tone.wav")])
    try:
        source = {"driver": "microphone", "rate_hz": 16000, "device": "Loopback ,1)", "capture_hz": 48000}
        sensor = opened(source, ("level", "/", -1.0, 1.0))
        try:
            heard = values_of(sensor, 48000)[-16000:, 0]
        finally:
            sensor.close()
    finally:
        player.terminate()
        player.wait()
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.354, rel=0.1)
    assert int(np.abs(np.fft.rfft(heard)).argmax()) == pytest.approx(1000, abs=2)  # 1 s: one line per hertz


@module("v4l2loopback", "v4l2loopback exclusive_caps=1")
@needs.package("cv2", extra="camera")
@needs.program("ffmpeg", package="ffmpeg")
def test_what_is_fed_into_a_loopback_camera_is_seen() -> None:
    nodes = [f for f in Path("/sys/class/video4linux").glob("video*") if "Dummy" in (f / "name").read_text()]
    assert nodes, "v4l2loopback is loaded and made no device"
    node = f"/dev/{nodes[0].name}"
    feed = ["ffmpeg", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "color=c=red:s=640x480:r=30"]
    feeder = subprocess.Popen([*feed, "-pix_fmt", "yuv420p", "-f", "v4l2", node])
    try:
        until(lambda: any(f.options["device"] == node for f in CameraDriver.find(Host())), "the camera is found", ())
        source = {"driver": "camera", "rate_hz": 5, "device": node}
        sensor = opened(source, *((name, "/", 0.0, 1.0) for name in "rgb"), shape=(24, 32))
        try:
            picture = values_of(sensor, 3)[-1].reshape(24, 32, 3)
        finally:
            sensor.close()
    finally:
        feeder.terminate()
        feeder.wait()
    assert picture.mean(axis=(0, 1)) == pytest.approx([1.0, 0.0, 0.0], abs=0.15)


@pytest.fixture
def stub_bus() -> int:
    """The bus of i2c-stub, whose chips are registers that keep what is written to them."""
    names = Path("/sys/bus/i2c/devices").glob("i2c-*/name")
    found = [int(path.parent.name.removeprefix("i2c-")) for path in names if "stub" in path.read_text()]
    if not found or not Path(f"/dev/i2c-{found[0]}").exists():
        pytest.skip("i2c-stub has no /dev/i2c-N: sudo modprobe i2c-dev")
    return found[0]


@module("i2c-stub", "i2c-stub chip_addr=0x68")
@needs.package("smbus2", extra="i2c")
def test_a_chip_is_found_on_a_real_bus_of_the_kernel(stub_bus: int) -> None:
    """Through the kernel's own i2c-dev: the bytes that we send are those that it takes."""
    import smbus2

    with contextlib.closing(smbus2.SMBus(stub_bus)) as bus:
        bus.write_byte_data(MPU6050, WHO_AM_I, 0x68)
    found = [dict(f.options) for f in Mpu6050Driver.find(Host())]
    assert {"bus": stub_bus, "address": MPU6050} in found
    with contextlib.closing(smbus2.SMBus(stub_bus)) as bus:
        bus.write_byte_data(MPU6050, WHO_AM_I, 0x00)
    assert {"bus": stub_bus, "address": MPU6050} not in [dict(f.options) for f in Mpu6050Driver.find(Host())]


@module("iio_dummy", "iio_dummy")
def test_the_dummy_device_of_the_kernel_is_read_as_its_files_say() -> None:
    folders = [f.parent for f in Path("/sys/bus/iio/devices").glob("iio:device*/name") if "dummy" in f.read_text()]
    if not folders:
        pytest.skip("no dummy device: sudo mkdir /sys/kernel/config/iio/devices/dummy/iio_dummy_part_no")

    def number(name: str) -> float:
        return float((folders[0] / f"in_voltage0_{name}").read_text())

    name = (folders[0] / "name").read_text().strip()
    source = {"driver": "iio", "rate_hz": 5, "device": name, "buffer": False, "map": {"v": "in_voltage0"}}
    sensor = opened(source, ("v", "V", -10.0, 10.0))
    try:
        (volts,) = values_of(sensor, 1)[0]
    finally:
        sensor.close()
    assert volts == pytest.approx((number("raw") + number("offset")) * number("scale") / 1000)
    assert name in {f.options["device"] for f in IioDriver.find(Host())}
