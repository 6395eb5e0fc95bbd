"""A round machine without disk or wire: versions that are only names, and the messages that devices send it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aggregator.round_machine import RoundMachine
from aggregator.rounds import Aggregate, Command, Outcome, Version
from blossom_edge.codec.messages import Bye, Hello, MetricSum, Offer, State
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId
from blossom_edge.federation.schema import Federation
from support.learning import tiny

ACCEL, GYRO = BlockKey.parse("encoder/accel"), BlockKey.parse("encoder/gyro")
BYTES = 400
"""Size of every update."""


def name_of(*parts: object) -> str:
    """A hash that stands for content."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make_machine(federation: Federation | None = None, records: Iterable[Mapping[str, Any]] = ()) -> RoundMachine:
    """A machine at the end of these ledger records."""
    machine = RoundMachine(
        federation or tiny("schedule.stop_rounds=0"),
        epoch=1,
        initial_version=lambda key: Version(0, name_of(key, 0), name_of(key, 0, "cast")),
        encoded_size=lambda key: BYTES,
    )
    for record in records:
        machine.state.apply(record)
    return machine


def hello(
    device: str, modalities: Sequence[str] = ("accel",), *, connection: int = 1, boot: int = 1, **changes: Any
) -> Hello:
    """A device's hello; its key is made from its id."""
    facts: dict[str, Any] = {
        "boot": boot,
        "connection": connection,
        "protocol_min": 1,
        "protocol_max": 1,
        "software": "test",
        "key": name_of("key", device),
        "profile": "test",
        "profile_digest": "0" * 64,
        "role": "train",
        "modalities": tuple(modalities),
        "tasks": (),
        "codecs": ("float32",),
    }
    return Hello(**{**facts, **changes})


def bye(connection: int = 1, boot: int = 1) -> Bye:
    """A goodbye, or a will."""
    return Bye(boot=boot, connection=connection, reason="the connection broke")


def offer(device: str, round_number: int, key: BlockKey = ACCEL, *, version: int = 0, **changes: Any) -> Offer:
    """An offer as the plan asks for; its hash is made from device, round and block."""
    facts: dict[str, Any] = {
        "epoch": 1,
        "round": round_number,
        "block": str(key.block),
        "cohort": key.cohort,
        "base_version": version,
        "num_samples": 10,
        "num_steps": 5,
        "codec": "float32",
        "sha256": name_of("update", device, round_number, key),
        "num_bytes": BYTES,
        "num_chunks": 1,
        "sequence": 10 * round_number,
    }
    return Offer(**{**facts, **changes})


def said(round_number: int, phase: Any = "training", *, sequence: int = 1, **changes: Any) -> State:
    """What a device says of itself."""
    facts: dict[str, Any] = {"epoch": 1, "round": round_number, "phase": phase, "sequence": sequence}
    if "loss" in changes:
        facts["score"] = {"har.loss": MetricSum(total=changes.pop("loss"), count=1.0)}
    return State(**{**facts, **changes})


def outcomes_of(machine: RoundMachine, command: Aggregate) -> dict[BlockKey, Outcome]:
    """What the service would have made: a new version of every block with members."""
    made = {key: Outcome(machine.state.version(key), (), why) for key, why in command.held.items()}
    for key, members in command.members.items():
        number = machine.state.version(key).number + 1
        sha = name_of(key, number, [a.sha256 for a in members])
        made[key] = Outcome(Version(number, sha, name_of(sha, "cast")), tuple(a.device for a in members))
    return made


def settle(machine: RoundMachine, commands: Iterable[Command], now: float) -> list[Command]:
    """The commands, and those that follow when the averages are made."""
    found: list[Command] = []
    for command in commands:
        found.append(command)
        if isinstance(command, Aggregate):
            found += machine.aggregated(outcomes_of(machine, command), now)
    return found


def opened(
    *devices: tuple[str, Sequence[str]], federation: Federation | None = None, now: float = 0.0
) -> tuple[RoundMachine, list[Command]]:
    """A machine whose first round has opened for these devices, and the commands of the opening."""
    machine = make_machine(federation)
    for device, modalities in devices:
        machine.hello(DeviceId(device), hello(device, modalities), now)
    return machine, machine.tick(now)
