"""A `Link` over MQTT: keeps itself connected in a thread of its own, so that training in the caller's disturbs nothing.

MQTT 5 is preferred, for its reason codes; a broker that does not speak it is spoken to in 3.1.1 from then on. Sessions
are always clean: what was not delivered when a connection broke is said again by the layer above.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from blossom_edge.transport.address import Address
from blossom_edge.transport.backoff import Backoff
from blossom_edge.transport.inbox import Inbox
from blossom_edge.transport.link import MAX_PAYLOAD_BYTES, Disconnected, LinkEvent, WillMaker, check_size
from blossom_edge.transport.mqtt_connection import (
    CONNECT_TIMEOUT_S,
    GOODBYE_TIMEOUT_S,
    MQTT_5,
    MQTT_311,
    Connection,
    Options,
)
from blossom_edge.transport.mqtt_ending import Ending, unreachable
from blossom_edge.transport.mqtt_version import speaks_mqtt_5

log = logging.getLogger(__name__)

INBOX_BYTES = 64 * 1024 * 1024


class MqttLink:
    """A `Link` to the broker at `address`; connects at once, in its own thread, and again after each break.

    `username` and `password` take the place of those in the address. `will(connection)` is asked before each attempt
    for the message that the broker sends should that connection break. At most `window` messages are under way at a
    time, fewer when acknowledgements are slow. Messages that are not received pile up to `inbox_bytes`, then drop.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        will: WillMaker | None = None,
        username: str = "",
        password: str = "",
        keepalive_s: int = 30,
        window: int = 16,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        backoff: Backoff | None = None,
        inbox_bytes: int = INBOX_BYTES,
    ) -> None:
        self.address = address
        self._options = Options(
            host=address.host,
            port=address.port,
            client_id=client_id,
            username=username or address.username,
            password=password or address.password,
            keepalive_s=keepalive_s,
            window=window,
            max_payload_bytes=max_payload_bytes,
        )
        self._make_will = will
        self._backoff = backoff or Backoff()
        self._inbox = Inbox(inbox_bytes)
        self._lock = threading.Lock()
        self._filters: list[str] = []
        self._connection: Connection | None = None
        self._num_connections = 0
        self._num_refused = 0
        self._version = MQTT_5
        self._version_known = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_connected, name=f"link-{client_id}", daemon=True)
        self._thread.start()

    @property
    def protocol(self) -> str:
        """`5` or `3.1.1`: what is spoken with this broker; 5 until it has answered."""
        return "5" if self._version == MQTT_5 else "3.1.1"

    @property
    def num_refused(self) -> int:
        """Messages that the broker refused with a reason code; 3.1.1 has none, so there it stays 0."""
        with self._lock:
            current = self._connection.num_refused if self._connection else 0
            return self._num_refused + current

    @property
    def num_dropped(self) -> int:
        """Messages received and dropped because nobody took them in time."""
        return self._inbox.num_dropped

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """See `Link.publish`. `payload` may be any buffer; it is copied."""
        payload = bytes(payload)
        check_size(topic, payload, self._options.max_payload_bytes)
        connection = self._connection
        if connection is None or self._closing.is_set():
            return False
        return connection.send(topic, payload, qos=qos, retain=retain)

    def subscribe(self, topic_filter: str) -> None:
        """See `Link.subscribe`; waits for the broker's answer when the link is up. A second time does nothing."""
        with self._lock:
            if topic_filter in self._filters:
                return
            self._filters.append(topic_filter)
            connection = self._connection
        if connection is not None:
            connection.subscribe(topic_filter)

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """See `Link.receive`; `Connected` comes before the first message of its connection."""
        return self._inbox.get(timeout_s)

    def close(self) -> None:
        """See `Link.close`; what was handed over before is still sent, what was not received is dropped."""
        self._closing.set()
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.stop()
        self._thread.join(CONNECT_TIMEOUT_S + GOODBYE_TIMEOUT_S)
        self._inbox.clear()

    def __enter__(self) -> MqttLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_connected(self) -> None:
        failures = 0
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                ending = self._connect_once()
            except Exception as error:  # the thread's outermost loop: without it the link would die unheard
                log.exception("internal error in the link to %s", self.address)
                ending = Ending(f"internal error: {error}", "")
            if self._closing.is_set():
                return
            if ending.version_refused:
                self._version_known = False  # another broker than before: ask again
            self._inbox.put(Disconnected(ending.reason, ending.error_id))
            stood = ending.accepted and time.monotonic() - started > self._backoff.cap_s
            failures = 1 if stood else failures + 1
            self._closing.wait(self._backoff.delay_s(failures))

    def _connect_once(self) -> Ending:
        if not self._version_known:
            try:
                v5 = speaks_mqtt_5(self.address.host, self.address.port, timeout_s=CONNECT_TIMEOUT_S)
            except (OSError, UnicodeError) as error:
                return unreachable(str(self.address), error)
            self._version = MQTT_5 if v5 else MQTT_311
        number = self._num_connections + 1
        will = self._make_will(number) if self._make_will else None
        with self._lock:
            connection = Connection(
                self._options,
                number=number,
                version=self._version,
                will=will,
                filters=self._filters,
                inbox=self._inbox,
            )
            self._connection = connection
        if self._closing.is_set():
            connection.stop()
        try:
            ending = connection.run()
        finally:
            with self._lock:
                self._connection = None
                self._num_refused += connection.num_refused
        if ending.accepted:
            self._num_connections = number
            self._version_known = True
        return ending
