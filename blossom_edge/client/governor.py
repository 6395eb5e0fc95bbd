"""What a board can bear now: full work, less, a pause, or none in this round. The reasons are sentences with numbers.

`decide` is the policy, pure. `Governor` adds what has to be remembered (a pause has begun, the board was hot), reads
the board before and between steps, and measures the energy of the work. It never sees the link or the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blossom_edge.board.energy import EnergyMeter
from blossom_edge.board.heat import CAPPED, SOFT_LIMIT, THROTTLED, UNDER_VOLTAGE
from blossom_edge.board.processors import lower_priority
from blossom_edge.board.state import BoardState, read_state
from firmware_profiles.schema import Limits

MARGIN_K = 5.0
"""Within this of the limit work is halved; after a pause the board must be so much below it."""
SMALLER_SHARE = 0.5
NEEDED_MB = 128.0
"""What training takes on top of a process that has torch loaded (measured: 336 MiB beside 218 MiB)."""
MIN_BATTERY_PERCENT = 20.0
"""Without mains and below this nothing is trained, unless the profile says another percentage."""
LOW_BATTERY_PERCENT = 20.0
"""Within so many percent above that, work is halved."""
LONGEST_PAUSE_S = 120.0
RECHECK_S, SHORTEST_RECHECK_S = 5.0, 0.1
"""How long after a pause was ordered the board is asked again; less where the pause may not last so long."""
CHECK_S = 1.0
"""How often the board is looked at between steps."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. `share` is the part of the plan's steps: 1 for full, 0 for pause and skip. `reason` is for people."""

    action: Literal["full", "smaller", "pause", "skip"]
    share: float
    reason: str = ""


FULL = Decision("full", 1.0)


def decide(
    state: BoardState,
    limits: Limits,
    *,
    paused_s: float | None = None,
    longest_pause_s: float = LONGEST_PAUSE_S,
    needed_mb: float = NEEDED_MB,
) -> Decision:
    """What this board may do now: the first of these that holds.

    skip     too little memory left, this process over its limit, or the battery under its limit without mains
    pause    throttled by its firmware, or hotter than the limit (once paused: until 5 K below it); for at most
             `longest_pause_s`, then skip
    smaller  within 5 K of the limit, under-voltage, or the battery within 20 % above its limit without mains

    paused_s: how long it has been paused already; None when it works. needed_mb: what the work takes in addition.
    What the board does not say (None) counts against nothing.
    """
    return _memory(state, limits, needed_mb) or _heat(state, limits, paused_s, longest_pause_s) or _less(state, limits)


def _memory(state: BoardState, limits: Limits, needed_mb: float) -> Decision | None:
    available, used = state.available_mb, state.used_mb
    if available is not None and available < needed_mb:
        return Decision("skip", 0.0, f"{available:.0f} MiB of memory are left, the work needs {needed_mb:.0f}")
    if limits.memory_mb is not None and used is not None and used > limits.memory_mb:
        reason = f"this process has {used:.0f} MiB of memory, the profile allows {limits.memory_mb}"
        return Decision("skip", 0.0, reason)
    least = _least_battery(limits)
    if _on_battery(state) and state.battery_percent is not None and state.battery_percent < least:
        return Decision("skip", 0.0, f"the battery is at {state.battery_percent:.0f} %, below {least:.0f} %")
    return None


def _heat(state: BoardState, limits: Limits, paused_s: float | None, longest_pause_s: float) -> Decision | None:
    found = state.throttling.now(CAPPED, THROTTLED, SOFT_LIMIT) if state.throttling is not None else ()
    reasons = [f"the firmware slows the board down ({', '.join(found)})"] if found else []
    if state.hottest is not None and limits.max_temp_c is not None:
        name, celsius, limit = state.hottest.name, state.hottest.celsius, limits.max_temp_c
        if celsius > limit:
            reasons.append(f"{name} has {celsius:.1f} °C, the limit is {limit:g} °C")
        elif paused_s is not None and celsius > limit - MARGIN_K:
            reasons.append(f"{name} has {celsius:.1f} °C, work goes on at {limit - MARGIN_K:g} °C")
    if not reasons:
        return None
    if paused_s is not None and paused_s >= longest_pause_s:
        return Decision("skip", 0.0, f"{' and '.join(reasons)}, after a pause of {paused_s:.0f} s")
    return Decision("pause", 0.0, " and ".join(reasons))


def _less(state: BoardState, limits: Limits) -> Decision:
    reasons = []
    if state.hottest is not None and limits.max_temp_c is not None:
        name, celsius, limit = state.hottest.name, state.hottest.celsius, limits.max_temp_c
        if celsius > limit - MARGIN_K:
            reasons.append(f"{name} has {celsius:.1f} °C, within {MARGIN_K:g} K of the limit of {limit:g} °C")
    if state.throttling is not None and state.throttling.now(UNDER_VOLTAGE):
        reasons.append("the supply is under-voltage")
    least = _least_battery(limits)
    percent = state.battery_percent
    if _on_battery(state) and percent is not None and percent < least + LOW_BATTERY_PERCENT:
        reasons.append(f"the battery is at {percent:.0f} %, below {least + LOW_BATTERY_PERCENT:.0f} %")
    return Decision("smaller", SMALLER_SHARE, " and ".join(reasons)) if reasons else FULL


def _on_battery(state: BoardState) -> bool:
    """A battery without a word about mains counts as the only supply."""
    return state.battery_percent is not None and state.on_mains is not True


def _least_battery(limits: Limits) -> float:
    return MIN_BATTERY_PERCENT if limits.min_battery_percent is None else float(limits.min_battery_percent)


class Governor:
    """Watches one board for one device: `ask` before work, `begin`, `keep_going` between steps, `end`."""

    def __init__(
        self,
        read: Callable[[], BoardState],
        limits: Limits,
        *,
        clock: Callable[[], float],
        meter: EnergyMeter | None = None,
        longest_pause_s: float = LONGEST_PAUSE_S,
        lower: Callable[[int], int] = lower_priority,
    ) -> None:
        self.energy_j: float | None = None
        """Of the last work, with its evaluation; None: not measured."""
        self.stopped_by = ""
        """Why `keep_going` last said no; empty while it says yes."""
        self._read = read
        self._limits = limits
        self._clock = clock
        self._meter = meter
        self._longest_pause_s = longest_pause_s
        self._lower = lower
        self._round = 0
        self._paused_at: float | None = None
        self._pause_s = longest_pause_s
        self._looked_at = float("-inf")

    @classmethod
    def of_board(cls, root: Path, limits: Limits, *, clock: Callable[[], float]) -> Governor:
        """The governor of the board whose /sys and /proc are below `root`."""
        return cls(lambda: read_state(root), limits, clock=clock, meter=EnergyMeter(root, clock))

    def step_back(self) -> None:
        """Apply the profile's `train_nice` to the calling thread and to all that it starts from now on."""
        if self._limits.train_nice is not None:
            self._lower(self._limits.train_nice)

    def ask(self, round_number: int, remaining_s: float | None = None) -> Decision:
        """What may be done now in this round. A pause counts from its first time in a round until another answer.

        remaining_s: what the round has left; a pause takes at most the half of it, so that nobody waits in vain.
        """
        now = self._clock()
        if self._round != round_number:
            self._round = round_number
            self._pause_s = (
                self._longest_pause_s if remaining_s is None else min(self._longest_pause_s, remaining_s / 2)
            )
            self._paused_at = None if self._paused_at is None else now
        paused_s = None if self._paused_at is None else now - self._paused_at
        decision = decide(self._read(), self._limits, paused_s=paused_s, longest_pause_s=self._pause_s)
        if decision.action in ("full", "smaller"):
            self._paused_at = None
        elif decision.action == "pause" and self._paused_at is None:
            self._paused_at = now
        return decision

    def recheck_s(self) -> float:
        """Seconds until `ask` should be called again in a pause."""
        if self._paused_at is None:
            return RECHECK_S
        left = self._pause_s - (self._clock() - self._paused_at)
        return max(min(RECHECK_S, left), SHORTEST_RECHECK_S)

    def begin(self) -> None:
        """Work begins: energy is measured from here."""
        self.energy_j, self.stopped_by, self._looked_at = None, "", self._clock()
        if self._meter is not None:
            self._meter.start()

    def keep_going(self) -> bool:
        """Whether the work may go on; asked between steps, looks at the board once a second."""
        now = self._clock()
        if now - self._looked_at >= CHECK_S:
            self._looked_at = now
            if self._meter is not None:
                self._meter.sample()
            decision = decide(self._read(), self._limits, needed_mb=0.0)
            if decision.action in ("pause", "skip"):
                self.stopped_by = decision.reason
        return not self.stopped_by

    def end(self) -> None:
        """Work is over: `energy_j` is what it took."""
        self.energy_j = self._meter.stop() if self._meter is not None else None
