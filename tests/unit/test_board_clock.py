"""When a board knows the time, what it stamps until then, and how a moment gets its UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.boards import make_board

from blossom_edge.board.clock import SYNCHRONISED, TimeStamps, UtcClock, kernel_in_step, local_text

NOON = datetime(2026, 12, 1, 12, 0, 0, tzinfo=timezone.utc).timestamp()
RTC = "sys/class/rtc/rtc0/since_epoch"


@dataclass
class Machine:
    """A machine whose clocks are set by the test."""

    wall: float = NOON
    monotonic: float = 100.0
    in_step: bool | None = False

    def clock(self, root: Path) -> UtcClock:
        return UtcClock(root, monotonic=lambda: self.monotonic, wall=lambda: self.wall, in_step=lambda: self.in_step)


@pytest.mark.parametrize(
    ("machine", "files", "known", "why"),
    [
        (Machine(in_step=True), {}, True, "the kernel keeps the clock in step with a time server"),
        (Machine(in_step=True, wall=35.0), {}, False, "the clock says 1970-01-01T00:00:35.000+00:00, which is before"),
        (Machine(), {}, False, "no time server has set the clock, and there is no battery-backed one"),
        (Machine(in_step=None), {}, False, "no time server has set the clock, and there is no battery-backed one"),
        (Machine(), {SYNCHRONISED: ""}, True, "systemd-timesyncd has set the clock since the start"),
        (Machine(), {RTC: str(int(NOON) - 2)}, True, "the battery-backed clock says the same"),
        # switched off without a battery: the system's clock went on where it had stopped, the other one began anew
        (Machine(), {RTC: str(int(NOON) - 3600)}, False, "and the battery-backed one is 3600 s away"),
        (Machine(), {RTC: "garbage"}, False, "there is no battery-backed one"),
    ],
)
def test_when_the_time_is_known(tmp_path: Path, machine: Machine, files: dict[str, str], known: bool, why: str) -> None:
    found = machine.clock(make_board(tmp_path, files)).knowledge()
    assert found.known is known
    assert why in found.why


def test_a_stamp_is_utc_with_offset_and_counts_back_from_now(tmp_path: Path) -> None:
    clock = Machine(in_step=True).clock(tmp_path)
    assert clock.utc_stamp() == "2026-12-01T12:00:00.000+00:00"
    assert clock.utc_stamp(98.5) == "2026-12-01T11:59:58.500+00:00"
    assert Machine().clock(tmp_path).utc_stamp() is None


def test_moments_wait_for_the_time_and_are_stamped_once(tmp_path: Path) -> None:
    machine = Machine(wall=35.0)
    stamps = TimeStamps(machine.clock(tmp_path))
    stamps.mark("first", 90.0)
    stamps.mark("first", 95.0)  # is known already
    stamps.mark("second", 100.0)
    assert list(stamps.settle()) == []
    assert stamps.get("first") is None
    machine.wall, machine.monotonic, machine.in_step = NOON, 160.0, True
    assert list(stamps.settle()) == [
        ("first", "2026-12-01T11:58:50.000+00:00"),
        ("second", "2026-12-01T11:59:00.000+00:00"),
    ]
    machine.wall += 5.0  # the clock is put right once more: what is stamped stays
    stamps.mark("first", 160.0)
    assert list(stamps.settle()) == []
    assert stamps.get("first") == "2026-12-01T11:58:50.000+00:00"


def test_the_kernel_answers_or_cannot_be_asked_and_nothing_is_changed() -> None:
    assert kernel_in_step() in (True, False, None)


def test_a_screen_shows_local_time_with_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert local_text("2026-05-01T12:03:07.250+00:00") == "2026-05-01 14:03:07 CEST"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_moments_that_nobody_will_ask_for_are_let_go(tmp_path: Path) -> None:
    stamps = TimeStamps(UtcClock(tmp_path, monotonic=lambda: 100.0, wall=lambda: 0.0))  # never knows the time
    for number in range(50):
        stamps.mark(("imu", number), float(number))
        stamps.forget_all_but({("imu", number), ("ecg", 0)})
    assert list(stamps._waiting) == [("imu", 49)]
