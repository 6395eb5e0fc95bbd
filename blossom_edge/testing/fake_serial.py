"""A microcontroller on a serial port without hardware: lines of numbers through a pseudo terminal.

    with FakeSerial(lambda channel, t: 9.8 if channel == "az" else 0.0, 100.0, path=root / "dev/ttyACM0",
                    channels=("ax", "ay", "az"), time="ms") as board:
        ...                       # what opens `path` reads a line every 10 ms
        board.unplug()

The lines are those that `sensors.drivers.serial` describes. Real are the terminal, its buffer and its hang-up; not
modelled are the speed of the line and the modem signals.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

BANNER = b"ets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET),boot:0x13\r\n"
"""What an ESP32 says when it starts, more or less."""
WRAP = 2**32
Signal = Callable[[str, float], float]
"""(channel, seconds since the board began) -> value."""


class FakeSerial:
    """A board that sends `rate_hz` lines a second from the start on, to whoever has opened `path` or to nobody.

    path: where a link to the terminal is made, its folder too. time: the counter in front, as in the driver; with
    `ticks_at_start` it begins elsewhere than at 0. label: of seconds -> the last field. limits: what `saturate` sends.
    seed: of garbling and jitter. Its faults may be called from any thread, and end with `clear`.
    """

    def __init__(
        self,
        signal: Signal,
        rate_hz: float,
        *,
        path: Path,
        channels: Sequence[str] = ("value",),
        time: Literal["ms", "us", "sequence", "none"] = "none",
        checksum: bool = False,
        label: Callable[[float], str] | None = None,
        limits: tuple[float, float] = (-1e6, 1e6),
        ticks_at_start: int = 0,
        seed: int = 0,
    ) -> None:
        self.path = path
        self.num_lost = 0
        """Lines that nobody took in time: the buffer of the terminal was full."""
        self._signal, self._rate_hz, self._channels = signal, rate_hz, tuple(channels)
        self._time, self._checksum, self._label, self._limits = time, checksum, label, limits
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ends: tuple[int, int] | None = None
        self._first_tick, self._sequence, self._born_s = ticks_at_start, ticks_at_start, 0.0
        self._begun = _now()
        self._stuck_at: list[float] | None = None
        self.clear()
        self.replug()
        self._thread = threading.Thread(target=self._run, name=f"fake serial {path.name}", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The port is gone, also for who has it open."""
        with self._lock:
            ends, self._ends = self._ends, None
            if ends is not None:
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()
                for end in ends:
                    os.close(end)

    def replug(self) -> None:
        """A new port behind the same path; the board starts anew. Nothing when it is plugged in."""
        with self._lock:
            if self._ends is not None:
                return
            self._ends = master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(os.ttyname(slave))
            if self._born_s:
                self._first_tick = self._sequence = 0
            self._born_s = self._seconds()

    def reset(self) -> None:
        """The board starts anew in mid-line: half a line, a banner, and its counter begins at 0."""
        with self._lock:
            self._send(self._line(self._seconds())[:-4] + BANNER)
            self._first_tick = self._sequence = 0
            self._born_s = self._seconds()

    def garble(self, share: float = 1.0) -> None:
        """Damage this share of the lines by one byte each."""
        self._garbled = share

    def stuck(self) -> None:
        """The values change no more."""
        self._stuck_at = [self._signal(channel, self._seconds()) for channel in self._channels]

    def saturate(self) -> None:
        """All values stand at the upper limit."""
        self._stuck_at = [self._limits[1]] * len(self._channels)

    def nan(self) -> None:
        """All values are `nan`, as `Serial.print` writes it."""
        self._stuck_at = [float("nan")] * len(self._channels)

    def rate(self, factor: float) -> None:
        """Send so many times the lines per second; 0: none."""
        self._factor = factor

    def jitter(self, seconds: float) -> None:
        """Send each line up to so much late; its counter tells when it was due."""
        self._jitter_s = seconds

    def clear(self) -> None:
        """No fault any more; what is unplugged stays so."""
        self._stuck_at, self._garbled, self._factor, self._jitter_s = None, 0.0, 1.0, 0.0

    def close(self) -> None:
        """End the board, its thread and its path."""
        self._stop.set()
        self._thread.join(5)
        self.unplug()

    def __enter__(self) -> FakeSerial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seconds(self) -> float:
        return _now() - self._begun

    def _run(self) -> None:
        due_s = self._seconds()
        while not self._stop.is_set():
            if self._factor <= 0:
                self._stop.wait(0.01)
                due_s = self._seconds()
                continue
            due_s += 1 / (self._rate_hz * self._factor)
            late_s = float(self._random.uniform(0, self._jitter_s))
            if self._stop.wait(max(0.0, due_s + late_s - self._seconds())):
                return
            with self._lock:
                self._send(self._line(due_s))

    def _line(self, seconds: float) -> bytes:
        values = self._stuck_at or [self._signal(channel, seconds) for channel in self._channels]
        fields = [f"{value:.9g}" for value in values]
        if self._time == "sequence":
            fields.insert(0, str(self._sequence % WRAP))
        elif self._time != "none":
            ticks = round((seconds - self._born_s) * (1e3 if self._time == "ms" else 1e6))
            fields.insert(0, str((self._first_tick + max(0, ticks)) % WRAP))
        self._sequence += 1
        if self._label is not None:
            fields.append(self._label(seconds))
        body = ",".join(fields).encode()
        if self._checksum:
            together = 0
            for byte in body:
                together ^= byte
            body += b"*%02X" % together
        if self._random.random() < self._garbled:
            place = int(self._random.integers(len(body)))
            body = body[:place] + b"~" + body[place + 1 :]
        return body + b"\r\n"

    def _send(self, data: bytes) -> None:
        if self._ends is None:
            return
        try:
            if os.write(self._ends[0], data) < len(data):
                self.num_lost += 1
        except BlockingIOError:
            self.num_lost += 1


def _now() -> float:
    return time.monotonic()
