"""What a board may do: every line of the policy, and what is remembered between two questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.boards import ZONE, jetson_rails, make_board

from blossom_edge.board.heat import Temperature, Throttling
from blossom_edge.board.state import BoardState
from blossom_edge.client.governor import FULL, Decision, Governor, decide
from firmware_profiles.schema import Limits

HOT = Limits(max_temp_c=80.0)
NONE = Limits()


def at(celsius: float, **more: Any) -> BoardState:
    return BoardState(hottest=Temperature("cpu-thermal", celsius, "zone"), **more)


def bits(value: int) -> BoardState:
    return BoardState(throttling=Throttling(value))


def on_battery(percent: float, mains: bool | None = False) -> BoardState:
    return BoardState(battery_percent=percent, on_mains=mains)


@pytest.mark.parametrize(
    ("state", "limits", "paused_s", "action", "reason"),
    [
        (BoardState(), NONE, None, "full", ""),
        (at(120.0), NONE, None, "full", ""),  # no limit given
        # heat
        (at(75.0), HOT, None, "full", ""),
        (at(75.1), HOT, None, "smaller", "cpu-thermal has 75.1 °C, within 5 K of the limit of 80 °C"),
        (at(80.0), HOT, None, "smaller", "cpu-thermal has 80.0 °C, within 5 K of the limit of 80 °C"),
        (at(80.1), HOT, None, "pause", "cpu-thermal has 80.1 °C, the limit is 80 °C"),
        (at(78.0), HOT, 10.0, "pause", "cpu-thermal has 78.0 °C, work goes on at 75 °C"),
        (at(75.0), HOT, 10.0, "full", ""),
        (at(81.0), HOT, 119.9, "pause", "cpu-thermal has 81.0 °C, the limit is 80 °C"),
        (at(81.0), HOT, 120.0, "skip", "cpu-thermal has 81.0 °C, the limit is 80 °C, after a pause of 120 s"),
        # the firmware of a Pi
        (bits(0), NONE, None, "full", ""),
        (bits(1 << 0), NONE, None, "smaller", "the supply is under-voltage"),
        (bits(1 << 1), NONE, None, "pause", "the firmware slows the board down (frequency capped)"),
        (bits(1 << 2), NONE, None, "pause", "the firmware slows the board down (throttled)"),
        (bits(1 << 3), NONE, None, "pause", "the firmware slows the board down (soft temperature limit)"),
        (bits(0b101), NONE, 500.0, "skip", "the firmware slows the board down (throttled), after a pause of 500 s"),
        (bits(0xF << 16), NONE, None, "full", ""),  # it was so once
        # memory
        (BoardState(available_mb=127.9), NONE, None, "skip", "128 MiB of memory are left, the work needs 128"),
        (BoardState(available_mb=90.0), NONE, None, "skip", "90 MiB of memory are left, the work needs 128"),
        (BoardState(available_mb=128.0), NONE, None, "full", ""),
        (
            BoardState(used_mb=600.0), Limits(memory_mb=512), None, "skip",
            "this process has 600 MiB of memory, the profile allows 512",
        ),
        (BoardState(used_mb=512.0), Limits(memory_mb=512), None, "full", ""),
        # battery
        (on_battery(19.0), NONE, None, "skip", "the battery is at 19 %, below 20 %"),
        (on_battery(19.0, None), NONE, None, "skip", "the battery is at 19 %, below 20 %"),
        (on_battery(19.0, True), NONE, None, "full", ""),
        (on_battery(39.0), NONE, None, "smaller", "the battery is at 39 %, below 40 %"),
        (on_battery(40.0), NONE, None, "full", ""),
        (on_battery(39.0), Limits(min_battery_percent=40), None, "skip", "the battery is at 39 %, below 40 %"),
        (on_battery(25.0), Limits(min_battery_percent=0), None, "full", ""),
        # several at once
        (at(90.0, available_mb=10.0), HOT, None, "skip", "10 MiB of memory are left, the work needs 128"),
        (
            at(90.0, throttling=Throttling(0b100)), HOT, None, "pause",
            "the firmware slows the board down (throttled) and cpu-thermal has 90.0 °C, the limit is 80 °C",
        ),
        (
            at(78.0, throttling=Throttling(0b1)), HOT, None, "smaller",
            "cpu-thermal has 78.0 °C, within 5 K of the limit of 80 °C and the supply is under-voltage",
        ),
    ],
)  # fmt: skip
def test_the_policy_line_by_line(
    state: BoardState, limits: Limits, paused_s: float | None, action: str, reason: str
) -> None:
    found = decide(state, limits, paused_s=paused_s)
    share = {"full": 1.0, "smaller": 0.5}.get(action, 0.0)
    assert (found.action, found.share, found.reason) == (action, share, reason)


class Board:
    """A board and a clock that the test sets."""

    def __init__(self, limits: Limits = HOT) -> None:
        self.now = 0.0
        self.state = BoardState()
        self.reads = 0
        self.nice: list[int] = []
        self.governor = Governor(self._read, limits, clock=lambda: self.now, lower=self._lower)

    def _read(self) -> BoardState:
        self.reads += 1
        return self.state

    def _lower(self, nice: int) -> int:
        self.nice.append(nice)
        return nice

    def ask(self, now: float, celsius: float, round_number: int = 1, remaining_s: float | None = None) -> Decision:
        self.now, self.state = now, at(celsius)
        return self.governor.ask(round_number, remaining_s)


def test_a_pause_ends_below_the_limit_and_not_at_it() -> None:
    board = Board()
    answers = [board.ask(t, c).action for t, c in [(0, 81), (5, 79), (10, 76), (15, 75), (20, 79), (25, 81), (30, 79)]]
    assert answers == ["pause", "pause", "pause", "full", "smaller", "pause", "pause"]


def test_a_pause_takes_no_more_than_two_minutes_and_half_of_what_the_round_has_left() -> None:
    board = Board()
    assert [board.ask(t, 85.0).action for t in (0, 60, 119, 120)] == ["pause", "pause", "pause", "skip"]
    board = Board()
    answers = [board.ask(t, 85.0, remaining_s=60.0 - t).action for t in (0, 29, 30)]
    assert answers == ["pause", "pause", "skip"]


def test_the_next_round_begins_a_pause_anew_but_does_not_forget_that_the_board_was_hot() -> None:
    board = Board()
    assert [board.ask(t, 85.0).action for t in (0, 120)] == ["pause", "skip"]
    assert board.ask(200.0, 78.0, round_number=2) == Decision(
        "pause", 0.0, "cpu-thermal has 78.0 °C, work goes on at 75 °C"
    )
    assert board.ask(300.0, 74.0, round_number=2) == FULL


def test_between_steps_the_board_is_looked_at_once_a_second_and_a_no_stays_a_no() -> None:
    board = Board()
    board.state = at(60.0)
    board.governor.begin()
    for step in range(100):
        board.now = step * 0.025  # 2.5 s of steps
        assert board.governor.keep_going()
    assert board.reads == 2
    board.state, board.now = at(79.0), 4.0
    assert board.governor.keep_going(), "near the limit the plan is not cut in the middle"
    board.state, board.now = at(80.5), 5.0
    assert not board.governor.keep_going()
    assert board.governor.stopped_by == "cpu-thermal has 80.5 °C, the limit is 80 °C"
    board.state = at(60.0)
    assert not board.governor.keep_going()
    board.governor.begin()
    assert board.governor.keep_going()


def test_memory_that_the_work_itself_took_does_not_stop_it() -> None:
    board = Board(Limits(memory_mb=512))
    board.governor.begin()
    board.now, board.state = 1.0, BoardState(available_mb=60.0, used_mb=500.0)
    assert board.governor.keep_going()
    board.now, board.state = 2.0, BoardState(available_mb=60.0, used_mb=520.0)
    assert not board.governor.keep_going()


def test_the_profiles_nice_is_applied_when_there_is_one() -> None:
    with_nice, without = Board(Limits(train_nice=10)), Board()
    with_nice.governor.step_back()
    without.governor.step_back()
    assert (with_nice.nice, without.nice) == ([10], [])


def test_the_governor_of_a_board_reads_its_tree_and_measures_its_energy(tmp_path: Path) -> None:
    now = [0.0]
    make_board(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": "81000", **jetson_rails(5000, 2000)})
    governor = Governor.of_board(tmp_path, HOT, clock=lambda: now[0])
    assert governor.ask(1).reason == "cpu-thermal has 81.0 °C, the limit is 80 °C"
    make_board(tmp_path, {f"{ZONE}/temp": "60000"})
    assert governor.ask(1) == FULL
    governor.begin()
    now[0] = 3.0
    assert governor.keep_going()
    now[0] = 4.0
    governor.end()
    assert governor.energy_j == pytest.approx(40.0), "10 W for 4 s"
