"""What the round machine speaks: the facts it keeps, the commands it gives, their ledger records. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from blossom_edge.codec import messages
from blossom_edge.codec.messages import Hello, Offer, WireMessage
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.names import DeviceId


class Phase(str, Enum):
    """Where the current round is. Between rounds it is WAITING."""

    WAITING = "waiting"
    OPEN = "open"
    FROZEN = "frozen"


class Running(str, Enum):
    """What the operator and the schedule want."""

    YES = "yes"
    PAUSED = "paused"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version: `sha256` of its float32 bytes, `cast_sha256` of the bytes as devices receive them.

    `state_sha256` is that of what the server optimiser remembers of the block; empty where it remembers nothing.
    """

    number: int
    sha256: str
    cast_sha256: str
    state_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An update that is on disk."""

    device: DeviceId
    key: BlockKey
    round: int
    sha256: str
    codec: str
    base_version: int
    num_samples: int
    num_steps: int
    norm: float


@dataclass(slots=True)
class Member:
    """A device that said hello at least once."""

    device: DeviceId
    key: str
    profile: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    role: str
    online: bool = False
    since: tuple[int, int] = (0, 0)
    """(boot, connection) of the newest event; older byes are ignored."""
    gone_at: float = 0.0
    sequence: int = 0
    phase: str = ""
    reason: str = ""
    score: MetricSums = field(default_factory=dict)
    score_round: int = 0
    evaluated: int = 0
    """The last round for which it said `evaluated`: it has used the versions of the round before."""


@dataclass(slots=True)
class OpenRound:
    """The round under way: fixed when it opened, but for what has arrived."""

    number: int
    participants: tuple[DeviceId, ...]
    blocks: Mapping[BlockKey, int]
    """Planned blocks and the version each starts from."""
    deadline: float
    accepted: dict[tuple[BlockKey, DeviceId], Accepted] = field(default_factory=dict)
    settled: dict[tuple[BlockKey, DeviceId], str] = field(default_factory=dict)
    """Not awaited any more, and why: refused for good, modality absent, nothing to train on."""
    refused: dict[BlockKey, dict[DeviceId, str]] = field(default_factory=dict)
    """Of those, the type of what was refused for good."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one block in a round. `members` is empty when it was held; `refused` has the type of refusals."""

    version: Version
    members: tuple[DeviceId, ...] = ()
    held: str = ""
    refused: Mapping[DeviceId, str] = field(default_factory=dict)


# commands, to be carried out in order; the first that fails stops the service


@dataclass(frozen=True, slots=True)
class Greet:
    """Send the welcome."""

    device: DeviceId
    hello: Hello


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one device."""

    device: DeviceId
    message: WireMessage


@dataclass(frozen=True, slots=True)
class Record:
    """Append to the ledger."""

    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Keep:
    """Write the update to the spool, then its record to the ledger, then send the receipt."""

    accepted: Accepted
    offer: Offer
    data: bytes
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Confirm:
    """Send the receipt of an update that is already on disk."""

    device: DeviceId
    offer: Offer


@dataclass(frozen=True, slots=True)
class Receive:
    """Take chunks of this offer."""

    device: DeviceId
    offer: Offer


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop unfinished uploads: the round is frozen."""

    round: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Average each block over its members, in device-id order, and call `aggregated` with the outcome."""

    round: int
    members: Mapping[BlockKey, tuple[Accepted, ...]]
    held: Mapping[BlockKey, str]


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell everybody: the commit of a round, then its new versions, block by block."""

    round: int
    outcomes: Mapping[BlockKey, Outcome]


Command = Greet | Send | Record | Keep | Confirm | Receive | Forget | Aggregate | Publish


# ledger records


def accepted_of(record: Mapping[str, Any]) -> Accepted:
    """Read an `accept` record."""
    return Accepted(
        DeviceId(record["device"]),
        BlockKey.parse(record["block"]),
        record["round"],
        record["sha256"],
        record["codec"],
        record["base_version"],
        record["num_samples"],
        record["num_steps"],
        record["norm"],
    )


def outcome_of(body: Mapping[str, Any]) -> Outcome:
    """Read one block of a `commit` record."""
    version = Version(body["version"], body["sha256"], body["cast_sha256"], body.get("state_sha256", ""))
    refused = {DeviceId(device): kind for device, kind in body.get("refused", {}).items()}
    return Outcome(version, tuple(DeviceId(d) for d in body["members"]), body["held"], refused)


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Write one block of a `commit` record; without `refused` and `state_sha256` where there is nothing to say."""
    version = outcome.version
    state = {"state_sha256": version.state_sha256} if version.state_sha256 else {}
    refused = {"refused": dict(sorted(outcome.refused.items()))} if outcome.refused else {}
    return {
        "version": version.number,
        "sha256": version.sha256,
        "cast_sha256": version.cast_sha256,
        "members": list(outcome.members),
        "held": outcome.held,
        **refused,
        **state,
    }


def accept_record(accepted: Accepted, sequence: int) -> dict[str, Any]:
    """Write an `accept` record."""
    return {
        "type": "accept",
        "device": accepted.device,
        "block": str(accepted.key),
        "round": accepted.round,
        "sha256": accepted.sha256,
        "codec": accepted.codec,
        "base_version": accepted.base_version,
        "num_samples": accepted.num_samples,
        "num_steps": accepted.num_steps,
        "norm": accepted.norm,
        "sequence": sequence,
    }


def facts_of(member: Member) -> dict[str, Any]:
    """What a `device` record says of a member."""
    return {
        "device": member.device,
        "key": member.key,
        "profile": member.profile,
        "modalities": list(member.modalities),
        "tasks": list(member.tasks),
        "role": member.role,
    }


def key_of(message: messages.Offer | messages.Ask | messages.UploadChunk) -> BlockKey:
    """The block key that a message from a device speaks of."""
    return BlockKey.parse(f"{message.block}@{message.cohort}" if message.cohort else message.block)
