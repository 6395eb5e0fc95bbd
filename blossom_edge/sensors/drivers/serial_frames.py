"""Lines of numbers from a microcontroller: cut out of a stream of bytes, checked and read. Pure; opens no port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES_PER_FIELD = 40
"""Longer lines are no lines: the other end speaks at another speed, or no text."""


class DamagedLine(ValueError):
    """A line that is not of the format; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One sample. tick: the device's counter, or None. values: one per column. label: "" for none."""

    tick: int | None
    values: tuple[float, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """What a line holds: a counter or not, `num_values` numbers, a label or not, a checksum or not."""

    num_values: int
    counter: bool = False
    label: bool = False
    checksum: bool = False

    @property
    def num_fields(self) -> int:
        """Fields between commas."""
        return self.num_values + self.counter + self.label

    @property
    def max_bytes(self) -> int:
        """The longest line that is taken for one."""
        return MAX_BYTES_PER_FIELD * (self.num_fields + 1)

    def read(self, line: bytes) -> Line | None:
        """The sample of a line without its end; None for an empty line and for a comment.

        Raises:
            DamagedLine: it is neither.
        """
        line = line.strip()
        if not line or line.startswith(b"#"):
            return None
        body, star, told = line.rpartition(b"*")
        if not star:
            if self.checksum:
                raise DamagedLine("it has no checksum")
            body = line
        elif told.upper() != b"%02X" % checksum(body):
            raise DamagedLine(f"checksum: expected {checksum(body):02X}")
        try:
            fields = body.decode("ascii").split(",")
        except UnicodeDecodeError:
            raise DamagedLine("it is no text") from None
        if len(fields) != self.num_fields:
            raise DamagedLine(f"found {len(fields)} fields, expected {self.num_fields}")
        label = fields.pop().strip() if self.label else ""
        tick = _counter(fields.pop(0)) if self.counter else None
        return Line(tick, tuple(map(_number, fields)), label)


class LineCutter:
    """Cuts a stream of bytes into lines. What comes before the first end of a line is half a line and dropped."""

    def __init__(self, max_bytes: int) -> None:
        self.num_too_long = 0
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._skipping = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` ends."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._rest + line)
            self._rest.clear()
            if self._skipping:
                self._skipping = False
            elif len(whole) > self._max_bytes:
                self.num_too_long += 1
            else:
                yield whole
        self._rest += rest
        if len(self._rest) > self._max_bytes:
            self.num_too_long += not self._skipping
            self._rest.clear()
            self._skipping = True


def checksum(body: bytes) -> int:
    """All bytes joined by XOR, as NMEA 0183 does between its `$` and `*`."""
    result = 0
    for byte in body:
        result ^= byte
    return result


def _number(text: str) -> float:
    if "_" in text:  # Python's float() takes 1_0 for 10
        raise DamagedLine(f"found {text!r}, expected a number")
    try:
        return float(text)
    except ValueError:
        raise DamagedLine(f"found {text!r}, expected a number") from None


def _counter(text: str) -> int:
    if not text.strip().isdecimal():
        raise DamagedLine(f"found {text!r}, expected a whole number that counts")
    return int(text)
