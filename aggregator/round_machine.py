"""Rounds as a state machine: events in, commands out. It does no I/O and reads no clock.

    WAITING --enough devices--> OPEN --all in, or deadline--> FROZEN --aggregated--> WAITING

A block with too few updates is *held*: its version stays, the reason is recorded. `now` is a monotonic
time in seconds; the commands are to be carried out in order, and nothing after one that failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from aggregator.admission import Kept, Refused, judge, judge_norm
from aggregator.plans import by_block, make_plan, to_aggregate
from aggregator.round_state import RoundState
from aggregator.rounds import (
    Accepted,
    Command,
    Confirm,
    Forget,
    Greet,
    Keep,
    Outcome,
    Phase,
    Publish,
    Receive,
    Record,
    Running,
    Send,
    Version,
    accept_record,
    facts_of,
    key_of,
    outcome_record,
)
from blossom_edge.codec import messages
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.metrics import Metric, MetricSums, merge
from blossom_edge.core.names import DeviceId
from blossom_edge.federation.schema import Federation

PROTOCOL = 1
IDLE_S = 5.0
"""Pause after a round in which nobody had anything to send."""


class RoundMachine:
    """All rules of a round.

    `initial_version` gives version 0 of a key; `encoded_size` the exact bytes of an update of a block.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        epoch: int,
        initial_version: Callable[[BlockKey], Version],
        encoded_size: Callable[[BlockKey], int],
    ) -> None:
        self.state = RoundState(federation, epoch=epoch, initial_version=initial_version)
        self.federation = federation
        self.refusals: Counter[str] = Counter()
        self.refused: dict[DeviceId, messages.Refusal] = {}
        """The last refusal of each device."""
        self._encoded_size = encoded_size
        self._waiting_since: float | None = None
        self._not_before = 0.0

    def next_due(self, now: float) -> float | None:
        """The time at which `tick` has something to do; None when only an event can change anything."""
        state, due = self.state, []
        if state.phase is Phase.OPEN and state.current is not None:
            rejoin = self.federation.rounds.rejoin_s
            gone = [
                m.gone_at + rejoin for m in map(state.members.__getitem__, state.current.participants) if not m.online
            ]
            due = [state.current.deadline, *(t for t in gone if t > now)]
        elif state.phase is Phase.WAITING and state.running is Running.YES and self._waiting_since is not None:
            enough = len(state.ready()) >= self.federation.rounds.min_devices
            due = [max(self._not_before, self._waiting_since + (0 if enough else self.federation.rounds.start_after_s))]
        return min(due) if due else None

    # ---- devices

    def hello(self, device: DeviceId, hello: messages.Hello, now: float) -> list[Command]:
        """A device came, or came back."""
        state, known = self.state, self.state.members.get(device)
        refused = self._refuse_hello(device, hello)
        if refused is not None:
            return [refused]
        since = (hello.boot, hello.connection)
        if known is not None and since < known.since:
            return []
        facts = {
            "device": device,
            "key": hello.key,
            "profile": hello.profile,
            "modalities": list(hello.modalities),
            "tasks": list(hello.tasks),
            "role": hello.role,
        }
        commands: list[Command] = []
        if known is None or facts_of(known) != facts:
            commands.append(self._record({"type": "device", **facts}))
        member = state.members[device]
        member.online, member.since, member.phase = True, since, "here"
        member.sequence = max(member.sequence, hello.sequence)
        for key in state.keys_of(member):
            state.version(key)
        commands.append(Greet(device, hello))
        if state.phase is Phase.OPEN and state.current is not None and device in state.current.participants:
            commands.append(Send(device, make_plan(state, device, now)))
        if state.phase is Phase.WAITING and self._waiting_since is None and state.ready():
            self._waiting_since = now
        return commands

    def bye(self, device: DeviceId, bye: messages.Bye, now: float) -> list[Command]:
        """A device left, or the broker says its connection broke. An older will is ignored."""
        member = self.state.members.get(device)
        if member is None or not member.online or (bye.boot, bye.connection) < member.since:
            return []
        member.online, member.gone_at, member.phase, member.reason = False, now, "gone", bye.reason
        if not self.state.ready():
            self._waiting_since = None
        return self._settle(now)

    def everybody_gone(self, now: float) -> None:
        """The link to the broker was lost: nobody is here until they say hello again."""
        for member in self.state.members.values():
            member.online, member.gone_at = False, now
        self._waiting_since = None

    def is_next(self, device: DeviceId, *, epoch: int, sequence: int) -> bool:
        """Whether a message that the device numbered is newer than all that were taken; then it counts as taken."""
        member = self.state.members.get(device)
        if member is None or epoch != self.state.epoch or sequence <= member.sequence:
            return False
        member.sequence = sequence
        return True

    def device_state(self, device: DeviceId, said: messages.State, now: float) -> list[Command]:
        """A device says what it does, and how good the model it received is."""
        state = self.state
        if not self.is_next(device, epoch=said.epoch, sequence=said.sequence):
            return []
        member = state.members[device]
        member.phase, member.reason = said.phase, said.reason
        if said.phase == "evaluated":
            member.evaluated = max(member.evaluated, said.round)
        if said.score:
            member.score = {name: Metric(m.total, m.count) for name, m in said.score.items()}
            member.score_round = said.round
        current = state.current
        if state.phase is not Phase.OPEN or current is None or said.round != current.number:
            return []
        if device not in current.participants:
            return []
        for key in state.keys_of(member):
            modality = state.spec[key.block].modality
            if said.phase == "skipped":
                current.settled[key, device] = said.reason or "skipped"
            elif said.phase == "training" and modality is not None and modality not in said.present:
                current.settled[key, device] = f"no {modality} windows"
        return self._settle(now)

    # ---- updates

    def offer(self, device: DeviceId, offer: messages.Offer, now: float) -> list[Command]:
        """A device offers an update of one block: take it, confirm it again, or refuse it."""
        verdict = self._judged(device, offer, now)
        return [Receive(device, offer)] if verdict is None else verdict

    def update(self, device: DeviceId, offer: messages.Offer, data: bytes, *, norm: float, now: float) -> list[Command]:
        """All chunks of an offer arrived, with the offered hash and finite tensors of the right shapes."""
        verdict = self._judged(device, offer, now)
        if verdict is not None:
            return verdict
        key = key_of(offer)
        refused = judge_norm(self.state, key, norm)
        if refused is not None:
            return self._refuse_as(device, offer, refused, now)
        accepted = Accepted(
            device=device,
            key=key,
            round=offer.round,
            sha256=offer.sha256,
            codec=offer.codec,
            base_version=offer.base_version,
            num_samples=offer.num_samples,
            num_steps=offer.num_steps,
            norm=norm,
        )
        record = accept_record(accepted, offer.sequence)
        self.state.apply(record)
        return [Keep(accepted, offer, data, record), *self._settle(now)]

    def refuse(
        self,
        device: DeviceId,
        offer: messages.Offer,
        kind: Any,
        reason: str,
        *,
        now: float,
        hint: str = "",
        final: bool = True,
    ) -> list[Command]:
        """Refuse an offer, by type. What is refused for good in the open round is no longer awaited."""
        refusal = messages.Refusal(
            epoch=self.state.epoch,
            round=offer.round,
            block=offer.block,
            cohort=offer.cohort,
            sha256=offer.sha256,
            type=kind,
            final=final,
            reason=reason[:500],
            hint=hint[:500],
        )
        self.refusals[kind] += 1
        self.refused[device] = refusal
        commands: list[Command] = [Send(device, refusal)]
        current, pair = self.state.current, (key_of(offer), device)
        if final and current is not None and offer.round == current.number and pair not in current.accepted:
            current.settled[pair] = f"{kind}: {reason}"
            current.refused.setdefault(pair[0], {})[device] = kind
            commands += self._settle(now)
        return commands

    # ---- time and the operator

    def tick(self, now: float, *, may_open: bool = True) -> list[Command]:
        """Time passed. `may_open` is what the schedule says of this moment."""
        state = self.state
        if state.phase is Phase.OPEN:
            return self._settle(now)
        if state.phase is not Phase.WAITING or state.running is not Running.YES or not may_open:
            return []
        ready = state.ready()
        if not ready or now < self._not_before:
            return []
        if self._waiting_since is None:
            self._waiting_since = now
        rounds = self.federation.rounds
        if len(ready) < rounds.min_devices and now - self._waiting_since < rounds.start_after_s:
            return []
        return self._open(ready, now)

    def control(self, word: str, now: float) -> list[Command]:
        """Pause, resume or finish. A round that is open ends first, by its own rules; what is finished cannot pause."""
        value = {"pause": Running.PAUSED, "resume": Running.YES, "finish": Running.FINISHED}[word]
        if value is self.state.running or (word, self.state.running) == ("pause", Running.FINISHED):
            return []
        commands: list[Command] = [self._record({"type": "running", "value": value.value, "reason": "operator"})]
        if self.state.phase is Phase.WAITING:
            commands.append(Publish(self.state.round, {}))
        self._waiting_since = now if self.state.ready() else None
        return commands

    def forget(self, device: DeviceId) -> list[Command]:
        """Forget a device and its key, so that the id may come back under another one."""
        if device not in self.state.members or self.state.phase is not Phase.WAITING:
            return []
        return [self._record({"type": "forget", "device": device})]

    def aggregated(self, outcomes: Mapping[BlockKey, Outcome], now: float) -> list[Command]:
        """The averages are on disk: commit the round."""
        state, current = self.state, self.state.current
        if current is None or state.phase is not Phase.FROZEN:
            raise ValueError("no round is frozen")
        members = (state.members[d] for d in current.participants if d in state.members)
        score = merge(m.score for m in members if m.score_round == current.number)
        nobody = not current.accepted
        outcomes = {k: replace(o, refused=current.refused.get(k, {})) for k, o in outcomes.items()}
        commit = self._record(
            {
                "type": "commit",
                "round": current.number,
                "blocks": {str(k): outcome_record(o) for k, o in sorted(outcomes.items())},
                "score": {name: [m.total, m.count] for name, m in sorted(score.items())},
                "stop": "" if state.running is Running.FINISHED else self._should_stop(current.number, score),
            }
        )
        self._waiting_since = now if state.ready() else None
        self._not_before = now + (IDLE_S if nobody else 0.0)
        return [commit, Forget(state.round), Publish(state.round, outcomes)]

    def resume(self, now: float) -> list[Command]:
        """After a restart: an open round gets its full time again, a frozen one is averaged, a commit is told again."""
        state = self.state
        self.everybody_gone(now)
        if state.phase is Phase.OPEN and state.current is not None:
            state.current.deadline = now + self.federation.rounds.deadline_s
            return [Record({"type": "reopen", "round": state.current.number})]
        if state.phase is Phase.FROZEN and state.current is not None:
            return [to_aggregate(state, state.current)]
        last = {key: outcome for key, (number, outcome) in state.outcomes.items() if number == state.round}
        return [Publish(state.round, last)] if last else []

    # ---- inside

    def _record(self, record: Mapping[str, Any]) -> Record:
        self.state.apply(record)
        return Record(record)

    def _refuse_hello(self, device: DeviceId, hello: messages.Hello) -> Command | None:
        known, federation = self.state.members.get(device), self.federation
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            reason = f"this gateway speaks protocol {PROTOCOL}, the device {hello.protocol_min} to {hello.protocol_max}"
            return self._reject(device, "protocol", reason, "update the older side")
        if known is not None and known.key != hello.key:
            hint = f"if it was set up anew: blossom-aggregator devices forget {device}; else choose another --id"
            return self._reject(device, "key", f"{device} is known here under another key", hint)
        unknown = sorted(set(hello.tasks) - set(federation.tasks))
        if unknown:
            reason = f"no task {', '.join(unknown)} here, there are {', '.join(sorted(federation.tasks))}"
            return self._reject(device, "federation", reason, "choose one of them with --task")
        if not set(hello.modalities) & set(federation.modalities):
            have, want = ", ".join(hello.modalities) or "nothing", ", ".join(sorted(federation.modalities))
            return self._reject(
                device, "unowned", f"the federation learns from {want}, {device} has {have}", "choose another profile"
            )
        return None

    def _reject(self, device: DeviceId, kind: Any, reason: str, hint: str) -> Send:
        self.refusals[f"hello-{kind}"] += 1
        return Send(device, messages.Reject(key="0" * 64, type=kind, final=True, reason=reason[:500], hint=hint[:500]))

    def _judged(self, device: DeviceId, offer: messages.Offer, now: float) -> list[Command] | None:
        """None when the update may come; else the receipt it has already, or its refusal."""
        if device not in self.state.members:
            return []
        key = key_of(offer)
        expected = self._encoded_size(key) if key.block in self.state.spec else 0
        verdict = judge(self.state, device, offer, expected_bytes=expected, now=now)
        if isinstance(verdict, Kept):
            return [Confirm(device, offer)]
        return verdict if verdict is None else self._refuse_as(device, offer, verdict, now)

    def _refuse_as(self, device: DeviceId, offer: messages.Offer, refused: Refused, now: float) -> list[Command]:
        return self.refuse(device, offer, refused.type, refused.reason, hint=refused.hint, now=now)

    def _open(self, ready: list[DeviceId], now: float) -> list[Command]:
        state = self.state
        keys = state.to_plan(ready)
        record = {
            "type": "open",
            "round": state.round + 1,
            "participants": ready,
            "blocks": {str(key): state.version(key).number for key in keys},
        }
        commands: list[Command] = [self._record(record)]
        if state.current is not None:
            state.current.deadline = now + self.federation.rounds.deadline_s
        for device in ready:
            state.members[device].phase = "planned"
            commands.append(Send(device, make_plan(state, device, now)))
        return commands

    def _settle(self, now: float) -> list[Command]:
        """Freeze the round when nothing is awaited any more, or its deadline has come."""
        state, current = self.state, self.state.current
        if state.phase is not Phase.OPEN or current is None:
            return []
        if now < current.deadline and state.awaited(now):
            return []
        members = by_block(current)
        record = {
            "type": "freeze",
            "round": current.number,
            "members": {str(key): [a.device for a in found] for key, found in sorted(members.items())},
        }
        return [self._record(record), to_aggregate(state, current)]

    def _should_stop(self, number: int, score: MetricSums) -> str:
        """Why this round, with the score of its base, is the last one, or the empty text."""
        schedule = self.federation.schedule
        if schedule.stop_rounds and number >= schedule.stop_rounds:
            return f"{number} rounds"
        patience = schedule.stop_no_gain_rounds
        scores = [*(earlier for _, earlier in self.state.scores), score]
        losses = [x for x in map(_mean_loss, scores) if x is not None]
        if patience and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience]):
            return f"no gain in {patience} rounds"
        return ""


def _mean_loss(score: MetricSums) -> float | None:
    means = [m.mean for name, m in score.items() if name.endswith(".loss") and m.mean is not None]
    return sum(means) / len(means) if means else None
