"""Encoders: one window of one modality, (batch, time, values of a sample), to an embedding, (batch, width)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from blossom_edge.federation.block_types import (
    Conv1dGruOptions,
    Conv2dOptions,
    MlpEncoderOptions,
    Signal,
)
from blossom_edge.federation.paper_types import GruOptions, ImageCnnOptions, LogmelCnnOptions
from blossom_edge.models.gru import MeanGru, trains_on_cpu
from blossom_edge.models.halving import dropout_masks, halve


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
        self.gru = MeanGru(widths[-1], options.hidden)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, width) -> (batch, hidden)."""
        if trains_on_cpu(self, window):
            return self.gru.mean(self._halved(window))
        x = window.transpose(1, 2)  # (batch, channel, time)
        for conv in self.conv:
            x = self.dropout(nn.functional.max_pool1d(torch.relu(conv(x)), 2))
        return self.gru.mean(x.transpose(1, 2))

    def _halved(self, window: Tensor) -> Tensor:
        """The same convolutions for training on a CPU: (batch, time, width) -> (batch, time / 2 ** n, channel)."""
        masks: list[Tensor | None] = [None] * len(self.conv)
        if self.dropout.p > 0:
            sizes, time = [], window.shape[1]
            for weight in (conv.get_parameter("weight") for conv in self.conv):
                kernel = weight.shape[2]
                time = (time + 2 * (kernel // 2) - kernel + 1) // 2
                sizes.append((len(window), time, weight.shape[0]))
            masks = [*dropout_masks(sizes, self.dropout.p, like=window)]
        x = window
        for conv, keep in zip(self.conv, masks, strict=True):
            x = halve(x, conv.get_parameter("weight"), conv.get_parameter("bias"), keep)
        return x


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


class ImageCnn(nn.Module):
    """3 x 3 convolutions, each with ReLU, norm and halving; a linear layer over what is left; the mean over frames.

    Source: the published image encoder (arXiv:2603.27552), with GroupNorm for its BatchNorm.
    """

    def __init__(self, options: ImageCnnOptions, *, signal: Signal) -> None:
        super().__init__()
        depths = (signal.channels, *options.channels)
        self.conv = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(depths))
        self.norm = nn.ModuleList(ChannelNorm(b) for b in options.channels)
        left = math.prod(size >> len(options.channels) for size in signal.shape)
        self.linear = nn.Linear(depths[-1] * left, options.hidden)
        self._frame = (*signal.shape, signal.channels)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, height * width * channel), the channel running fastest -> (batch, hidden)."""
        batch, time, _ = window.shape
        x = window.reshape(batch * time, *self._frame).permute(0, 3, 1, 2)
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = nn.functional.max_pool2d(norm(torch.relu(conv(x))), 2)
        mean: Tensor = self.linear(x.flatten(1)).reshape(batch, time, -1).mean(dim=1)
        return mean


class LogmelCnn(nn.Module):
    """Convolutions with stride 2 over bands and time, each with ReLU and norm; their mean; a linear layer.

    Source: the published encoder of spectrograms (arXiv:2603.27552), with GroupNorm for its BatchNorm.
    """

    def __init__(self, options: LogmelCnnOptions, *, signal: Signal) -> None:
        super().__init__()
        depths = (signal.channels, *options.channels)
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, kernel := 3 if layer else 5, stride=2, padding=kernel // 2)
            for layer, (a, b) in enumerate(itertools.pairwise(depths))
        )
        self.norm = nn.ModuleList(ChannelNorm(b) for b in options.channels)
        self.linear = nn.Linear(depths[-1], options.hidden)
        self._sample = (*signal.shape, signal.channels)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, band * channel), the channel running fastest -> (batch, hidden)."""
        batch, time, _ = window.shape
        x = window.reshape(batch, time, *self._sample).permute(0, 3, 2, 1)  # (batch, channel, band, time)
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = norm(torch.relu(conv(x)))
        embedding: Tensor = self.linear(x.mean(dim=(2, 3)))
        return embedding


class GruEncoder(nn.Module):
    """A GRU over the samples, and the mean of its outputs. Source: the published text encoder (arXiv:2603.27552)."""

    def __init__(self, options: GruOptions, *, signal: Signal) -> None:
        super().__init__()
        self.gru = MeanGru(signal.width, options.hidden)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, width) -> (batch, hidden)."""
        return self.gru.mean(window)


class ChannelNorm(nn.GroupNorm):
    """Group norm of four groups, or as many as divide the channels; a single value in training is no error."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(channels, 4), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, ...) -> the same shape."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


ENCODER_MODULES: dict[str, Callable[..., nn.Module]] = {
    "conv1d_gru": Conv1dGru,
    "mlp": MlpEncoder,
    "conv2d": Conv2d,
    "image_cnn": ImageCnn,
    "logmel_cnn": LogmelCnn,
    "gru": GruEncoder,
}
"""The modules of the built-in types: called with the options and `signal=`."""
