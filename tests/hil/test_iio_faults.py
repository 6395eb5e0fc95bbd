"""What goes wrong with an IIO device, and what the driver makes of it."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Host, Request
from blossom_edge.sensors.drivers.iio import IioDriver
from blossom_edge.sensors.drivers.iio_clock import StampClock
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import BME280, MAX30102, MPU6050
from firmware_profiles.schema import ProfileChannel
from tests.hil.iio_board import ACCEL, GYRO, error_of, gather, sensor
from tests.live import until

RED = ({"name": "red", "unit": "/", "range": [0.0, 262143.0]},)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeIio]:
    with FakeIio(tmp_path) as board:
        yield board


def driver(root: Path, device: str = "mpu6050", rate_hz: float = 100.0, **options: object) -> IioDriver:
    channels = tuple(ProfileChannel.model_validate(c) for c in ACCEL)
    return IioDriver(Request("imu", channels, rate_hz, options={"device": device, **options}, host=Host(root)))


def numbered(channel: str, seconds: float) -> float:
    """The sample's number since the plug at 100 Hz, the same on all axes (raw)."""
    return float(round(seconds * 100) % 30000)


def test_a_device_that_is_pulled_out_in_the_middle_of_a_scan_fails_after_its_last_whole_sample(
    board: FakeIio, tmp_path: Path
) -> None:
    chip = board.add(MPU6050, numbered, raw=True)
    live = sensor(tmp_path, "mpu6050")
    live.open()
    try:
        gather(live, 20)
        chip.unplug(torn=True)
        error = error_of(live)
    finally:
        live.close()
    assert error.error_id == "sensor-failed"
    assert "mpu6050: the device was removed" in str(error)


def test_it_cannot_be_opened_while_it_is_out_and_delivers_again_when_it_is_back(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    live = sensor(tmp_path, "mpu6050")
    live.open()
    try:
        first = gather(live, 20)
        chip.unplug()
        error_of(live)
        with pytest.raises(HardwareError, match="no IIO device 'mpu6050', found none") as caught:
            live.open()
        assert caught.value.error_id == "sensor-missing"
        chip.replug()
        live.open()
        again = gather(live, 20)
    finally:
        live.close()
    assert again.times[0] > first.times[-1]
    np.testing.assert_allclose(again.values[:, 2], 9.80665, atol=0.0006)
    assert chip.attribute("in_accel_scale") == "0.001196"  # set anew after its driver began with 2 g


def test_a_polled_device_that_is_pulled_out_fails_too(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(BME280)
    live = sensor(tmp_path, "bme280", [{"name": "temp", "unit": "Cel", "range": [-40.0, 85.0]}], rate_hz=50)
    live.open()
    try:
        gather(live, 3)
        chip.unplug()
        error = error_of(live)
    finally:
        live.close()
    assert error.error_id == "sensor-failed"
    assert "in_temp is gone" in str(error)


def test_scans_that_arrive_in_two_halves_are_put_together(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, numbered, raw=True)
    chip.tear()
    live = sensor(tmp_path, "mpu6050", (*ACCEL, *GYRO), watermark=3)
    live.open()
    try:
        reading = gather(live, 60)
    finally:
        live.close()
    accel, gyro = np.round(reading.values[:, :3] / 0.001196), np.round(reading.values[:, 3:] / 0.000266181)
    assert (accel == accel[:, :1]).all()
    assert (gyro == accel[:, :1]).all()
    assert np.diff(accel[:, 0]).tolist() == [1.0] * (len(reading) - 1)
    assert np.diff(reading.times) == pytest.approx(0.01, abs=1e-6)


def test_an_overflow_is_a_gap_in_the_times_and_misaligns_nothing(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, numbered, raw=True)
    imu = driver(tmp_path)
    imu.open()
    try:
        (chip.folder / "buffer/enable").write_text("0\n")  # a smaller buffer than ours, so that the test is short
        (chip.folder / "buffer/length").write_text("32\n")
        (chip.folder / "buffer/watermark").write_text("4\n")
        (chip.folder / "buffer/enable").write_text("1\n")
        until(lambda: chip.overflows >= 20, "lost scans", ())
        parts = []
        until(lambda: parts.append(imu.read(0.1)) or sum(map(len, parts)) >= 60, "samples after the overflow", ())
    finally:
        imu.close()
    times = np.concatenate([p.times for p in parts])
    values = np.round(np.concatenate([p.values for p in parts]) / 0.001196)
    assert (values == values[:, :1]).all()
    steps = np.diff(times)
    assert (steps > 0).all()
    assert (steps > 0.15).any()  # 20 samples and more are missing at one place
    np.testing.assert_allclose(np.diff(values[:, 0]), np.round(steps * 100), atol=0.5)


def test_a_device_whose_interrupt_does_not_come_is_given_up(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    live = sensor(tmp_path, "mpu6050", rate_hz=200)
    live.open()
    try:
        gather(live, 20)
        chip.silence()
        error = error_of(live)
    finally:
        live.close()
    assert "it delivers nothing, is its interrupt pin wired" in str(error)


def test_half_the_rate_is_seen_in_the_times(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    chip.rate(0.5)
    live = sensor(tmp_path, "mpu6050", watermark=5)
    live.open()
    try:
        reading = gather(live, 30)
    finally:
        live.close()
    assert np.diff(reading.times) == pytest.approx(0.02, abs=1e-6)
    assert live.rate_hz == 100  # what the device says


def test_a_stuck_and_a_saturated_chip_deliver_what_they_show(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, lambda channel, t: 10 * math.sin(40 * t))
    live = sensor(tmp_path, "mpu6050", watermark=2)
    live.open()
    try:
        assert np.ptp(gather(live, 20).values[:, 0]) > 5
        chip.stuck()
        until(lambda: np.ptp(gather(live, 10).values[:, 0]) == 0, "a stuck value", ())
        chip.saturate()
        until(lambda: gather(live, 10).values.min() == pytest.approx(32767 * 0.001196), "the end of the range", ())
        chip.clear()
        until(lambda: np.ptp(gather(live, 20).values[:, 0]) > 5, "moving values", ())
    finally:
        live.close()


def test_timestamps_that_jitter_or_jump_back_never_make_the_times_fall(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    chip.jitter(0.02)  # two periods
    live = sensor(tmp_path, "mpu6050", watermark=5)
    live.open()
    try:
        first = gather(live, 40)
        chip.jitter(0.0)
        chip.jump(-0.3)
        second = gather(live, 40)
        late = time.monotonic() - second.times[-1]
    finally:
        live.close()
    times = np.concatenate([first.times, second.times])
    assert (np.diff(times) > 0).all()
    assert late > 0.3  # what would have been in the past is left out, then the chip's new time counts


def test_timestamps_that_jump_forward_are_told_as_they_are(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    live = sensor(tmp_path, "mpu6050", watermark=5)
    live.open()
    try:
        first = gather(live, 10)
        chip.jump(2.0)
        second = gather(live, 30)
    finally:
        live.close()
    assert np.diff(np.concatenate([first.times, second.times])).max() == pytest.approx(2.01, abs=0.001)


def test_timestamps_that_stay_behind_end_the_sensor(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    live = sensor(tmp_path, "mpu6050", rate_hz=200)
    live.open()
    try:
        gather(live, 20)
        chip.jump(-3600.0)
        error = error_of(live)
    finally:
        live.close()
    assert "its timestamps do not rise" in str(error)


def test_a_wall_clock_that_is_set_moves_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, now = [1_700_000_000.0], [50.0]
    monkeypatch.setattr(time, "clock_gettime", lambda _: wall[0])
    clock = StampClock("realtime", lambda: now[0])
    stamps = np.array([1_700_000_000_010_000_000, 1_700_000_000_020_000_000])
    now[0], wall[0] = 50.02, 1_700_000_000.02
    assert clock.seconds(stamps, 50.0) == pytest.approx([50.01, 50.02], abs=1e-6)
    # an hour forward between the next two samples: one was stamped before, one after
    now[0], wall[0] = 50.04, 1_700_003_600.04
    stamps = np.array([1_700_000_000_030_000_000, 1_700_003_600_040_000_000])
    assert clock.seconds(stamps, 50.02) == pytest.approx([50.03, 50.04], abs=1e-6)
    # and two hours back
    now[0], wall[0] = 50.06, 1_699_996_400.06
    stamps = np.array([1_700_003_600_050_000_000, 1_699_996_400_060_000_000])
    assert clock.seconds(stamps, 50.04) == pytest.approx([50.05, 50.06], abs=1e-6)


def test_a_late_reader_of_a_device_without_timestamps_sees_the_gap_where_it_was(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MAX30102, lambda channel, t: round(t * 100) % 30000, raw=True)
    channels = tuple(ProfileChannel.model_validate(c) for c in RED)
    ppg = IioDriver(Request("ppg", channels, 100.0, options={"device": "max30102"}, host=Host(tmp_path)))
    ppg.open()
    try:
        first = ppg.read(0.5)
        chip.silence()
        threading.Event().wait(0.7)
        chip.silence(False)
        second = ppg.read(1.0)
    finally:
        ppg.close()
    assert len(first) > 10
    assert len(second) > 10
    lost = second.values[0, 0] - first.values[-1, 0]
    assert second.times[0] - first.times[-1] == pytest.approx(lost / 100, abs=0.06)
    assert np.diff(second.times) == pytest.approx(0.01, abs=1e-6)


def test_why_a_device_is_polled_although_it_has_a_buffer_is_logged(
    board: FakeIio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chip = board.add(MPU6050)
    chip.node.unlink()
    with caplog.at_level(logging.INFO):
        imu = driver(tmp_path)
        imu.open()
        imu.close()
    assert "imu: mpu6050 is polled, it cannot use its buffer: No such file or directory" in caplog.text


def test_a_closed_driver_leaves_no_open_file_and_may_be_closed_twice(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    imu = driver(tmp_path)

    def opened() -> int:
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        return sum(os.path.realpath(link) == str(chip.node) for link in links)

    assert opened() == 1  # the fake's own
    imu.open()
    assert opened() == 2
    imu.close()
    imu.close()
    assert opened() == 1
