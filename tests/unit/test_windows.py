"""Cutting windows: rate, length, scale, gaps, label changes, sensors that do not agree in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.windows import LabelKind, Row, Windower, WindowShape

HAR = {"har": LabelKind("classification", ("sit", "walk"))}


def shape(
    sensor: str = "imu",
    *,
    rate_hz: float = 10.0,
    window: int = 4,
    hop: int = 2,
    sensor_rate_hz: float | None = None,
    mean: float = 0.0,
    spread: float = 1.0,
    columns: tuple[int, ...] = (0,),
) -> WindowShape:
    width = len(columns)
    given_hz = rate_hz if sensor_rate_hz is None else sensor_rate_hz
    return WindowShape(sensor, columns, rate_hz, window, hop, (mean,) * width, (spread,) * width, given_hz)


def ramp(
    first: int,
    end: int,
    *,
    rate_hz: float = 10.0,
    labels: NDArray[Any] | None = None,
    recording: int = 0,
) -> Reading:
    """Samples first..end - 1 of a ramp that counts samples, at `rate_hz`."""
    index = np.arange(first, end)
    rows = np.zeros(len(index), dtype=np.int64) if labels is None else labels
    return Reading(index / rate_hz, index[:, None].astype(np.float64), {"har": rows}, recording)


def cut(windower: Windower, *readings: tuple[str, Reading], finish: bool = True) -> list[Row]:
    for sensor, reading in readings:
        windower.push(sensor, reading)
    return windower.rows(finish=finish)


def column(row: Row, modality: str = "accel") -> list[float]:
    return [round(float(v), 5) for v in row.inputs[modality][:, 0]]


def test_windows_follow_each_other_by_the_hop_and_a_rest_is_left() -> None:
    rows = cut(Windower({"accel": shape()}, HAR), ("imu", ramp(0, 9)))
    assert [column(row) for row in rows] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert [row.start_s for row in rows] == [0.0, 0.2, 0.4]
    assert [row.end_s for row in rows] == pytest.approx([0.4, 0.6, 0.8])
    assert rows[0].inputs["accel"].dtype == np.float32


def test_values_are_standardised_with_the_federations_mean_and_spread() -> None:
    (row,) = cut(Windower({"accel": shape(mean=1.0, spread=2.0)}, HAR), ("imu", ramp(0, 4)))
    assert column(row) == [-0.5, 0.0, 0.5, 1.0]


def test_a_faster_sensor_is_interpolated_to_the_federations_rate() -> None:
    windower = Windower({"accel": shape(sensor_rate_hz=25.0)}, HAR)
    rows = cut(windower, ("imu", ramp(0, 20, rate_hz=25.0)))
    # at 25 Hz the ramp counts 25 per second: at 0, .1, .2, .3 s it is 0, 2.5, 5, 7.5; the low-pass lets a slope be
    assert column(rows[0]) == pytest.approx([0.0, 2.5, 5.0, 7.5], abs=0.05)
    assert column(rows[1]) == pytest.approx([5.0, 7.5, 10.0, 12.5], abs=0.05)
    assert [row.start_s for row in rows] == pytest.approx([0.0, 0.2, 0.4])


def test_a_slower_sensor_is_interpolated_and_never_extrapolated() -> None:
    windower = Windower({"accel": shape(sensor_rate_hz=4.0)}, HAR)
    rows = cut(windower, ("imu", ramp(0, 3, rate_hz=4.0)))  # samples at 0, .25, .5 s
    assert [column(row) for row in rows] == [[0.0, 0.4, 0.8, 1.2], [0.8, 1.2, 1.6, 2.0]]


def test_a_window_with_a_gap_in_it_is_dropped_and_the_grid_goes_on() -> None:
    windower = Windower({"accel": shape()}, HAR)
    rows = cut(windower, ("imu", ramp(0, 7)), ("imu", ramp(8, 16)))
    assert [column(row) for row in rows] == [
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [8, 9, 10, 11],
        [10, 11, 12, 13],
        [12, 13, 14, 15],
    ]


def test_a_window_in_which_the_label_changes_has_none() -> None:
    labels = np.array([0] * 5 + [1] * 5)
    rows = cut(Windower({"accel": shape()}, HAR), ("imu", ramp(0, 10, labels=labels)))
    assert [row.labels["har"] for row in rows] == [0, -1, -1, 1]


def test_class_names_become_the_federations_indices_and_unknown_ones_none() -> None:
    labels = np.array(["walk"] * 4 + ["swim"] * 4 + [""] * 4)
    rows = cut(Windower({"accel": shape(hop=4)}, HAR), ("imu", ramp(0, 12, labels=labels)))
    assert [row.labels["har"] for row in rows] == [1, -1, -1]


def test_an_index_beyond_the_classes_is_no_label() -> None:
    rows = cut(Windower({"accel": shape(hop=4)}, HAR), ("imu", ramp(0, 8, labels=np.array([1] * 4 + [2] * 4))))
    assert [row.labels["har"] for row in rows] == [1, -1]


def test_a_number_is_averaged_over_the_window_and_a_set_must_stay_the_same() -> None:
    kinds = {"speed": LabelKind("regression"), "marks": LabelKind("multilabel", ("a", "b"))}
    times = np.arange(8) / 10
    marks = np.array([[1.0, 0.0]] * 4 + [[1.0, 0.0]] * 2 + [[1.0, 1.0]] * 2)
    reading = Reading(times, np.zeros((8, 1)), {"speed": np.arange(8.0), "marks": marks})
    rows = cut(Windower({"accel": shape(hop=4)}, kinds), ("imu", reading))
    assert [row.labels["speed"] for row in rows] == [1.5, 5.5]
    assert rows[0].labels["marks"].tolist() == [1.0, 0.0]
    assert np.isnan(rows[1].labels["marks"]).all()


def two() -> Windower:
    shapes = {"accel": shape("a"), "ecg": shape("b", rate_hz=20.0, window=8, hop=4)}
    return Windower(shapes, HAR, patience_s=1.0)


def test_modalities_of_different_rates_begin_at_the_same_time() -> None:
    rows = cut(two(), ("a", ramp(0, 8)), ("b", ramp(0, 16, rate_hz=20.0)))
    assert [(column(row)[0], column(row, "ecg")[0]) for row in rows] == [(0, 0), (2, 4), (4, 8)]


def test_a_row_waits_for_the_slower_sensor_and_comes_whole() -> None:
    windower = two()
    assert cut(windower, ("a", ramp(0, 8)), ("b", ramp(0, 7, rate_hz=20.0)), finish=False) == []
    (row,) = cut(windower, ("b", ramp(7, 9, rate_hz=20.0)), finish=False)
    assert set(row.inputs) == {"accel", "ecg"}


def test_a_silent_sensor_is_waited_for_only_so_long() -> None:
    windower = two()
    assert cut(windower, ("a", ramp(0, 8)), ("b", ramp(0, 4, rate_hz=20.0)), finish=False) == []
    rows = cut(windower, ("a", ramp(8, 30)), finish=False)
    assert rows
    assert all(set(row.inputs) == {"accel"} for row in rows)
    # newest sample at 2.9 s: the row that ends at 1.8 s is more than 1 s behind it, the next one is not
    assert rows[-1].end_s == pytest.approx(1.8)


def test_a_sensor_that_starts_later_shifts_the_beginning_so_that_no_row_lacks_it() -> None:
    late = Reading(np.arange(6, 22) / 20, np.zeros((16, 1)))  # from .3 s on
    rows = cut(two(), ("a", ramp(0, 12)), ("b", late))
    assert rows[0].start_s == pytest.approx(0.3)
    assert all(set(row.inputs) == {"accel", "ecg"} for row in rows[:2])


def test_recordings_are_cut_apart_from_each_other() -> None:
    windower = Windower({"accel": shape()}, HAR)
    rows = cut(windower, ("imu", ramp(0, 5)), ("imu", ramp(5, 10, recording=1)))
    assert [(row.recording, column(row)) for row in rows] == [(0, [0, 1, 2, 3]), (1, [5, 6, 7, 8])]


def test_a_sensor_that_is_not_asked_for_is_passed_over() -> None:
    assert cut(Windower({"accel": shape()}, HAR), ("ecg", ramp(0, 9))) == []


def test_a_sensor_half_a_percent_too_slow_loses_no_window() -> None:
    windower = Windower({"accel": shape()}, HAR)
    index = np.arange(400)
    rows = cut(windower, ("imu", Reading(index / 9.95, index[:, None].astype(float))))
    assert len(rows) >= 198
    assert all(np.diff(row.inputs["accel"][:, 0]).tolist() == [1.0, 1.0, 1.0] for row in rows)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.sampled_from([10.0, 25.0, 7.0]))
def test_rows_do_not_depend_on_how_the_samples_come_in(sizes: list[int], sensor_rate_hz: float) -> None:
    def windower() -> Windower:
        return Windower({"accel": shape(sensor_rate_hz=sensor_rate_hz)}, HAR)

    total = sum(sizes)
    whole = cut(windower(), ("imu", ramp(0, total, rate_hz=sensor_rate_hz)))
    parts, first, slow = [], 0, windower()
    for size in sizes:
        parts += cut(slow, ("imu", ramp(first, first + size, rate_hz=sensor_rate_hz)), finish=False)
        first += size
    parts += slow.rows(finish=True)
    assert [(row.start_s, column(row)) for row in parts] == [(row.start_s, column(row)) for row in whole]
