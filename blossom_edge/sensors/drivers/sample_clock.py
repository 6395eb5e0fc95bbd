"""From the number of a sample to the time it was taken, for a device that sends blocks at a rate of its own. Pure.

The times follow the count of samples, so that the jitter of a block's arrival does not show. The device's clock may go
wrong against ours: nothing can arrive before it was taken, so the least (arrival - count / rate) of the last seconds
tells where the two stand, and the times are led there so slowly that a step stays within 0.2 % of a period.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

SLEW = 0.002
"""Crystals of sound cards are right within 0.01 %; this is more than any of them needs."""
LOOK_BACK_S = 10.0
JUMP_S = 0.2
"""Where count and clock are so far apart the count is wrong: samples were lost, or the rate is another one."""
KEEP_S = 5.0


class SampleClock:
    """Times of samples 0, 1, 2... `after`: all times are later than this one."""

    def __init__(self, rate_hz: float, *, after: float = -np.inf) -> None:
        self._rate_hz = rate_hz
        self._after = after
        self._seen: deque[tuple[float, float]] = deque()
        self._offset: float | None = None
        self._counts: list[float] = []
        self._times: list[float] = []

    def arrived(self, num_samples: int, now: float) -> None:
        """A block is here at `now`, and with it `num_samples` since the start."""
        taken = num_samples / self._rate_hz
        distance = now - taken
        while self._seen and self._seen[-1][1] >= distance:
            self._seen.pop()
        self._seen.append((taken, distance))
        while self._seen[0][0] < taken - LOOK_BACK_S:
            self._seen.popleft()
        least = self._seen[0][1]
        if self._offset is None:
            self._offset = max(distance, self._after)  # the first sample stands at `offset`
            self._note(0.0, self._offset)
        before_s, before = self._counts[-1] / self._rate_hz, self._times[-1]
        room = SLEW * (taken - before_s)
        if distance - self._offset > JUMP_S and least - self._offset > JUMP_S:
            before += least - self._offset  # the samples that are missing are a gap, not a slow block
            self._note(self._counts[-1] + 0.5, before + 0.5 / self._rate_hz)
            self._offset = least
        elif self._offset - distance > JUMP_S:
            self._offset = distance
            self._seen.clear()
            self._seen.append((taken, distance))
        else:
            self._offset += min(max(least - self._offset, -room), room)
        self._note(num_samples, max(taken + self._offset, before + 0.01 * (taken - before_s)))

    def at(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """Monotonic seconds of samples by number; they need not be whole, and have to be of the last seconds."""
        times = np.interp(samples, self._counts, self._times)
        over = samples - self._counts[-1]
        return np.where(over > 0, self._times[-1] + over / self._rate_hz, times)

    def _note(self, count: float, time: float) -> None:
        self._counts.append(count)
        self._times.append(time)
        while len(self._counts) > 2 and self._counts[1] < count - KEEP_S * self._rate_hz:
            del self._counts[0], self._times[0]
