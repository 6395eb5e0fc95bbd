"""Takes pictures from a camera as fast as they come and keeps those that are wanted. The capture is this thread's own.

A camera that stands still can hold a grab for many seconds, so nobody else waits for one: not the reader, and not who
closes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.drivers.camera_capture import Capture, Picture

KEEP_S = 5.0
"""Pictures that nobody reads are kept so long."""
CLOSE_S = 2.0
RETRY_S = 0.05
"""Between grabs that fail."""

Shot = tuple[float, NDArray[np.float64]]


class CameraThread:
    """Begins at once. `num_dropped`: pictures that nobody read.

    prepare: from a BGR picture to what is kept of it. A picture is wanted every 1 / rate_hz seconds: the first one that
    is not more than half a picture too early.
    """

    def __init__(
        self,
        capture: Capture,
        prepare: Callable[[Picture], NDArray[np.float64]],
        *,
        rate_hz: float,
        clock: Callable[[], float],
        name: str,
    ) -> None:
        self.num_dropped = 0
        self._capture, self._prepare, self._clock = capture, prepare, clock
        self._period_s = 1.0 / rate_hz
        self._early_s = 0.5 * min(self._period_s, 1.0 / capture.fps if capture.fps else 0.5 * self._period_s)
        self._shots: deque[Shot] = deque(maxlen=max(2, round(KEEP_S * rate_hz)))
        self._change = threading.Condition()
        self._error = ""
        self._heard = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_for_first(self, timeout_s: float) -> None:
        """Wait until a picture has come; it stays to be read.

        Raises:
            OSError: none came in that time.
        """
        with self._change:
            if self._change.wait_for(lambda: bool(self._shots or self._error), timeout_s) and self._shots:
                return
            raise OSError(self._error or f"no picture came within {timeout_s:g} s")

    def read(self, timeout_s: float, *, fail_s: float) -> list[Shot]:
        """The (time, values) that have come; waits for the first.

        Raises:
            OSError: the camera is gone, or no picture was grabbed for `fail_s`.
        """
        with self._change:
            self._change.wait_for(lambda: bool(self._shots or self._error), timeout_s)
            shots = list(self._shots)
            self._shots.clear()
            if not shots and (self._error or self._clock() - self._heard > fail_s):
                raise OSError(self._error or f"no picture came for {fail_s:g} s")
        return shots

    def close(self) -> None:
        """End; a grab that does not return ends later, and closes the camera then."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._take()
        except Exception as error:  # the outermost frame of this thread: OpenCV has errors of its own
            with self._change:
                self._error = str(error) or type(error).__name__
                self._change.notify_all()
        finally:
            self._capture.close()

    def _take(self) -> None:
        due: float | None = None
        while not self._stop.is_set():
            if not self._capture.grab():
                self._stop.wait(RETRY_S)
                continue
            now = self._heard = self._clock()
            if due is not None and now < due - self._early_s:
                continue
            values = self._prepare(self._capture.picture())
            due = now + self._period_s if due is None or now > due + self._period_s else due + self._period_s
            with self._change:
                self.num_dropped += len(self._shots) == self._shots.maxlen
                self._shots.append((now, values))
                self._change.notify_all()
