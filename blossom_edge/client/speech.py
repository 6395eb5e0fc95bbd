"""What a device says, and what a plan tells it, between messages and facts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from blossom_edge.client.actions import DeviceFacts, Held
from blossom_edge.codec import messages
from blossom_edge.codec.tensors import CODECS
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.rounds import LocalTraining

PROTOCOL = 1
Phase = Literal["fetching", "training", "uploading", "waiting", "skipped", "evaluated"]


class OfBlock(Protocol):
    """A message, or a part of one, that speaks of one block."""

    @property
    def block(self) -> str:
        """`kind/name`."""
        ...

    @property
    def cohort(self) -> str:
        """Whose copy; empty if there is only one."""
        ...


def key_of(message: OfBlock) -> BlockKey:
    """The block key that a message speaks of."""
    return BlockKey.parse(f"{message.block}@{message.cohort}" if message.cohort else message.block)


def make_hello(
    facts: DeviceFacts,
    held: Mapping[BlockKey, Held],
    *,
    connection: int,
    federation_digest: str | None,
    epoch: int,
    sequence: int,
    ledger_seq: int,
) -> messages.Hello:
    """The hello of one connection."""
    return messages.Hello(
        boot=facts.boot,
        connection=connection,
        protocol_min=PROTOCOL,
        protocol_max=PROTOCOL,
        software=facts.software,
        key=facts.key,
        profile=facts.profile,
        profile_digest=facts.profile_digest,
        role=facts.role,
        modalities=facts.modalities,
        tasks=facts.tasks,
        codecs=CODECS,
        federation_digest=federation_digest,
        held=tuple(
            messages.HeldBlock(block=str(key.block), cohort=key.cohort, version=have.version, sha256=have.sha256)
            for key, have in sorted(held.items())
        ),
        epoch=epoch,
        sequence=sequence,
        ledger_seq=ledger_seq,
    )


def make_state(
    phase: Phase,
    score: MetricSums,
    present: frozenset[str],
    *,
    epoch: int,
    round_number: int,
    sequence: int,
    reason: str = "",
    num_windows: int = 0,
) -> messages.State:
    """What the device does in a round, and the score of the model it received."""
    return messages.State(
        epoch=epoch,
        round=round_number,
        phase=phase,
        reason=reason[:500],
        present=tuple(sorted(present)),
        score={name: messages.MetricSum(total=m.total, count=m.count) for name, m in sorted(score.items())},
        num_windows=num_windows,
        sequence=sequence,
    )


def training_of(plan: messages.Plan) -> LocalTraining:
    """The local training that a plan asks for."""
    return LocalTraining(**{name: getattr(plan.training, name) for name in LocalTraining.__slots__})


def lacking_windows(num_windows: int, num_seen: int, seen_before: int, *, wanted: int) -> str:
    """Why there are too few windows for this round, or the empty text.

    `num_seen` counts all that ever came in this run; fewer than `seen_before`, in the last trained round, means that
    the run is another one and all of them are new.
    """
    if num_windows == 0:
        return "no labelled windows yet"
    new = num_seen - seen_before if num_seen >= seen_before else num_seen
    return f"{new} new windows, the schedule asks for {wanted}" if new < wanted else ""


def outcome_words(block: messages.CommittedBlock, device: str) -> str:
    """How a round ended for a block, as this device tells it."""
    if block.held:
        return f"held, {block.held}"
    me = device in block.members
    others = len(block.members) - me
    who = "this device alone" if me and not others else f"{others} {'other' if others == 1 else 'others'}"
    return f"version {block.version} from {who}" + (" and this device" if me and others else "")


def refusal_words(refusal: messages.Refusal) -> str:
    """What a refusal says, with its next step."""
    hint = f"; {refusal.hint}" if refusal.hint else ""
    return f"refused ({refusal.type}): {refusal.reason}{hint}"
