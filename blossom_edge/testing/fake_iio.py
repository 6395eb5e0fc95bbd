"""A fake tree of IIO devices below a folder: the files of the kernel's drivers, and FIFOs that carry their scans.

    with FakeIio(tmp_path) as board:
        imu = board.add(MPU6050, lambda channel, t: 9.80665 if channel == "in_accel_z" else 0.0)
        ...                       # a Host(root=tmp_path), or BLOSSOM_ROOT, finds the chip
        imu.unplug()

What is written to `sampling_frequency`, `*_scale`, `scan_elements/*_en` and `buffer/*` counts as it does for the
kernel; a value that the kernel would refuse is taken. One thread for all devices, asleep unless something is due.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from blossom_edge.testing.fake_iio_device import FakeIioDevice
from blossom_edge.testing.fake_iio_parts import Part, Signal, at_rest
from blossom_edge.testing.iio_trace import IioTrace
from blossom_edge.testing.inotify import FolderWatch

_SOON_S = 0.001


class FakeIio:
    """A machine with IIO devices. Close it, or use it in a `with`."""

    def __init__(self, root: Path, *, seed: int = 0) -> None:
        """`root` stands for /; it may hold other fakes besides."""
        self.root = root
        self.devices: list[FakeIioDevice] = []
        self._seed = seed
        self._lock = threading.RLock()
        self._watch = FolderWatch()
        self._woken, self._waker = socket.socketpair()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="fake iio", daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeIio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, part: Part, signal: Signal = at_rest, *, where: str = "", raw: bool = False) -> FakeIioDevice:
        """Plug in a device. raw: `signal` gives whole raw numbers. where: another bus and address than the part's."""
        with self._lock:
            number = len(self.devices)
            device = FakeIioDevice(
                self.root,
                number,
                part,
                signal,
                where=where or part.where,
                raw=raw,
                seed=self._seed + number,
                watch=self._watch,
                lock=self._lock,
                wake=self._rouse,
            )
            device.replug()
            self.devices.append(device)
        self._rouse()
        return device

    def add_all(self, parts: Sequence[Part], signal: Signal = at_rest, *, where: str = "") -> list[FakeIioDevice]:
        """Plug in a chip that is several devices."""
        return [self.add(part, signal, where=where) for part in parts]

    def add_trace(self, trace: IioTrace) -> FakeIioDevice:
        """Plug in the device of a recorded trace: its files, and its raw numbers over and over."""
        return self.add(trace.part(), trace.value, raw=True)

    @classmethod
    def from_trace(cls, root: Path, path: Path) -> FakeIio:
        """A machine with the device of a trace that `IioTrace.save` wrote."""
        board = cls(root)
        board.add_trace(IioTrace.load(path))
        return board

    def to_umockdev(self) -> str:
        """All devices as a description for `umockdev-run -d`."""
        with self._lock:
            return "\n".join(device.to_umockdev() for device in self.devices)

    def close(self) -> None:
        """End the thread, unplug everything."""
        if self._stopped:
            return
        self._stopped = True
        self._rouse()
        self._thread.join(10)
        with self._lock:
            for device in self.devices:
                device.unplug()
        self._watch.close()
        self._woken.close()
        self._waker.close()

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):  # closed
            self._waker.send(b"!")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._watch.descriptor, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while not self._stopped:
            with self._lock:
                due = min((device.due for device in self.devices), default=math.inf)
            wait = None if due == math.inf else max(0, math.ceil((due - time.monotonic() + _SOON_S) * 1000))
            ready = [descriptor for descriptor, _ in poll.poll(wait)]
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
            with self._lock:
                for folder, name in self._watch.read():
                    for device in self.devices:
                        device.written(folder, name)
                for device in self.devices:
                    device.work(time.monotonic())
