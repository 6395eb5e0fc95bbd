"""What the gateway shows of itself: one plain value, written to `status.json` and read by every reading command."""

from __future__ import annotations

from typing import Any

from aggregator.rounds import Member
from aggregator.service import Service
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.metrics import MetricSums
from blossom_edge.federation.combinations import needed_updates

STATUS_FILE = "status.json"


def snapshot(service: Service, now: float) -> dict[str, Any]:
    """The state of the federation, for people and programs: scores and counts, no values of anybody's model.

    Besides, the last predictions of the devices that publish them, with the end of their window as `window_end_s`.
    """
    machine, state = service.machine, service.machine.state
    awaited = state.awaited(now)
    current = state.current
    return {
        "federation": state.federation.name,
        "digest": state.federation.digest,
        "visibility": state.federation.visibility,
        "epoch": state.epoch,
        "round": state.round,
        "rounds": state.federation.schedule.stop_rounds,
        "phase": state.phase.value,
        "running": service.out.running_word(),
        "stop_reason": state.stop_reason,
        "deadline_in_s": round(current.deadline - now, 1) if current is not None else None,
        "connected": service.connected,
        "devices": [
            {
                **_device(service, member),
                "predictions": [
                    {**heard.shown(), "window_end_s": heard.window_end_s} for heard in service.predictions.of(device)
                ],
                "awaited": [str(key) for key in awaited.get(device, ())],
                "participant": current is not None and device in current.participants,
            }
            for device, member in sorted(state.members.items())
        ],
        "blocks": [_block(service, key) for key in sorted(state.versions)],
        "uploads_under_way": len(service.uploads),
        "refusals": dict(sorted(machine.refusals.items())),
        "dropped": dict(sorted(service.dropped.items())),
        "scores": [[number, _means(score)] for number, score in state.scores if score],
        "ledger": {"seq": service.truth.ledger.seq, "hash": service.truth.ledger.head_hash},
        "warnings": warnings(service),
    }


def warnings(service: Service) -> list[str]:
    """What the operator should know: modalities that nobody has, blocks that starve or show single devices' updates."""
    state = service.machine.state
    have = {m for member in state.members.values() if member.role == "train" for m in member.modalities}
    used = {m for member in state.members.values() for m in member.modalities}
    lacking = sorted(set(state.federation.modalities) - have) if used else []
    found = []
    for name in lacking:
        who = "no training device" if name in used else "no device"
        found.append(f"encoder/{name}: {who} has {name}, so nobody trains it; a device with it has to join")
    for key in sorted(state.versions):
        owners = len(state.owners(key))
        needed = needed_updates(state.federation, key.block, owners)
        if 0 < owners < needed:
            found.append(f"{key}: {owners} of the {needed} updates that a round needs, so it is held in every round")
        elif state.federation.min_cohort(key.block) <= 1 and owners == 1:
            found.append(f"{key}: 1 owner, who is let in at the broker sees its update alone (min_cohort is 1)")
        elif state.federation.min_cohort(key.block) <= 2 and owners == 2:
            found.append(f"{key}: 2 owners, each can work out the other's update")
    return found


def _device(service: Service, member: Member) -> dict[str, Any]:
    keys = service.machine.state.keys_of(member)
    cast = sum(service.out.bytes_cast[key] for key in keys)
    refusal = service.machine.refused.get(member.device)
    return {
        "id": member.device,
        "profile": member.profile,
        "modalities": list(member.modalities),
        "role": member.role,
        "online": member.online,
        "phase": member.phase,
        "reason": member.reason,
        "score": _means(member.score),
        "score_round": member.score_round,
        "bytes_up": service.bytes_up[member.device],
        "bytes_down": service.out.bytes_down[member.device] + cast,
        "blocks": [str(key) for key in keys],
        "refused": None
        if refusal is None
        else {
            "round": refusal.round,
            "block": f"{refusal.block}@{refusal.cohort}" if refusal.cohort else refusal.block,
            "type": refusal.type,
            "reason": refusal.reason,
            "hint": refusal.hint,
        },
    }


def _block(service: Service, key: BlockKey) -> dict[str, Any]:
    state = service.machine.state
    version = state.versions[key]
    number, outcome = state.outcomes.get(key, (0, None))
    return {
        "block": str(key),
        "version": version.number,
        "sha256": version.sha256,
        "owners": state.owners(key),
        "round": number,
        "members": list(outcome.members) if outcome is not None else [],
        "held": outcome.held if outcome is not None else "",
        "refused": dict(sorted(outcome.refused.items())) if outcome is not None else {},
    }


def _means(score: MetricSums) -> dict[str, float | None]:
    return {name: metric.mean for name, metric in sorted(score.items())}
