"""A driver in its thread, as the device's loop sees it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError, StorageError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.calibration import Calibration, keep_calibration, read_calibrations
from blossom_edge.sensors.driver import Found, Host, Options, PolledDriver, Request, Samples, driver_class, gain_of
from blossom_edge.sensors.finding import find_sensors
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.sensors.units import conversion
from firmware_profiles.schema import ProfileSensor, Source
from tests.live import until

HERE = __name__


class Ramp(PolledDriver):
    """Counts; in g and degrees per second, though the profile wants SI."""

    class Options(Options):
        fail_after: int = 10**9
        missing: bool = False

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.units = tuple({"m/s2": "g", "rad/s": "deg/s"}.get(c.unit, c.unit) for c in request.channels)
        self._count = 0

    def open(self) -> None:
        super().open()
        if self.options.missing:
            raise HardwareError("sensor-missing", "nothing at this address")

    def sample(self) -> Sequence[float]:
        self._count += 1
        if self._count > self.options.fail_after:
            raise OSError(121, "Remote I/O error")
        return [float(self._count)] * self.request.width


class Hanging(Ramp):
    """A read that does not come back before it is let; all of them in one list."""

    made: ClassVar[list[Hanging]] = []

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.reads, self.let, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.made.append(self)

    def sample(self) -> Sequence[float]:
        self.reads.set()
        assert self.let.wait(20)
        return super().sample()

    def close(self) -> None:
        self.closed.set()


class Foreign(Ramp):
    """What people who do not know our errors write."""

    class Options(Ramp.Options):
        fault: str = ""

    def open(self) -> None:
        super().open()
        if self.options.fault == "open":
            raise ValueError("no such register")

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        raise ValueError("where is the hardware?")

    def read(self, timeout_s: float) -> Samples:
        self._pause(0.001)
        return Samples(np.array([self.request.host.clock()]), np.ones((1, 3)))


def settings(*sources: dict[str, object]) -> ProfileSensor:
    channels = [{"name": n, "unit": "m/s2", "range": [-40.0, 40.0]} for n in ("ax", "ay", "az")]
    channels += [{"name": "gx", "unit": "rad/s", "range": [-9.0, 9.0]}]
    return ProfileSensor.model_validate({"channels": channels, "sources": list(sources)})


def source(**options: object) -> dict[str, object]:
    return {"driver": f"{HERE}:Ramp", "rate_hz": 200.0, **options}


def live(*sources: dict[str, object], calibration: Calibration | None = None) -> LiveSensor:
    return LiveSensor("imu", settings(*sources), needed=("ax", "ay", "az", "gx"), host=Host(), calibration=calibration)


def gather(sensor: LiveSensor, count: int) -> Reading:
    parts: list[Reading] = []
    until(lambda: bool(parts.extend(sensor.read(0.0)) or sum(map(len, parts)) >= count), "samples", ())
    return Reading(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


def test_values_come_in_the_units_of_the_profile_at_rising_times() -> None:
    sensor = live(source())
    sensor.open()
    try:
        reading = gather(sensor, 20)
    finally:
        sensor.close()
    assert reading.values[0] == pytest.approx([9.80665, 9.80665, 9.80665, np.pi / 180])
    assert reading.values[2] == pytest.approx([3 * 9.80665] * 3 + [3 * np.pi / 180])
    steps = np.diff(reading.times)
    assert (steps > 0).all()
    assert np.median(steps) == pytest.approx(0.005, rel=0.2)


def test_a_gain_divides_what_the_driver_delivers() -> None:
    sensor = live(source(gain=100.0))
    sensor.open()
    try:
        assert gather(sensor, 1).values[0, 0] == pytest.approx(0.0980665)
    finally:
        sensor.close()


def test_sources_are_tried_in_order_and_those_that_did_not_answer_say_why() -> None:
    sensor = live(source(missing=True), {"driver": "nosuch", "rate_hz": 50.0}, source())
    sensor.open()
    try:
        assert sensor.source is not None
        assert sensor.source.driver == f"{HERE}:Ramp"
        assert sensor.rate_hz == 200.0
        assert sensor.tried[0] == f"{HERE}:Ramp: nothing at this address"
        assert sensor.tried[1].startswith("nosuch: there is no such driver")
    finally:
        sensor.close()


def test_sources_that_are_all_wrong_are_an_error_of_the_profile_with_their_keys() -> None:
    sensor = live(source(fail_afte=3), source(fail_after="many"))
    with pytest.raises(ConfigError) as caught:
        sensor.open()
    assert caught.value.error_id == "profile-invalid"
    ramp = f"{HERE}:Ramp"
    assert str(caught.value) == (
        f"sensor imu: {ramp}: fail_afte: unknown key (did you mean 'fail_after'?); "
        f"{ramp}: fail_after: found 'many', expected a whole number"
    )
    assert caught.value.hint == "options of this driver: fail_after, missing"


@pytest.mark.parametrize("gain", [0, "x", True, float("nan")])
def test_a_gain_that_is_no_number_is_an_error_of_the_profile(gain: object) -> None:
    with pytest.raises(ConfigError, match=r"gain: found .*, expected a number other than 0"):
        gain_of(Source.model_validate({"driver": "iio", "rate_hz": 50.0, "gain": gain}))


def test_no_source_that_answers_is_an_error_with_all_of_them_and_stays_when_read() -> None:
    sensor = live(source(missing=True), source(fail_after="many"))
    with pytest.raises(HardwareError) as caught:
        sensor.open()
    assert caught.value.error_id == "sensor-missing"
    assert "nothing at this address" in str(caught.value)
    assert "fail_after: found 'many', expected a whole number" in str(caught.value)
    with pytest.raises(HardwareError, match="nothing at this address"):
        sensor.read(0.0)
    sensor.close()


def test_the_samples_before_a_failure_come_first_and_the_sensor_opens_again() -> None:
    sensor = live(source(fail_after=3))
    sensor.open()
    try:
        assert len(gather(sensor, 3)) == 3
        with pytest.raises(HardwareError) as caught:
            until(lambda: bool(sensor.read(0.0)) and False, "the failure", ())
        assert caught.value.error_id == "sensor-failed"
        assert "Remote I/O error" in str(caught.value)
        sensor.open()
        with pytest.raises(HardwareError):
            until(lambda: bool(sensor.read(0.0)) and False, "the failure again", ())
    finally:
        sensor.close()
        sensor.close()


def test_a_driver_that_hangs_is_closed_by_its_own_thread_and_what_it_read_is_not_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blossom_edge.sensors.live.STOP_S", 0.05)
    monkeypatch.setattr(Hanging, "made", [])
    sensor = live(source(driver=f"{HERE}:Hanging"))
    sensor.open()
    (hanging,) = Hanging.made
    assert hanging.reads.wait(20)
    sensor.close()
    assert not hanging.closed.is_set()
    with pytest.raises(HardwareError, match="does not come back"):
        sensor.open()
    assert len(Hanging.made) == 1
    hanging.let.set()
    assert hanging.closed.wait(20)
    with pytest.raises(HardwareError, match="does not come back"):  # samples, if any, would come before
        sensor.read(0.0)

    def opens() -> bool:
        try:
            sensor.open()
        except HardwareError:
            return False
        return True

    until(opens, "the thread's end", ())
    assert len(Hanging.made) == 2
    Hanging.made[1].let.set()
    sensor.close()


def test_what_drivers_of_other_people_raise_or_deliver_wrongly_is_a_failed_sensor() -> None:
    sensor = live(source(driver=f"{HERE}:Foreign", fault="open"))
    with pytest.raises(HardwareError, match="ValueError: no such register"):
        sensor.open()
    sensor = live(source(driver=f"{HERE}:Foreign"))
    sensor.open()
    try:
        with pytest.raises(HardwareError, match=r"found values of shape \(1, 3\), expected \(1, 4\)"):
            until(lambda: bool(sensor.read(0.0)) and False, "the failure", ())
    finally:
        sensor.close()


def test_samples_that_nobody_asks_for_take_no_more_than_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blossom_edge.sensors.live.KEEP_BYTES", 20 * 4 * 8)  # 20 samples of 4 channels
    monkeypatch.setattr("blossom_edge.sensors.live.READ_S", 0.005)
    sensor = live(source(fail_after=60))
    sensor.open()
    try:
        until(lambda: not any(t.name == "sensor imu" for t in threading.enumerate()), "the end of its thread", ())
        reading = gather(sensor, 1)
    finally:
        sensor.close()
    assert 10 <= len(reading) <= 20
    assert reading.values[-1, 0] == pytest.approx(60 * 9.80665)


def test_a_calibration_takes_the_bias_away_and_turns_the_axes() -> None:
    turned = Calibration(bias={"ax": 9.80665}, mount=((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    sensor = live(source(), calibration=turned)
    sensor.open()
    try:
        first = gather(sensor, 1).values[0]
    finally:
        sensor.close()
    # ax 0 after its bias, ay and az 1 g: x takes y, y takes -x; one channel of rad/s is no vector and stays
    assert first == pytest.approx([9.80665, 0.0, 9.80665, np.pi / 180])


def test_calibrations_of_several_sensors_live_in_one_file(tmp_path: Path) -> None:
    one = Calibration(bias={"gx": 0.01}, made_utc="2026-11-24T12:00:00+00:00")
    keep_calibration(tmp_path, "imu", one)
    keep_calibration(tmp_path, "other", Calibration(mount=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))))
    found = read_calibrations(tmp_path)
    assert found["imu"] == one
    assert found["other"].mount == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert read_calibrations(tmp_path / "none") == {}


def test_a_polled_driver_that_was_late_takes_one_sample_and_leaves_the_missed_ones_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ramp, "_pause", staticmethod(lambda seconds: None))
    clock = iter([0.0, 0.0, 0.0, 0.35, 0.35, 0.35, 0.36])
    driver = Ramp(Request("imu", settings(source()).channels, 10.0, host=Host(clock=lambda: next(clock))))
    driver.open()
    samples = driver.read(0.36)
    assert samples.times.tolist() == [0.0, 0.35]


@pytest.mark.parametrize(
    ("found", "wanted", "value", "expected"),
    [
        ("g", "m/s2", 2.0, 19.6133),
        ("deg/s", "rad/s", 180.0, np.pi),
        ("K", "Cel", 273.15, 0.0),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("uT", "T", 50.0, 5e-5),
        ("V", "V", 3.3, 3.3),
        ("Pa", "hPa", 100.0, 1.0),
    ],
)
def test_units_are_converted(found: str, wanted: str, value: float, expected: float) -> None:
    factor, offset = conversion(found, wanted)
    assert value * factor + offset == pytest.approx(expected, abs=1e-12)


def test_units_of_different_things_are_refused() -> None:
    with pytest.raises(ConfigError, match="found the unit V, expected m/s2"):
        conversion("V", "m/s2")


def test_a_class_that_is_no_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no Driver"):
        driver_class("pathlib:Path")
    with pytest.raises(ConfigError, match="cannot be imported"):
        driver_class("no_such_module_here:Driver")


def test_third_parties_register_a_driver_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "acme-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[blossom_edge.drivers]\nacme-ramp = {HERE}:Ramp\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert driver_class("acme-ramp") is Ramp


def test_a_calibration_that_cannot_be_read_is_named_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match=r"calibration\.json") as caught:
        read_calibrations(tmp_path)
    assert "sensors calibrate" in caught.value.hint


def test_a_driver_of_other_people_that_cannot_look_does_not_keep_the_others_from_looking(tmp_path: Path) -> None:
    search = find_sensors(Host(tmp_path), drivers=[f"{HERE}:Foreign", ":Nothing"])
    assert search.silent[f"{HERE}:Foreign"] == "ValueError: where is the hardware?"
    assert "cannot be imported" in search.silent[":Nothing"]
    assert "iio" not in search.silent
