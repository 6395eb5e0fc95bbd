"""How a block steps along what the rule gave of its updates. Pure: state in, state out, one state per block. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, Tensors
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import RoundSettings

OptState = Mapping[str, Array]
"""What an optimiser remembers of one block: float64 arrays, `m.TENSOR` and `v.TENSOR`; empty where it needs nothing."""


class ServerOptimizer(Protocol):
    """Turns (block, delta) into the next version of the block."""

    def init(self, block: Tensors) -> OptState:
        """The state before the first step."""
        ...

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """Step `block` along `delta` (local - base, so it is added); new arrays, inputs stay as they are.

        Works in float64 and returns a float32 block. A sum beyond float32 becomes inf: who stores the result checks it.

        Raises:
            ValueError: block, delta and state have not the same tensors.
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
        _check_lr(self.lr)

    def init(self, block: Tensors) -> OptState:
        """Nothing to remember."""
        return {}

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """See `ServerOptimizer.apply`."""
        _check_same(block, delta)
        return {name: _stepped(values, delta[name], self.lr) for name, values in block.items()}, state


@dataclass(frozen=True, slots=True)
class AvgM:
    """m <- momentum * m + delta, block <- block + lr * m: a heavy ball; with momentum 0 it is `Avg`.

    Source: Hsu et al. 2019 (arXiv:1909.06335), FedAvgM.
    """

    lr: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        _check_share("server_momentum", self.momentum)

    def init(self, block: Tensors) -> OptState:
        """The ball at rest."""
        return {f"m.{name}": np.zeros(np.shape(values)) for name, values in block.items()}

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """See `ServerOptimizer.apply`."""
        _check_same(block, delta)
        _check_state(self.init(block), state)
        after: dict[str, Array] = {}
        result: dict[str, Array] = {}
        for name, values in block.items():
            m = state[f"m.{name}"] * self.momentum + np.asarray(delta[name], dtype=np.float64)
            after[f"m.{name}"] = m
            result[name] = _stepped(values, m, self.lr)
        return result, after


@dataclass(frozen=True, slots=True)
class _Adaptive:
    """m <- momentum * m + (1 - momentum) * delta, v by the method, block <- block + lr * m / (sqrt(v) + tau).

    v starts at tau squared. No bias correction, as in the source.
    Source: Reddi et al. 2021 (arXiv:2003.00295), Algorithm 2.
    """

    lr: float = 1.0
    momentum: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        _check_share("server_momentum", self.momentum)
        if not (math.isfinite(self.tau) and self.tau > 0):
            raise ConfigError("federation-invalid", f"server_tau is {self.tau}, it must be a number above 0")

    def init(self, block: Tensors) -> OptState:
        """Zeros for m, tau squared for v."""
        shapes = {name: np.shape(values) for name, values in block.items()}
        m: dict[str, Array] = {f"m.{name}": np.zeros(shape) for name, shape in shapes.items()}
        return m | {f"v.{name}": np.full(shape, self.tau * self.tau) for name, shape in shapes.items()}

    def apply(self, block: Tensors, delta: Tensors, state: OptState) -> tuple[Tensors, OptState]:
        """See `ServerOptimizer.apply`."""
        _check_same(block, delta)
        _check_state(self.init(block), state)
        after: dict[str, Array] = {}
        result: dict[str, Array] = {}
        for name, values in block.items():
            d = np.asarray(delta[name], dtype=np.float64)
            m = state[f"m.{name}"] * self.momentum + d * (1.0 - self.momentum)
            v = self._second(np.asarray(state[f"v.{name}"], dtype=np.float64), d * d)
            after[f"m.{name}"], after[f"v.{name}"] = m, v
            result[name] = _stepped(values, m / (np.sqrt(v) + self.tau), self.lr)
        return result, after

    def _second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Adagrad(_Adaptive):
    """FedAdagrad: v <- v + delta squared; without momentum, as the source's experiments have it."""

    momentum: float = 0.0

    def _second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return v + square


@dataclass(frozen=True, slots=True)
class _Decaying(_Adaptive):
    """An adaptive step whose v forgets at the rate beta2."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        _Adaptive.__post_init__(self)
        _check_share("server_beta2", self.beta2)


@dataclass(frozen=True, slots=True)
class Adam(_Decaying):
    """FedAdam: v <- beta2 * v + (1 - beta2) * delta squared."""

    def _second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return v * self.beta2 + square * (1.0 - self.beta2)


@dataclass(frozen=True, slots=True)
class Yogi(_Decaying):
    """FedYogi: v <- v - (1 - beta2) * delta squared * sign(v - delta squared); v shrinks slower than Adam's."""

    def _second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return v - square * (1.0 - self.beta2) * np.sign(v - square)


_BY_NAME: Mapping[str, Callable[..., ServerOptimizer]] = {
    "avg": Avg,
    "avgm": AvgM,
    "adagrad": Adagrad,
    "adam": Adam,
    "yogi": Yogi,
}
_OPTIONS: Mapping[str, frozenset[str]] = {
    "avg": frozenset(f.name for f in fields(Avg)),
    "avgm": frozenset(f.name for f in fields(AvgM)),
    "adagrad": frozenset(f.name for f in fields(Adagrad)) - {"momentum"},
    "adam": frozenset(f.name for f in fields(Adam)),
    "yogi": frozenset(f.name for f in fields(Yogi)),
}


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


def server_optimizer_of(rounds: RoundSettings) -> ServerOptimizer:
    """The server optimiser of a federation, with those of its options that it has."""
    given = {
        "lr": rounds.server_lr,
        "momentum": rounds.server_momentum,
        "beta2": rounds.server_beta2,
        "tau": rounds.server_tau,
    }
    name = rounds.server_optimizer
    return make_server_optimizer(name, **{k: v for k, v in given.items() if k in _OPTIONS[name]})


def _stepped(values: Array, step: Array, lr: float) -> Array:
    """The sum values + lr * step, in float64 and rounded once to float32."""
    with np.errstate(over="ignore"):
        scaled = np.multiply(step, lr, dtype=np.float64)
        return np.add(values, scaled, dtype=np.float64).astype(np.float32)


def _check_lr(lr: float) -> None:
    if not (math.isfinite(lr) and lr > 0):
        raise ConfigError("federation-invalid", f"server_lr is {lr}, it must be a number above 0")


def _check_share(key: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ConfigError("federation-invalid", f"{key} is {value}, it must be from 0 to below 1")


def _check_same(block: Tensors, delta: Tensors) -> None:
    have = {name: np.shape(values) for name, values in block.items()}
    want = {name: np.shape(values) for name, values in delta.items()}
    if have != want:
        raise ValueError(f"the delta has tensors {want}, the block has {have}")


def _check_state(expected: OptState, state: OptState) -> None:
    have = {name: np.shape(values) for name, values in state.items()}
    want = {name: np.shape(values) for name, values in expected.items()}
    if have != want:
        raise ValueError(f"the state has tensors {have}, the block needs {want}")
