"""Ways to a broker that a test can cut, and what comes over them."""

from __future__ import annotations

import time
from typing import Protocol

from aggregator.broker import Broker
from blossom_edge.testing.fault_proxy import FaultProxy
from blossom_edge.transport.address import Address
from blossom_edge.transport.backoff import Backoff
from blossom_edge.transport.link import Link, LinkEvent, WillMaker
from blossom_edge.transport.mqtt import MqttLink

QUICK = Backoff(first_s=0.02, cap_s=0.1)
WAIT_S = 10.0


class Network(Protocol):
    """A broker, and what a test may do to the way there."""

    def link(self, client_id: str, *, will: WillMaker | None = None) -> Link: ...
    def cut(self, client_id: str) -> None: ...
    def restore(self, client_id: str) -> None: ...


class MqttNetwork:
    """Every link goes through a proxy of its own, so that each can be cut alone."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._links: list[MqttLink] = []
        self.proxies: dict[str, FaultProxy] = {}

    def link(self, client_id: str, *, will: WillMaker | None = None, **options: int) -> MqttLink:
        proxy = self.proxies[client_id] = FaultProxy(self._broker.port)
        link = MqttLink(Address("127.0.0.1", proxy.port), client_id=client_id, will=will, backoff=QUICK, **options)
        self._links.append(link)
        return link

    def cut(self, client_id: str) -> None:
        self.proxies[client_id].refuse()
        self.proxies[client_id].cut()

    def restore(self, client_id: str) -> None:
        self.proxies[client_id].accept()

    def close(self) -> None:
        for link in self._links:
            link.close()
        for proxy in self.proxies.values():
            proxy.close()


def next_event(link: Link, kind: type[LinkEvent] | None = None) -> LinkEvent:
    """The next event; with `kind` the next of that kind, what comes before is dropped."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        event = link.receive(deadline - time.monotonic())
        assert event is not None, f"no {kind.__name__ if kind else 'event'} came"
        if kind is None or isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__ if kind else 'event'} came")
