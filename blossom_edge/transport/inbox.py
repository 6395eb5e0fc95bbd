"""The queue between a link's thread and its caller: bounded in bytes, never blocks the one who puts."""

from __future__ import annotations

import logging
import threading
from collections import deque

from blossom_edge.transport.link import Disconnected, LinkEvent, Message

log = logging.getLogger(__name__)

EVENT_BYTES = 256
"""What an event costs beside its payload, roughly: bounds the number of small ones too."""


class Inbox:
    """Link events in order of arrival. A message that does not fit is dropped and counted, events of state never."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_dropped = 0
        self._events: deque[LinkEvent] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, event: LinkEvent) -> bool:
        """Add an event; False when it was a message and dropped. Repeated failures to connect count as one event."""
        with self._changed:
            size = _size(event)
            if isinstance(event, Message) and self._bytes + size > self.max_bytes:
                self.num_dropped += 1
                num_dropped = self.num_dropped
            else:
                if isinstance(event, Disconnected) and self._events and isinstance(self._events[-1], Disconnected):
                    self._events.pop()
                    self._bytes -= EVENT_BYTES
                self._events.append(event)
                self._bytes += size
                self._changed.notify()
                return True
        if num_dropped & (num_dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.warning(
                "inbox full (%d MiB): dropped %d messages so far; the receiver is too slow",
                self.max_bytes >> 20,
                num_dropped,
            )
        return False

    def get(self, timeout_s: float) -> LinkEvent | None:
        """The oldest event, waiting up to `timeout_s` for one."""
        with self._changed:
            if not self._events and timeout_s > 0:
                self._changed.wait_for(lambda: bool(self._events), timeout_s)
            if not self._events:
                return None
            event = self._events.popleft()
            self._bytes -= _size(event)
            return event

    def clear(self) -> None:
        """Drop everything."""
        with self._changed:
            self._events.clear()
            self._bytes = 0


def _size(event: LinkEvent) -> int:
    return EVENT_BYTES + (len(event.payload) if isinstance(event, Message) else 0)
