"""Finds the federation behind a gateway's address, by the head that its aggregator keeps at the broker."""

from __future__ import annotations

import time
import uuid

from blossom_edge.codec import messages
from blossom_edge.codec.envelope import decode
from blossom_edge.core.errors import LinkError, RemoteError
from blossom_edge.transport import topics
from blossom_edge.transport.address import Address
from blossom_edge.transport.link import Connected, Disconnected, Link, Message
from blossom_edge.transport.mqtt import MqttLink

GATHER_S = 0.3
"""After the first head, others of the same broker are listened for this long."""


def find_federation(address: Address, *, name: str | None, patience_s: float) -> str:
    """The name of the federation at `address`; `name` picks one of several.

    Raises:
        LinkError: `gateway-unreachable` (nobody, or no MQTT broker), `login-refused`, `gateway-silent` (a broker
            without an aggregator, or several federations and no name).
    """
    link = MqttLink(address, client_id=f"find-{uuid.uuid4().hex[:12]}", keepalive_s=15)
    try:
        return _listen(link, address, name=name, patience_s=patience_s)
    finally:
        link.close()


def _listen(link: Link, address: Address, *, name: str | None, patience_s: float) -> str:
    until = time.monotonic() + patience_s
    link.subscribe(topics.head("+"))
    found: set[str] = set()
    failure: Disconnected | None = None
    is_broker = False
    while (left := until - time.monotonic()) > 0:
        event = link.receive(left)
        if isinstance(event, Disconnected):
            failure = event
            if event.error_id == "login-refused":
                break
        elif isinstance(event, Connected):
            is_broker, failure = True, None
        elif isinstance(event, Message):
            federation = _federation_of(event)
            if federation is not None and federation == (name or federation):
                if not found:
                    until = min(until, time.monotonic() + (0.0 if name else GATHER_S))
                found.add(federation)
    if len(found) == 1:
        return found.pop()
    if found:
        raise LinkError(
            "gateway-silent", f"{address} serves {', '.join(sorted(found))}", hint="choose one with --federation"
        )
    if failure is not None:
        hint = "give the federation's password with --password" if failure.error_id == "login-refused" else ""
        raise LinkError(failure.error_id or "gateway-unreachable", f"{address}: {failure.reason}", hint=hint)
    if not is_broker:
        raise LinkError(
            "gateway-unreachable",
            f"{address}: no MQTT broker answers there within {patience_s:g} s",
            hint="is it the gateway's address and port?",
        )
    wanted = f" of federation {name}" if name else ""
    raise LinkError(
        "gateway-silent",
        f"a broker answers at {address}, but no aggregator{wanted}",
        hint="start `blossom-aggregator serve` there",
    )


def _federation_of(message: Message) -> str | None:
    topic = topics.Topic.parse(message.topic)
    if topic is None or topic.direction != "head":
        return None
    try:
        frame = decode(message.payload, allowed=(messages.Announce,))
        if isinstance(frame.message, messages.Announce):
            frame.check(f"{topic.federation}/", frame.message.key)
    except RemoteError:
        return None
    return topic.federation
