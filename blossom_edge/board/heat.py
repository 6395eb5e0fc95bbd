"""Temperatures, the throttling bits of a Raspberry Pi, and the load of a Jetson's GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.board.attributes import folders, integer, number, text

COLDEST_C, HOTTEST_C = -60.0, 200.0
"""What lies beyond is no temperature but a sensor that is switched off."""
NOT_MEASURED = frozenset({"PMIC-Die", "PMIC-therm"})
"""Zones of Jetsons (TX2 to Xavier) that say 100.0 Cel for ever, whatever the board does."""
PROCESSOR_CHIPS = frozenset({"cpu_thermal", "coretemp", "k10temp", "zenpower", "soc_thermal"})
"""Names of hwmon chips that sit in the processor; others (a disk, a radio, a supply) are not ours to judge."""
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
SINCE_BOOT_SHIFT = 16
WORDS: Mapping[int, str] = {
    UNDER_VOLTAGE: "under-voltage",
    CAPPED: "frequency capped",
    THROTTLED: "throttled",
    SOFT_LIMIT: "soft temperature limit",
}


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor: `zone` (a thermal zone), or the chip and label of hwmon."""

    name: str
    celsius: float
    source: str


@dataclass(frozen=True, slots=True)
class Throttling:
    """The firmware's bits: 0 to 3 what is now, 16 to 19 the same seen before."""

    bits: int

    def now(self, *wanted: int) -> tuple[str, ...]:
        """Words for those of the wanted bits that are set now; all four when none is named."""
        return tuple(WORDS[bit] for bit in wanted or WORDS if self.bits & bit)

    @property
    def before(self) -> tuple[str, ...]:
        """What happened before: since the start, or since the kernel last cleared the bits."""
        return tuple(word for bit, word in WORDS.items() if self.bits & bit << SINCE_BOOT_SHIFT)


def temperatures(root: Path) -> tuple[Temperature, ...]:
    """All that can be read now, in degrees Celsius: the kernel's files hold thousandths of one."""
    found = []
    for zone in folders(root / "sys/class/thermal", "thermal_zone*"):
        name = text(zone / "type") or zone.name
        celsius = number(zone / "temp", 1e-3)
        if celsius is not None and name not in NOT_MEASURED:
            found.append(Temperature(name, celsius, "zone"))
    for chip in folders(root / "sys/class/hwmon", "hwmon*"):
        source = text(chip / "name") or chip.name
        for file in folders(chip, "temp*_input"):
            celsius = number(file, 1e-3)
            label = text(file.with_name(file.name.replace("_input", "_label"))) or file.name.removesuffix("_input")
            if celsius is not None:
                found.append(Temperature(label, celsius, source))
    return tuple(t for t in found if COLDEST_C < t.celsius < HOTTEST_C)


def hottest(found: tuple[Temperature, ...]) -> Temperature | None:
    """The one that counts for the governor: of the thermal zones; without any, of the processor's own sensors."""
    zones = [t for t in found if t.source == "zone"]
    return max(zones or [t for t in found if t.source in PROCESSOR_CHIPS], key=lambda t: t.celsius, default=None)


def throttling(root: Path) -> Throttling | None:
    """The bits of a Raspberry Pi, hexadecimal without 0x in sysfs; None on any other board.

    The kernel asks its firmware every two seconds, so they are so old at most. Where that file is gone (it is marked
    deprecated), the under-voltage alarm of the hwmon chip `rpi_volt` is what is left.
    """
    platform = root / "sys/devices/platform"
    for file in (*folders(platform, "soc*/*firmware*/get_throttled"), *folders(platform, "*firmware*/get_throttled")):
        bits = integer(file, 16)
        if bits is not None and bits >= 0:
            return Throttling(bits)
    for chip in folders(root / "sys/class/hwmon", "hwmon*"):
        if text(chip / "name") == "rpi_volt":
            alarm = integer(chip / "in0_lcrit_alarm")
            return None if alarm is None else Throttling(UNDER_VOLTAGE if alarm else 0)
    return None


def gpu_load(root: Path) -> float | None:
    """How busy a Jetson's GPU is, 0 to 1: its files hold thousandths. The path moved between releases."""
    devices = root / "sys/devices"
    moved = (*folders(devices, "platform/*.gpu/load"), *folders(devices, "platform/bus@0/*.gpu/load"))
    for file in (devices / "platform/gpu.0/load", devices / "gpu.0/load", *moved):
        load = number(file, 1e-3)
        if load is not None and 0.0 <= load <= 1.0:
            return load
    return None
