"""An ADS1115 without hardware: its conversion and config registers. A bus for it is in `fake_smbus2`.

Register layout: Texas Instruments SBAS444D, 9.6. Modelled: multiplexer, gain with clipping, continuous and single
conversions (finished at once). Not modelled: the comparator, the conversion time, noise.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from blossom_edge.testing.fake_chip import FakeChip

_CONVERSION, _CONFIG = 0, 1
_RESET = 0x8583
_PAIRS = ((0, 1), (0, 3), (1, 3), (2, 3))
_FULL_SCALE_V = (6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256)

Signal = Callable[[int, float], float]
"""(pin 0 to 3, seconds on the chip's clock) -> volts against ground."""


class FakeAds1115(FakeChip):
    """The chip. Its faults may be called from another thread while it is read."""

    def __init__(self, signal: Signal, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._signal, self._clock, self._began = signal, clock, clock()
        self._stuck_at: float | None = None
        self._power_on()

    def write(self, data: bytes) -> None:
        """Choose a register, and set it when two bytes follow."""
        with self._lock:
            self._answer()
            if data:
                self._pointer = data[0] & 3
            if len(data) >= 3:
                self._registers[self._pointer] = struct.unpack(">H", data[1:3])[0]

    def read(self, length: int) -> bytes:
        """The chosen register; conversions are always finished."""
        with self._lock:
            self._answer()
            value = self._convert() if self._pointer == _CONVERSION else self._registers[self._pointer]
            if self._pointer == _CONFIG:
                value |= 0x8000
            return struct.pack(">H", value & 0xFFFF)[:length]

    def stuck(self) -> None:
        """It repeats what it would measure now."""
        with self._lock:
            self._stuck_at = self._volts()

    def saturate(self) -> None:
        """The input stands at the supply, as that of a lead that fell off."""
        with self._lock:
            self._stuck_at = 10.0

    def clear(self) -> None:
        """No more fault."""
        with self._lock:
            self._stuck_at = None

    def _power_on(self) -> None:
        self._registers = [0, _RESET, 0x8000, 0x7FFF]
        self._pointer = 0

    def _volts(self) -> float:
        input_ = self._registers[_CONFIG] >> 12 & 7
        seconds = self._clock() - self._began
        if input_ >= 4:
            return self._signal(input_ - 4, seconds)
        plus, minus = _PAIRS[input_]
        return self._signal(plus, seconds) - self._signal(minus, seconds)

    def _convert(self) -> int:
        full = _FULL_SCALE_V[self._registers[_CONFIG] >> 9 & 7]
        volts = self._volts() if self._stuck_at is None else self._stuck_at
        return max(-32768, min(32767, round(volts / full * 32768)))
