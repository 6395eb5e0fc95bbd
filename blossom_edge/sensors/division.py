"""Divides rows into training and holdout, and stacks them. No training window shares a sample with one of the holdout.

Pure functions of the rows, and of a seed where only some labels are kept.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.windows import WindowSet
from blossom_edge.sensors.synthetic import rng
from blossom_edge.sensors.windows import LabelKind, Row, WindowShape

Split = Literal["later", "blocks"]
Numbered = Sequence[tuple[int, Row]]
"""Rows with their number, counted from the first one that ever came."""
_OVERLAP_SLACK_S = 1e-6


def divide(
    rows: Numbered, shapes: Mapping[str, WindowShape], *, split: Split, holdout: float
) -> tuple[list[Row], list[Row]]:
    """Training and holdout rows, each in the order of time; see `Collector` for the two ways to split."""
    ordered = sorted(rows, key=lambda at: (at[1].recording, at[1].start_s))
    if not holdout:
        return [row for _n, row in ordered], []
    mixed_s = 2 * max(shape.mixed_s for shape in shapes.values())
    if split == "later":
        return _divide_later(ordered, holdout, mixed_s)
    hop_s = max(shape.hop / shape.rate_hz for shape in shapes.values())
    return _divide_blocks(ordered, hop_s, max(shape.span_s for shape in shapes.values()) + mixed_s)


def stack(rows: Sequence[Row], shapes: Mapping[str, WindowShape], kinds: Mapping[str, LabelKind]) -> WindowSet:
    """One set of windows; where a modality is absent its inputs are zeros."""
    n = len(rows)
    inputs: dict[str, NDArray[np.float32]] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    for name, shape in shapes.items():
        present[name] = np.array([name in row.inputs for row in rows], dtype=np.bool_)
        inputs[name] = np.zeros((n, shape.window, shape.width), dtype=np.float32)
        for i, row in enumerate(rows):
            if name in row.inputs:
                inputs[name][i] = row.inputs[name]
    labels = {task: _stack_labels(kind, [row.labels[task] for row in rows]) for task, kind in kinds.items()}
    return WindowSet(inputs, present, labels, np.array([row.start_s for row in rows], dtype=np.float64))


def without(windows: WindowSet, absent: frozenset[str]) -> WindowSet:
    """The windows as if these modalities had no sensor; windows with nothing else are left out."""
    if not any(name in windows.present and windows.present[name].any() for name in absent):
        return windows
    present = {name: np.zeros_like(here) if name in absent else here for name, here in windows.present.items()}
    inputs = {name: np.zeros_like(x) if name in absent else x for name, x in windows.inputs.items()}
    masked = WindowSet(inputs, present, windows.labels, windows.times)
    left = np.logical_or.reduce(list(present.values()))
    return masked if left.all() else masked.take(np.flatnonzero(left))


def keep_few(windows: WindowSet, kinds: Mapping[str, LabelKind], *, count: int, seed: int) -> WindowSet:
    """Take the label away from all but `count` windows of each class, then drop what has none left."""
    labels = dict(windows.labels)
    for task, kind in kinds.items():
        if kind.type != "classification":
            continue
        kept = np.full(len(windows), -1, dtype=np.int64)
        for index, name in enumerate(kind.classes):
            rows = np.flatnonzero(labels[task] == index)
            chosen = rows
            if len(rows) > count:
                shift = rng("few labels", seed, task, name).uniform()
                chosen = rows[((np.arange(count) + shift) * len(rows) / count).astype(np.int64)]
            kept[chosen] = index
        labels[task] = kept
    reduced = WindowSet(windows.inputs, windows.present, labels, windows.times)
    usable = np.zeros(len(windows), dtype=np.bool_)
    for task in kinds:
        usable |= reduced.labelled(task)
    return reduced.take(np.flatnonzero(usable))


def has_label(label: Any) -> bool:
    """Whether a row's label of a task says anything."""
    if isinstance(label, int):
        return label >= 0
    return bool(np.isfinite(label).all())


def _divide_later(rows: Numbered, holdout: float, mixed_s: float) -> tuple[list[Row], list[Row]]:
    span: dict[int, tuple[float, float]] = {}
    for _n, row in rows:
        begin_s, end_s = span.get(row.recording, (row.start_s, row.end_s))
        span[row.recording] = begin_s, max(end_s, row.end_s)
    border = {number: begin + (1 - holdout) * (end - begin) for number, (begin, end) in span.items()}
    train = [row for _n, row in rows if row.end_s + mixed_s <= border[row.recording] + _OVERLAP_SLACK_S]
    return train, [row for _n, row in rows if row.start_s >= border[row.recording] - _OVERLAP_SLACK_S]


def _divide_blocks(rows: Numbered, hop_s: float, span_s: float) -> tuple[list[Row], list[Row]]:
    unit = max(1, math.ceil(span_s / hop_s - 1e-9) - 1)  # windows that share samples with the one before them
    held = [row for n, row in rows if n % (10 * unit) >= 8 * unit]
    train = [row for n, row in rows if n % (10 * unit) < 7 * unit]
    return _apart(train, held, span_s), held


def _apart(rows: Sequence[Row], others: Sequence[Row], span_s: float) -> list[Row]:
    """Those of `rows` that share no sample with any of `others`; both in the order of time."""
    starts = {
        number: [row.start_s for row in others if row.recording == number] for number in {r.recording for r in others}
    }
    result = []
    for row in rows:
        taken = starts.get(row.recording, [])
        after = bisect.bisect_left(taken, row.start_s)
        near = taken[max(0, after - 1) : after + 1]
        if all(abs(row.start_s - start) >= span_s - _OVERLAP_SLACK_S for start in near):
            result.append(row)
    return result


def _stack_labels(kind: LabelKind, labels: Sequence[Any]) -> NDArray[Any]:
    if kind.type == "classification":
        return np.array(labels, dtype=np.int64)
    if kind.type == "multilabel":
        return np.array(labels, dtype=np.float32).reshape(len(labels), len(kind.classes))
    return np.array(labels, dtype=np.float32)
