"""Asks every driver what it could read here, and writes the source lines that would do it. Opens no sensor for long."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from blossom_edge.core.errors import BlossomError
from blossom_edge.sensors.driver import Found, Host, driver_class, driver_names


@dataclass(frozen=True, slots=True)
class Search:
    """found: in the order of the drivers' names. silent: driver -> why it could not look."""

    found: tuple[Found, ...]
    silent: dict[str, str]


def find_sensors(host: Host, *, drivers: Iterable[str] = ()) -> Search:
    """What is here for all drivers known by name, and for `drivers` (names or `module:Class`) besides."""
    found: list[Found] = []
    silent: dict[str, str] = {}
    for name in dict.fromkeys([*driver_names(), *drivers]):
        try:
            found += driver_class(name).find(host)
        except BlossomError as error:
            silent[name] = str(error)
        except Exception as error:  # the outermost frame of ours around a driver of other people
            silent[name] = f"{type(error).__name__}: {error}"
    return Search(tuple(_without_doubles(found)), silent)


def _without_doubles(found: Iterable[Found]) -> Iterable[Found]:
    """All but those known by their address only which another driver knows."""
    found = list(found)
    known = {(f.options.get("bus"), f.options.get("address")) for f in found if not f.by_address}
    return [f for f in found if not (f.by_address and (f.options["bus"], f.options["address"]) in known)]


def source_lines(found: Found) -> list[str]:
    """What to write into a profile for it: the sensor with its channels, and the source."""
    lines = []
    if found.channels:
        lines.append(f"[sensors.{found.sensor}]")
        if found.shape:
            lines.append(f"shape = {_toml(found.shape)}")
        lines.append("channels = [")
        for name, unit, low, high in found.channels:
            lines.append(f'  {{ name = "{name}", unit = "{unit}", range = [{_toml(low)}, {_toml(high)}] }},')
        lines += ["]", ""]
    lines += [
        f"[[sensors.{found.sensor}.sources]]",
        f"driver = {_toml(found.driver)}",
        f"rate_hz = {_toml(float(found.rate_hz))}",
    ]
    lines += [f"{key} = {_toml(value)}" for key, value in found.options.items()]
    if found.note:
        lines.append(f"# {found.note}")
    return lines


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    raise TypeError(f"{value!r} has no form in TOML")
