"""`blossom-edge profiles detect`: which profiles are for this board, and what of them is not here. Opens no sensor."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blossom_edge.console.output import Output
from blossom_edge.console.program import command

if TYPE_CHECKING:
    from blossom_edge.sensors.driver import Host
    from firmware_profiles.boards import Board, BoardFit
    from firmware_profiles.schema import Profile, Source

_MODULES = {
    "adafruit": (("board", "adafruit"), ("smbus2", "adafruit")),
    "camera": (("cv2", "camera"),),
    "microphone": (("sounddevice", "audio"),),
    "mpu6050": (("smbus2", "i2c"),),
    "serial": (("serial", "serial"),),
}
"""Driver -> what it imports when it is opened, with the extra that brings it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile for this board. missing: what lacks, as sentences; a sensor lacks when none of its sources is here."""

    profile: Profile
    of_board: bool
    missing: tuple[str, ...]


def candidates(host: Host, machine: str) -> tuple[Board, list[Candidate]]:
    """The board below `host.root`, and the profiles for it: those meant for it first, the complete ones first."""
    from firmware_profiles.boards import fitting
    from firmware_profiles.loading import list_profiles, load_profile

    board = read_board(host, machine)
    profiles = [load_profile(str(entry.path)) for entry in list_profiles() if not entry.problem]
    found = [_candidate(fit, host) for fit in fitting(board, profiles)]
    return board, sorted(found, key=lambda c: (not c.of_board, bool(c.missing)))


def read_board(host: Host, machine: str) -> Board:
    """What the machine below `host.root` says of itself."""
    from blossom_edge.board.attributes import text
    from blossom_edge.board.identity import compatible, model
    from firmware_profiles.boards import Board

    ram_mb = None
    for line in (text(host.path("/proc/meminfo")) or "").splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"] and len(words) > 1 and words[1].isdigit():  # kiB
            ram_mb = round(int(words[1]) * 1024 / 1e6)
    return Board(compatible(host.root), model(host.root) or "", machine, ram_mb)


@command("detect", has_json=True, example="blossom-edge profiles detect")
def detect(out: Output) -> None:
    """Say which profiles are for this board, by its device tree, and what is missing here. Opens no sensor.

    What is listed as here need not answer: `sensors find` asks it.
    """
    from blossom_edge.sensors.driver import Host

    board, found = candidates(Host.here(), platform.machine())
    out.json({"board": _board(board), "profiles": [_entry(candidate) for candidate in found]})
    out.line(f"this board: {board.title}" + (f", {board.ram_mb} MB" if board.ram_mb else ""))
    out.line()
    rows = [
        (c.profile.id, "this board" if c.of_board else "any machine", "; ".join(c.missing) or "nothing") for c in found
    ]
    out.table(rows, ["profile", "for", "missing here"])
    if not any(candidate.of_board for candidate in found):
        known = ", ".join(board.compatible[:1]) or "a machine without device tree"
        out.note(f"no profile is for this board ({known}); `blossom-edge profiles new` writes one")


def _candidate(fit: BoardFit, host: Host) -> Candidate:
    lacks = list(fit.missing)
    for name, sensor in fit.profile.sensors.items():
        reasons = [_absence(source, host) for source in sensor.sources]
        if all(reasons):
            lacks.append(f"sensor {name}: " + ", ".join(dict.fromkeys(reasons)))
    return Candidate(fit.profile, fit.of_board, tuple(lacks))


def _absence(source: Source, host: Host) -> str:
    """Why this source cannot be here, seen without opening it; empty when it may be."""
    reasons = [*_absent_hardware(source, host), *_absent_modules(source)]
    return " and ".join(dict.fromkeys(reasons))


def _absent_hardware(source: Source, host: Host) -> Iterable[str]:
    from blossom_edge.sensors.drivers.iio_device import devices
    from blossom_edge.sensors.drivers.sound_cards import recording_cards

    options, driver = source.options, source.driver
    if options.get("path"):  # a recording stands in for the hardware
        return
    if driver == "iio":
        wanted = options.get("device")
        if wanted not in {device.name for device in devices(host)} and not str(wanted).startswith("iio:"):
            yield f"the kernel has no IIO device {wanted}"
    elif driver in ("mpu6050", "adafruit"):
        bus = options.get("bus", 1 if driver == "mpu6050" else "i2c")
        if isinstance(bus, int) and not host.path(f"/dev/i2c-{bus}").exists():
            yield f"no /dev/i2c-{bus}"
    elif driver == "serial":
        if not host.path(str(options.get("port"))).exists():
            yield f"no {options.get('port')}"
    elif driver == "microphone":
        if not any(recording_cards(host)):
            yield "no sound card that records"
    elif driver == "camera" and options.get("backend", "opencv") == "opencv":
        device = options.get("device", 0)
        node = f"/dev/video{device}" if isinstance(device, int) else str(device)
        if not host.path(node).exists():
            yield f"no {node}"


def _absent_modules(source: Source) -> Iterable[str]:
    if source.driver == "camera" and source.options.get("backend") == "picamera2":
        if importlib.util.find_spec("picamera2") is None:
            yield "apt install python3-picamera2"
        return
    for module, extra in _MODULES.get(source.driver, ()):
        if importlib.util.find_spec(module) is None:
            yield f"pip install 'blossom-edge[{extra}]'"
    if source.driver == "adafruit":
        package = str(source.options.get("class", "")).replace(":", ".").partition(".")[0]
        if package and importlib.util.find_spec(package) is None:
            name = package.replace("adafruit_", "adafruit-circuitpython-", 1).replace("_", "-")
            yield f"pip install {name}"


def _board(board: Board) -> dict[str, Any]:
    return {
        "title": board.title,
        "compatible": list(board.compatible),
        "machine": board.machine,
        "ram_mb": board.ram_mb,
    }


def _entry(candidate: Candidate) -> dict[str, Any]:
    return {
        "id": candidate.profile.id,
        "title": candidate.profile.title,
        "of_board": candidate.of_board,
        "missing": list(candidate.missing),
    }
