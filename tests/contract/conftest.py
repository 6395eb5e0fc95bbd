"""Networks for the contract of `Link`: the same tests run over loopback, amqtt and mosquitto."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tcp_proxy import TcpProxy

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.transport.address import Address
from blossom_edge.transport.backoff import Backoff
from blossom_edge.transport.link import Link, LinkEvent, WillMaker
from blossom_edge.transport.loopback import LoopbackBroker
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
        self.proxies: dict[str, TcpProxy] = {}

    def link(self, client_id: str, *, will: WillMaker | None = None, **options: int) -> MqttLink:
        proxy = self.proxies[client_id] = TcpProxy(self._broker.port)
        link = MqttLink(Address("127.0.0.1", proxy.port), client_id=client_id, will=will, backoff=QUICK, **options)
        self._links.append(link)
        return link

    def cut(self, client_id: str) -> None:
        self.proxies[client_id].cut()

    def restore(self, client_id: str) -> None:
        self.proxies[client_id].restore()

    def close(self) -> None:
        for link in self._links:
            link.close()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Broker]]:
    """Started when first asked for, stopped at the end of the session."""
    started: dict[str, Broker] = {}
    yield started
    for broker in started.values():
        broker.stop()


@pytest.fixture(
    params=[
        "loopback",
        pytest.param("mosquitto", marks=pytest.mark.broker),
        pytest.param(
            "amqtt", marks=[pytest.mark.broker, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]
        ),
    ]
)
def network(request: pytest.FixtureRequest, brokers: dict[str, Broker], tmp_path_factory: pytest.TempPathFactory):
    kind = request.param
    if kind == "loopback":
        yield LoopbackBroker()
        return
    mqtt = MqttNetwork(broker_of_kind(kind, brokers, tmp_path_factory.mktemp(kind)))
    yield mqtt
    mqtt.close()
    if kind == "amqtt":  # it forgets to close the sockets of connections that were reset; not in somebody else's test
        gc.collect()


@pytest.fixture
def mosquitto_network(brokers: dict[str, Broker], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttNetwork]:
    mqtt = MqttNetwork(broker_of_kind("mosquitto", brokers, tmp_path_factory.mktemp("mosquitto")))
    yield mqtt
    mqtt.close()


def broker_of_kind(kind: str, brokers: dict[str, Broker], folder: Path) -> Broker:
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if kind == "amqtt":
        pytest.importorskip("amqtt")
    if kind not in brokers:
        brokers[kind] = start_broker(kind, folder, port=0)
    return brokers[kind]


def next_event(link: Link, kind: type[LinkEvent] | None = None) -> LinkEvent:
    """The next event; with `kind` the next of that kind, what comes before is dropped."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        event = link.receive(deadline - time.monotonic())
        assert event is not None, f"no {kind.__name__ if kind else 'event'} came"
        if kind is None or isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__ if kind else 'event'} came")
