"""Which cameras are here, read from /sys/class/video4linux (Linux). Opens none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from blossom_edge.sensors.driver import Host

CODECS = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpi-hevc", "rpivid")
"""Nodes of a Raspberry Pi that convert pictures and take none."""
PI_CSI = ("unicam", "rp1-cfe")
"""The CSI receivers of Raspberry Pi 4 and 5: their raw pictures need libcamera."""
JETSON_CSI = "vi-output"


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """device: a path, or for a CSI camera its number. name: what the driver says. backend: how it is read."""

    device: int | str
    name: str
    backend: str


def find_cameras(host: Host) -> Iterator[FoundCamera]:
    """Cameras in the order of their nodes. A node whose index is not 0 carries metadata, not pictures."""
    folder = host.path("/sys/class/video4linux")
    nodes = sorted((int(m[1]) for n in _names(host) if (m := re.fullmatch(r"video(\d+)", n))), key=int)
    stable = _links(host)
    num_pi, num_jetson = 0, 0
    for number in nodes:
        try:
            name = (folder / f"video{number}" / "name").read_text(encoding="utf-8", errors="replace").strip()
            index = (folder / f"video{number}" / "index").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if name.startswith(PI_CSI):
            if not num_pi:  # a receiver has many nodes; how many cameras there are only libcamera knows
                yield FoundCamera(0, name, "picamera2")
            num_pi += 1
        elif index != "0" or name.startswith(CODECS):
            continue
        elif name.startswith(JETSON_CSI):
            yield FoundCamera(num_jetson, name, "gstreamer")
            num_jetson += 1
        elif host.path(f"/dev/video{number}").exists():
            yield FoundCamera(stable.get(f"video{number}", f"/dev/video{number}"), name, "opencv")


def _names(host: Host) -> list[str]:
    try:
        return [entry.name for entry in host.path("/sys/class/video4linux").iterdir()]
    except OSError:
        return []


def _links(host: Host) -> dict[str, str]:
    """Node -> its link below /dev/v4l/by-id, which stays when another camera is plugged in."""
    try:
        links = sorted(host.path("/dev/v4l/by-id").iterdir())
        return {link.resolve().name: f"/dev/v4l/by-id/{link.name}" for link in links}
    except OSError:
        return {}
