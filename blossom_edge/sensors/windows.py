"""Cuts the samples of several sensors into rows of aligned windows, in the federation's rate, length and scale.

All modalities of a row begin at the same time. A window that a gap cuts through is absent; a label that changes within
a row is no label. Never changes a unit, never judges a sensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array
from blossom_edge.sensors import resampling
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.buffers import Buffer
from blossom_edge.sensors.health import gap_s
from blossom_edge.sensors.intake import SAME_RATE

GAP = 1.5
"""A step longer than this many periods is a gap, where stamps are even: a sample is missing. Live: `health.gap_s`."""
ALIGN_TOLERANCE = 0.5
"""What belongs to one row is simultaneous to this part of a sensor's period: evenly stamped samples of the right rate
and frames are taken as they are, so up to half a period off; whatever is interpolated is exact."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WindowShape:
    """What one modality's windows are. `columns` are those of the sensor's readings; rates in samples per second.

    Values become (value - mean) / spread per channel. `points`: of a framed sensor, the points of a frame; then a row
    of values is all of it, the channel running fastest. `live`: stamps are uneven, so samples are always interpolated.
    """

    sensor: str
    columns: tuple[int, ...]
    rate_hz: float
    window: int
    hop: int
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    sensor_rate_hz: float
    points: int = 0
    live: bool = False

    @property
    def span_s(self) -> float:
        """Length of a window in seconds."""
        return self.window / self.rate_hz

    @property
    def framed(self) -> bool:
        """Whether a sample is a frame."""
        return self.points > 0

    @property
    def width(self) -> int:
        """Values of one sample in a window."""
        return self.points * len(self.mean) if self.framed else len(self.columns)

    @property
    def interpolates(self) -> bool:
        """Whether samples are brought to the federation's grid; else they are on it."""
        return self.live or abs(self.sensor_rate_hz / self.rate_hz - 1) > SAME_RATE

    @property
    def filters(self) -> bool:
        """Whether the sensor is faster than the federation, and needs a low-pass."""
        return not self.framed and self.sensor_rate_hz / self.rate_hz - 1 > SAME_RATE

    @property
    def margin_s(self) -> float:
        """Seconds before and after a window that it is made from, beyond its own."""
        return resampling.margin_s(self.rate_hz) if self.filters else 1.0 / self.sensor_rate_hz

    @property
    def mixed_s(self) -> float:
        """Seconds before and after a window whose samples are, or may come to be, mixed into it by the low-pass.

        A live sensor may turn out to be faster than it was declared at any time.
        """
        return resampling.margin_s(self.rate_hz) if self.filters or (self.live and not self.framed) else 0.0

    @property
    def gap_s(self) -> float:
        """A longer step between samples is a gap."""
        return gap_s(self.sensor_rate_hz) if self.live else GAP / self.sensor_rate_hz


@dataclass(frozen=True, slots=True)
class LabelKind:
    """How a task's labels are read: class names to indices for a classification."""

    type: str
    classes: tuple[str, ...] = ()

    def none(self, count: int) -> NDArray[Any]:
        """`count` samples without a label."""
        if self.type == "classification":
            return np.full(count, -1, dtype=np.int64)
        return np.full((count, len(self.classes)) if self.type == "multilabel" else count, np.nan)


@dataclass(frozen=True, slots=True)
class Row:
    """Windows that begin together. `labels`: task -> index or -1, number or NaN, or (classes,) of 0 and 1 or NaN."""

    recording: int
    start_s: float
    end_s: float
    inputs: Mapping[str, Array]
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a window lies in its buffer. part: its samples. around: those that a low-pass looks at."""

    part: slice
    around: slice


@dataclass(slots=True)
class _Take:
    """One recording in the making: what has come, from which time on rows are cut, how many were cut."""

    buffers: dict[str, Buffer] = field(default_factory=dict)
    origin_s: float | None = None
    num_rows: int = 0


class Windower:
    """Readings in, rows out. Rows begin every hop of the slowest modality after the start of a recording.

    A modality whose sensor is silent is waited for until another one is `patience_s` ahead; then the row comes without
    it. Memory is what one row needs, and what `patience_s` lets come in.
    counts: per modality the windows "made", and those that are absent by a "gap", by samples that were no numbers
    ("nan"), or because nothing came in time ("silent").
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
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in self._shapes}

    def push(self, sensor: str, reading: Reading, *, holes: _Floats | None = None, restarted: bool = False) -> None:
        """Take in the next samples of one sensor, whose times rise.

        holes: times at which a sample was no number. restarted: its clock was set back, what came before is left out.
        """
        if sensor not in self._sensors:
            return
        if restarted:
            for take in self._takes.values():
                take.buffers.pop(sensor, None)
        if not len(reading) and (holes is None or not len(holes)):
            return
        labels: dict[str, NDArray[Any]] = {}
        for task, raw in reading.labels.items():
            read = None if raw is None else self._read_labels(task, raw)
            if read is not None:
                labels[task] = read
        take = self._takes.setdefault(reading.recording, _Take())
        buffer = take.buffers.setdefault(sensor, Buffer())
        buffer.append(reading, labels, {task: kind.none for task, kind in self._tasks.items()}, holes)
        if len(reading):
            self._newest[sensor] = (reading.recording, float(reading.times[-1]))

    def set_rate(self, sensor: str, rate_hz: float) -> None:
        """The sensor's samples come at another rate from now on."""
        self._shapes = {
            name: replace(shape, sensor_rate_hz=rate_hz) if shape.sensor == sensor else shape
            for name, shape in self._shapes.items()
        }

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
        begun = [buffer.times for buffer in take.buffers.values() if len(buffer.times)]
        if not begun:
            return []
        newest_s = max(float(times[-1]) for times in begun)
        if take.origin_s is not None and newest_s < take.origin_s + take.num_rows * self._hop_s - self._reach_s:
            take.origin_s, take.num_rows = None, 0  # all clocks were set back: the grid begins anew
        if take.origin_s is None:
            starts = [float(times[0]) for times in begun]
            all_began = len(begun) == len(self._sensors)
            if not (finish or all_began or newest_s >= min(starts) + self._patience_s):
                return []
            take.origin_s = max(start for start in starts if start <= min(starts) + self._patience_s)
        result: list[Row] = []
        while True:
            start_s = take.origin_s + take.num_rows * self._hop_s
            windows: dict[str, tuple[Buffer, _Cut]] = {}
            missing: dict[str, str] = {}
            any_over = waiting = False
            for modality, shape in self._shapes.items():
                buffer = take.buffers.get(shape.sensor)
                over, cut = _find(buffer.times, start_s, shape, finish) if buffer is not None else (False, None)
                if buffer is not None and cut is not None:
                    windows[modality] = (buffer, cut)
                elif over and buffer is not None:
                    missing[modality] = "nan" if buffer.has_hole(start_s, start_s + shape.span_s) else "gap"
                else:
                    missing[modality] = "silent"
                any_over |= over
                latest_s = start_s + shape.span_s + shape.margin_s * shape.interpolates + self._patience_s
                waiting |= not over and not finish and newest_s < latest_s
            if waiting or not any_over:
                break
            take.num_rows += 1
            for modality in self._shapes:
                self.counts[modality][missing.get(modality, "made")] += 1
            if windows:
                result.append(self._row(number, start_s, windows))
        for sensor, buffer in take.buffers.items():
            buffer.forget_before(take.origin_s + (take.num_rows - 1) * self._hop_s - self._lead_s(sensor))
        return result

    @property
    def _reach_s(self) -> float:
        """How far behind the grid samples may be before they are taken for those of a clock that was set back."""
        return max(shape.span_s for shape in self._shapes.values()) + self._hop_s + self._patience_s

    def _lead_s(self, sensor: str) -> float:
        """Seconds before a window that are still needed."""
        shapes = [shape for shape in self._shapes.values() if shape.sensor == sensor and shape.interpolates]
        return max((shape.margin_s + shape.gap_s for shape in shapes), default=0.0)

    def _row(self, number: int, start_s: float, windows: Mapping[str, tuple[Buffer, _Cut]]) -> Row:
        inputs = {name: _window(buffer, cut, start_s, self._shapes[name]) for name, (buffer, cut) in windows.items()}
        end_s = start_s + max(self._shapes[modality].span_s for modality in windows)
        labels = {task: self._label(task, list(windows.values())) for task in self._tasks}
        return Row(number, start_s, end_s, inputs, labels)

    def _label(self, task: str, windows: Sequence[tuple[Buffer, _Cut]]) -> Any:
        """The one label of all samples of the row; for a regression the mean over the first modality's window."""
        kind = self._tasks[task]
        parts = [buffer.labels[task][cut.part] for buffer, cut in windows if task in buffer.labels]
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
            try:
                return rows.astype(np.float64)
            except ValueError:  # words where numbers are due: a source that labels something else
                return None
        if rows.dtype.kind in "iu":
            known = (rows >= 0) & (rows < len(kind.classes))
            return np.where(known, rows, -1).astype(np.int64)
        if rows.dtype.kind != "U":
            return None
        index = {name: i for i, name in enumerate(kind.classes)}
        words, places = np.unique(rows, return_inverse=True)
        return np.array([index.get(str(word), -1) for word in words], dtype=np.int64)[places]


def _window(buffer: Buffer, cut: _Cut, start_s: float, shape: WindowShape) -> Array:
    """The samples of one window on the federation's grid, standardised: (window, width) float32."""
    wanted = start_s + np.arange(shape.window) / shape.rate_hz
    values: NDArray[np.floating]
    if shape.framed:
        values = buffer.values(cut.part)
        if shape.interpolates:
            values = values[resampling.nearest(buffer.times[cut.part], wanted)]
    elif shape.filters:
        times, rows = buffer.times[cut.around], buffer.values(cut.around)[:, shape.columns]
        values = resampling.low_pass(times, rows, wanted, shape.rate_hz)
    else:
        values = buffer.values(cut.part)[:, shape.columns]
        if shape.interpolates:
            values = resampling.linear(buffer.times[cut.part], values, wanted)
    mean, spread = np.array(shape.mean), np.array(shape.spread)
    if shape.framed:
        mean, spread = np.tile(mean, shape.points), np.tile(spread, shape.points)
    result: Array = ((values - mean) / spread).astype(np.float32)
    return result


def _find(times: _Floats, start_s: float, shape: WindowShape, finish: bool) -> tuple[bool, _Cut | None]:
    """Whether the window that begins at `start_s` is over, and which samples make it (None: a gap cuts through it)."""
    period_s = 1.0 / shape.sensor_rate_hz
    if not shape.interpolates:
        first = int(np.searchsorted(times, start_s - ALIGN_TOLERANCE * period_s))
        end, late_s, over = first + shape.window, ALIGN_TOLERANCE * period_s, True
    elif not len(times):
        return False, None
    else:  # from the last sample before to the first one after it: nothing is extrapolated
        tiny_s = 1e-6 * period_s
        last_s = start_s + (shape.window - 1) / shape.rate_hz
        first = max(0, int(np.searchsorted(times, start_s + tiny_s, side="right")) - 1)
        end = int(np.searchsorted(times, last_s - tiny_s)) + 1
        late_s = ALIGN_TOLERANCE * period_s if shape.framed else tiny_s
        over = finish or not shape.filters or float(times[-1]) >= last_s + shape.margin_s
    if end > len(times) or not over:
        return False, None
    steps = np.diff(times[first:end])
    gap = bool(len(steps)) and float(steps.max()) > shape.gap_s
    if gap or times[first] > start_s + late_s:
        return True, None
    part = slice(first, end)
    return True, _Cut(part, _around(times, part, start_s, shape) if shape.filters else part)


def _around(times: _Floats, part: slice, start_s: float, shape: WindowShape) -> slice:
    """The samples of a window and its margins, up to the next gap on either side."""
    last_s = start_s + (shape.window - 1) / shape.rate_hz
    begin = max(0, int(np.searchsorted(times, start_s - shape.margin_s, side="right")) - 1)
    end = min(len(times), int(np.searchsorted(times, last_s + shape.margin_s)) + 1)
    gaps = begin + 1 + np.flatnonzero(np.diff(times[begin:end]) > shape.gap_s)
    before, after = gaps[gaps <= part.start], gaps[gaps >= part.stop]
    return slice(int(before[-1]) if len(before) else begin, int(after[0]) if len(after) else end)
