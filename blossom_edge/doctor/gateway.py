"""The way to the gateway: what its broker takes is proved by sending, not by what it says of itself."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from blossom_edge.client.discovery import find_federation
from blossom_edge.client.fit import check_fit
from blossom_edge.client.store import known_federation
from blossom_edge.core.errors import ConfigError, LinkError
from blossom_edge.doctor.finding import Finding, Status
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.transport import topics
from blossom_edge.transport.address import Address
from firmware_profiles.schema import Profile

PAYLOAD_BYTES = 96 * 1024 + 4096
"""The largest message of ours: a chunk of 96 KiB and its header."""
SIZES = (1024, 16 * 1024, 64 * 1024, PAYLOAD_BYTES)
ANSWER_S = 5.0
WILL_S = 3.0
PROBE = "probe"


def check_gateway(
    profile: Profile, address: Address, *, federation: str | None, device_folder: Path, patience_s: float
) -> Iterator[Finding]:
    """Reach the gateway, send what a device sends, and hold the federation against the profile."""
    try:
        name = find_federation(address, name=federation, patience_s=patience_s)
    except LinkError as error:
        yield _finding("reach", "fail", str(error), error.hint or "is `blossom-aggregator serve` running there?")
        return
    yield _finding("reach", "ok", f"federation {name} at {address}")
    device = f"doctor-{uuid.uuid4().hex[:8]}"
    try:
        with _Client(address, device) as client:
            yield _size(client, topics.up(name, device, PROBE))
        yield _will(address, name, device)
    except LinkError as error:
        yield _finding("broker", "fail", str(error), error.hint)
    yield _fit(profile, name, device_folder)


def _finding(check: str, status: Status, detail: str, fix: str = "") -> Finding:
    return Finding("gateway", check, status, detail, fix)


def _size(client: _Client, topic: str) -> Finding:
    """The broker acknowledges a message of the largest size at QoS 1; else the largest that it did take."""
    taken = 0
    for size in SIZES:
        if not client.deliver(topic, b"\0" * size):
            break
        taken = size
    if taken == PAYLOAD_BYTES:
        return _finding("packet size", "ok", f"QoS 1 of {PAYLOAD_BYTES:,} bytes is acknowledged")
    fix = f"raise the broker's limit to {PAYLOAD_BYTES + 1024:,} bytes (mosquitto: max_packet_size)"
    return _finding("packet size", "fail", f"{taken:,} bytes are acknowledged, {PAYLOAD_BYTES:,} are not", fix)


def _will(address: Address, federation: str, device: str) -> Finding:
    """A client that vanishes leaves its will, seen by another one."""
    topic = topics.up(federation, device, PROBE)
    with _Client(address, f"{device}-ear") as ear:
        if not ear.subscribe(topic):
            return _finding("will", "skip", "this login may not read what goes up, so nobody here can see it")
        mouth = _Client(address, f"{device}-will", will=topic)
        if not mouth.deliver(topic, b"here"):
            mouth.close()
            return _finding("will", "fail", "a message is not acknowledged", "see the broker's log")
        if not ear.hears(b"here", ANSWER_S):
            mouth.close()
            return _finding("will", "skip", "this login may not read what goes up, so nobody here can see it")
        mouth.vanish()
        heard = ear.hears(b"gone", WILL_S)
    if heard:
        return _finding("will", "ok", "the broker tells when a device's connection breaks")
    fix = "rounds wait for a device that is gone until their deadline; see the broker's settings for wills"
    return _finding("will", "fail", f"no will within {WILL_S:g} s of a broken connection", fix)


def _fit(profile: Profile, name: str, device_folder: Path) -> Finding:
    known: Federation | None = known_federation(device_folder, name)
    source = "as this device joined it last"
    if known is None:
        try:
            known, source = load_federation(name), "as it is shipped; the gateway may have changed it"
        except ConfigError:
            return _finding("federation", "skip", f"{name} is not known here yet", "join once: it is checked there")
    try:
        owned = check_fit(profile, known)
    except ConfigError as error:
        return _finding("federation", "fail", str(error), error.hint)
    fits = f"{name} takes {', '.join(owned)} ({source})"
    if (role := profile.compute.role) != "train":
        why = f"{fits}, but role {role} takes no part in rounds yet"
        return _finding("federation", "warn", why, "where torch fits: --set compute.role=train")
    return _finding("federation", "ok", fits)


class _Client:
    """A bare MQTT client that knows what was acknowledged."""

    def __init__(self, address: Address, client_id: str, *, will: str | None = None) -> None:
        self._heard: queue.Queue[bytes] = queue.Queue()
        self._connected: queue.Queue[str] = queue.Queue()
        self._granted: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
        if address.username is not None:
            self._client.username_pw_set(address.username, address.password)
        if will is not None:
            self._client.will_set(will, b"gone", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        try:
            self._client.connect(address.host, address.port, keepalive=30)
        except OSError as error:
            raise LinkError("gateway-unreachable", f"{address}: {error}") from error
        self._client.loop_start()
        try:
            refused = self._connected.get(timeout=ANSWER_S)
        except queue.Empty:
            refused = f"no answer within {ANSWER_S:g} s"
        if refused:
            self.close()
            raise LinkError("gateway-unreachable", f"{address}: {refused}")

    def deliver(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 1; whether the broker acknowledged it on this connection."""
        if not self._client.is_connected():
            return False
        sent = self._client.publish(topic, payload, qos=1)
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end and self._client.is_connected():
            try:
                sent.wait_for_publish(0.05)
            except (RuntimeError, ValueError):
                return False
            if sent.is_published():
                return True
        return False

    def subscribe(self, topic: str) -> bool:
        """Whether the broker grants it."""
        self._client.subscribe(topic, qos=1)
        try:
            return self._granted.get(timeout=ANSWER_S)
        except queue.Empty:
            return False

    def hears(self, payload: bytes, timeout_s: float) -> bool:
        """Whether a message of this content comes in time."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                if self._heard.get(timeout=left) == payload:
                    return True
            except queue.Empty:
                return False
        return False

    def vanish(self) -> None:
        """Break the connection without a word."""
        link = self._client.socket()
        self._client.loop_stop()
        if isinstance(link, socket.socket):
            with contextlib.suppress(OSError):  # the broker was quicker
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._connected.put(str(reason) if reason.is_failure else "")

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        self._heard.put(bytes(message.payload))

    def _on_subscribe(self, client: Any, data: Any, number: Any, reasons: Any, properties: Any) -> None:
        self._granted.put(not any(reason.is_failure for reason in reasons))
