"""From the counter that a sender puts into its samples to this machine's monotonic clock. Pure: the arrival is told.

A sample cannot come before it was taken, so the sample with the shortest way tells most: the distance of the two clocks
is the smallest (arrival - device time) seen, let up by the drift that a sender's clock may have. Late arrivals, by
whatever buffer, thus do not move the times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CRYSTAL_DRIFT, COUNTED_DRIFT = 0.005, 0.1
"""How much slower a sender may go than it says. A ceramic resonator, the worst clock of a microcontroller, is allowed
0.5 %; where samples are counted their rate is meant, which is often only roughly as declared."""
BITS_32 = 2**32
"""Arduino's millis() and micros() begin at 0 again here: after 49.7 days, and after 71.6 minutes."""


class DeviceTime:
    """Times of the samples of one sender, within `max_lag_s` of their arrival, whatever its clock does.

    tick_s: one tick of its counter in seconds. wrap: the counter begins at 0 again after so many ticks (None: never).
    A counter that goes back in another way was started anew, and the clocks are put side by side anew.
    """

    def __init__(
        self, tick_s: float, *, wrap: int | None = BITS_32, drift: float = CRYSTAL_DRIFT, max_lag_s: float = 1.0
    ) -> None:
        self.num_restarts = 0
        self._tick_s, self._wrap, self._drift, self._max_lag_s = tick_s, wrap, drift, max_lag_s
        self._tick: float | None = None
        self._device_s = 0.0
        self._arrival = -math.inf
        self._distance: float | None = None
        self._newest = -math.inf

    def times(self, ticks: Sequence[float], arrival: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Monotonic seconds of samples that were read together at `arrival`, oldest first, the newest just come.

        The second array tells which rise beyond all before them; others are to be dropped: there are a few after the
        distance was found to be smaller than it seemed.
        """
        found: list[float] = []
        for run in self._runs(ticks, arrival):
            distance = self._fit(run[-1], arrival)
            found += [seconds + distance for seconds in run]
        self._arrival = arrival
        rises = []
        for seconds in found:
            rises.append(seconds > self._newest)
            self._newest = max(self._newest, seconds)
        return np.array(found, dtype=np.float64), np.array(rises, dtype=bool)

    def _runs(self, ticks: Sequence[float], arrival: float) -> Iterator[list[float]]:
        """Device seconds, without wraps, in runs that end where the device started anew."""
        run: list[float] = []
        for tick in ticks:
            step = 0.0 if self._tick is None else tick - self._tick
            if step < 0 and self._wrap is not None:
                wrapped = step + self._wrap
                if wrapped * self._tick_s <= arrival - self._arrival + self._max_lag_s:
                    step = wrapped
            if step < 0:
                if run:
                    yield run
                run, step = [], 0.0
                self._distance = None
                self.num_restarts += 1
            self._tick = tick
            self._device_s += step * self._tick_s
            run.append(self._device_s)
        if run:
            yield run

    def _fit(self, newest: float, arrival: float) -> float:
        seen = arrival - newest
        if self._distance is None:
            self._distance = seen
        else:
            drifted = self._distance + self._drift * max(0.0, arrival - self._arrival)
            self._distance = max(min(seen, drifted), seen - self._max_lag_s)
        return self._distance
