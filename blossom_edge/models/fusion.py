"""Fusions: the embeddings that are present, joined to one vector. What is absent moves neither output nor gradient.

A fusion is a part per modality (`fusion/TASK.MODALITY`), which gives a value and a score, and a rest (`fusion/TASK`)
which joins them. A row without any modality gives the rest's bias.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import FusionOptions

PartOutput = tuple[Tensor, Tensor]
"""Value (batch, width) and score (batch,) of one modality."""


class ConcatPart(nn.Module):
    """One modality's share of the projection of a concatenation: `W_m e_m`. Scores are not used."""

    def __init__(self, options: FusionOptions, *, embedding: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(options.width, embedding))

    def forward(self, embedding: Tensor) -> PartOutput:
        """(batch, embedding) -> value (batch, width), score (batch,) of zeros."""
        return nn.functional.linear(embedding, self.weight), embedding.new_zeros(embedding.shape[0])


class ConcatRest(nn.Module):
    """`bias + mean over the present modalities of W_m e_m`: with all present, a projection of the concatenation.

    The mean instead of the sum keeps the scale when a modality is absent.
    """

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(options.width))

    def forward(self, values: Tensor, scores: Tensor, present: Tensor) -> Tensor:
        """Values (batch, modality, width), present (batch, modality) bool -> (batch, width)."""
        kept = values.masked_fill(~present.unsqueeze(2), 0.0).sum(dim=1)
        return self.bias + kept / present.sum(dim=1, keepdim=True).clamp(min=1)


class AttentionPart(nn.Module):
    """One modality's projection and how much attention it asks for, from its own embedding alone.

    Source: AttentionFusion (arXiv:2603.27552), with one score vector per modality so that each can be owned apart.
    """

    def __init__(self, options: FusionOptions, *, embedding: int) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding, options.width)
        self.score = nn.Linear(embedding, 1, bias=False)

    def forward(self, embedding: Tensor) -> PartOutput:
        """(batch, embedding) -> value (batch, width), score (batch,)."""
        return self.projection(embedding), self.score(embedding).squeeze(1)


def weighted_sum(values: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the scores of the present modalities, and the sum of their values so weighted: (batch, width).

    values (batch, modality, width), scores and present (batch, modality). A row without any modality gives zeros.
    """
    low = torch.finfo(scores.dtype).min  # not -inf: a row without any modality would become NaN
    weights = torch.softmax(scores.masked_fill(~present, low), dim=1)
    kept = values.masked_fill(~present.unsqueeze(2), 0.0)
    return (weights.unsqueeze(2) * kept).sum(dim=1)


class AttentionRest(nn.Module):
    """The weighted sum of the present modalities' projections, then a layer norm."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(options.width)

    def forward(self, values: Tensor, scores: Tensor, present: Tensor) -> Tensor:
        """Values (batch, modality, width), scores and present (batch, modality) -> (batch, width)."""
        result: Tensor = self.norm(weighted_sum(values, scores, present))
        return result


class AttentionSumRest(nn.Module):
    """The weighted sum of the present modalities' projections, and a bias, as in the paper (arXiv:2603.27552)."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(options.width))

    def forward(self, values: Tensor, scores: Tensor, present: Tensor) -> Tensor:
        """Values (batch, modality, width), scores and present (batch, modality) -> (batch, width)."""
        return self.bias + weighted_sum(values, scores, present)


PART_MODULES: dict[str, Callable[..., nn.Module]] = {
    "concat": ConcatPart,
    "attention": AttentionPart,
    "attention_sum": AttentionPart,
}
"""The modules of a `fusion/TASK.MODALITY`, by the fusion's type: called with the options and `embedding=`."""
REST_MODULES: dict[str, Callable[..., nn.Module]] = {
    "concat": ConcatRest,
    "attention": AttentionRest,
    "attention_sum": AttentionSumRest,
}
"""The modules of a `fusion/TASK`: called with the options."""
