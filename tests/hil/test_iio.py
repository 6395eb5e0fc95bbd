"""The iio driver on a fake board, through the thread and the units that a device uses."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host, Request
from blossom_edge.sensors.drivers.iio import IioDriver
from blossom_edge.sensors.finding import source_lines
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import ADS1015, BME280, LSM6DSOX, MAX30102, MPU6050, Part, at_rest
from firmware_profiles.schema import ProfileChannel
from tests.hil.iio_board import ACCEL, GYRO, gather, sensor

VOLTS = ({"name": "ecg0", "unit": "V", "range": [-1.0, 1.0]},)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeIio]:
    with FakeIio(tmp_path) as board:
        yield board


def moving(channel: str, seconds: float) -> float:
    """Distinct on every axis; x and its time tell when a sample was taken."""
    fixed = {"in_accel_y": -2.0, "in_accel_z": 9.80665, "in_anglvel_x": 1.0, "in_anglvel_y": -2.0, "in_anglvel_z": 3.0}
    return 5 * math.sin(2 * math.pi * seconds) if channel == "in_accel_x" else fixed.get(channel, 0.0)


def test_an_mpu6050_delivers_si_units_at_the_lowest_rate_that_is_enough(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, moving)
    live = sensor(tmp_path, "mpu6050", (*ACCEL, *GYRO), rate_hz=64, watermark=None)
    live.open()
    try:
        reading = gather(live, 60)
        assert live.rate_hz == 100
        assert chip.attribute("sampling_frequency") == "100"
        assert chip.attribute("in_accel_scale") == "0.001196"  # 4 g holds 39.2 m/s2
        assert chip.attribute("in_anglvel_scale") == "0.000266181"  # 500 degrees/s hold 8.73 rad/s
        assert chip.attribute("scan_elements/in_temp_en") == "0"
        assert chip.attribute("buffer/watermark") == "20"  # a fifth of a second
        assert int(chip.attribute("buffer/length")) >= 400
    finally:
        live.close()
    np.testing.assert_allclose(reading.values[:, 1:3], [[-2.0, 9.80665]] * len(reading), atol=0.0006)
    np.testing.assert_allclose(reading.values[:, 3:], [[1.0, -2.0, 3.0]] * len(reading), atol=0.00014)
    assert np.diff(reading.times) == pytest.approx(0.01, abs=1e-6)
    assert chip.attribute("buffer/enable") == "0"


def test_the_times_are_those_at_which_the_samples_were_taken_by_either_clock(board: FakeIio, tmp_path: Path) -> None:
    begun = time.monotonic()
    chip = board.add(MPU6050, moving)
    plugged = time.monotonic()
    for clock in ("monotonic", "realtime"):
        if clock == "realtime":  # as before Linux 4.5, where the clock could not be chosen
            (chip.folder / "current_timestamp_clock").unlink()
        live = sensor(tmp_path, "mpu6050")
        live.open()
        try:
            reading = gather(live, 40)
        finally:
            live.close()
        # the sine tells the time of each sample since the chip was plugged in; 1 ms is 0.03, a step of the chip 0.0012
        expected = 5 * np.sin(2 * np.pi * (reading.times - begun))
        assert np.abs(reading.values[:, 0] - expected).max() < 31.5 * (plugged - begun + 0.001) + 0.002, clock


def test_a_mount_matrix_turns_the_axes_also_when_only_one_is_wanted(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, lambda channel, t: {"in_accel_x": 1.0, "in_accel_y": 2.0}.get(channel, 3.0))
    chip.set_attribute("in_accel_mount_matrix", "0.6, -0.8, 0; 0.8, 0.6, 0; 0, 0, 1")  # 53 degrees
    # 0.6 - 1.6 = -1 and 0.8 + 1.2 = 2
    for channels, expected in ((ACCEL, [-1.0, 2.0, 3.0]), (ACCEL[1:2], [2.0])):
        live = sensor(tmp_path, "mpu6050", channels)
        live.open()
        try:
            np.testing.assert_allclose(gather(live, 1).values[0], expected, atol=0.001)
        finally:
            live.close()


def test_the_two_devices_of_an_lsm6dsox_are_two_sensors_on_one_clock(board: FakeIio, tmp_path: Path) -> None:
    board.add_all(LSM6DSOX, moving)
    accel = sensor(tmp_path, "lsm6dsox_accel", rate_hz=100)
    gyro = sensor(tmp_path, "lsm6dsox_gyro", GYRO, rate_hz=100)
    accel.open()
    gyro.open()
    try:
        readings = gather(accel, 21), gather(gyro, 21)
        assert (accel.rate_hz, gyro.rate_hz) == (104, 104)
    finally:
        accel.close()
        gyro.close()
    np.testing.assert_allclose(readings[1].values[0], [1.0, -2.0, 3.0], atol=0.0002)
    np.testing.assert_allclose(readings[0].values[0][1:], [-2.0, 9.80665], atol=0.0007)
    assert abs(readings[0].times[0] - readings[1].times[0]) < 0.5


def test_a_max30102_without_timestamps_gets_times_a_period_apart_that_end_now(board: FakeIio, tmp_path: Path) -> None:
    board.add(MAX30102, lambda channel, t: 262143.0 if channel == "in_intensity_red" else 131072.0)
    channels = [{"name": name, "unit": "/", "range": [0.0, 262143.0]} for name in ("red", "ir")]
    live = sensor(tmp_path, "max30102", channels)
    live.open()
    try:
        reading = gather(live, 60)
        late = time.monotonic() - reading.times[-1]
    finally:
        live.close()
    assert reading.values[:, 0].tolist() == [262143.0] * len(reading)
    assert reading.values[:, 1].tolist() == [131072.0] * len(reading)
    assert -0.001 < late < 2.0
    assert (np.diff(reading.times) > 0).all()
    assert (reading.times[-1] - reading.times[0]) / (len(reading) - 1) == pytest.approx(0.01, rel=0.1)


def test_a_bme280_without_a_buffer_is_polled_and_its_units_are_converted(board: FakeIio, tmp_path: Path) -> None:
    board.add(BME280)
    channels = [{"name": n, "unit": u, "range": [0.0, 1e6]} for n, u in (("temp", "Cel"), ("p", "Pa"), ("rh", "%RH"))]
    live = sensor(tmp_path, "bme280", channels, rate_hz=20)
    live.open()
    try:
        reading = gather(live, 5)
    finally:
        live.close()
    # 25000 thousandths of a degree, 101.325 kPa, 45000 thousandths of a percent
    np.testing.assert_allclose(reading.values[-1], [25.0, 101325.0, 45.0], rtol=1e-6)
    assert np.diff(reading.times).mean() == pytest.approx(0.05, rel=0.3)


def test_an_adc_whose_buffer_lacks_a_trigger_is_polled_in_volts(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(ADS1015, lambda channel, t: 500.0)
    live = sensor(tmp_path, "ads1015", VOLTS, rate_hz=20)
    live.open()
    try:
        # 500 mV at 0.5 mV a step (1.024 V holds 1 V) is 1000 steps; the coarser scale before it may still be read once
        reading = gather(live, 6)
        assert chip.attribute("in_voltage0_scale") == "0.5"
        assert chip.attribute("in_voltage0_sampling_frequency") == "128"
        assert chip.attribute("buffer/enable") == "0"
    finally:
        live.close()
    assert reading.values[-1, 0] == pytest.approx(0.5)


def test_a_source_that_demands_the_buffer_says_why_it_cannot_have_it(board: FakeIio, tmp_path: Path) -> None:
    board.add(ADS1015)
    with pytest.raises(HardwareError, match="no trigger"):
        sensor(tmp_path, "ads1015", VOLTS, buffer=True).open()


def test_a_trigger_of_the_device_itself_is_chosen_for_it(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(ADS1015, lambda channel, t: 500.0)
    trigger = tmp_path / "sys/bus/iio/devices/trigger0"
    trigger.mkdir()
    (trigger / "name").write_text("ads1015-dev0\n")
    live = sensor(tmp_path, "ads1015", VOLTS, rate_hz=128, buffer=True)
    live.open()
    try:
        assert gather(live, 30).values[-1, 0] == pytest.approx(0.5)
        assert chip.attribute("trigger/current_trigger") == "ads1015-dev0"
    finally:
        live.close()


def test_a_source_may_ask_to_be_polled_and_for_its_own_watermark(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050)
    live = sensor(tmp_path, "mpu6050", rate_hz=50, buffer=False)
    live.open()
    try:
        assert gather(live, 5).values[-1, 2] == pytest.approx(9.80665, abs=0.0006)
        assert chip.attribute("buffer/enable") == "0"
    finally:
        live.close()
    live = sensor(tmp_path, "mpu6050", rate_hz=50, watermark=3)
    live.open()
    try:
        assert chip.attribute("buffer/watermark") == "3"
    finally:
        live.close()


def test_of_two_chips_of_one_name_the_place_on_the_bus_tells_which(board: FakeIio, tmp_path: Path) -> None:
    board.add(MPU6050, lambda channel, t: 1.0, where="1-0068")
    board.add(MPU6050, lambda channel, t: 2.0, where="7-0069")
    live = sensor(tmp_path, "mpu6050", at="7-0069")
    live.open()
    try:
        assert gather(live, 1).values[0, 0] == pytest.approx(2.0, abs=0.0006)
    finally:
        live.close()
    with pytest.raises(HardwareError, match=r"'mpu6050' at 3-0068, found it at 1-0068 and 7-0069"):
        sensor(tmp_path, "mpu6050", at="3-0068").open()


def test_a_channel_that_the_kernel_adds_to_the_scan_is_read_over(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, moving)
    en = chip.folder / "scan_elements/in_temp_en"
    en.unlink()
    os.symlink(chip.folder / "scan_elements/in_accel_x_en", en)  # comes on with the accelerometer
    live = sensor(tmp_path, "mpu6050", (*ACCEL, *GYRO))
    live.open()
    try:
        np.testing.assert_allclose(gather(live, 1).values[0, 3:], [1.0, -2.0, 3.0], atol=0.00014)
        assert chip.attribute("scan_elements/in_temp_en") == "1"
    finally:
        live.close()


def test_a_sensor_is_stopped_and_started_again_with_another_rate_and_other_channels(
    board: FakeIio, tmp_path: Path
) -> None:
    board.add(MPU6050, moving)
    for channels, rate in ((ACCEL, 200.0), (GYRO, 50.0), ((*ACCEL, *GYRO), 100.0), (ACCEL[:1], 500.0)):
        live = sensor(tmp_path, "mpu6050", channels, rate_hz=rate)
        live.open()
        try:
            reading = gather(live, 10)
        finally:
            live.close()
        assert np.diff(reading.times) == pytest.approx(1 / rate, abs=1e-6)
        if channels[-1] == GYRO[-1]:
            np.testing.assert_allclose(reading.values[:, -1], 3.0, atol=0.0003)


def test_what_a_killed_program_left_running_is_stopped_and_started_afresh(board: FakeIio, tmp_path: Path) -> None:
    chip = board.add(MPU6050, moving)
    for name in ("scan_elements/in_anglvel_z_en", "scan_elements/in_timestamp_en", "buffer/enable"):
        (chip.folder / name).write_text("1\n")
    live = sensor(tmp_path, "mpu6050", ACCEL)
    live.open()
    try:
        reading = gather(live, 30)
    finally:
        live.close()
    np.testing.assert_allclose(reading.values[:, 2], 9.80665, atol=0.0006)


def test_a_profile_that_asks_too_much_of_the_chip_is_told_its_limit(board: FakeIio, tmp_path: Path) -> None:
    board.add(MPU6050)
    with pytest.raises(ConfigError, match="found rate_hz 1000, the highest is 500"):
        sensor(tmp_path, "mpu6050", rate_hz=1000).open()
    wide = [{"name": "ax", "unit": "m/s2", "range": [-400.0, 400.0]}]
    with pytest.raises(ConfigError, match=r"found a range up to 400, the largest is 156\.79"):
        sensor(tmp_path, "mpu6050", wide).open()
    with pytest.raises(ConfigError, match="sensor imu: iio: watermark: found 0, expected greater than") as caught:
        sensor(tmp_path, "mpu6050", watermark=0).open()
    assert caught.value.error_id == "profile-invalid"
    assert caught.value.hint.startswith("options of this driver: at, buffer")


def test_without_permission_the_udev_rule_is_named(
    board: FakeIio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.add(MPU6050)
    real = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_WRONLY and "iio:device" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(str(path), flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(HardwareError, match=r"may not set it up.*udev rule"):
            sensor(tmp_path, "mpu6050").open()


def test_a_device_that_another_program_reads_is_left_alone(
    board: FakeIio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = board.add(MPU6050)
    (chip.folder / "buffer/enable").write_text("1\n")
    real = os.open

    def busy(path: object, flags: int, *rest: int) -> int:
        if str(path) == str(chip.node):
            raise OSError(16, "Device or resource busy", str(path))
        return real(str(path), flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", busy)
        with pytest.raises(HardwareError, match="another program reads it"):
            sensor(tmp_path, "mpu6050").open()
    assert chip.attribute("buffer/enable") == "1"
    assert chip.attribute("sampling_frequency") == "50"


def test_every_device_is_proposed_with_a_source_that_opens(board: FakeIio, tmp_path: Path) -> None:
    parts: tuple[Part, ...] = (MPU6050, *LSM6DSOX, MAX30102, BME280, ADS1015)
    for part in parts:
        board.add(part, at_rest)
    host = Host(tmp_path)
    found = list(IioDriver.find(host))
    assert [one.options["device"] for one in found] == [part.name for part in parts]
    assert found[0].channels[0] == ("ax", "m/s2", -19.6, 19.59)  # 2 g, as the chip is set
    assert [one.rate_hz for one in found] == [50, 52, 52, 100, 1, 128]
    for one in found:
        channels = tuple(ProfileChannel.model_validate(dict(zip(("name", "unit"), c[:2], strict=True), range=c[2:]))
                         for c in one.channels)  # fmt: skip
        driver = IioDriver(Request(one.sensor, channels, one.rate_hz, options=one.options, host=host))
        driver.open()
        driver.close()
    lines = source_lines(found[0])
    assert 'driver = "iio"' in lines
    assert 'device = "mpu6050"' in lines


def test_two_chips_of_one_name_are_proposed_with_their_places(board: FakeIio, tmp_path: Path) -> None:
    board.add(BME280, where="1-0076")
    board.add(BME280, where="1-0077")
    assert [one.options for one in IioDriver.find(Host(tmp_path))] == [
        {"device": "bme280", "at": "1-0076"},
        {"device": "bme280", "at": "1-0077"},
    ]


def test_a_machine_without_iio_has_nothing_to_propose(tmp_path: Path) -> None:
    assert list(IioDriver.find(Host(tmp_path))) == []


def test_a_sensor_with_a_shape_is_refused(tmp_path: Path) -> None:
    channels = (ProfileChannel(name="r", unit="/", range=(0.0, 1.0)),)
    with pytest.raises(ConfigError, match="shape"):
        IioDriver(Request("camera", channels, 5.0, shape=(2, 2), options={"device": "x"}, host=Host(tmp_path)))


def test_a_sensor_that_is_not_open_says_so(tmp_path: Path) -> None:
    channels = (ProfileChannel(name="ax", unit="m/s2", range=(-1.0, 1.0)),)
    with pytest.raises(HardwareError, match="not open"):
        IioDriver(Request("imu", channels, 5.0, options={"device": "x"}, host=Host(tmp_path))).read(0.0)
