"""`blossom-edge sensors`: what hardware is here, what it delivers right now, and how it sits on this board."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError, HardwareError

if TYPE_CHECKING:
    from blossom_edge.sensors.live import LiveSensor
    from blossom_edge.sensors.rest import Rest
    from firmware_profiles.schema import Profile, ProfileSensor

HERE = "blossom_edge.cli.sensors"
STEP_S = 0.5
BAR = 20

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
    search = find_sensors(Host.here(), drivers=[name for name in extra if name not in SIMULATED])
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
@click.option("--seconds", type=float, metavar="S", help="Stop after so long [with --json 5, else Ctrl-C].")
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
    """Show each channel with its unit, range, bar and rate, until Ctrl-C. Exit code 4 when a sensor did not deliver."""
    from blossom_edge.cli.join import default_id
    from blossom_edge.cli.profiles import profile_of
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
    views = {name: _View(sensor, profile.sensors[name]) for name, sensor in opened.items()}
    began, drawn = time.monotonic(), 0
    try:
        while time.monotonic() - began < limit:
            time.sleep(min(STEP_S, limit))
            for view in views.values():
                view.take()
            if not out.as_json:
                lines = [line for name, view in views.items() for line in view.lines(name, out)]
                drawn = out.redraw(lines, drawn)
    except KeyboardInterrupt:
        out.line()
    finally:
        for sensor in opened.values():
            sensor.close()
    out.json({"sensors": {name: view.summary() for name, view in views.items()}, "failed": failed})
    return 4 if failed or any(view.why or not view.count for view in views.values()) else 0


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
@click.option("--seconds", type=float, default=3.0, show_default=True, metavar="S", help="How long to measure.")
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
    from blossom_edge.cli.join import default_id
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.sensors import rest
    from blossom_edge.sensors.calibration import Calibration, keep_calibration
    from blossom_edge.sensors.driver import Host

    if then_up is not None and up is None:
        raise ConfigError("usage", "--then-up needs --up", hint="name the axis that points up first")
    wanted = [rest.axis(text) for text in (up, then_up) if text is not None]
    profile = profile_of(profile_name, sets)
    name = _one_sensor(profile, only)
    opened, failed = _open(profile, name, {})
    if name in failed:
        raise HardwareError("sensor-missing", failed[name], hint="try `blossom-edge sensors find`")
    sensor = opened[name]
    try:
        first = _measure(out, sensor, seconds, f"lay the device down{f', {up} up' if up else ''}", ask=not yes)
        second = None
        if then_up is not None:
            second = _measure(out, sensor, seconds, f"turn it until {then_up} points up", ask=not yes)
    finally:
        sensor.close()
    mount = None
    if wanted and first.up is None:
        raise ConfigError("usage", f"--up: sensor {name} has no three channels in m/s2", hint="leave it out")
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


class _View:
    """What one sensor delivered lately."""

    def __init__(self, sensor: LiveSensor, settings: ProfileSensor) -> None:
        self._sensor = sensor
        self._ranges = [channel.range for channel in settings.channels if channel.name in sensor.channels]
        self._times: list[float] = []
        self._last: Any = None
        self.count = 0
        self.why = ""

    def take(self) -> None:
        """Read what has come."""
        try:
            for reading in self._sensor.read(time.monotonic()):
                self.count += len(reading)
                self._times = [*self._times, *reading.times.tolist()][-5000:]
                self._last = reading.values
                self.why = ""
        except HardwareError as error:
            self.why = str(error)
        newest = self._times[-1] if self._times else 0.0
        self._times = [t for t in self._times if t > newest - 2.0]

    @property
    def rate_hz(self) -> float:
        """Samples per second over the last two seconds."""
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])

    def lines(self, name: str, out: Output) -> list[str]:
        """One line for the sensor, some for what is wrong, and one per channel (the first eight); none is too long."""
        source = self._sensor.source.driver if self._sensor.source is not None else "-"
        head = f"{name} ({source}): {self.rate_hz:.1f} of {self._sensor.rate_hz:g} Hz, {self.count} samples"
        lines = [out.paint(head[: out.width], "strong")]
        lines += [out.paint(line, "bad") for line in textwrap.wrap(self.why, out.width - 2, initial_indent="  ")]
        if self._last is None:
            return lines
        width = self._last.shape[1] // len(self._ranges)
        for i, (channel, unit) in enumerate(list(zip(self._sensor.channels, self._sensor.units, strict=True))[:8]):
            low, high = self._ranges[i]
            values = self._last[:, i :: len(self._ranges)]
            value = float(values.mean())
            place = min(BAR - 1, max(0, int((value - low) / (high - low) * BAR)))
            bar = "." * place + "#" + "." * (BAR - 1 - place)
            what = f"{unit}, mean of {width}" if width > 1 else unit
            lines.append(f"  {channel:<8} {low:>8.5g} [{bar}] {high:<8.5g} {value:>10.4g} {what}"[: out.width])
        return lines

    def summary(self) -> dict[str, Any]:
        """For --json."""
        last = None if self._last is None else self._last[-1][: len(self._ranges)].tolist()
        return {
            "rate_hz": round(self.rate_hz, 2),
            "wanted_hz": self._sensor.rate_hz,
            "samples": self.count,
            "source": self._sensor.source.driver if self._sensor.source is not None else None,
            "channels": list(self._sensor.channels),
            "units": list(self._sensor.units),
            "last": last,
            "failed": self.why,
        }


def _open(
    profile: Profile, only: str | None, calibrations: dict[str, Any]
) -> tuple[dict[str, LiveSensor], dict[str, str]]:
    from blossom_edge.sensors.driver import Host
    from blossom_edge.sensors.live import LiveSensor
    from blossom_edge.sensors.opening import needed_channels

    wanted = needed_channels(profile, None)
    if only is not None and only not in wanted:
        raise ConfigError("usage", f"no sensor {only!r} in {profile.id}", hint=f"there is {', '.join(wanted)}")
    opened: dict[str, LiveSensor] = {}
    failed: dict[str, str] = {}
    for name, needed in wanted.items():
        if only not in (None, name):
            continue
        sensor = LiveSensor(
            name, profile.sensors[name], needed=needed, host=Host.here(), calibration=calibrations.get(name)
        )
        try:
            sensor.open()
            opened[name] = sensor
        except HardwareError as error:
            failed[name] = str(error)
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


def _measure(out: Output, sensor: LiveSensor, seconds: float, wish: str, *, ask: bool) -> Rest:
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
