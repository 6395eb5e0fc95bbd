"""What the session keeps and what it asks the agent to do. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from blossom_edge.client.updates import Outgoing
from blossom_edge.codec.messages import WireMessage
from blossom_edge.core.blocks import Array, BlockId, BlockKey, Tensors
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.federation.schema import Federation


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Who this device is; `boot` counts its starts."""

    device: str
    boot: int
    key: str
    profile: str
    profile_digest: str
    modalities: tuple[str, ...]
    role: Literal["train", "personalize", "infer"] = "train"
    tasks: tuple[str, ...] = ()
    software: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A version of a shared block that the device has, as it was cast."""

    version: int
    sha256: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one round left behind, written in one atomic step before anything is sent."""

    round: int = 0
    epoch: int = 0
    sequence: int = 0
    ledger_seq: int = 0
    num_seen: int = 0
    """Windows that had ever come when the round was trained (for `min_new_windows`)."""
    private: Mapping[BlockId, Tensors] = field(default_factory=dict)
    optimizer: Mapping[str, Array] = field(default_factory=dict)
    outbox: tuple[Outgoing, ...] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a message below the device's own topic."""

    message: WireMessage


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Receive what is cast of this block."""

    key: BlockKey


@dataclass(frozen=True, slots=True)
class Adopt:
    """The federation is known: check it against the profile, find what an earlier run left, call `adopted`."""

    federation: Federation


@dataclass(frozen=True, slots=True)
class KeepBlock:
    """Write a received version."""

    key: BlockKey
    held: Held


@dataclass(frozen=True, slots=True)
class KeepCheckpoint:
    """Write the checkpoint."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Work:
    """Evaluate the received model, train it for one round, and hand the result back."""

    round: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Put the received versions to use: a device that does not train has them all."""

    round: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the received model once more: the federation is finished."""

    round: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End: finished, or an error."""

    reason: str
    error: BlossomError | None = None


Action = Publish | Subscribe | Adopt | KeepBlock | KeepCheckpoint | Work | Apply | Evaluate | Stop


@dataclass(slots=True)
class Story:
    """What happened lately, for `status` and `why`. Nothing depends on it."""

    phase: str = "offline"
    detail: str = ""
    round: int = 0
    deadline: float | None = None
    sent: dict[str, str] = field(default_factory=dict)
    """Block -> what became of the last update: offered, kept, refused and why."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """Block -> how the last round ended for it."""
    score: MetricSums = field(default_factory=dict)
    score_round: int = 0

    def tell(self, phase: str, detail: str = "") -> None:
        """Begin a new phase."""
        self.phase, self.detail = phase, detail
