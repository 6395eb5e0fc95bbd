"""How fast a sensor really samples, measured by its stamps on the device's monotonic clock. Pure."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

ANCHOR_S = 1.0
"""A point of the estimate is kept each second ..."""
NUM_ANCHORS = 300
"""... for the last 5 minutes."""
SETTLE_S = 10.0
"""A rate is told from this much on; `ppm` from `SETTLE_PPM_S` on, when jitter of some ms has averaged out."""
SETTLE_PPM_S = 60.0
_FIRST_STEPS = 16
_PAUSE = 20.0  # periods: over a longer pause samples cannot be counted by their stamps


class DriftEstimate:
    """Counts samples against their stamps; the rate is the median of slopes over half of what is kept.

    A lost sample is counted by the time that it leaves open, so that losses do not look like a slow clock. After a
    pause of more than 20 periods the estimate begins anew.
    """

    def __init__(self, declared_hz: float) -> None:
        self.declared_hz = declared_hz
        self._first: list[float] = []
        self._period_s: float | None = None
        self._last_s = 0.0
        self._count = 0.0
        self._anchors: deque[tuple[float, float]] = deque(maxlen=NUM_ANCHORS)

    def push(self, times: NDArray[np.float64]) -> None:
        """The stamps of the next samples, rising."""
        if not len(times):
            return
        if self._period_s is None:
            self._first += times.tolist()
            if len(self._first) <= _FIRST_STEPS:
                return
            times = np.array(self._first)
            steps = np.diff(times)
            middle = float(np.median(steps))
            if float(steps.max()) > _PAUSE * middle:
                self._first = times[int(steps.argmax()) + 1 :].tolist()
                return
            # stamps that come in bunches say nothing one by one: then only their mean does
            self._period_s = middle if middle > 0.5 * float(steps.mean()) else float(steps.mean())
            self._first, self._last_s, self._count = [], float(times[0]), 0.0
            self._anchors.append((self._last_s, 0.0))
            times = times[1:]
        steps = np.diff(times, prepend=self._last_s)
        if float(steps.max()) > _PAUSE * self._period_s:
            self._restart(times[int(steps.argmax()) :])
            return
        counts = self._count + np.cumsum(np.maximum(1.0, np.round(steps / self._period_s)))
        for time, count in zip(times.tolist(), counts.tolist(), strict=True):
            if time >= self._anchors[-1][0] + ANCHOR_S:
                self._anchors.append((time, count))
        self._last_s, self._count = float(times[-1]), float(counts[-1])

    @property
    def rate_hz(self) -> float | None:
        """Samples per second; None until 10 s were seen without a pause."""
        return self._slope(SETTLE_S)

    @property
    def ppm(self) -> float | None:
        """How much faster than declared, in parts per million (negative: slower); None until a minute was seen."""
        rate = self._slope(SETTLE_PPM_S)
        return None if rate is None else (rate / self.declared_hz - 1) * 1e6

    def _slope(self, settle_s: float) -> float | None:
        if len(self._anchors) < 4 or self._anchors[-1][0] - self._anchors[0][0] < settle_s:
            return None
        points = np.array(self._anchors)
        half = len(points) // 2
        ahead, behind = points[half:], points[: len(points) - half]
        return float(np.median((ahead[:, 1] - behind[:, 1]) / (ahead[:, 0] - behind[:, 0])))

    def _restart(self, times: NDArray[np.float64]) -> None:
        self._anchors.clear()
        self._period_s = None
        self._first = []
        self.push(times)
