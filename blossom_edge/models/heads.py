"""Heads: the fused vector to the outputs of a task."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import MlpHeadOptions
from blossom_edge.federation.paper_types import MlpNormOptions


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


class MlpNormHead(nn.Module):
    """Hidden layers, each with layer norm, ReLU and dropout, then the outputs.

    Source: the published head for digits (arXiv:2603.27552), with layer norm for its BatchNorm.
    """

    def __init__(self, options: MlpNormOptions, *, width: int, outputs: int) -> None:
        super().__init__()
        widths = (width, *options.widths, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norm = nn.ModuleList(nn.LayerNorm(b) for b in options.widths)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """(batch, width) -> (batch, outputs)."""
        x = fused
        for layer, norm in zip(self.layers[:-1], self.norm, strict=True):
            x = self.dropout(torch.relu(norm(layer(x))))
        outputs: Tensor = self.layers[-1](x)
        return outputs


HEAD_MODULES: dict[str, Callable[..., nn.Module]] = {"mlp": MlpHead, "mlp_norm": MlpNormHead}
"""The modules of the built-in types: called with the options, `width=` and `outputs=`."""
