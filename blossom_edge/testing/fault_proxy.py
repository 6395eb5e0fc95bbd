"""A TCP proxy with faults, for the link between a device and its broker. Listens and connects on 127.0.0.1 only.

    with FaultProxy(broker_port) as proxy:
        ...                              # a device with --gateway 127.0.0.1:{proxy.port}
        proxy.up.latency_s = 0.2         # from the device to the broker; proxy.down is the other direction
        proxy.rate_bps = 50_000          # both directions, bits per second
        proxy.down.stall()               # nothing comes back; the connections stay
        proxy.down.swallow_acks = True   # what the device published is not acknowledged
        proxy.refuse()                   # new connections are reset until `accept`
        proxy.cut()                      # those that stand are reset now

Connections are forwarded as they are, so TLS passes too, though without the faults that read MQTT packets (`duplicate`,
`swallow_acks`). A fault begins with the next packet; nothing is kept for later when it ends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from types import TracebackType

from blossom_edge.testing.mqtt_packets import PacketFaults

_HOST = "127.0.0.1"
_CHUNK = 65536
_WAITING_BYTES, _WAITING_BYTES_SLOW = 1 << 20, 8192
"""Taken in before they are passed on; with a rate little, so that the sender notices it."""
_SLICE_S = 0.02
"""With a rate, what passes in so much time is sent at once."""
_TICK_S, _IDLE_TICK_S = 0.05, 0.5
"""How late an attribute that was set may hold; what comes meanwhile sees it at once."""


class Way:
    """One direction of all connections. Attributes may be set at any time and hold for what comes from then on.

    latency_s: each byte is so much later. rate_bps: bits per second of each connection, None: no limit.
    duplicate: each MQTT PUBLISH with a QoS above 0 comes twice. swallow_acks: no PUBACK, PUBREC and PUBCOMP comes.
    """

    def __init__(self, lock: threading.RLock, *, latency_s: float, rate_bps: float | None) -> None:
        self.latency_s = latency_s
        self.rate_bps = rate_bps
        self.duplicate = False
        self.swallow_acks = False
        self.num_bytes = 0
        """Passed on so far."""
        self.num_duplicated = 0
        self.num_swallowed = 0
        self._stalled = False
        self._lock = lock

    def stall(self) -> None:
        """Let nothing pass any more; what comes is kept. Nothing passes after the return."""
        with self._lock:
            self._stalled = True

    def resume(self) -> None:
        """Let pass what was kept, and what comes."""
        with self._lock:
            self._stalled = False

    @property
    def stalled(self) -> bool:
        """Whether nothing passes."""
        return self._stalled


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        self.source, self.sink, self.way = source, sink, way
        self.ended = False
        """The source sends no more."""
        self.done = False
        """And all of it was passed on."""
        self.blocked = False
        """The sink takes no more for now."""
        self._packets = PacketFaults()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._num_waiting = 0
        self._free_at = 0.0

    def wants(self) -> bool:
        limit = _WAITING_BYTES_SLOW if self.way.rate_bps else _WAITING_BYTES
        return not self.ended and self._num_waiting < limit

    def due(self) -> float | None:
        """When something may pass; None: there is nothing, or it is stalled."""
        if self._waiting and not self.way.stalled and not self.blocked:
            return max(self._waiting[0][0], self._free_at)
        return None

    def take(self, now: float) -> None:
        """Read what the source has. Raises OSError."""
        data = self.source.recv(_WAITING_BYTES_SLOW if self.way.rate_bps else _CHUNK)
        if not data:
            self.ended = True
            data = self._packets.rest()
        else:
            data = self._packets.pass_on(data, self.way)
        if data:
            self._waiting.append((now + self.way.latency_s, data))
            self._num_waiting += len(data)

    def give(self, now: float) -> None:
        """Pass on what is due. Raises OSError."""
        self.blocked = False
        while (due := self.due()) is not None and due <= now:
            moment, data = self._waiting.popleft()
            rate = self.way.rate_bps
            part = data[: max(1, int(rate / 8 * _SLICE_S))] if rate else data
            try:
                num_sent = self.sink.send(part)
            except BlockingIOError:
                num_sent = 0
            self.way.num_bytes += num_sent
            self._num_waiting -= num_sent
            if num_sent < len(data):
                self._waiting.appendleft((moment, data[num_sent:]))
            if rate:
                self._free_at = max(self._free_at, now) + num_sent * 8 / rate
            if num_sent < len(part):
                self.blocked = True
                return
        if self.ended and not self._waiting and not self.done:
            self.done = True
            self.sink.shutdown(socket.SHUT_WR)


class FaultProxy:
    """Forwards connections at 127.0.0.1:`port` to 127.0.0.1:`target_port`. One thread, which ends in `close`."""

    def __init__(self, target_port: int, *, latency_s: float = 0.0, rate_bps: float | None = None) -> None:
        self._lock = threading.RLock()
        self.target_port = target_port
        self.up = Way(self._lock, latency_s=latency_s, rate_bps=rate_bps)
        """From who connects to the target."""
        self.down = Way(self._lock, latency_s=latency_s, rate_bps=rate_bps)
        """From the target back."""
        self.num_connections = 0
        """Made so far."""
        self._refusing = self._closed = False
        self._pipes: dict[tuple[socket.socket, socket.socket], tuple[_Pipe, _Pipe]] = {}
        self._listener = socket.create_server((_HOST, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"fault proxy {self.port}", daemon=True)
        self._thread.start()

    @property
    def latency_s(self) -> float:
        """Of the slower direction; set: of both."""
        return max(self.up.latency_s, self.down.latency_s)

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self.up.latency_s = self.down.latency_s = seconds

    @property
    def rate_bps(self) -> float | None:
        """Bits per second of the slower direction; set: of both."""
        return min((way.rate_bps for way in (self.up, self.down) if way.rate_bps), default=None)

    @rate_bps.setter
    def rate_bps(self, rate: float | None) -> None:
        self.up.rate_bps = self.down.rate_bps = rate

    def stall(self) -> None:
        """Let nothing pass in either direction; connections stay, new ones are made."""
        self.up.stall()
        self.down.stall()

    def resume(self) -> None:
        """Let everything pass again, with what was kept."""
        self.up.resume()
        self.down.resume()
        self._wake()

    def cut(self) -> None:
        """Reset every connection, as a network does that lost its state. New ones are taken, unless `refuse`d."""
        with self._lock:
            for pair in list(self._pipes):
                self._drop(pair)
        self._wake()

    def refuse(self) -> None:
        """Reset new connections at once, until `accept`. The ones that stand are not touched."""
        with self._lock:
            self._refusing = True

    def accept(self) -> None:
        """Take new connections again."""
        with self._lock:
            self._refusing = False

    def close(self) -> None:
        """Reset all connections, end the thread, give the port back. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        self._thread.join(5)
        self.cut()
        for sock in (self._listener, self._wake_read, self._wake_write):
            sock.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_write.send(b"x")

    def _run(self) -> None:
        while not self._closed:
            ready = self._wait()
            with self._lock:
                if self._wake_read.fileno() in ready:
                    self._wake_read.recv(1024)
                if self._listener.fileno() in ready:
                    self._connect()
                for pair, pipes in list(self._pipes.items()):
                    self._carry(pair, pipes, ready)

    def _wait(self) -> set[int]:
        """Sockets that something can be done with; none when something is due to pass."""
        poll = select.poll()
        with self._lock:
            now = time.monotonic()
            until = now + (_TICK_S if self._pipes else _IDLE_TICK_S)
            events = {self._listener: select.POLLIN, self._wake_read: select.POLLIN}
            for pipe in (pipe for pipes in self._pipes.values() for pipe in pipes):
                if pipe.wants():
                    events[pipe.source] = events.get(pipe.source, 0) | select.POLLIN
                if pipe.blocked and not pipe.way.stalled:
                    events[pipe.sink] = events.get(pipe.sink, 0) | select.POLLOUT
                if (due := pipe.due()) is not None:
                    until = min(until, due)
            for sock, mask in events.items():
                poll.register(sock, mask)
        return {number for number, _ in poll.poll(max(0.0, until - now) * 1000)}

    def _connect(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if self._refusing:
            _reset(client)
            return
        if self.up.rate_bps:  # small buffers, else the kernel takes it all at once
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        try:
            server = socket.create_connection((_HOST, self.target_port), 5)
        except OSError:
            _reset(client)
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.num_connections += 1
        self._pipes[client, server] = (_Pipe(client, server, self.up), _Pipe(server, client, self.down))

    def _carry(self, pair: tuple[socket.socket, socket.socket], pipes: tuple[_Pipe, _Pipe], ready: set[int]) -> None:
        try:
            for pipe in pipes:
                if pipe.source.fileno() in ready and pipe.wants():
                    with contextlib.suppress(BlockingIOError):
                        pipe.take(time.monotonic())
                pipe.give(time.monotonic())
        except OSError:
            self._drop(pair)
            return
        if all(pipe.done for pipe in pipes):
            del self._pipes[pair]
            for sock in pair:
                sock.close()

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pipes.pop(pair, None)
        for sock in pair:
            _reset(sock)


def _reset(sock: socket.socket) -> None:
    """Close with RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
