"""Windows of live and of framed sensors: uneven stamps, low-pass, frames, and clocks that are set back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.windows import LabelKind, Row, Windower, WindowShape

HAR = {"har": LabelKind("classification", ("sit", "walk"))}
RATE_HZ = 10.0


def live(sensor_rate_hz: float = RATE_HZ, *, sensor: str = "imu") -> WindowShape:
    return WindowShape(sensor, (0,), RATE_HZ, 10, 5, (0.0,), (1.0,), sensor_rate_hz, live=True)


def frames(*, rate_hz: float = 5.0, is_live: bool = False, points: int = 4) -> WindowShape:
    """Two channels, windows of 5 frames at 5 Hz."""
    return WindowShape("camera", (), 5.0, 5, 5, (1.0, 10.0), (2.0, 5.0), rate_hz, points=points, live=is_live)


def at(times: NDArray[np.float64]) -> Reading:
    """A signal that is its own time, in tenths of a second."""
    return Reading(times, 10 * times[:, None], {"har": np.full(len(times), "walk")})


def jittered(count: int, rate_hz: float = RATE_HZ, *, by: float = 0.3) -> NDArray[np.float64]:
    """Stamps that are off by up to a part `by` of a period."""
    shift = np.random.default_rng(0).uniform(-by, by, count)
    shift[0] = 0
    return (np.arange(count) + shift) / rate_hz


def cut(windower: Windower, *readings: tuple[str, Reading], finish: bool = True) -> list[Row]:
    for sensor, reading in readings:
        windower.push(sensor, reading)
    return windower.rows(finish=finish)


def test_jitter_is_no_gap_and_values_stand_on_the_federations_grid() -> None:
    windower = Windower({"accel": live()}, HAR)
    rows = cut(windower, ("imu", at(jittered(60))))
    assert len(rows) == 10
    for n, row in enumerate(rows):
        np.testing.assert_allclose(row.inputs["accel"][:, 0], 5 * n + np.arange(10), atol=1e-5)
        assert row.labels["har"] == 1
    assert windower.counts["accel"] == {"made": 10}


def test_two_lost_samples_are_bridged_and_four_are_a_gap() -> None:
    for lost, made in ((2, 11), (4, 9)):
        times = np.arange(60) / RATE_HZ
        windower = Windower({"accel": live()}, HAR)
        rows = cut(windower, ("imu", at(np.delete(times, np.arange(21, 21 + lost)))))
        assert len(rows) == made  # each sample lies in two windows
    assert windower.counts["accel"] == {"made": 9, "gap": 2}


def test_a_gap_of_samples_that_were_no_numbers_is_counted_as_such() -> None:
    times = np.arange(60) / RATE_HZ
    windower = Windower({"accel": live()}, HAR)
    windower.push("imu", at(np.delete(times, np.arange(21, 25))), holes=times[21:25])
    windower.rows(finish=True)
    assert windower.counts["accel"] == {"made": 9, "nan": 2}


def test_a_faster_sensor_loses_what_the_federations_rate_cannot_hold() -> None:
    times = jittered(900, 45.0, by=0.05)
    high = np.sin(2 * np.pi * 12.0 * times)  # would come back as 2 Hz
    rows = cut(Windower({"accel": live(45.0)}, HAR), ("imu", Reading(times, (3.0 + high)[:, None])))
    assert len(rows) >= 37
    for row in rows[4:-4]:  # away from the ends
        np.testing.assert_allclose(row.inputs["accel"], 3.0, atol=0.03)  # uneven stamps cost some of the 60 dB


def test_a_gap_beside_a_window_does_not_take_it() -> None:
    times = np.arange(900) / 45.0
    times[450:] += 5.0  # from 10 to 15 s nothing comes
    windower = Windower({"accel": live(45.0)}, HAR)
    rows = cut(windower, ("imu", Reading(times, 10 * times[:, None])))
    before, after = [r for r in rows if r.start_s < 10], [r for r in rows if r.start_s > 10]
    assert before[-1].start_s == pytest.approx(9.0)
    assert after[0].start_s == pytest.approx(15.0)
    for row in (before[-1], after[0]):
        wanted = 10 * (row.start_s + np.arange(10) / RATE_HZ)
        np.testing.assert_allclose(row.inputs["accel"][:, 0], wanted, atol=0.05)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.sampled_from([10.0, 45.0, 6.0]), st.booleans())
def test_rows_do_not_depend_on_how_live_samples_come_in(sizes: list[int], rate_hz: float, lossy: bool) -> None:
    times = jittered(sum(sizes), rate_hz)
    kept = np.random.default_rng(3).random(len(times)) > (0.1 if lossy else 0.0)
    values = np.random.default_rng(4).standard_normal((len(times), 1))
    whole = cut(Windower({"accel": live(rate_hz)}, HAR), ("imu", Reading(times[kept], values[kept])))
    parts: list[Row] = []
    slow, first = Windower({"accel": live(rate_hz)}, HAR), 0
    for size in sizes:
        chosen = np.flatnonzero(kept[first : first + size]) + first
        parts += cut(slow, ("imu", Reading(times[chosen], values[chosen])), finish=False)
        first += size
    parts += slow.rows(finish=True)
    assert [row.start_s for row in parts] == [row.start_s for row in whole]
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(one.inputs["accel"], other.inputs["accel"])


def test_labels_that_begin_later_are_taken_from_then_on() -> None:
    windower = Windower({"accel": live()}, HAR)
    times = np.arange(60) / RATE_HZ
    windower.push("imu", Reading(times[:20], times[:20, None]))
    windower.push("imu", at(times[20:]))
    assert [row.labels["har"] for row in windower.rows(finish=True)] == [-1] * 4 + [1] * 7


def frame_values(count: int, points: int = 4) -> NDArray[np.float64]:
    """Frame n is n everywhere in the first channel and 10 n in the second, the channel running fastest."""
    values: NDArray[np.float64] = np.arange(count)[:, None] * np.tile([1.0, 10.0], points)
    return values


def test_frames_are_standardised_per_channel_with_the_channel_running_fastest() -> None:
    (row,) = cut(Windower({"video": frames()}, HAR), ("camera", Reading(np.arange(5) / 5, frame_values(5))))
    window = row.inputs["video"]
    assert window.shape == (5, 8)
    assert window.dtype == np.float32
    assert window[3].tolist() == [1.0, 4.0] * 4  # (3 - 1) / 2 and (30 - 10) / 5


@pytest.mark.parametrize("rate_hz", [30.0, 7.5])
def test_of_another_rate_the_nearest_frames_are_taken_and_never_mixed(rate_hz: float) -> None:
    shape = frames(rate_hz=rate_hz, is_live=True)
    times = jittered(int(3 * rate_hz), rate_hz)
    rows = cut(Windower({"video": shape}, HAR), ("camera", Reading(times, frame_values(len(times)))))
    assert len(rows) >= 2
    for row in rows:
        wanted = row.start_s + np.arange(5) / 5
        index = row.inputs["video"][:, 0] * 2 + 1
        assert index.tolist() == [int(np.abs(times - t).argmin()) for t in wanted]


def test_frames_that_are_cut_at_once_are_not_copied_before() -> None:
    values = frame_values(5).astype(np.float32)
    windower = Windower({"video": frames()}, HAR)
    windower.push("camera", Reading(np.arange(5) / 5, values))
    buffer = windower._takes[0].buffers["camera"]
    assert np.shares_memory(buffer.values(slice(0, 5)), values)


def test_frames_that_come_one_by_one_are_put_together_and_let_go() -> None:
    windower = Windower({"video": frames()}, HAR)
    rows: list[Row] = []
    for n in range(23):
        rows += cut(windower, ("camera", Reading(np.array([n / 5]), frame_values(23)[n : n + 1])), finish=False)
    assert [row.inputs["video"][0, 0] for row in rows] == [(5 * n - 1) / 2 for n in range(4)]
    assert len(windower._takes[0].buffers["camera"].times) < 12


def test_a_sensor_whose_clock_is_set_back_leaves_the_others_alone() -> None:
    shapes = {"accel": live(sensor="a"), "gyro": live(sensor="b")}
    windower = Windower(shapes, HAR, patience_s=1.0)
    times = np.arange(200) / RATE_HZ
    rows = cut(windower, ("a", at(times[:100])), ("b", at(times[:100])), finish=False)
    windower.push("a", at(times[100:]))
    windower.push("b", at(times[100:] - 5.0), restarted=True)
    rows += windower.rows()
    starts = [row.start_s for row in rows]
    np.testing.assert_allclose(np.diff(starts), 0.5, atol=1e-9)
    assert all("accel" in row.inputs for row in rows)
    assert sum("gyro" in row.inputs for row in rows) > len(rows) / 2


def test_evenly_stamped_samples_of_the_right_rate_are_taken_as_they_are() -> None:
    def starts(readings: Sequence[tuple[str, Reading]]) -> list[float]:
        shapes = {name: WindowShape(name, (0,), 10.0, 10, 10, (0.0,), (1.0,), 10.0) for name in ("a", "b")}
        return [float(row.inputs["b"][0, 0]) for row in cut(Windower(shapes, HAR), *readings) if "b" in row.inputs]

    times = np.arange(40) / 10
    for offset in (0.0, 0.04, -0.04):  # within half a period: no value is changed
        found = starts([("a", at(times)), ("b", Reading(times + offset, np.arange(40.0)[:, None]))])
        assert all(value == int(value) for value in found)
