"""`blossom-edge sensors`: what hardware is here, what it delivers right now, and how it sits on this board."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blossom_edge.cli.options import data_dir_option, edge_folder, say_root, seconds_option
from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError

if TYPE_CHECKING:
    from blossom_edge.sensors.live import LiveSensor
    from blossom_edge.sensors.rest import Rest
    from blossom_edge.sensors.simulated import SimulatedSensor
    from firmware_profiles.schema import Profile

HERE = "blossom_edge.cli.sensors"
STEP_S = 0.5

sensors = LazyGroup(
    "sensors",
    help="The hardware of this board: find it, watch it, calibrate it.",
    targets={
        "find": (f"{HERE}:find", "Look for sensors and propose source lines for a profile."),
        "watch": (f"{HERE}:watch", "Show what the sensors of a profile deliver."),
        "calibrate": (f"{HERE}:calibrate", "Measure gyro bias and mounting of one sensor at rest."),
    },
)
profile_option = click.option("--profile", "profile_name", metavar="NAME", required=True, help="What this board is.")
sets_option = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the profile.")


@command(
    "find", has_json=True, example="blossom-edge sensors find\nblossom-edge sensors find --profile ./my-board.toml"
)
@click.option("--profile", "profile_name", metavar="NAME", help="Ask the drivers of this profile too.")
@click.option("--driver", "drivers", multiple=True, metavar="NAME", help="Ask this driver too, a name or module:Class.")
def find(out: Output, profile_name: str | None, drivers: tuple[str, ...]) -> None:
    """Look at the buses, IIO devices, sound cards, cameras and serial ports; each with a source line for a profile."""
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.sensors.driver import SIMULATED, Host
    from blossom_edge.sensors.finding import find_sensors, source_lines

    extra = list(drivers)
    if profile_name is not None:
        profile = profile_of(profile_name)
        extra += [source.driver for sensor in profile.sensors.values() for source in sensor.sources]
    host = Host.here()
    say_root(out, host)
    search = find_sensors(host, drivers=[name for name in extra if name not in SIMULATED])
    proposed = [f for f in search.found if f.is_proposal]
    notes = [f"{f.driver}: {f.what}{f'; {f.note}' if f.note else ''}" for f in search.found if not f.is_proposal]
    found = [
        {
            "driver": f.driver,
            "what": f.what,
            "sensor": f.sensor,
            "rate_hz": f.rate_hz,
            "options": dict(f.options),
            "channels": [list(channel) for channel in f.channels],
            "shape": list(f.shape),
            "note": f.note,
            "source": "\n".join(source_lines(f)),
        }
        for f in proposed
    ]
    out.json({"found": found, "notes": notes, "silent": search.silent})
    if not found:
        out.line("nothing found")
        out.note("see docs/hardware.md for wiring and overlays, or use --mock")
    for f in proposed:
        out.line(out.paint(f"{f.driver}: {f.what}", "strong"))
        for line in source_lines(f):
            out.line(f"  {line}" if line else "")
        out.line()
    for note in notes:
        out.note(note)
    for name, why in search.silent.items():
        out.note(f"{name} could not look: {why}")


@command("watch", has_json=True, example="blossom-edge sensors watch --profile jetson-imu --seconds 10")
@profile_option
@sets_option
@click.option("--sensor", "only", metavar="NAME", help="This sensor only.")
@seconds_option("Stop after so long [with --json 5, else Ctrl-C].")
@click.option("--id", "device", metavar="ID", help="Whose calibration to apply [profile and a part of the machine id].")
@data_dir_option
def watch(
    out: Output,
    profile_name: str,
    sets: tuple[str, ...],
    only: str | None,
    seconds: float | None,
    device: str | None,
    data_dir: Path | None,
) -> int:
    """Show each channel with its unit, range, bar and rate, until Ctrl-C.

    A simulated sensor is shown too. One that stops is opened again every 2 s, until it is back. Exit code 4 when one
    does not deliver at the end.
    """
    from blossom_edge.cli.joining import default_id
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.cli.sensor_view import SensorView
    from blossom_edge.sensors.calibration import read_calibrations

    profile = profile_of(profile_name, sets)
    folder = edge_folder(data_dir) / "devices" / (device or default_id(profile.id))
    opened, failed = _open(profile, only, read_calibrations(folder))
    for name, why in failed.items():
        out.warn(f"{name}: {why}")
    if not opened:
        raise HardwareError(
            "sensor-missing", "no sensor of this profile answers", hint="try `blossom-edge sensors find`"
        )
    limit = (5.0 if out.as_json else float("inf")) if seconds is None else seconds
    began, drawn = time.monotonic(), 0
    views: dict[str, SensorView] = {}
    for name, sensor in opened.items():
        ranges = [channel.range for channel in profile.sensors[name].channels if channel.name in sensor.channels]
        views[name] = SensorView(sensor, ranges, now=began)
    try:
        while time.monotonic() - began < limit:
            time.sleep(min(STEP_S, limit))
            for view in views.values():
                view.take(time.monotonic())
            if not out.as_json:
                lines = [line for name, view in views.items() for line in view.lines(name, out)]
                drawn = out.redraw(lines, drawn)
    except KeyboardInterrupt:
        out.line()
    finally:
        for view in views.values():
            view.close()
    out.json({"sensors": {name: view.summary() for name, view in views.items()}, "failed": failed})
    return 4 if failed or not all(view.delivers for view in views.values()) else 0


@command(
    "calibrate",
    has_json=True,
    example="blossom-edge sensors calibrate --profile jetson-imu --up +z\n"
    "blossom-edge sensors calibrate --profile jetson-imu --up +z --then-up +x",
)
@profile_option
@sets_option
@click.option("--sensor", "only", metavar="NAME", help="Which sensor, if the profile has several.")
@click.option("--up", metavar="AXIS", help="The device's axis that points up now: +z, -x, ...; without it: bias only.")
@click.option("--then-up", metavar="AXIS", help="A second position, asked for after the first: fixes the turn as well.")
@seconds_option("How long to measure.", default=3.0)
@click.option("--yes", is_flag=True, help="Do not wait for a key.")
@click.option("--id", "device", metavar="ID", help="Name of this device [profile and a part of the machine id].")
@data_dir_option
def calibrate(
    out: Output,
    profile_name: str,
    sets: tuple[str, ...],
    only: str | None,
    up: str | None,
    then_up: str | None,
    seconds: float,
    yes: bool,
    device: str | None,
    data_dir: Path | None,
) -> None:
    """Measure a sensor at rest: gyro bias, and how it is turned in the device. Kept for this board alone."""
    from blossom_edge.board.clock import UtcClock
    from blossom_edge.cli.joining import default_id
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.sensors import rest
    from blossom_edge.sensors.calibration import Calibration, keep_calibration
    from blossom_edge.sensors.driver import Host
    from blossom_edge.sensors.simulated import SimulatedSensor

    if then_up is not None and up is None:
        raise ConfigError("usage", "--then-up needs --up", hint="name the axis that points up first")
    wanted = [rest.axis(text) for text in (up, then_up) if text is not None]
    if len(wanted) == 2:
        rest.check_across(wanted[0], wanted[1])
    profile = profile_of(profile_name, sets)
    name = _one_sensor(profile, only)
    _check_units(profile, name, up=up is not None)
    opened, failed = _open(profile, name, {})
    if name in failed:
        raise HardwareError("sensor-missing", f"{name}: {failed[name]}", hint="try `blossom-edge sensors find`")
    sensor = opened[name]
    if isinstance(sensor, SimulatedSensor):
        raise ConfigError("usage", f"sensor {name} is simulated here", hint="only a real sensor can be calibrated")
    try:
        first = _measure(out, sensor, seconds, f"lay the device down{f', {up} up' if up else ''}", ask=not yes)
        second = None
        if then_up is not None:
            second = _measure(out, sensor, seconds, f"turn it until {then_up} points up", ask=not yes)
    finally:
        sensor.close()
    mount = None
    if wanted and first.up is not None:
        if second is not None and second.up is not None:
            mount = rest.mount_from_two(first.up, second.up, wanted=(wanted[0], wanted[1]))
        else:
            mount = rest.mount_from_one(first.up, wanted[0])
    made = Calibration(first.bias, mount, UtcClock(Host.here().root).utc_stamp())
    folder = edge_folder(data_dir) / "devices" / (device or default_id(profile.id))
    keep_calibration(folder, name, made)
    out.json({"sensor": name, "bias": first.bias, "mount": mount, "made_utc": made.made_utc, "folder": str(folder)})
    out.line(f"{name}: kept in {folder}; join and watch apply it from their next start on")
    out.table([(channel, f"{value:+.5f} rad/s") for channel, value in first.bias.items()], ["channel", "bias"])
    for row in mount or ():
        out.line("  ".join(f"{value:+.4f}" for value in row))


def _open(
    profile: Profile, only: str | None, calibrations: dict[str, Any]
) -> tuple[dict[str, LiveSensor | SimulatedSensor], dict[str, str]]:
    """The sensors as `join` would open them, and why others did not answer. Raises ConfigError."""
    from blossom_edge.sensors.driver import Host
    from blossom_edge.sensors.live import LiveSensor
    from blossom_edge.sensors.opening import close_sensors, needed_channels, simulate_alone, split_sources

    wanted = needed_channels(profile, None)
    if only is not None and only not in wanted:
        raise ConfigError("usage", f"no sensor {only!r} in {profile.id}", hint=f"there is {', '.join(wanted)}")
    opened: dict[str, LiveSensor | SimulatedSensor] = {}
    failed: dict[str, str] = {}
    try:
        for name, needed in wanted.items():
            if only not in (None, name):
                continue
            settings = profile.sensors[name]
            sources, simulated = split_sources(settings)
            try:
                if sources:
                    calibration = calibrations.get(name)
                    sensor = LiveSensor(
                        name, settings, needed=needed, host=Host.here(), sources=sources, calibration=calibration
                    )
                    sensor.open()
                    opened[name] = sensor
                    continue
            except HardwareError as error:
                if simulated is None:
                    failed[name] = str(error).removeprefix(f"{name}: ")
            if simulated is not None:
                opened[name] = simulate_alone(settings, simulated, needed)
                opened[name].open()
    except BlossomError:
        close_sensors(opened)
        raise
    return opened, failed


def _one_sensor(profile: Profile, only: str | None) -> str:
    names = sorted({modality.sensor for modality in profile.modalities.values()})
    if only is not None:
        return only
    if len(names) == 1:
        return names[0]
    inertial = [n for n in names if {c.unit for c in profile.sensors[n].channels} & {"m/s2", "rad/s"}]
    if len(inertial) == 1:
        return inertial[0]
    raise ConfigError("usage", f"{profile.id} has the sensors {', '.join(names)}", hint="choose one with --sensor")


def _check_units(profile: Profile, name: str, *, up: bool) -> None:
    """Whether this sensor has what is to be measured: said before anybody turns a board.

    Raises:
        ConfigError: `usage`.
    """
    from blossom_edge.sensors.opening import needed_channels

    needed = needed_channels(profile, None).get(name, ())
    if not needed:
        return  # there is no such sensor: `_open` says so
    units = [channel.unit for channel in profile.sensors[name].channels if channel.name in needed]
    if up and units.count("m/s2") != 3:
        why = f"--up: sensor {name} has {units.count('m/s2')} channels in m/s2, expected the 3 axes of an accelerometer"
        gyro = "rad/s" in units
        hint = "leave --up out: the gyroscope's bias alone is measured" if gyro else "choose another with --sensor"
        raise ConfigError("usage", why, hint=hint)
    if not up and "rad/s" not in units:
        why = f"sensor {name} has channels in {', '.join(dict.fromkeys(units))}, expected a gyroscope's in rad/s"
        hint = "say with --up how it lies" if "m/s2" in units else "only motion sensors are calibrated"
        raise ConfigError("usage", why, hint=hint)


def _measure(out: Output, sensor: LiveSensor | SimulatedSensor, seconds: float, wish: str, *, ask: bool) -> Rest:
    import numpy as np

    from blossom_edge.sensors.rest import at_rest

    if ask:
        click.prompt(f"{wish}, then press Enter", default="", show_default=False, err=True)
    began = time.monotonic()
    parts = []
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(STEP_S, left))
        out.progress(int(10 * (seconds - left)), int(10 * seconds), "measuring")
        for reading in sensor.read(time.monotonic()):  # also of before, while it was moved
            parts.append(reading.values[reading.times >= began])
    out.end_progress()
    values = np.concatenate(parts) if parts else np.zeros((0, len(sensor.channels)))
    return at_rest(values, sensor.channels, sensor.units)
