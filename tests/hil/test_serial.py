"""The serial driver with the real pyserial on a pseudo terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import until

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import Host, Request, Samples
from blossom_edge.sensors.drivers import serial as driver_module
from blossom_edge.sensors.drivers.serial import SerialDriver
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.fake_serial import FakeSerial
from firmware_profiles.schema import ProfileChannel, ProfileSensor, Source

pytest.importorskip("serial")

PORT = "/dev/ttyACM0"
XYZ = ("ax", "ay", "az")
G = 9.80665


def signal(channel: str, seconds: float) -> float:
    return {"ax": 0.25, "ay": round(seconds, 3), "az": 1.0}[channel]


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Any]:
    made: list[FakeSerial] = []

    def make(rate_hz: float = 200.0, **options: Any) -> FakeSerial:
        made.append(FakeSerial(signal, rate_hz, path=tmp_path / PORT.lstrip("/"), channels=XYZ, **options))
        return made[-1]

    yield make
    for board in made:
        board.close()


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Any]:
    made: list[SerialDriver] = []

    def make(*, channels: tuple[str, ...] = XYZ, rate_hz: float = 200.0, **options: Any) -> SerialDriver:
        made.append(SerialDriver(request(tmp_path, channels=channels, rate_hz=rate_hz, port=PORT, **options)))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def request(root: Path, *, channels: tuple[str, ...] = XYZ, rate_hz: float = 200.0, **options: Any) -> Request:
    columns = tuple(ProfileChannel(name=name, unit="m/s2", range=(-20.0, 20.0)) for name in channels)
    return Request("imu", columns, rate_hz, options=options, host=Host(root))


def take(driver: SerialDriver, num_samples: int) -> Samples:
    parts: list[Samples] = []
    end = time.monotonic() + 10
    while sum(map(len, parts)) < num_samples:
        assert time.monotonic() < end, f"{sum(map(len, parts))} samples of {num_samples} came"
        parts.append(driver.read(0.2))
    labels = {task: np.concatenate([p.labels[task] for p in parts if len(p)]) for task in parts[0].labels}
    times, values = np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts])
    return Samples(times, values, labels)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("counter", ["ms", "us", "sequence", "none"])
def test_values_and_times_come_as_the_board_took_them(boards: Any, drivers: Any, counter: str, checksum: bool) -> None:
    boards(time=counter, checksum=checksum)
    driver = drivers(time=counter, checksum=checksum)
    driver.open()
    take(driver, 50)
    found = take(driver, 100)
    assert found.values[:, 0] == pytest.approx(0.25)
    assert found.values[:, 2] == pytest.approx(1.0)
    assert (np.diff(found.times) > 0).all()
    # ay is the board's own clock: ours runs beside it, one period apart each
    apart = found.times - found.values[:, 1]
    spread = 0.005 if counter in ("ms", "us") else 0.06
    assert np.ptp(apart) < spread
    assert abs(found.times[-1] - time.monotonic()) < 0.5
    assert driver.num_damaged == 0


def test_columns_are_picked_by_name_and_their_units_told(boards: Any, drivers: Any) -> None:
    boards(time="ms")
    driver = drivers(channels=("az", "ax"), time="ms", columns=["ax", "ay", "az"], units=["m/s2", "count", "g"])
    assert driver.units == ("g", "m/s2")
    driver.open()
    assert take(driver, 5).values[0] == pytest.approx([1.0, 0.25])


def test_labels_come_with_their_samples(boards: Any, drivers: Any) -> None:
    # a change in mid-millisecond: `ay` is rounded, the time that the label is made from is not
    boards(label=lambda seconds: "" if seconds < 0.2005 else "walk" if seconds < 0.5005 else "run")
    driver = drivers(label="har")
    driver.open()
    found = take(driver, 120)
    expected = ["nan" if s < 0.2005 else "walk" if s < 0.5005 else "run" for s in found.values[:, 1]]
    assert found.labels["har"].tolist() == expected
    assert {"walk", "run"} <= set(expected)


def test_damaged_lines_are_counted_and_never_become_values(boards: Any, drivers: Any) -> None:
    board = boards(time="ms", checksum=True)
    driver = drivers(time="ms", checksum=True)
    driver.open()
    board.garble(0.3)
    found = take(driver, 150)
    assert 20 < driver.num_damaged < 150
    assert set(found.values[:, 0]) == {0.25}
    assert set(found.values[:, 2]) == {1.0}


def test_a_counter_that_begins_again_at_0_after_32_bits_makes_no_jump(boards: Any, drivers: Any) -> None:
    boards(time="us", ticks_at_start=2**32 - 300_000)  # 0.3 s before
    driver = drivers(time="us")
    driver.open()
    found = take(driver, 120)
    assert found.values[0, 1] < 0.3 < found.values[-1, 1]
    assert np.ptp(found.times - found.values[:, 1]) < 0.05


def test_a_board_that_starts_anew_goes_on_with_rising_times(boards: Any, drivers: Any) -> None:
    board = boards(time="ms")
    driver = drivers(time="ms")
    driver.open()
    before = take(driver, 20)
    board.reset()
    after = take(driver, 60)
    assert (np.diff(np.concatenate([before.times, after.times])) > 0).all()
    assert after.times[-1] == pytest.approx(time.monotonic(), abs=0.3)
    assert driver.num_damaged >= 1  # the half line and the banner


@pytest.mark.parametrize("fault", ["stuck", "saturate", "nan"])
def test_faults_of_the_fake_are_seen_and_end(boards: Any, drivers: Any, fault: str) -> None:
    board = boards(limits=(-16.0, 16.0))
    driver = drivers()
    driver.open()
    getattr(board, fault)()
    take(driver, 40)
    values = take(driver, 20).values
    if fault == "stuck":
        assert len(np.unique(values[:, 1])) == 1
    elif fault == "saturate":
        assert (values == 16.0).all()
    else:
        assert np.isnan(values).all()
    board.clear()
    take(driver, 40)
    assert (np.diff(take(driver, 20).values[:, 1]) > 0).all()


def test_half_the_rate_shows_in_the_times(boards: Any, drivers: Any) -> None:
    board = boards(time="ms")
    driver = drivers(time="ms")
    driver.open()
    board.rate(0.5)
    take(driver, 20)
    assert np.median(np.diff(take(driver, 40).times)) == pytest.approx(0.010, abs=0.001)


def test_jitter_on_the_way_does_not_show_in_the_times(boards: Any, drivers: Any) -> None:
    board = boards(time="us")
    driver = drivers(time="us")
    driver.open()
    board.jitter(0.01)
    take(driver, 30)
    found = take(driver, 80)
    shifts = np.abs(np.diff(found.times - found.values[:, 1]))
    assert np.quantile(shifts, 0.9) < 0.002  # the lines came up to 10 ms late; seldom one corrects the distance


def test_unplugged_in_mid_read_it_fails_and_plugged_in_again_it_opens(boards: Any, drivers: Any) -> None:
    board = boards(time="ms")
    driver = drivers(time="ms")
    driver.open()
    take(driver, 10)
    board.unplug()
    with pytest.raises(HardwareError, match="ttyACM0") as caught:
        take(driver, 1000)
    assert caught.value.error_id == "sensor-failed"
    driver.close()
    with pytest.raises(HardwareError, match="there is no /dev/ttyACM0"):
        driver.open()
    board.replug()
    driver.open()
    assert take(driver, 10).values[:, 2] == pytest.approx(1.0)


def test_a_live_sensor_converts_and_comes_back_after_a_replug(boards: Any, tmp_path: Path) -> None:
    board = boards(time="ms")
    settings = ProfileSensor(
        channels=tuple(ProfileChannel(name=name, unit="m/s2", range=(-20.0, 20.0)) for name in XYZ),
        sources=(Source(driver="serial", rate_hz=200.0, port=PORT, time="ms", units="g"),),
    )
    sensor = LiveSensor("imu", settings, needed=XYZ, host=Host(tmp_path))

    def read() -> list[Reading]:
        return list(sensor.read(time.monotonic()))

    def is_lost() -> bool:
        try:
            read()
        except HardwareError:
            return True
        return False

    sensor.open()
    try:
        first = until(read, "a reading", [])
        assert first[0].values[0, 2] == pytest.approx(G)
        board.unplug()
        until(is_lost, "the sensor to fail", [], timeout_s=5)
        board.replug()
        sensor.open()
        assert until(read, "a reading after the replug", [])[0].values[0, 0] == pytest.approx(0.25 * G)
    finally:
        sensor.close()


def test_a_port_that_sends_something_else_is_no_source_and_the_last_line_is_shown(boards: Any, drivers: Any) -> None:
    boards()
    with pytest.raises(HardwareError, match=r"none as declared.*found 3 fields, expected 2") as caught:
        drivers(channels=("ax", "ay"), start_s=0.3).open()
    assert caught.value.error_id == "sensor-missing"
    assert "baud" in caught.value.hint


def test_a_silent_port_is_no_source(boards: Any, drivers: Any) -> None:
    boards().rate(0)
    with pytest.raises(HardwareError, match=r"nothing came for 0\.3 s"):
        drivers(start_s=0.3).open()


def test_a_port_that_falls_silent_fails(boards: Any, drivers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "SILENT_S", 0.2)
    board = boards()
    driver = drivers(start_s=0.1)
    driver.open()
    board.rate(0)
    with pytest.raises(HardwareError, match=r"nothing came for 0\.2 s") as caught:
        take(driver, 1000)
    assert caught.value.error_id == "sensor-failed"


def test_a_port_is_read_by_one_program_only(boards: Any, drivers: Any) -> None:
    boards()
    drivers().open()
    with pytest.raises(HardwareError, match="another program has /dev/ttyACM0"):
        drivers().open()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"port": "ttyACM0"}, "port"),
        ({"baud": 3}, "baud"),
        ({"tiem": "ms"}, "tiem"),
        ({"columns": ["ax", "ay"]}, "az among them"),
        ({"columns": ["ax", "ay", "az", "az"]}, "each once"),
        ({"units": ["g"]}, "found 1, expected 3"),
        ({"units": "furlong"}, "units: found 'furlong' for ax, expected m/s2 or one of g, mg"),
        ({"port": "ttyACM0"}, "port: found 'ttyACM0', expected a path that starts with /"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_opened(tmp_path: Path, options: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        SerialDriver(request(tmp_path, **{"port": PORT, **options}))
    assert caught.value.error_id == "profile-invalid"


def test_usb_ports_are_found_with_their_stable_names_and_what_is_behind_them(tmp_path: Path) -> None:
    for name in ("ttyACM0", "ttyUSB1", "tty7"):
        node = tmp_path / "dev" / name
        node.parent.mkdir(exist_ok=True)
        node.touch()
    by_id = tmp_path / "dev/serial/by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-Arduino_Uno_7543-if00").symlink_to("../../ttyACM0")
    usb = tmp_path / "sys/devices/usb1/1-2"
    (usb / "1-2:1.0").mkdir(parents=True)
    for file, text in {"idVendor": "2341", "idProduct": "0043", "manufacturer": "Arduino", "product": "Uno"}.items():
        (usb / file).write_text(text + "\n")
    tty = tmp_path / "sys/class/tty/ttyACM0"
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(usb / "1-2:1.0")

    acm, usb_tty = SerialDriver.find(Host(tmp_path))
    assert acm.what == "serial port /dev/ttyACM0 (Arduino Uno, USB 2341:0043)"
    assert acm.options == {"port": "/dev/serial/by-id/usb-Arduino_Uno_7543-if00", "baud": 115200}
    assert usb_tty.what == "serial port /dev/ttyUSB1"
    assert usb_tty.options["port"] == "/dev/ttyUSB1"


def test_without_pyserial_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(ConfigError) as caught:
        SerialDriver(request(tmp_path, port=PORT)).open()
    assert caught.value.error_id == "package-missing"
    assert caught.value.hint == "pip install 'blossom-edge[serial]'"
