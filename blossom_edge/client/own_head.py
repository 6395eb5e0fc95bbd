"""The own head of a device of role `personalize`: fitted to what the encoders give for its own labelled windows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np

from blossom_edge.console.logs import log_event
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.features import head_features
from blossom_edge.inference.head import HeadValues, fit_head

EPOCHS = 20
HIDDEN = 64
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
) -> dict[str, HeadValues]:
    """A head for each task with enough labels, each warm from the one `before`; others stay as they were.

    A regression's labels are learned in units of the task's spread, as the shared heads give them.
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
        fit = fit_head(
            head_features(embeddings, windows.present, modalities)[usable],
            labels,
            task_type=settings.type,
            num_outputs=settings.num_outputs,
            head=heads.get(task),
            hidden=HIDDEN,
            epochs=EPOCHS,
            seed=seed,
        )
        heads[task] = fit.head
        log_event(log, "head-learned", task=task, num_windows=int(usable.sum()), loss=round(fit.loss, 4))
    return heads
