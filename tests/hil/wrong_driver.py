"""A driver that does one thing wrong, by option: what the conformance suite must notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Options, PolledDriver, Samples


class WrongOptions(Options):
    missing: bool = False
    scale: float = 1.0
    lie: float = 1.0
    early: float = 0.0
    pause: float = 0.0
    once: bool = False
    deaf: bool = False


class WrongDriver(PolledDriver):
    Options = WrongOptions
    num_opened: ClassVar[int] = 0

    def open(self) -> None:
        super().open()
        if self.options.missing:
            raise HardwareError("sensor-missing", "nothing at this address", hint="plug it in")
        if self.options.once:
            WrongDriver.num_opened += 1
            if WrongDriver.num_opened > 1:
                raise HardwareError("sensor-missing", "it opens only once", hint="restart the board")
        self._count = 0
        self.rate_hz = self.request.rate_hz * self.options.lie

    def sample(self) -> Sequence[float]:
        self._count += 1
        if self.options.pause and self._count == 50:
            self._pause(self.options.pause)
        wave = 0.3 * math.sin(0.7 * self._count)
        return [self.options.scale * value for value in (wave, -wave, 9.80665 + wave)]

    def read(self, timeout_s: float) -> Samples:
        self.rate_hz = self.request.rate_hz
        samples = super().read(timeout_s)
        return Samples(samples.times - self.options.early, samples.values)
