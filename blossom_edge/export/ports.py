"""What goes into the graph of a block and what comes out: names, shapes, example values. Knows no torch, no onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import BlockId, BlockKind
from blossom_edge.federation.schema import MAX_MODALITIES, Federation
from blossom_edge.federation.spec import embedding_width, encoder_id, fused_width, part_modality, shared_id

MAX_BATCH = 4096
"""The batch axis of every graph goes from 1 to this."""
AXES: Mapping[str, int] = {"batch": MAX_BATCH, "modality": MAX_MODALITIES}
"""The dynamic axes and their largest sizes; the smallest is 1."""

Values = dict[str, NDArray[np.float32] | NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph; a dynamic axis stands in `shape` as its name."""

    name: str
    shape: tuple[int | str, ...]
    is_bool: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """The inputs of a block's graph in the order of its module's arguments, and its outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def example(self, *, batch: int, modalities: int, seed: int) -> Values:
        """Random inputs, normally distributed; masks are random, and the last row of a larger batch has nothing."""
        generator = np.random.Generator(np.random.Philox(seed))
        sizes = {"batch": batch, "modality": modalities}
        values: Values = {}
        for port in self.inputs:
            shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in port.shape)
            if port.is_bool:
                mask = generator.random(shape) < 0.6
                if batch > 1:
                    mask[0], mask[-1] = True, False
                values[port.name] = mask
            else:
                values[port.name] = generator.standard_normal(shape, dtype=np.float32)
        return values


def block_ports(federation: Federation, block: BlockId) -> Ports:
    """The ports of one block.

    Raises:
        KeyError: the federation has no such block.
    """
    spec = federation.spec[block]
    if block.kind is BlockKind.ENCODER:
        signal = federation.modalities[block.name].signal
        window = Port("window", ("batch", signal.window, signal.width))
        return Ports((window,), (Port("embedding", ("batch", embedding_width(federation, block))),))
    width = fused_width(federation, str(spec.task))
    if shared_id(block).kind is BlockKind.HEAD:
        outputs = federation.tasks[str(spec.task)].num_outputs
        return Ports((Port("fused", ("batch", width)),), (Port("output", ("batch", outputs)),))
    if modality := part_modality(block):
        embedding = Port("embedding", ("batch", embedding_width(federation, encoder_id(modality))))
        return Ports((embedding,), (Port("value", ("batch", width)), Port("score", ("batch",))))
    many = ("batch", "modality")
    inputs = (Port("values", (*many, width)), Port("scores", many), Port("present", many, is_bool=True))
    return Ports(inputs, (Port("fused", ("batch", width)),))
