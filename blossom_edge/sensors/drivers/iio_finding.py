"""Which IIO devices are here, and the source lines that would read them. Only reads."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blossom_edge.sensors.driver import Found, Host
from blossom_edge.sensors.drivers.iio_channels import kind_of, propose
from blossom_edge.sensors.drivers.iio_device import IioDevice, available, devices

_MOTION, _MOTION_HZ = ("in_accel_", "in_anglvel_", "in_magn_"), 50.0
_SLOW_HZ, _UNKNOWN_HZ = 1.0, 100.0


def find_all(host: Host) -> Iterator[Found]:
    """A source for every device with inputs."""
    here = list(devices(host))
    names = Counter(device.name for device in here)
    for device in here:
        try:
            found = _found(device, several=names[device.name] > 1)
        except OSError as error:  # it is just being removed, or does not answer
            yield Found("iio", f"{device.name} ({device.folder.name}): {error.strerror or error}")
            continue
        if found is not None:
            yield found


def _found(device: IioDevice, *, several: bool) -> Found | None:
    inputs = _inputs(device)
    if not inputs:
        return None
    options: dict[str, Any] = {"device": device.name}
    if several:
        options["at"] = device.where
    limits = {element.name: element.type.limits for element in device.elements()}
    channels, mapping = [], {}
    for name in inputs:
        short, unit = propose(name)
        mapping[short] = name
        channels.append((short, unit, *_range(device, name, limits.get(name))))
    if any(not _is_guessed(name, short) for short, name in mapping.items()):
        options["map"] = mapping
    moves = any(name.startswith(_MOTION) for name in inputs)
    rate, told = _rate(device, inputs, _MOTION_HZ if moves else _UNKNOWN_HZ if limits else _SLOW_HZ)
    notes = []
    if not told and limits:
        notes.append("it does not tell its rate: see its datasheet")
    if limits and not os.access(device.node, os.R_OK):
        notes.append(f"{Path('/dev') / device.node.name} may not be read: see udev rule in docs/hardware.md")
    if limits and not os.access(device.folder / "buffer/enable", os.W_OK):
        notes.append("its buffer may not be switched on: see udev rule in docs/hardware.md")
    how = "buffer" if limits else "polled"
    what = f"{device.name} ({device.folder.name}, {device.where}), {how}"
    sensor = re.sub("[^a-z0-9]+", "-", device.name.lower()).strip("-")[:31] or "sensor"
    return Found("iio", what, sensor, rate, options, tuple(channels), "; ".join(notes))


def _inputs(device: IioDevice) -> tuple[str, ...]:
    """Its channels; the differences of two inputs only where it has nothing else."""
    inputs = device.channels()
    return tuple(name for name in inputs if "-" not in name) or inputs


def _is_guessed(name: str, short: str) -> bool:
    """Whether the driver finds the channel by its unit and its proposed name."""
    kind = kind_of(name)
    if name.startswith(_MOTION):
        return name == f"{name.rpartition('_')[0]}_{short[-1:]}" and name.count("_") == 2
    if name.startswith("in_intensity_"):
        return short in ("red", "ir", "green")
    if kind.unit in ("V", "A"):
        return name == f"in_{name[3:].rstrip('0123456789')}{short.lstrip('vi')}" and short.lstrip("vi").isdigit()
    return bool(kind.unit) and name.count("_") == 1 and not name[-1:].isdigit()


def _range(device: IioDevice, name: str, limits: tuple[int, int] | None) -> tuple[float, float]:
    """What the device measures as it is set now; a usual range where it does not tell."""
    kind = kind_of(name)
    if limits is None or kind.unit in ("Cel", "Pa", "%RH"):
        return kind.span
    scale = device.number(name, "scale", 1.0) * kind.factor
    offset = device.number(name, "offset", 0.0)
    low, high = ((limit + offset) * scale for limit in limits)
    return (float(f"{low:.4g}"), float(f"{high:.4g}"))


def _rate(device: IioDevice, inputs: tuple[str, ...], wanted: float) -> tuple[float, bool]:
    """A rate to propose, and whether the device knows of rates."""
    name = device.shared(inputs[0], "sampling_frequency_available")
    choices = available(device.read(name) or "", wanted) if name else []
    if choices:
        return min((rate for rate in choices if rate >= wanted), default=max(choices)), True
    now = device.number(inputs[0], "sampling_frequency", 0.0)
    return (now, True) if now > 0 else (wanted, False)
