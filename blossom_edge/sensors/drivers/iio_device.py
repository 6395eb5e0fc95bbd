"""The files of one IIO device below /sys: its attributes, channels, rates, scales. No C library, any root.

Facts: the kernel's Documentation/ABI/testing/sysfs-bus-iio.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.iio_scan import ScanElement, ScanType

BUS = "/sys/bus/iio/devices"
_CHANNEL = re.compile(r"(in_.+)_(?:raw|input)")
_AXIS = re.compile(r"(in_[a-z]+)(?:_([xyz]))?(\d*)(-[a-z]+\d+)?.*")
_CLOSE = 0.01
"""The kernel rounds scales (4 g is 39.23 m/s2, its scale reaches 39.19), profiles round ranges."""


@dataclass(frozen=True, slots=True)
class IioDevice:
    """One device: its folder, its character device, its name. Reading an attribute of a removed one is an OSError."""

    folder: Path
    node: Path
    name: str

    @property
    def present(self) -> bool:
        """Whether its folder is still there."""
        return (self.folder / "name").exists()

    @property
    def where(self) -> str:
        """The place on its bus, such as `1-0068` for I2C bus 1, address 0x68."""
        return self.folder.resolve().parent.name

    def read(self, attribute: str) -> str | None:
        """The text of an attribute, None where there is none.

        Raises:
            OSError: the device is gone, or does not answer.
        """
        try:
            descriptor = os.open(self.folder / attribute, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, 65536).decode("utf-8", "replace").strip()
        finally:
            os.close(descriptor)

    def write(self, attribute: str, value: str) -> None:
        """Set an attribute, in one write as sysfs wants it. Raises OSError."""
        descriptor = os.open(self.folder / attribute, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def set(self, attribute: str, value: str) -> None:
        """Set an attribute unless it has this value: who may only read can use a device that is set up."""
        found = self.read(attribute)
        if found != value and _number(found) != _number(value, missing=float("inf")):
            self.write(attribute, value)

    def shared(self, channel: str, what: str) -> str | None:
        """The file of a channel's property: its own, or that of its kind, or that of the whole device."""
        names = [f"{channel}_{what}"]
        match = _AXIS.fullmatch(channel)
        if match is not None:
            names += [f"{match[1]}-{match[1][3:]}_{what}"] if match[4] else []
            names += [f"{match[1]}_{what}"]
        names += [f"in_{what}", what]
        return next((name for name in names if (self.folder / name).exists()), None)

    def number(self, channel: str, what: str, default: float) -> float:
        """A number that is told for the channel, its kind or the device. Raises OSError."""
        name = self.shared(channel, what)
        return default if name is None else _number(self.read(name), missing=default)

    def channels(self) -> tuple[str, ...]:
        """Names of all inputs, as `in_accel_x`, in the order of their scans and then by name."""
        found = {match[1] for path in self.folder.glob("in_*") if (match := _CHANNEL.fullmatch(path.name))}
        order = {element.name: element.index for element in self.elements() if element.name != "in_timestamp"}
        found = {name for name in found if not name.endswith(("_mean", "_peak", "_trough"))} | set(order)
        return tuple(sorted(found, key=lambda name: (order.get(name, len(order) + 99), name)))

    def elements(self) -> Iterator[ScanElement]:
        """What can stand in its scans; nothing for a device without a buffer. One with an unknown type is left out."""
        for path in sorted((self.folder / "scan_elements").glob("*_index")):
            name = path.name[: -len("_index")]
            try:
                kind = ScanType.parse(self.read(f"scan_elements/{name}_type") or "")
            except ValueError:
                continue
            yield ScanElement(name, int(_number(self.read(f"scan_elements/{name}_index"))), kind)

    def mount_matrix(self, channel: str) -> tuple[tuple[float, ...], ...] | None:
        """Rows of the rotation from the chip's axes to the board's: of the channel's kind, else of the device."""
        name = self.shared(channel, "mount_matrix")
        text = None if name is None else self.read(name)
        if not text:
            return None
        try:
            rows = tuple(tuple(float(v) for v in row.split(",")) for row in text.split(";"))
        except ValueError:
            rows = ()
        if len(rows) != 3 or any(len(row) != 3 for row in rows):
            raise HardwareError("sensor-missing", f"{self.name}: {name}: found {text!r}, expected three rows of three")
        return rows

    def set_rate(self, channels: Iterable[str], rate_hz: float) -> float | None:
        """Set the lowest rate that is not below `rate_hz`; what it then is, None where it cannot be known.

        Raises:
            ConfigError: `profile-invalid`: the device is not that fast.
            OSError: it may not be set.
        """
        names = dict.fromkeys(self.shared(channel, "sampling_frequency") for channel in channels)
        rates: list[float] = []
        for name in names:
            if name is None and (self.folder / "buffer/sampling_frequency").exists():
                name = "buffer/sampling_frequency"
            if name is None:
                continue
            list_name = self.shared(name.removesuffix("_sampling_frequency"), "sampling_frequency_available")
            choices = available(self.read(list_name or f"{name}_available") or "", rate_hz)
            if choices:
                fast = [rate for rate in choices if rate >= rate_hz * (1 - 1e-6)]
                if not fast:
                    raise ConfigError(
                        "profile-invalid",
                        f"{self.name}: found rate_hz {rate_hz:g}, the highest is {max(choices):g}",
                        hint="lower rate_hz of this source",
                    )
                self.set(name, f"{min(fast):.9g}")
            else:
                self.set(name, f"{rate_hz:.9g}")
            rates.append(_number(self.read(name)))
        known = [rate for rate in rates if rate > 0]
        return min(known) if known else None

    def set_scale(self, channel: str, limit: float, largest: float) -> None:
        """Set the smallest scale with which `limit` still can be measured; both in units of the ABI.

        largest: the highest raw value. A device whose scale is fixed stays as it is.

        Raises:
            ConfigError: `profile-invalid`: its ranges are smaller.
            OSError: it may not be set.
        """
        name, list_name = self.shared(channel, "scale"), self.shared(channel, "scale_available")
        if name is None or list_name is None:
            return
        choices = available(self.read(list_name) or "", limit / largest)
        wide = [scale for scale in choices if scale * largest * (1 + _CLOSE) >= limit]
        if choices and not wide:
            raise ConfigError(
                "profile-invalid",
                f"{self.name}: {channel}: found a range up to {limit:g}, the largest is {max(choices) * largest:g}",
                hint="lower the range of this channel in the profile",
            )
        if wide:
            self.set(name, _same_text(self.read(list_name) or "", min(wide)))


def devices(host: Host) -> Iterator[IioDevice]:
    """All IIO devices of this machine, by their number."""
    folders = [path for path in host.path(BUS).glob("iio:device*") if path.name[len("iio:device") :].isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name[len("iio:device") :])):
        try:
            name = (folder / "name").read_text("utf-8", "replace").strip()
        except OSError:
            continue  # it is just being removed, or has no name
        yield IioDevice(folder, host.path(f"/dev/{folder.name}"), name)


def find_device(host: Host, name: str, *, at: str = "") -> IioDevice:
    """The first device of this name, label or `iio:deviceN`; `at` names its place on the bus where there are several.

    Raises:
        HardwareError: `sensor-missing`, with the names of those that are there.
    """
    here = list(devices(host))
    elsewhere: list[str] = []
    for device in here:
        try:
            named = name in (device.name, device.folder.name) or device.read("label") == name
        except OSError:
            continue  # another one, which is just being removed
        if named and (not at or at == device.where):
            return device
        if named:
            elsewhere.append(device.where)
    if elsewhere:
        raise HardwareError(
            "sensor-missing",
            f"no IIO device {name!r} at {at}, found it at {' and '.join(elsewhere)}",
            hint=f'write at = "{elsewhere[0]}" in its source' + ("" if elsewhere[1:] else ", or leave it out"),
        )
    wanted = f"{name!r} at {at}" if at else repr(name)
    names = ", ".join(f"{device.name} ({device.where})" for device in here) or "none"
    raise HardwareError(
        "sensor-missing",
        f"no IIO device {wanted}, found {names}",
        hint="it needs its kernel driver and, on a Raspberry Pi or Jetson, a device-tree overlay",
    )


def available(text: str, wanted: float) -> list[float]:
    """What an `_available` attribute offers; of `[min step max]` its ends and the step at or above `wanted`."""
    text = text.strip()
    try:
        numbers = [float(word) for word in text.strip("[]").split()]
    except ValueError:
        return []
    if not text.startswith("[") or len(numbers) != 3:
        return numbers
    low, step, high = numbers
    if step <= 0 or not low < wanted < high:
        return [low, high]
    steps = round((wanted - low) / step, 6)
    return [low, min(high, low + step * (int(steps) + (steps > int(steps)))), high]


def explain(error: OSError, device: str) -> HardwareError:
    """What it means that a device cannot be opened or set up."""
    where = f"{device}: {error.filename}" if error.filename else device
    if error.errno in (errno.EACCES, errno.EPERM):
        return HardwareError(
            "sensor-missing",
            f"{where}: this user may not set it up",
            hint="add the udev rule of docs/hardware.md, or run as root",
        )
    if error.errno == errno.EBUSY:
        return HardwareError(
            "sensor-missing",
            f"{where}: another program reads it (is join running?)",
            hint="end that program; only one can read it at a time",
        )
    return HardwareError("sensor-missing", f"{where}: {error.strerror or error}", hint="see the plug and the cable")


def _number(text: str | None, *, missing: float = 0.0) -> float:
    try:
        return float((text or "").split()[0])
    except (ValueError, IndexError):
        return missing


def _same_text(text: str, value: float) -> str:
    """The value as the list spells it: drivers compare the digits."""
    return next((word for word in text.strip("[] ").split() if _number(word) == value), f"{value:.9f}")
