"""Labelled windows: what sensors hand to whatever learns. Knows neither drivers nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array


@dataclass(frozen=True, slots=True)
class WindowSet:
    """`n` windows of one device, all modalities aligned.

    inputs: modality -> (n, time, width) float32, in the federation's rate, channels and standardised units;
        rows where the modality is absent are zeros and must be masked.
    present: modality -> (n,) bool, same keys as `inputs`.
    labels: task -> (n,); int64 class index with -1 for unlabelled (classification), float32 with NaN for
        unlabelled (regression), (n, classes) float32 of 0/1 with NaN for unlabelled (multilabel).
    times: (n,) float64, start of each window in seconds on the device's own clock.
    """

    inputs: Mapping[str, Array]
    present: Mapping[str, NDArray[np.bool_]]
    labels: Mapping[str, NDArray[Any]]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: NDArray[np.int_]) -> WindowSet:
        """The windows at `rows`, copied."""
        return WindowSet(
            {m: x[rows] for m, x in self.inputs.items()},
            {m: x[rows] for m, x in self.present.items()},
            {t: y[rows] for t, y in self.labels.items()},
            self.times[rows],
        )

    @classmethod
    def joined(cls, sets: Iterable[WindowSet]) -> WindowSet:
        """The windows of several sets of one device, one after the other.

        Raises:
            ValueError: there is no set.
        """
        parts = list(sets)
        if not parts:
            raise ValueError("no sets to join")
        first = parts[0]
        return cls(
            {m: np.concatenate([part.inputs[m] for part in parts]) for m in first.inputs},
            {m: np.concatenate([part.present[m] for part in parts]) for m in first.present},
            {t: np.concatenate([part.labels[t] for part in parts]) for t in first.labels},
            np.concatenate([part.times for part in parts]),
        )

    def labelled(self, task: str) -> NDArray[np.bool_]:
        """(n,) bool: windows that have a label of `task`."""
        labels = self.labels.get(task)
        if labels is None:
            return np.zeros(len(self), dtype=np.bool_)
        if labels.dtype.kind == "i":
            return np.asarray(labels >= 0)
        finite = np.isfinite(labels)
        return np.asarray(finite.all(axis=1) if finite.ndim == 2 else finite)
