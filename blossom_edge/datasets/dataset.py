"""`Dataset`: windows of many people, all modalities aligned, as readers give them. Knows no federation, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array


@dataclass(frozen=True, slots=True)
class Signals:
    """The windows of one modality: `values` (n, time, width) float32 in the unit of its channels.

    `shape` is that of one sample of one channel, as in `FederationModality`; rows that are not `present` are zeros.
    """

    values: Array
    present: NDArray[np.bool_]
    rate_hz: float
    channels: tuple[tuple[str, str], ...]
    """Name and unit of each channel."""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """`n` windows with a class each.

    labels: (n,) int64 index into `classes`. subjects: (n,) int64, one number per person; -1 where unknown.
    is_test: (n,) bool, the official test part; None where there is none. licence: one line, for people.
    """

    name: str
    modalities: Mapping[str, Signals]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    subjects: NDArray[np.int64]
    is_test: NDArray[np.bool_] | None = None
    licence: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def check(self) -> Dataset:
        """Give this data set back, if it is one.

        Raises:
            ValueError: what does not fit together, and where.
        """
        n = len(self)
        for name, signals in self.modalities.items():
            if signals.values.ndim != 3 or len(signals.values) != n or signals.values.dtype != np.float32:
                found = f"{signals.values.dtype} {signals.values.shape}"
                raise ValueError(f"{self.name}: {name} is {found}, expected float32 ({n}, time, width)")
            if signals.present.shape != (n,):
                raise ValueError(f"{self.name}: {name} present has shape {signals.present.shape}, expected ({n},)")
            if not np.isfinite(signals.values).all():
                raise ValueError(f"{self.name}: {name} has values that are not finite")
        if self.subjects.shape != (n,):
            raise ValueError(f"{self.name}: subjects have shape {self.subjects.shape}, expected ({n},)")
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(f"{self.name}: labels outside 0..{len(self.classes) - 1}")
        return self
