"""Which sound cards can record here, from /proc/asound (Linux, ALSA) and PortAudio. Opens no card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Host, need

SERVERS = ("default", "pipewire", "pulse")
"""Names of ALSA devices that are no card: what the desktop, or an asoundrc, made the input."""

_CARD = re.compile(r"^\s*(\d+) \[(\S+)\s*\]: (.+?) - (.+)$")
_PCM = re.compile(r"^(\d+)-\d+:.*: capture \d+\s*$")


@dataclass(frozen=True, slots=True)
class Card:
    """number: ALSA's, may change at each start. id: ALSA's short name. driver, name: what it says of itself."""

    number: int
    id: str
    driver: str
    name: str


def recording_cards(host: Host) -> Iterator[Card]:
    """Cards with a capture stream; where /proc/asound/pcm cannot be read, all cards."""
    text = _read(host, "/proc/asound/cards")
    pcm = _read(host, "/proc/asound/pcm")
    able = {int(match[1]) for line in pcm.splitlines() if (match := _PCM.match(line))}
    for line in text.splitlines():
        match = _CARD.match(line)
        if match and (not pcm or int(match[1]) in able):
            yield Card(int(match[1]), match[2], match[3], match[4].strip())


def named_inputs(host: Host) -> Iterator[str]:
    """Those of `SERVERS` that PortAudio knows as an input here; none where sounddevice or PortAudio is missing."""
    if host.root != Path("/"):
        return
    try:
        sounddevice = need("sounddevice", extra="audio")
    except ConfigError:
        return
    for device in sounddevice.query_devices():
        if device["name"] in SERVERS and device["max_input_channels"] > 0:
            yield str(device["name"])


def _read(host: Host, path: str) -> str:
    try:
        return host.path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
