"""Opens the sensors of a profile: simulated, replayed, or the first source of each that answers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor
from blossom_edge.sensors.recordings import Recording, read_recording
from blossom_edge.sensors.replay import ReplaySensor
from blossom_edge.sensors.synthetic import SyntheticSensor, SyntheticTask
from firmware_profiles.schema import Profile, ProfileSensor, Source

LATER_DRIVERS = ("ads1115", "iio", "mpu6050")
"""Drivers that shipped profiles name and that this version does not have yet."""
DRIVERS = ("synthetic",)


def open_sensors(
    profile: Profile,
    *,
    federation: Federation,
    mock: bool = False,
    replay: Path | None = None,
    seed: int = 0,
    speed: float | None = None,
    history_s: float = 120.0,
) -> dict[str, Sensor]:
    """Open every sensor that the profile's modalities of this federation need, by name.

    `replay` is a person's recording, played at once unless `speed` says otherwise; `mock` simulates every sensor with
    `seed`, `history_s` at once and then in real time, or `speed` times as fast (0: the history only).

    Raises:
        HardwareError: `sensor-missing`, with each source that was tried and why it did not answer.
        ConfigError: `replay-invalid`, or `usage` for a wrong speed.
    """
    recording = read_recording(replay) if replay is not None else None
    if recording is not None:
        _check_labels(recording, federation)
    sensors: dict[str, Sensor] = {}
    try:
        for name, needed in _needed(profile, federation).items():
            settings = profile.sensors[name]
            sensor: Sensor
            if recording is not None:
                sensor = ReplaySensor(recording, settings, needed=needed, speed=0.0 if speed is None else speed)
            elif mock:
                pace = 1.0 if speed is None else speed
                sensor = _synthetic(
                    settings, settings.sources[0], federation, seed=seed, speed=pace, history_s=history_s
                )
            else:
                pace = 1.0 if speed is None else speed
                sensor = _first_that_answers(name, settings, federation, seed=seed, speed=pace, history_s=history_s)
            sensor.open()
            sensors[name] = sensor
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


def _needed(profile: Profile, federation: Federation) -> dict[str, tuple[str, ...]]:
    """Per sensor the channels that modalities of this federation take, in the sensor's order."""
    wanted: dict[str, set[str]] = {}
    for name, modality in profile.modalities.items():
        if name in federation.modalities:
            wanted.setdefault(modality.sensor, set()).update(modality.channels)
    return {
        name: tuple(channel.name for channel in profile.sensors[name].channels if channel.name in channels)
        for name, channels in sorted(wanted.items())
    }


def _check_labels(recording: Recording, federation: Federation) -> None:
    for name, found in recording.label_names.items():
        task = federation.tasks.get(name)
        if task is not None and task.type == "classification" and not set(found) & set(task.classes):
            raise ConfigError(
                "replay-invalid",
                f"{recording.source}: labels/{name}: found {', '.join(found) or 'numbers'}, "
                f"expected some of {', '.join(task.classes)}",
            )


def _first_that_answers(
    name: str, sensor: ProfileSensor, federation: Federation, *, seed: int, speed: float, history_s: float
) -> Sensor:
    tried: list[str] = []
    for source in sensor.sources:
        if source.driver == "synthetic":
            return _synthetic(sensor, source, federation, seed=seed, speed=speed, history_s=history_s)
        tried.append(f"{source.driver}: {_why_not(source)}")
    raise HardwareError(
        "sensor-missing",
        f"{name}: no source answered ({'; '.join(tried)})",
        hint="use --mock or --replay",
    )


def _why_not(source: Source) -> str:
    if source.driver in LATER_DRIVERS:
        return "this driver comes in a later version"
    near = difflib.get_close_matches(source.driver, [*DRIVERS, *LATER_DRIVERS], 1)
    return f"there is no such driver, did you mean {near[0]!r}?" if near else "there is no such driver"


def _synthetic(
    sensor: ProfileSensor, source: Source, federation: Federation, *, seed: int, speed: float, history_s: float
) -> Sensor:
    tasks = {
        name: SyntheticTask(task.type, len(task.classes), task.mean, task.spread)
        for name, task in federation.tasks.items()
    }
    return SyntheticSensor(
        sensor.channels, rate_hz=source.rate_hz, tasks=tasks, seed=seed, speed=speed, history_s=history_s
    )
