"""Which skeleton a block runs on as ONNX: names alone. Knows neither onnx nor where skeletons are kept.

A skeleton is the graph of one block without its weights. Blocks of one type with equal options, tensors and input share
one: it is named by a digest over these, so a device can tell from the federation alone which ones it needs. A private
copy has that of the block that it is a copy of. A gate and a scale are a few numbers and have no graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from blossom_edge.core.blocks import BlockId, BlockKind, block_digest
from blossom_edge.federation.spec import part_modality, shared_id

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation


def has_skeleton(block: BlockId) -> bool:
    """Whether a block is a graph; a gate and a scale are numbers that the device reckons with itself."""
    return block.kind not in (BlockKind.GATE, BlockKind.SCALE)


def skeleton_digest(federation: Federation, block: BlockId) -> str:
    """The digest of a block's skeleton: SHA-256 over type, options and tensors, and what an encoder sees.

    Raises:
        KeyError: the federation has no such block.
    """
    spec = federation.spec[block]
    signal: dict[str, object] = {}
    if block.kind is BlockKind.ENCODER:
        seen = federation.modalities[block.name].signal
        signal = {"channels": seen.channels, "window": seen.window, "shape": list(seen.shape)}
    kind = shared_id(block).kind.value + ("-part" if part_modality(block) else "")
    body = {"block": block_digest(spec), "kind": kind, "signal": signal}
    return hashlib.sha256(json.dumps(body, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def skeleton_digests(federation: Federation, blocks: Iterable[BlockId]) -> dict[BlockId, str]:
    """The skeleton of each block that has one."""
    return {block: skeleton_digest(federation, block) for block in blocks if has_skeleton(block)}
