"""The torch module of one block, as an export and its check need it. Values are zero until they are given."""

from __future__ import annotations

from torch import nn

from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.federation.schema import Federation
from blossom_edge.models.block_model import BlockModel


def block_module(federation: Federation, block: BlockId, values: Tensors | None = None) -> nn.Module:
    """One block in evaluation mode with these values, or all zero; draws no random numbers.

    Raises:
        SpecMismatch: names or shapes are not those of the federation.
        KeyError: the federation has no such block.
    """
    model = BlockModel(federation, [block])
    if values is not None:
        model.load({block: values})
    return model.eval().module(block)
