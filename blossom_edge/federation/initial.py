"""Version 0 of every block: a pure numpy function of federation and seed, so nobody has to send it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import BlockKind, BlockSpec, Tensors
from blossom_edge.federation.philox import philox_words


def initial_block(spec: BlockSpec, federation_digest: str, seed: int) -> Tensors:
    """The block's first values, float32; equal arguments give equal bits on every machine.

    Uniform in +-1/sqrt(inputs) of the layer (of a GRU: +-1/sqrt(hidden)), as torch does by default; a norm (`norm`,
    `norm.0`, ...) starts at weight 1 and bias 0, a bias without a weight (of a concat fusion) at 0, a gate in the
    middle, an agreed scale at mean 0 and variance 1. Each tensor has a Philox stream of its own, keyed by SHA-256 of
    digest, seed, block and tensor; its raw words do not change between numpy versions.
    """
    shapes = {t.name: t.shape for t in spec.tensors}
    if spec.id.kind in (BlockKind.GATE, BlockKind.SCALE):
        return {name: np.full(shape, _FIXED[name], dtype=np.float32) for name, shape in shapes.items()}
    return {name: _tensor(name, shapes, f"{federation_digest}\n{seed}\n{spec.id}\n{name}") for name in shapes}


_FIXED = {"gate": 0.5, "known": 0.0, "mean": 0.0, "variance": 1.0}
"""Of blocks that are not layers."""


def _tensor(name: str, shapes: Mapping[str, tuple[int, ...]], text: str) -> NDArray[np.float32]:
    shape = shapes[name]
    prefix, _, kind = name.rpartition(".")
    if prefix.partition(".")[0] == "norm":
        return np.full(shape, 1.0 if kind == "weight" else 0.0, dtype=np.float32)
    if prefix == "gru":
        inputs = shapes["gru.weight_hh_l0"][1]
    else:
        weight = f"{prefix}.weight" if prefix else "weight"
        if weight not in shapes:
            return np.zeros(shape, dtype=np.float32)
        inputs = math.prod(shapes[weight][1:])
    return _uniform(shape, 1.0 / math.sqrt(inputs), text)


def _uniform(shape: tuple[int, ...], bound: float, text: str) -> NDArray[np.float32]:
    """Uniform in [-bound, bound) from the upper 53 bits of each word."""
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    words = philox_words(key, math.prod(shape))
    unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    values: NDArray[np.float32] = ((2.0 * unit - 1.0) * bound).astype(np.float32)
    return values.reshape(shape)
