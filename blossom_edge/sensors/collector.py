"""Keeps a device's newest labelled windows and divides them into training and holdout. Never writes to disk.

No window that is trained on shares a sample with one of the holdout.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor
from blossom_edge.sensors.synthetic import rng
from blossom_edge.sensors.windows import SAME_RATE, LabelKind, Row, Windower, WindowShape
from firmware_profiles.schema import Profile

REOPEN_AFTER_S = 10.0
"""A sensor that failed is opened again after this time."""
_OVERLAP_SLACK_S = 1e-6

Split = Literal["later", "blocks"]


class Collector:
    """From sensors to `WindowSet`s for the modalities that profile and federation have in common.

    split "later": of each recording the first 1 - `holdout` of its time trains, the rest is holdout.
    split "blocks": for live streams: of each ten windows seven train, one is left out, two are holdout (all train if
        `holdout` is 0); where windows overlap, also the first training windows of the next ten are left out.
    labels_per_class: keep the label of only so many training windows per class, spread evenly over the time.
    capacity: number of windows kept, the newest.
    `poll` belongs to one thread; the rest may be called from another one.

    Raises:
        ConfigError: `federation-mismatch`: a sensor delivers another unit or rate than the federation wants.
    """

    def __init__(
        self,
        profile: Profile,
        federation: Federation,
        sensors: Mapping[str, Sensor],
        *,
        holdout: float = 0.3,
        split: Split = "later",
        labels_per_class: int | None = None,
        seed: int = 0,
        capacity: int = 4096,
        tasks: Collection[str] | None = None,
    ) -> None:
        if not 0 <= holdout < 1 or capacity < 1 or (labels_per_class is not None and labels_per_class < 1):
            raise ConfigError(
                "usage",
                f"found holdout {holdout:g}, capacity {capacity}, labels per class {labels_per_class}, "
                "expected a holdout from 0 to below 1, and 1 or more of the others",
            )
        self._sensors = dict(sorted(sensors.items()))
        self._shapes = {
            name: _shape(name, profile, federation, self._sensors)
            for name in sorted(profile.modalities)
            if name in federation.modalities and profile.modalities[name].sensor in self._sensors
        }
        if not self._shapes:
            raise ConfigError("federation-mismatch", "no sensor is open for a modality of this federation")
        self._kinds = {
            name: LabelKind(task.type, task.classes)
            for name, task in sorted(federation.tasks.items())
            if tasks is None or name in tasks
        }
        self._holdout, self._split, self._seed = holdout, split, seed
        self._labels_per_class = labels_per_class
        self._windower = Windower(self._shapes, self._kinds)
        self._rows: deque[tuple[int, Row]] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._num_rows = 0
        self._finished = False
        self._failed: dict[str, tuple[float, str]] = {}
        self._sets: tuple[WindowSet, WindowSet] | None = None

    def poll(self, now: float) -> int:
        """Read all sensors up to `now` (monotonic seconds); returns the number of new labelled windows.

        A sensor that fails is closed, its modalities are absent, and it is opened again after 10 s.
        """
        if self._finished:
            return 0
        for name, sensor in self._sensors.items():
            self._read(name, sensor, now)
        alive = [sensor for name, sensor in self._sensors.items() if name not in self._failed]
        self._finished = bool(alive) and len(alive) == len(self._sensors) and all(s.exhausted for s in alive)
        rows = [row for row in self._windower.rows(finish=self._finished) if self._is_labelled(row)]
        if rows:
            with self._lock:
                self._rows.extend(enumerate(rows, start=self._num_rows))
                self._num_rows += len(rows)
                self._sets = None
        return len(rows)

    def train(self) -> WindowSet:
        """The windows to learn from, oldest first; the arrays are shared between calls: do not change them."""
        return self._divided()[0]

    def holdout(self) -> WindowSet:
        """The windows to score on, oldest first; the arrays are shared between calls: do not change them."""
        return self._divided()[1]

    def num_seen(self) -> int:
        """Labelled windows that ever came, also those that no longer fit into `capacity`."""
        return self._num_rows

    def present(self) -> frozenset[str]:
        """Modalities with training windows whose sensor works."""
        train = self.train()
        failed = self.failures
        return frozenset(
            name
            for name, shape in self._shapes.items()
            if shape.sensor not in failed and bool(train.present[name].any())
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that this device owns in the federation, sorted."""
        return tuple(self._shapes)

    @property
    def finished(self) -> bool:
        """Whether all recordings were read to their end."""
        return self._finished

    @property
    def failures(self) -> dict[str, str]:
        """Sensors that do not deliver right now, and why."""
        return {name: why for name, (_when, why) in dict(self._failed).items()}

    def _read(self, name: str, sensor: Sensor, now: float) -> None:
        try:
            if name in self._failed:
                if now < self._failed[name][0] + REOPEN_AFTER_S:
                    return
                sensor.open()
                del self._failed[name]
            for reading in sensor.read(now):
                self._windower.push(name, reading)
        except HardwareError as error:
            self._failed[name] = (now, str(error))
            sensor.close()

    def _is_labelled(self, row: Row) -> bool:
        return any(_has_label(row.labels[task]) for task in self._kinds)

    def _divided(self) -> tuple[WindowSet, WindowSet]:
        with self._lock:
            if self._sets is None:
                rows = sorted(self._rows, key=lambda at: (at[1].recording, at[1].start_s))
                divide = self._divide_later if self._split == "later" else self._divide_blocks
                train, held = divide(rows)
                self._sets = self._stack(train, few=True), self._stack(held, few=False)
            return self._sets

    def _divide_later(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[Row], list[Row]]:
        if not self._holdout:
            return [row for _n, row in rows], []
        span: dict[int, tuple[float, float]] = {}
        for _n, row in rows:
            begin_s, end_s = span.get(row.recording, (row.start_s, row.end_s))
            span[row.recording] = begin_s, max(end_s, row.end_s)
        border = {number: begin + (1 - self._holdout) * (end - begin) for number, (begin, end) in span.items()}
        train = [row for _n, row in rows if row.end_s <= border[row.recording] + _OVERLAP_SLACK_S]
        return train, [row for _n, row in rows if row.start_s >= border[row.recording] - _OVERLAP_SLACK_S]

    def _divide_blocks(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[Row], list[Row]]:
        if not self._holdout:
            return [row for _n, row in rows], []
        hop_s = max(shape.hop / shape.rate_hz for shape in self._shapes.values())
        span_s = max(shape.span_s for shape in self._shapes.values())
        unit = max(1, math.ceil(span_s / hop_s - 1e-9) - 1)  # windows that share samples with the one before them
        held = [row for n, row in rows if n % (10 * unit) >= 8 * unit]
        train = [row for n, row in rows if n % (10 * unit) < 7 * unit]
        return _apart(train, held, span_s), held

    def _stack(self, rows: Sequence[Row], *, few: bool) -> WindowSet:
        n = len(rows)
        inputs: dict[str, NDArray[np.float32]] = {}
        present: dict[str, NDArray[np.bool_]] = {}
        for name, shape in self._shapes.items():
            present[name] = np.array([name in row.inputs for row in rows], dtype=np.bool_)
            inputs[name] = np.zeros((n, shape.window, len(shape.columns)), dtype=np.float32)
            for i, row in enumerate(rows):
                if name in row.inputs:
                    inputs[name][i] = row.inputs[name]
        labels = {task: _stack_labels(kind, [row.labels[task] for row in rows]) for task, kind in self._kinds.items()}
        result = WindowSet(inputs, present, labels, np.array([row.start_s for row in rows], dtype=np.float64))
        return self._keep_few(result) if few and self._labels_per_class is not None else result

    def _keep_few(self, windows: WindowSet) -> WindowSet:
        """Take the label away from all but `labels_per_class` windows of each class, then drop what has none left."""
        count = self._labels_per_class or 0
        labels = dict(windows.labels)
        for task, kind in self._kinds.items():
            if kind.type != "classification":
                continue
            kept = np.full(len(windows), -1, dtype=np.int64)
            for index, name in enumerate(kind.classes):
                rows = np.flatnonzero(labels[task] == index)
                chosen = rows
                if len(rows) > count:
                    shift = rng("few labels", self._seed, task, name).uniform()
                    chosen = rows[((np.arange(count) + shift) * len(rows) / count).astype(np.int64)]
                kept[chosen] = index
            labels[task] = kept
        reduced = WindowSet(windows.inputs, windows.present, labels, windows.times)
        usable = np.zeros(len(windows), dtype=np.bool_)
        for task in self._kinds:
            usable |= reduced.labelled(task)
        return reduced.take(np.flatnonzero(usable))


def _shape(name: str, profile: Profile, federation: Federation, sensors: Mapping[str, Sensor]) -> WindowShape:
    mine, wanted = profile.modalities[name], federation.modalities[name]
    sensor = sensors[mine.sensor]
    resample = "resample" in mine.preprocess
    missing = [channel for channel in mine.channels if channel not in sensor.channels]
    if missing or len(mine.channels) != len(wanted.channels):
        raise ConfigError(
            "federation-mismatch",
            f"{name}: sensor {mine.sensor} delivers {', '.join(sensor.channels)}, "
            f"the federation wants {len(wanted.channels)} channels, the profile names {', '.join(mine.channels)}",
        )
    columns = tuple(sensor.channels.index(channel) for channel in mine.channels)
    for column, channel in zip(columns, wanted.channels, strict=True):
        if sensor.units[column] != channel.unit:
            raise ConfigError(
                "federation-mismatch",
                f"{name}: sensor {mine.sensor} delivers {sensor.channels[column]} in {sensor.units[column]}, "
                f"the federation wants {channel.unit}",
            )
    if abs(sensor.rate_hz / wanted.rate_hz - 1) > SAME_RATE and not resample:
        raise ConfigError(
            "federation-mismatch",
            f"{name}: sensor {mine.sensor} delivers {sensor.rate_hz:g} Hz, the federation wants {wanted.rate_hz:g} Hz",
            hint=f'add preprocess = ["resample"] to [modalities.{name}] of profile {profile.id}',
        )
    return WindowShape(
        sensor=mine.sensor,
        columns=columns,
        rate_hz=wanted.rate_hz,
        window=wanted.window,
        hop=wanted.hop,
        mean=tuple(channel.mean for channel in wanted.channels),
        spread=tuple(channel.spread for channel in wanted.channels),
        sensor_rate_hz=sensor.rate_hz,
    )


def _apart(rows: Sequence[Row], others: Sequence[Row], span_s: float) -> list[Row]:
    """Those of `rows` that share no sample with any of `others`; both in the order of time."""
    starts = {
        number: [row.start_s for row in others if row.recording == number] for number in {r.recording for r in others}
    }
    result = []
    for row in rows:
        taken = starts.get(row.recording, [])
        after = bisect.bisect_left(taken, row.start_s)
        near = taken[max(0, after - 1) : after + 1]
        if all(abs(row.start_s - start) >= span_s - _OVERLAP_SLACK_S for start in near):
            result.append(row)
    return result


def _has_label(label: Any) -> bool:
    if isinstance(label, int):
        return label >= 0
    return bool(np.isfinite(label).all())


def _stack_labels(kind: LabelKind, labels: Sequence[Any]) -> NDArray[Any]:
    if kind.type == "classification":
        return np.array(labels, dtype=np.int64)
    if kind.type == "multilabel":
        return np.array(labels, dtype=np.float32).reshape(len(labels), len(kind.classes))
    return np.array(labels, dtype=np.float32)
