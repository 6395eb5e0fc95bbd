"""A recording of one IIO device as it was on a board: its files and its raw scans, to be played by `FakeIio`.

Recorded once on the hardware, replayed for ever: the same scales, types and numbers, without the board.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable.files import atomic_write
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.iio_buffer import ScanBuffer
from blossom_edge.sensors.drivers.iio_device import find_device
from blossom_edge.sensors.drivers.iio_scan import TIMESTAMP
from blossom_edge.testing.fake_iio_parts import Channel, Part

_LEFT_OUT = ("uevent", "dev", "name", "buffer", "scan_elements", "trigger", "power", "of_node", "subsystem")


@dataclass(frozen=True, slots=True)
class IioTrace:
    """attributes: the device's files but those of buffer and scans. types: channel -> (index, type of its element).

    raw: (n, channel) int64, in the order of `types`. rate_hz: of the recording.
    """

    name: str
    where: str
    rate_hz: float
    attributes: Mapping[str, str]
    types: Mapping[str, tuple[int, str]]
    raw: NDArray[np.int64]

    def part(self) -> Part:
        """The device to plug into a `FakeIio`."""
        channels = tuple(Channel(name, kind, index) for name, (index, kind) in self.types.items())
        shown = tuple(f"{name}_raw" for name in self.types)
        attributes = {name: text for name, text in self.attributes.items() if name not in shown}
        return Part(self.name, channels, attributes, rate_hz=self.rate_hz, where=self.where)

    def value(self, channel: str, seconds: float) -> float:
        """The raw number of a channel that long after the start, over and over; a `Signal` of raw numbers."""
        row = round(seconds * self.rate_hz) % len(self.raw)
        return float(self.raw[row, list(self.types).index(channel)])

    def save(self, path: Path) -> None:
        """Write it as .npz without pickles."""
        told = {"name": self.name, "where": self.where, "rate_hz": self.rate_hz}
        told |= {"attributes": dict(self.attributes), "types": [[name, *kind] for name, kind in self.types.items()]}
        buffer = io.BytesIO()
        np.savez(buffer, raw=self.raw, device=np.array(json.dumps(told, sort_keys=True)))
        atomic_write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> IioTrace:
        """Read what `save` wrote.

        Raises:
            ConfigError: `replay-invalid`.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                raw, told = archive["raw"].astype(np.int64), json.loads(str(archive["device"]))
            types = {str(name): (int(index), str(kind)) for name, index, kind in told["types"]}
            if raw.ndim != 2 or raw.shape[1] != len(types) or not len(raw):
                raise ValueError(f"found scans of shape {raw.shape}, expected (n, {len(types)})")
            return cls(told["name"], told["where"], float(told["rate_hz"]), told["attributes"], types, raw)
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError("replay-invalid", f"{path}: no trace of an IIO device: {error}") from error


def record_iio(host: Host, device_name: str, *, at: str = "", seconds: float = 10.0) -> IioTrace:
    """Record a device as it is set now, all of its channels.

    Raises:
        HardwareError: `sensor-missing`.
        OSError: its buffer cannot be read.
    """
    device = find_device(host, device_name, at=at)
    elements = sorted((e for e in device.elements() if e.name != TIMESTAMP), key=lambda e: e.index)
    attributes = {}
    for path in sorted(device.folder.iterdir()):
        if path.name not in _LEFT_OUT and path.is_file() and (text := device.read(path.name)) is not None:
            attributes[path.name] = text
    types = {e.name: (e.index, device.read(f"scan_elements/{e.name}_type") or "") for e in elements}
    rate = device.number(elements[0].name if elements else "", "sampling_frequency", 0.0)
    buffer, parts = ScanBuffer(device), []
    buffer.claim()
    try:
        buffer.start(types, length=4096, watermark=8)
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            parts.append(buffer.read(0.2))
        data = b"".join(parts)
        raw = np.stack([buffer.layout.values(data, name)[:, 0] for name in types], axis=1)
    finally:
        buffer.stop()
    return IioTrace(device.name, device.where, rate or len(raw) / seconds, attributes, types, raw)
