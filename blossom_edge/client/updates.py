"""From trained blocks to the updates that leave the device: the place where visibility is applied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from blossom_edge.codec.tensors import Codec
from blossom_edge.core.blocks import BlockId, BlockKey, BlockKind, BlockSpec, ModelSpec, Tensors
from blossom_edge.core.training import Blocks, TrainResult


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An update on its way: what is offered, and the bytes that are sent. Kept until a receipt or a final refusal."""

    key: BlockKey
    round: int
    base_version: int
    num_samples: int
    num_steps: int
    codec: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Hash of the bytes, as hex."""
        return hashlib.sha256(self.data).hexdigest()


def may_leave(spec: BlockSpec) -> bool:
    """Whether a block's values may leave the device: the sending side's visibility check."""
    return spec.leaves_device


def make_updates(
    spec: ModelSpec,
    result: TrainResult,
    base: Blocks,
    *,
    round_number: int,
    base_versions: Mapping[BlockKey, int],
    key_by_block: Mapping[BlockId, BlockKey],
    codec: Codec,
) -> tuple[Outgoing, ...]:
    """The updates of a round: local - base of every trained block that may leave, encoded, in block order.

    A block that no sample exercised is not sent.

    Raises:
        BlossomError: `local-value`: training produced NaN, infinity, or values too large for the codec.
    """
    updates = []
    for block, values in sorted(result.blocks.items()):
        block_spec = spec[block]
        if not may_leave(block_spec) or result.num_samples.get(block, 0) < 1:
            continue
        key = key_by_block[block]
        if block.kind is BlockKind.SCALE and key not in base_versions:  # settled meanwhile
            continue
        updates.append(
            Outgoing(
                key=key,
                round=round_number,
                base_version=base_versions.get(key, 0),
                num_samples=result.num_samples[block],
                num_steps=max(1, result.num_steps),
                codec=codec.wire_id,
                data=codec.encode(_delta(values, base[block]), block_spec),
            )
        )
    return tuple(updates)


def _delta(values: Tensors, base: Tensors) -> Tensors:
    return {name: np.subtract(values[name], base[name], dtype=np.float32) for name in values}
