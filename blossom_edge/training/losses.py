"""Losses and scores of the task types, as sums over windows so that batches and devices can be added."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from blossom_edge.federation.schema import Task


def training_loss(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss over the windows: cross entropy, binary cross entropy, or squared error in spreads.

    outputs (n, class) logits or (n, 1) in the task's unit; labels as in `WindowSet.labels`, without gaps.
    """
    if task.type == "classification":
        return functional.cross_entropy(outputs, labels)
    if task.type == "multilabel":
        return functional.binary_cross_entropy_with_logits(outputs, labels)
    return functional.mse_loss(outputs.squeeze(1) / task.spread, labels / task.spread)


def score_sums(task: Task, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Sums over the windows, in float64: `loss` with `accuracy`, or for a regression with `mae`.

    Accuracy of a multilabel window is 1 when all its labels are right. A regression's mae is in the task's unit, its
    loss in that unit squared.
    """
    if task.type == "classification":
        loss = functional.cross_entropy(outputs, labels, reduction="sum")
        return _double(loss=loss, accuracy=(outputs.argmax(dim=1) == labels).sum())
    if task.type == "multilabel":
        each = functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(dim=1)
        exact = ((outputs > 0) == (labels > 0.5)).all(dim=1)
        return _double(loss=each.sum(), accuracy=exact.sum())
    error = outputs.squeeze(1) - labels
    return _double(loss=error.square().sum(), mae=error.abs().sum())


def _double(**sums: Tensor) -> dict[str, Tensor]:
    return {name: value.detach().to(torch.float64) for name, value in sums.items()}
