"""The loop of a device: events from the link into the session, its actions onto disk, wire and trainer.

One thread. `step` takes one event and carries out what follows. Training runs inside `step`; the link keeps
itself alive meanwhile. Time comes from the `clock` given, so a simulation runs the same code in virtual time.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from blossom_edge.client.actions import (
    Action,
    Adopt,
    Apply,
    Evaluate,
    KeepBlock,
    KeepCheckpoint,
    Publish,
    Stop,
    Subscribe,
    Work,
)
from blossom_edge.client.agent_log import log_received
from blossom_edge.client.agent_status import agent_status
from blossom_edge.client.governor import Governor
from blossom_edge.client.learner import Learner
from blossom_edge.client.pacing import UploadPace
from blossom_edge.client.session import Session
from blossom_edge.client.store import Store
from blossom_edge.client.training_work import TrainingWork
from blossom_edge.client.version_use import VersionUse
from blossom_edge.codec import messages
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import BlossomError, ConfigError, FrameError, LinkError, RemoteError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction
from blossom_edge.federation.schema import Federation
from blossom_edge.transport import topics
from blossom_edge.transport.link import Connected, Disconnected, Link, LinkEvent, Message

log = logging.getLogger("blossom_edge")
_DOWN = {message.NAME: message for message in messages.DOWN}
_CAST = {message.NAME: message for message in messages.CAST}
PACKET_OVERHEAD_BYTES = 9
"""Of an MQTT 5 publish beside topic and payload: header (4), topic length (2), packet id (2), no properties (1)."""


@dataclass(slots=True)
class Traffic:
    """Bytes of one round: MQTT payloads, topics and packet headers."""

    up: int = 0
    down: int = 0


class Agent:
    """One device in one federation. `make_learner` checks the federation against the profile and may refuse it.

    `observe` is called at every step with the agent, for screens and status files; `on_prediction` with each
    prediction of a device that does not train, `publish` sends them to the gateway as well. `governor` says what the
    board can bear, `upload_kbps` how fast updates may go up; without them every plan is worked off whole and at once.
    """

    def __init__(
        self,
        link: Link,
        session: Session,
        store: Store,
        *,
        federation_name: str,
        make_learner: Callable[[Federation], Learner],
        clock: Callable[[], float],
        gateway_key: str | None = None,
        observe: Callable[[Agent], None] = lambda agent: None,
        governor: Governor | None = None,
        upload_kbps: int | None = None,
        publish: bool = False,
        on_prediction: Callable[[Prediction], None] = lambda prediction: None,
    ) -> None:
        self.session = session
        self.store = store
        self.stopped: Stop | None = None
        self.ever_connected = False
        self.learner: Learner | None = None
        self.traffic: dict[int, Traffic] = {}
        """Bytes by round: its updates up, the versions made of them down; round 0 is what came before the first."""
        self.private_sent: Counter[str] = Counter()
        """Messages that carried a private block, by block: stays empty, and is counted to show it."""
        self.scores: dict[int, MetricSums] = {}
        """Own score of the model that each round began with; that of the finished one under the number after it."""
        self._link = link
        self._publishes = publish
        self._federation_name = federation_name
        self._make_learner = make_learner
        self._clock = clock
        self._gateway_key = gateway_key
        self._observe = observe
        self._work = TrainingWork(session, governor, clock=clock, scores=self.scores, tell=self._tell)
        self._use = VersionUse(session, scores=self.scores, send=self._send, publish=publish, tell=on_prediction)
        self._pace = UploadPace(upload_kbps) if upload_kbps is not None else None
        self._trusted: str | None = None
        self._connection = 0
        self._said_hello = self._ended_well = False
        self._polled_at = float("-inf")
        device = session.facts.device
        self._scope = f"{federation_name}/{device}"
        link.subscribe(topics.down(federation_name, device, "+"))
        for kind in (messages.Commit.NAME, messages.Announce.NAME):
            link.subscribe(topics.cast(federation_name, kind))

    # ---- the loop

    def step(self, timeout_s: float) -> bool:
        """Take at most one event and do what time demands; whether there was an event or work that had waited."""
        event = self._link.receive(timeout_s)
        if event is not None:
            self._take(event)
        now = self._clock()
        learner = self.learner
        if learner is not None and learner.poll_s is not None and now - self._polled_at >= learner.poll_s:
            self._poll(now)
        waited = False
        if self.stopped is None:
            self._do(self.session.tick(now))
            waited = self._send_paced(now)
            if (actions := self._work.resume(now)) is not None:
                waited = True
                self._do(actions)
        self._observe(self)
        return event is not None or waited

    def next_due(self) -> float | None:
        """When `step` has something to do without an event."""
        paced = self._pace.next_due() if self._pace is not None else None
        times = [self.session.next_due(), self._work.resume_at, paced]
        if self.learner is not None and self.learner.poll_s is not None:
            times.append(self._polled_at + self.learner.poll_s)
        known = [t for t in times if t is not None]
        return min(known) if known else None

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Stop:
        """Run until the federation is finished, an error ends it (it is in the `Stop`), or `should_stop` says so."""
        self._begin()
        while self.stopped is None and not should_stop():
            due = self.next_due()
            wait = 1.0 if due is None else min(max(due - self._clock(), 0.0), 1.0)
            try:
                self.step(wait)
            except BlossomError as error:
                self._stop(error)
        self._ended_well = self.stopped is None or self.stopped.error is None
        return self.stopped or Stop("stopped")

    def _begin(self) -> None:
        """A device that predicts does so with what it has, before anybody answers."""
        try:
            self._do(self.session.begin())
        except ConfigError as error:  # of the federation that it knew: the gateway's may be another one by now
            log_event(log, "known-federation-unfit", level=logging.WARNING, reason=str(error))
            self.session.blocks = None
        except BlossomError as error:
            self._stop(error)

    def leave(self, reason: str) -> None:
        """Say goodbye to who heard a hello, and close link and store. An error that stopped us gives its id away."""
        if self._said_hello:
            error = self.stopped.error if self.stopped is not None else None
            reason += f": {error.error_id}" if error is not None else ""
            self._publish(self.bye(self._connection, reason))
        if self.learner is not None:
            self._close_learner(clean=self._ended_well)
        self._link.close()
        self.store.close()

    def _close_learner(self, *, clean: bool) -> None:
        """An end after an error counts as a start that the model in use did not survive."""
        if self.learner is not None:
            if self.learner.user is not None and clean:
                self.learner.user.close()
            self.learner.close()

    def bye(self, connection: int, reason: str) -> messages.Bye:
        """The goodbye of a connection; also its will."""
        return messages.Bye(boot=self.session.facts.boot, connection=connection, reason=reason[:500])

    # ---- in

    def _take(self, event: LinkEvent) -> None:
        now = self._clock()
        if isinstance(event, Connected):
            self.ever_connected, self._connection = True, event.connection
            log_event(log, "link-up", connection=event.connection)
            self._do(self.session.connected(event.connection, now))
        elif isinstance(event, Disconnected):
            log_event(log, "link-down", level=logging.WARNING, reason=event.reason)
            self._said_hello = False
            self._do(self.session.disconnected())
            if self._pace is not None:
                self._pace.clear()
            if not self.ever_connected and event.error_id:
                self._stop(LinkError(event.error_id, event.reason))
        elif isinstance(event, Message):
            try:
                message = self._open(event)
                self._count(event.topic, event.payload, up=False)
                if message is not None:
                    log_received(log, message)
                    self._said_hello &= not isinstance(message, messages.Reject)  # a gateway knows nobody it refused
                    self._do(self._received(message, now))
            except RemoteError as error:
                log_event(log, "message-dropped", level=logging.WARNING, topic=event.topic, reason=str(error))

    def _open(self, event: Message) -> messages.WireMessage | None:
        """Decode a message and hold its signature against the gateway's key; None before there is one to trust."""
        topic = topics.Topic.parse(event.topic)
        if topic is None or topic.federation != self._federation_name:
            raise FrameError("a topic that is not ours")
        kinds = _DOWN if topic.direction == "down" else _CAST
        name = topic.kind if topic.direction in ("down", "cast") else ""
        if name not in kinds:
            raise FrameError(f"no message is called {topic.kind}")
        frame = decode(event.payload, allowed=(kinds[name],))
        message = frame.message
        if message.SIGNED:
            scope = self._scope if topic.direction == "down" else f"{self._federation_name}/"
            if isinstance(message, (messages.Welcome, messages.Reject)) and self._trusted != message.key:
                frame.check(scope, message.key)
                self.store.trust(self._federation_name, message.key, wanted=self._gateway_key)
                self._trusted = message.key
            elif self._trusted is None:
                return None
            else:
                frame.check(scope, self._trusted)
        return message

    def _received(self, message: messages.WireMessage, now: float) -> list[Action]:
        if not isinstance(message, messages.Skeleton):
            return self.session.received(message, now)
        user = self.learner.user if self.learner is not None else None
        return self._use.skeleton(message, user) if user is not None else []

    # ---- out

    def _do(self, actions: Iterable[Action]) -> None:
        queue = deque(actions)
        while queue and self.stopped is None:
            action = queue.popleft()
            if isinstance(action, Publish):
                self._publish(action.message)
            elif isinstance(action, KeepCheckpoint):
                self.store.keep_checkpoint(action.checkpoint)
            elif isinstance(action, KeepBlock):
                self.store.keep_block(action.key, action.held)
            elif isinstance(action, Subscribe):
                self._link.subscribe(topics.cast_block(self._federation_name, str(action.key.block), action.key.cohort))
            elif isinstance(action, Adopt):
                queue.extend(self._adopt(action.federation))
            elif isinstance(action, Work):
                self._poll(self._clock())
                queue.extend(self._work.do(action, self._learning()))
            elif isinstance(action, Evaluate):
                queue.extend(self._work.evaluate(action.round, self._learning().must_train()))
            elif isinstance(action, Apply):
                queue.extend(self._apply(action))
            elif isinstance(action, Stop):
                self._stop(action.error, action.reason)

    def _adopt(self, federation: Federation) -> list[Action]:
        if self.learner is not None:  # that of the federation it knew before
            self._close_learner(clean=True)
        self.learner = self._make_learner(federation)
        self._polled_at = self._clock()
        self.learner.poll(self._polled_at)
        if self._work.governor is not None:
            self._work.governor.step_back()
        checkpoint, held = self.store.enter(federation)
        if self.learner.user is not None and self.session.blocks is not None:
            keys = {block: key for block, key in self.session.blocks.keys.items() if key in self.session.blocks.shared}
            self.learner.user.open(self.store.place, keys=keys, boot=self.store.boot)
        log_event(
            log,
            "federation-joined",
            federation=federation.name,
            digest=federation.digest[:12],
            compute=self.learner.compute,
        )
        return self.session.adopted(checkpoint, held, self._clock())

    def _poll(self, now: float) -> None:
        """Let the sensors deliver, and predict what they delivered where that is the role."""
        if self.learner is None:
            return
        self._polled_at = now
        self.learner.poll(now)
        if self.learner.user is not None and self.session.blocks is not None:
            self._use.update(self.learner.user, now)

    def _apply(self, action: Apply) -> list[Action]:
        if self.learner is None or self.learner.user is None:
            raise RuntimeError("a device that trains is to apply versions")
        actions = self._use.apply(action, self.learner.user)
        self._use.update(self.learner.user, self._clock())
        return actions

    def _tell(self, actions: Iterable[Action]) -> None:
        self._do(actions)
        self._observe(self)

    def _publish(self, message: messages.WireMessage) -> None:
        if self._pace is not None and isinstance(message, messages.UploadChunk):
            self._pace.put(message)
        else:
            self._send(message)

    def _send_paced(self, now: float) -> bool:
        if self._pace is None:
            return False
        chunk = self._pace.due(now, [update.sha256 for update in self.session.outbox.updates])
        if chunk is not None:
            self._send(chunk)
        return chunk is not None

    def _send(self, message: messages.WireMessage) -> None:
        payload = encode(message, scope=self._scope, sign=self.store.key)
        topic = topics.up(self._federation_name, self.session.facts.device, message.NAME)
        if self._link.publish(topic, payload):
            self._count(topic, payload, up=True)
            self._said_hello |= isinstance(message, messages.Hello)
            blocks = self.session.blocks
            if isinstance(message, (messages.Offer, messages.UploadChunk)) and blocks is not None:
                self.private_sent.update(str(b) for b in blocks.private if str(b) == message.block)

    def _count(self, topic: str, payload: bytes, *, up: bool) -> None:
        traffic = self.traffic.setdefault(self.session.story.score_round, Traffic())
        size = len(topic) + len(payload) + PACKET_OVERHEAD_BYTES
        if up:
            traffic.up += size
        else:
            traffic.down += size

    def _learning(self) -> Learner:
        if self.learner is None:
            raise RuntimeError("no federation was adopted")
        return self.learner

    def _stop(self, error: BlossomError | None, reason: str = "") -> None:
        self.stopped = Stop(reason or str(error), error)
        self._observe(self)

    def status(self) -> dict[str, Any]:
        """What `status` and `why` show, as plain data."""
        return agent_status(
            self.session,
            self._clock(),
            scores=self.scores,
            publishes=self._publishes,
            model=self.learner.user.status() if self.learner is not None and self.learner.user is not None else {},
            traffic={number: (t.up, t.down) for number, t in self.traffic.items()},
            private_sent=self.private_sent,
            sensors=self.learner.sensors() if self.learner is not None else {},
            energy_j=self._work.governor.energy_j if self._work.governor is not None else None,
            error=self.stopped.error if self.stopped is not None else None,
        )
