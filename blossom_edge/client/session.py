"""A device's part of a federation as a state machine: events in, actions out. No I/O, no clock, no torch.

    (connected) hello -> welcome -> fetch versions -> plan -> work -> checkpoint -> offer -> receipt -> commit -> ...

Messages are verified before they come here. `now` is a monotonic time in seconds. What a restart must find
again is in the checkpoint and the held versions, which the agent writes before anything that follows is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from blossom_edge.client.actions import (
    Action,
    Adopt,
    Apply,
    Checkpoint,
    DeviceFacts,
    Evaluate,
    Held,
    KeepBlock,
    KeepCheckpoint,
    Publish,
    Stop,
    Story,
    Subscribe,
    Work,
)
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.downloads import Downloads
from blossom_edge.client.outbox import Outbox
from blossom_edge.client.round_end import checkpoint_of
from blossom_edge.client.speech import (
    Phase,
    Voice,
    federation_of,
    key_of,
    lacking_windows,
    outcome_words,
    refusal_words,
    settled_words,
    training_of,
    waiting_words,
)
from blossom_edge.codec import messages
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import ConfigError, LinkError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.federation.schema import Federation

HELLO_S = 5.0
LONGEST_HELLO_S = 60.0


class Session:
    """One device in one federation. `federation` is the one it knows from an earlier run.

    A device that does not train uses each version as it comes. `stays`: it goes on when the federation is finished.
    """

    def __init__(self, facts: DeviceFacts, *, federation: Federation | None = None, stays: bool = False) -> None:
        self.facts = facts
        self.federation = federation
        self.checkpoint = Checkpoint()
        self.story = Story()
        self.blocks: DeviceBlocks | None = None
        """What this device has in the federation; None until it is welcome."""
        self.downloads = Downloads(expected_bytes=lambda key: self._blocks().cast_size(key), seed=facts.device)
        self.voice = Voice(facts)
        self.outbox = Outbox(next_sequence=self.voice.next_sequence)
        self.welcomed = False
        self._entering: messages.Welcome | None = None
        self._plan: messages.Plan | None = None
        self._plan_until = 0.0
        self._finishing: int | None = None
        self._stays, self._entered = stays, False
        self._applied: dict[BlockKey, Held] | None = None
        self._hello_at: float | None = None
        self._hello_pause = HELLO_S

    # ---- the link

    def connected(self, connection: int, now: float) -> list[Action]:
        """The link is up (again)."""
        self.voice.connection, self.welcomed, self._hello_pause = connection, False, HELLO_S
        self.outbox.reconnected()
        return self._say_hello(now)

    def disconnected(self) -> list[Action]:
        """The link is down; all that is unfinished stays as it is."""
        self.welcomed, self._hello_at = False, None
        self.story.tell("offline")
        return []

    def tick(self, now: float) -> list[Action]:
        """Time passed."""
        actions: list[Action] = []
        if self._hello_at is not None and now >= self._hello_at and not self.welcomed:
            actions += self._say_hello(now)
        if self.welcomed:
            actions += [Publish(ask) for ask in self.downloads.asks(now, self.voice.epoch)]
            actions += [Publish(message) for message in self.outbox.due(now, self.voice.epoch)]
            if self._plan is not None and now >= self._plan_until:
                self._plan = None
                self.story.tell("waiting", "the round ended before its versions were here")
        return actions

    def next_due(self) -> float | None:
        """When `tick` has something to do without an event."""
        times = [self._hello_at] if not self.welcomed else [self.downloads.next_due(), self.outbox.next_due()]
        if self._plan is not None:
            times.append(self._plan_until)
        known = [t for t in times if t is not None]
        return min(known) if known else None

    def begin(self) -> list[Action]:
        """Before anybody answers: a device that does not train goes on in the federation that it knows."""
        return self._adopt(self.federation) if self.facts.role != "train" and self.federation is not None else []

    def received(self, message: messages.WireMessage, now: float) -> list[Action]:
        """A message from the gateway, its signature checked where it has one.

        Raises:
            RemoteError: it does not make sense; drop it.
        """
        takers: Mapping[type[messages.WireMessage], Callable[..., list[Action]]] = {
            messages.Welcome: self._welcome,
            messages.Reject: self._reject,
            messages.Plan: self._take_plan,
            messages.Grant: lambda m, t: [Publish(chunk) for chunk in self.outbox.granted(m, t)],
            messages.Need: lambda m, t: [Publish(chunk) for chunk in self.outbox.needed(m, t)],
            messages.Receipt: self._receipt,
            messages.Refusal: self._refusal,
            messages.CastChunk: self._chunk,
            messages.Commit: self._commit,
            messages.Announce: self._announce,
        }
        return takers[type(message)](message, now)

    def _welcome(self, welcome: messages.Welcome, now: float) -> list[Action]:
        if self.federation is None or self.federation.digest != welcome.federation_digest:
            if self._entered:
                message = "the gateway runs another federation now"
                return [Stop("rejected", ConfigError("federation-changed", message, hint="start join again"))]
            if welcome.federation is None:
                return []
            self.federation, self.blocks = federation_of(welcome), None
            self.downloads.forget()
        if self.blocks is not None:
            return self._enter(welcome, now)
        self._entering = welcome
        return self._adopt(self.federation)

    def _adopt(self, federation: Federation) -> list[Action]:
        self.blocks = DeviceBlocks(federation, self.facts.modalities, self.facts.tasks)
        return [Adopt(federation), *(Subscribe(key) for key in self.blocks.shared)]

    def adopted(self, checkpoint: Checkpoint | None, held: Mapping[BlockKey, Held], now: float) -> list[Action]:
        """The agent is ready to learn in this federation; `checkpoint` and `held` are what an earlier run left."""
        self.checkpoint = checkpoint or Checkpoint()
        self.downloads.held.update(held)
        self.outbox.fill(self.checkpoint.outbox, sent_before=True)
        self.voice.epoch = self.checkpoint.epoch
        self.voice.heard(sequence=self.checkpoint.sequence, ledger_seq=self.checkpoint.ledger_seq)
        welcome, self._entering = self._entering, None
        return self._enter(welcome, now) if welcome is not None else []

    def _enter(self, welcome: messages.Welcome, now: float) -> list[Action]:
        if welcome.epoch != self.voice.epoch:
            self.downloads.forget()
            self.outbox.fill(())
            self.checkpoint = replace(self.checkpoint, epoch=welcome.epoch, round=0, outbox=())
        self.voice.epoch, self.welcomed, self._entered = welcome.epoch, True, True
        self.voice.heard(sequence=welcome.sequence, ledger_seq=welcome.ledger_seq)
        self._hello_at = None
        self.story.round = welcome.round
        self.story.tell("waiting", waiting_words(welcome.running))
        if welcome.running == "finished":
            self._finishing = welcome.round
        actions: list[Action] = []
        for version in welcome.versions:
            actions += self._want(key_of(version), version.version, version.sha256, now, soon=True)
        return actions + self.go_on(now) + self.tick(now)

    def _reject(self, reject: messages.Reject, now: float) -> list[Action]:
        if not reject.final:
            self._hello_at = now + max(reject.come_back_s, HELLO_S)
            return []
        return [Stop("rejected", LinkError("rejected", f"the gateway says no: {reject.reason}", hint=reject.hint))]

    def _take_plan(self, plan: messages.Plan, now: float) -> list[Action]:
        if not self.welcomed or plan.epoch != self.voice.epoch:
            return []
        self.story.round, self.story.deadline = plan.round, now + plan.remaining_s
        if plan.round == self.checkpoint.round:
            return self.tick(now)
        self._plan, self._plan_until = plan, now + plan.remaining_s
        self.story.tell("fetching", f"the versions of round {plan.round}")
        actions: list[Action] = []
        for block in plan.blocks:
            actions += self._want(key_of(block), block.version, block.sha256, now)
        return actions + self.go_on(now)

    def _chunk(self, chunk: messages.CastChunk, now: float) -> list[Action]:
        if self.blocks is None or key_of(chunk) not in self.blocks.shared:
            return []
        found = self.downloads.chunk(chunk, now)
        if found is None:
            return []
        return [KeepBlock(*found), *self.go_on(now)]

    def _receipt(self, receipt: messages.Receipt, now: float) -> list[Action]:
        self.voice.heard(ledger_seq=receipt.ledger_seq)
        return self._ended(receipt, "kept by the gateway", now)

    def _refusal(self, refusal: messages.Refusal, now: float) -> list[Action]:
        if not refusal.final:
            self.outbox.wait(refusal.block, refusal.cohort, refusal.sha256, now)
            return []
        return self._ended(refusal, refusal_words(refusal), now)

    def _ended(self, word: messages.Receipt | messages.Refusal, what: str, now: float) -> list[Action]:
        """The gateway's last word on an update."""
        update = self.outbox.settle(word.block, word.cohort, word.sha256)
        if update is None:
            return []
        self.story.sent[str(update.key)] = f"round {update.round}: {what}"
        return [*self._settled(), *self.go_on(now)]

    def _settled(self) -> list[Action]:
        if len(self.outbox):
            return []
        self.story.tell("waiting", "for the others")
        self.checkpoint = replace(
            self.checkpoint, outbox=(), sequence=self.voice.sequence, ledger_seq=self.voice.ledger_seq
        )
        return [KeepCheckpoint(self.checkpoint)]

    def _commit(self, commit: messages.Commit, now: float) -> list[Action]:
        if not self.welcomed or commit.epoch != self.voice.epoch:
            return []
        self.voice.heard(ledger_seq=commit.ledger_seq)
        self.story.round = commit.round
        actions: list[Action] = []
        for block in commit.blocks:
            key = key_of(block)
            if key not in self._blocks().shared:
                continue
            self.story.outcomes[str(key)] = f"round {commit.round}: {outcome_words(block, self.facts.device)}"
            actions += self._want(key, block.version, block.sha256, now)
        if self._plan is not None and self._plan.round <= commit.round:
            self._plan = None
        actions += self._settle_by(commit)
        if commit.running == "finished":
            self._finishing = commit.round
        self.story.deadline = None
        self.story.tell("waiting", waiting_words(commit.running))
        return actions + self.go_on(now)

    def _settle_by(self, commit: messages.Commit) -> list[Action]:
        """A round is over: what is still in the outbox for it was counted (its receipt got lost), or came too late."""
        over = [update for update in self.outbox.updates if update.round <= commit.round]
        for update in over:
            word = settled_words(commit, update.key, self.facts.device)
            self.story.sent[str(update.key)] = f"round {update.round}: {word}"
            self.outbox.settle(str(update.key.block), update.key.cohort, update.sha256)
        return self._settled() if over else []

    def _announce(self, announce: messages.Announce, now: float) -> list[Action]:
        """The gateway (re)started, or lost its link: either way it takes nobody as here who does not say so again."""
        if self.voice.connection == 0:
            return []
        self.welcomed = False
        self.outbox.reconnected()
        return self._say_hello(now)

    def model(self) -> dict[BlockId, Tensors]:
        """All blocks of the device's model as they are now."""
        return self._blocks().model(self.downloads.held, self.checkpoint.private)

    def training(self) -> LocalTraining:
        """Local training of the plan in hand."""
        return training_of(self._planned())

    def lacks_windows(self, num_windows: int, num_seen: int, *, at_least: int = 0) -> str:
        """Why this device sits the round out, or the empty text. at_least: new windows that the device itself wants."""
        wanted, last = max(at_least, self._planned().min_new_windows), self.checkpoint
        return lacking_windows(num_windows, num_seen, last.num_seen, wanted=wanted, last_round=last.round)

    def skipped(self, reason: str, score: MetricSums, present: frozenset[str]) -> list[Action]:
        """The device sits this round out."""
        plan, self._plan = self._planned(), None
        self.story.tell("waiting", reason)
        return [self._state("skipped", plan.round, score, present, reason=reason)]

    def paused(self, reason: str) -> list[Action]:
        """The device waits with its work; the gateway is told once."""
        said_before = self.story.phase == "paused"
        self.story.tell("paused", reason)
        number, why = self._planned().round, f"paused: {reason}"
        return [] if said_before else [self._state("waiting", number, {}, frozenset(), reason=why)]

    def scored(self, score: MetricSums, present: frozenset[str], num_windows: int) -> list[Action]:
        """The received model is evaluated; training begins."""
        plan = self._planned()
        self.story.tell("training", f"round {plan.round}")
        return [self._state("training", plan.round, score, present, num_windows=num_windows)]

    def trained(
        self, base: Blocks, result: TrainResult, *, num_seen: int, now: float, why_fewer: str = ""
    ) -> list[Action]:
        """Local training is done: everything is written in one step, then the updates are offered.

        why_fewer: why it took fewer steps than the plan asks for; the gateway is told.
        """
        blocks, plan = self._blocks(), self._planned()
        told: list[Action] = []
        if why_fewer:
            steps, score = result.num_steps, self.story.score
            told = [self._state("uploading", plan.round, score, frozenset(), reason=why_fewer, num_steps=steps)]
        self.checkpoint = checkpoint_of(
            plan, result, base, blocks=blocks, before=self.checkpoint, voice=self.voice, num_seen=num_seen
        )
        updates = self.checkpoint.outbox
        self._plan = None
        self.outbox.fill(updates)
        for update in updates:
            self.story.sent[str(update.key)] = f"round {update.round}: offered, {len(update.data):,} bytes"
        detail = f"round {plan.round}, {why_fewer}" if why_fewer else f"round {plan.round}"
        self.story.tell("uploading" if updates else "waiting", detail)
        return [KeepCheckpoint(self.checkpoint), *told, *self.tick(now)]

    def evaluated(self, round_number: int, score: MetricSums, present: frozenset[str]) -> list[Action]:
        """The last evaluation of a finished federation."""
        self.story.tell("finished")
        state = self._state("evaluated", round_number + 1, score, present)
        return [state, Stop("the federation is finished")]

    def applied(
        self, score: MetricSums, present: frozenset[str], num_windows: int, *, words: str, lacks: bool = False
    ) -> list[Action]:
        """The received versions are in use, or not and why, in `words`. lacks: something has to come first."""
        finishing = self._finishing is not None and not lacks
        self._finishing = self._finishing if lacks else None
        self.story.tell(*(("finished", f"({words})") if finishing else ("waiting", f"for the next round; {words}")))
        state = self._state("evaluated", self.story.round + 1, score, present, reason=words, num_windows=num_windows)
        return [state, Stop("the federation is finished")] if finishing and not self._stays else [state]

    def apply_again(self) -> list[Action]:
        """What the last versions could not be used without has come."""
        self._applied = None
        return self.go_on(0.0)

    def go_on(self, now: float) -> list[Action]:
        """Start the work in hand once every version it needs is here; also when a pause is over."""
        missing = set(self.downloads.missing())
        if self.facts.role != "train":
            held = {key: self.downloads.held[key] for key in self._blocks().shared if key in self.downloads.held}
            if missing or not self.welcomed or (held == self._applied and self._finishing is None):
                return []
            self._applied = held
            return [Apply(self.story.round)]
        if self._plan is not None and not missing & self._blocks().needed(key_of(b) for b in self._plan.blocks):
            return [Work(self._plan.round)]
        if self._finishing is not None and not missing and not len(self.outbox):
            last, self._finishing = self._finishing, None
            return [Evaluate(last)]
        return []

    def _want(self, key: BlockKey, version: int, sha256: str, now: float, *, soon: bool = False) -> list[Action]:
        if version == 0 and key not in self.downloads.held:
            self.downloads.held[key] = Held(0, sha256, self._blocks().first(key))
        found = self.downloads.want(key, version, sha256, now=now, soon=soon)
        return [KeepBlock(key, found)] if found is not None else []

    def _say_hello(self, now: float) -> list[Action]:
        self._hello_at = now + self._hello_pause
        self._hello_pause = min(2 * self._hello_pause, LONGEST_HELLO_S)
        self.story.tell("joining", "hello is said, no answer yet")
        digest = self.federation.digest if self.federation is not None else None
        return [Publish(self.voice.hello(self.downloads.held, federation_digest=digest))]

    def _state(self, phase: Phase, number: int, score: MetricSums, present: frozenset[str], **more: Any) -> Publish:
        self.story.score, self.story.score_round = score, number
        return Publish(self.voice.state(phase, score, present, round_number=number, **more))

    def _blocks(self) -> DeviceBlocks:
        if self.blocks is None:
            raise RuntimeError("no federation is known yet")
        return self.blocks

    def _planned(self) -> messages.Plan:
        if self._plan is None:
            raise RuntimeError("no plan is in hand")
        return self._plan
