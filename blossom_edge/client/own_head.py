"""The own head of a device of role `personalize`: fitted to what the encoders give for its own labelled windows."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import Array
from blossom_edge.core.gate import GATES, MIDDLE, choose_gate
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation, Task
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.features import head_features
from blossom_edge.inference.head import HeadValues, fit_head
from blossom_edge.inference.scoring import labelled_rows, window_losses

HIDDEN = 64
HIDDEN_FROM = 500
"""Labelled windows from which the head has a hidden layer; with fewer a softmax was never worse, at half the cost."""
BATCH = 32
NEW_STEPS = 1200
"""Optimiser steps on features that moved, from new encoders: with fewer a warm head lags behind the old pair."""
MORE_STEPS = 200
"""Steps when only windows were added."""
MOST_EPOCHS = 200
MIN_LABELLED = 10
"""Fewer labelled windows than this: no own head yet."""

log = logging.getLogger("blossom_edge")


def fit_heads(
    federation: Federation,
    tasks: Collection[str],
    model: OnnxModel,
    before: Mapping[str, HeadValues],
    *,
    windows: WindowSet,
    seed: int,
    steps: int = NEW_STEPS,
) -> dict[str, HeadValues]:
    """A head for each task with enough labels, each warm from the one `before`; others stay as they were.

    steps: of the optimiser, in whole passes over the windows. A regression's labels are learned in units of the task's
    spread, as the shared heads give them.
    """
    heads = dict(before)
    if not len(windows):
        return heads
    embeddings = model.embed(windows.inputs, windows.present)
    for task in sorted(tasks):
        settings = federation.tasks[task]
        modalities = tuple(m for m in federation.task_modalities(task) if m in model.modalities)
        here = [windows.present[m] for m in modalities if m in windows.present]
        if not here:
            continue
        usable = windows.labelled(task) & np.logical_or.reduce(here)
        if int(usable.sum()) < MIN_LABELLED:
            continue
        labels = windows.labels[task][usable]
        if settings.type == "regression":
            labels = (labels - settings.mean) / settings.spread
        features, old = head_features(embeddings, windows.present, modalities)[usable], heads.get(task)
        num_windows = len(features)
        hidden = HIDDEN if num_windows >= HIDDEN_FROM else 0
        if old is not None and not _goes_on(old, features.shape[1], settings.num_outputs, hidden):
            old = None
        fit = fit_head(
            features,
            labels,
            task_type=settings.type,
            num_outputs=settings.num_outputs,
            head=old,
            hidden=hidden,
            epochs=min(MOST_EPOCHS, math.ceil(steps / math.ceil(num_windows / BATCH))),
            seed=seed,
        )
        heads[task] = fit.head
        log_event(log, "head-learned", task=task, num_windows=num_windows, loss=round(fit.loss, 4))
    return heads


def num_usable(federation: Federation, task: str, windows: WindowSet) -> int:
    """Windows with a label of the task and one of its modalities."""
    here = [windows.present[m] for m in federation.task_modalities(task) if m in windows.present]
    return int((windows.labelled(task) & np.logical_or.reduce(here)).sum()) if here and len(windows) else 0


def own_gate(task: Task, shared: Array, own: Array, labels: NDArray[Any], *, before: float | None = None) -> float:
    """How much of the shared head to listen to, chosen on windows that the own head was not fitted to.

    shared, own: (n, outputs) logits, or values in the task's unit; labels as in `WindowSet.labels`. With less than two
    labelled windows: `before`, or the middle.
    """
    rows = labelled_rows(labels)
    if int(rows.sum()) < 2:
        return MIDDLE if before is None else before
    mixed = (gate * shared[rows] + (1.0 - gate) * own[rows] for gate in GATES)
    return choose_gate(np.stack([window_losses(task, outputs, labels[rows]) for outputs in mixed]))


def _goes_on(old: HeadValues, num_features: int, num_outputs: int, hidden: int) -> bool:
    """Whether a head can be trained further, or another one is wanted now."""
    kind = "hidden" if hidden else "softmax"
    return old.kind == kind and old.fits(num_features=num_features, num_outputs=num_outputs)
