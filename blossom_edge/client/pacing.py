"""`UploadPace`: no more than so many kilobits of updates per second, the updates taking turns. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from blossom_edge.codec.messages import UploadChunk

BYTES_PER_KBIT = 125.0
SHA_LENGTH = 16
"""Digits of an update's hash that a chunk carries."""


class UploadPace:
    """Chunks that wait for their time. A chunk that waits already is not taken a second time.

    One chunk goes at once, the next when the line would be free again. Below 27 kbit/s a chunk of 96 KiB takes longer
    than the 30 s after which the gateway forgets an upload.
    """

    def __init__(self, kbps: int) -> None:
        self._bytes_per_s = kbps * BYTES_PER_KBIT
        self._waiting: dict[str, deque[UploadChunk]] = {}
        self._free_at = float("-inf")

    def put(self, chunk: UploadChunk) -> None:
        """Let a chunk wait for its turn."""
        queue = self._waiting.setdefault(chunk.sha, deque())
        if all(chunk.index != known.index for known in queue):
            queue.append(chunk)

    def due(self, now: float, unsettled: Collection[str]) -> UploadChunk | None:
        """The chunk that may be sent now. Those of updates whose hash is not in `unsettled` any more are dropped."""
        wanted = {sha[:SHA_LENGTH] for sha in unsettled}
        self._waiting = {sha: queue for sha, queue in self._waiting.items() if sha in wanted and queue}
        if not self._waiting or now < self._free_at:
            return None
        sha = next(iter(self._waiting))
        queue = self._waiting.pop(sha)
        chunk = queue.popleft()
        self._waiting[sha] = queue
        self._free_at = now + len(chunk.data) / self._bytes_per_s
        return chunk

    def next_due(self) -> float | None:
        """When a waiting chunk may go; None without one."""
        return self._free_at if any(self._waiting.values()) else None

    def clear(self) -> None:
        """The link is down: all that waits is asked for again by the gateway."""
        self._waiting.clear()
