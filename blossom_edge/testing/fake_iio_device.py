"""One device of a `FakeIio`: its files, its scans, and its faults."""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import os
import random
import shutil
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

from blossom_edge.testing.fake_iio_parts import Channel, Part, Signal, pack
from blossom_edge.testing.inotify import FolderWatch

_STAMP = Channel("in_timestamp", "le:s64/64>>0", 99)
_POLLED_S = 0.05
_ATOMIC_BYTES = 4096
_PIPE_BYTES = 1 << 20
_MAJOR = 250


class FakeIioDevice:
    """Faults may be called from any thread, while it is read."""

    def __init__(
        self,
        root: Path,
        number: int,
        part: Part,
        signal: Signal,
        *,
        where: str,
        raw: bool,
        seed: int,
        watch: FolderWatch,
        lock: threading.RLock,
        wake: Callable[[], None],
    ) -> None:
        """Made by `FakeIio.add`."""
        self.part, self.signal = part, signal
        self.place = f"/devices/platform/i2c-{where.partition('-')[0]}/{where}/iio:device{number}"
        self.folder = root / "sys" / self.place.lstrip("/")
        self.node = root / "dev" / f"iio:device{number}"
        self.overflows = 0
        """Scans that were dropped because nobody read."""
        self.due = math.inf
        """When its thread has to do something, monotonic seconds."""
        self._root, self._number, self._is_raw = root, number, raw
        self._link = root / "sys/bus/iio/devices" / f"iio:device{number}"
        self._watch, self._lock, self._wake = watch, lock, wake
        self._random = random.Random(seed)  # noqa: S311 - jitter of a fake
        self._pipe: int | None = None
        self._plugged = self._running = False
        self._born = time.monotonic()
        self._on: list[Channel] = []
        self._watermark = self._length = 1
        self._clock = "realtime"
        self._scales: dict[str, float] = {}
        self._offsets: dict[str, float] = {}
        self._shown: dict[str, str] = {}
        self._held: dict[str, int] = {}
        self._rest = b""
        self._rate = self._anchor = 0.0
        self._done = 0
        self._jitter_s = self._jump_s = 0.0
        self._speed = 1.0
        self._tearing = self._silent = False

    def unplug(self, *, torn: bool = False) -> None:
        """Pull it out: its folder is gone, whoever reads gets the end. torn: in the middle of a scan."""
        with self._lock:
            if not self._plugged:
                return
            if torn and self._running and self._pipe is not None:
                scan = self._scan(time.monotonic())
                os.write(self._pipe, self._rest + scan[: len(scan) // 2])
            self._plugged = self._running = False
            self._rest = b""
            with contextlib.suppress(FileNotFoundError):
                self._link.unlink()
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                self.node.unlink()
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None
            self.due = math.inf

    def replug(self) -> None:
        """Plug it in again, with the settings that its driver begins with."""
        with self._lock:
            if self._plugged:
                return
            self._born = time.monotonic()
            for name, text in self._files().items():
                _put(self.folder / name, text)
            self._link.parent.mkdir(parents=True, exist_ok=True)
            self.node.parent.mkdir(parents=True, exist_ok=True)
            if self.part.buffered:
                os.mkfifo(self.node)
                self._pipe = os.open(self.node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                with contextlib.suppress(OSError):  # a system may grant no more than 64 KiB
                    fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                self._watch.add(self.folder / "buffer")
            self._watch.add(self.folder)
            self._plugged, self._shown = True, {}
            self._settings()
            self._link.symlink_to(os.path.relpath(self.folder, self._link.parent))
            self.due = time.monotonic()
        self._wake()

    def stuck(self, on: bool = True) -> None:
        """It repeats its last values."""
        with self._lock:
            now = time.monotonic() - self._born
            self._held = {c.name: self._measure(c, now) for c in self.part.channels} if on else {}

    def saturate(self, on: bool = True) -> None:
        """Every channel shows the end of its range."""
        with self._lock:
            self._held = {c.name: c.limits[1] for c in self.part.channels} if on else {}

    def rate(self, factor: float) -> None:
        """Its clock runs that much faster than it says."""
        with self._lock:
            self._anchor += self._done / self._rate if self._rate else 0.0
            self._done, self._rate, self._speed = 0, self._rate / self._speed * factor, factor
        self._wake()

    def jitter(self, seconds: float) -> None:
        """Timestamps are wrong by up to so much."""
        with self._lock:
            self._jitter_s = seconds

    def jump(self, seconds: float) -> None:
        """Timestamps jump, on top of earlier jumps; its samples still come when they should."""
        with self._lock:
            self._jump_s += seconds

    def tear(self, on: bool = True) -> None:
        """The reader always gets the last scan in two halves."""
        with self._lock:
            self._tearing = on

    def silence(self, on: bool = True) -> None:
        """It is there, but its interrupt does not come: no scan any more."""
        with self._lock:
            self._silent = on

    def clear(self) -> None:
        """End all faults but being unplugged."""
        self.rate(1.0)
        with self._lock:
            self._held = {}
            self._jitter_s = self._jump_s = 0.0
            self._tearing = self._silent = False

    def attribute(self, name: str) -> str:
        """The text of one of its files."""
        return (self.folder / name).read_text().strip()

    def set_attribute(self, name: str, text: str) -> None:
        """Change one of its files, as its driver would by itself."""
        with self._lock:
            _put(self.folder / name, text)

    def to_umockdev(self) -> str:
        """The device, as it is now, as a description for umockdev."""
        lines = [f"P: {self.place}", f"N: iio:device{self._number}", "E: SUBSYSTEM=iio", "E: DEVTYPE=iio_device"]
        lines += [f"E: DEVNAME=/dev/iio:device{self._number}", f"E: MAJOR={_MAJOR}", f"E: MINOR={self._number}"]
        with self._lock:
            files = {name: self.attribute(name) for name in sorted(self._files()) if name != "uevent"}
        lines += [f"A: {name}={text}\\n" for name, text in files.items()]  # without \\n libiio loses a character
        return "\n".join(lines) + "\n"

    def written(self, folder: Path, name: str) -> None:
        """One of its files was written."""
        if not self._plugged or self.folder not in (folder, folder.parent):
            return
        self._settings()
        if name == "enable" and folder.name == "buffer":
            self._stop()
            if self.attribute("buffer/enable") == "1":
                self._start()

    def work(self, now: float) -> None:
        """Do what is due."""
        if not self._plugged:
            return
        if not self._running:
            if now >= self.due:
                self._show(now)
                self.due = now + _POLLED_S
            return
        count = int((now - self._anchor) * self._rate) - self._done
        if count >= self._watermark:
            times = [self._anchor + (self._done + i + 1) / self._rate for i in range(count)]
            self._done += count
            if not self._silent:
                self._push([self._scan(at) for at in times])
        self.due = self._anchor + (self._done + self._watermark) / self._rate

    def _files(self) -> dict[str, str]:
        part = self.part
        files = {"name": part.name, "dev": f"{_MAJOR}:{self._number}", **part.attributes}
        files["uevent"] = f"MAJOR={_MAJOR}\nMINOR={self._number}\nDEVNAME=iio:device{self._number}\nDEVTYPE=iio_device"
        for channel in part.channels:
            files[f"{channel.name}_{channel.suffix}"] = "0"
        scanned = [channel for channel in part.channels if channel.type]
        for channel in [*scanned, _STAMP] if part.stamps and scanned else scanned:
            index = channel.index if channel is not _STAMP else 1 + max(c.index for c in scanned)
            stem = f"scan_elements/{channel.name}"
            files |= {f"{stem}_en": "0", f"{stem}_index": str(index), f"{stem}_type": channel.type}
        if scanned:
            files |= {"buffer/enable": "0", "buffer/length": "2", "buffer/watermark": "1"}
        if part.trigger is not None:
            files["trigger/current_trigger"] = f"{part.name}-dev{self._number}" if part.trigger else ""
        return files

    def _settings(self) -> None:
        for channel in self.part.channels:
            stem = f"in_{channel.name[3:].partition('_')[0]}"
            for what, found, default in (("scale", self._scales, 1.0), ("offset", self._offsets, 0.0)):
                names = (f"{channel.name}_{what}", f"{stem}_{what}")
                path = next((self.folder / name for name in names if (self.folder / name).exists()), None)
                with contextlib.suppress(ValueError):
                    found[channel.name] = default if path is None else float(path.read_text())

    def _start(self) -> None:
        on = [c for c in self.part.channels if c.type and self.attribute(f"scan_elements/{c.name}_en") == "1"]
        stamped = self.part.stamps and self.attribute("scan_elements/in_timestamp_en") == "1"
        self._on = [*on, _STAMP] if stamped else on
        names = ["sampling_frequency", *sorted(n for n in self.part.attributes if n.endswith("_sampling_frequency"))]
        path = next((self.folder / name for name in names if (self.folder / name).exists()), None)
        self._rate = (self.part.rate_hz if path is None else float(path.read_text())) * self._speed
        self._watermark = int(self.attribute("buffer/watermark"))
        self._length = int(self.attribute("buffer/length"))
        clock = self.folder / "current_timestamp_clock"
        self._clock = clock.read_text().strip() if clock.exists() else "realtime"
        self._anchor, self._done, self._running = time.monotonic(), 0, bool(self._on)
        self.due = self._anchor + self._watermark / self._rate

    def _stop(self) -> None:
        self._running, self._rest = False, b""
        self.due = time.monotonic()
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._pipe, 65536):
                    pass  # the kernel throws away what was not read

    def _measure(self, channel: Channel, seconds: float) -> int:
        value = self.signal(channel.name, seconds)
        if self._is_raw:
            return int(value)
        raw = round(value / self._scales[channel.name] - self._offsets[channel.name])
        low, high = channel.limits
        return min(max(raw, low), high)

    def _scan(self, at: float) -> bytes:
        values = dict(self._held)
        for channel in self._on:
            if channel is not _STAMP and channel.name not in values:
                values[channel.name] = self._measure(channel, at - self._born)
        if _STAMP in self._on:
            wrong = self._jump_s + (self._random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0)
            distance = 0 if self._clock == "monotonic" else time.time_ns() - time.monotonic_ns()
            values["in_timestamp"] = round((at + wrong) * 1e9) + distance
        return pack(self._on, values)

    def _push(self, scans: list[bytes]) -> None:
        if self._pipe is None:
            return
        size = len(scans[0])
        waiting = array.array("i", [0])
        fcntl.ioctl(self._pipe, termios.FIONREAD, waiting)
        space = max(0, self._length - math.ceil(waiting[0] / size))
        self.overflows += max(0, len(scans) - space)
        if not space:
            return
        data = self._rest + b"".join(scans[:space])
        cut = len(data) - size // 2 if self._tearing else len(data)
        self._rest = data[cut:]
        for start in range(0, cut, _ATOMIC_BYTES):
            with contextlib.suppress(BlockingIOError):
                os.write(self._pipe, data[start : min(start + _ATOMIC_BYTES, cut)])

    def _show(self, now: float) -> None:
        """Put the present values into the files that are polled, each at once."""
        for channel in self.part.channels:
            if channel.suffix == "input":
                text = f"{self.signal(channel.name, now - self._born):.9g}"
            else:
                held = self._held.get(channel.name)
                text = str(self._measure(channel, now - self._born) if held is None else held)
            if self._shown.get(channel.name) != text:
                self._shown[channel.name] = text
                fresh = self._root / ".fresh"
                _put(fresh, text)
                os.replace(fresh, self.folder / f"{channel.name}_{channel.suffix}")


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)
