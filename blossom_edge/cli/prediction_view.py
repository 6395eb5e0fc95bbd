"""Predictions for a person, one line a window, or for a program, one JSON object a line."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from blossom_edge.console.output import Output

if TYPE_CHECKING:
    from blossom_edge.core.metrics import MetricSums
    from blossom_edge.core.prediction import Prediction

COLUMNS = "   window  task          prediction               sure     took  seen with"


class PredictionView:
    """Shows each prediction as it comes. `full` once `limit` of them were shown; what comes then is not shown.

    A line of JSON has `type`: `prediction`, or `summary` for the last one.
    """

    def __init__(self, out: Output, *, limit: int | None = None) -> None:
        self.score: MetricSums = {}
        """Over the labelled windows among them, told at the end."""
        self._out = out
        self._limit = limit
        self._num_shown = 0
        self._versions: dict[str, int] = {}
        self._ended = self._has_own = False

    @property
    def full(self) -> bool:
        """Whether as many were shown as were wanted."""
        return self._limit is not None and self._num_shown >= self._limit

    def show(self, prediction: Prediction) -> None:
        """Show one."""
        if self.full:
            return
        if not self._num_shown:
            self._out.line(COLUMNS)
        self._num_shown += 1
        self._has_own |= prediction.personal
        self._out.json_line({"type": "prediction", **asdict(prediction)})
        if dict(prediction.versions) != self._versions:
            self._versions = dict(prediction.versions)
            number = f"generation {prediction.generation}: " if prediction.generation else ""
            self._out.line(f"{number}{', '.join(f'{b} {v}' for b, v in sorted(self._versions.items()))}")
        sure = "-" if prediction.confidence is None else f"{100 * prediction.confidence:.0f} %"
        seen = ", ".join(prediction.present)
        self._out.line(
            f"{prediction.number:>9}  {prediction.task:<12}  {_said(prediction):<20}  {sure:>7}  "
            f"{prediction.latency_ms:>4.1f} ms  {seen}"
        )

    def end(self) -> None:
        """Say how many there were, and how good, once."""
        if self._ended:
            return
        self._ended = True
        if self.full:  # more may have been predicted than were shown
            self.score = {}
        means = {name: metric.mean for name, metric in sorted(self.score.items())}
        counts = {name: metric.count for name, metric in self.score.items()}
        self._out.json_line({"type": "summary", "num_predictions": self._num_shown, "score": means})
        self._out.line(f"{self._num_shown} prediction{'' if self._num_shown == 1 else 's'}")
        for name, mean in means.items():
            if mean is not None and not name.endswith(".loss"):
                learned = ", the own head has learned from some of them" if self._has_own else ""
                self._out.line(f"{name} {mean:.3f} over {counts[name]:.0f} labelled windows{learned}")


def _said(prediction: Prediction) -> str:
    if prediction.kind == "regression":
        return f"{prediction.value:.4g} {prediction.unit}".strip() if prediction.value is not None else "-"
    words = ", ".join(prediction.labels) or "none"
    if not prediction.personal:
        return words
    return f"{words} ({'both heads' if prediction.gate else 'own head'})"
