"""The block types: their options, and the names and shapes of their tensors. Never computes with tensors.

The torch modules in `blossom_edge.models` are held to this table by a test, because the gateway has no torch. Types
that are not built in come from installed packages: `foreign_types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

from pydantic import Field

from blossom_edge.core.blocks import BlockKind, TensorSpec
from blossom_edge.federation.block_basics import (
    BlockOptions,
    Dropout,
    Options,
    Signal,
    Width,
    Widths,
    gru_rows,
    linear_rows,
    sorted_rows,
)
from blossom_edge.federation.paper_types import GruEncoder, ImageCnn, LogmelCnn, MlpNormHead

__all__ = [
    "ENCODERS",
    "FUSIONS",
    "HEADS",
    "MAX_BLOCK_VALUES",
    "BlockOptions",
    "BlockType",
    "Conv1dGruOptions",
    "Conv2dOptions",
    "EncoderType",
    "FusionOptions",
    "FusionType",
    "HeadType",
    "MlpEncoderOptions",
    "MlpHeadOptions",
    "Options",
    "Signal",
    "encoder_type",
    "find_type",
    "fusion_type",
    "head_type",
    "options_class",
]

MAX_BLOCK_VALUES = 1 << 26
"""A block may have this many float32 values (256 MiB): federations also arrive over the network."""


class Conv1dGruOptions(BlockOptions):
    """`conv1d_gru`: convolutions with ReLU, halving and dropout, then a GRU, then the mean over time."""

    channels: Widths = (32, 64, 128)
    kernel: Annotated[int, Field(ge=1, le=63)] = 5
    hidden: Width = 128
    dropout: Dropout = 0.1


class MlpEncoderOptions(BlockOptions):
    """`mlp` encoder: the window flattened, then linear layers with ReLU; the last width is the embedding's."""

    widths: Widths = (64, 32)
    dropout: Dropout = 0.1


class Conv2dOptions(BlockOptions):
    """`conv2d`: convolutions that halve height and width, their mean, a linear layer, the mean over the frames."""

    channels: Widths = (16, 32, 64)
    hidden: Width = 128
    dropout: Dropout = 0.1


class FusionOptions(BlockOptions):
    """`concat` and `attention`: the width of what the head sees."""

    width: Width = 256


class MlpHeadOptions(BlockOptions):
    """`mlp` head: one hidden layer with ReLU and dropout, then the outputs."""

    hidden: Width = 64
    dropout: Dropout = 0.1


class BlockType(Protocol):
    """What every kind of block has."""

    name: str
    options: type[BlockOptions]


class EncoderType(BlockType, Protocol):
    """A kind of encoder: (batch, time, values of a sample) -> (batch, width)."""

    def tensors(self, options: Any, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name.

        Raises:
            ValueError: the window or the shape of a sample does not suit this encoder.
        """
        ...

    def width(self, options: Any) -> int:
        """Width of the embedding."""
        ...


class FusionType(BlockType, Protocol):
    """A way to join the embeddings that are present; split into a part per modality and a rest.

    A part turns an embedding into (value (batch, width), score (batch,)), the rest joins values (batch, modality,
    width), scores and the mask `present` (both (batch, modality)) to (batch, width).
    """

    def part(self, options: Any, *, embedding: int) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK.MODALITY`, for an embedding of this width."""
        ...

    def rest(self, options: Any) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK`."""
        ...

    def width(self, options: Any) -> int:
        """Width of what the head sees."""
        ...


class HeadType(BlockType, Protocol):
    """What turns the fused vector, (batch, width), into the outputs of a task, (batch, outputs)."""

    def tensors(self, options: Any, *, width: int, outputs: int) -> tuple[TensorSpec, ...]:
        """The block's tensors: from the fusion's width to one value per class, or one for a regression."""
        ...


class Conv1dGru:
    """Source: the published encoder for wearable data (arXiv:2603.27552); k5 3-32-64-128, GRU 128 is 150,976 values."""

    name = "conv1d_gru"
    options: type[BlockOptions] = Conv1dGruOptions

    def tensors(self, options: Conv1dGruOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        if options.kernel % 2 == 0:
            raise ValueError(f"kernel: found {options.kernel}, expected an odd number")
        if signal.window < 1 << len(options.channels):
            raise ValueError(
                f"channels: {len(options.channels)} layers halve the window {len(options.channels)} times, "
                f"found a window of {signal.window} samples, expected {1 << len(options.channels)} or more"
            )
        rows: dict[str, tuple[int, ...]] = {}
        width = signal.width
        for layer, out in enumerate(options.channels):
            rows |= {f"conv.{layer}.weight": (out, width, options.kernel), f"conv.{layer}.bias": (out,)}
            width = out
        return sorted_rows(rows | gru_rows(width, options.hidden))

    def width(self, options: Conv1dGruOptions) -> int:
        """Width of the embedding."""
        return options.hidden


class MlpEncoder:
    """Linear layers over the flattened window: small, for short windows."""

    name = "mlp"
    options: type[BlockOptions] = MlpEncoderOptions

    def tensors(self, options: MlpEncoderOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        rows: dict[str, tuple[int, ...]] = {}
        width = signal.width * signal.window
        for layer, out in enumerate(options.widths):
            rows |= linear_rows(f"layers.{layer}", width, out)
            width = out
        return sorted_rows(rows)

    def width(self, options: MlpEncoderOptions) -> int:
        """Width of the embedding."""
        return options.widths[-1]


class Conv2d:
    """For images: 3 x 3 convolutions with stride 2, the mean over height and width, a linear layer."""

    name = "conv2d"
    options: type[BlockOptions] = Conv2dOptions

    def tensors(self, options: Conv2dOptions, *, signal: Signal) -> tuple[TensorSpec, ...]:
        """The block's tensors, sorted by name."""
        if len(signal.shape) != 2:
            found = f"samples of shape {list(signal.shape)}" if signal.shape else "samples that are single numbers"
            raise ValueError(f"type: found 'conv2d' for {found}, expected a shape [height, width], such as [96, 96]")
        rows: dict[str, tuple[int, ...]] = {}
        depth = signal.channels
        for layer, out in enumerate(options.channels):
            rows |= {f"conv.{layer}.weight": (out, depth, 3, 3), f"conv.{layer}.bias": (out,)}
            depth = out
        return sorted_rows(rows | linear_rows("linear", depth, options.hidden))

    def width(self, options: Conv2dOptions) -> int:
        """Width of the embedding."""
        return options.hidden


class Concat:
    """`fusion/TASK.MODALITY` is one modality's share of a projection of the concatenation, the rest its bias."""

    name = "concat"
    options: type[BlockOptions] = FusionOptions

    def part(self, options: FusionOptions, *, embedding: int) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK.MODALITY`, for an embedding of this width."""
        return sorted_rows({"weight": (options.width, embedding)})

    def rest(self, options: FusionOptions) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK`."""
        return sorted_rows({"bias": (options.width,)})

    def width(self, options: FusionOptions) -> int:
        """Width of what the head sees."""
        return options.width


class Attention:
    """`fusion/TASK.MODALITY` is one modality's projection and score, the rest a layer norm of their weighted sum."""

    name = "attention"
    options: type[BlockOptions] = FusionOptions

    def part(self, options: FusionOptions, *, embedding: int) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK.MODALITY`, for an embedding of this width."""
        return sorted_rows(linear_rows("projection", embedding, options.width) | {"score.weight": (1, embedding)})

    def rest(self, options: FusionOptions) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK`."""
        return sorted_rows({"norm.weight": (options.width,), "norm.bias": (options.width,)})

    def width(self, options: FusionOptions) -> int:
        """Width of what the head sees."""
        return options.width


class AttentionSum(Attention):
    """As `attention`, but the rest adds a bias to the weighted sum instead of norming it: the paper's fusion."""

    name = "attention_sum"

    def rest(self, options: FusionOptions) -> tuple[TensorSpec, ...]:
        """Tensors of `fusion/TASK`."""
        return sorted_rows({"bias": (options.width,)})


class MlpHead:
    """One hidden layer with ReLU and dropout."""

    name = "mlp"
    options: type[BlockOptions] = MlpHeadOptions

    def tensors(self, options: MlpHeadOptions, *, width: int, outputs: int) -> tuple[TensorSpec, ...]:
        """The block's tensors: from the fusion's width to one value per class, or one for a regression."""
        return sorted_rows(
            linear_rows("layers.0", width, options.hidden) | linear_rows("layers.1", options.hidden, outputs)
        )


ENCODERS: Mapping[str, EncoderType] = {
    t.name: t for t in (Conv1dGru(), MlpEncoder(), Conv2d(), ImageCnn(), LogmelCnn(), GruEncoder())
}
FUSIONS: Mapping[str, FusionType] = {t.name: t for t in (Concat(), Attention(), AttentionSum())}
HEADS: Mapping[str, HeadType] = {t.name: t for t in (MlpHead(), MlpNormHead())}


def encoder_type(name: str) -> EncoderType:
    """A kind of encoder: built in, or of an installed package (see `foreign_types`); the errors are `find_type`'s."""
    return ENCODERS.get(name) or cast("EncoderType", find_type(BlockKind.ENCODER, name))


def fusion_type(name: str) -> FusionType:
    """As `encoder_type`, for a fusion."""
    return FUSIONS.get(name) or cast("FusionType", find_type(BlockKind.FUSION, name))


def head_type(name: str) -> HeadType:
    """As `encoder_type`, for a head."""
    return HEADS.get(name) or cast("HeadType", find_type(BlockKind.HEAD, name))


def find_type(kind: BlockKind, name: str) -> BlockType:
    """A block type of this kind: built in, else of an installed package.

    Packages are looked through only for a name that is not built in, because that takes tens of milliseconds.

    Raises:
        KeyError: there is no such type of this kind; its argument lists those that exist.
        ValueError: a package has it, and it cannot be used: why.
    """
    built_in: Mapping[str, BlockType] = _TYPES[kind]
    if name in built_in:
        return built_in[name]
    from blossom_edge.federation.foreign_types import foreign_names, foreign_type

    found: BlockType | None = foreign_type(kind, name)
    if found is None:
        raise KeyError(", ".join(sorted({*built_in, *foreign_names(kind)})))
    return found


def options_class(kind: BlockKind, type_name: str) -> type[BlockOptions]:
    """The options of a block type.

    Raises:
        KeyError, ValueError: as `find_type`.
    """
    return find_type(kind, type_name).options


_TYPES: Mapping[BlockKind, Mapping[str, BlockType]] = {
    BlockKind.ENCODER: ENCODERS,
    BlockKind.FUSION: FUSIONS,
    BlockKind.HEAD: HEADS,
}
