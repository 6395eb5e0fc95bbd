"""Waiting between attempts, and how much may be under way: both decide without a clock of their own."""

from __future__ import annotations

import random
import threading

from blossom_edge.transport.backoff import Backoff
from blossom_edge.transport.inbox import EVENT_BYTES, Inbox
from blossom_edge.transport.link import Connected, Disconnected, Message
from blossom_edge.transport.window import SendWindow


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first_s=0.25, cap_s=8.0)
    assert [backoff.ceiling_s(failures) for failures in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert backoff.ceiling_s(0) == 0.25
    assert backoff.ceiling_s(10**9) == 8


def test_the_jitter_is_full_from_zero_to_the_ceiling() -> None:
    backoff = Backoff(first_s=1.0, cap_s=8.0, rng=random.Random(1))
    delays = [backoff.delay_s(4) for _ in range(2000)]
    assert 0 <= min(delays) < 0.1
    assert 7.9 < max(delays) < 8
    assert 3.8 < sum(delays) / len(delays) < 4.2  # uniform: the mean is half the ceiling


def test_the_same_seed_waits_the_same() -> None:
    one, other = (Backoff(rng=random.Random(7)) for _ in range(2))
    assert [one.delay_s(n) for n in range(1, 6)] == [other.delay_s(n) for n in range(1, 6)]


def test_the_window_grows_by_one_with_each_quick_acknowledgement_up_to_its_maximum() -> None:
    window = SendWindow(3, keepalive_s=16)
    window.open()
    limits = []
    for mid in range(4):
        assert window.acquire()
        window.sent(mid, "t", now=100.0)
        assert window.acknowledged(mid, now=100.5) == "t"
        limits.append(window.limit)
    assert limits == [2, 3, 3, 3]
    assert window.in_flight == 0


def test_the_window_halves_with_each_slow_acknowledgement_and_stays_between_both_bounds() -> None:
    window = SendWindow(16, keepalive_s=16)
    window.limit = 16
    window.open()
    limits = []
    for mid, latency_s in enumerate([2.0, 4.1, 4.1, 2.0, 4.1, 4.1, 4.1, 0.9]):  # quick: below 1 s, slow: above 4 s
        window.acquire()
        window.sent(mid, "t", now=0.0)
        window.acknowledged(mid, now=latency_s)
        limits.append(window.limit)
    assert limits == [16, 8, 4, 4, 2, 1, 1, 2]


def test_a_window_that_is_not_open_lets_nobody_through_and_closing_wakes_who_waits() -> None:
    window = SendWindow(1, keepalive_s=30)
    assert window.acquire() is False
    window.open()
    assert window.acquire() is True
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(window.acquire()))
    waiting.start()
    window.close()
    waiting.join(5)
    assert results == [False]


def test_the_window_never_exceeds_what_the_broker_takes() -> None:
    window = SendWindow(16, keepalive_s=30)
    window.limit = 16
    window.reduce(5)
    assert window.limit == 5
    window.reduce(65535)
    assert window.limit == 5


def test_the_age_of_the_oldest_message_is_known_whatever_is_acknowledged_first() -> None:
    window = SendWindow(4, keepalive_s=30)
    window.sent(1, "a", now=10.0)
    window.sent(2, "b", now=12.0)
    assert window.oldest_s(now=15.0) == 5.0
    assert window.acknowledged(2, now=15.0) == "b"
    assert window.acknowledged(1, now=15.0) == "a"
    assert window.oldest_s(now=20.0) == 0.0


def test_an_inbox_drops_messages_that_do_not_fit_and_never_a_change_of_state() -> None:
    inbox = Inbox(max_bytes=2 * EVENT_BYTES + 100)
    assert inbox.put(Message("t", bytes(100)))
    assert not inbox.put(Message("t", bytes(EVENT_BYTES + 1)))
    assert inbox.put(Connected(1))
    assert inbox.put(Disconnected("gone"))
    assert inbox.num_dropped == 1
    got = [inbox.get(0) for _ in range(4)]
    assert got == [Message("t", bytes(100)), Connected(1), Disconnected("gone"), None]
    assert inbox.put(Message("t", bytes(EVENT_BYTES + 100))), "room again"


def test_failed_attempts_that_nobody_hears_are_one_event() -> None:
    inbox = Inbox(max_bytes=10_000)
    for number in range(1000):
        inbox.put(Disconnected(f"attempt {number}"))
    assert [inbox.get(0), inbox.get(0)] == [Disconnected("attempt 999"), None]
