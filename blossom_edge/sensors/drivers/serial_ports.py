"""The serial ports of a machine, with the USB devices behind them, from /dev and /sys; opens none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Host, need

_PATTERNS = ("ttyACM*", "ttyUSB*")
_BY_ID = "/dev/serial/by-id"
_LEVELS = 4
"""From the tty to its USB device: interface and device, and one more for a usb-serial converter."""


@dataclass(frozen=True, slots=True)
class Port:
    """device: such as /dev/ttyACM0. stable: its name by the device's serial number, "" without. what: for people."""

    device: str
    stable: str
    what: str


def find_ports(host: Host) -> Iterator[Port]:
    """USB ports below the host's root; on this machine itself also those of the board, if pyserial is there."""
    stable = _stable_names(host)
    seen: set[str] = set()
    devices = host.path("/dev")
    for name in sorted(path.name for pattern in _PATTERNS for path in devices.glob(pattern)):
        seen.add(f"/dev/{name}")
        about = _usb(host, name)
        yield Port(f"/dev/{name}", stable.get(name, ""), f"/dev/{name}" + (f" ({about})" if about else ""))
    if host.root != Path("/"):
        return
    try:
        list_ports = need("serial.tools.list_ports", extra="serial")
    except ConfigError:
        return
    for info in sorted(list_ports.comports(), key=lambda found: str(found.device)):
        if info.device not in seen:
            described = info.description not in (None, "", "n/a", info.name)
            yield Port(info.device, "", info.device + (f" ({info.description})" if described else ""))


def _stable_names(host: Host) -> dict[str, str]:
    try:
        links = sorted(host.path(_BY_ID).iterdir())
    except OSError:
        return {}
    return {link.resolve().name: f"{_BY_ID}/{link.name}" for link in links}


def _usb(host: Host, name: str) -> str:
    """Vendor and product of the USB device of a tty, in words and numbers; "" where there is none."""
    folder = host.path(f"/sys/class/tty/{name}/device").resolve()
    for _ in range(_LEVELS):
        vendor, product = _text(folder / "idVendor"), _text(folder / "idProduct")
        if vendor and product:
            words = " ".join(filter(None, (_text(folder / "manufacturer"), _text(folder / "product"))))
            return f"{words}, USB {vendor}:{product}" if words else f"USB {vendor}:{product}"
        folder = folder.parent
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
