"""Each fault of the proxy: on plain sockets where that is enough, else with a real mosquitto and the real paho."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
import pytest
from live import until

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.testing.fault_proxy import FaultProxy
from blossom_edge.testing.mqtt_packets import PacketFaults, packet_size


class Faults:
    """The attributes that packets are treated by."""

    def __init__(self, *, duplicate: bool = False, swallow_acks: bool = False) -> None:
        self.duplicate, self.swallow_acks = duplicate, swallow_acks
        self.num_duplicated = self.num_swallowed = 0


CONNECT = bytes([0x10, 0x10]) + b"\0\x04MQTT\x04\x02\0\x3c\0\x04name"
PUBLISH_0 = bytes([0x30, 0x05]) + b"\0\x01t" + b"hi"
PUBLISH_1 = bytes([0x32, 0x07]) + b"\0\x01t" + b"\0\x07" + b"hi"
PUBLISH_1_AGAIN = bytes([0x3A, 0x07]) + PUBLISH_1[2:]
PUBACK, PUBREC, PINGREQ = b"\x40\x02\0\x07", b"\x50\x02\0\x07", b"\xc0\0"


def passed(*parts: bytes, faults: Faults | None = None) -> bytes:
    packets = PacketFaults()
    return b"".join(packets.pass_on(part, faults or Faults()) for part in parts)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"\xc0\0", 2),
        (b"\x30\x7f", 129),
        (b"\x30\x80\x01", 131),  # 128 bytes after a header of three
        (b"\x30\xff\xff\xff\x7f", 268_435_460),
        (b"\x30", 0),
        (b"\x30\x80", 0),
        (b"\x30\x80\x80\x80\x80\x01", -1),
    ],
)
def test_the_size_of_a_packet_stands_in_its_header(data: bytes, size: int) -> None:
    assert packet_size(data) == size


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_packets_are_duplicated_wherever_the_stream_is_cut(step: int) -> None:
    stream = CONNECT + PUBLISH_0 + PUBLISH_1 + PUBACK + PINGREQ
    parts = [stream[i : i + step] for i in range(0, len(stream), step)]
    faults = Faults(duplicate=True)
    assert passed(*parts, faults=faults) == CONNECT + PUBLISH_0 + PUBLISH_1 + PUBLISH_1_AGAIN + PUBACK + PINGREQ
    assert faults.num_duplicated == 1


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_acknowledgements_are_swallowed_and_nothing_else(step: int) -> None:
    stream = CONNECT + PUBACK + PUBLISH_1 + PUBREC + PINGREQ
    faults = Faults(swallow_acks=True)
    parts = [stream[i : i + step] for i in range(0, len(stream), step)]
    assert passed(*parts, faults=faults) == CONNECT + PUBLISH_1 + PINGREQ
    assert faults.num_swallowed == 2


def test_a_packet_without_a_fault_is_passed_on_before_it_is_whole() -> None:
    packets = PacketFaults()
    large = bytes([0x32, 0xE8, 0x07]) + bytes(1000)  # 0x68 + 7 * 128 = 1000
    assert packets.pass_on(CONNECT + large[:100], Faults()) == CONNECT + large[:100]
    # the fault begins with the next packet, not in the middle of this one
    assert packets.pass_on(large[100:] + PUBLISH_1, Faults(duplicate=True)) == large[100:] + PUBLISH_1 + PUBLISH_1_AGAIN


@pytest.mark.parametrize("stream", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0", b"\x10\xff\xff\xff\xff\xff"])
def test_what_is_not_mqtt_passes_untouched(stream: bytes) -> None:
    faults = Faults(duplicate=True, swallow_acks=True)
    assert passed(*(bytes([b]) for b in stream), faults=faults) == stream
    assert passed(stream, faults=faults) == stream


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with FaultProxy(server.server_address[1]) as made:
                yield made
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Callable[[], socket.socket]]:
    made: list[socket.socket] = []

    def open_one() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", proxy.port), 5))
        return made[-1]

    yield open_one
    for sock in made:
        sock.close()


def exactly(sock: socket.socket, num_bytes: int) -> bytes:
    data = b""
    while len(data) < num_bytes:
        part = sock.recv(num_bytes - len(data))
        assert part, f"the end came after {len(data)} of {num_bytes} bytes"
        data += part
    return data


def is_silent(sock: socket.socket, seconds: float = 0.15) -> bool:
    sock.settimeout(seconds)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)


def test_bytes_pass_both_ways_and_are_counted(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB, more than all buffers
    sock = connect()
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    assert exactly(sock, len(data)) == data
    sender.join(5)
    # the proxy counts what it has sent, a moment after we have it
    until(lambda: (proxy.up.num_bytes, proxy.down.num_bytes) == (len(data), len(data)), "all bytes to be counted", [])
    assert proxy.num_connections == 1


def test_the_end_of_one_direction_lets_the_other_finish(connect: Callable[[], socket.socket]) -> None:
    sock = connect()
    sock.sendall(b"last words")
    sock.shutdown(socket.SHUT_WR)
    assert exactly(sock, 10) == b"last words"
    assert sock.recv(1) == b""


def test_latency_holds_in_each_direction(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    proxy.up.latency_s, proxy.down.latency_s = 0.2, 0.1
    assert proxy.latency_s == 0.2
    sock = connect()
    started = time.monotonic()
    sock.sendall(b"there and back")
    exactly(sock, 14)
    assert 0.3 <= time.monotonic() - started < 2


def test_latency_takes_no_bandwidth(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    proxy.latency_s = 0.1
    sock = connect()
    started = time.monotonic()
    for _ in range(20):  # each would take 0.2 s if the next waited for it
        sock.sendall(b"x" * 100)
        time.sleep(0.005)
    exactly(sock, 2000)
    assert time.monotonic() - started < 2


def test_a_rate_is_bits_per_second(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    proxy.up.rate_bps = 400_000  # 50 kB/s: 25 kB take 0.5 s
    assert proxy.rate_bps == 400_000
    sock = connect()
    started = time.monotonic()
    sock.sendall(bytes(25_000))
    exactly(sock, 25_000)
    assert 0.45 <= time.monotonic() - started < 3


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_nothing_passes_while_it_is_stalled_and_all_of_it_afterwards(
    proxy: FaultProxy, connect: Callable[[], socket.socket], direction: str
) -> None:
    sock = connect()
    sock.sendall(b"before")
    exactly(sock, 6)
    stalled = proxy if direction == "both" else getattr(proxy, direction)
    stalled.stall()
    sock.sendall(b"during")
    assert is_silent(sock)
    assert proxy.up.num_bytes == (12 if direction == "down" else 6)
    stalled.resume()
    assert exactly(sock, 6) == b"during"


def test_cut_resets_what_stands_and_lets_new_ones_in(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    old = connect()
    old.sendall(b"x")
    exactly(old, 1)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        old.recv(1)
    new = connect()
    new.sendall(b"x")
    assert exactly(new, 1) == b"x"


def test_refuse_resets_new_ones_and_leaves_what_stands(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    old = connect()
    old.sendall(b"x")
    exactly(old, 1)
    proxy.refuse()
    with pytest.raises(ConnectionError):
        connect().recv(1)
    old.sendall(b"y")
    assert exactly(old, 1) == b"y"
    proxy.accept()
    new = connect()
    new.sendall(b"z")
    assert exactly(new, 1) == b"z"


def test_a_target_that_is_not_there_looks_like_a_reset() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with FaultProxy(reserved.getsockname()[1]) as proxy:
            # the reset may come while it still connects
            with pytest.raises(ConnectionError), socket.create_connection(("127.0.0.1", proxy.port), 5) as sock:
                sock.recv(1)
            assert proxy.num_connections == 0


def test_close_ends_the_thread_and_gives_the_port_back(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    sock = connect()
    sock.sendall(b"x")
    exactly(sock, 1)
    proxy.close()
    proxy.close()
    assert not any("fault proxy" in thread.name for thread in threading.enumerate())
    with pytest.raises(ConnectionError):
        connect()


def test_it_waits_without_work(proxy: FaultProxy, connect: Callable[[], socket.socket]) -> None:
    sock = connect()
    proxy.down.stall()
    sock.sendall(bytes(100_000))
    until(lambda: proxy.up.num_bytes == 100_000, "the bytes to have gone up", [])
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with start_broker("mosquitto", tmp_path_factory.mktemp("broker"), port=0) as running:
        yield running


class Client:
    """The real paho, with a session that stands, and what it received."""

    def __init__(self, port: int, name: str, *, version: int = paho.MQTTv311) -> None:
        self.heard: list[tuple[bytes, bool]] = []
        self.times_connected = 0
        clean = {} if version == paho.MQTTv5 else {"clean_session": False}
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **clean)
        self.paho.on_message = lambda _c, _u, message: self.heard.append((message.payload, message.dup))
        self.paho.on_connect = self._connected
        self.paho.reconnect_delay_set(1, 1)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        until(lambda: self.times_connected == 1, "to be connected", [])

    def _connected(self, *_: object) -> None:
        self.times_connected += 1
        self.paho.subscribe(f"{self.paho._client_id.decode()}/in", 1)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(port: int, name: str, **options: int) -> Client:
        made.append(Client(port, name, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.broker
@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_a_duplicated_publish_arrives_twice_and_at_qos_2_once(
    broker: Broker, clients: Callable[..., Client], version: int
) -> None:
    with FaultProxy(broker.port) as proxy:
        listener = clients(broker.port, f"listener-{version}")
        sender = clients(proxy.port, f"sender-{version}", version=version)
        proxy.up.duplicate = True
        for qos in (0, 1, 2):
            sender.paho.publish(f"listener-{version}/in", b"%d" % qos, qos).wait_for_publish(5)
        proxy.up.duplicate = False
        sender.paho.publish(f"listener-{version}/in", b"end", 1).wait_for_publish(5)
        until(lambda: listener.heard and listener.heard[-1][0] == b"end", "all to have arrived", [])
        assert [payload for payload, _ in listener.heard] == [b"0", b"1", b"1", b"2", b"end"]
        assert proxy.up.num_duplicated == 2
        sender.close()


@pytest.mark.broker
def test_on_the_way_down_the_second_one_says_that_it_is_a_duplicate(
    broker: Broker, clients: Callable[..., Client]
) -> None:
    with FaultProxy(broker.port) as proxy:
        listener = clients(proxy.port, "below")
        proxy.down.duplicate = True
        clients(broker.port, "above").paho.publish("below/in", b"x", 1).wait_for_publish(5)
        until(lambda: len(listener.heard) == 2, "both", [])
        assert listener.heard == [(b"x", False), (b"x", True)]
        listener.close()


@pytest.mark.broker
def test_what_is_not_acknowledged_is_sent_again_after_a_reconnect(
    broker: Broker, clients: Callable[..., Client]
) -> None:
    with FaultProxy(broker.port) as proxy:
        listener, sender = clients(broker.port, "ear"), clients(proxy.port, "mouth")
        proxy.down.swallow_acks = True
        sent = sender.paho.publish("ear/in", b"once", 1)
        until(lambda: len(listener.heard) == 1, "the first one", [])
        until(lambda: proxy.down.num_swallowed == 1, "the acknowledgement to be swallowed", [])
        assert not sent.is_published()
        proxy.down.swallow_acks = False
        proxy.cut()
        sent.wait_for_publish(10)
        until(lambda: len(listener.heard) == 2, "it again", [])
        assert sender.times_connected == 2
        assert [payload for payload, _ in listener.heard] == [b"once", b"once"]
        sender.close()
