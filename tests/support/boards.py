"""A folder that looks like the /sys and /proc of a board, from a table of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"
RAILS = "sys/class/hwmon/hwmon1"
BATTERY = "sys/class/power_supply/BAT0"
MAINS = "sys/class/power_supply/AC"


def make_board(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write the files below `root`; a text gets the newline that the kernel ends its attributes with."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode() + b"\n")
    return root


def jetson_rails(volts_mv: int, amperes_ma: int) -> dict[str, str]:
    """An Orin Nano's INA3221: the rail of the whole module, and one of its parts."""
    return {
        f"{RAILS}/name": "ina3221",
        f"{RAILS}/in1_label": "VDD_IN",
        f"{RAILS}/in1_input": str(volts_mv),
        f"{RAILS}/curr1_input": str(amperes_ma),
        f"{RAILS}/in2_label": "VDD_CPU_GPU_CV",
        f"{RAILS}/in2_input": str(volts_mv),
        f"{RAILS}/curr2_input": "100",
    }
