"""Cutting bytes into chunks and putting them together again in any order, with a list of what is missing.

Pieces are kept as they come: an assembly never holds more memory than has arrived. The size that a
peer may announce at all is the caller's to check (it is known from the spec).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from blossom_edge.codec.messages import MAX_CHUNK_BYTES, MAX_CHUNKS
from blossom_edge.core.errors import FrameError

MAX_DATA = MAX_CHUNK_BYTES
"""Bytes in every chunk but the last, which has the rest."""


def num_chunks(num_bytes: int, size: int = MAX_DATA) -> int:
    """Chunks that `num_bytes` bytes are cut into."""
    return -(-num_bytes // size)


def chunk_span(index: int, size: int = MAX_DATA) -> slice:
    """Where chunk `index` stands in the whole: `data[chunk_span(index)]`."""
    return slice(index * size, (index + 1) * size)


def split(data: bytes, size: int = MAX_DATA) -> list[bytes]:
    """Cut into chunks."""
    return [data[chunk_span(index, size)] for index in range(num_chunks(len(data), size))]


class Assembler:
    """Collects the chunks of one transfer of known length and hash.

    Raises:
        FrameError: fewer than one byte or more than `MAX_CHUNKS` chunks.
    """

    def __init__(self, num_bytes: int, sha256: str, *, size: int = MAX_DATA) -> None:
        self.count = num_chunks(num_bytes, size)
        if not 1 <= self.count <= MAX_CHUNKS:
            raise FrameError(f"{num_bytes} bytes make {self.count} chunks, a transfer has 1 to {MAX_CHUNKS}")
        self.num_bytes = num_bytes
        self.sha256 = sha256
        self._size = size
        self._pieces: dict[int, bytes] = {}

    def add(self, index: int, data: bytes) -> bool:
        """Keep a chunk (not a copy of it); False if it was here already, whatever it holds.

        Raises:
            FrameError: no such chunk, or not of its length.
        """
        if not 0 <= index < self.count:
            raise FrameError(f"chunk {index} of {self.count}")
        expected = min(self._size, self.num_bytes - index * self._size)
        if len(data) != expected:
            raise FrameError(f"chunk {index} has {len(data)} bytes, not {expected}")
        if index in self._pieces:
            return False
        self._pieces[index] = data
        return True

    @property
    def complete(self) -> bool:
        """Whether every chunk is here."""
        return len(self._pieces) == self.count

    @property
    def missing(self) -> list[int]:
        """Chunks that are not here, in order."""
        return [index for index in range(self.count) if index not in self._pieces]

    def bitmap(self) -> str:
        """`missing` as a bitmap."""
        return make_bitmap(self.missing, self.count)

    def result(self) -> bytes:
        """The whole, when `complete`.

        Raises:
            FrameError: chunks are missing, or the whole has another hash. After the latter all chunks are
                forgotten, for nobody knows which one is wrong: all are `missing` again.
        """
        if not self.complete:
            raise FrameError(f"{self.count - len(self._pieces)} of {self.count} chunks are missing")
        whole = b"".join(self._pieces[index] for index in range(self.count))
        if hashlib.sha256(whole).hexdigest() != self.sha256:
            self._pieces.clear()
            raise FrameError(f"the chunks do not have the hash announced ({self.sha256[:16]})")
        return whole


def make_bitmap(indices: Iterable[int], count: int) -> str:
    """Write chunk numbers below `count` as hex: bit 0 of the first byte is chunk 0.

    Raises:
        ValueError: a number that is not below `count`.
    """
    bits = bytearray(-(-count // 8))
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"chunk {index} of {count}")
        bits[index // 8] |= 1 << (index % 8)
    return bits.hex()


def parse_bitmap(text: str, count: int) -> list[int]:
    """Read the chunk numbers of a bitmap, in order; the empty text means all of them.

    Raises:
        FrameError: not hex, not as long as `count` needs, or a bit beyond.
    """
    if not text:
        return list(range(count))
    num_bytes = -(-count // 8)
    try:
        bits = bytes.fromhex(text) if len(text) == 2 * num_bytes else b""
    except ValueError:
        bits = b""
    if len(bits) != num_bytes or int.from_bytes(bits, "little") >> count:
        raise FrameError(f"no bitmap of {count} chunks")
    return [index for index in range(count) if bits[index // 8] >> (index % 8) & 1]
