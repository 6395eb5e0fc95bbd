"""What a device says, and what a plan tells it, between messages and facts. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from blossom_edge.client.actions import DeviceFacts, Held
from blossom_edge.codec import messages
from blossom_edge.codec.tensors import CODECS
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.federation.schema import Federation

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


@dataclass(slots=True)
class Voice:
    """What a device says of itself, and what it numbers its messages with.

    epoch: of the gateway it speaks to. sequence: of its last signed message. ledger_seq: the newest record it heard of.
    """

    facts: DeviceFacts
    connection: int = 0
    sequence: int = 0
    ledger_seq: int = 0
    epoch: int = 0

    def next_sequence(self) -> int:
        """The number of the next signed message."""
        self.sequence += 1
        return self.sequence

    def heard(self, *, sequence: int = 0, ledger_seq: int = 0) -> None:
        """Somebody knows of these numbers of ours: go on behind them."""
        self.sequence, self.ledger_seq = max(self.sequence, sequence), max(self.ledger_seq, ledger_seq)

    def hello(self, held: Mapping[BlockKey, Held], *, federation_digest: str | None) -> messages.Hello:
        """The hello of one connection."""
        facts = self.facts
        return messages.Hello(
            boot=facts.boot,
            connection=self.connection,
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
            epoch=self.epoch,
            sequence=self.sequence,
            ledger_seq=self.ledger_seq,
        )

    def state(
        self,
        phase: Phase,
        score: MetricSums,
        present: frozenset[str],
        *,
        round_number: int,
        reason: str = "",
        num_windows: int = 0,
        num_steps: int = 0,
    ) -> messages.State:
        """What the device does in a round, and the score of the model it received.

        A measure that is not finite, because somebody's values are enormous, is left out: the wire refuses it.
        """
        sums = {name: m for name, m in sorted(score.items()) if math.isfinite(m.total)}
        return messages.State(
            epoch=self.epoch,
            round=round_number,
            phase=phase,
            reason=reason[:500],
            present=tuple(sorted(present)),
            score={name: messages.MetricSum(total=m.total, count=m.count) for name, m in sums.items()},
            num_windows=num_windows,
            num_steps=num_steps,
            sequence=self.next_sequence(),
        )

    def prediction(self, said: Prediction, *, age_s: float) -> messages.PredictionReport:
        """The report of a prediction that was made `age_s` ago; clocks are not compared."""
        return messages.PredictionReport(
            epoch=self.epoch,
            task=said.task,
            kind=said.kind,
            labels=said.labels,
            confidence=said.confidence,
            value=said.value,
            unit=said.unit,
            latency_ms=said.latency_ms,
            age_s=age_s,
            personal=said.personal,
            present=said.present,
            versions=tuple(messages.UsedVersion(block=b, version=v) for b, v in sorted(said.versions.items())),
            sequence=self.next_sequence(),
        )


def federation_of(welcome: messages.Welcome) -> Federation:
    """The federation that a welcome brings.

    Raises:
        ConfigError: `federation-invalid`.
    """
    federation = Federation.from_dict(welcome.federation or {}, source="the gateway's federation")
    if federation.digest != welcome.federation_digest:
        raise ConfigError("federation-invalid", "the gateway's federation does not have the digest it names")
    return federation


def training_of(plan: messages.Plan) -> LocalTraining:
    """The local training that a plan asks for."""
    return LocalTraining(**{name: getattr(plan.training, name) for name in LocalTraining.__slots__})


def lacking_windows(num_windows: int, num_seen: int, seen_before: int, *, wanted: int, last_round: int) -> str:
    """Why there are too few windows for this round, or the empty text.

    `num_seen` counts all that ever came in this run; fewer than `seen_before`, in the last trained round, means that
    the run is another one and all of them are new. last_round: which one that was; 0: none.
    """
    if num_windows == 0:
        return "no labelled windows yet"
    new = num_seen - seen_before if num_seen >= seen_before else num_seen
    if new >= wanted:
        return ""
    since = f" since round {last_round}" if last_round else ""
    return f"{new} new {'window' if new == 1 else 'windows'}{since}, waits for {wanted}"


def outcome_words(block: messages.CommittedBlock, device: str) -> str:
    """How a round ended for a block, as this device tells it."""
    if block.held:
        return f"held, {block.held}"
    me = device in block.members
    others = len(block.members) - me
    who = "this device alone" if me and not others else f"{others} {'other' if others == 1 else 'others'}"
    return f"version {block.version} from {who}" + (" and this device" if me and others else "")


def settled_words(commit: messages.Commit, key: BlockKey, device: str) -> str:
    """What became of an update without a receipt whose round is over."""
    counted = any(device in block.members for block in commit.blocks if key_of(block) == key)
    return "counted" if counted else "too late, the round had ended"


def waiting_words(running: str) -> str:
    """What a device waits for while the federation is waiting, paused or finished."""
    words = {"paused": "the federation is paused", "finished": "for the last versions"}
    return words.get(running, "for the next round")


def refusal_words(refusal: messages.Refusal) -> str:
    """What a refusal says, with its next step."""
    hint = f"; {refusal.hint}" if refusal.hint else ""
    return f"refused ({refusal.type}): {refusal.reason}{hint}"
