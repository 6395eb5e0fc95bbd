"""How many messages may be under way at once, so that nothing waits behind more than a slow network can carry."""

from __future__ import annotations

import threading
from collections import deque

FIRST_LIMIT = 1


class SendWindow:
    """Messages handed over and not yet acknowledged: a caller waits in `acquire`, the link's thread does the rest.

    The limit starts at 1, grows by one with each quick acknowledgement up to `maximum`, and halves with each slow one:
    a ping waits behind all that is in flight, and when its answer takes longer than the keepalive, the connection is
    cut and everything starts again. Without a call of `open` nobody may send.
    """

    def __init__(self, maximum: int, *, keepalive_s: float) -> None:
        self.limit = min(FIRST_LIMIT, maximum)
        self.in_flight = 0
        self._maximum = maximum
        self._quick_s = keepalive_s / 16
        self._slow_s = keepalive_s / 4
        self._sent: deque[tuple[int, str, float]] = deque()
        self._changed = threading.Condition()
        self._open = False

    def acquire(self) -> bool:
        """Wait for room and take it; False when the window is not open or closes meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self.in_flight < self.limit)
            if not self._open:
                return False
            self.in_flight += 1
            return True

    def open(self) -> None:
        """Let messages through."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Turn everybody away, those who wait first."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def reduce(self, maximum: int) -> None:
        """Never let more than `maximum` through: what the broker said it takes."""
        with self._changed:
            self._maximum = max(1, min(self._maximum, maximum))
            self.limit = min(self.limit, self._maximum)

    def sent(self, mid: int, topic: str, now: float) -> None:
        """Note that a message left."""
        self._sent.append((mid, topic, now))

    def acknowledged(self, mid: int, now: float) -> str:
        """Make room again; returns the topic of the message."""
        topic, sent_at = "", now
        for index, (sent_mid, sent_topic, at) in enumerate(self._sent):  # nearly always the first
            if sent_mid == mid:
                topic, sent_at = sent_topic, at
                del self._sent[index]
                break
        latency_s = now - sent_at
        with self._changed:
            self.in_flight -= 1
            if latency_s > self._slow_s:
                self.limit = max(1, self.limit // 2)
            elif latency_s < self._quick_s:
                self.limit = min(self._maximum, self.limit + 1)
            self._changed.notify_all()
        return topic

    def oldest_s(self, now: float) -> float:
        """For how long the oldest message has waited for its acknowledgement; 0 when none waits."""
        return now - self._sent[0][2] if self._sent else 0.0
