"""A model that does not change, on windows as they come: that of a bundle, or what a device that trains has on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection

from blossom_edge.client.predicting import ModelInUse, Predictor
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.collector import Collector


class FixedModel:
    """Predicts every fresh window of a collector once. Learns nothing, exchanges nothing, writes nothing."""

    def __init__(
        self,
        federation: Federation,
        collector: Collector,
        used: ModelInUse,
        *,
        clock: Callable[[], float],
        tasks: Collection[str] = (),
    ) -> None:
        self._collector, self._used = collector, used
        self._predictor = Predictor(federation, span_s=collector.span_s, clock=clock, tasks=tasks)

    def update(self, now: float) -> list[Prediction]:
        """What the windows that came since the last call give."""
        return self._predictor.predict(self._used, self._collector.fresh(), uses_own={})

    @property
    def score(self) -> MetricSums:
        """Over all labelled windows that were predicted."""
        return self._predictor.score

    def close(self) -> None:
        """Nothing is kept."""
