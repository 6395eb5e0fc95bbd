"""From the timestamps of an IIO device to the host's monotonic clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.drivers.iio_device import IioDevice

CLOCKS = {
    "realtime": time.CLOCK_REALTIME,
    "realtime_coarse": time.CLOCK_REALTIME,
    "monotonic": time.CLOCK_MONOTONIC,
    "monotonic_coarse": time.CLOCK_MONOTONIC,
    "monotonic_raw": time.CLOCK_MONOTONIC_RAW,
    "boottime": getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC),
    "tai": getattr(time, "CLOCK_TAI", time.CLOCK_REALTIME),
}
"""What `current_timestamp_clock` may say (kernel: drivers/iio/industrialio-core.c)."""
_TRIES = 3
_STEP_S = 0.01


def choose_clock(device: IioDevice) -> str:
    """Let the device stamp with the monotonic clock if it can be set; the clock that it uses then."""
    with contextlib.suppress(OSError):
        device.set("current_timestamp_clock", "monotonic")
    return device.read("current_timestamp_clock") or "realtime"


class StampClock:
    """Maps timestamps, and follows a clock that is set while it runs."""

    def __init__(self, name: str, host_clock: Callable[[], float]) -> None:
        self._id, self._clock = CLOCKS.get(name, time.CLOCK_REALTIME), host_clock
        self._same = self._id == time.CLOCK_MONOTONIC and host_clock is time.monotonic
        self._doubt, self._offset = self._measure()

    def seconds(self, stamps: NDArray[np.int64], oldest: float) -> NDArray[np.float64]:
        """Times on the host's clock of stamps in nanoseconds that have just been read.

        oldest: none of them is from before. A clock that was set in the meantime is noticed here: what lies outside
        of [oldest, now] by the old distance of the clocks is taken by the new one.
        """
        seconds = stamps.astype(np.float64) * 1e-9
        if self._same:
            return seconds
        before = self._offset
        doubt, offset = self._measure()
        if doubt <= self._doubt or abs(offset - before) > doubt + self._doubt:  # a better look, or the clock was moved
            self._doubt, self._offset = doubt, offset
        times = seconds + before
        if abs(self._offset - before) < _STEP_S:
            return times
        outside = (times > self._clock() + _STEP_S) | (times < oldest - _STEP_S)
        found: NDArray[np.float64] = np.where(outside, seconds + self._offset, times)
        return found

    def _measure(self) -> tuple[float, float]:
        """How wrong it may be (half the time of the quickest of some looks), and host's clock minus device's."""
        if self._same:
            return 0.0, 0.0
        looks = []
        for _ in range(_TRIES):
            first = self._clock()
            other = time.clock_gettime(self._id)
            last = self._clock()
            looks.append(((last - first) / 2, (first + last) / 2 - other))
        return min(looks)
