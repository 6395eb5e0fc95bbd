"""Opens a sensor again in a thread of its own: hardware may take many seconds, and the device must answer meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from blossom_edge.core.errors import BlossomError, HardwareError
from blossom_edge.sensors.base import Sensor

log = logging.getLogger(__name__)
Spawn = Callable[[Callable[[], None]], object]
"""Runs something elsewhere, or at once."""


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that does not keep the process alive."""
    threading.Thread(target=work, name="opens a sensor", daemon=True).start()


class Reopening:
    """Closes a sensor and opens it, from now on. The sensor is not to be touched by others until `done`."""

    def __init__(self, sensor: Sensor, *, spawn: Spawn = in_thread) -> None:
        self._sensor = sensor
        self._changed = threading.Condition()
        self._done = self._given_up = False
        self._error: BlossomError | None = None
        spawn(self._run)

    @property
    def done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._done

    def check(self) -> None:
        """Once it is done, whether the sensor is open.

        Raises:
            BlossomError: it could not be opened.
        """
        if self._error is not None:
            raise self._error

    def give_up(self, timeout_s: float) -> bool:
        """Wait so long for its end; whether that came. Else the sensor is closed when it does come."""
        with self._changed:
            self._given_up = not self._changed.wait_for(lambda: self._done, timeout_s)
            return not self._given_up

    def _run(self) -> None:
        try:
            self._sensor.close()
            self._sensor.open()
        except BlossomError as error:
            self._error = error
        except Exception as error:  # the outermost frame of this thread: a sensor of other people
            log.debug("sensor cannot be opened", exc_info=True)
            self._error = HardwareError("sensor-failed", f"{type(error).__name__}: {error}", hint="a fault of ours?")
        with self._changed:
            self._done = True
            self._changed.notify_all()
            given_up = self._given_up
        if given_up:
            self._sensor.close()
