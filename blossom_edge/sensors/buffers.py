"""The samples of one sensor that windows are still to be cut from. Frames are kept as they came, without copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.base import Reading


class Buffer:
    """Grows at its end, is forgotten at its beginning.

    times: (n,) rising. labels: task -> (n, ...), for each task that ever had one; samples without are filled up.
    """

    def __init__(self) -> None:
        self.times: NDArray[np.float64] = np.zeros(0)
        self.labels: dict[str, NDArray[Any]] = {}
        self._chunks: deque[NDArray[np.floating]] = deque()
        self._skipped = 0  # rows of the first chunk that are forgotten
        self._holes: NDArray[np.float64] = np.zeros(0)

    def append(
        self,
        reading: Reading,
        labels: Mapping[str, NDArray[Any]],
        none: Mapping[str, Callable[[int], NDArray[Any]]],
        holes: NDArray[np.float64] | None = None,
    ) -> None:
        """Add samples. none: task -> what stands for so many samples without a label. holes: times of lost samples."""
        if holes is not None and len(holes):
            self._holes = np.concatenate([self._holes, holes])
        if not len(reading):
            return
        before, count = len(self.times), len(reading)
        for task in {*self.labels, *labels}:
            old = self.labels.get(task)
            new = labels.get(task)
            if old is None:
                old = none[task](before)
            self.labels[task] = np.concatenate([old, none[task](count) if new is None else new])
        self.times = np.concatenate([self.times, reading.times])
        self._chunks.append(reading.values)

    def values(self, rows: slice) -> NDArray[np.floating]:
        """Values (n, width) of the samples rows.start to rows.stop - 1; a view where they came in one piece."""
        begin, end = rows.start + self._skipped, rows.stop + self._skipped
        parts: list[NDArray[np.floating]] = []
        for chunk in self._chunks:
            if begin < len(chunk) and end > 0:
                parts.append(chunk[max(0, begin) : end])
            begin, end = begin - len(chunk), end - len(chunk)
            if end <= 0:
                break
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def has_hole(self, begin_s: float, end_s: float) -> bool:
        """Whether a sample was lost in [begin_s, end_s)."""
        return bool(((self._holes >= begin_s) & (self._holes < end_s)).any())

    def forget_before(self, time: float) -> None:
        """Let go of samples before `time`."""
        first = int(np.searchsorted(self.times, time))
        self._holes = self._holes[self._holes >= time]
        if not first:
            return
        self.times = self.times[first:]
        self.labels = {task: rows[first:] for task, rows in self.labels.items()}
        self._skipped += first
        while self._chunks and self._skipped >= len(self._chunks[0]):
            self._skipped -= len(self._chunks.popleft())
