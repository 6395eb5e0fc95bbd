"""What every block type is written with: its options, what an encoder sees, rows of tensors. Knows no type itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from blossom_edge.core.blocks import TensorSpec

Shapes = dict[str, tuple[int, ...]]
Width = Annotated[int, Field(ge=1, le=8192)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Widths = Annotated[tuple[Width, ...], Field(strict=False, min_length=1, max_length=8)]
Options = tuple[tuple[str, int | float | str], ...]


class BlockOptions(BaseModel):
    """The options that a block type has in the federation file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    def plain(self) -> Options:
        """The options sorted by name, lists written as `32,64,128`: what a `BlockSpec` carries."""
        rows = self.model_dump()
        return tuple(
            (name, ",".join(map(str, value)) if isinstance(value, tuple) else value)
            for name, value in sorted(rows.items())
        )


@dataclass(frozen=True, slots=True)
class Signal:
    """What an encoder sees: windows of `window` samples, each channel with an array of `shape` (() for a number)."""

    channels: int
    window: int
    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Values of one sample, the channel running fastest."""
        return self.channels * math.prod(self.shape)


def linear_rows(prefix: str, inputs: int, outputs: int) -> Shapes:
    """Weight (outputs, inputs) and bias of a linear layer."""
    return {f"{prefix}.weight": (outputs, inputs), f"{prefix}.bias": (outputs,)}


def norm_rows(prefix: str, width: int) -> Shapes:
    """Weight and bias of a layer or group norm; `initial` knows it by a first name of `norm`."""
    return {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}


def gru_rows(inputs: int, hidden: int) -> Shapes:
    """One layer of GRU under the name `gru`."""
    return {
        "gru.weight_ih_l0": (3 * hidden, inputs),
        "gru.weight_hh_l0": (3 * hidden, hidden),
        "gru.bias_ih_l0": (3 * hidden,),
        "gru.bias_hh_l0": (3 * hidden,),
    }


def sorted_rows(rows: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    """Tensors sorted by name."""
    return tuple(TensorSpec(name, shape) for name, shape in sorted(rows.items()))
