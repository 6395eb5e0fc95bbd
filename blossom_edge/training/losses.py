"""Losses and scores of the task types, as sums over windows so that batches and devices can be added."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blossom_edge.core.gate import GATES
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


def gate_losses(
    task: Task, branches: Mapping[str, Tensor], labels: Tensor
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The loss of each window for each gate of `core.gate.GATES`, (gates, windows): what `choose_gate` takes.

    branches: `shared` and `own`, as `BlockModel.branches` gives them.
    """
    rows = []
    for gate in GATES:
        outputs = (gate * branches["shared"] + (1 - gate) * branches["own"]).double()
        if task.type == "classification":
            each = functional.cross_entropy(outputs, labels, reduction="none")
        elif task.type == "multilabel":
            each = functional.binary_cross_entropy_with_logits(outputs, labels.double(), reduction="none").mean(dim=1)
        else:
            each = ((outputs.squeeze(1) - labels) / task.spread).square()
        rows.append(each)
    return torch.stack(rows).cpu().numpy()


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
