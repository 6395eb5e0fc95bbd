"""What a round is made of: the plan that goes down, the updates that come up."""

from __future__ import annotations

from dataclasses import dataclass

from blossom_edge.core.blocks import BlockKey, Tensors
from blossom_edge.core.names import DeviceId


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What each device does in one round.

    Either `epochs` passes over the device's labelled windows or `steps` optimiser steps; the other
    is 0. `lr` is that of this round (it is a function of the round, worked out by the aggregator).
    `seed` feeds batch order and dropout, together with round and device id. `clip_norm` 0 means no clipping.
    `prox_mu` pulls shared blocks back to what the round began with (FedProx), `modality_dropout` is the chance that a
    window loses one of several modalities in a step.
    """

    optimizer: str
    lr: float
    epochs: int
    steps: int
    batch_size: int
    momentum: float
    weight_decay: float
    clip_norm: float
    seed: int
    prox_mu: float = 0.0
    modality_dropout: float = 0.0

    def batches(self, num_windows: int) -> int:
        """Optimiser steps of one pass over so many windows."""
        return -(-num_windows // self.batch_size)

    def num_steps(self, num_windows: int) -> int:
        """Optimiser steps of the whole round on so many windows."""
        return self.steps or self.epochs * self.batches(num_windows)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """One block in a round: which version everybody starts from, and when it may be committed.

    `sha256` is that of the version's bytes as they are cast. `quorum` is the number of updates
    without which the block is held; `min_cohort` the number of owners below which its mean would
    show too much of a single device.
    """

    key: BlockKey
    version: int
    sha256: str
    quorum: int
    min_cohort: int


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What the participants of a round are asked to do. Durations, never clock times."""

    epoch: int
    round: int
    remaining_s: float
    blocks: tuple[BlockPlan, ...]
    training: LocalTraining
    codec: str
    min_new_windows: int


@dataclass(frozen=True, slots=True)
class BlockUpdate:
    """What one device sends for one block of one round.

    `delta` is local - base, float32, so it is *added* to the base. `num_samples` counts the samples
    that exercised this block, `num_steps` the optimiser steps.
    """

    device: DeviceId
    round: int
    key: BlockKey
    base_version: int
    num_samples: int
    num_steps: int
    delta: Tensors
