"""Heads: the fused vector to the outputs of a task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import MlpHeadOptions


class MlpHead(nn.Module):
    """One hidden layer with ReLU and dropout, then a logit per class, or one value for a regression."""

    def __init__(self, options: MlpHeadOptions, *, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(width, options.hidden), nn.Linear(options.hidden, outputs)))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """(batch, width) -> (batch, outputs)."""
        outputs: Tensor = self.layers[1](self.dropout(torch.relu(self.layers[0](fused))))
        return outputs


HEAD_MODULES: dict[str, Callable[..., nn.Module]] = {"mlp": MlpHead}
"""The modules of the built-in types: called with the options, `width=` and `outputs=`."""
