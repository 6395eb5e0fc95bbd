"""Our own MPU-6050 driver on a model of its registers: values, times, rates, faults."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.driver import Host, Request, Samples
from blossom_edge.sensors.drivers.mpu6050 import Mpu6050Driver
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.sensors.opening import close_sensors, open_sensors
from blossom_edge.testing.fake_i2c import FakeMpu6050
from blossom_edge.testing.fake_smbus2 import install_fake_smbus2
from firmware_profiles.loading import load_profile
from firmware_profiles.schema import ProfileChannel, ProfileSensor
from tests.live import until

ACCEL = tuple(ProfileChannel(name=f"a{axis}", unit="m/s2", range=(-39.2, 39.2)) for axis in "xyz")
GYRO = tuple(ProfileChannel(name=f"g{axis}", unit="rad/s", range=(-8.73, 8.73)) for axis in "xyz")
TEMPERATURE = ProfileChannel(name="temp", unit="Cel", range=(-40.0, 85.0))
LSB_G, LSB_DPS, LSB_CEL = 9.80665 / 8192, np.pi / 180 / 65.5, 1 / 340


class Time:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 5e-5  # a look takes a little
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


class Bench:
    """A driver and its chip in one time."""

    def __init__(
        self,
        chip: FakeMpu6050,
        clock: Time,
        *,
        rate_hz: float = 100.0,
        channels: tuple[ProfileChannel, ...] = (*ACCEL, *GYRO),
    ) -> None:
        self.chip, self.clock = chip, clock
        options = {"bus": 7, "address": 0x68}
        self.driver = Mpu6050Driver(Request("imu", channels, rate_hz, options=options, host=Host(clock=clock)))
        self.driver._pause = clock.wait  # type: ignore[method-assign]  # waits in the time of the test

    def gather(self, seconds: float) -> Samples:
        """What comes in that time."""
        end, parts = self.clock.now + seconds, []
        while self.clock.now < end:
            parts.append(self.driver.read(0.2))
        return Samples(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def chip(clock: Time) -> FakeMpu6050:
    return FakeMpu6050(clock=clock)


@pytest.fixture
def bench(chip: FakeMpu6050, clock: Time) -> Iterator[Bench]:
    with install_fake_smbus2({7: {0x68: chip}}):
        bench = Bench(chip, clock)
        yield bench
        bench.driver.close()


def test_values_come_in_si_units_in_the_order_of_the_channels(chip: FakeMpu6050, clock: Time) -> None:
    given = {"ax": -1.5, "ay": 20.0, "az": 9.80665, "gx": 0.25, "gy": -4.0, "gz": 8.0, "temp": 31.0}
    chip.signal = lambda channel, t: given[channel]
    channels = (GYRO[2], TEMPERATURE, *ACCEL, GYRO[0], GYRO[1])
    with install_fake_smbus2({7: {0x68: chip}}):
        bench = Bench(chip, clock, channels=channels)
        bench.driver.open()
        values = bench.gather(1.0).values
    steps = [LSB_DPS, LSB_CEL, *[LSB_G] * 3, LSB_DPS, LSB_DPS]
    expected = [given[channel.name] for channel in channels]
    assert (np.abs(values - expected) <= np.array(steps) / 2 + 1e-9).all()
    assert bench.driver.units == tuple(channel.unit for channel in channels)


def test_the_registers_are_set_as_worked_by_hand(bench: Bench) -> None:
    bench.driver.open()
    registers = bench.chip._registers
    # 1000 / (1 + 9) = 100 Hz; 42 Hz filter (3); 500 degrees/s (1 << 3); 4 g (1 << 3)
    assert list(registers[0x19:0x1D]) == [9, 3, 8, 8]
    assert registers[0x6B] == 0x01  # awake, on the clock of the gyroscope
    assert registers[0x6A] == 0x40
    assert registers[0x23] == 0xF8
    bench.driver.close()
    assert registers[0x6B] == 0x40  # asleep


@pytest.mark.parametrize("speed", [1.0, 0.99, 1.01])
def test_no_sample_is_lost_or_taken_twice_and_times_are_right_within_one_period(bench: Bench, speed: float) -> None:
    start = bench.clock.now
    bench.chip.signal = lambda channel, t: t - start  # each sample tells when it was taken
    bench.driver.open()
    bench.chip.rate(speed)
    samples = bench.gather(20.0)
    told = samples.values[:, 0] + start
    assert len(samples) == pytest.approx(2000 * speed, abs=25)
    assert np.diff(told) == pytest.approx(np.full(len(told) - 1, 0.01 / speed), abs=1.5 * LSB_G)
    assert np.abs(samples.times - told).max() <= 0.01 + 0.003
    steps = np.diff(samples.times)
    assert (steps > 0).all()
    assert np.mean(steps) == pytest.approx(0.01 / speed, rel=2e-3)
    assert steps.max() < 0.012


def test_a_device_that_comes_late_by_half_a_second_loses_nothing(bench: Bench) -> None:
    start = bench.clock.now
    bench.chip.signal = lambda channel, t: t - start
    bench.driver.open()
    parts = [bench.gather(1.0)]
    for _ in range(3):
        bench.clock.wait(0.5)
        parts.append(bench.gather(1.0))
    told = np.concatenate([p.values[:, 0] for p in parts])
    assert np.diff(told).max() < 0.01 + 2 * LSB_G
    assert np.diff(np.concatenate([p.times for p in parts])).max() < 0.012


def test_one_that_comes_two_seconds_late_has_a_gap_and_whole_samples_after_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.driver.open()
    before = bench.gather(1.0)
    bench.clock.wait(2.0)
    after = bench.gather(1.0)
    assert "read too late" in caplog.text
    assert after.times[0] - before.times[-1] > 1.9
    assert len(after) == pytest.approx(75, abs=25)
    assert after.values == pytest.approx(np.tile([0, 0, 9.80665, 0, 0, 0], (len(after), 1)), abs=LSB_G)


def test_a_rate_that_the_chip_does_not_have_becomes_the_next_higher_one(chip: FakeMpu6050, clock: Time) -> None:
    with install_fake_smbus2({7: {0x68: chip}}):
        bench = Bench(chip, clock, rate_hz=64.0)
        bench.driver.open()
        assert bench.driver.rate_hz == pytest.approx(1000 / 15)
        assert len(bench.gather(3.0)) == pytest.approx(200, abs=14)


def test_a_relative_is_read_with_its_own_temperature_and_fifo(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    chip = FakeMpu6050(clock=clock, who_am_i=0x70)
    with install_fake_smbus2({7: {0x68: chip}}), caplog.at_level(logging.INFO):
        bench = Bench(chip, clock, channels=(*ACCEL, TEMPERATURE))
        bench.driver.open()
        samples = bench.gather(2.0)
    assert "is an MPU-6500" in caplog.text
    assert chip._registers[0x1D] == 3  # the filter of its accelerometer
    assert len(samples) == pytest.approx(200, abs=15)
    assert samples.values[:, 3] == pytest.approx(np.full(len(samples), 25.0), abs=LSB_CEL)


def test_another_chip_at_the_address_is_refused_and_nothing_is_written_to_it(clock: Time) -> None:
    chip = FakeMpu6050(clock=clock, who_am_i=0x12)
    before = bytes(chip._registers)
    with install_fake_smbus2({7: {0x68: chip}}):
        bench = Bench(chip, clock)
        with pytest.raises(HardwareError, match=r"found WHO_AM_I 0x12, expected 0x68 \(MPU-6050\)") as caught:
            bench.driver.open()
        bench.driver.close()
    assert caught.value.error_id == "sensor-missing"
    assert bytes(chip._registers) == before


def test_an_empty_address_says_where_it_looked(chip: FakeMpu6050, clock: Time) -> None:
    expected = "I2C bus 7, address 0x68: nothing answers"
    with install_fake_smbus2({7: {0x69: chip}}), pytest.raises(HardwareError, match=expected) as caught:
        Bench(chip, clock).driver.open()
    assert "SDA" in caught.value.hint


def test_a_chip_whose_reset_does_not_end_is_given_up_after_a_second(chip: FakeMpu6050, clock: Time) -> None:
    class Hung(FakeMpu6050):
        def _get(self, register: int) -> int:
            return super()._get(register) | (0x80 if register == 0x6B else 0)

    with install_fake_smbus2({7: {0x68: Hung(clock=clock)}}):
        begin = clock.now
        with pytest.raises(HardwareError, match="the reset does not end"):
            Bench(chip, clock).driver.open()
    assert 1.0 < clock.now - begin < 1.5


def test_a_chip_that_was_reset_in_mid_run_is_set_up_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.driver.open()
    bench.gather(1.0)
    bench.chip.reset()
    after = bench.gather(2.0)
    assert "lost its settings" in caplog.text
    assert list(bench.chip._registers[0x19:0x1D]) == [9, 3, 8, 8]
    assert 130 < len(after) < 170  # a batch is dropped, setting up takes 0.2 s
    assert after.values[:, 2] == pytest.approx(np.full(len(after), 9.80665), abs=LSB_G)  # not in the range of 2 g
    assert np.diff(after.times).max() < 0.012


def test_a_chip_that_keeps_no_settings_fails_instead_of_being_set_up_for_ever(clock: Time) -> None:
    class Forgetful(FakeMpu6050):
        def _set(self, register: int, value: int) -> None:
            if register != 0x1B:
                super()._set(register, value)

    chip = Forgetful(clock=clock)
    with install_fake_smbus2({7: {0x68: chip}}):
        bench = Bench(chip, clock)
        bench.driver.open()
        with pytest.raises(HardwareError, match="does not keep its settings"):
            bench.gather(5.0)


def test_a_chip_that_answers_but_measures_nothing_fails_after_a_second(bench: Bench) -> None:
    bench.driver.open()
    bench.gather(1.0)
    bench.chip.write(bytes([0x6B, 0x40]))  # asleep, with all its settings
    begin = bench.clock.now
    with pytest.raises(HardwareError, match="answers but measures nothing") as caught:
        bench.gather(5.0)
    assert caught.value.error_id == "sensor-failed"
    assert 0.9 < bench.clock.now - begin < 1.5


def test_a_saturated_and_a_stuck_chip_show_it_in_the_values(bench: Bench) -> None:
    bench.driver.open()
    bench.chip.saturate()
    bench.gather(0.5)
    assert (bench.gather(0.5).values[:, :3] == 32767 * LSB_G).all()
    bench.chip.saturate(False)
    bench.chip.signal = lambda channel, t: t % 1.0
    bench.gather(0.5)
    bench.chip.stuck()
    bench.gather(0.5)
    values = bench.gather(0.5).values
    assert len(values) > 40
    assert (values == values[0]).all()


def test_smbus2_that_is_not_installed_names_the_extra(
    chip: FakeMpu6050, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smbus2", None)
    with pytest.raises(ConfigError) as caught:
        Bench(chip, clock).driver.open()
    assert caught.value.error_id == "package-missing"
    assert caught.value.hint == "pip install 'blossom-edge[i2c]'"


def test_a_bus_that_is_not_there_says_how_to_switch_it_on(chip: FakeMpu6050, clock: Time) -> None:
    expected = "/dev/i2c-7: No such file or directory"
    with install_fake_smbus2({1: {0x68: chip}}), pytest.raises(HardwareError, match=expected) as caught:
        Bench(chip, clock).driver.open()
    assert "switch I2C on" in caught.value.hint


def test_the_real_smbus2_meets_a_file_that_is_no_bus(tmp_path: Path) -> None:
    pytest.importorskip("smbus2")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "i2c-7").touch()
    driver = Mpu6050Driver(Request("imu", ACCEL, 50.0, options={"bus": 7}, host=Host(tmp_path)))
    with pytest.raises(HardwareError, match="Inappropriate ioctl") as caught:
        driver.open()
    assert caught.value.error_id == "sensor-missing"
    [found] = Mpu6050Driver.find(Host(tmp_path))
    assert "i2c-7: Inappropriate ioctl" in found.what
    assert found.channels == ()


@pytest.mark.parametrize(
    ("options", "found"),
    [({"address": 0x50}, "address"), ({"dlpf": 7}, "dlpf"), ({"bus": -1}, "bus"), ({"speed": 1}, "speed")],
)
def test_wrong_options_are_refused_before_anything_is_opened(options: dict[str, int], found: str) -> None:
    with pytest.raises(ConfigError, match=f"sensor imu: {found}: "):
        Mpu6050Driver(Request("imu", ACCEL, 50.0, options=options))


def test_unplugged_in_mid_read_and_plugged_in_again() -> None:
    """Through the thread of the device, in real time."""
    chip = FakeMpu6050()
    settings = ProfileSensor.model_validate(
        {
            "channels": [channel.model_dump() for channel in (*ACCEL, *GYRO)],
            "sources": [{"driver": "mpu6050", "rate_hz": 200.0, "bus": 7, "address": 0x68}],
        }
    )
    names = [channel.name for channel in (*ACCEL, *GYRO)]
    sensor = LiveSensor("imu", settings, needed=names, host=Host())
    with install_fake_smbus2({7: {0x68: chip}}):
        sensor.open()
        try:
            first = until(lambda: sensor.read(0.0), "the first samples", ())
            assert first[0].values[0] == pytest.approx([0, 0, 9.80665, 0, 0, 0], abs=LSB_G)
            chip.unplug()
            with pytest.raises(HardwareError, match="nothing answers") as caught:
                until(lambda: bool(sensor.read(0.0)) and False, "the failure", ())
            assert caught.value.error_id == "sensor-failed"
            with pytest.raises(HardwareError, match="no source answered"):
                sensor.open()
            chip.replug()
            sensor.open()
            again = until(lambda: sensor.read(0.0), "samples after it is back", ())
            assert again[0].values[0] == pytest.approx([0, 0, 9.80665, 0, 0, 0], abs=LSB_G)
            assert again[0].times[0] > first[-1].times[-1]
        finally:
            sensor.close()


def test_find_proposes_a_source_for_each_chip_and_writes_to_none(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for number in (10, 7, 1):
        (tmp_path / "dev" / f"i2c-{number}").touch()
    here, relative, other = FakeMpu6050(), FakeMpu6050(who_am_i=0x71), FakeMpu6050(who_am_i=0x12)
    before = [bytes(chip._registers) for chip in (here, relative, other)]
    with install_fake_smbus2({7: {0x68: here, 0x69: relative}, 1: {0x68: other}}):
        found = list(Mpu6050Driver.find(Host(tmp_path)))
    assert [(f.what, dict(f.options)) for f in found[:2]] == [
        ("MPU-6050 on I2C bus 7, address 0x68", {"bus": 7, "address": 0x68}),
        ("MPU-9250 on I2C bus 7, address 0x69", {"bus": 7, "address": 0x69}),
    ]
    assert [name for name, _unit, _low, _high in found[0].channels] == ["ax", "ay", "az", "gx", "gy", "gz"]
    assert "I2C bus 10: " in found[2].what  # the bus that cannot be opened says why
    assert [bytes(chip._registers) for chip in (here, relative, other)] == before
    for proposal in found[:2]:  # what is proposed is accepted
        channels = tuple(ProfileChannel(name=n, unit=u, range=(a, b)) for n, u, a, b in proposal.channels)
        Mpu6050Driver(Request("imu", channels, proposal.rate_hz, options=proposal.options))


def test_find_without_a_bus_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smbus2", None)
    assert list(Mpu6050Driver.find(Host(tmp_path))) == []


def test_the_jetson_profile_falls_back_to_i2c_where_the_kernel_has_no_driver(tmp_path: Path) -> None:
    chip = FakeMpu6050()
    with install_fake_smbus2({7: {0x68: chip}}):
        sensors = open_sensors(
            load_profile("jetson-imu"), federation=load_federation("har"), host=Host(tmp_path), seed=0
        )
        try:
            imu = sensors["imu"]
            assert isinstance(imu, LiveSensor)
            assert imu.source is not None
            assert imu.source.driver == "mpu6050"
            assert [why.partition(":")[0] for why in imu.tried] == ["iio"]
            readings = until(lambda: imu.read(0.0), "samples", ())
            assert imu.rate_hz == 50.0
            assert readings[0].values[0] == pytest.approx([0, 0, 9.80665, 0, 0, 0], abs=LSB_G)
        finally:
            close_sensors(sensors)
