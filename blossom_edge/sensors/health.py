"""Whether a live sensor's samples can be trusted, judged window by window. Pure; never changes a sample.

What is judged is sample time, so that a device that was busy and reads late judges the same. Only silence is judged on
the clock of whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.base import Reading
from firmware_profiles.schema import ProfileChannel

NOTICE_WINDOWS = 2
"""A fault that lasts is noticed before this many windows have passed since it began."""
RECOVER_WINDOWS = 2
"""So many good windows in a row, and the sensor counts again."""
SILENT_S, SILENT_PERIODS = 2.0, 5.0
"""Silence longer than both is as good as a pulled plug."""
GAP_PERIODS, GAP_S = 4.0, 0.04
"""A live sensor's step is a gap when it is longer than both: a polled thread may be held up for some 10 ms by the
scheduler, and what people do (below 10 Hz) is still known between samples 40 ms apart."""
NAN_SHARE = 0.2
SATURATED_SHARE = 0.2
"""Parts of a window's samples that are no number, or stand at the end of the range, at which it is bad."""
SLOW, FAST = 0.75, 1.5
"""Measured rates from below to above these parts of the declared one are a fault; in between they are resampled."""
JUMPS = 3
"""So many stamps of a window that go back, or forward over JUMP_S and JUMP_PERIODS, and the clock is not trusted."""
JUMP_S, JUMP_PERIODS = 0.25, 10.0
STUCK_SAMPLES, STUCK_FRAMES = 16, 3
"""So many equal samples (frames) make a window stuck; in a shorter window it is not judged."""
SPARSE = 0.25
"""A window with less than this part of its samples says nothing alone; two in a row are a rate too low."""

NOISY_UNITS = frozenset({"m/s2", "rad/s", "T", "V"})
"""Where real hardware always shows noise: a signal that stands still comes from a chip that hangs or sleeps."""
BOUNDED_UNITS = NOISY_UNITS | {"A", "Cel", "Pa"}
"""Where the end of the range is no value that one sees for long; 0 lx, 100 %RH and black pixels are."""

State = Literal["ok", "unplugged", "silent", "nan", "time", "rate", "stuck", "saturated"]
_Floats = NDArray[np.float64]
_Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict on one sensor; `reason` has words and numbers for a person, empty when it is well."""

    state: State = "ok"
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether its samples count."""
        return self.state == "ok"


@dataclass(frozen=True, slots=True)
class Distrust:
    """A stretch of sample time [begin_s, end_s) whose samples are not used."""

    begin_s: float
    end_s: float
    state: State


@dataclass(frozen=True, slots=True)
class Limits:
    """What a window is held against. Times in seconds; columns are those of the values."""

    rate_hz: float
    span_s: float
    framed: bool
    low: _Floats
    high: _Floats
    bounded: tuple[int, ...]
    noisy: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, channels: Sequence[ProfileChannel], *, rate_hz: float, span_s: float, shape: tuple[int, ...] = ()
    ) -> Limits:
        """For a sensor's channels as its profile declares them, in windows of `span_s`."""
        units = [channel.unit for channel in channels]
        groups = [tuple(i for i, u in enumerate(units) if u == unit) for unit in dict.fromkeys(units)]
        return cls(
            rate_hz=rate_hz,
            span_s=span_s,
            framed=bool(shape),
            low=np.array([channel.range[0] for channel in channels]),
            high=np.array([channel.range[1] for channel in channels]),
            bounded=() if shape else tuple(i for i, unit in enumerate(units) if unit in BOUNDED_UNITS),
            noisy=() if shape else tuple(group for group in groups if units[group[0]] in NOISY_UNITS),
        )

    @property
    def expected(self) -> float:
        """Samples in a window."""
        return self.rate_hz * self.span_s


def gap_s(rate_hz: float) -> float:
    """The longest step between samples of a live sensor that is no gap, in seconds."""
    return max(GAP_PERIODS / rate_hz, GAP_S)


def silent_s(rate_hz: float) -> float:
    """How long a live sensor may say nothing."""
    return max(SILENT_S, SILENT_PERIODS / rate_hz)


class SensorHealth:
    """The state machine of one live sensor: `push` what it reads, `tick` when nothing came, ask for `health`.

    Windows here are stretches of `limits.span_s` of sample time one after the other, each judged when it is over. A
    fault that is not seen in the window in which it began spoils that window too: both are distrusted.
    """

    def __init__(self, limits: Limits) -> None:
        self.health = Health()
        self.trusted_until_s = np.inf
        """While it is not well: the sample time up to which samples are still used, those that come later are not."""
        self._limits = limits
        self._heard_s: float | None = None
        self._distrust: list[Distrust] = []
        self._good = self._sparse = 0
        self._top = -np.inf
        self._parts: list[tuple[_Floats, _Values]] = []  # raw stamps and values of the window so far
        self._begin_s = 0.0
        self._before_s = np.inf  # where the window before began

    def opened(self, now: float, *, rate_hz: float) -> None:
        """It was opened again, perhaps at another rate; it counts again after RECOVER_WINDOWS good windows."""
        old = self._limits
        self._limits = Limits(rate_hz, old.span_s, old.framed, old.low, old.high, old.bounded, old.noisy)
        self._heard_s, self._top = now, -np.inf
        self._forget()

    def failed(self, reason: str) -> None:
        """It delivers no more."""
        self._forget()
        self._turn(Health("unplugged", reason), self._top)

    def tick(self, now: float) -> Health:
        """Judge silence: `now` in monotonic seconds."""
        self._heard_s = now if self._heard_s is None else self._heard_s
        quiet_s = now - self._heard_s
        if self.health.state != "unplugged" and quiet_s > silent_s(self._limits.rate_hz):
            self._forget()
            self._turn(Health("silent", f"no sample for {quiet_s:.1f} s"), self._top)
        return self.health

    def hangs(self, now: float) -> bool:
        """Whether it is silent or stuck and does not mend by itself: a chip that lost its power wakes up asleep."""
        if self.health.state == "silent":
            return self._heard_s is not None and now - self._heard_s > silent_s(self._limits.rate_hz)
        return self.health.state == "stuck" and self._good == 0

    def push(self, reading: Reading, now: float) -> Health:
        """Judge the next samples, raw as they came: also those that are no numbers or whose stamps jump."""
        times = reading.times
        if not len(times):
            return self.health
        back = np.flatnonzero(np.diff(times, prepend=self._top) < -self._limits.span_s)
        for start, end in zip([0, *back.tolist()], [*back.tolist(), len(times)], strict=True):
            if start in back:  # the clock was set back: what comes is held against the new time
                self._forget()
                self._top = -np.inf
            if end > start:
                self._take(times[start:end], reading.values[start:end], now)
        return self.health

    def distrusted(self) -> list[Distrust]:
        """The stretches that were found bad since the last call, oldest first."""
        found, self._distrust = self._distrust, []
        return found

    def _take(self, times: _Floats, values: _Values, now: float) -> None:
        tops = np.maximum(np.maximum.accumulate(times), self._top)
        if tops[-1] > self._top:
            self._heard_s = now
        most = int(FAST * self._limits.expected) + 8
        place = 0
        while place < len(times):
            if not self._parts:
                self._begin_s = float(tops[place])
            have = sum(len(stamps) for stamps, _ in self._parts)
            due = int(np.searchsorted(tops, self._begin_s + self._limits.span_s - 1e-9))
            end = max(place, min(due, place + most - have))
            if end > place:
                self._parts.append((times[place:end], values[place:end]))
            if end < len(times) or have + end - place >= most:
                self._close(min(float(tops[min(end, len(times) - 1)]), self._begin_s + self._limits.span_s))
            place = end
        self._top = float(tops[-1])

    def _close(self, end_s: float) -> None:
        times = np.concatenate([stamps for stamps, _ in self._parts])
        values = np.concatenate([rows for _, rows in self._parts])
        begin_s, self._parts = self._begin_s, []
        sparse = len(times) < SPARSE * self._limits.expected
        self._sparse = self._sparse + 1 if sparse else 0
        found = judge(times, values, self._limits)
        if found.ok and self._sparse >= NOTICE_WINDOWS:
            found = Health("rate", f"{len(times)} of {self._limits.expected:.0f} samples in a window")
        self._good = self._good + 1 if found.ok and not sparse else 0
        if not found.ok:
            if self.health.ok and self._before_s < begin_s:  # the fault began somewhere in the window before
                self._distrust.append(Distrust(self._before_s, begin_s, found.state))
            self._turn(found, min(self._before_s, begin_s))
        self._before_s = begin_s
        if not self.health.ok:
            self._distrust.append(Distrust(begin_s, end_s, self.health.state))
            if self._good >= RECOVER_WINDOWS:
                self._turn(Health(), np.inf)

    def _turn(self, health: Health, trusted_until_s: float) -> None:
        if self.health.ok or health.ok:
            self.trusted_until_s = trusted_until_s
        if health.state != self.health.state:
            self.health = health
        if not health.ok:
            self._good = 0

    def _forget(self) -> None:
        self._parts, self._before_s = [], np.inf
        self._good = self._sparse = 0


def judge(times: _Floats, values: _Values, limits: Limits) -> Health:
    """What the samples of one window show: stamps (n,) as they came, values (n, width) in the profile's units."""
    number = np.isfinite(values).all(axis=1)
    share = 1.0 - float(number.mean())
    if share > NAN_SHARE:
        return Health("nan", f"{share:.0%} of the samples are no numbers")
    steps = np.diff(times)
    jump_s = max(JUMP_S, JUMP_PERIODS / limits.rate_hz)
    jumps = int(((steps <= 0) | (steps > jump_s)).sum())
    if jumps >= JUMPS:
        return Health("time", f"{jumps} of {len(times)} stamps jump")
    even = steps[(steps > 0) & (steps <= jump_s)]
    if len(even) >= 3:
        rate_hz = len(even) / float(even.sum())
        if not SLOW <= rate_hz / limits.rate_hz <= FAST:
            return Health("rate", f"{rate_hz:.3g} samples per second, {limits.rate_hz:g} expected")
    return _judge_values(values[number], limits)


def _judge_values(values: _Values, limits: Limits) -> Health:
    count = len(values)
    if limits.framed:
        if count >= STUCK_FRAMES and all(np.array_equal(values[0], frame) for frame in values[1:]):
            return Health("stuck", f"{count} equal frames")
        return Health()
    if count >= STUCK_SAMPLES:
        still = (values == values[0]).all(axis=0)
        for group in limits.noisy:
            if still[list(group)].all():
                return Health("stuck", f"{count} equal samples")
    if count and limits.bounded:
        columns = list(limits.bounded)
        at_end = (values[:, columns] <= limits.low[columns]) | (values[:, columns] >= limits.high[columns])
        share = float(at_end.any(axis=1).mean())
        if share > SATURATED_SHARE:
            return Health("saturated", f"{share:.0%} of the samples at the end of the range")
    return Health()
