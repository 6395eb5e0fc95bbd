"""paho's six traps, each met on purpose with a real broker: what the link does instead."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live import until

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.testing.fault_proxy import FaultProxy
from blossom_edge.transport.address import Address
from blossom_edge.transport.backoff import Backoff
from blossom_edge.transport.link import Connected, Disconnected, LinkEvent, Message
from blossom_edge.transport.mqtt import MqttLink

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

CHUNK = bytes(96 * 1024)
MakeLink = Callable[..., MqttLink]
MakeProxy = Callable[..., FaultProxy]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("mosquitto", tmp_path_factory.mktemp("broker"), port=0) as running:
        yield running


@pytest.fixture
def make_proxy(broker: Broker) -> Iterator[MakeProxy]:
    proxies = []

    def make() -> FaultProxy:
        proxies.append(FaultProxy(broker.port))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def make_link(broker: Broker, make_proxy: MakeProxy) -> Iterator[MakeLink]:
    links: list[MqttLink] = []

    def make(client_id: str, *filters: str, proxy: FaultProxy | None = None, **options: object) -> MqttLink:
        address = Address("127.0.0.1", proxy.port if proxy else broker.port)
        link = MqttLink(address, client_id=client_id, backoff=Backoff(0.02, 0.1), **options)
        links.append(link)
        assert next_event(link, Connected) == Connected(1)
        for topic_filter in filters:
            link.subscribe(topic_filter)
        return link

    yield make
    for link in links:
        link.close()


def next_event(link: MqttLink, kind: type[LinkEvent]) -> LinkEvent:
    deadline = time.monotonic() + 10
    while (left := deadline - time.monotonic()) > 0:
        event = link.receive(left)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} came")


def test_trap_1_memory_stays_bounded_while_far_more_passes_than_is_kept(broker: Broker) -> None:
    program = """
import resource, sys, threading
from blossom_edge.testing.fault_proxy import FaultProxy
from blossom_edge.transport.address import Address
from blossom_edge.transport.malloc import tune_malloc
from blossom_edge.transport.mqtt import MqttLink

assert tune_malloc() or sys.platform != "linux"
address = Address("127.0.0.1", int(sys.argv[1]))
with MqttLink(address, client_id="from") as sender, MqttLink(address, client_id="to") as receiver:
    for link in (sender, receiver):
        link.receive(10)
    receiver.subscribe("memory")
    chunk = bytes(128 * 1024)
    def send(count):
        for _ in range(count):
            assert sender.publish("memory", chunk)
    def exchange(count):
        thread = threading.Thread(target=send, args=(count,))
        thread.start()
        for _ in range(count):
            assert len(receiver.receive(10).payload) == len(chunk)
        thread.join()
    exchange(40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exchange(800)  # 100 MiB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(broker.port)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert int(result.stdout) < 32 * 1024, "KiB more at the peak than after the first 5 MiB"


def test_trap_2_a_slow_network_carries_chunks_one_by_one_within_the_keepalive(
    make_link: MakeLink, make_proxy: MakeProxy
) -> None:
    # 96 KiB at 200 kB/s take 0.5 s. With four of them under way a ping would wait 2 s for its answer, and with a
    # keepalive of 1 s the connection would be cut and begun again, for ever.
    proxy = make_proxy()
    proxy.up.rate_bps = 1_600_000
    receiver = make_link("receiver", "slow")
    sender = make_link("sender", proxy=proxy, keepalive_s=1)
    num_connections = proxy.num_connections
    for _ in range(6):
        assert sender.publish("slow", CHUNK)
    for _ in range(6):
        assert len(next_event(receiver, Message).payload) == len(CHUNK)
    assert sender.receive(0) is None
    assert proxy.num_connections == num_connections


def test_trap_3_after_a_reconnect_nothing_is_sent_again_and_at_most_a_window_was_under_way(
    make_link: MakeLink, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy()
    receiver = make_link("receiver", "flood/#")
    sender = make_link("sender", proxy=proxy, window=16)
    for number in range(60):  # lets the window grow to its 16
        assert sender.publish("flood/grow", b"%d" % number)
    for _ in range(60):
        next_event(receiver, Message)
    assert sender.publish("flood/last", b"", qos=1)
    next_event(receiver, Message)
    until(lambda: sender._connection._window.in_flight == 0, "every acknowledgement has come", [])
    results: list[bool] = []

    def publish_until_refused() -> None:
        while not results or results[-1]:
            results.append(sender.publish("flood/held", b"%d" % len(results)))

    proxy.down.stall()  # the broker gets everything, its acknowledgements do not come back
    thread = threading.Thread(target=publish_until_refused)
    thread.start()
    held = [next_event(receiver, Message).payload for _ in range(16)]
    assert receiver.receive(0.3) is None, "more than the window is under way"
    proxy.down.resume()
    proxy.refuse()
    proxy.cut()
    thread.join(10)
    assert results[-1] is False
    proxy.accept()
    assert next_event(sender, Connected) == Connected(2)
    assert sender.publish("flood/end", b"")
    rest = []
    while (message := next_event(receiver, Message)).topic != "flood/end":
        rest.append(message.payload)
    # acknowledgements that came through before the cut let a few more through, none came twice
    assert held + rest == [b"%d" % number for number in range(len(held + rest))]


def test_trap_4_what_is_published_offline_returns_false_and_is_never_sent_later(
    make_link: MakeLink, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy()
    receiver = make_link("receiver", "offline")
    sender = make_link("sender", proxy=proxy)
    proxy.refuse()
    proxy.cut()
    next_event(sender, Disconnected)
    assert [sender.publish("offline", b"too early") for _ in range(5)] == [False] * 5
    proxy.accept()
    next_event(sender, Connected)
    assert sender.publish("offline", b"in time")
    assert next_event(receiver, Message).payload == b"in time"
    assert receiver.receive(0.2) is None


def test_trap_5_who_receives_may_publish_more_than_a_window_and_wait_for_it(make_link: MakeLink) -> None:
    link = make_link("echo", "question", "answer", window=4)
    assert link.publish("question", b"")
    next_event(link, Message)
    for number in range(50):  # in paho's on_message the fifth would wait for ever
        assert link.publish("answer", b"%d" % number)
    assert [next_event(link, Message).payload for _ in range(50)] == [b"%d" % number for number in range(50)]


def test_trap_5_a_receiver_that_raises_does_not_harm_the_link(make_link: MakeLink) -> None:
    link = make_link("raiser", "t")

    def receive_and_raise() -> None:
        raise ValueError(next_event(link, Message))

    for number in range(3):
        assert link.publish("t", b"%d" % number)
        with pytest.raises(ValueError, match=f"b'{number}'"):
            receive_and_raise()
    assert link.publish("t", b"fine")
    assert next_event(link, Message).payload == b"fine"


def test_trap_5_a_will_that_cannot_be_made_is_reported_and_the_next_attempt_is_made(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = []

    def will(connection: int) -> tuple[str, bytes]:
        attempts.append(connection)
        if len(attempts) == 1:
            raise RuntimeError("no will yet")
        return "t", b""

    with MqttLink(broker.address, client_id="w", will=will, backoff=Backoff(0.02, 0.1)) as link:
        assert link.receive(10) == Disconnected("internal error: no will yet")
        assert link.receive(10) == Connected(1)
    assert attempts == [1, 1]
    assert "internal error" in caplog.text


def test_trap_6_messages_are_acknowledged_though_nobody_receives_them_yet(make_link: MakeLink) -> None:
    receiver, sender = make_link("receiver", "t"), make_link("sender")
    for number in range(200):  # far more than the broker keeps under way to one client
        assert sender.publish("t", b"%d" % number)
    assert sender.publish("t", b"end")
    assert [next_event(receiver, Message).payload for _ in range(200)] == [b"%d" % number for number in range(200)]


def test_trap_6_what_is_not_received_is_bounded_and_dropping_is_counted(
    make_link: MakeLink, caplog: pytest.LogCaptureFixture
) -> None:
    receiver, sender = make_link("receiver", "t", inbox_bytes=1024 * 1024), make_link("sender")
    for _ in range(20):  # 1.9 MiB; 1 MiB holds ten of 96 KiB and 256 bytes each
        assert sender.publish("t", CHUNK)
    deadline = time.monotonic() + 10
    while receiver.num_dropped < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert receiver.num_dropped == 10
    for _ in range(10):
        next_event(receiver, Message)
    assert receiver.receive(0) is None
    assert "dropped" in caplog.text
    sender.publish("t", b"the link still stands")
    assert next_event(receiver, Message).payload == b"the link still stands"


def test_trap_6_arrays_and_views_are_sent_as_their_bytes(make_link: MakeLink) -> None:
    link = make_link("buffers", "t")
    array = np.arange(5, dtype="<f4")
    for payload in (memoryview(array), array, bytearray(array.tobytes())):
        assert link.publish("t", payload)
        assert next_event(link, Message).payload == array.tobytes()


def test_trap_6_more_than_1024_open_files_are_no_limit(make_link: MakeLink) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1300:
        pytest.skip("the system allows fewer than 1300 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    handles = []
    try:
        while not handles or handles[-1] < 1030:
            handles.append(os.open(os.devnull, os.O_RDONLY))
        link = make_link("many-files", "t")
        assert link.publish("t", b"x")
        assert next_event(link, Message).payload == b"x"
        link.close()
    finally:
        for handle in handles:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
