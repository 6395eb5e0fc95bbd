"""What a federation would do with these devices, before it runs: who trains which block, what starves, what it costs.

Pure: no disk, no network. Bytes are what is known beforehand, blocks and the frames around them; repairs come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blossom_edge.codec.chunks import num_chunks
from blossom_edge.codec.envelope import encode
from blossom_edge.codec.messages import CastChunk, UploadChunk
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockKey, BlockSpec, Visibility
from blossom_edge.federation.combinations import needed_updates
from blossom_edge.federation.schema import Federation
from blossom_edge.transport import topics

PACKET_BYTES = 9
"""Of MQTT around each message: type, lengths, packet id."""
MESSAGE_BYTES = 600
"""A small signed message such as an offer or a receipt, with its topic."""


@dataclass(frozen=True, slots=True)
class Devices:
    """So many devices of one type. `name` is what the operator calls them; `modalities` those of this federation."""

    name: str
    count: int
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlockCoverage:
    """One block, or one cohort's copy of it. `problem` is empty when a round can commit it.

    `owners` train it in a round when all are there; `spare` of them may be missing before the block is held.
    """

    key: BlockKey
    visibility: str
    owners: int
    needed: int
    problem: str
    note: str
    bytes_up: int
    """Of one owner and round; 0 for a block that stays at home."""
    bytes_down: int

    @property
    def spare(self) -> int:
        """Owners that may be missing."""
        return max(0, self.owners - self.needed)


@dataclass(frozen=True, slots=True)
class DeviceCost:
    """What one device of a type sends and receives in a round, in bytes."""

    devices: Devices
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The whole plan. `cast_bytes` leave the gateway once for all that listen, `received_bytes` reach it, per round."""

    blocks: tuple[BlockCoverage, ...]
    costs: tuple[DeviceCost, ...]
    cast_bytes: int
    received_bytes: int

    @property
    def starving(self) -> tuple[BlockCoverage, ...]:
        """Blocks that no round can commit."""
        return tuple(block for block in self.blocks if block.problem)


def plan_coverage(federation: Federation, fleet: Sequence[Devices]) -> Coverage:
    """Work out who trains what and what a round costs when every device is there."""
    blocks = tuple(
        _block(federation, spec, fleet, key)
        for spec in federation.spec.blocks
        for key in _keys(federation, spec, fleet)
    )
    by_key = {block.key: block for block in blocks}
    costs = []
    for devices in fleet:
        mine = [by_key[spec.key(devices.modalities)] for spec in _owned(federation, devices) if spec.leaves_device]
        up = sum(block.bytes_up for block in mine) + 2 * MESSAGE_BYTES  # what it says of itself, twice
        down = sum(block.bytes_down for block in mine) + _plan_bytes(federation, len(mine))
        costs.append(DeviceCost(devices, up, down))
    return Coverage(
        blocks=blocks,
        costs=tuple(costs),
        cast_bytes=sum(block.bytes_down - MESSAGE_BYTES for block in blocks if block.owners and block.bytes_down),
        received_bytes=sum(cost.bytes_up * cost.devices.count for cost in costs),
    )


def _owned(federation: Federation, devices: Devices) -> tuple[BlockSpec, ...]:
    return federation.spec.owned(devices.modalities, federation.tasks_for(devices.modalities))


def _keys(federation: Federation, spec: BlockSpec, fleet: Sequence[Devices]) -> list[BlockKey]:
    """The block, or its copies: one for each set of modalities whose devices have it."""
    if spec.visibility is not Visibility.COHORT:
        return [BlockKey(spec.id)]
    return sorted({spec.key(d.modalities) for d in fleet if spec in _owned(federation, d)}) or [BlockKey(spec.id)]


def _block(federation: Federation, spec: BlockSpec, fleet: Sequence[Devices], key: BlockKey) -> BlockCoverage:
    owners = sum(
        devices.count
        for devices in fleet
        if spec in _owned(federation, devices) and (not key.cohort or spec.key(devices.modalities) == key)
    )
    up, down = _sizes(federation, spec, key) if spec.leaves_device else (0, 0)
    needed = needed_updates(federation, spec.id, owners) if spec.leaves_device else 0
    problem, note = _judge(spec, owners, needed)
    return BlockCoverage(key, spec.visibility.value, owners, needed, problem, note, up, down)


def _judge(spec: BlockSpec, owners: int, needed: int) -> tuple[str, str]:
    """Why no round can commit it, and what the operator should know although one can."""
    if not owners:
        return "nobody has it: it stays at version 0", ""
    if not spec.leaves_device:
        return "", "each device trains its own"
    if owners < needed:
        return f"{owners} of the {needed} updates that a round needs: it is held in every round", ""
    if owners == 1:
        return "", "its mean is the update of one device"
    if owners == 2:
        return "", "each of the two owners can work out the other's update"
    if owners == needed:
        return "", "held as soon as one owner is missing"
    return "", ""


def _sizes(federation: Federation, spec: BlockSpec, key: BlockKey) -> tuple[int, int]:
    """Bytes of one update up and one version down, with the frames around them."""
    up, down = make_codec(federation.codec.up), make_codec(federation.codec.down)
    name, sha = str(spec.id), "0" * 64
    piece = UploadChunk(block=name, cohort=key.cohort, round=99, sha=sha[:16], index=0)
    cast = CastChunk(
        block=name,
        cohort=key.cohort,
        version=99,
        codec=down.wire_id,
        sha256=sha,
        num_bytes=down.encoded_size(spec),
        index=0,
        count=1,
    )
    above = len(topics.up(federation.name, "a-device", UploadChunk.NAME)) + PACKET_BYTES
    below = len(topics.cast_block(federation.name, name, key.cohort)) + PACKET_BYTES
    size_up, size_down = up.encoded_size(spec), down.encoded_size(spec)
    frames_up = num_chunks(size_up) * (len(encode(piece, scope="")) + above)
    frames_down = num_chunks(size_down) * (len(encode(cast, scope="")) + below)
    return size_up + frames_up + MESSAGE_BYTES, size_down + frames_down + MESSAGE_BYTES


def _plan_bytes(federation: Federation, num_blocks: int) -> int:
    """The plan and the notice of a commit, which name every block."""
    return 2 * MESSAGE_BYTES + num_blocks * 400
