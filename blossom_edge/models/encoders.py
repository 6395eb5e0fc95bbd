"""Encoders: one window of one modality, (batch, time, channel), to an embedding, (batch, width)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import BlockOptions, Conv1dGruOptions, MlpEncoderOptions


class Conv1dGru(nn.Module):
    """Convolutions with ReLU, halving in time and dropout; a GRU; the mean of its outputs over time.

    Source: the published encoder for wearable data (arXiv:2603.27552).
    """

    def __init__(self, options: Conv1dGruOptions, *, channels: int) -> None:
        super().__init__()
        widths = (channels, *options.channels)
        self.conv = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], options.kernel, padding=options.kernel // 2)
            for i in range(len(options.channels))
        )
        self.gru = nn.GRU(widths[-1], options.hidden, batch_first=True)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, channel) -> (batch, hidden)."""
        x = window.transpose(1, 2)  # (batch, channel, time)
        for conv in self.conv:
            x = self.dropout(nn.functional.max_pool1d(torch.relu(conv(x)), 2))
        states, _ = self.gru(x.transpose(1, 2))
        mean: Tensor = states.mean(dim=1)
        return mean


class MlpEncoder(nn.Module):
    """Linear layers with ReLU and dropout over the flattened window."""

    def __init__(self, options: MlpEncoderOptions, *, values: int) -> None:
        super().__init__()
        widths = (values, *options.widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, channel) -> (batch, last width)."""
        x = window.flatten(1)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return x


def make_encoder(options: BlockOptions, *, channels: int, window: int) -> nn.Module:
    """The encoder with these options, with torch's own initial values (they are meant to be overwritten)."""
    if isinstance(options, Conv1dGruOptions):
        return Conv1dGru(options, channels=channels)
    if isinstance(options, MlpEncoderOptions):
        return MlpEncoder(options, values=channels * window)
    raise TypeError(f"no encoder has {type(options).__name__}")
