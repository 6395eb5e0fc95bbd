"""When a round may open: interval, time of day, hours."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from aggregator.schedule import Gate, may_open
from blossom_edge.federation.schema import ScheduleSettings

DAY = datetime(2026, 3, 1)


def at(text: str, *, day: int = 0) -> datetime:
    hour, minute = text.split(":")
    return DAY + timedelta(days=day, hours=int(hour), minutes=int(minute))


def test_without_a_schedule_a_round_may_open_at_any_time() -> None:
    assert may_open(ScheduleSettings(), last_open=at("10:00"), started=at("09:00"), now=at("10:00"))


def test_an_interval_counts_from_one_opening_to_the_next() -> None:
    schedule = ScheduleSettings(every_s=600.0)
    assert may_open(schedule, last_open=None, started=at("10:00"), now=at("10:00"))
    assert not may_open(schedule, last_open=at("10:00"), started=at("09:00"), now=at("10:09"))
    assert may_open(schedule, last_open=at("10:00"), started=at("09:00"), now=at("10:10"))


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("22-6", ("22:00", "23:59", "00:00", "05:59"), ("06:00", "21:59")),
        ("9-17", ("09:00", "16:59"), ("17:00", "08:59")),
        ("0-24", ("00:00", "23:59"), ()),
    ],
)
def test_hours_may_go_over_midnight(hours: str, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    schedule = ScheduleSettings(hours=hours)
    assert all(may_open(schedule, last_open=None, started=DAY, now=at(now)) for now in inside)
    assert not any(may_open(schedule, last_open=None, started=DAY, now=at(now)) for now in outside)


def test_a_time_of_day_opens_one_round_a_day_and_not_before_it() -> None:
    schedule = ScheduleSettings(at="03:00")
    started = at("01:00")
    assert not may_open(schedule, last_open=None, started=started, now=at("02:59"))
    assert may_open(schedule, last_open=None, started=started, now=at("03:00"))
    assert may_open(schedule, last_open=None, started=started, now=at("08:00")), "missed for want of devices, made up"
    assert not may_open(schedule, last_open=at("03:05"), started=started, now=at("23:00"))
    assert may_open(schedule, last_open=at("03:05"), started=started, now=at("03:00", day=1))


def test_a_gateway_started_after_the_time_of_day_waits_for_the_next_day() -> None:
    schedule = ScheduleSettings(at="03:00")
    assert not may_open(schedule, last_open=None, started=at("04:00"), now=at("05:00"))
    assert may_open(schedule, last_open=None, started=at("04:00"), now=at("03:00", day=1))


def test_the_gate_notices_by_the_number_that_a_round_has_opened() -> None:
    now = [at("10:00")]
    gate = Gate(ScheduleSettings(every_s=60.0), local_time=lambda: now[0], round_number=4)
    assert gate(4)
    now[0] = at("10:05")
    assert not gate(5), "round 5 has just opened"
    now[0] = at("10:06")
    assert gate(5)


def test_the_gate_of_a_restarted_gateway_does_not_take_the_old_round_for_a_new_one() -> None:
    gate = Gate(ScheduleSettings(every_s=60.0), local_time=lambda: at("10:00"), round_number=7)
    assert gate(7)
