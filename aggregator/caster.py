"""What goes down: each committed block is cast once for all; who misses some asks. No I/O, no clock.

The first two who ask for a chunk get it for themselves; the third makes it be cast again. Sending is paced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId

ASKERS_FOR_CAST = 3
RECAST_S = 2.0
"""A chunk is not cast again within this time of its last cast."""
BURST_BYTES = 2 * 1024 * 1024
CHUNK_BYTES = 96 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk to send: to one device, or to all."""

    key: BlockKey
    version: int
    index: int
    device: DeviceId | None = None


class Caster:
    """The queue of chunks on their way down. `bytes_per_s` paces it; repairs go before casts."""

    def __init__(self, *, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._tokens = float(BURST_BYTES)
        self._filled_at = 0.0
        self._casts: deque[Piece] = deque()
        self._repairs: deque[Piece] = deque()
        self._queued: set[Piece] = set()
        self._askers: dict[tuple[BlockKey, int, int], set[DeviceId]] = {}
        self._cast_at: dict[tuple[BlockKey, int, int], float] = {}

    def cast(self, key: BlockKey, version: int, num_chunks: int) -> None:
        """Send all chunks of a new version to everybody; what is still queued of older ones is dropped."""
        self._casts = deque(p for p in self._casts if p.key != key or p.version >= version)
        self._repairs = deque(p for p in self._repairs if p.key != key or p.version >= version)
        self._queued = {*self._casts, *self._repairs}
        self._askers = {k: v for k, v in self._askers.items() if k[0] != key}
        self._cast_at = {k: v for k, v in self._cast_at.items() if k[0] != key}
        for index in range(num_chunks):
            self._add(Piece(key, version, index))

    def ask(self, device: DeviceId, key: BlockKey, version: int, missing: Sequence[int], now: float) -> None:
        """A device misses these chunks."""
        for index in missing:
            chunk = (key, version, index)
            askers = self._askers.setdefault(chunk, set())
            askers.add(device)
            if Piece(key, version, index) in self._queued:
                continue
            if len(askers) < ASKERS_FOR_CAST:
                self._add(Piece(key, version, index, device))
            elif now - self._cast_at.get(chunk, float("-inf")) >= RECAST_S:
                askers.clear()
                self._add(Piece(key, version, index))

    def due(self, now: float) -> list[Piece]:
        """The chunks to send now."""
        self._fill(now)
        pieces: list[Piece] = []
        while self._tokens >= CHUNK_BYTES and (self._repairs or self._casts):
            piece = (self._repairs or self._casts).popleft()
            self._queued.discard(piece)
            self._tokens -= CHUNK_BYTES
            if piece.device is None:
                self._cast_at[piece.key, piece.version, piece.index] = now
            pieces.append(piece)
        return pieces

    def next_due(self, now: float) -> float | None:
        """When `due` has something to give."""
        if not (self._repairs or self._casts):
            return None
        self._fill(now)
        return now + max(0.0, (CHUNK_BYTES - self._tokens) / self._bytes_per_s)

    def _add(self, piece: Piece) -> None:
        if piece not in self._queued:
            self._queued.add(piece)
            (self._casts if piece.device is None else self._repairs).append(piece)

    def _fill(self, now: float) -> None:
        gained = max(0.0, now - self._filled_at) * self._bytes_per_s
        self._tokens = min(float(BURST_BYTES), self._tokens + gained)
        self._filled_at = now
