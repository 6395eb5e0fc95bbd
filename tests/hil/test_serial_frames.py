"""Lines from a microcontroller: what is read, what is damaged; and its counter on our clock. Numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blossom_edge.sensors.drivers.device_time import BITS_32, COUNTED_DRIFT, DeviceTime
from blossom_edge.sensors.drivers.serial_frames import DamagedLine, Line, LineCutter, LineFormat, checksum

PLAIN = LineFormat(2)
FULL = LineFormat(2, counter=True, label=True, checksum=True)


def test_the_checksum_is_that_of_nmea_0183() -> None:
    # what a receiver sends: $GPGLL,5300.97914,N,00259.98174,E,125926,A*28
    assert checksum(b"GPGLL,5300.97914,N,00259.98174,E,125926,A") == 0x28


@pytest.mark.parametrize(
    ("form", "text", "line"),
    [
        (PLAIN, b"1,-2.5\r", Line(None, (1.0, -2.5))),
        (PLAIN, b" 1e3 , +4 ", Line(None, (1000.0, 4.0))),
        (LineFormat(1, counter=True), b"4294967295,0", Line(4294967295, (0.0,))),
        (LineFormat(1, label=True), b"3,walk", Line(None, (3.0,), "walk")),
        (LineFormat(1, label=True), b"3,", Line(None, (3.0,), "")),
        (LineFormat(1), b"7*37", Line(None, (7.0,))),  # a checksum that is there is looked at: 0x37 is "7"
        (FULL, b"12,1,2,run*45", Line(12, (1.0, 2.0), "run")),
        (PLAIN, b"", None),
        (PLAIN, b"\r", None),
        (PLAIN, b"# t,ax,ay", None),
    ],
)
def test_a_line_is_read(form: LineFormat, text: bytes, line: Line | None) -> None:
    assert form.read(text) == line


@pytest.mark.parametrize(
    ("form", "text", "why"),
    [
        (PLAIN, b"1", "found 1 fields, expected 2"),
        (PLAIN, b"1,2,3", "found 3 fields, expected 2"),
        (PLAIN, b"1,x", "found 'x', expected a number"),
        (PLAIN, b"1,1_0", "found '1_0', expected a number"),
        (PLAIN, b"1,\xff", "no text"),
        (LineFormat(1, counter=True), b"-1,0", "counts"),
        (LineFormat(1, counter=True), b"1.5,0", "counts"),
        (LineFormat(1, checksum=True), b"7", "no checksum"),
        (LineFormat(1), b"7*38", "expected 37"),
        (LineFormat(1), b"8*37", "expected 38"),
    ],
)
def test_a_damaged_line_says_what_is_wrong(form: LineFormat, text: bytes, why: str) -> None:
    with pytest.raises(DamagedLine, match=why):
        form.read(text)


def test_not_a_number_is_a_value() -> None:
    line = LineFormat(1).read(b"nan")
    assert line is not None
    assert math.isnan(line.values[0])


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_how_the_bytes_come(step: int) -> None:
    stream = b"lf of a line\n1,2\r\n3,4\n\n5,6\nhal"
    cutter = LineCutter(100)
    found = [line for i in range(0, len(stream), step) for line in cutter.feed(stream[i : i + step])]
    assert found == [b"1,2\r", b"3,4", b"", b"5,6"]


def test_bytes_without_an_end_of_line_are_thrown_away_and_the_next_line_is_read() -> None:
    cutter = LineCutter(10)
    assert list(cutter.feed(b"\n" + b"x" * 1000)) == []
    assert list(cutter.feed(b"y" * 1000)) == []
    assert list(cutter.feed(b"z\nfine\n")) == [b"fine"]
    assert cutter.num_too_long == 1
    assert list(cutter.feed(b"12345678901\n")) == []
    assert cutter.num_too_long == 2


def test_late_arrivals_do_not_move_the_times() -> None:
    clock = DeviceTime(1e-3, drift=0.0)
    # taken at 0, 10, 20, 30 ms of the device; they come 2, 0, 7, 0 ms late; the device began at our 100 s
    assert clock.times([0], 100.002)[0] == pytest.approx([100.002])
    assert clock.times([10], 100.010)[0] == pytest.approx([100.010])  # now the distance is known
    assert clock.times([20], 100.027)[0] == pytest.approx([100.020])
    assert clock.times([30], 100.030)[0] == pytest.approx([100.030])


def test_samples_read_together_stand_apart_by_the_devices_clock() -> None:
    times, rises = DeviceTime(1e-6).times([0, 2500, 5000], 50.0)
    assert times == pytest.approx([49.995, 49.9975, 50.0])
    assert rises.all()


def test_what_would_not_rise_is_marked() -> None:
    clock = DeviceTime(1e-3, drift=0.0)
    clock.times([0], 100.025)  # 25 ms late
    times, rises = clock.times([10, 20, 30], 100.030)
    assert times == pytest.approx([100.010, 100.020, 100.030])
    assert rises.tolist() == [False, False, True]


@pytest.mark.parametrize(("tick_s", "late"), [(1e-3, 4), (1e-6, 4000)])
def test_a_counter_of_32_bits_goes_on_after_its_last_number(tick_s: float, late: int) -> None:
    clock = DeviceTime(tick_s)
    last = BITS_32 - late  # 4 ms before the end
    step = round(0.01 / tick_s)
    found = [clock.times([(last + i * step) % BITS_32], 10.0 + i * 0.01)[0][0] for i in range(4)]
    assert found == pytest.approx([10.0, 10.01, 10.02, 10.03])
    assert clock.num_restarts == 0


def test_a_device_that_started_anew_is_put_beside_our_clock_anew() -> None:
    clock = DeviceTime(1e-3, drift=0.0)
    clock.times([60_000, 60_010], 10.0)
    times, rises = clock.times([5, 15], 13.0)
    assert times == pytest.approx([12.99, 13.0])
    assert rises.all()
    assert clock.num_restarts == 1
    times, _ = clock.times([25, 0, 10], 13.03)  # and in the middle of what is read together
    assert times == pytest.approx([13.01, 13.02, 13.03])


@pytest.mark.parametrize("ppm", [-5000, -50, 50, 5000])
def test_a_clock_that_drifts_stays_within_milliseconds_for_hours(ppm: int) -> None:
    clock = DeviceTime(1e-3)
    noise = np.random.default_rng(3)
    worst = 0.0
    for second in range(2 * 3600):
        true = 1000.0 + second
        late = float(noise.uniform(0, 0.004))
        found = clock.times([round(second * 1e3 * (1 + ppm * 1e-6))], true + late)[0][0]
        worst = max(worst, abs(found - true))
    assert worst < 0.006  # 4 ms lateness, 0.5 ms rounding and what rises in a second


def test_a_clock_that_stands_lags_by_a_second_at_most_and_a_jump_ahead_never_passes_our_time() -> None:
    clock = DeviceTime(1e-3, max_lag_s=1.0)
    for second in range(10):
        assert clock.times([500], 100.0 + second)[0][0] >= 100.0 + second - 1.0 - 1e-9
    assert clock.times([10_000_000], 110.0)[0] == pytest.approx([110.0])


def test_a_count_at_half_the_declared_rate_follows_the_arrivals_without_jumps() -> None:
    clock = DeviceTime(0.01, drift=COUNTED_DRIFT, max_lag_s=0.1)
    found = np.array([clock.times([n], 10 + 0.02 * n)[0][0] for n in range(300)])
    assert np.diff(found)[50:] == pytest.approx(0.02)
    assert (np.diff(found) > 0.009).all()
