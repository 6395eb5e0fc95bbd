"""The seam between the session and whatever learns: the client is handed a `Trainer`, and never imports one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.rounds import LocalTraining

Blocks = Mapping[BlockId, Tensors]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What one round of local training left behind.

    `blocks` are the new values of the blocks that were trained, float32 on the CPU. `num_samples` counts,
    per block, the labelled samples that exercised it (an encoder: those that had its modality).
    `optimizer` is the state of the private blocks' optimiser, to be handed back in the next round.
    """

    blocks: dict[BlockId, Tensors]
    num_samples: dict[BlockId, int]
    num_steps: int
    metrics: MetricSums
    optimizer: Mapping[str, Array] = field(default_factory=dict)


class Trainer(Protocol):
    """Learns from the device's own windows. Never sees the network."""

    def present_modalities(self) -> frozenset[str]:
        """Modalities with labelled windows right now (a broken sensor's is missing)."""
        ...

    def num_windows(self) -> int:
        """Labelled windows available for training."""
        ...

    def evaluate(self, blocks: Blocks) -> MetricSums:
        """Score on the device's holdout; empty when it has none."""
        ...

    def train(
        self,
        blocks: Blocks,
        training: LocalTraining,
        *,
        round_number: int,
        frozen: frozenset[BlockId],
        optimizer: Mapping[str, Array],
        keep_going: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train copies of `blocks` for one round; those in `frozen` are used but not changed.

        `keep_going` is asked between two steps; after a no the round ends with what was done until then.
        The result depends only on the arguments, the windows and the device's id: equal calls give equal bits.
        """
        ...
