"""How a block steps along the mean delta. Pure: state in, state out, one state per block. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from blossom_edge.core.blocks import Array, Tensors
from blossom_edge.core.errors import ConfigError

OptState = Mapping[str, Array]
"""What an optimiser remembers of one block, as named arrays, so that it can be stored like a block."""


class ServerOptimizer(Protocol):
    """Turns (block, mean delta) into the next version of the block."""

    def init(self, block: Tensors) -> OptState:
        """The state before the first step."""
        ...

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """Step `block` along `delta` (local - base, so it is added); new arrays, inputs stay as they are.

        Works in float64 and returns float32. A sum beyond float32 becomes inf: who stores the result checks it.

        Raises:
            ValueError: the two have not the same tensors.
        """
        ...


@dataclass(frozen=True, slots=True)
class Avg:
    """block + lr * delta; with lr 1 plain averaging.

    Source: McMahan et al. 2017 (arXiv:1602.05629), Algorithm 1; Reddi et al. 2021 (arXiv:2003.00295), Algorithm 1
    with plain SGD on the server.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError("federation-invalid", f"server_lr is {self.lr}, it must be a number above 0")

    def init(self, block: Tensors) -> OptState:
        """Nothing to remember."""
        return {}

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """See `ServerOptimizer.apply`."""
        _check_same(block, delta)
        result: dict[str, Array] = {}
        with np.errstate(over="ignore"):
            for name, values in block.items():
                step = np.multiply(delta[name], self.lr, dtype=np.float64)
                result[name] = np.add(values, step, dtype=np.float64).astype(np.float32)
        return result, state


_BY_NAME: Mapping[str, Callable[..., ServerOptimizer]] = {"avg": Avg}
_OPTIONS: Mapping[str, frozenset[str]] = {"avg": frozenset(f.name for f in fields(Avg))}


def make_server_optimizer(name: str, **options: Any) -> ServerOptimizer:
    """The server optimiser that a federation file names.

    Raises:
        ConfigError: `federation-invalid`: no such optimiser, no such option, or a value out of range.
    """
    if name not in _BY_NAME:
        raise ConfigError(
            "federation-invalid",
            f"server_optimizer {name!r} is not known",
            hint=f"there is {', '.join(sorted(_BY_NAME))}",
        )
    unknown = sorted(set(options) - _OPTIONS[name])
    if unknown:
        raise ConfigError(
            "federation-invalid",
            f"server_optimizer {name!r} has no option {unknown[0]!r}",
            hint=f"it takes {', '.join(sorted(_OPTIONS[name]))}",
        )
    return _BY_NAME[name](**options)


def _check_same(block: Tensors, delta: Tensors) -> None:
    have = {name: np.shape(values) for name, values in block.items()}
    want = {name: np.shape(values) for name, values in delta.items()}
    if have != want:
        raise ValueError(f"the delta has tensors {want}, the block has {have}")
