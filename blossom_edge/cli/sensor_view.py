"""What `sensors watch` shows of one sensor: what it delivered lately, or that it does not. Opens it again by itself."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blossom_edge.console.output import Output, format_seconds
from blossom_edge.core.errors import BlossomError
from blossom_edge.sensors.reopening import Reopening, Spawn, in_thread

if TYPE_CHECKING:
    from blossom_edge.sensors.live import LiveSensor
    from blossom_edge.sensors.simulated import SimulatedSensor

BAR = 20
RATE_OVER_S = 2.0
"""The rate shown is that of so long."""
STALE_S, STALE_PERIODS = 2.0, 5.0
"""Without a sample for so long, or for so many periods if that is longer, a sensor does not deliver."""
REOPEN_S = 2.0
"""A sensor that failed is opened again after this time, and again."""
CLOSE_S = 1.0


class SensorView:
    """One open sensor; `ranges` are the (low, high) of its channels. Times are seconds of its own clock."""

    def __init__(
        self,
        sensor: LiveSensor | SimulatedSensor,
        ranges: Sequence[tuple[float, float]],
        *,
        now: float,
        spawn: Spawn = in_thread,
    ) -> None:
        self._sensor = sensor
        self._ranges = ranges
        self._spawn = spawn
        self._opening: Reopening | None = None
        self._open_at: float | None = None
        self._times: list[float] = []
        self._last: Any = None
        self._newest = self._now = now
        self.count = 0
        self.why = ""

    def take(self, now: float) -> None:
        """Read what has come; never waits. A sensor that failed is closed and opened elsewhere, until it is back."""
        self._now = now
        try:
            if self._opening is not None:
                if not self._opening.done:
                    return
                opening, self._opening, self._open_at = self._opening, None, None
                opening.check()
            for reading in self._sensor.read(now):
                if len(reading):
                    self.count += len(reading)
                    self._times = [*self._times, *reading.times.tolist()][-5000:]
                    self._newest = self._times[-1]
                    self._last = reading.values
                    self.why, self._open_at = "", None
        except BlossomError as error:
            self.why = str(error)
            self._open_again(now)
        self._times = [t for t in self._times if t > self._newest - RATE_OVER_S]

    @property
    def delivers(self) -> bool:
        """Whether samples come, now."""
        silent_s = max(STALE_S, STALE_PERIODS / self._sensor.rate_hz)
        return self.count > 0 and not self.why and self._now - self._newest <= silent_s

    @property
    def rate_hz(self) -> float:
        """Samples per second over the last two seconds with samples; 0 when none come."""
        if len(self._times) < 2 or not self.delivers:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])

    def lines(self, name: str, out: Output) -> list[str]:
        """One line for the sensor, some for what is wrong, and one per channel (the first eight); none is too long.

        No channel is shown while none delivers: an old bar looks like one of now.
        """
        source = self._sensor.source.driver if self._sensor.source is not None else "-"
        found = f"{self.rate_hz:.1f} of {self._sensor.rate_hz:g} Hz, {self.count} samples"
        if not self.delivers:
            silent_s = max(0.0, self._now - self._newest)
            found = f"no samples for {format_seconds(silent_s)}, {self.count} before"
        lines = [out.paint(f"{name} ({source}): {found}"[: out.width], "strong")]
        lines += [out.paint(line, "bad") for line in textwrap.wrap(self.why, out.width - 2, initial_indent="  ")]
        if self._last is None or not self.delivers:
            return lines
        width = self._last.shape[1] // len(self._ranges)
        for i, (channel, unit) in enumerate(list(zip(self._sensor.channels, self._sensor.units, strict=True))[:8]):
            low, high = self._ranges[i]
            values = self._last[:, i :: len(self._ranges)]
            value = float(values.mean())
            place = min(BAR - 1, max(0, int((value - low) / (high - low) * BAR)))
            bar = "." * place + "#" + "." * (BAR - 1 - place)
            what = f"{unit}, mean of {width}" if width > 1 else unit
            lines.append(f"  {channel:<8} {low:>8.5g} [{bar}] {high:<8.5g} {value:>10.4g} {what}"[: out.width])
        return lines

    def summary(self) -> dict[str, Any]:
        """For --json."""
        last = None if self._last is None else self._last[-1][: len(self._ranges)].tolist()
        return {
            "rate_hz": round(self.rate_hz, 2),
            "wanted_hz": self._sensor.rate_hz,
            "samples": self.count,
            "source": self._sensor.source.driver if self._sensor.source is not None else None,
            "channels": list(self._sensor.channels),
            "units": list(self._sensor.units),
            "last": last,
            "last_age_s": round(self._now - self._newest, 3) if self.count else None,
            "failed": self.why,
        }

    def close(self) -> None:
        """Close the sensor; one that is just being opened is closed when that comes to an end."""
        if self._opening is None or self._opening.give_up(CLOSE_S):
            self._sensor.close()

    def _open_again(self, now: float) -> None:
        """Begin to, if it is time: not at once, so that what is wrong can be read, and a plug take its time."""
        if self._open_at is None:
            self._open_at = now + REOPEN_S
        elif now >= self._open_at:
            self._opening = Reopening(self._sensor, spawn=self._spawn)
