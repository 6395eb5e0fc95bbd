"""Who is behind an address: only what answers as an MQTT broker is called one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from blossom_edge.client import discovery
from blossom_edge.core.errors import LinkError
from blossom_edge.transport.address import Address
from blossom_edge.transport.link import Connected, Disconnected, LinkEvent, Message


class Silent(BaseHTTPRequestHandler):
    """A server of web pages, without its log."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Scripted:
    """A link whose events are given; after the last one nothing comes."""

    def __init__(self, *events: LinkEvent) -> None:
        self._events = list(events)

    def subscribe(self, topic_filter: str) -> None:
        """Nothing to do."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        return False

    def receive(self, timeout_s: float) -> LinkEvent | None:
        return self._events.pop(0) if self._events else None

    def close(self) -> None:
        """Nothing to do."""


@pytest.fixture
def web() -> Iterator[int]:
    """A web server's port."""
    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def listen(*events: LinkEvent) -> LinkError:
    with pytest.raises(LinkError) as caught:
        discovery._listen(Scripted(*events), Address.parse("gateway.local:1883"), name=None, patience_s=0.05)
    return caught.value


def test_a_web_server_is_no_broker(web: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blossom_edge.transport.mqtt.CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(LinkError) as caught:
        discovery.find_federation(Address.parse(f"127.0.0.1:{web}"), name=None, patience_s=0.5)
    assert caught.value.error_id == "gateway-unreachable"
    assert "no aggregator" not in str(caught.value)


def test_a_port_that_takes_connections_and_says_nothing_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blossom_edge.transport.mqtt.CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address.parse(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(LinkError, match=r"no MQTT broker answers there within 0\.5 s") as caught:
            discovery.find_federation(address, name=None, patience_s=0.5)
    assert caught.value.error_id == "gateway-unreachable"


def test_a_broker_that_let_us_in_has_no_aggregator() -> None:
    error = listen(Connected(1))
    assert (error.error_id, str(error)) == (
        "gateway-silent",
        "a broker answers at gateway.local:1883, but no aggregator",
    )


def test_a_failure_of_before_the_connection_is_no_reason_any_more() -> None:
    assert listen(Disconnected("refused", "gateway-unreachable"), Connected(1)).error_id == "gateway-silent"


def test_a_broker_that_went_away_is_not_reachable() -> None:
    error = listen(Connected(1), Message("bl/1/x/up/y/z", b""), Disconnected("connection reset"))
    assert error.error_id == "gateway-unreachable"
    assert "connection reset" in str(error)
