"""What every fake chip on a bus has: a plug, and a power supply that can fail for a moment."""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod


class FakeChip(ABC):
    """A chip that is plugged in. Its faults may be called from another thread while it is read."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._gone = False

    def unplug(self) -> None:
        """It answers no more: OSError 121."""
        with self._lock:
            self._gone = True

    def replug(self) -> None:
        """It has power again, and none of its settings."""
        with self._lock:
            self._gone = False
            self._power_on()

    def reset(self) -> None:
        """A short loss of power: settings gone."""
        with self._lock:
            self._power_on()

    @abstractmethod
    def _power_on(self) -> None:
        """Be as the chip is when power comes."""

    def _answer(self) -> None:
        if self._gone:
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
