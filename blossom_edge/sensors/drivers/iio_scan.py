"""How the kernel packs the samples of an IIO buffer: the type of each element, its place in a scan, its numbers. Pure.

Elements stand in the order of their index, each aligned to its own length, the whole scan to its longest element
(kernel: `iio_compute_scan_bytes` in drivers/iio/industrialio-buffer.c; Documentation/ABI/testing/sysfs-bus-iio,
`in_X_type`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TYPE = re.compile(r"(be|le):([su])(\d+)/(\d+)(?:X(\d+))?>>(\d+)")
TIMESTAMP = "in_timestamp"


@dataclass(frozen=True, slots=True)
class ScanType:
    """`be:s12/16X3>>4`: `repeat` values of `storage` bits each; a value is the lowest `bits` after a shift right."""

    big_endian: bool
    signed: bool
    bits: int
    storage: int
    repeat: int
    shift: int

    @classmethod
    def parse(cls, text: str) -> ScanType:
        """Read the text of an `in_X_type` attribute.

        Raises:
            ValueError: it is none, or more than 64 bits wide.
        """
        match = _TYPE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"scan type: found {text.strip()!r}, expected one like le:s16/16>>0")
        endian, sign, bits, storage, repeat, shift = match.groups()
        found = cls(endian == "be", sign == "s", int(bits), int(storage), int(repeat or 1), int(shift))
        if (
            found.storage % 8
            or not 8 <= found.storage <= 64
            or not 1 <= found.bits <= found.storage
            or not found.repeat
        ):
            raise ValueError(f"scan type: found {text.strip()!r}, expected 8 to 64 bits in whole bytes")
        return found

    @property
    def length(self) -> int:
        """Bytes of all its values together, which it is also aligned to."""
        return self.storage // 8 * self.repeat

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest value it can hold."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


@dataclass(frozen=True, slots=True)
class ScanElement:
    """One channel of a scan, as its three files say."""

    name: str
    index: int
    type: ScanType


class ScanLayout:
    """Where each of the enabled elements lies in a scan of `size` bytes."""

    def __init__(self, elements: Iterable[ScanElement]) -> None:
        self.elements: dict[str, ScanElement] = {}
        self.offsets: dict[str, int] = {}
        end, longest = 0, 1
        for element in sorted(elements, key=lambda e: e.index):
            length = element.type.length
            end += -end % length
            self.elements[element.name], self.offsets[element.name] = element, end
            end += length
            longest = max(longest, length)
        self.size = end + -end % longest

    def values(self, data: bytes, name: str) -> NDArray[np.int64]:
        """The numbers of one element in whole scans, (n, repeat). An unsigned one of 64 bits wraps above 2**63."""
        kind, start = self.elements[name].type, self.offsets[name]
        width = kind.storage // 8
        scans = np.frombuffer(data, np.uint8).reshape(-1, self.size)
        parts = scans[:, start : start + kind.length].reshape(-1, kind.repeat, width)
        words = np.zeros((*parts.shape[:2], 8), np.uint8)
        words[..., :width] = parts[..., ::-1] if kind.big_endian else parts
        found = words.view("<u8")[..., 0] >> np.uint64(kind.shift)
        spare = np.uint64(64 - kind.bits)
        found = found << spare  # the highest bit of the value becomes the sign
        signed: NDArray[np.int64] = found.view(np.int64) >> np.int64(64 - kind.bits)
        plain: NDArray[np.int64] = (found >> spare).view(np.int64)
        return signed if kind.signed else plain
