"""Opens the sensors of a profile: simulated, replayed, or the first source of each that answers.

What simulates and replays is imported when it is used: a device with sensors of its own does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor
from blossom_edge.sensors.calibration import Calibration
from blossom_edge.sensors.driver import SIMULATED, Host
from blossom_edge.sensors.live import LiveSensor
from firmware_profiles.schema import Profile, ProfileSensor, Source

if TYPE_CHECKING:
    from blossom_edge.sensors.recordings import Recording
    from blossom_edge.sensors.simulated import SimulatedSensor


def open_sensors(
    profile: Profile,
    *,
    federation: Federation,
    mock: bool = False,
    replay: Path | None = None,
    seed: int = 0,
    speed: float | None = None,
    history_s: float = 120.0,
    host: Host | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> dict[str, Sensor]:
    """Open every sensor that the profile's modalities of this federation need, by name.

    A sensor whose sources do not answer is kept, closed, as long as another one answers: it says why when it is read,
    and may be opened later.

    `replay` is a person's recording, played at once unless `speed` says otherwise; `mock` simulates every sensor with
    `seed`, `history_s` at once and then in real time, or `speed` times as fast (0: the history only). Else the sources
    of the profile are tried in order on `host`, by default this machine.

    Raises:
        HardwareError: `sensor-missing`: no sensor answers; with each source that was tried and why it did not answer.
        ConfigError: `replay-invalid`, or `usage` for a wrong speed.
    """
    recording = _read(replay, federation) if replay is not None else None
    sensors: dict[str, Sensor] = {}
    absent: list[HardwareError] = []
    try:
        for name, needed in needed_channels(profile, federation).items():
            settings = profile.sensors[name]
            if recording is not None:
                pace = 0.0 if speed is None else speed
                sensors[name] = _replay(recording, settings, needed, speed=pace)
                sensors[name].open()
                continue
            pace = 1.0 if speed is None else speed
            live, simulated = ((), settings.sources[0]) if mock else split_sources(settings)
            if live:
                sensor = LiveSensor(
                    name,
                    settings,
                    sources=live,
                    needed=needed,
                    host=host or Host.here(),
                    calibration=(calibrations or {}).get(name),
                )
                sensors[name] = sensor
                try:
                    sensor.open()
                    continue
                except HardwareError as error:
                    if simulated is None:
                        absent.append(error)
                        continue
            if simulated is not None:
                sensors[name] = _simulate(
                    settings, simulated, needed, federation, seed=seed, speed=pace, history_s=history_s
                )
                sensors[name].open()
        if absent and len(absent) == len(sensors):
            raise absent[0]
    except BlossomError:
        close_sensors(sensors)
        raise
    return sensors


def close_sensors(sensors: Mapping[str, Sensor]) -> None:
    """Close all of them, also when one cannot be closed."""
    for sensor in sensors.values():
        try:
            sensor.close()
        except BlossomError:
            continue


def needed_channels(profile: Profile, federation: Federation | None) -> dict[str, tuple[str, ...]]:
    """Per sensor the channels that modalities of this federation take (None: all modalities), in the sensor's order."""
    wanted: dict[str, set[str]] = {}
    for name, modality in profile.modalities.items():
        if federation is None or name in federation.modalities:
            wanted.setdefault(modality.sensor, set()).update(modality.channels)
    return {
        name: tuple(channel.name for channel in profile.sensors[name].channels if channel.name in channels)
        for name, channels in sorted(wanted.items())
    }


def split_sources(settings: ProfileSensor) -> tuple[tuple[Source, ...], Source | None]:
    """The sources that are tried, and the one that simulates when none of these answers (None: there is none)."""
    live = tuple(itertools.takewhile(lambda source: not _simulates(source), settings.sources))
    return live, next((source for source in settings.sources if _simulates(source)), None)


def simulate_alone(settings: ProfileSensor, source: Source, needed: tuple[str, ...]) -> SimulatedSensor:
    """What a simulated or replayed source delivers, in real time and without a federation: no labels. Opens nothing.

    Raises:
        ConfigError: `profile-invalid`, `replay-invalid`.
    """
    from blossom_edge.sensors.simulated import SimulatedSensor

    return SimulatedSensor(_simulate(settings, source, needed, None, seed=0, speed=1.0, history_s=0.0), source)


def _read(path: Path, federation: Federation | None) -> Recording:
    """A recording; its labels must be some of the federation's, if there is one."""
    from blossom_edge.sensors.recordings import read_recording

    recording = read_recording(path)
    if federation is not None:
        _check_labels(recording, federation)
    return recording


def _replay(recording: Recording, sensor: ProfileSensor, needed: tuple[str, ...], *, speed: float) -> Sensor:
    from blossom_edge.sensors.replay import ReplaySensor

    return ReplaySensor(recording, sensor, needed=needed, speed=speed)


def _check_labels(recording: Recording, federation: Federation) -> None:
    for name, found in recording.label_names.items():
        task = federation.tasks.get(name)
        if task is not None and task.type == "classification" and not set(found) & set(task.classes):
            raise ConfigError(
                "replay-invalid",
                f"{recording.source}: labels/{name}: found {', '.join(found) or 'numbers'}, "
                f"expected some of {', '.join(task.classes)}",
            )


def _simulates(source: Source) -> bool:
    return source.driver in SIMULATED


def _simulate(
    sensor: ProfileSensor,
    source: Source,
    needed: tuple[str, ...],
    federation: Federation | None,
    *,
    seed: int,
    speed: float,
    history_s: float,
) -> Sensor:
    if source.driver == "replay":
        path = source.options.get("path")
        if not isinstance(path, str):
            raise ConfigError("profile-invalid", "driver replay: path is missing", hint="name a recording")
        return _replay(_read(Path(path), None), sensor, needed, speed=speed)
    from blossom_edge.sensors.synthetic import SyntheticSensor, SyntheticTask

    tasks = {
        name: SyntheticTask(task.type, len(task.classes), task.mean, task.spread)
        for name, task in (federation.tasks.items() if federation is not None else ())
    }
    return SyntheticSensor(
        sensor.channels,
        rate_hz=source.rate_hz,
        tasks=tasks,
        seed=seed,
        speed=speed,
        history_s=history_s,
        shape=sensor.shape,
    )
