"""Scores of outputs against labels in numpy: the same sums as `training.losses.score_sums` has in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array
from blossom_edge.core.metrics import Metric
from blossom_edge.federation.schema import Task


def score(name: str, task: Task, outputs: Array, labels: NDArray[Any]) -> dict[str, Metric]:
    """Sums over the labelled windows: `NAME.loss` with `NAME.accuracy`, or for a regression with `NAME.mae`.

    outputs (n, class) logits or (n, 1) in the task's unit; labels as in `WindowSet.labels`, unlabelled ones are left
    out; without any labelled window the result is empty. Accuracy of a multilabel window is 1 when all its labels are
    right. A regression's mae is in the task's unit, its loss in that unit squared.
    """
    rows = labelled_rows(labels)
    if not rows.any():
        return {}
    values, wanted = np.asarray(outputs, np.float64)[rows], labels[rows]
    count = float(len(wanted))
    if task.type == "classification":
        right = values.argmax(axis=1) == wanted
        sums = {"loss": _cross_entropies(values, wanted).sum(), "accuracy": right.sum()}
    elif task.type == "multilabel":
        exact = ((values > 0) == (wanted > 0.5)).all(axis=1)
        sums = {"loss": _binary(values, wanted).mean(axis=1).sum(), "accuracy": exact.sum()}
    else:
        error = values[:, 0] - wanted.astype(np.float64)
        sums = {"loss": np.square(error).sum(), "mae": np.abs(error).sum()}
    return {f"{name}.{measure}": Metric(float(total), count) for measure, total in sums.items()}


def window_losses(task: Task, outputs: Array, labels: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) the loss of each window, as `score` sums it; every window must have a label."""
    values = np.asarray(outputs, np.float64)
    if task.type == "classification":
        return _cross_entropies(values, labels)
    if task.type == "multilabel":
        return np.asarray(_binary(values, labels).mean(axis=1))
    return np.asarray(np.square(values[:, 0] - labels.astype(np.float64)))


def labelled_rows(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) bool: the rows that have a label; the gaps are those of `WindowSet.labels`."""
    if labels.dtype.kind in "iu":
        return np.asarray(labels >= 0)
    finite = np.isfinite(labels)
    return np.asarray(finite.all(axis=1) if finite.ndim == 2 else finite)


def _binary(logits: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits))))


def _cross_entropies(logits: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, labels[:, None].astype(np.int64), axis=1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - own)
