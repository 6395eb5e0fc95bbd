"""MQTT packets in a stream of bytes, as far as faults need them: where each begins and ends, and of what kind it is.

The same in MQTT 3.1.1 and 5 (OASIS standards, section 2.1: fixed header of type, flags and remaining length). Reads
neither topics nor payloads.
"""

from __future__ import annotations

from typing import Protocol

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _PUBREC, _PUBCOMP, _AUTH = 1, 2, 3, 4, 5, 7, 15
_ACKS = (_PUBACK, _PUBREC, _PUBCOMP)
_DUP = 0x08
_MAX_HEADER = 5


class Faults(Protocol):
    """What is to be done with packets, read before each; and what was done, counted."""

    duplicate: bool
    swallow_acks: bool
    num_duplicated: int
    num_swallowed: int


class PacketFaults:
    """Passes one direction of one connection on, packet by packet. A stream that is not MQTT passes untouched."""

    def __init__(self) -> None:
        self._is_mqtt: bool | None = None
        self._held = bytearray()
        self._to_pass = 0

    def pass_on(self, data: bytes, faults: Faults) -> bytes:
        """What is to be sent on now. A packet is held back only until it is whole, and only when a fault needs that."""
        if self._is_mqtt is None:
            self._is_mqtt = data[0] >> 4 in (_CONNECT, _CONNACK, _AUTH) and data[0] & 0x0F == 0
        if not self._is_mqtt:
            return data
        self._held += data
        result = bytearray()
        while self._held:
            if self._to_pass:
                part = self._held[: self._to_pass]
                del self._held[: len(part)]
                self._to_pass -= len(part)
                result += part
                continue
            size = packet_size(self._held)
            if size == 0:
                break
            if size < 0:  # no MQTT after all
                self._is_mqtt = False
                result += self.rest()
                break
            kind, qos = self._held[0] >> 4, self._held[0] >> 1 & 3
            twice = faults.duplicate and kind == _PUBLISH and qos > 0
            never = faults.swallow_acks and kind in _ACKS
            if not (twice or never):
                self._to_pass = size
                continue
            if len(self._held) < size:
                break
            packet = self._held[:size]
            del self._held[:size]
            if never:
                faults.num_swallowed += 1
                continue
            faults.num_duplicated += 1
            result += packet
            packet[0] |= _DUP
            result += packet
        return bytes(result)

    def rest(self) -> bytes:
        """What is held back, at the end of the stream."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


def packet_size(data: bytes | bytearray) -> int:
    """Bytes of the packet that `data` begins with; 0 when its header is not whole yet, -1 when it is no header."""
    size = 0
    for place in range(1, _MAX_HEADER):
        if place >= len(data):
            return 0
        size |= (data[place] & 0x7F) << 7 * (place - 1)
        if not data[place] & 0x80:
            return place + 1 + size
    return -1
