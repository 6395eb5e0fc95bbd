"""Metrics as sums and counts, so that adding two devices is adding numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean that can be added: `total` over `count` samples."""

    total: float
    count: float

    @property
    def mean(self) -> float | None:
        """The mean, or None when nothing was counted."""
        return self.total / self.count if self.count > 0 else None

    def __add__(self, other: Metric) -> Metric:
        return Metric(self.total + other.total, self.count + other.count)


MetricSums = Mapping[str, Metric]
"""Metrics by name, `TASK.MEASURE`: `har.accuracy`, `har.loss`, `speed.mae`."""


def merge(parts: Iterable[MetricSums]) -> dict[str, Metric]:
    """Add metrics of several devices or batches, name by name."""
    result: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            result[name] = result.get(name, Metric(0.0, 0.0)) + metric
    return result
