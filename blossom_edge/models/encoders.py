"""Encoders: one window of one modality, (batch, time, values of a sample), to an embedding, (batch, width)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import (
    Conv1dGruOptions,
    Conv2dOptions,
    MlpEncoderOptions,
    Signal,
)


class Conv1dGru(nn.Module):
    """Convolutions with ReLU, halving in time and dropout; a GRU; the mean of its outputs over time.

    Source: the published encoder for wearable data (arXiv:2603.27552).
    """

    def __init__(self, options: Conv1dGruOptions, *, signal: Signal) -> None:
        super().__init__()
        widths = (signal.width, *options.channels)
        self.conv = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], options.kernel, padding=options.kernel // 2)
            for i in range(len(options.channels))
        )
        self.gru = nn.GRU(widths[-1], options.hidden, batch_first=True)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, width) -> (batch, hidden)."""
        x = window.transpose(1, 2)  # (batch, channel, time)
        for conv in self.conv:
            x = self.dropout(nn.functional.max_pool1d(torch.relu(conv(x)), 2))
        states, _ = self.gru(x.transpose(1, 2))
        mean: Tensor = states.mean(dim=1)
        return mean


class MlpEncoder(nn.Module):
    """Linear layers with ReLU and dropout over the flattened window."""

    def __init__(self, options: MlpEncoderOptions, *, signal: Signal) -> None:
        super().__init__()
        widths = (signal.width * signal.window, *options.widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, width) -> (batch, last width)."""
        x = window.flatten(1)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return x


class Conv2d(nn.Module):
    """3 x 3 convolutions with stride 2 and ReLU, the mean over height and width, dropout, a linear layer.

    The frames of a window are seen one by one; the embedding is the mean over them.
    """

    def __init__(self, options: Conv2dOptions, *, signal: Signal) -> None:
        super().__init__()
        depths = (signal.channels, *options.channels)
        self.conv = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(depths))
        self.linear = nn.Linear(depths[-1], options.hidden)
        self.dropout = nn.Dropout(options.dropout)
        self._frame = (*signal.shape, signal.channels)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, height * width * channel), the channel running fastest -> (batch, hidden)."""
        batch, time, _ = window.shape
        x = window.reshape(batch * time, *self._frame).permute(0, 3, 1, 2)
        for conv in self.conv:
            x = torch.relu(conv(x))
        frames = self.linear(self.dropout(x.mean(dim=(2, 3))))
        mean: Tensor = frames.reshape(batch, time, -1).mean(dim=1)
        return mean


ENCODER_MODULES: dict[str, Callable[..., nn.Module]] = {
    "conv1d_gru": Conv1dGru,
    "mlp": MlpEncoder,
    "conv2d": Conv2d,
}
"""The modules of the built-in types: called with the options and `signal=`."""
