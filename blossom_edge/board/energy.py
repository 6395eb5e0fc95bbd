"""Joules between two moments: from power that is sampled, or from what a battery lost. Else it is not measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blossom_edge.board.power import JOULES_PER_WH, battery, board_watts, on_mains, rails


class EnergyMeter:
    """Measures one span after the other: `start`, `sample` now and then, `stop`.

    With an INA3221 the power between two samples is taken as their mean, so the more samples, the better. Without one
    the loss of the battery counts, if nothing else fed the board at either end. `clock` is monotonic seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._joules = 0.0
        self._last: tuple[float, float] | None = None
        self._whole = False
        self._battery_wh: float | None = None

    def start(self) -> None:
        """Begin a span, forgetting the last one."""
        self._joules, self._last = 0.0, None
        self._battery_wh = self._discharging_wh()
        self.sample()
        self._whole = self._last is not None

    def sample(self) -> None:
        """Read the power now. A reading that fails makes the span unmeasured by power: nothing is filled in."""
        watts, now = board_watts(rails(self._root)), self._clock()
        if watts is None:
            self._whole = False
            return
        if self._last is not None:
            then, before = self._last
            self._joules += (now - then) * (before + watts) / 2
        self._last = (now, watts)

    def stop(self) -> float | None:
        """The joules since `start`; None: not measured. A battery whose gauge did not move has measured nothing."""
        self.sample()
        if self._whole:
            return self._joules
        before, after = self._battery_wh, self._discharging_wh()
        if before is None or after is None or after >= before:
            return None
        return (before - after) * JOULES_PER_WH

    def _discharging_wh(self) -> float | None:
        found = battery(self._root)
        return found.watt_hours if found is not None and on_mains(self._root) is False else None
