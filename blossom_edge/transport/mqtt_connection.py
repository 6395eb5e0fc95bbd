"""One connection to a broker, from CONNECT to its end: one paho client, used once, in one thread.

A fresh client for every connection is the point: paho sends its queue again after a reconnect, all at once,
and an oversized message for ever. Here nothing outlives the connection, and only the thread in `run` touches
paho; its callbacks note what happened and return. paho is driven as its documentation says for an event loop
of one's own (`loop_read`, `loop_write`, `loop_misc`).
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from blossom_edge.transport import topics
from blossom_edge.transport.inbox import Inbox
from blossom_edge.transport.link import Connected, Message, check_size
from blossom_edge.transport.mqtt_ending import Ending, refused, unreachable
from blossom_edge.transport.window import SendWindow

log = logging.getLogger(__name__)

MQTT_5 = MQTTProtocolVersion.MQTTv5
MQTT_311 = MQTTProtocolVersion.MQTTv311

CONNECT_TIMEOUT_S = 5.0
GOODBYE_TIMEOUT_S = 2.0
TICK_S = 0.5
PACKET_ROOM_BYTES = 1024
"""What an MQTT packet needs beside our payload: header, topic, properties."""
MAX_FILTERS_PER_SUBSCRIBE = 8
"""AWS IoT takes no more."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a connection needs to know; the same for every connection of a link."""

    host: str
    port: int
    client_id: str
    username: str
    password: str
    keepalive_s: int
    window: int
    max_payload_bytes: int


@dataclass(frozen=True, slots=True)
class _Outgoing:
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connection:
    """One use of one paho client. `run` belongs to the link's thread, the rest to its caller's."""

    def __init__(
        self,
        options: Options,
        *,
        number: int,
        version: MQTTProtocolVersion,
        will: tuple[str, bytes] | None,
        filters: Sequence[str],
        inbox: Inbox,
    ) -> None:
        self.number = number
        self.version = version
        self.num_refused = 0
        self._options = options
        self._where = f"{options.host}:{options.port}"
        self._inbox = inbox
        self._changed = threading.Condition()
        # shared with the caller, under _changed
        self._over = False
        self._stopping = False
        self._filters = list(filters)
        self._subscribed: set[str] = set()
        self._outbox: deque[_Outgoing] = deque()  # bounded by the window
        self._window = SendWindow(options.window, keepalive_s=options.keepalive_s)
        self._max_payload_bytes = options.max_payload_bytes
        # of the link's thread alone
        self._asked: set[str] = set()
        self._subacks_due: dict[int, list[str]] = {}
        self._early: list[Message] = []
        self._answered = False
        self._accepted = False
        self._announced = False
        self._refusal: ReasonCode | None = None
        self._end_reason = ""
        self._stopping_since = 0.0
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._client = self._make_client(will)

    # called by the caller of the link

    def send(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> bool:
        """Hand over one message once the window has room; False when the connection is not up or ends meanwhile."""
        check_size(topic, payload, self._max_payload_bytes)
        if not self._window.acquire():
            return False
        self._outbox.append(_Outgoing(topic, payload, qos, retain))
        self._wake()
        return True

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and wait until the broker has answered or the connection is over."""
        with self._changed:
            if topic_filter not in self._filters:
                self._filters.append(topic_filter)
        self._wake()
        with self._changed:
            self._changed.wait_for(lambda: self._over or not self._accepted or topic_filter in self._subscribed)

    def stop(self) -> None:
        """End it with DISCONNECT, after what was handed over; `run` returns soon."""
        with self._changed:
            self._stopping = True
        self._window.close()
        self._wake()

    # called by the link's thread

    def run(self) -> Ending:
        """Connect, serve, and return when it is over; what was not delivered is forgotten."""
        try:
            return self._run()
        finally:
            self._window.close()
            with self._changed:
                self._over = True
                self._changed.notify_all()
                self._wake_in.close()
                self._wake_out.close()

    def _run(self) -> Ending:
        options = self._options
        v5: dict[str, Any] = {}
        if self.version == MQTT_5:
            limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            limits.MaximumPacketSize = options.max_payload_bytes + PACKET_ROOM_BYTES
            v5 = {"clean_start": True, "properties": limits}
        try:
            self._client.connect(options.host, options.port, options.keepalive_s, **v5)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
            return unreachable(self._where, error)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_in, selectors.EVENT_READ)
            while not self._may_go() and self._step(selector):
                if not self._answered and time.monotonic() > deadline:
                    self._break(f"no answer to CONNECT within {CONNECT_TIMEOUT_S:g} s")
                self._check_overdue()
            if self._stopping:
                self._say_goodbye()
        return self._ending("connection lost")

    def _step(self, selector: selectors.BaseSelector) -> bool:
        """Wait for something to do and do it; False when paho has closed its socket."""
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            return False
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)
        if sock not in selector.get_map():
            selector.register(sock, wanted)
        elif selector.get_key(sock).events != wanted:
            selector.modify(sock, wanted)
        readable = False
        for key, mask in selector.select(TICK_S):
            if key.fileobj is self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
            elif mask & selectors.EVENT_READ:
                readable = True
        if readable:
            self._client.loop_read()
        self._ask_for_filters()
        self._publish_outbox()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()
        return self._client.socket() is not None

    def _ask_for_filters(self) -> None:
        if not self._accepted:
            return
        with self._changed:
            new = [topic_filter for topic_filter in self._filters if topic_filter not in self._asked]
        for start in range(0, len(new), MAX_FILTERS_PER_SUBSCRIBE):
            some = new[start : start + MAX_FILTERS_PER_SUBSCRIBE]
            result, mid = self._client.subscribe([(topic_filter, 1) for topic_filter in some])
            if result != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
                return
            self._asked.update(some)
            self._subacks_due[mid] = some
        if not self._subacks_due:
            self._announce()

    def _announce(self) -> None:
        if self._announced:
            return
        self._announced = True
        with self._changed:
            if not self._stopping:
                self._window.open()
        self._inbox.put(Connected(self.number))
        for message in self._early:
            self._inbox.put(message)
        self._early.clear()

    def _publish_outbox(self) -> None:
        while self._outbox:
            out = self._outbox.popleft()
            info = self._client.publish(out.topic, out.payload, qos=out.qos, retain=out.retain)
            if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._window.sent(info.mid, out.topic, time.monotonic())

    def _check_overdue(self) -> None:
        """A broker that answers pings but never acknowledges must not block the caller for ever."""
        if self._window.oldest_s(time.monotonic()) > 2 * self._options.keepalive_s:
            self._break(f"no acknowledgement for {2 * self._options.keepalive_s} s")

    def _break(self, reason: str) -> None:
        self._end_reason = self._end_reason or reason
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the next read finds the end

    def _may_go(self) -> bool:
        """Whether we were asked to stop and all is acknowledged, or that took too long.

        amqtt drops what it has not passed on yet when a DISCONNECT follows at once.
        """
        if not self._stopping:
            return False
        self._stopping_since = self._stopping_since or time.monotonic()
        waited_s = time.monotonic() - self._stopping_since
        return not self._accepted or not self._window.in_flight or waited_s > GOODBYE_TIMEOUT_S / 2

    def _say_goodbye(self) -> None:
        """Send DISCONNECT, and read to the end.

        Closing on unread data would reset the connection; the broker might miss the DISCONNECT and send the will.
        """
        deadline = time.monotonic() + GOODBYE_TIMEOUT_S
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            return
        with sock.dup() as kept, selectors.DefaultSelector() as selector:
            selector.register(kept, selectors.EVENT_WRITE)
            self._client.disconnect()
            while (left := deadline - time.monotonic()) > 0 and self._client.want_write():
                if self._client.socket() is None:
                    break
                if selector.select(left):
                    self._client.loop_write()
            if self._client.socket() is not None:
                self._break("goodbye not sent in time")
                self._client.loop_read()
                return
            kept.setblocking(True)
            with contextlib.suppress(OSError):
                while (left := deadline - time.monotonic()) > 0:
                    kept.settimeout(left)
                    if not kept.recv(65536):
                        break

    def _ending(self, reason: str) -> Ending:
        if self._refusal is not None:
            return refused(self._where, self._refusal)
        reason = self._end_reason or reason
        if self._accepted:
            return Ending(reason, "", accepted=True)
        return Ending(f"{self._where}: {reason} before the broker answered", "gateway-unreachable")

    def _wake(self) -> None:
        with self._changed:
            if not self._over:
                with contextlib.suppress(BlockingIOError):  # full: it is awake already
                    self._wake_out.send(b"\0")

    # paho's callbacks: they note and return; all run inside run()

    def _make_client(self, will: tuple[str, bytes] | None) -> paho.Client:
        options = self._options
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            clean_session=None if self.version == MQTT_5 else True,
            protocol=self.version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        if options.username:
            client.username_pw_set(options.username, options.password or None)
        if will is not None:
            client.will_set(*will, qos=1)
        client.on_socket_open = self._on_socket_open
        client.on_socket_register_write = _on_socket_register_write
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    def _on_socket_open(self, client: paho.Client, userdata: object, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a half-open connection shows while data are under way
            timeout_ms = 1000 * max(5, self._options.keepalive_s // 2)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def _on_connect(
        self, client: paho.Client, userdata: object, flags: object, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._answered = True
        if code.is_failure:
            self._refusal = code
            return
        self._window.reduce(getattr(properties, "ReceiveMaximum", 65535))
        with self._changed:
            self._accepted = True
            limit = getattr(properties, "MaximumPacketSize", None)
            if limit is not None:
                self._max_payload_bytes = min(self._max_payload_bytes, max(0, limit - PACKET_ROOM_BYTES))

    def _on_subscribe(
        self, client: paho.Client, userdata: object, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        some = self._subacks_due.pop(mid, [])
        for topic_filter, code in zip(some, codes, strict=False):
            if code.is_failure:
                log.warning("subscription to %s refused by the broker: %s", topic_filter, code)
        with self._changed:
            self._subscribed.update(some)
            self._changed.notify_all()

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("message dropped: its topic is no UTF-8")
            return
        if not any(topics.matches(topic_filter, topic) for topic_filter in self._asked):
            return  # amqtt sends a new client what is retained for others
        if len(message.payload) > self._options.max_payload_bytes:
            log.warning("message of %d bytes on %s dropped: too large", len(message.payload), topic)
            return
        event = Message(topic, bytes(message.payload), bool(message.retain))
        if self._announced:
            self._inbox.put(event)
        else:
            self._early.append(event)  # `Connected` comes first

    def _on_publish(
        self, client: paho.Client, userdata: object, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        """Acknowledged (QoS 1) or written (QoS 0)."""
        topic = self._window.acknowledged(mid, time.monotonic())
        if code.is_failure:
            self.num_refused += 1
            log.warning("message on %s refused by the broker: %s", topic, code)

    def _on_disconnect(
        self, client: paho.Client, userdata: object, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        if not self._end_reason:
            said = "the broker ended the connection" if flags.is_disconnect_packet_from_server else "connection lost"
            self._end_reason = f"{said}: {str(code).lower()}"


def _on_socket_register_write(client: paho.Client, userdata: object, sock: object) -> None:
    """Its presence keeps paho from writing inside `publish`; the loop asks `want_write` each time round."""
