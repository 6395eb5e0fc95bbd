"""From the updates of a frozen round to the next versions: each block by its rule, then a step of the server optimiser.

Reads updates from the spool and puts versions and optimiser states there. What was put is durable on return and
counts only when the commit record names it. Never holds more of the updates than one of them, or a tile of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from aggregator import robust
from aggregator.averaging import mean_delta
from aggregator.round_state import RoundState
from aggregator.rounds import Accepted, Aggregate, Outcome, Version
from aggregator.server_optimizers import Avg, OptState, ServerOptimizer, server_optimizer_of
from aggregator.spool import Spool
from blossom_edge.codec import safetensors_file
from blossom_edge.codec.tensors import Codec, make_codec
from blossom_edge.core.blocks import BlockKey, BlockKind, BlockSpec, Tensors, TensorSpec
from blossom_edge.core.errors import BlossomError, FrameError, StorageError
from blossom_edge.core.rounds import BlockUpdate
from blossom_edge.federation.combinations import num_bad, rule_in_force, updates_needed


@dataclass(frozen=True, slots=True)
class SpooledRows:
    """The updates of one block on disk, to be read in stretches. Source of `robust` rules."""

    spec: BlockSpec
    members: tuple[Accepted, ...]
    spool: Spool
    _codecs: Mapping[str, Codec] = field(default_factory=dict)

    @classmethod
    def open(cls, spec: BlockSpec, members: tuple[Accepted, ...], spool: Spool) -> SpooledRows:
        """Check that every update is on disk as it came.

        Raises:
            StorageError: `file-damaged`.
        """
        for accepted in members:
            spool.check(accepted.sha256)
        return cls(spec, members, spool, {a.codec: make_codec(a.codec) for a in members})

    @property
    def num_rows(self) -> int:
        """Updates."""
        return len(self.members)

    @property
    def num_values(self) -> int:
        """Values of the block."""
        return self.spec.num_values

    def read(self, row: int, start: int, stop: int) -> NDArray[np.floating]:
        """Values `start` to `stop` of one update; values lie one after the other, whatever tensor they are of."""
        codec = self._codecs[self.members[row].codec]
        part = self._stretch(stop - start)
        at = codec.encoded_size(self._stretch(start))
        data = self.spool.read(self.members[row].sha256, start=at, num_bytes=codec.encoded_size(part))
        return codec.decode(data, part)["values"]

    def _stretch(self, num_values: int) -> BlockSpec:
        return replace(self.spec, tensors=(TensorSpec("values", (num_values,)),))


def aggregate(command: Aggregate, state: RoundState, *, updates: Spool, versions: Spool) -> dict[BlockKey, Outcome]:
    """What becomes of every block of a frozen round; new versions and optimiser states are on disk on return.

    A block whose rule has too few updates, or whose values cannot be sent, is held, with the reason.

    Raises:
        StorageError: a file is damaged, or the disk refused a write.
    """
    outcomes = {key: Outcome(state.version(key), (), reason) for key, reason in command.held.items()}
    for key, members in sorted(command.members.items()):
        outcomes[key] = _next(key, members, state, updates=updates, versions=versions)
    return outcomes


def _next(
    key: BlockKey, members: tuple[Accepted, ...], state: RoundState, *, updates: Spool, versions: Spool
) -> Outcome:
    federation, spec, old = state.federation, state.spec[key.block], state.version(key)
    rule, share = rule_in_force(federation, key.block), federation.rounds.trusted_share
    needed = updates_needed(rule, len(members), share)
    if len(members) < needed:
        with_share = f" with trusted_share {share}" if rule == "multi-krum" else ""
        return Outcome(old, (), f"{len(members)} updates, {rule}{with_share} needs {needed}")
    delta = _joined(rule, spec, members, updates, share)
    exact, down = make_codec("float32"), make_codec(federation.codec.down)
    base = exact.decode(versions.get(old.sha256), spec)
    # a scale is a measurement: its mean is the next version, whatever the training of others steps by
    optimizer = Avg() if key.block.kind is BlockKind.SCALE else server_optimizer_of(federation.rounds)
    values, after = optimizer.apply(base, delta, _state_of(optimizer, base, old, versions))
    try:
        content, cast = exact.encode(values, spec), down.encode(values, spec)
    except BlossomError as error:
        return Outcome(old, (), f"its {'mean' if rule == 'mean' else 'next version'} cannot be sent: {error}")
    kept = versions.put(safetensors_file.write(after, {})) if after else ""
    new = Version(old.number + 1, versions.put(content), hashlib.sha256(cast).hexdigest(), kept)
    return Outcome(new, tuple(a.device for a in members))


def _joined(rule: str, spec: BlockSpec, members: tuple[Accepted, ...], updates: Spool, share: float) -> Tensors:
    """The delta that a rule makes of a block's updates, float64."""
    if rule == "mean":
        delta = mean_delta(spec, (_update(accepted, spec, updates) for accepted in members))
        if delta is None:
            raise ValueError(f"{spec.id} has no members")
        return delta
    rows = SpooledRows.open(spec, members, updates)
    bad = num_bad(len(members), share)
    if rule == "norm-clip":
        norms, samples = [a.norm for a in members], [a.num_samples for a in members]
        values = robust.norm_clip(rows, norms=norms, num_samples=samples)
    elif rule == "median":
        values = robust.median(rows)
    elif rule == "trimmed-mean":
        values = robust.trimmed_mean(rows, num_trimmed=bad)
    elif rule == "multi-krum":
        values = robust.multi_krum(rows, num_bad=bad)
    else:
        raise ValueError(f"no rule is called {rule}")
    result, at = {}, 0
    for tensor in spec.tensors:
        result[tensor.name] = values[at : at + tensor.size].reshape(tensor.shape)
        at += tensor.size
    return result


def _state_of(optimizer: ServerOptimizer, base: Tensors, version: Version, versions: Spool) -> OptState:
    """What the optimiser remembered with a version, always from disk: a restart then changes nothing."""
    if not version.state_sha256:
        return optimizer.init(base)
    try:
        return safetensors_file.read(versions.get(version.state_sha256))[0]
    except FrameError as error:
        raise StorageError("file-damaged", f"state {version.state_sha256[:16]}... of an optimiser: {error}") from error


def _update(accepted: Accepted, spec: BlockSpec, updates: Spool) -> BlockUpdate:
    return BlockUpdate(
        accepted.device,
        accepted.round,
        accepted.key,
        accepted.base_version,
        accepted.num_samples,
        accepted.num_steps,
        make_codec(accepted.codec).decode(updates.get(accepted.sha256), spec),
    )
