"""`blossom-edge profiles new`: writes a profile from another one and the sensors found. Never overwrites a file."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.sensors.driver import Found, Host
    from firmware_profiles.schema import Profile

FOLDER = Path("profiles")
NONE = "none"
WINDOW_S = 2.56
"""Length of a window proposed for a sensor that was found: 128 samples at 50 Hz."""
_FRAMED = {"microphone": ("audio", 98, 49), "camera": ("image", 1, 1)}
"""Driver -> modality, window and hop of what delivers frames: 98 spectra last a second, a picture is whole."""

_MOTION = frozenset(("m/s2", "rad/s"))


@command(
    "new",
    has_json=True,
    example="blossom-edge profiles new\nblossom-edge profiles new wrist --from rpi4-gyro --set compute.threads=2 --yes",
)
@click.argument("name", required=False)
@click.option("--from", "parent", metavar="NAME", help="Profile to start from; none: the sensors found [the best one].")
@click.option("--title", metavar="TEXT", help="One line for people.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A key that differs from that profile's.")
@click.option("--yes", is_flag=True, help="Ask nothing; NAME is needed.")
def new(out: Output, name: str | None, parent: str | None, title: str | None, sets: tuple[str, ...], yes: bool) -> int:
    """Write ./profiles/NAME.toml. What was not told is asked: the profile to start from, and the sensors found.

    Exit code 1 when the last question, whether to write it, is answered with no.
    """
    from blossom_edge.durable.files import atomic_write, make_folder
    from blossom_edge.sensors.driver import Host

    if yes and name is None:
        raise ConfigError("usage", "with --yes the profile needs a name", hint="blossom-edge profiles new NAME --yes")
    try:
        name = name or _ask("name of the profile", "my-board")
        file = _free(name)
        text = _compose(name, parent, title, sets, host=Host.here(), ask=not yes)
        profile = _checked(text, name)
        if not yes:
            out.note(f"\n{text}")
            yes = click.confirm(f"write {file}?", default=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise ConfigError(
            "usage", "no answers came and nothing was written", hint="give NAME, --from, --set and --yes"
        ) from None
    if not yes:
        out.json({"id": name, "path": None, "modalities": sorted(profile.modalities)})
        out.note("nothing was written")
        return 1
    make_folder(file.parent)
    _free(name)
    atomic_write(file, text.encode(), name="profile", mode=0o644)
    out.json({"id": name, "path": str(file), "modalities": sorted(profile.modalities)})
    out.line(f"wrote {file} ({', '.join(sorted(profile.modalities))})")
    out.note(f"next: blossom-edge sensors watch --profile {name}")
    return 0


def _ask(question: str, default: str) -> str:
    return str(click.prompt(question, default=default, err=True))


def _free(name: str) -> Path:
    """The file to be. Raises ConfigError `usage` when the name is none, or is taken."""
    from pydantic import TypeAdapter, ValidationError

    from firmware_profiles.loading import profile_folders
    from firmware_profiles.schema import ProfileId

    try:
        TypeAdapter(ProfileId).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            "usage", f"found the name {name!r}, expected small letters, digits and dashes", hint="for example my-board"
        ) from error
    file = FOLDER / f"{name}.toml"
    for folder in (FOLDER, *profile_folders()):
        taken = folder / file.name
        if taken.exists() or taken.is_symlink():
            raise ConfigError("usage", f"there is {taken} already", hint="choose another name; nothing is overwritten")
    return file


def _checked(text: str, name: str) -> Profile:
    from firmware_profiles.loading import ProfileError, check_profile_text

    try:
        return check_profile_text(text, name=name)
    except ProfileError as error:
        raise ConfigError(error.error_id, str(error), hint="nothing was written") from error


def _compose(name: str, parent: str | None, title: str | None, sets: Sequence[str], *, host: Host, ask: bool) -> str:
    from blossom_edge.cli.profile_detect import candidates
    from blossom_edge.cli.profiles import profile_of

    found = _found(host) if ask or parent == NONE else []
    if parent == NONE and not found:
        why = f"--from {NONE} makes a profile from the sensors that are found, and found none"
        raise ConfigError("usage", why, hint="see `blossom-edge sensors find`, or start from a profile")
    if parent is None:
        board, options = candidates(host, platform.machine())
        names = [candidate.profile.id for candidate in options]
        best = names[0] if names else "generic-mock"
        if ask:
            click.echo(f"this board: {board.title}; for it there are {', '.join(names) or 'no profiles'}", err=True)
            parent = _ask("start from which profile" + (f" ({NONE}: from the sensors found)" if found else ""), best)
        else:
            parent = best
    base = None if parent == NONE and found else profile_of(parent)
    if title is None:
        proposal = f"{name}: {base.title if base else 'a board of my own'}"
        title = _ask("title", proposal) if ask else proposal
    lines = ["schema = 1", f"title = {_quoted(title)}"]
    lines += [] if base is None else [f"extends = {_quoted(parent)}"]
    lines += _assignments(sets)
    first: dict[str, Found] = {}
    for entry in found:
        first.setdefault(entry.sensor, entry)
    taken: set[str] = set()
    for entry in found if ask else first.values():
        lines += _sensor(entry, base, taken, ask=ask)
    return "\n".join(lines) + "\n"


def _found(host: Host) -> list[Found]:
    """What `sensors find` finds; a driver that cannot look, for want of a package, is passed over."""
    from blossom_edge.sensors.finding import find_sensors

    return [found for found in find_sensors(host).found if found.is_proposal]


def _sensor(found: Found, base: Profile | None, taken: set[str], *, ask: bool) -> list[str]:
    """The lines for a sensor that the person wants: its source alone where the parent has the sensor, else all.

    taken: names of modalities that the file has already; grows.
    """
    from blossom_edge.sensors.finding import source_lines

    known = base is not None and found.sensor in base.sensors
    if not (known or found.channels):
        return []
    question = f"read sensor {found.sensor} from {found.driver}: {found.what}?"
    if ask and not click.confirm(question, default=True, err=True):
        return []
    lines = source_lines(found)
    if known:
        return ["", *lines[lines.index(f"[[sensors.{found.sensor}.sources]]") :]]
    return ["", *lines, *_modalities(found, taken)]


def _modalities(found: Found, taken: set[str]) -> list[str]:
    """One modality for each unit: an IMU is accel and gyro. One for all channels of what delivers frames.

    The temperature of a chip that measures motion is none: it corrects the chip, and nothing is learned from it.
    """
    if found.driver in _FRAMED:
        name, window, hop = _FRAMED[found.driver]
        return _modality(name, found, [channel for channel, *_ in found.channels], window, hop)
    lines: list[str] = []
    units = list(dict.fromkeys(unit for _, unit, _, _ in found.channels))
    if _MOTION.intersection(units):
        units = [unit for unit in units if unit != "Cel"]
    for number, unit in enumerate(units, start=1):
        name = {"m/s2": "accel", "rad/s": "gyro"}.get(unit) or found.sensor + (f"-{number}" if len(units) > 1 else "")
        window = max(2, round(WINDOW_S * found.rate_hz))
        name = f"{found.sensor}-{name}"[:31] if name in taken else name
        taken.add(name)
        channels = [channel for channel, other, _, _ in found.channels if other == unit]
        lines += _modality(name, found, channels, window, window // 2)
    return lines


def _modality(name: str, found: Found, channels: Sequence[str], window: int, hop: int) -> list[str]:
    return [
        "",
        f"[modalities.{name}]",
        f"sensor = {_quoted(found.sensor)}",
        f"channels = [{', '.join(map(_quoted, channels))}]",
        f"rate_hz = {found.rate_hz:g}",
        f"window = {window}",
        f"hop = {hop}",
        *(() if found.driver in _FRAMED else ('preprocess = ["resample"]',)),
    ]


def _assignments(sets: Sequence[str]) -> list[str]:
    """`--set a.b=1` as dotted keys, which stand before all tables; arrays of tables cannot be told so."""
    lines = []
    for text in sets:
        key, equals, value = text.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path) or not all(part.replace("_", "").replace("-", "").isalnum() for part in path):
            raise ConfigError("usage", f"--set {text}: expected KEY=VALUE, for example limits.train_nice=5")
        if path[0] in ("schema", "id", "title", "extends", "abstract", "tier"):
            raise ConfigError("usage", f"--set {text}: {path[0]} has its own option, or none")
        lines.append(f"{'.'.join(path)} = {_value(value.strip())}")
    return lines


def _value(text: str) -> str:
    """The value as TOML: a bare word becomes text, as with `join --set`."""
    from firmware_profiles.loading import is_toml_value

    return text if is_toml_value(text) else _quoted(text)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
