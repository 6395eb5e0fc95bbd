"""Ask a broker whether it speaks MQTT 5, before a CONNECT that an older one might not even read to its end.

amqtt reads a version 5 CONNECT with a will or a login as if it were 3.1.1, waits for bytes that never come and
answers nothing. One without anything it refuses at once, as it should.
"""

from __future__ import annotations

import contextlib
import socket

_EMPTY_CONNECT = bytes.fromhex("100d 0004 4d515454 05 02 000a 00 0000".replace(" ", ""))
"""CONNECT, version 5, clean start, keepalive 10 s, no properties, empty client id. Source: MQTT 5.0, 3.1."""
_DISCONNECT = b"\xe0\x00"
_CONNACK = 0x20
_UNSUPPORTED_VERSION = 0x84


def speaks_mqtt_5(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether the broker's answer is one of version 5: welcome or not does not matter.

    A CONNACK of 3.1.1 has two bytes after its length, one of 5 at least three. No answer means no.

    Raises:
        OSError: nobody is there.
    """
    with socket.create_connection((host, port), timeout_s) as sock, contextlib.suppress(OSError):
        sock.sendall(_EMPTY_CONNECT)
        answer = b""
        while len(answer) < 4:
            part = sock.recv(4 - len(answer))
            if not part:
                return False
            answer += part
        if answer[0] == _CONNACK and answer[1] > 2 and answer[3] != _UNSUPPORTED_VERSION:
            sock.sendall(_DISCONNECT)
            return True
        sock.recv(64)  # it closes first; were we faster, some brokers would log an error
    return False
