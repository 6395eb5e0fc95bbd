"""Blocks: the unit of ownership, visibility, versioning, transport, aggregation and privacy."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.core.names import Modality, TaskName, is_name

Array = NDArray[np.floating[Any]]
"""A float array; which width is checked at run time, where bytes come in."""

Tensors = Mapping[str, Array]
"""The values of one block. Names are local to the block: `conv.0.weight`."""


class BlockKind(str, Enum):
    """What a block does in the model."""

    ENCODER = "encoder"
    FUSION = "fusion"
    HEAD = "head"
    SCALE = "scale"
    """Channel means and mean squares of a modality that devices agree on; measured, not trained."""
    OWN_FUSION = "own-fusion"
    """The private copy of a dual fusion."""
    OWN_HEAD = "own-head"
    """The private copy of a dual head."""
    GATE = "gate"
    """How much of a task's answer comes from its shared branch; chosen, not trained; private."""


class Visibility(str, Enum):
    """Who may see a block's values."""

    SHARED = "shared"
    """Averaged over all owners."""
    PRIVATE = "private"
    """Never leaves the device."""
    DUAL = "dual"
    """A shared and a private copy, mixed on the device."""
    COHORT = "cohort"
    """Averaged over devices whose profiles have the same modalities."""


@dataclass(frozen=True, slots=True, order=True)
class BlockId:
    """Names one block of the model, for example `encoder/accel`."""

    kind: BlockKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> BlockId:
        """Read `kind/name`.

        Raises:
            ConfigError: unknown kind or bad name.
        """
        kind, slash, name = text.partition("/")
        if not slash or kind not in {k.value for k in BlockKind} or not is_name(name):
            raise ConfigError(
                "bad-block",
                f"{text!r} is not a block",
                hint="blocks are written encoder/NAME, fusion/NAME or head/NAME",
            )
        return cls(BlockKind(kind), name)


@dataclass(frozen=True, slots=True, order=True)
class BlockKey:
    """The key of a block on wire, ledger and disk: the block and, if its visibility is `cohort`, whose copy."""

    block: BlockId
    cohort: str = ""

    def __str__(self) -> str:
        return f"{self.block}@{self.cohort}" if self.cohort else str(self.block)

    @classmethod
    def parse(cls, text: str) -> BlockKey:
        """Read `kind/name` or `kind/name@cohort`.

        Raises:
            ConfigError: not a block key.
        """
        block, at, cohort = text.partition("@")
        if at and not is_name(cohort):
            raise ConfigError("bad-block", f"{text!r} has no valid cohort behind '@'")
        return cls(BlockId.parse(block), cohort)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of one float32 parameter of a block."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """What a block is: its tensors, who owns it, who may see it.

    `type` and `options` say how it is built and initialised (`conv1d_gru`, ...); the tensors are
    sorted by name and say all that codec, averaging and checks need to know.
    """

    id: BlockId
    type: str
    tensors: tuple[TensorSpec, ...]
    modality: Modality | None = None
    task: TaskName | None = None
    visibility: Visibility = Visibility.SHARED
    options: tuple[tuple[str, int | float | str], ...] = ()

    @property
    def num_values(self) -> int:
        """Number of parameters."""
        return sum(t.size for t in self.tensors)

    @property
    def leaves_device(self) -> bool:
        """Whether a device ever sends this block (for `dual`, its shared copy)."""
        return self.visibility is not Visibility.PRIVATE

    def owned_by(self, modalities: Iterable[str], tasks: Iterable[str]) -> bool:
        """Whether a device with these modalities and tasks owns the block."""
        has_modality = self.modality is None or self.modality in set(modalities)
        return has_modality and (self.task is None or self.task in set(tasks))

    def key(self, modalities: Iterable[str]) -> BlockKey:
        """The block's key for a device whose *profile* has these modalities."""
        return BlockKey(self.id, cohort_of(modalities) if self.visibility is Visibility.COHORT else "")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All blocks of a federation's model, sorted by id."""

    blocks: tuple[BlockSpec, ...]

    def __getitem__(self, block: BlockId) -> BlockSpec:
        for spec in self.blocks:
            if spec.id == block:
                return spec
        raise KeyError(block)

    def __contains__(self, block: object) -> bool:
        return any(spec.id == block for spec in self.blocks)

    def owned(self, modalities: Iterable[str], tasks: Iterable[str]) -> tuple[BlockSpec, ...]:
        """The blocks that a device with these modalities and tasks holds, private ones too."""
        have, serve = tuple(modalities), tuple(tasks)
        return tuple(b for b in self.blocks if b.owned_by(have, serve))

    @property
    def digest(self) -> str:
        """SHA-256 over ids, types, options, visibility and tensors: names this architecture."""
        return hashlib.sha256(
            json.dumps([_plain(b) for b in self.blocks], separators=(",", ":"), sort_keys=True).encode()
        ).hexdigest()


def cohort_of(modalities: Iterable[str]) -> str:
    """The cohort of devices whose profiles have exactly these modalities, for example `accel.gyro`."""
    return ".".join(sorted(set(modalities)))


def block_digest(spec: BlockSpec) -> str:
    """SHA-256 of one block's type, options and tensors: equal for blocks that can share a skeleton."""
    plain = _plain(spec)
    body = {k: plain[k] for k in ("type", "options", "tensors")}
    return hashlib.sha256(json.dumps(body, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def _plain(spec: BlockSpec) -> dict[str, Any]:
    return {
        "id": str(spec.id),
        "type": spec.type,
        "options": dict(spec.options),
        "modality": spec.modality,
        "task": spec.task,
        "visibility": spec.visibility.value,
        "tensors": [[t.name, list(t.shape)] for t in spec.tensors],
    }
