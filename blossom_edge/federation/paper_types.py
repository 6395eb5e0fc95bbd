"""Block types of the paper's data sets other than wearables: their options and tensors. Never computes with tensors.

Source: the published models (arXiv:2603.27552), with GroupNorm in place of BatchNorm: batch statistics of one device
are no parameters, and would leak into what is averaged. Both have a weight and a bias for each channel.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from blossom_edge.core.blocks import TensorSpec
from blossom_edge.federation.block_basics import (
    BlockOptions,
    Dropout,
    Shapes,
    Signal,
    Width,
    Widths,
    gru_rows,
    linear_rows,
    norm_rows,
    sorted_rows,
)

LARGEST_KERNEL, KERNEL = 5, 3
"""Of `logmel_cnn`: of the first layer, and of all others."""


class ImageCnnOptions(BlockOptions):
    """`image_cnn`: convolutions with ReLU, norm and halving, flattened to a linear layer, the mean over the frames."""

    channels: Annotated[Widths, Field(max_length=6)] = (8, 16, 32)
    hidden: Width = 32


class LogmelCnnOptions(BlockOptions):
    """`logmel_cnn`: convolutions with stride 2 over time and bands, ReLU and norm; their mean, a linear layer."""

    channels: Widths = (8, 16, 32, 64)
    hidden: Width = 256


class GruOptions(BlockOptions):
    """`gru`: a GRU over the samples, then the mean over time."""

    hidden: Width = 64


class MlpNormOptions(BlockOptions):
    """`mlp_norm` head: hidden layers, each with norm, ReLU and dropout, then the outputs."""

    widths: Widths = (256, 128)
    dropout: Dropout = 0.3


class ImageCnn:
    """The paper's image encoder; 1 channel of 28 x 28 to 32 is 15,248 values."""

    name = "image_cnn"
    options: type[BlockOptions] = ImageCnnOptions

    def tensors(self, options: ImageCnnOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        if len(signal.shape) != 2:
            raise ValueError(f"type: found '{self.name}' for {_samples(signal)}, expected a shape [height, width]")
        least = 1 << len(options.channels)
        if min(signal.shape) < least:
            raise ValueError(
                f"channels: {len(options.channels)} layers halve the image {len(options.channels)} times, found "
                f"{signal.shape[0]} x {signal.shape[1]}, expected {least} x {least} or more"
            )
        rows: Shapes = {}
        depth, (height, width) = signal.channels, signal.shape
        for layer, out in enumerate(options.channels):
            rows |= {f"conv.{layer}.weight": (out, depth, KERNEL, KERNEL), f"conv.{layer}.bias": (out,)}
            rows |= norm_rows(f"norm.{layer}", out)
            depth, height, width = out, height // 2, width // 2
        return sorted_rows(rows | linear_rows("linear", depth * height * width, options.hidden))

    def width(self, options: ImageCnnOptions) -> int:
        """Width of the embedding."""
        return options.hidden


class LogmelCnn:
    """The paper's encoder of log-mel frames; 2 channels to 256 are 41,592 values, 1 channel 41,392."""

    name = "logmel_cnn"
    options: type[BlockOptions] = LogmelCnnOptions

    def tensors(self, options: LogmelCnnOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        if len(signal.shape) != 1:
            raise ValueError(
                f"type: found '{self.name}' for {_samples(signal)}, expected a shape [bands], such as [64]"
            )
        rows: Shapes = {}
        depth = signal.channels
        for layer, out in enumerate(options.channels):
            kernel = KERNEL if layer else LARGEST_KERNEL
            rows |= {f"conv.{layer}.weight": (out, depth, kernel, kernel), f"conv.{layer}.bias": (out,)}
            rows |= norm_rows(f"norm.{layer}", out)
            depth = out
        return sorted_rows(rows | linear_rows("linear", depth, options.hidden))

    def width(self, options: LogmelCnnOptions) -> int:
        """Width of the embedding."""
        return options.hidden


class GruEncoder:
    """The paper's encoder of text features; 512 to 64 is 110,976 values."""

    name = "gru"
    options: type[BlockOptions] = GruOptions

    def tensors(self, options: GruOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        return sorted_rows(gru_rows(signal.width, options.hidden))

    def width(self, options: GruOptions) -> int:
        """Width of the embedding."""
        return options.hidden


class MlpNormHead:
    """The paper's head for digits; 128 to 10 classes is 67,978 values."""

    name = "mlp_norm"
    options: type[BlockOptions] = MlpNormOptions

    def tensors(self, options: MlpNormOptions, *, width: int, outputs: int) -> tuple[TensorSpec, ...]:
        """The block's tensors: from the fusion's width to one value per class, or one for a regression."""
        rows: Shapes = {}
        for layer, out in enumerate(options.widths):
            rows |= linear_rows(f"layers.{layer}", width, out) | norm_rows(f"norm.{layer}", out)
            width = out
        return sorted_rows(rows | linear_rows(f"layers.{len(options.widths)}", width, outputs))


def _samples(signal: Signal) -> str:
    return f"samples of shape {list(signal.shape)}" if signal.shape else "samples that are single numbers"
