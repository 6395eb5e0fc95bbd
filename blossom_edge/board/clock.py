"""Time on a board that may not know it. Inside, time is monotonic; UTC is given only while it is really known.

A Raspberry Pi without a battery-backed clock starts with the time at which it was last switched off: it looks right
and is not. So the year alone proves nothing, and the time counts as known when

* it is not before this release was made (a clock of 1970 is never right), and
* the kernel says that it is kept in step (`adjtimex`: STA_UNSYNC is clear; chrony, ntpd and systemd-timesyncd all clear
  it), or systemd-timesyncd left its mark since the start, or a battery-backed clock says the same time. Such a clock
  that lost its battery stands at 1970 or 2000 and so does not agree.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from blossom_edge.board.attributes import folders, integer

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
"""No moment before this one can be now: this release was made later."""
SYNCHRONISED = "run/systemd/timesync/synchronized"
"""systemd-timesyncd touches it at each time it set the clock; it stays until the next start."""
AGREES_S = 60.0
"""How far a battery-backed clock may be from the system's to confirm it."""
STA_UNSYNC = 0x0040
TIMEX_BYTES = 512
"""More than any `struct timex`; it begins with an unsigned int and four longs, then comes the int `status`."""


def kernel_in_step() -> bool | None:
    """Whether the kernel's clock is kept in step with a better one; None where it cannot be asked. Changes nothing."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)  # modes = 0: read only
    if adjtimex(buffer) < 0:
        return None
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    return not status & STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Whether the time is known, and one sentence that says why."""

    known: bool
    why: str


class UtcClock:
    """UTC for monotonic moments, once it is known. The last three arguments are the machine; tests bring their own."""

    def __init__(
        self,
        root: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        in_step: Callable[[], bool | None] = kernel_in_step,
    ) -> None:
        self._root = root
        self._monotonic = monotonic
        self._wall = wall
        self._in_step = in_step

    def knowledge(self) -> Knowledge:
        """Whether the time is known now."""
        now = self._wall()
        if now < NOT_BEFORE:
            return Knowledge(False, f"the clock says {_iso(now)}, which is before this release was made")
        if self._in_step():
            return Knowledge(True, "the kernel keeps the clock in step with a time server")
        if (self._root / SYNCHRONISED).exists():
            return Knowledge(True, "systemd-timesyncd has set the clock since the start")
        kept = [integer(file) for file in folders(self._root / "sys/class/rtc", "rtc*/since_epoch")]
        apart = min((abs(seconds - now) for seconds in kept if seconds is not None), default=None)
        if apart is None:
            return Knowledge(False, "no time server has set the clock, and there is no battery-backed one")
        if apart <= AGREES_S:
            return Knowledge(True, "the battery-backed clock says the same")
        return Knowledge(False, f"no time server has set the clock, and the battery-backed one is {apart:.0f} s away")

    def utc_stamp(self, moment: float | None = None) -> str | None:
        """A monotonic moment (None: now) as ISO 8601 UTC with offset and milliseconds; None while that is not known."""
        if not self.knowledge().known:
            return None
        ago = 0.0 if moment is None else self._monotonic() - moment
        return _iso(self._wall() - ago)


def utc_stamp(root: Path = Path("/")) -> str | None:
    """The time now as ISO 8601 UTC with offset, for what is written once; None while this machine does not know it."""
    return UtcClock(root).utc_stamp()


class TimeStamps:
    """Moments that wait for their UTC. Each is stamped once, when the time becomes known, and then never again.

    The monotonic clock stands still while a board is suspended, so a moment from before that gets too late a stamp.
    """

    def __init__(self, clock: UtcClock) -> None:
        self._clock = clock
        self._waiting: dict[Hashable, float] = {}
        self._stamped: dict[Hashable, str] = {}

    def mark(self, key: Hashable, moment: float) -> None:
        """Remember a monotonic moment under a key; a key that is known already keeps its first moment."""
        if key not in self._stamped:
            self._waiting.setdefault(key, moment)

    def settle(self) -> Iterator[tuple[Hashable, str]]:
        """Stamp what waits, if the time is known now: each key and its stamp, in the order they were marked."""
        for key, moment in list(self._waiting.items()):
            stamp = self._clock.utc_stamp(moment)
            if stamp is None:
                return
            del self._waiting[key]
            self._stamped[key] = stamp
            yield key, stamp

    def forget_all_but(self, keys: Collection[Hashable]) -> None:
        """Let go of moments that nobody will ask for again."""
        self._waiting = {key: moment for key, moment in self._waiting.items() if key in keys}
        self._stamped = {key: stamp for key, stamp in self._stamped.items() if key in keys}

    def get(self, key: Hashable) -> str | None:
        """The stamp of a moment; None while it has none."""
        return self._stamped.get(key)


def local_text(stamp: str) -> str:
    """A stamp for a screen: local time with its zone, `2026-05-01 14:03:07 CEST`."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
