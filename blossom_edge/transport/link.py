"""The seam between everything above and the network: publish, subscribe, receive.

A link keeps itself connected. It never queues for later: what is published while it is down is
dropped, and the layer above says it again after the next `Connected`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from blossom_edge.core.errors import LinkError

MAX_PAYLOAD_BYTES = 128 * 1024
"""The largest payload a link takes: what AWS IoT allows, a chunk of 96 KiB with its envelope, and room to spare."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message received from a topic."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up and its subscriptions stand. `connection` counts from 1 within one process."""

    connection: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down, or one more attempt to connect failed; it tries again by itself.

    `reason` is for people; `error_id` one of `gateway-unreachable`, `login-refused`, or empty for a
    connection that broke.
    """

    reason: str
    error_id: str = ""


LinkEvent = Message | Connected | Disconnected

WillMaker = Callable[[int], tuple[str, bytes]]
"""Topic and payload that the broker sends for us if connection number N breaks."""


class Link(Protocol):
    """A connection to a broker. Called from one thread."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Hand a message to the broker; blocks while the window of unacknowledged messages is full.

        Returns whether it was handed over: False when the link is down. True is no proof of delivery.

        Raises:
            LinkError: `too-large`, before anything is sent.
        """
        ...

    def subscribe(self, topic_filter: str) -> None:
        """Receive what matches, from now on and after every reconnect."""
        ...

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """The next event, or None when `timeout_s` passed without one."""
        ...

    def close(self) -> None:
        """Say goodbye (no will is sent) and stop. May be called twice."""
        ...


def check_size(topic: str, payload: bytes, max_payload_bytes: int) -> None:
    """Refuse what the broker would refuse, before anything is sent: some brokers acknowledge, then drop it.

    Raises:
        LinkError: `too-large`.
    """
    if len(payload) > max_payload_bytes:
        raise LinkError(
            "too-large",
            f"message for {topic} has {len(payload)} bytes, the link takes {max_payload_bytes}",
            hint="send it in chunks",
        )
