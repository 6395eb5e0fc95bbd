"""A device's own figures for scales that its federation has not agreed on yet. Never decides which those are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from blossom_edge.core.blocks import Array, BlockId, BlockKind
from blossom_edge.core.scale import is_known, measure_scale
from blossom_edge.core.training import Blocks
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation


def measured_scales(
    federation: Federation, blocks: Blocks, windows: WindowSet, tasks: tuple[str, ...]
) -> dict[BlockId, tuple[Mapping[str, Array], int]]:
    """Values and number of windows of every scale among `blocks` that is not known, over the labelled windows.

    Until all agree, the device normalises by them; they are also what it adds to the agreement.
    """
    found: dict[BlockId, tuple[Mapping[str, Array], int]] = {}
    for block, values in blocks.items():
        modality = block.name
        if block.kind is not BlockKind.SCALE or is_known(values) or modality not in windows.inputs:
            continue
        using = [t for t in tasks if modality in federation.task_modalities(t)]
        labelled = np.logical_or.reduce([np.zeros(len(windows), np.bool_), *(windows.labelled(t) for t in using)])
        rows = np.flatnonzero(labelled & windows.present[modality])
        if len(rows):
            channels = len(federation.modalities[modality].channels)
            found[block] = (measure_scale(windows.inputs[modality][rows], channels), len(rows))
    return found
