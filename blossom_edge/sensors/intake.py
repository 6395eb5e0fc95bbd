"""What stands between a sensor and the windows: keeps times rising, leaves out what is no number, clips, judges.

A recording is taken as it is but for times and numbers; ranges, rate and health are those of live hardware.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.base import Reading, Sensor, is_live
from blossom_edge.sensors.clock import DriftEstimate
from blossom_edge.sensors.health import FAST, SLOW, Health, Limits, SensorHealth
from firmware_profiles.schema import ProfileSensor

SAME_RATE = 0.01
"""Rates that differ by less than this part are the same: no sensor's clock is exact."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Clean samples: times rise, values are finite. holes: stamps of samples that were left out as no numbers.

    restarted: its clock was set back by more than a window; what came before is no neighbour of this.
    """

    reading: Reading
    holes: NDArray[np.float64]
    restarted: bool = False


class Intake:
    """One sensor on its way into windows of `span_s`. `counts`: samples taken, not rising, no number, clipped."""

    def __init__(self, sensor: Sensor, settings: ProfileSensor, *, span_s: float) -> None:
        self.sensor = sensor
        self.live = is_live(sensor)
        self.counts: Counter[str] = Counter()
        declared = {channel.name: channel for channel in settings.channels}
        channels = [declared[name] for name in sensor.channels if name in declared]
        self._framed = bool(settings.shape)
        points = int(np.prod(settings.shape, dtype=int))
        self._low = np.tile(np.array([channel.range[0] for channel in channels]), points)
        self._high = np.tile(np.array([channel.range[1] for channel in channels]), points)
        self._span_s = span_s
        limits = Limits.of(channels, rate_hz=sensor.rate_hz, span_s=span_s, shape=settings.shape)
        self._judge = SensorHealth(limits) if self.live else None
        self._failure: Health | None = None
        self.drift = DriftEstimate(sensor.rate_hz)
        self.rate_hz = sensor.rate_hz
        """Samples per second: as declared, or as measured where that is more than 1 % off and still believable."""
        self._last: tuple[int, float] | None = None

    @property
    def health(self) -> Health:
        """The verdict of now."""
        return self._judge.health if self._judge is not None else self._failure or Health()

    @property
    def judge(self) -> SensorHealth | None:
        """Who judges it; None for a recording."""
        return self._judge

    def opened(self, now: float) -> None:
        """It answers again, perhaps from another source with another rate."""
        self._failure = None
        self.rate_hz = self.sensor.rate_hz
        self.drift = DriftEstimate(self.rate_hz)
        if self._judge is not None:
            self._judge.opened(now, rate_hz=self.rate_hz)

    def failed(self, reason: str) -> None:
        """It delivers no more."""
        if self._judge is not None:
            self._judge.failed(reason)
        else:
            self._failure = Health("unplugged", reason)

    def take(self, readings: Sequence[Reading], now: float) -> list[Piece]:
        """Clean what came, judge it, measure its rate."""
        pieces: list[Piece] = []
        for reading in readings:
            if self._judge is not None:
                self._judge.push(reading, now)
            pieces += [piece for part in self._rising(reading) if (piece := self._clean(*part)) is not None]
        if self._judge is not None:
            self._judge.tick(now)
            self._measure()
        return pieces

    def _rising(self, reading: Reading) -> list[tuple[Reading, bool]]:
        """The parts whose times rise, and for each whether the clock was set back before it."""
        times, parts = reading.times, []
        before = self._last[1] if self._last is not None and self._last[0] == reading.recording else -np.inf
        back = np.flatnonzero(np.diff(times, prepend=before) < -self._span_s).tolist()
        for start, end in zip([0, *back], [*back, len(times)], strict=True):
            if end == start:
                continue
            part = _rows(reading, slice(start, end))
            before = -np.inf if start in back else before
            top = np.maximum.accumulate(np.concatenate([[before], part.times]))
            rises = np.asarray(part.times > top[:-1], dtype=np.bool_)
            if not rises.all():
                self.counts["not rising"] += int((~rises).sum())
                part = _rows(part, rises)
            before = float(top[-1])
            self._last = (reading.recording, before)
            if len(part):
                parts.append((part, start in back))
        return parts

    def _clean(self, reading: Reading, restarted: bool) -> Piece | None:
        number = np.asarray(np.isfinite(reading.values).all(axis=1), dtype=np.bool_)
        holes = reading.times[~number]
        if len(holes):
            self.counts["no number"] += len(holes)
            reading = _rows(reading, number)
        if self.live:
            self.drift.push(np.sort(np.concatenate([reading.times, holes])))
            outside = ((reading.values < self._low) | (reading.values > self._high)).any(axis=1)
            if outside.any():
                self.counts["clipped"] += int(outside.sum())
                values = np.clip(reading.values, self._low, self._high)
                reading = Reading(reading.times, values, reading.labels, reading.recording)
        if self._framed and reading.values.dtype != np.float32:  # frames are large, and windows are float32 anyway
            reading = Reading(reading.times, reading.values.astype(np.float32), reading.labels, reading.recording)
        self.counts["taken"] += len(reading)
        return Piece(reading, holes, restarted) if len(reading) or len(holes) else None

    def _measure(self) -> None:
        rate = self.drift.rate_hz
        declared = self.sensor.rate_hz
        if rate is None or not SLOW <= rate / declared <= FAST:
            return
        if abs(rate / declared - 1) > SAME_RATE and abs(rate / self.rate_hz - 1) > SAME_RATE:
            self.rate_hz = rate


def _rows(reading: Reading, rows: slice | NDArray[np.bool_]) -> Reading:
    labels = {task: None if kept is None else kept[rows] for task, kept in reading.labels.items()}
    return Reading(reading.times[rows], reading.values[rows], labels, reading.recording)
