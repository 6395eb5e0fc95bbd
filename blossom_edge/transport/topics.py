"""The topics of protocol 1: `bl/1/{federation}/up/{device}/{kind}`, `down`, `cast`, `head`.

A device writes only below its own `up/`, so an access list is three lines. What is cast of a block has
a topic per block (`cast/chunk/encoder/accel`), so that nobody receives a block that it does not own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from blossom_edge.core.names import DeviceId, FederationId, is_name

ROOT = "bl/1"
CHUNK = "chunk"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of ours, taken apart. `device` is empty for `cast` and `head`; `kind` for `head`."""

    federation: FederationId
    direction: str
    device: DeviceId
    kind: str

    @classmethod
    def parse(cls, text: str) -> Topic | None:
        """Take a topic apart; None when it is none of ours."""
        parts = text.split("/")
        if len(parts) < 4 or "/".join(parts[:2]) != ROOT or not is_name(parts[2]):
            return None
        federation, direction, rest = FederationId(parts[2]), parts[3], parts[4:]
        if direction in ("up", "down") and len(rest) == 2 and is_name(rest[0]) and is_name(rest[1]):
            return cls(federation, direction, DeviceId(rest[0]), rest[1])
        lengths = (3, 4) if rest[:1] == [CHUNK] else (1,)
        if direction == "cast" and len(rest) in lengths and all(map(is_name, rest)):
            return cls(federation, direction, DeviceId(""), rest[0])
        if direction == "head" and not rest:
            return cls(federation, direction, DeviceId(""), "")
        return None


def up(federation: str, device: str, kind: str) -> str:
    """From a device to the gateway; `+` for device and `kind` makes the gateway's filter."""
    return f"{ROOT}/{federation}/up/{device}/{kind}"


def down(federation: str, device: str, kind: str) -> str:
    """From the gateway to one device."""
    return f"{ROOT}/{federation}/down/{device}/{kind}"


def cast(federation: str, kind: str) -> str:
    """From the gateway to all devices."""
    return f"{ROOT}/{federation}/cast/{kind}"


def cast_block(federation: str, block: str, cohort: str) -> str:
    """Chunks of one block (`kind/name`), to all devices that own it: at most 7 slashes."""
    return f"{ROOT}/{federation}/cast/{CHUNK}/{block}" + (f"/{cohort}" if cohort else "")


def head(federation: str) -> str:
    """The one retained message: a signed hint at where the federation is."""
    return f"{ROOT}/{federation}/head"


@lru_cache(maxsize=16_384)
def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription filter with `+` and `#` covers a topic. Source: MQTT 5.0, 4.7."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, parts = topic_filter.split("/"), topic.split("/")
    for index, part in enumerate(wanted):
        if part == "#":
            return True
        if index >= len(parts) or part not in ("+", parts[index]):
            return False
    return len(wanted) == len(parts)
