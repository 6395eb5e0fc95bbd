"""Whether an offered update may come in: the checks that cost nothing, before a byte is taken. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aggregator.round_state import RoundState, may_enter
from aggregator.rounds import OpenRound, Phase, Running, key_of
from blossom_edge.codec import messages
from blossom_edge.core.blocks import BlockKey, BlockKind
from blossom_edge.core.names import DeviceId

NORM_HISTORY_MIN = 8
NORM_FACTOR = 20.0
QUIET_RMS = 0.002
"""Updates that change a value by less than this on average (root mean square) say nothing of how long real ones are: a
device with one class alone has nothing to learn and sends next to nothing, until the second class comes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The same update is on disk already: it gets its receipt again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Not to be taken: type, figures, next step."""

    type: str
    reason: str
    hint: str = ""


def judge(
    state: RoundState, device: DeviceId, offer: messages.Offer, *, expected_bytes: int, now: float
) -> Kept | Refused | None:
    """None when the update may come. `expected_bytes` is the exact size of an update of that block."""
    key = key_of(offer)
    member = state.members[device]
    if offer.epoch != state.epoch:
        return Refused("stale", f"epoch {offer.epoch}, this federation is in epoch {state.epoch}", "join again")
    if key.block not in state.spec:
        return Refused("policy", f"the federation has no block {key.block}")
    if not may_enter(state.spec[key.block]):
        return Refused("policy", f"{key.block} is private: it must not leave the device")
    if key not in state.keys_of(member):
        return Refused("policy", f"{device} ({', '.join(member.modalities)}) does not own {key}")
    kept = state.history.get((offer.round, key, device))
    if kept is not None:
        if kept == offer.sha256:
            return Kept()
        return Refused(
            "conflict", f"{key} of round {offer.round} is kept already, with other content", "the first counts"
        )
    current = state.current
    if current is None or offer.round != current.number:
        kind = "late" if offer.round == state.round else "stale"
        return Refused(kind, f"round {offer.round} is over, {_where(state)}", "take part in the next round")
    if state.phase is not Phase.OPEN or now >= current.deadline:
        return Refused("late", f"round {offer.round} is frozen", "take part in the next round")
    if device not in current.participants:
        return Refused("policy", f"{device} came after round {offer.round} had opened", "wait for the next plan")
    return _judge_form(state, current, key, offer, expected_bytes)


def judge_norm(state: RoundState, key: BlockKey, norm: float) -> Refused | None:
    """Refuse an update that is far longer than the accepted ones of its block, and than a quiet one."""
    history = sorted(state.norms.get(key, ()))
    if len(history) < NORM_HISTORY_MIN or key.block.kind is BlockKind.SCALE:  # a measurement: its two steps differ
        return None
    quiet = QUIET_RMS * math.sqrt(state.spec[key.block].num_values)
    median = history[len(history) // 2]
    usual, name = (median, "the median") if median >= quiet else (quiet, "that of a quiet update,")
    if norm <= NORM_FACTOR * usual:
        return None
    reason = f"norm {norm:.4g} is {norm / usual:.0f} times {name} {usual:.4g} of {key} (limit {NORM_FACTOR:.0f})"
    return Refused("norm", reason, "look at this device's sensors and labels")


def _judge_form(
    state: RoundState, current: OpenRound, key: BlockKey, offer: messages.Offer, expected_bytes: int
) -> Refused | None:
    if current.blocks.get(key) != offer.base_version:
        return Refused(
            "stale", f"{key}: trained on version {offer.base_version}, the plan says {current.blocks.get(key)}"
        )
    if offer.codec != state.federation.codec.up:
        return Refused("codec", f"codec {offer.codec}, the plan says {state.federation.codec.up}")
    if offer.num_bytes != expected_bytes:
        return Refused("size", f"{offer.num_bytes} bytes, an update of {key} has {expected_bytes}")
    return None


def _where(state: RoundState) -> str:
    if state.running is Running.FINISHED:
        return f"the federation is finished ({state.stop_reason})"
    return (
        f"round {state.round} is {state.phase.value}"
        if state.phase is not Phase.WAITING
        else "the next is not open yet"
    )
