"""An MPU-6050 without hardware, as a model of its registers. A bus for it is in `fake_smbus2`.

    chip = FakeMpu6050(lambda channel, t: 9.80665 if channel == "az" else 0.0)
    with install_fake_smbus2({7: {0x68: chip}}):
        ...                       # what opens /dev/i2c-7 finds the chip
        chip.unplug()

Registers: InvenSense RM-MPU-6000A-00 4.2. Modelled: burst reads that count up, the reset bit that clears itself, sleep,
ranges, the sample rate, the FIFO with its overflow. Not modelled: filters, interrupts, self-test, the I2C master.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from blossom_edge.testing.fake_chip import FakeChip

CHANNELS = ("ax", "ay", "az", "temp", "gx", "gy", "gz")
"""In the order of the registers. In m/s2, degrees Celsius and rad/s."""
Signal = Callable[[str, float], float]
"""(channel, seconds on the chip's clock) -> what it would measure."""

_DIVIDER, _CONFIG, _GYRO, _ACCEL, _FIFO_ENABLE = 0x19, 0x1A, 0x1B, 0x1C, 0x23
_STATUS, _DATA, _PATH_RESET, _USER, _POWER, _COUNT, _FIFO, _WHO = 0x3A, 0x3B, 0x68, 0x6A, 0x6B, 0x72, 0x74, 0x75
_FIFO_PARTS = ((0x08, 0, 6), (0x80, 6, 8), (0x40, 8, 10), (0x20, 10, 12), (0x10, 12, 14))
_G, _FIFO_BYTES = 9.80665, {0x68: 1024}


def at_rest(channel: str, seconds: float) -> float:
    """A chip that lies flat on a table at 25 degrees."""
    return {"az": _G, "temp": 25.0}.get(channel, 0.0)


class FakeMpu6050(FakeChip):
    """The chip. Its faults may be called from another thread while it is read.

    signal: what it measures. clock: seconds. who_am_i: of a relative, or of something else.
    """

    def __init__(
        self, signal: Signal = at_rest, *, clock: Callable[[], float] = time.monotonic, who_am_i: int = 0x68
    ) -> None:
        super().__init__()
        self.signal = signal
        self.resets = 0
        """How often it lost its settings, by command or by `reset`."""
        self.delivered = 0
        """Bytes that were read from its FIFO."""
        self._clock, self._who_am_i = clock, who_am_i
        self._fifo_bytes = _FIFO_BYTES.get(who_am_i, 512)
        self._stuck = self._saturated = False
        self._speed = 1.0
        self._power_on()

    def write(self, data: bytes) -> None:
        """Set registers from the first byte on; one byte alone chooses where to read."""
        with self._lock:
            self._answer()
            if data:
                self._pointer = data[0]
            for value in data[1:]:
                self._set(self._pointer, value)
                self._pointer = self._next(self._pointer)

    def read(self, length: int) -> bytes:
        """Registers from the chosen one on; the FIFO's register does not count up."""
        with self._lock:
            self._answer()
            self._measure()
            found = bytearray()
            for _ in range(length):
                found.append(self._get(self._pointer))
                self._pointer = self._next(self._pointer)
            return bytes(found)

    def stuck(self, on: bool = True) -> None:
        """It repeats its last measurement."""
        with self._lock:
            self._measure()
            self._stuck = on

    def saturate(self, on: bool = True) -> None:
        """Every axis shows the end of its range."""
        with self._lock:
            self._measure()
            self._saturated = on

    def rate(self, factor: float) -> None:
        """Its clock runs that much faster than it should."""
        with self._lock:
            self._measure()
            self._speed = factor
            self._restart()

    def _power_on(self) -> None:
        self.resets += 1
        self._registers = bytearray(128)
        self._registers[_POWER], self._registers[_WHO] = 0x40, self._who_am_i
        self._fifo, self._last_byte, self._pointer = bytearray(), 0, 0
        self._reset_reads = 0
        self._restart()

    def _restart(self) -> None:
        self._origin, self._taken = self._clock(), 0

    @staticmethod
    def _next(register: int) -> int:
        return register if register == _FIFO else (register + 1) % 128

    def _set(self, register: int, value: int) -> None:
        self._measure()
        if register in (_WHO, _STATUS) or _DATA <= register < _DATA + 14:
            return
        if register == _POWER and value & 0x80:
            self._power_on()
            self._reset_reads = 2  # the bit is seen for a while, then it clears itself
            return
        if register == _USER and value & 0x04 and not value & 0x40:
            self._fifo.clear()
        asleep = self._asleep
        self._registers[register] = value & ~0x07 if register in (_USER, _PATH_RESET) else value
        if register in (_DIVIDER, _CONFIG) or asleep != self._asleep:
            self._restart()

    def _get(self, register: int) -> int:
        if register == _FIFO:
            if self._fifo:
                self._last_byte = self._fifo.pop(0)
                self.delivered += 1
            return self._last_byte
        if register in (_COUNT, _COUNT + 1):
            return len(self._fifo) >> 8 if register == _COUNT else len(self._fifo) & 0xFF
        value = self._registers[register]
        if register == _POWER and self._reset_reads:
            self._reset_reads -= 1
            value |= 0x80
        if register == _STATUS:
            self._registers[_STATUS] = 0
        return value

    @property
    def _asleep(self) -> bool:
        return bool(self._registers[_POWER] & 0x40)

    def _measure(self) -> None:
        """Take the samples that fell due since the last look."""
        if self._asleep:
            return
        base = 8000 if self._registers[_CONFIG] & 0x07 in (0, 7) else 1000
        period = (1 + self._registers[_DIVIDER]) / (base * self._speed)
        due = int((self._clock() - self._origin) / period + 1e-6)
        flags = self._registers[_FIFO_ENABLE] if self._registers[_USER] & 0x40 else 0
        seen = max(self._taken, due - self._fifo_bytes) if flags else max(self._taken, due - 1)
        for n in range(seen + 1, due + 1):
            if not self._stuck:
                self._registers[_DATA : _DATA + 14] = self._frame(self._origin + n * period)
            frame = self._registers[_DATA : _DATA + 14]
            for flag, start, end in _FIFO_PARTS:
                if flags & flag:
                    self._fifo += frame[start:end]
        self._taken = max(self._taken, due)
        if len(self._fifo) > self._fifo_bytes:
            del self._fifo[: len(self._fifo) - self._fifo_bytes]
            self._registers[_STATUS] |= 0x10

    def _frame(self, seconds: float) -> bytes:
        per_g = 16384 / 2 ** (self._registers[_ACCEL] >> 3 & 3)
        per_degree_s = (131.0, 65.5, 32.8, 16.4)[self._registers[_GYRO] >> 3 & 3]
        frame = bytearray()
        for channel in CHANNELS:
            value = self.signal(channel, seconds)
            if channel == "temp":
                lsb = (value - 36.53) * 340 if self._who_am_i == 0x68 else (value - 21) * 333.87
            else:
                lsb = value / _G * per_g if channel[0] == "a" else math.degrees(value) * per_degree_s
                lsb = 32767 if self._saturated else lsb
            frame += max(-32768, min(32767, round(lsb))).to_bytes(2, "big", signed=True)
        return bytes(frame)
