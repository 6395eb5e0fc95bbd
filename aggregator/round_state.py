"""The facts of a federation's rounds, and the only function that changes the durable ones.

`apply` takes a ledger record: the state after a restart is a pure function of the ledger. Who is online,
deadlines and phases of devices are not durable; they are made anew from what the devices say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aggregator.rounds import Member, OpenRound, Outcome, Phase, Running, Version, accepted_of, outcome_of
from blossom_edge.core.blocks import BlockKey, BlockKind, BlockSpec, Visibility
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.names import DeviceId
from blossom_edge.core.scale import STEPS
from blossom_edge.federation.schema import Federation

NORM_HISTORY = 32
REMEMBERED_ROUNDS = 64
MOST_SETS = 1024
"""Sets of modalities and tasks whose blocks are remembered."""
OUTGROWN_ROUNDS = 3
"""After so many rounds in a row in which the norms of most owners were refused, the norms before say nothing of now."""


def may_enter(spec: BlockSpec) -> bool:
    """Whether the aggregator takes updates of a block at all: the receiving side's visibility check."""
    return spec.visibility is not Visibility.PRIVATE


class RoundState:
    """Members, versions, the open round and what was accepted. `initial_version` gives version 0 of a key."""

    def __init__(self, federation: Federation, *, epoch: int, initial_version: Callable[[BlockKey], Version]) -> None:
        self.federation = federation
        self.spec = federation.spec
        self.epoch = epoch
        self.round = 0
        self.phase = Phase.WAITING
        self.running = Running.YES
        self.stop_reason = ""
        self.current: OpenRound | None = None
        self.members: dict[DeviceId, Member] = {}
        self.versions: dict[BlockKey, Version] = {}
        self.outcomes: dict[BlockKey, tuple[int, Outcome]] = {}
        """Last thing that happened to each block: round and outcome."""
        self.history: dict[tuple[int, BlockKey, DeviceId], str] = {}
        """Hash of every update accepted in the last rounds."""
        self.scores: list[tuple[int, MetricSums]] = []
        """Merged scores per round, of the model that was the base of that round."""
        self.norms: dict[BlockKey, deque[float]] = {}
        self.outgrown: dict[BlockKey, int] = {}
        """Rounds in a row in which more than half of all owners of a block were refused for their norm."""
        self._initial_version = initial_version
        self._owned: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[BlockKey, ...]] = {}

    def owned_keys(self, modalities: tuple[str, ...], tasks: tuple[str, ...]) -> tuple[BlockKey, ...]:
        """Keys of the blocks that a device with these modalities and tasks shares."""
        known = self._owned.get((modalities, tasks))
        if known is None:
            serves = tasks or self.federation.tasks_for(modalities)
            known = tuple(b.key(modalities) for b in self.spec.owned(modalities, serves) if may_enter(b))
            if len(self._owned) >= MOST_SETS:  # whoever says hello with ever new ones must not fill the memory
                self._owned.clear()
            self._owned[modalities, tasks] = known
        return known

    def keys_of(self, member: Member) -> tuple[BlockKey, ...]:
        """Keys of the blocks that a member shares."""
        return self.owned_keys(member.modalities, member.tasks)

    def to_plan(self, devices: Iterable[DeviceId]) -> list[BlockKey]:
        """What a round of these devices is about, sorted: all that they share, but no scale that is settled."""
        keys = {key for device in devices for key in self.keys_of(self.members[device])}
        return sorted(k for k in keys if k.block.kind is not BlockKind.SCALE or self.version(k).number < STEPS)

    def owners(self, key: BlockKey) -> list[DeviceId]:
        """Known devices that train a block, in id order; those that only use it are not among them."""
        return sorted(d for d, m in self.members.items() if m.role == "train" and key in self.keys_of(m))

    def ready(self) -> list[DeviceId]:
        """Devices that could take part in a round that opened now, in id order."""
        return sorted(d for d, m in self.members.items() if m.online and m.role == "train" and self.keys_of(m))

    def awaited(self, now: float) -> dict[DeviceId, tuple[BlockKey, ...]]:
        """What the open round still waits for. A device gone for longer than `rejoin_s` is not waited for."""
        if self.current is None or self.phase is not Phase.OPEN:
            return {}
        result = {}
        for device in self.current.participants:
            member = self.members[device]
            if not member.online and now >= member.gone_at + self.federation.rounds.rejoin_s:
                continue
            keys = tuple(k for k in self.keys_of(member) if self.is_awaited(self.current, k, device))
            if keys:
                result[device] = keys
        return result

    def is_awaited(self, current: OpenRound, key: BlockKey, device: DeviceId) -> bool:
        """Whether this update is planned and neither in, refused nor excused."""
        pair = (key, device)
        return key in current.blocks and pair not in current.accepted and pair not in current.settled

    def version(self, key: BlockKey) -> Version:
        """The newest committed version of a block; version 0 if there is none."""
        if key not in self.versions:
            self.versions[key] = self._initial_version(key)
        return self.versions[key]

    def apply(self, record: Mapping[str, Any]) -> None:
        """Change the durable state by one ledger record; the only place that does."""
        kind = record["type"]
        if kind == "device":
            old = self.members.get(record["device"])
            member = Member(
                record["device"],
                record["key"],
                record["profile"],
                tuple(record["modalities"]),
                tuple(record["tasks"]),
                record["role"],
            )
            if old is not None:
                member.online, member.since, member.sequence = old.online, old.since, old.sequence
                member.score, member.score_round, member.evaluated = old.score, old.score_round, old.evaluated
            self.members[member.device] = member
        elif kind == "forget":
            self.members.pop(record["device"], None)
        elif kind == "running":
            self.running, self.stop_reason = Running(record["value"]), record["reason"]
        elif kind == "open":
            self.round, self.phase = record["round"], Phase.OPEN
            blocks = {BlockKey.parse(k): v for k, v in record["blocks"].items()}
            self.current = OpenRound(record["round"], tuple(record["participants"]), blocks, float("inf"))
        elif kind == "accept":
            self._apply_accept(record)
        elif kind == "freeze":
            self.phase = Phase.FROZEN
        elif kind == "commit":
            self._apply_commit(record)

    def _apply_accept(self, record: Mapping[str, Any]) -> None:
        accepted = accepted_of(record)
        self.history[accepted.round, accepted.key, accepted.device] = accepted.sha256
        self.norms.setdefault(accepted.key, deque(maxlen=NORM_HISTORY)).append(accepted.norm)
        if self.current is not None and accepted.round == self.current.number:
            self.current.accepted[accepted.key, accepted.device] = accepted
        member = self.members.get(accepted.device)
        if member is not None:
            member.sequence = max(member.sequence, record["sequence"])

    def _apply_commit(self, record: Mapping[str, Any]) -> None:
        for text, body in record["blocks"].items():
            key = BlockKey.parse(text)
            outcome = outcome_of(body)
            self.versions[key] = outcome.version
            self.outcomes[key] = (record["round"], outcome)
            self._judge_norms(key, outcome)
        self.scores.append((record["round"], {n: Metric(t, c) for n, (t, c) in record["score"].items()}))
        self.round, self.phase, self.current = record["round"], Phase.WAITING, None
        if record["stop"]:
            self.running, self.stop_reason = Running.FINISHED, record["stop"]
        old = record["round"] - REMEMBERED_ROUNDS
        self.history = {k: sha for k, sha in self.history.items() if k[0] > old}

    def _judge_norms(self, key: BlockKey, outcome: Outcome) -> None:
        """Forget the norms of a block that its owners have outgrown. One device among several cannot bring it about."""
        refused = sum(kind == "norm" for kind in outcome.refused.values())
        most = 2 * refused > len(self.owners(key))
        self.outgrown[key] = self.outgrown.get(key, 0) + 1 if most else 0
        if self.outgrown[key] >= OUTGROWN_ROUNDS:
            self.norms.pop(key, None)
            self.outgrown[key] = 0
