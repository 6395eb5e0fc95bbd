"""A device's own figures for scales that its federation has not settled yet. Never decides which those are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blossom_edge.core.blocks import BlockId, BlockKind, Tensors
from blossom_edge.core.scale import is_known, next_scale, own_scale
from blossom_edge.core.training import Blocks
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one modality: those to normalise by until all agree, and what the device adds to the agreement."""

    own: Tensors
    added: Tensors
    num_windows: int


def measured_scales(
    federation: Federation, blocks: Blocks, windows: WindowSet, tasks: tuple[str, ...]
) -> dict[BlockId, Measured]:
    """The figures of every scale among `blocks` that is not settled, over the labelled windows."""
    found: dict[BlockId, Measured] = {}
    for block, values in blocks.items():
        modality = block.name
        if block.kind is not BlockKind.SCALE or is_known(values) or modality not in windows.inputs:
            continue
        using = [t for t in tasks if modality in federation.task_modalities(t)]
        labelled = np.logical_or.reduce([np.zeros(len(windows), np.bool_), *(windows.labelled(t) for t in using)])
        rows = np.flatnonzero(labelled & windows.present[modality])
        if len(rows):
            own = windows.inputs[modality][rows]
            channels = len(federation.modalities[modality].channels)
            found[block] = Measured(own_scale(own, channels), next_scale(values, own), len(rows))
    return found
