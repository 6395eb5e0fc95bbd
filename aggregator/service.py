"""The aggregator at work: messages from the link into the round machine, its commands onto disk and wire.

One thread, one loop: `step` takes one event and carries out what follows from it. What must be durable is
on disk before anything that says so is sent. Time comes from the `clock` given, so a simulation runs the
same code in virtual time.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial

from aggregator.aggregation import aggregate
from aggregator.caster import Caster
from aggregator.messenger import Messenger
from aggregator.mirror import Mirror
from aggregator.predictions import Predictions
from aggregator.recovery import Truth, kept_hashes
from aggregator.rounds import (
    Accepted,
    Aggregate,
    Command,
    Confirm,
    Forget,
    Greet,
    Keep,
    Publish,
    Receive,
    Record,
    Send,
    key_of,
)
from aggregator.skeletons import FOLDER as SKELETON_FOLDER
from aggregator.skeletons import SkeletonDesk, Skeletons
from aggregator.uploads import Upload, Uploads
from blossom_edge.codec import messages
from blossom_edge.codec.chunks import parse_bitmap
from blossom_edge.codec.envelope import Frame, decode
from blossom_edge.codec.tensors import check_finite, l2_norm, make_codec
from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import FrameError, LinkError, RemoteError, SpecMismatch
from blossom_edge.core.names import DeviceId
from blossom_edge.transport import topics
from blossom_edge.transport.link import Connected, Disconnected, Link, LinkEvent, Message

log = logging.getLogger("aggregator")
CLOSED_S = 1.0
"""Pause between two looks at the schedule while it lets no round open."""
_UP = {message.NAME: message for message in messages.UP}


class Service:
    """A gateway's aggregator on one link. `may_open(round)` is the schedule's word on opening the next one.

    Predictions are kept in memory; with a `mirror_prefix` they are mirrored for Home Assistant, which discovers there.
    """

    def __init__(
        self,
        truth: Truth,
        link: Link,
        *,
        clock: Callable[[], float],
        may_open: Callable[[int], bool] = lambda round_number: True,
        cast_bytes_per_s: float = 8e6,
        retention_rounds: int = 0,
        mirror_prefix: str = "",
    ) -> None:
        self.truth = truth
        self.machine = truth.machine
        self.federation = truth.machine.federation
        self.uploads = Uploads()
        self.dropped: Counter[str] = Counter()
        """Messages not taken, by reason."""
        self.bytes_up: Counter[DeviceId] = Counter()
        """Payload bytes received from each device."""
        self.out = Messenger(truth, link)
        self.predictions = Predictions(self.federation)
        self.skeletons = Skeletons(self.federation, truth.folder / SKELETON_FOLDER)
        self.connected = False
        self._was_connected = False
        self._down_because = ""
        self._link = link
        self._clock = clock
        self._may_open = may_open
        self._retention_rounds = retention_rounds
        self._caster = Caster(bytes_per_s=cast_bytes_per_s)
        self._desk = SkeletonDesk(self.skeletons, send=self.out.send)
        self._mirror = Mirror(self.federation, link, prefix=mirror_prefix)
        link.subscribe(topics.up(self.federation.name, "+", "+"))
        self._execute(self.machine.resume(clock()))

    # ---- the loop

    def step(self, timeout_s: float) -> bool:
        """Take at most one event and do what time demands; whether there was an event."""
        event = self._link.receive(timeout_s)
        if event is not None:
            self._take(event)
        self._tick()
        return event is not None

    def next_due(self) -> float | None:
        """When `step` has something to do without an event; to be called after a `step`."""
        now = self._clock()
        machine = self.machine.next_due(now)
        if machine is not None and machine <= now:
            machine = now + CLOSED_S
        parts = (self.uploads.next_due(), self._caster.next_due(now), self._mirror.next_due(now))
        times = (machine, *parts, now if len(self._desk) else None)
        known = [t for t in times if t is not None]
        return min(known) if known else None

    def control(self, word: str) -> None:
        """Pause, resume or finish the federation."""
        self._execute(self.machine.control(word, self._clock()))

    def forget(self, device: DeviceId) -> bool:
        """Forget a device and its key; False when a round is open or it is not known."""
        commands = self.machine.forget(device)
        self._execute(commands)
        if commands:
            self.predictions.forget(device)
            self._desk.forget(device)
            self._mirror.forget(device)
        return bool(commands)

    def goodbye(self) -> None:
        """The gateway stops: what is mirrored is no longer of now."""
        self._mirror.goodbye()

    def _tick(self) -> None:
        now = self._clock()
        for device, need in self.uploads.tick(now):
            self.out.send(device, need)
        self._execute(self.machine.tick(now, may_open=self._may_open(self.machine.state.round)))
        for piece in self._caster.due(now):
            self.out.piece(piece)
        self._desk.send_due(now)
        self._mirror.tick(now, self.machine.state.members)

    # ---- messages in

    def _take(self, event: LinkEvent) -> None:
        now = self._clock()
        if isinstance(event, Connected):
            self.connected, self._was_connected, self._down_because = True, True, ""
            self.machine.everybody_gone(now)
            self.out.announce()
            self._mirror.connected()
        elif isinstance(event, Disconnected):
            if event.reason != self._down_because:  # not for every try of a broker that is not there
                log_event(log, "link-down", level=logging.WARNING, reason=event.reason)
            self.connected, self._down_because = False, event.reason
            if event.error_id == "login-refused" and not self._was_connected:
                hint = "give the login as --broker mqtt://USER:PASSWORD@HOST:PORT"
                raise LinkError(event.error_id, event.reason, hint=hint)
        elif isinstance(event, Message):
            try:
                self._take_message(event, now)
            except RemoteError as error:
                self.dropped[error.error_id] += 1
                log_event(log, "message-dropped", level=logging.WARNING, topic=event.topic, reason=str(error))

    def _take_message(self, event: Message, now: float) -> None:
        topic = topics.Topic.parse(event.topic)
        if topic is None or topic.direction != "up" or topic.federation != self.federation.name:
            raise FrameError("a topic that is not ours")
        kind = _UP.get(topic.kind)
        if kind is None:
            raise FrameError(f"no message is called {topic.kind}")
        frame = decode(event.payload, allowed=(kind,))
        self.bytes_up[topic.device] += len(event.payload)
        message = frame.message
        if isinstance(message, messages.UploadChunk):
            self._take_chunk(topic.device, message, now)
            return
        member = self.machine.state.members.get(topic.device)
        if isinstance(message, messages.Hello):
            self._check(frame, topic.device, message.key)
            self._execute(self.machine.hello(topic.device, message, now))
        elif member is None:
            raise FrameError(f"{topic.device} has not said hello")
        else:
            self._check(frame, topic.device, member.key)
            self._take_signed(topic.device, message, now)

    def _check(self, frame: Frame, device: DeviceId, key: str) -> None:
        frame.check(f"{self.federation.name}/{device}", key)

    def _take_signed(self, device: DeviceId, message: messages.WireMessage, now: float) -> None:
        if isinstance(message, messages.Bye):
            self._execute(self.machine.bye(device, message, now))
        elif isinstance(message, messages.State):
            self._execute(self.machine.device_state(device, message, now))
        elif isinstance(message, messages.Offer):
            self._execute(self.machine.offer(device, message, now))
        elif isinstance(message, messages.Ask):
            self._take_ask(device, message, now)
        elif isinstance(message, messages.WantSkeletons):
            self._take_want(device, message, now)
        elif isinstance(message, messages.PredictionReport):
            self._take_prediction(device, message, now)

    def _take_want(self, device: DeviceId, want: messages.WantSkeletons, now: float) -> None:
        if want.epoch != self.machine.state.epoch:
            raise FrameError(f"{device} wants skeletons of epoch {want.epoch}")
        self._desk.want(device, want, now)

    def _take_prediction(self, device: DeviceId, report: messages.PredictionReport, now: float) -> None:
        if self.machine.is_next(device, epoch=report.epoch, sequence=report.sequence):
            member = self.machine.state.members[device]
            self._mirror.take(member, self.predictions.take(member, report, now))

    def _take_ask(self, device: DeviceId, ask: messages.Ask, now: float) -> None:
        key, state = key_of(ask), self.machine.state
        if ask.epoch != state.epoch or key not in state.keys_of(state.members[device]):
            raise FrameError(f"{device} asks for {key}, which it does not own")
        if ask.version == state.version(key).number:
            total = self.out.num_chunks(key)
            self._caster.ask(device, key, ask.version, parse_bitmap(ask.missing, total), now)

    def _take_chunk(self, device: DeviceId, chunk: messages.UploadChunk, now: float) -> None:
        upload, grant = self.uploads.add(device, chunk, now)
        if grant is not None:
            self.out.send(device, grant)
        if upload is not None:
            self.uploads.end(device, key_of(upload.offer))
            self._execute(self._finish(device, upload, now))

    def _finish(self, device: DeviceId, upload: Upload, now: float) -> list[Command]:
        """All chunks are here: what they hold is checked before anything is kept."""
        offer = upload.offer
        refuse = partial(self.machine.refuse, device, offer, now=now)
        try:
            data = upload.chunks.result()
        except FrameError as error:
            return refuse("hash", str(error), hint="it is sent again", final=False)
        spec = self.machine.state.spec[key_of(offer).block]
        try:
            delta = make_codec(offer.codec).decode(data, spec)
        except SpecMismatch as error:
            return refuse("size", str(error))
        if not check_finite(delta):
            return refuse("nonfinite", f"{spec.id}: NaN or infinity in the update", hint="look at lr and the data")
        return self.machine.update(device, offer, data, norm=l2_norm(delta), now=now)

    # ---- commands out

    def _execute(self, commands: Iterable[Command]) -> None:
        queue = deque(commands)
        while queue:
            command = queue.popleft()
            if isinstance(command, Send):
                _log_sent(command)
                self.out.send(command.device, command.message)
            elif isinstance(command, Greet):
                self.out.greet(command.device, command.hello)
                self._mirror.hello(command.device, command.hello)
            elif isinstance(command, Record):
                self._append(command)
            elif isinstance(command, Keep):
                self.truth.updates.put(command.data)
                self.truth.ledger.append(command.record)
                self.out.confirm(command.accepted.device, command.offer)
                _log_kept(command.accepted)
            elif isinstance(command, Confirm):
                self.out.confirm(command.device, command.offer)
            elif isinstance(command, Receive):
                queue.extend(self._receive(command))
            elif isinstance(command, Forget):
                self.uploads.forget(command.round)
            elif isinstance(command, Aggregate):
                outcomes = aggregate(
                    command, self.machine.state, updates=self.truth.updates, versions=self.truth.versions
                )
                queue.extend(self.machine.aggregated(outcomes, self._clock()))
            elif isinstance(command, Publish):
                self._publish(command)

    def _publish(self, command: Publish) -> None:
        self.out.commit(command)
        for key, outcome in sorted(command.outcomes.items()):
            if outcome.members:
                self._caster.cast(key, outcome.version.number, self.out.num_chunks(key))
            event = "block-held" if outcome.held else "block-committed"
            version, why = outcome.version.number, outcome.held
            log_event(log, event, round=command.round, block=str(key), version=version, reason=why)
        if self._retention_rounds and command.outcomes:
            keep = kept_hashes(self.truth.ledger.records, self.machine.state, self._retention_rounds)
            self.truth.updates.drop(keep)
            self.truth.versions.drop(keep)

    def _append(self, command: Record) -> None:
        self.truth.ledger.append(command.record)
        kind, record = command.record["type"], command.record
        if kind == "open":
            log_event(log, "round-open", round=record["round"], num_devices=len(record["participants"]))
        elif kind == "running":
            log_event(log, "federation-running", state=record["value"], reason=record["reason"])
        elif kind == "commit" and record["stop"]:
            log_event(log, "federation-running", state="finished", reason=record["stop"])
        elif kind == "device":
            modalities = ",".join(record["modalities"])
            log_event(log, "device-new", device=record["device"], profile=record["profile"], modalities=modalities)

    def _receive(self, command: Receive) -> list[Command]:
        now = self._clock()
        refuse = partial(self.machine.refuse, command.device, command.offer, now=now)
        try:
            need = self.uploads.begin(command.device, command.offer, now)
        except OverflowError as error:
            return refuse("busy", str(error), final=False)
        except ValueError as error:
            return refuse("size", str(error))
        if need is not None:
            self.out.send(command.device, need)
        return []


def _log_sent(command: Send) -> None:
    message = command.message
    if isinstance(message, messages.Refusal):
        log_event(
            log,
            "update-refused",
            level=logging.WARNING,
            round=message.round,
            block=message.block,
            device=command.device,
            kind=message.type,
            reason=message.reason,
        )
    elif isinstance(message, messages.Reject):
        log_event(log, "device-rejected", level=logging.WARNING, device=command.device, reason=message.reason)


def _log_kept(accepted: Accepted) -> None:
    log_event(
        log,
        "update-kept",
        round=accepted.round,
        block=str(accepted.key),
        device=accepted.device,
        num_samples=accepted.num_samples,
        norm=round(accepted.norm, 4),
    )
