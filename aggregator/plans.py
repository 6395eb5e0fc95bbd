"""What a round asks of each participant, what it has from each, and what is made of that in the end. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aggregator.round_state import RoundState
from aggregator.rounds import Accepted, Aggregate, OpenRound
from blossom_edge.codec import messages
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId


def make_plan(state: RoundState, device: DeviceId, now: float) -> messages.Plan:
    """The open round's plan for one participant, with the seconds that remain.

    Raises:
        ValueError: no round is open.
    """
    current, federation = state.current, state.federation
    if current is None:
        raise ValueError("no round is open")
    blocks = []
    for key in (k for k in state.keys_of(state.members[device]) if k in current.blocks):
        blocks.append(
            messages.PlannedBlock(
                block=str(key.block),
                cohort=key.cohort,
                version=state.version(key).number,
                sha256=state.version(key).cast_sha256,
                quorum=federation.quorum(key.block),
                min_cohort=federation.min_cohort(key.block),
            )
        )
    training = federation.local_training(current.number)
    return messages.Plan(
        epoch=state.epoch,
        round=current.number,
        remaining_s=max(0.0, current.deadline - now),
        blocks=tuple(blocks),
        training=messages.PlannedTraining.model_validate({f: getattr(training, f) for f in training.__slots__}),
        codec=federation.codec.up,
        min_new_windows=federation.schedule.min_new_windows,
    )


def by_block(current: OpenRound) -> dict[BlockKey, tuple[Accepted, ...]]:
    """The accepted updates of each planned block, in device-id order."""
    found: dict[BlockKey, list[Accepted]] = {key: [] for key in current.blocks}
    for (key, _), accepted in sorted(current.accepted.items()):
        found[key].append(accepted)
    return {key: tuple(updates) for key, updates in found.items()}


def to_aggregate(state: RoundState, current: OpenRound) -> Aggregate:
    """What the frozen round averages, and which blocks it holds and why: too few updates, and how many were refused."""
    members, held, federation = {}, {}, state.federation
    for key, found in by_block(current).items():
        quorum, cohort = federation.quorum(key.block), federation.min_cohort(key.block)
        refused = refused_words(current.refused.get(key, {}).values())
        if not found:
            held[key] = f"{refused}, none accepted" if refused else "nobody trained it"
            continue
        also = f"; {refused}" if refused else ""
        if len(found) < quorum:
            held[key] = f"{len(found)} of the {quorum} updates that its quorum asks for{also}"
        elif len(found) < cohort:
            held[key] = f"{len(found)} owners trained it, min_cohort asks for {cohort}{also}"
        else:
            members[key] = found
    return Aggregate(current.number, members, held)


def refused_words(kinds: Iterable[str]) -> str:
    """How many updates of a block were refused, and of which types; the empty text for none."""
    counts = Counter(kinds)
    if not counts:
        return ""
    types = ", ".join(f"{kind} {number}" if len(counts) > 1 else kind for kind, number in sorted(counts.items()))
    return f"{sum(counts.values())} refused ({types})"
