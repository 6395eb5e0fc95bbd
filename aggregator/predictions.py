"""What devices last predicted, for those whose people publish it. In memory; only the status file shows the last one.

What a device says is held against the federation first: task, kind, classes. The unit is always the federation's, so no
text that a device made up goes on to other programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aggregator.rounds import Member
from blossom_edge.codec.messages import PredictionReport
from blossom_edge.core.errors import PolicyViolation, SpecMismatch
from blossom_edge.core.names import DeviceId, TaskName
from blossom_edge.federation.schema import Federation

NOTHING = "none"
"""The state where a multilabel task sees none of its classes."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A prediction as the gateway shows it. state: class, classes joined by commas, or a number in `unit`.

    confidence: of the first class, 0 to 1. window_end_s: when its window ended, on the gateway's monotonic clock.
    """

    task: TaskName
    kind: str
    state: str | float
    labels: tuple[str, ...]
    personal: bool
    confidence: float | None
    unit: str
    latency_ms: float
    versions: dict[str, int]
    present: tuple[str, ...]
    window_end_s: float

    def shown(self) -> dict[str, Any]:
        """For people and programs, as plain values."""
        percent = None if self.confidence is None else round(100 * self.confidence, 1)
        return {
            "task": self.task,
            "kind": self.kind,
            "state": self.state,
            "labels": list(self.labels),
            "confidence": self.confidence,
            "confidence_percent": percent,
            "unit": self.unit,
            "latency_ms": round(self.latency_ms, 3),
            "versions": self.versions,
            "present": list(self.present),
        }


class Predictions:
    """The last prediction of each device and task."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._last: dict[DeviceId, dict[TaskName, Heard]] = {}

    def take(self, member: Member, report: PredictionReport, now: float) -> Heard:
        """Keep a report as the last one of its device; the signature has been checked.

        Raises:
            PolicyViolation: of a task that the device does not serve.
            SpecMismatch: not of the task's kind, or with classes, blocks or modalities that it does not have.
        """
        federation, task = self._federation, TaskName(report.task)
        serves = member.tasks or federation.tasks_for(member.modalities)
        if task not in serves:
            served = ", ".join(serves) or "none"
            raise PolicyViolation(f"{member.device} predicts {report.task}, the tasks that it serves: {served}")
        heard = self._checked(report, now)
        self._last.setdefault(member.device, {})[task] = heard
        return heard

    def of(self, device: DeviceId) -> Iterator[Heard]:
        """The last predictions of a device, by task."""
        last = self._last.get(device, {})
        return (last[task] for task in sorted(last))

    def forget(self, device: DeviceId) -> None:
        """A device is no longer known."""
        self._last.pop(device, None)

    def _checked(self, report: PredictionReport, now: float) -> Heard:
        federation, task = self._federation, self._federation.tasks[report.task]
        if report.kind != task.type:
            raise SpecMismatch(f"prediction of {report.task}: a {report.kind}, the federation has a {task.type}")
        unknown = sorted({*report.labels} - {*task.classes}) + sorted({*report.present} - {*federation.modalities})
        unknown += sorted({v.block for v in report.versions} - {str(spec.id) for spec in federation.spec.blocks})
        if unknown:
            raise SpecMismatch(f"prediction of {report.task}: {unknown[0][:80]!r} is not in the federation")
        fits = {
            "classification": len(report.labels) == 1 and report.value is None and report.confidence is not None,
            "multilabel": len({*report.labels}) == len(report.labels) and report.value is None,
            "regression": not report.labels and report.value is not None and report.confidence is None,
        }[task.type]
        if not fits:
            raise SpecMismatch(f"prediction of {report.task}: labels or value that a {task.type} does not have")
        state: str | float = ", ".join(report.labels) or NOTHING
        return Heard(
            task=TaskName(report.task),
            kind=task.type,
            state=report.value if report.value is not None else state,
            labels=report.labels,
            personal=report.personal,
            confidence=report.confidence,
            unit=task.unit,
            latency_ms=report.latency_ms,
            versions={v.block: v.version for v in report.versions},
            present=report.present,
            window_end_s=now - report.age_s,
        )
