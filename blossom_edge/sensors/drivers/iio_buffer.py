"""The buffer of one IIO device: switch its scans on, read whole ones, switch it off."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
from collections.abc import Iterable

from blossom_edge.sensors.drivers.iio_device import BUS, IioDevice
from blossom_edge.sensors.drivers.iio_scan import TIMESTAMP, ScanLayout

_READ_BYTES = 65536
_MIN_LENGTH = 64


class ScanBuffer:
    """Scans of the channels asked for. Other channels that the driver of the kernel needs are read over."""

    def __init__(self, device: IioDevice) -> None:
        self._device = device
        self._descriptor: int | None = None
        self._poll = select.poll()
        self._rest = b""
        self.layout = ScanLayout(())

    @property
    def has_stamps(self) -> bool:
        """Whether a scan carries its time."""
        return TIMESTAMP in self.layout.elements

    def claim(self) -> None:
        """Take it for us, switched off: only then do rate and ranges let themselves be set.

        The kernel lets one program open it (`IIO_BUSY_BIT_POS` of industrialio-core.c); a lock besides says the same
        where a FIFO stands in for the node.

        Raises:
            OSError: EBUSY: somebody else reads it; ENOENT: it has none; EACCES.
        """
        self._descriptor = os.open(self._device.node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._device.set("buffer/enable", "0")  # left on by a program that was killed
        except BlockingIOError:
            os.close(self._descriptor)  # and nothing else: it is not ours to switch off
            self._descriptor = None
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self._device.node)) from None
        except OSError:
            self.stop()
            raise

    def start(self, channels: Iterable[str], *, length: int, watermark: int) -> None:
        """Begin with the channels named and the timestamp.

        length: scans that the kernel keeps. watermark: scans that wake a reader.

        Raises:
            OSError: ENOENT: it lacks a channel there; EINVAL: not these channels at once, or no trigger; EACCES.
        """
        device, wanted = self._device, {*channels, TIMESTAMP}
        if self._descriptor is None:
            raise OSError(errno.EBADF, "not claimed")
        elements = {element.name: element for element in device.elements()}
        missing = wanted - set(elements) - {TIMESTAMP}
        if missing:
            raise OSError(errno.ENOENT, f"no {', '.join(sorted(missing))} in its scans")
        self._choose_trigger()
        for name in sorted(elements, key=lambda name: name in wanted):  # off first: some take one at a time
            device.set(f"scan_elements/{name}_en", "1" if name in wanted else "0")
        device.set("buffer/length", str(max(_MIN_LENGTH, length)))
        if (device.folder / "buffer/watermark").exists():
            device.set("buffer/watermark", str(watermark))
        on = [e for e in elements.values() if device.read(f"scan_elements/{e.name}_en") == "1"]
        self.layout = ScanLayout(on)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, _READ_BYTES):
                pass  # of an earlier time
        device.write("buffer/enable", "1")
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, timeout_s: float) -> bytes:
        """Whole scans, none when none came within `timeout_s`; what came of a last one is kept for the next call.

        Raises:
            OSError: ENODEV: the device is gone.
        """
        if self._descriptor is None:
            raise OSError(errno.EBADF, "not open")
        self._poll.poll(max(0, round(timeout_s * 1000)))
        try:
            data = os.read(self._descriptor, _READ_BYTES)  # also after a timeout: fewer than the watermark
        except BlockingIOError:
            if not self._device.present:
                raise OSError(errno.ENODEV, "the device was removed") from None
            return b""
        if not data:
            raise OSError(errno.ENODEV, "the device was removed")
        data = self._rest + data
        whole = len(data) // self.layout.size * self.layout.size
        self._rest = data[whole:]
        return data[:whole]

    def stop(self) -> None:
        """Switch it off and give it back; a device that is gone is no error."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                self._device.write("buffer/enable", "0")
            os.close(descriptor)

    def _choose_trigger(self) -> None:
        """A device that needs a trigger and has none chosen gets its own, named after it, where there is one."""
        device = self._device
        if device.read("trigger/current_trigger") != "":
            return
        root = device.node.parents[1]
        own = f"{device.name}-dev{device.folder.name.removeprefix('iio:device')}"
        names = [path.read_text().strip() for path in (root / BUS.lstrip("/")).glob("trigger*/name")]
        if own not in names:
            raise OSError(errno.EINVAL, "it has no trigger")
        device.write("trigger/current_trigger", own)
