"""From windows to predictions in words: one generation of a model, one window at a time. Exchanges nothing."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import Array
from blossom_edge.core.errors import RemoteError
from blossom_edge.core.metrics import MetricSums, merge
from blossom_edge.core.prediction import Prediction
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation, Task
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import Generation, own_name, run_model, with_gates
from blossom_edge.inference.head import HeadValues
from blossom_edge.inference.scoring import score

KEPT_LATENCIES = 256
log = logging.getLogger("blossom_edge")


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """What a window is predicted with, grabbed once: model, own heads by task, and the versions that are told.

    gates: by task whose own head is mixed with the shared one, the share of the shared one.
    versions: by block. own_versions: by task, of own heads; a prediction tells them under `head/TASK`. generation: its
    number; 0 where there are none (a bundle).
    """

    model: OnnxModel
    heads: Mapping[str, HeadValues]
    versions: Mapping[str, int]
    own_versions: Mapping[str, int]
    generation: int = 0
    gates: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, generation: Generation, gates: Mapping[str, float] | None = None) -> ModelInUse:
        """That of a live model's generation."""
        own = dict.fromkeys(generation.heads, generation.head_number)
        return cls(generation.model, generation.heads, generation.shown(), own, generation.number, gates or {})


class Predictor:
    """Predicts windows and keeps count: how many, how fast, and how well where they have a label.

    span_s: seconds from the start of a window to its end. clock: seconds, for the latency. tasks: those that are told,
    by default all.
    """

    def __init__(
        self, federation: Federation, *, span_s: float, clock: Callable[[], float], tasks: Collection[str] = ()
    ) -> None:
        self.num_windows = self.num_failed = 0
        """Windows that were predicted, and those of them that could not be."""
        self.last_failure = ""
        self._tasks = frozenset(tasks or federation.tasks)
        self.score: MetricSums = {}
        """Over all labelled windows predicted so far: `TASK.accuracy` and so on, of the outputs that were used."""
        self._federation, self._span_s, self._clock = federation, span_s, clock
        self._latencies: deque[float] = deque(maxlen=KEPT_LATENCIES)

    @property
    def latency_ms(self) -> float | None:
        """The median of the last windows."""
        return float(np.median(self._latencies)) if self._latencies else None

    def predict(self, used: ModelInUse, windows: WindowSet, *, uses_own: Mapping[str, bool]) -> list[Prediction]:
        """What the model says of each window, by task; nothing for a task none of whose modalities is present.

        A window on which a graph fails, or gives numbers that are not finite, is counted and passed over.
        uses_own: by task whether the own head is used where there is one (else it is).
        """
        found = []
        for row in range(len(windows)):
            try:
                found += self._predict_one(used, windows.take(np.array([row])), uses_own)
            except RemoteError as error:
                self.num_failed += 1
                self.last_failure = str(error)
                log_event(log, "window-failed", level=logging.WARNING, number=self.num_windows, reason=str(error))
        return found

    def _predict_one(self, used: ModelInUse, window: WindowSet, uses_own: Mapping[str, bool]) -> list[Prediction]:
        self.num_windows += 1
        began = self._clock()
        outputs = with_gates(run_model(used.model, used.heads, window.inputs, window.present), used.gates)
        latency_ms = 1e3 * (self._clock() - began)
        self._latencies.append(latency_ms)
        chosen, own = used_outputs(outputs, uses_own)
        start_s = float(window.times[0])
        present = tuple(m for m, here in sorted(window.present.items()) if here[0])
        predictions = []
        for task, values in sorted(chosen.items()):
            if task not in self._tasks:
                continue
            settings = self._federation.tasks[task]
            if not np.isfinite(values).all():
                raise RemoteError(f"{task}: outputs are not finite", error_id="block-invalid")
            if window.labelled(task)[0]:
                self.score = merge([self.score, score(task, settings, values, window.labels[task])])
            labels, confidence, value = words_of(settings, values[0])
            predictions.append(
                Prediction(
                    number=self.num_windows,
                    task=task,
                    kind=settings.type,
                    start_s=start_s,
                    end_s=start_s + self._span_s,
                    latency_ms=latency_ms,
                    generation=used.generation,
                    versions=_with_own(used, task) if task in own else used.versions,
                    present=present,
                    labels=labels,
                    confidence=confidence,
                    value=value,
                    unit=settings.unit,
                    personal=task in own,
                    gate=used.gates.get(task) if task in own else None,
                )
            )
        return predictions


def _with_own(used: ModelInUse, task: str) -> dict[str, int]:
    """What an own head spoke with: encoders, scales and itself, told as the head; mixed with the shared one, all."""
    if used.gates.get(task, 0.0) > 0.0:
        return dict(used.versions)
    encoders = {b: version for b, version in used.versions.items() if b.startswith(("encoder/", "scale/"))}
    return {**encoders, f"head/{task}": used.own_versions[task]}


def used_outputs(outputs: Mapping[str, Array], uses_own: Mapping[str, bool]) -> tuple[dict[str, Array], set[str]]:
    """The outputs used, by task, and the tasks among them that are the own head's."""
    tasks = {name.partition(" ")[0] for name in outputs}
    own = {t for t in tasks if own_name(t) in outputs and (uses_own.get(t, True) or t not in outputs)}
    return {t: outputs[own_name(t) if t in own else t] for t in sorted(tasks)}, own


def words_of(task: Task, outputs: Array) -> tuple[tuple[str, ...], float | None, float | None]:
    """Classes, the confidence of the first, and the value that outputs (num_outputs,) of a task mean."""
    if task.type == "regression":
        return (), None, float(outputs[0])
    logits = outputs.astype(np.float64)
    if task.type == "classification":
        shares = np.exp(logits - logits.max())
        best = int(shares.argmax())
        return (task.classes[best],), float(shares[best] / shares.sum()), None
    probabilities = 1.0 / (1.0 + np.exp(-logits))
    order = [int(i) for i in np.argsort(-probabilities, kind="stable") if probabilities[i] >= 0.5]
    return tuple(task.classes[i] for i in order), (float(probabilities[order[0]]) if order else None), None
