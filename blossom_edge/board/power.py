"""Batteries, mains, and the watts that an INA3221 measures on its rails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.board.attributes import folders, integer, number, text

MAINS_TYPES = frozenset({"Mains", "USB", "USB_DCP", "USB_CDP", "USB_ACA", "USB_C", "USB_PD", "USB_PD_DRP", "Wireless"})
FED_STATUS = frozenset({"Charging", "Full", "Not charging"})
"""What a battery says of itself while something else feeds the board."""
WHOLE_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails of Jetsons that carry all the others: where one is there, adding the rest would count them twice."""
JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class Battery:
    """The battery that feeds the board. percent 0 to 100; charge in Wh where the gauge says it."""

    percent: float | None
    status: str
    watt_hours: float | None


@dataclass(frozen=True, slots=True)
class Rail:
    """One measured supply rail."""

    name: str
    watts: float


def battery(root: Path) -> Battery | None:
    """The board's battery, the emptiest of several; None without one. Those of mice and keyboards do not count.

    The kernel counts in millionths: `energy_now` in Wh, `charge_now` in Ah (times `voltage_now` in V).
    """
    found = [_battery(folder) for folder in _supplies(root) if text(folder / "type") == "Battery"]
    return min(found, key=lambda b: 100.0 if b.percent is None else b.percent, default=None)


def on_mains(root: Path) -> bool | None:
    """Whether something else than the battery feeds the board; None where nothing says so."""
    supplies = list(_supplies(root))
    online = [integer(s / "online") for s in supplies if text(s / "type") in MAINS_TYPES]
    known = [state for state in online if state is not None]
    if known:
        return any(known)
    status = [text(s / "status") for s in supplies if text(s / "type") == "Battery"]
    if any(word in FED_STATUS for word in status):
        return True
    return False if "Discharging" in status else None


def rails(root: Path) -> tuple[Rail, ...]:
    """The rails of every INA3221: millivolts times milliamperes. A channel that is off or without a label is none."""
    found = []
    for chip in folders(root / "sys/class/hwmon", "hwmon*"):
        if text(chip / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):  # 4 to 6 are shunt voltages, 7 is their sum
            name, enabled = text(chip / f"in{channel}_label"), integer(chip / f"in{channel}_enable")
            volts, amperes = number(chip / f"in{channel}_input", 1e-3), number(chip / f"curr{channel}_input", 1e-3)
            if name is not None and enabled != 0 and volts is not None and amperes is not None:
                found.append(Rail(name, volts * amperes))
    return tuple(found)


def board_watts(found: tuple[Rail, ...]) -> float | None:
    """What the board takes: the rail that carries all, else the sum of those measured; None without any.

    unverified: that the rails of an AGX Orin (VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0) together are the whole module.
    """
    whole = [rail.watts for rail in found if rail.name in WHOLE_BOARD_RAILS]
    if whole:
        return whole[0]
    return sum(rail.watts for rail in found) if found else None


def _supplies(root: Path) -> Iterator[Path]:
    for folder in folders(root / "sys/class/power_supply", "*"):
        if text(folder / "scope") != "Device":
            yield folder


def _battery(folder: Path) -> Battery:
    percent = number(folder / "capacity")
    if percent is not None and not 0.0 <= percent <= 100.0:
        percent = None
    watt_hours = number(folder / "energy_now", 1e-6)
    if watt_hours is None:
        ampere_hours, volts = number(folder / "charge_now", 1e-6), number(folder / "voltage_now", 1e-6)
        watt_hours = ampere_hours * volts if ampere_hours is not None and volts is not None else None
    return Battery(percent, text(folder / "status") or "Unknown", watt_hours)
