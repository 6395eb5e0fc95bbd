"""Sensors that the kernel drives itself, as the Industrial I/O subsystem: sysfs and /dev/iio:deviceN, no C library.

A device with a buffer delivers through it, with the kernel's timestamps; any other is polled. One source is one device:
a chip that the kernel shows as two, such as an LSM6DSOX (`lsm6dsox_accel`, `lsm6dsox_gyro`), is two sensors of a
profile, which its windows align on one clock. Axes are turned by the mount matrix of the device tree, the calibration
of an instance comes on top.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Found, Host, Options, PolledDriver, Request, Samples, failed
from blossom_edge.sensors.drivers.iio_buffer import ScanBuffer
from blossom_edge.sensors.drivers.iio_channels import Pick, kind_of, pick
from blossom_edge.sensors.drivers.iio_clock import StampClock, choose_clock
from blossom_edge.sensors.drivers.iio_device import IioDevice, explain, find_device
from blossom_edge.sensors.drivers.iio_finding import find_all
from blossom_edge.sensors.drivers.iio_scan import TIMESTAMP
from blossom_edge.sensors.units import conversion

log = logging.getLogger(__name__)

_Floats = NDArray[np.float64]

_WAKE_S = 0.2
_KEEP_S = 4.0
_LATE_S = 0.05
_STALL_S, _STALL_PERIODS = 1.0, 20
_NO_BUFFER = (errno.ENOENT, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ENOTSUP)
_AXES = ("x", "y", "z")
_RANGED = ("m/s2", "rad/s", "T", "V", "A")


class IioOptions(Options):
    """device: its name, label or iio:deviceN. at: its place on the bus, such as 1-0068, where there are several.

    map: {channel of the profile = "in_accel_x"}, by default by unit and name. watermark: samples per wake-up, by
    default a fifth of a second. buffer: true demands the buffer, false polls; by default it is taken if possible.
    """

    device: Annotated[str, Field(min_length=1)]
    at: str = ""
    map: Mapping[str, str] = {}
    watermark: Annotated[int, Field(ge=1, le=4096)] | None = None
    buffer: bool | None = None


class IioDriver(PolledDriver):
    """One IIO device. Values come in SI units; times are when the kernel stamped the samples.

    A device without timestamps gets times that end at the moment of reading and lie one period apart.
    """

    Options = IioOptions

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.shape:
            raise ConfigError("profile-invalid", f"sensor {request.sensor}: found a shape, IIO has numbers only")
        self._device: IioDevice | None = None
        self._buffer: ScanBuffer | None = None
        self._sources: tuple[Pick, ...] = ()
        self._turn: _Floats = np.zeros((0, 0))
        self._scale: _Floats = np.ones(0)
        self._offset: _Floats = np.zeros(0)
        self._clock: StampClock | None = None
        self._newest = self._alive = -math.inf
        self._patience_s = _STALL_S

    def open(self) -> None:
        """Find the device, set rate and ranges, start its buffer."""
        self.close()
        super().open()
        self.rate_hz = self.request.rate_hz
        try:
            device = find_device(self.request.host, self.options.device, at=self.options.at)
            if self.options.buffer is not False:
                self._claim(device)
            picks = pick(self.request.channels, self.options.map, device)
            self._choose(device, picks)
            rate = device.set_rate((one.name for one in picks), self.request.rate_hz) or self.request.rate_hz
            self._newest = self._alive = self.request.host.clock()
            if self._buffer is not None:
                self._start(device, self._buffer, rate)
        except OSError as error:
            self.close()
            raise explain(error, self.options.device) from error
        self._device = device

    def read(self, timeout_s: float) -> Samples:
        """What the kernel's buffer holds, at least a watermark of it or what came in `timeout_s`; or what is polled."""
        if self._device is None:
            raise failed(self.request.sensor, "not open")
        if self._buffer is None:
            return super().read(timeout_s)
        try:
            data = self._buffer.read(timeout_s)
        except OSError as error:
            raise failed(self.request.sensor, f"{self._device.name}: {error.strerror or error}") from error
        samples = self._samples(self._buffer, data)
        now = self.request.host.clock()
        if len(samples):
            self._alive = now
        elif now - self._alive > self._patience_s:
            why = "its timestamps do not rise" if data else "it delivers nothing, is its interrupt pin wired"
            raise failed(self.request.sensor, f"{self._device.name}: {why}")
        return samples

    def sample(self) -> Sequence[float]:
        """One value of each channel, read one after the other."""
        if self._device is None:
            raise OSError(errno.EBADF, "not open")
        raw = np.array([[_polled(self._device, source) for source in self._sources]])
        return [float(value) for value in self._convert(raw)[0]]

    def close(self) -> None:
        """Switch the buffer off."""
        if self._buffer is not None:
            self._buffer.stop()
        self._buffer, self._device = None, None

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """Every IIO device that measures something; only reads."""
        return find_all(host)

    def _choose(self, device: IioDevice, picks: Sequence[Pick]) -> None:
        """Set the ranges; then which of the device's channels are needed, how they convert and turn."""
        units = []
        limits: dict[str | None, tuple[float, str]] = {}
        kinds = {element.name: element.type for element in device.elements()}
        for channel, one in zip(self.request.channels, picks, strict=True):
            kind = kind_of(one.name)
            unit = kind.unit or channel.unit
            units.append(unit)
            factor, offset = conversion(channel.unit, unit)
            limit = max(abs(value * factor + offset) for value in channel.range) / kind.factor
            if one.name in kinds and kind.unit in _RANGED:
                shared = device.shared(one.name, "scale")
                limits[shared] = max(limits.get(shared, (0.0, "")), (limit, one.name))
        self.units = tuple(units)
        for limit, name in limits.values():
            device.set_scale(name, limit, float(kinds[name].limits[1]))
        rows: list[dict[Pick, float]] = []
        for one in picks:
            stem, _, axis = one.name.rpartition("_")
            matrix = device.mount_matrix(one.name) if axis in _AXES else None
            row = (0.0, 0.0, 0.0) if matrix is None else matrix[_AXES.index(axis)]
            turned = {Pick(f"{stem}_{a}", one.item): part for a, part in zip(_AXES, row, strict=True) if part}
            rows.append(turned or {one: 1.0})
        self._sources = tuple(dict.fromkeys(source for row in rows for source in row))
        self._turn = np.array([[row.get(source, 0.0) for source in self._sources] for row in rows])
        ready = [_is_processed(device, source.name) for source in self._sources]
        factors = [kind_of(source.name).factor for source in self._sources]
        pairs = zip(self._sources, factors, ready, strict=True)
        self._scale = np.array([f if done else f * device.number(s.name, "scale", 1.0) for s, f, done in pairs])
        pairs = zip(self._sources, factors, ready, strict=True)
        self._offset = np.array([0.0 if done else device.number(s.name, "offset", 0.0) for s, _, done in pairs])

    def _claim(self, device: IioDevice) -> None:
        """Take the buffer of a device that has one. Raises OSError."""
        buffer = ScanBuffer(device)
        try:
            buffer.claim()
        except OSError as error:
            self._polled_because(device, error)
        else:
            self._buffer = buffer

    def _start(self, device: IioDevice, buffer: ScanBuffer, rate: float) -> None:
        """Start the buffer, or give it up for a device that has to be polled. Raises OSError."""
        wake = self.options.watermark or max(1, round(rate * _WAKE_S))
        clock_name = choose_clock(device)
        names = dict.fromkeys(source.name for source in self._sources)
        try:
            buffer.start(names, length=2 ** math.ceil(math.log2(max(rate * _KEEP_S, 4 * wake))), watermark=wake)
        except OSError as error:
            self._polled_because(device, error)
            buffer.stop()
            self._buffer = None
            return
        self._clock = StampClock(clock_name, self.request.host.clock) if buffer.has_stamps else None
        self.rate_hz = rate
        self._patience_s = _STALL_S + (_STALL_PERIODS + wake) / rate

    def _polled_because(self, device: IioDevice, error: OSError) -> None:
        """Log why the buffer is not used; raise the error where it is no reason to poll."""
        if self.options.buffer or error.errno not in _NO_BUFFER or not device.present:
            raise error
        if any(device.elements()):
            log.info("%s: %s is polled, it cannot use its buffer: %s", self.request.sensor, device.name, error.strerror)

    def _samples(self, buffer: ScanBuffer, data: bytes) -> Samples:
        layout = buffer.layout
        raw = np.empty((len(data) // layout.size, len(self._sources)))
        for column, source in enumerate(self._sources):
            raw[:, column] = layout.values(data, source.name)[:, source.item]
        if not len(raw):
            return Samples.nothing(self.request.width)
        if self._clock is not None:
            times = self._clock.seconds(layout.values(data, TIMESTAMP)[:, 0], self._newest)
        else:
            times = self._spread(len(raw))
        rises = times > np.maximum.accumulate(np.concatenate([[self._newest], times[:-1]]))
        if not rises.all():
            log.debug("%s: %d samples with timestamps that do not rise", self.request.sensor, int((~rises).sum()))
        times, values = times[rises], self._convert(raw[rises])
        if len(times):
            self._newest = float(times[-1])
        return Samples(times, values)

    def _spread(self, count: int) -> _Floats:
        """Times without timestamps: a period apart since the newest, as long as that agrees with the clock."""
        now, period = self.request.host.clock(), 1.0 / self.rate_hz
        late = 2 * period + _LATE_S  # a read takes all there is: its newest sample has just come
        expected = self._newest + count * period
        newest = now if expected < now - 4 * late else min(max(expected, now - late), now)  # a gap, or two clocks
        first = max(self._newest, newest - count * period)
        times: _Floats = np.linspace(first, newest, count + 1)[1:]
        return times

    def _convert(self, raw: NDArray[Any]) -> _Floats:
        values: _Floats = ((raw + self._offset) * self._scale) @ self._turn.T
        return values


def _is_processed(device: IioDevice, channel: str) -> bool:
    return not os.path.exists(device.folder / f"{channel}_raw") and os.path.exists(device.folder / f"{channel}_input")


def _polled(device: IioDevice, source: Pick) -> float:
    text = device.read(f"{source.name}_raw") or device.read(f"{source.name}_input")
    if text is None:
        raise OSError(errno.ENODEV, f"{device.name}: {source.name} is gone")
    try:
        return float(text.split()[source.item])
    except (ValueError, IndexError):
        raise OSError(errno.EIO, f"{device.name}: {source.name} reads {text[:20]!r}") from None
