"""The weighted mean of one block over the devices that own it. Never sorts, never holds more than one update.

float64 and a fixed order (ascending device id) give the same bits on every machine and in every replay:
only elementwise products, sums and one quotient, no BLAS, no pairwise reduction.

    delta = mean_delta(spec, in_device_order(updates))     # sum(n_i * delta_i) / sum(n_i)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import BlockSpec, Tensors
from blossom_edge.core.rounds import BlockUpdate

_CHUNK_VALUES = 65_536
"""Values worked on at a time: scratch and accumulator stay in the cache."""


class WeightedMean:
    """Adds deltas of one block; memory is one float64 copy of the block. The order of `add` is part of the result.

    One member's mean is exactly its delta, whatever its weight. `num_members` counts the deltas added.
    """

    def __init__(self, spec: BlockSpec) -> None:
        self.num_members = 0
        self._spec = spec
        self._total_weight = 0
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._scratch = np.empty(min(_CHUNK_VALUES, max((t.size for t in spec.tensors), default=0)), dtype=np.float64)

    def add(self, delta: Tensors, weight: int) -> None:
        """Take in one device's delta (names and shapes of the spec), weighted by its samples.

        Raises:
            ValueError: weight below 1, or tensors that are not the block's; nothing is added then.
        """
        if weight < 1:
            raise ValueError(f"{self._spec.id}: the weight is {weight}, at least 1 is needed")
        self._check(delta)
        for tensor in self._spec.tensors:
            values = np.asarray(delta[tensor.name]).reshape(-1)
            if self.num_members == 0:
                # Unweighted, so that a single owner's delta comes out untouched; weighted when a second one comes.
                self._sums[tensor.name] = values.astype(np.float64)
                continue
            total = self._sums[tensor.name]
            for start in range(0, tensor.size, _CHUNK_VALUES):
                part = total[start : start + _CHUNK_VALUES]
                scratch = self._scratch[: part.size]
                if self.num_members == 1:
                    np.multiply(part, float(self._total_weight), out=part)
                np.copyto(scratch, values[start : start + _CHUNK_VALUES])
                np.multiply(scratch, float(weight), out=scratch)
                np.add(part, scratch, out=part)
        self._total_weight += weight
        self.num_members += 1

    def result(self) -> Tensors | None:
        """The mean so far, new float64 arrays; None when nothing was added."""
        if self.num_members == 0:
            return None
        divisor = float(self._total_weight) if self.num_members > 1 else 1.0
        return {t.name: (self._sums[t.name] / divisor).reshape(t.shape) for t in self._spec.tensors}

    def _check(self, delta: Tensors) -> None:
        found = {name: np.shape(values) for name, values in delta.items()}
        expected = {t.name: t.shape for t in self._spec.tensors}
        if found != expected:
            raise ValueError(f"{self._spec.id}: the delta has tensors {found}, the block has {expected}")


def in_device_order(updates: Iterable[BlockUpdate]) -> list[BlockUpdate]:
    """The updates in ascending device id, the order in which every mean is taken."""
    return sorted(updates, key=lambda update: update.device)


def mean_delta(spec: BlockSpec, updates: Iterable[BlockUpdate]) -> Tensors | None:
    """The mean delta of one block over its owners, weighted by samples; None for no updates.

    `updates` is taken one by one and must come in ascending device id: read them so from the spool, or use
    `in_device_order`. Returns float64; the server optimiser adds it to the block.
    Source: BLOSSOM (arXiv:2603.27552); where all devices are owners, McMahan et al. 2017 (arXiv:1602.05629),
    Algorithm 1.

    Raises:
        ValueError: an update of another block, a device twice or out of order, a bad weight or tensor.
    """
    mean, last = WeightedMean(spec), ""
    for update in updates:
        if update.key.block != spec.id:
            raise ValueError(f"an update of {update.key} in the mean of {spec.id}")
        if update.device <= last:
            raise ValueError(f"{spec.id}: {update.device} comes after {last}, device ids must ascend")
        last = update.device
        mean.add(update.delta, update.num_samples)
    return mean.result()
