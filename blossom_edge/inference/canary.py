"""The trial run of a new model on stored windows, beside the one in use. Judges; exchanges nothing, knows no runtime.

What can be seen on a few windows: numbers that are not finite, a chain that has become much slower, and a score that
is clearly worse. What they cannot show is left to the rollback: by a person, or after a crash loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation, Task

MAX_WINDOWS = 64
"""Windows that are run: each once by the old and once by the new model, 0.2 s in all on a slow board."""
MIN_UNLABELLED = 16
"""Places among them for newest windows without a label, if there are any: they look like what comes next."""
SLOWER_FACTOR = 3.0
SLOWER_S = 0.005
"""The median of the new may be 3 times the old or 5 ms above it, whichever is more: less is noise of a busy board."""
MIN_TIMED = 8
"""With fewer windows a median says nothing of latency: one of three runs in which the board did something else."""
MIN_LABELLED = 20
"""With fewer labelled windows a score says nothing: one window is 5 % of 20."""
MARGIN = 0.05
"""Accuracy may fall by 0.05, a mean absolute error rise by 5 %: rounds of a federation go up and down by less."""
STANDARD_ERRORS = 2.0
"""Or by 2 standard errors of the paired difference: a smaller fall may be chance (95 % of the time it is not more)."""

Outputs = Mapping[str, Array]
"""What a model gives for one window, by name: (outputs,) of a task, or of an own head."""
Predict = Callable[[Mapping[str, Array], Mapping[str, NDArray[np.bool_]]], Mapping[str, Array]]
"""Inputs and presence of `n` windows to outputs by name, (n, outputs) each; names without a modality are left out."""


@dataclass(frozen=True, slots=True)
class CanaryWindows:
    """The stored windows of a trial run, newest last. `of` chooses them."""

    windows: WindowSet

    @classmethod
    def of(cls, labelled: WindowSet, unlabelled: WindowSet | None = None, *, limit: int = MAX_WINDOWS) -> CanaryWindows:
        """The newest of both: labelled ones (never trained on: the holdout), and some without a label."""
        if unlabelled is None or not len(unlabelled):
            return cls(labelled.take(_newest(labelled, limit)))
        num_bare = min(len(unlabelled), limit, max(MIN_UNLABELLED, limit - len(labelled)))
        bare = unlabelled.take(_newest(unlabelled, num_bare))
        chosen = labelled.take(_newest(labelled, limit - num_bare))
        return cls(_joined(chosen, bare) if len(chosen) else bare)

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True, slots=True)
class Observed:
    """What one model did: its outputs window by window, and how long each took in seconds."""

    outputs: list[Outputs] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def observe(
    old: Predict | None, new: Predict, windows: WindowSet, *, clock: Callable[[], float]
) -> tuple[Observed | None, Observed]:
    """Run both on each window in turn, now one first, now the other: what slows the machine down hits both alike."""
    runs = [(predict, Observed()) for predict in (old, new) if predict is not None]
    for predict, _ in runs if len(windows) else []:
        _run(predict, windows, 0)  # the first run of a session also allocates
    for row in range(len(windows)):
        for predict, seen in runs if row % 2 else reversed(runs):
            began = clock()
            found = _run(predict, windows, row)
            seen.seconds.append(clock() - began)
            seen.outputs.append(found)
    return (runs[0][1] if old is not None else None), runs[-1][1]


def judge(
    old: Observed | None, new: Observed, windows: WindowSet, tasks: Mapping[str, Task], names: Mapping[str, str]
) -> str:
    """Why the new model is not to be used, in words with numbers; empty if it may be.

    old: None for the first model of all, then only finiteness counts. names: whose labels an output is held against,
    by output name (`har`, and `har (own head)`, both of task `har`).
    """
    if why := _not_finite(new):
        return why
    if old is None:
        return ""
    had, has = ({name for found in seen.outputs for name in found} for seen in (old, new))
    if lost := sorted((had - has) & set(tasks)):
        return f"{lost[0]}: the new model has no output, the one in use has"
    if why := _slower(old, new):
        return why
    for name, task in sorted(names.items()):
        if task in windows.labels and (why := _worse(name, old, new, windows, task, tasks[task])):
            return why
    return ""


def _not_finite(new: Observed) -> str:
    for name in sorted({name for found in new.outputs for name in found}):
        bad = sum(not np.isfinite(found[name]).all() for found in new.outputs if name in found)
        if bad:
            return f"{name}: outputs are not finite on {bad} of {len(new.outputs)} windows"
    return ""


def _slower(old: Observed, new: Observed) -> str:
    if len(new.seconds) < MIN_TIMED:
        return ""
    before, after = float(np.median(old.seconds)), float(np.median(new.seconds))
    limit = max(SLOWER_FACTOR * before, before + SLOWER_S)
    if after <= limit:
        return ""
    return (
        f"latency {1e3 * after:.2f} ms, the one in use has {1e3 * before:.2f} ms, at most {1e3 * limit:.2f} ms are let"
    )


def _worse(name: str, old: Observed, new: Observed, windows: WindowSet, task_name: str, task: Task) -> str:
    marked = np.flatnonzero(windows.labelled(task_name))
    rows = [row for row in marked if name in old.outputs[row] and name in new.outputs[row]]
    rows = [row for row in rows if np.isfinite(old.outputs[row][name]).all()]
    if len(rows) < MIN_LABELLED:
        return ""
    labels = windows.labels[task_name][rows]
    before = faults(task, np.stack([old.outputs[row][name] for row in rows]), labels)
    after = faults(task, np.stack([new.outputs[row][name] for row in rows]), labels)
    differences = after - before
    error = float(differences.std(ddof=1)) / math.sqrt(len(rows))
    unit = float(before.mean()) if task.type == "regression" else 1.0
    limit = max(MARGIN * unit, STANDARD_ERRORS * error)
    if float(differences.mean()) <= limit:
        return ""
    if task.type == "regression":
        return (
            f"{name}: mean error {after.mean():.4g} {task.unit}, the one in use has {before.mean():.4g} on the same "
            f"{len(rows)} windows, at most {limit:.4g} more are let"
        )
    return (
        f"{name}: accuracy {1 - after.mean():.3f}, the one in use has {1 - before.mean():.3f} on the same "
        f"{len(rows)} windows, at most {limit:.3f} less are let"
    )


def faults(task: Task, outputs: Array, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """(n,) what is wrong with each output: 0 or 1 (any label of a multilabel window), or the absolute error."""
    if task.type == "classification":
        return np.asarray(outputs.argmax(axis=1) != labels, dtype=np.float64)
    if task.type == "multilabel":
        return np.asarray(((outputs > 0) != (np.asarray(labels, dtype=np.float64) > 0.5)).any(axis=1), dtype=np.float64)
    return np.abs(outputs[:, 0].astype(np.float64) - np.asarray(labels, dtype=np.float64))


def _run(predict: Predict, windows: WindowSet, row: int) -> Outputs:
    inputs = {m: values[row : row + 1] for m, values in windows.inputs.items()}
    found = predict(inputs, {m: shown[row : row + 1] for m, shown in windows.present.items()})
    return {name: values[0] for name, values in found.items() if len(values)}


def blank(federation: Federation) -> WindowSet:
    """One window of zeros with all modalities, for a device that has none yet: the outputs must be finite at least."""
    inputs: dict[str, Array] = {
        name: np.zeros((1, modality.window, modality.width), np.float32)
        for name, modality in federation.modalities.items()
    }
    return WindowSet(inputs, {m: np.ones(1, dtype=np.bool_) for m in inputs}, {}, np.zeros(1))


def _newest(windows: WindowSet, count: int) -> NDArray[np.int_]:
    order = np.argsort(windows.times, kind="stable")
    return order[len(order) - min(count, len(order)) :]


def _joined(first: WindowSet, second: WindowSet) -> WindowSet:
    """Both, one after the other, with the modalities and labels of the first; what the second lacks is a gap."""
    inputs, present, labels = {}, {}, {}
    for modality, values in first.inputs.items():
        more = second.inputs.get(modality)
        if more is None:
            more = np.zeros((len(second), *values.shape[1:]), dtype=values.dtype)
        shown = second.present.get(modality, np.zeros(len(second), dtype=np.bool_))
        inputs[modality] = np.concatenate([values, more])
        present[modality] = np.concatenate([first.present[modality], shown])
    for task, known in first.labels.items():
        gap = -1 if known.dtype.kind == "i" else np.nan
        bare = np.full((len(second), *known.shape[1:]), gap, dtype=known.dtype)
        labels[task] = np.concatenate([known, bare])
    return WindowSet(inputs, present, labels, np.concatenate([first.times, second.times]))
