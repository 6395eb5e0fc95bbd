"""When a round may open, by the federation's schedule: interval, time of day, hours. The clock is an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from blossom_edge.federation.schema import ScheduleSettings


def may_open(schedule: ScheduleSettings, *, last_open: datetime | None, started: datetime, now: datetime) -> bool:
    """Whether a round may open at local time `now`; `last_open` is None when none has opened since `started`.

    `at` opens one round a day, at or after that time; a gateway started after it waits for the next day.
    `hours` = "22-6" opens rounds from 22:00 to 05:59 only.
    """
    if schedule.every_s and last_open is not None and (now - last_open).total_seconds() < schedule.every_s:
        return False
    if schedule.hours:
        first, last = (int(hour) for hour in schedule.hours.split("-"))
        inside = first <= now.hour < last if first < last else now.hour >= first or now.hour < last
        if not inside:
            return False
    if schedule.at:
        hour, minute = (int(part) for part in schedule.at.split(":"))
        due = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if due > now:
            due -= timedelta(days=1)
        if (last_open or started) >= due:
            return False
    return True


class Gate:
    """Remembers when the last round opened; `gate(round)` says whether the next one may."""

    def __init__(self, schedule: ScheduleSettings, *, local_time: Callable[[], datetime], round_number: int) -> None:
        self._schedule = schedule
        self._local_time = local_time
        self._started = local_time()
        self._round = round_number
        self._last_open: datetime | None = None

    def __call__(self, round_number: int) -> bool:
        """Whether a round may open now; `round_number` is the newest one."""
        now = self._local_time()
        if round_number != self._round:
            self._round, self._last_open = round_number, now
        return may_open(self._schedule, last_open=self._last_open, started=self._started, now=now)
