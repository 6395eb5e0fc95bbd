"""A small TCP proxy for tests: cut connections, hold bytes back, carry them slowly. Every state is set by a call."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time


class TcpProxy:
    """Forwards connections at 127.0.0.1:`port` to `target_port`."""

    def __init__(self, target_port: int, *, bytes_per_s: int | None = None) -> None:
        self.target_port = target_port
        self.bytes_per_s = bytes_per_s
        self.num_connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.open = True
        self._hold = False
        self._holding = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stop = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Reset every connection and refuse new ones until `restore`."""
        self.open = False
        self.reset()

    def restore(self) -> None:
        self.open = True

    def hold_answers(self) -> None:
        """Keep back what the target sends; nothing of it passes after the return."""
        self._holding.clear()
        self._hold = True
        assert self._holding.wait(5)

    def let_answers_through(self) -> None:
        self._hold = False

    def reset(self) -> None:
        """Reset every connection, as a network does that lost its state; new ones are taken."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for sock in pair:
                _reset(sock)

    def close(self) -> None:
        self._stop = True
        self.reset()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop:
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            if not self.open:
                _reset(client)
                continue
            if self.bytes_per_s:  # small buffers, else the kernel takes it all at once
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), 5)
            except OSError:
                _reset(client)
                continue
            self.num_connections += 1
            with self._lock:
                self._pairs.add((client, server))
            for source, sink, is_up in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._pump, args=(source, sink, is_up), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._stop:
                if self._hold and not is_up:
                    self._holding.set()
                    time.sleep(0.01)
                    continue
                if not select.select([source], [], [], 0.05)[0]:
                    continue
                rate = self.bytes_per_s if is_up else None
                data = source.recv(8192 if rate else 65536)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    break
                if rate:
                    time.sleep(len(data) / rate)
                sink.sendall(data)
                if is_up:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
            else:
                return
            if not is_up:
                source.close()
                sink.close()


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
