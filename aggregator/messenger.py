"""What the aggregator says: makes the messages, signs them, hands them to the link and counts their bytes."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal

from aggregator.caster import Piece
from aggregator.recovery import Truth
from aggregator.rounds import Phase, Publish, Running
from blossom_edge.codec import messages
from blossom_edge.codec.chunks import chunk_span, num_chunks
from blossom_edge.codec.envelope import encode
from blossom_edge.codec.tensors import make_codec
from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId
from blossom_edge.transport import topics
from blossom_edge.transport.link import Link

log = logging.getLogger("aggregator")


class Messenger:
    """The gateway's voice on one link."""

    def __init__(self, truth: Truth, link: Link) -> None:
        self.bytes_down: Counter[DeviceId] = Counter()
        """Payload bytes sent to one device alone."""
        self.bytes_cast: Counter[BlockKey] = Counter()
        """Payload bytes cast to all owners of a block."""
        self._truth = truth
        self._state = truth.machine.state
        self._federation = truth.machine.federation
        self._link = link
        self._cast_cache: dict[BlockKey, tuple[int, bytes]] = {}

    def running_word(self) -> Literal["waiting", "open", "paused", "finished"]:
        """What devices are told of the federation's course."""
        state = self._state
        if state.running is Running.FINISHED:
            return "finished"
        if state.running is Running.PAUSED:
            return "paused"
        return "waiting" if state.phase is Phase.WAITING else "open"

    def greet(self, device: DeviceId, hello: messages.Hello) -> None:
        """Welcome a device; the federation itself is sent only if it does not have it."""
        state, truth = self._state, self._truth
        member = state.members[device]
        known = hello.federation_digest == self._federation.digest
        welcome = messages.Welcome(
            key=truth.key.public_hex,
            protocol=1,
            epoch=state.epoch,
            round=state.round,
            running=self.running_word(),
            federation_digest=self._federation.digest,
            federation=None if known else self._federation.to_dict(),
            versions=tuple(
                messages.HeldBlock(
                    block=str(key.block), cohort=key.cohort, version=version.number, sha256=version.cast_sha256
                )
                for key, version in ((key, state.version(key)) for key in state.keys_of(member))
            ),
            sequence=member.sequence,
            ledger_seq=truth.ledger.seq,
            ledger_hash=truth.ledger.head_hash,
            boot=truth.boot,
            come_back_s=0.0,
        )
        log_event(log, "device-here", device=device, profile=hello.profile, connection=hello.connection)
        if hello.epoch == state.epoch and hello.ledger_seq > truth.ledger.seq:
            text = f"it has seen record {hello.ledger_seq} of this ledger, which ends at {truth.ledger.seq}"
            text += ": put back from a backup? what came after that is lost"
            log_event(log, "ledger-behind", level=logging.WARNING, device=device, reason=text)
        self.send(device, welcome)

    def confirm(self, device: DeviceId, offer: messages.Offer) -> None:
        """Give the receipt of an update that is on disk."""
        receipt = messages.Receipt(
            epoch=offer.epoch,
            round=offer.round,
            block=offer.block,
            cohort=offer.cohort,
            base_version=offer.base_version,
            sha256=offer.sha256,
            sequence=offer.sequence,
            ledger_seq=self._truth.ledger.seq,
            ledger_hash=self._truth.ledger.head_hash,
        )
        self.send(device, receipt)

    def commit(self, command: Publish) -> None:
        """Tell everybody how a round ended."""
        blocks = tuple(
            messages.CommittedBlock(
                block=str(key.block),
                cohort=key.cohort,
                version=outcome.version.number,
                sha256=outcome.version.cast_sha256,
                members=outcome.members,
                held=outcome.held,
            )
            for key, outcome in sorted(command.outcomes.items())
        )
        commit = messages.Commit(
            epoch=self._state.epoch,
            round=command.round,
            blocks=blocks,
            ledger_seq=self._truth.ledger.seq,
            ledger_hash=self._truth.ledger.head_hash,
            running=self.running_word(),
            next_s=0.0,
        )
        self.cast(topics.cast(self._federation.name, commit.NAME), commit)
        self.announce(to_head_only=True)

    def announce(self, *, to_head_only: bool = False) -> None:
        """Say that the aggregator is here and where it is; the retained head says it to who comes later."""
        announce = messages.Announce(
            epoch=self._state.epoch,
            boot=self._truth.boot,
            round=self._state.round,
            key=self._truth.key.public_hex,
            ledger_seq=self._truth.ledger.seq,
            ledger_hash=self._truth.ledger.head_hash,
        )
        if not to_head_only:
            self.cast(topics.cast(self._federation.name, announce.NAME), announce)
        self.cast(topics.head(self._federation.name), announce, retain=True)

    def piece(self, piece: Piece) -> None:
        """Send one chunk of a block's newest version, to one device or to all; an older version's is dropped."""
        key, current = piece.key, self._state.version(piece.key)
        if current.number != piece.version:
            return
        data = self.cast_bytes(key)
        chunk = messages.CastChunk(
            block=str(key.block),
            cohort=key.cohort,
            version=piece.version,
            codec=self._federation.codec.down,
            sha256=current.cast_sha256,
            num_bytes=len(data),
            index=piece.index,
            count=num_chunks(len(data)),
            data=data[chunk_span(piece.index)],
        )
        if piece.device is not None:
            self.send(piece.device, chunk)
            return
        topic = topics.cast_block(self._federation.name, str(key.block), key.cohort)
        self.bytes_cast[key] += self.cast(topic, chunk)

    def num_chunks(self, key: BlockKey) -> int:
        """Chunks of the newest version of a block."""
        return num_chunks(len(self.cast_bytes(key)))

    def cast_bytes(self, key: BlockKey) -> bytes:
        """The bytes of a block's newest version as they are cast."""
        version = self._state.version(key)
        cached = self._cast_cache.get(key)
        if cached is None or cached[0] != version.number:
            data = self._truth.versions.get(version.sha256)
            down = make_codec(self._federation.codec.down)
            if down.wire_id != "float32":
                spec = self._state.spec[key.block]
                data = down.encode(make_codec("float32").decode(data, spec), spec)
            cached = self._cast_cache[key] = (version.number, data)
        return cached[1]

    def cast(self, topic: str, message: messages.WireMessage, *, retain: bool = False) -> int:
        """Send to all; returns the payload's bytes."""
        payload = encode(message, scope=f"{self._federation.name}/", sign=self._truth.key)
        self._link.publish(topic, payload, qos=1, retain=retain)
        return len(payload)

    def send(self, device: DeviceId, message: messages.WireMessage) -> None:
        """Send to one device."""
        if isinstance(message, messages.Reject):
            message = message.model_copy(update={"key": self._truth.key.public_hex})
        payload = encode(message, scope=f"{self._federation.name}/{device}", sign=self._truth.key)
        if self._link.publish(topics.down(self._federation.name, device, message.NAME), payload):
            self.bytes_down[device] += len(payload)
