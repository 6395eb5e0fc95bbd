"""Cuts the samples of several sensors into rows of aligned windows, in the federation's rate, length and scale.

All modalities of a row begin at the same time. A window that a gap cuts through is absent; a label that changes within
a row is no label. Never changes a unit, never filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array
from blossom_edge.sensors.base import Reading

SAME_RATE = 0.01
"""Rates that differ by less than this part are the same: no sensor's clock is exact."""
GAP = 1.5
"""A step longer than this many periods is a gap."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WindowShape:
    """What one modality's windows are. `columns` are those of the sensor's readings; rates in samples per second.

    Values become (value - mean) / spread per channel. `resample`: whether a sensor of another rate is interpolated.
    """

    sensor: str
    columns: tuple[int, ...]
    rate_hz: float
    window: int
    hop: int
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    sensor_rate_hz: float

    @property
    def span_s(self) -> float:
        """Length of a window in seconds."""
        return self.window / self.rate_hz

    @property
    def interpolates(self) -> bool:
        """Whether the sensor's rate is another than the federation's."""
        return abs(self.sensor_rate_hz / self.rate_hz - 1) > SAME_RATE


@dataclass(frozen=True, slots=True)
class LabelKind:
    """How a task's labels are read: class names to indices for a classification."""

    type: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Windows that begin together. `labels`: task -> index or -1, number or NaN, or (classes,) of 0 and 1 or NaN."""

    recording: int
    start_s: float
    end_s: float
    inputs: Mapping[str, Array]
    labels: Mapping[str, Any]


@dataclass(slots=True)
class _Buffer:
    """The samples of one sensor in one recording that rows still need."""

    times: _Floats
    values: _Floats
    labels: dict[str, NDArray[Any]]

    def append(self, reading: Reading, labels: Mapping[str, NDArray[Any]]) -> None:
        self.times = np.concatenate([self.times, reading.times])
        self.values = np.concatenate([self.values, reading.values])
        self.labels = {t: np.concatenate([old, labels[t]]) for t, old in self.labels.items() if t in labels}

    def forget_before(self, time: float) -> None:
        first = int(np.searchsorted(self.times, time))
        if first:
            self.times, self.values = self.times[first:], self.values[first:]
            self.labels = {task: rows[first:] for task, rows in self.labels.items()}


@dataclass(slots=True)
class _Take:
    """One recording in the making: what has come, from which time on rows are cut, how many were cut."""

    buffers: dict[str, _Buffer] = field(default_factory=dict)
    origin_s: float | None = None
    num_rows: int = 0


class Windower:
    """Readings in, rows out. Rows begin every hop of the slowest modality after the start of a recording.

    A modality whose sensor is silent is waited for until another one is `patience_s` ahead; then the row comes without
    it. Memory is what one row needs, and what `patience_s` lets come in.
    """

    def __init__(
        self, shapes: Mapping[str, WindowShape], tasks: Mapping[str, LabelKind], *, patience_s: float = 2.0
    ) -> None:
        self._shapes = dict(sorted(shapes.items()))
        self._tasks = dict(sorted(tasks.items()))
        self._patience_s = patience_s
        self._hop_s = max(shape.hop / shape.rate_hz for shape in shapes.values())
        self._sensors = sorted({shape.sensor for shape in shapes.values()})
        self._takes: dict[int, _Take] = {}
        self._newest: dict[str, tuple[int, float]] = {}

    def push(self, sensor: str, reading: Reading) -> None:
        """Take in the next samples of one sensor."""
        if sensor not in self._sensors or not len(reading):
            return
        labels: dict[str, NDArray[Any]] = {}
        for task, raw in reading.labels.items():
            read = None if raw is None else self._read_labels(task, raw)
            if read is not None:
                labels[task] = read
        take = self._takes.setdefault(reading.recording, _Take())
        if sensor in take.buffers:
            take.buffers[sensor].append(reading, labels)
        else:
            take.buffers[sensor] = _Buffer(reading.times, reading.values, labels)
        self._newest[sensor] = (reading.recording, float(reading.times[-1]))

    def rows(self, *, finish: bool = False) -> list[Row]:
        """The rows that are complete; with `finish` nothing more will come and nothing is waited for."""
        result: list[Row] = []
        for number in sorted(self._takes):
            passed = finish or (
                len(self._newest) == len(self._sensors) and all(at[0] > number for at in self._newest.values())
            )
            result += self._cut(number, self._takes[number], finish=passed)
            if passed:
                del self._takes[number]
        return result

    def _cut(self, number: int, take: _Take, *, finish: bool) -> list[Row]:
        ends = [float(buffer.times[-1]) for buffer in take.buffers.values() if len(buffer.times)]
        newest_s = max(ends, default=-np.inf)
        if take.origin_s is None:
            starts = [float(buffer.times[0]) for buffer in take.buffers.values()]
            all_began = len(take.buffers) == len(self._sensors)
            if not (finish or all_began or newest_s >= min(starts) + self._patience_s):
                return []
            take.origin_s = max(start for start in starts if start <= min(starts) + self._patience_s)
        result: list[Row] = []
        while True:
            start_s = take.origin_s + take.num_rows * self._hop_s
            windows: dict[str, tuple[_Buffer, slice]] = {}
            any_over = waiting = False
            for modality, shape in self._shapes.items():
                buffer = take.buffers.get(shape.sensor)
                over, part = _samples(buffer.times, start_s, shape) if buffer is not None else (False, None)
                if buffer is not None and part is not None:
                    windows[modality] = (buffer, part)
                any_over |= over
                waiting |= not over and not finish and newest_s < start_s + shape.span_s + self._patience_s
            if waiting or not any_over:
                break
            take.num_rows += 1
            if windows:
                result.append(self._row(number, start_s, windows))
        for buffer in take.buffers.values():
            buffer.forget_before(take.origin_s + (take.num_rows - 1) * self._hop_s)
        return result

    def _row(self, number: int, start_s: float, windows: Mapping[str, tuple[_Buffer, slice]]) -> Row:
        inputs: dict[str, Array] = {}
        for modality, (buffer, part) in windows.items():
            shape = self._shapes[modality]
            values = buffer.values[part][:, shape.columns]
            if shape.interpolates:
                wanted = start_s + np.arange(shape.window) / shape.rate_hz
                times = buffer.times[part]
                values = np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)
            inputs[modality] = ((values - np.array(shape.mean)) / np.array(shape.spread)).astype(np.float32)
        end_s = start_s + max(self._shapes[modality].span_s for modality in windows)
        labels = {task: self._label(task, list(windows.values())) for task in self._tasks}
        return Row(number, start_s, end_s, inputs, labels)

    def _label(self, task: str, windows: Sequence[tuple[_Buffer, slice]]) -> Any:
        """The one label of all samples of the row; for a regression the mean over the first modality's window."""
        kind = self._tasks[task]
        parts = [buffer.labels[task][part] for buffer, part in windows if task in buffer.labels]
        if kind.type == "regression":
            return float(np.mean(parts[0])) if parts else float("nan")
        if kind.type == "multilabel":
            nothing = np.full(len(kind.classes), np.nan)
            same = bool(parts) and all(bool((part == parts[0][0]).all()) for part in parts)
            return parts[0][0] if same else nothing
        values = {int(v) for part in parts for v in np.unique(part)}
        return values.pop() if len(values) == 1 else -1

    def _read_labels(self, task: str, rows: NDArray[Any]) -> NDArray[Any] | None:
        kind = self._tasks.get(task)
        if kind is None:
            return None
        if kind.type != "classification":
            return rows.astype(np.float64)
        if rows.dtype.kind in "iu":
            known = (rows >= 0) & (rows < len(kind.classes))
            return np.where(known, rows, -1).astype(np.int64)
        if rows.dtype.kind != "U":
            return None
        index = {name: i for i, name in enumerate(kind.classes)}
        words, places = np.unique(rows, return_inverse=True)
        return np.array([index.get(str(word), -1) for word in words], dtype=np.int64)[places]


def _samples(times: _Floats, start_s: float, shape: WindowShape) -> tuple[bool, slice | None]:
    """Whether the window that begins at `start_s` is over, and which samples make it (None: a gap cuts through it)."""
    period_s = 1.0 / shape.sensor_rate_hz
    if shape.interpolates:  # from the last sample before to the first one after it: nothing is extrapolated
        tiny_s = 1e-6 * period_s
        first = max(0, int(np.searchsorted(times, start_s + tiny_s, side="right")) - 1)
        end = int(np.searchsorted(times, start_s + (shape.window - 1) / shape.rate_hz - tiny_s)) + 1
        late_s = tiny_s
    else:
        first = int(np.searchsorted(times, start_s - 0.5 * period_s))
        end = first + shape.window
        late_s = 0.5 * period_s
    if end > len(times):
        return False, None
    steps = np.diff(times[first:end])
    gap = bool(len(steps)) and float(steps.max()) > GAP * period_s
    return True, None if gap or times[first] > start_s + late_s else slice(first, end)
