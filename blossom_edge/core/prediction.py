"""What a model says of one window, for people and programs. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Prediction:
    """One task's output for one window.

    number: of the window, counted from the first one of this run, from 1. start_s, end_s: of the window, monotonic.
    labels: the predicted classes; one for a classification, those with a probability of 0.5 or more for a multilabel
        task. confidence: the probability of the first of them, None for a regression or where none is predicted.
    value, unit: of a regression, in the task's unit.
    latency_ms: from the window to the outputs, all blocks, in milliseconds.
    versions: block -> version, all of one generation of the model; a personal head is there under `head/TASK`.
    personal: whether the device's own head takes part in the output. gate: the share of the shared head where both are
        mixed, 0 to 1; None where they are not.
    """

    number: int
    task: str
    kind: Literal["classification", "multilabel", "regression"]
    start_s: float
    end_s: float
    latency_ms: float
    generation: int
    versions: Mapping[str, int]
    present: tuple[str, ...]
    labels: tuple[str, ...] = ()
    confidence: float | None = None
    value: float | None = None
    unit: str = ""
    personal: bool = False
    gate: float | None = None
