"""A broker inside one thread: for simulations, tests and virtual time. No sockets, no clock, no threads.

Order is the order of the calls: the same calls give the same events. It forgets like a real broker does:
sessions are clean, so what is published while a link is cut never reaches it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from blossom_edge.core.errors import LinkError
from blossom_edge.transport import topics
from blossom_edge.transport.link import (
    MAX_PAYLOAD_BYTES,
    Connected,
    Disconnected,
    LinkEvent,
    Message,
    WillMaker,
    check_size,
)

Watcher = Callable[[str, bytes], None]
Loss = Callable[[str, str, bytes], bool]


class LoopbackBroker:
    """Hands what one link publishes to every link that subscribed to it, at once, in order of their joining."""

    def __init__(self, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._links: dict[str, LoopbackLink] = {}
        self._retained: dict[str, bytes] = {}
        self._watchers: list[Watcher] = []
        self._loses: Loss | None = None

    def link(self, client_id: str, *, will: WillMaker | None = None) -> LoopbackLink:
        """A connected link; its first event is `Connected(1)`.

        As with MQTT, a second link with the same id takes over: the first is cut for good, its will delivered.
        """
        if client_id in self._links:
            self.cut(client_id)
            self._links.pop(client_id).close()
        link = LoopbackLink(self, client_id, will)
        self._links[client_id] = link
        link.go_up()
        return link

    def cut(self, client_id: str) -> None:
        """Break a link: its will is delivered and it sees `Disconnected`. Nothing happens when it is cut already.

        Raises:
            LinkError: `nothing-found`, when no link has this id.
        """
        will = self._find(client_id).go_down("cut by the test")
        if will is not None:
            self.deliver(*will, retain=False)

    def restore(self, client_id: str) -> None:
        """Let a cut link connect again: `Connected(n + 1)`, then what is retained. Nothing happens when it is up.

        Raises:
            LinkError: `nothing-found`, when no link has this id.
        """
        self._find(client_id).go_up()

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(topic, payload)` for everything that reaches the broker, wills included, before delivery."""
        self._watchers.append(watcher)

    def lose(self, loses: Loss | None) -> None:
        """From now on lose every message on its way to a client for which `loses(client_id, topic, payload)`.

        None: lose nothing any more. Watchers see what is lost too.
        """
        self._loses = loses

    def deliver(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Pass one message on, as if a link had published it."""
        for watcher in self._watchers:
            watcher(topic, payload)
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for link in self._links.values():
            if self._loses is None or not self._loses(link.client_id, topic, payload):
                link.take(topic, payload)

    def retained(self, topic_filter: str) -> list[Message]:
        """The retained messages a new subscription gets."""
        return [
            Message(topic, payload, retained=True)
            for topic, payload in self._retained.items()
            if topics.matches(topic_filter, topic)
        ]

    def forget(self, client_id: str, link: LoopbackLink) -> None:
        """Remove a link that said goodbye."""
        if self._links.get(client_id) is link:
            del self._links[client_id]

    def _find(self, client_id: str) -> LoopbackLink:
        try:
            return self._links[client_id]
        except KeyError:
            raise LinkError("nothing-found", f"no link has the client id {client_id!r}") from None


class LoopbackLink:
    """One client's side of a `LoopbackBroker`; made by `LoopbackBroker.link`."""

    def __init__(self, broker: LoopbackBroker, client_id: str, will: WillMaker | None) -> None:
        self.client_id = client_id
        self._broker = broker
        self._make_will = will
        self._will: tuple[str, bytes] | None = None
        self._filters: list[str] = []
        self._events: deque[LinkEvent] = deque()
        self._connection = 0
        self._up = False
        self._closed = False

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Deliver at once; False when the link is cut or closed. Raises LinkError `too-large`. QoS means nothing."""
        payload = bytes(payload)
        check_size(topic, payload, self._broker.max_payload_bytes)
        if not self._up:
            return False
        self._broker.deliver(topic, payload, retain=retain)
        return True

    def subscribe(self, topic_filter: str) -> None:
        """Receive what matches from now on and after every `restore`; what is retained comes first."""
        if topic_filter in self._filters:
            return
        self._filters.append(topic_filter)
        if self._up:
            self._events.extend(self._broker.retained(topic_filter))

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """The next event or None, at once: time here is somebody else's matter, so `timeout_s` is not used."""
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Leave the broker without a will; events not yet received are dropped."""
        self._closed = True
        self._up = False
        self._events.clear()
        self._broker.forget(self.client_id, self)

    def go_up(self) -> None:
        """The broker accepts us (again)."""
        if self._up or self._closed:
            return
        self._up = True
        self._connection += 1
        self._will = self._make_will(self._connection) if self._make_will else None
        self._events.append(Connected(self._connection))
        for topic_filter in self._filters:
            self._events.extend(self._broker.retained(topic_filter))

    def go_down(self, reason: str) -> tuple[str, bytes] | None:
        """The connection breaks; returns the will that is due."""
        if not self._up:
            return None
        self._up = False
        self._events.append(Disconnected(reason))
        return self._will

    def take(self, topic: str, payload: bytes) -> None:
        """The broker brings a message; kept if a filter matches, once however many do."""
        if self._up and any(topics.matches(topic_filter, topic) for topic_filter in self._filters):
            self._events.append(Message(topic, payload))
