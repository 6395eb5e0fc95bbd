"""A board with fake hardware, made from a profile: every sensor that it names answers, and can be made to fail.

    with FakeBoard("jetson-imu", tmp_path) as board:
        board.activity = 2                       # what the wearer does: another pace and strength for each number
        sensor = board.sensor("imu")             # the real driver on the fake chip
        board.fakes["imu"].unplug()

`only` chooses the source where a profile names several: `only=["mpu6050"]` leaves the board without its IIO device.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from blossom_edge.client.fit import load_device_profile
from blossom_edge.sensors.base import Sensor
from blossom_edge.sensors.driver import ROOT_VARIABLE, Host
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.sensors.opening import needed_channels
from blossom_edge.sensors.recordings import read_recording
from blossom_edge.sensors.replay import ReplaySensor
from blossom_edge.sensors.units import STANDARD_GRAVITY, conversion
from blossom_edge.testing.conformance import Subject
from blossom_edge.testing.fake_ads1115 import FakeAds1115
from blossom_edge.testing.fake_i2c import FakeMpu6050
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import BME280, ICM42688, LSM6DSOX, MAX30102, MPU6050
from blossom_edge.testing.fake_serial import FakeSerial
from blossom_edge.testing.fake_smbus2 import install_fake_smbus2
from blossom_edge.testing.processes import Gateway, Process
from blossom_edge.testing.refusals import KitError, hints_shown
from firmware_profiles.schema import Profile, ProfileSensor, Source

PARTS = {part.name: part for part in (MPU6050, *LSM6DSOX, *ICM42688, MAX30102, BME280)}
KINDS = {"m/s2": "in_accel_", "rad/s": "in_anglvel_", "T": "in_magn_"}
ABI_SCALE = {"in_temp": 1000.0, "in_humidityrelative": 1000.0, "in_pressure": 0.001}
"""From SenML units to those of the IIO interface (Documentation/ABI/testing/sysfs-bus-iio)."""
AXES = "xyz"

Signal = Callable[[str, float], float]
"""(channel of the profile, seconds) -> value in the profile's unit."""


class FakeBoard:
    """A board whose hardware is fakes below `folder`, and I2C chips behind `smbus2` in this process.

    profile: a name, a path, or a loaded profile. signal: what its sensors measure; by default a person who does
    `activity`. media: sensor -> wav, video or folder of pictures that a microphone or camera plays.
    Faults are methods of `fakes[SENSOR]`. chips_only: only what is behind `smbus2`, for `run_on_fakes`.
    """

    def __init__(
        self,
        profile: str | Profile,
        folder: Path,
        *,
        only: Sequence[str] = (),
        sets: Sequence[str] = (),
        signal: Signal | None = None,
        media: Mapping[str, Path | str] | None = None,
        chips_only: bool = False,
    ) -> None:
        """Build it.

        Raises:
            ConfigError: `usage`: no source of a sensor can be faked, or nothing to play; those of the profile.
        """
        self.activity = 0
        self.name = profile if isinstance(profile, str) else profile.id
        self.profile = _profile(profile, sets) if isinstance(profile, str) else profile
        self.folder = folder
        self.host = Host(root=folder / "root")
        self.host.root.mkdir(parents=True, exist_ok=True)
        self.fakes: dict[str, Any] = {}
        self.sets = list(sets)
        self._only = tuple(only)
        self._chips_only = chips_only
        self._signal = signal or self._move
        self._media = {name: Path(path) for name, path in (media or {}).items()}
        self._stack = ExitStack()
        self._buses: dict[int, dict[int, Any]] = {}
        self._iio: FakeIio | None = None
        self._settings = dict(self.profile.sensors)
        try:
            for name in needed_channels(self.profile, None):
                self._add(name, self.profile.sensors[name])
            if self._buses:
                self._stack.enter_context(install_fake_smbus2(self._buses))
        except BaseException:
            self._stack.close()
            raise

    @property
    def inside(self) -> tuple[str, ...]:
        """Sensors whose chip is behind `smbus2` in this process: no other process sees them."""
        return tuple(name for name, fake in self.fakes.items() if isinstance(fake, FakeMpu6050 | FakeAds1115))

    @property
    def media_options(self) -> list[str]:
        """What a command on this board needs besides, to play the media: `--set=...`."""
        return [f"--set={text}" for text in self._media_sets()]

    def sensor(self, name: str) -> LiveSensor:
        """A sensor as `join` makes it, not open yet."""
        needed = needed_channels(self.profile, None)[name]
        return LiveSensor(name, self._settings[name], needed=needed, host=self.host)

    def subject(self, name: str, *, seconds: float = 1.0, **limits: float) -> Subject:
        """A sensor for the conformance suite; its plug can be pulled where the fake has one."""
        fake = self.fakes.get(name)
        unplug, replug = getattr(fake, "unplug", None), getattr(fake, "replug", None)
        return Subject(name, self._settings[name], self.host, unplug=unplug, replug=replug, seconds=seconds, **limits)

    def join(self, gateway: Gateway, *options: str, device: str | None = None) -> Process:
        """Start `blossom-edge join` on this board. Its I2C chips are made anew in that process."""
        command = [sys.executable, "-m", "blossom_edge.cli.main", "join"]
        if self._buses:
            spec = {"profile": self.name, "folder": str(self.folder / "i2c"), "only": self._only, "sets": self.sets}
            command[2:] = ["blossom_edge.cli.run_on_fakes", json.dumps({**spec, "activity": self.activity}), "join"]
        sets = [*(f"--set={text}" for text in self.sets), *self.media_options]
        env = {ROOT_VARIABLE: str(self.host.root)}
        return gateway.run(device or self.profile.id, command, "--profile", self.name, *sets, *options, env=env)

    def close(self) -> None:
        """End all fakes."""
        self._stack.close()

    def __enter__(self) -> FakeBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, name: str, sensor: ProfileSensor) -> None:
        makers: dict[str, Callable[[str, ProfileSensor, Source], Any]] = {
            "iio": self._add_iio,
            "mpu6050": self._add_mpu6050,
            "adafruit": self._add_adafruit,
            "serial": self._add_serial,
            "microphone": self._add_media,
            "camera": self._add_media,
        }
        if self._chips_only:
            makers = {driver: make for driver, make in makers.items() if driver in ("mpu6050", "adafruit")}
        for source in sensor.sources:
            if source.driver in makers and (not self._only or source.driver in self._only):
                fake = makers[source.driver](name, sensor, source)
                if fake is not None:
                    self.fakes[name] = fake
                    return
        if self._chips_only:
            return
        named = ", ".join(
            source.driver + "".join(f" {source.options[key]}" for key in ("device", "class") if key in source.options)
            for source in sensor.sources
        )
        only = f" among only={list(self._only)}" if self._only else ""
        raise KitError(
            "usage",
            f"sensor {name}: no fake for its sources ({named}){only}",
            hint=f"there are fakes for iio {', '.join(PARTS)}, mpu6050, adafruit ADS1115, serial, microphone, camera",
        )

    def _add_iio(self, name: str, sensor: ProfileSensor, source: Source) -> Any:
        part = PARTS.get(str(source.options.get("device")))
        if part is None:
            return None
        own = {str(abi): channel for channel, abi in dict(source.options.get("map", {})).items()}
        for channel in sensor.channels:
            if channel.unit in KINDS and channel.name[-1] in AXES:
                own.setdefault(KINDS[channel.unit] + channel.name[-1], channel.name)
        gain = float(source.options.get("gain", 1.0))

        def measure(abi: str, seconds: float) -> float:
            channel = own.get(abi)
            return 0.0 if channel is None else self._signal(channel, seconds) * ABI_SCALE.get(abi, 1.0) * gain

        if self._iio is None:
            self._iio = FakeIio(self.host.root)
            self._stack.callback(self._iio.close)
        return self._iio.add(part, measure)

    def _add_mpu6050(self, name: str, sensor: ProfileSensor, source: Source) -> Any:
        def measure(channel: str, seconds: float) -> float:
            return 25.0 if channel == "temp" else self._signal(channel, seconds)

        return self._on_bus(source, FakeMpu6050(measure), 0x68)

    def _add_adafruit(self, name: str, sensor: ProfileSensor, source: Source) -> Any:
        kind = str(source.options.get("class", ""))
        if kind.endswith(".MPU6050"):
            return self._add_mpu6050(name, sensor, source)
        if not kind.endswith(".ADS1115"):
            return None
        gain = float(source.options.get("gain", 1.0))
        pins = source.options.get("analog_in", [0])

        def volts(pin: int, seconds: float) -> float:
            for channel, wired in zip(sensor.channels, pins, strict=True):
                if pin == (wired[0] if isinstance(wired, list | tuple) else wired):
                    return self._signal(channel.name, seconds) * gain
            return 0.0

        return self._on_bus(source, FakeAds1115(volts), 0x48)

    def _on_bus(self, source: Source, chip: Any, usual: int) -> Any:
        """Put it where the source looks; None: on a bus that is no /dev/i2c-N."""
        bus = source.options.get("bus", 1 if source.driver == "mpu6050" else "i2c")
        address = int(source.options.get("address", usual))
        if not isinstance(bus, int):
            return None
        self._buses.setdefault(bus, {})[address] = chip
        return chip

    def _add_serial(self, name: str, sensor: ProfileSensor, source: Source) -> Any:
        options = source.options
        units = options.get("units") or [channel.unit for channel in sensor.channels]
        named = [units] * len(sensor.channels) if isinstance(units, str) else list(units)
        back = {c.name: conversion(c.unit, unit) for c, unit in zip(sensor.channels, named, strict=True)}

        def measure(channel: str, seconds: float) -> float:
            factor, offset = back[channel]
            return self._signal(channel, seconds) * factor + offset

        fake = FakeSerial(
            measure,
            source.rate_hz,
            path=self.host.path(str(options["port"])),
            channels=[channel.name for channel in sensor.channels],
            time=options.get("time", "none"),
            checksum=bool(options.get("checksum", False)),
        )
        self._stack.callback(fake.close)
        return fake

    def _add_media(self, name: str, sensor: ProfileSensor, source: Source) -> Any:
        """No fake of the hardware: the driver plays files instead."""
        if name not in self._media:
            files = "a .wav file" if source.driver == "microphone" else "a video or a folder of pictures"
            raise KitError(
                "usage",
                f"sensor {name}: nothing to play as its {source.driver}",
                hint=f"give media={{{name!r}: path}} of {files}",
            )
        options = {"path": str(self._media[name]), "loop": True}
        played = Source.model_validate({**source.model_dump(), **options})
        self._settings[name] = sensor.model_copy(update={"sources": (played,)})
        return self._media[name]

    def _media_sets(self) -> list[str]:
        """The same for a process: the sources of the profile, with what they play."""
        sets = []
        for name in self._media:
            if name in self.fakes:
                source = self._settings[name].sources[0].model_dump()
                fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items() if value is not None)
                sets.append(f"sensors.{name}.sources=[{{ {fields} }}]")
        return sets

    def _move(self, channel: str, seconds: float) -> float:
        """A person who does activity 0, 1, 2, ...: another pace, strength and posture for each."""
        k = self.activity
        found = [c for sensor in self.profile.sensors.values() for c in sensor.channels if c.name == channel]
        if not found:  # a chip measures more than the profile takes
            return 0.0
        unit, (low, high) = found[0].unit, found[0].range
        phase = 2 * math.pi * seconds * (0.5 + 0.45 * k) + sum(map(ord, channel))
        wave, tremor = math.sin(phase), math.sin(61.8 * seconds + 7 * math.sin(17.3 * seconds))
        if unit == "m/s2":
            lean = math.radians(25.0 * k)
            rest = {"z": math.cos(lean), "y": math.sin(lean)}.get(channel[-1], 0.0) * STANDARD_GRAVITY
            return rest + (0.2 + 0.8 * k) * wave + 0.05 * tremor
        if unit == "rad/s":
            return (0.05 + 0.5 * k) * wave + 0.01 * tremor
        if unit == "V":
            beat = (seconds * (1.0 + 0.2 * k)) % 1.0
            return 0.001 * math.exp(-(((beat - 0.3) / 0.02) ** 2)) + 1e-5 * tremor
        middle, half = (low + high) / 2, (high - low) / 2
        return middle + half * (0.2 * wave * (1 + k) / (2 + k) + 0.01 * tremor)


class RealBoard:
    """The machine that the tests run on, with `--board`: the same face as `FakeBoard`, without faults."""

    def __init__(self, profile: str) -> None:
        self.name = profile
        self.profile = _profile(profile)
        self.host = Host.here()
        self.fakes: dict[str, Any] = {}

    def sensor(self, name: str) -> LiveSensor:
        """A sensor as `join` makes it, not open yet."""
        needed = needed_channels(self.profile, None)[name]
        return LiveSensor(name, self.profile.sensors[name], needed=needed, host=self.host)

    def subject(self, name: str, *, seconds: float = 3.0) -> Subject:
        """A sensor for the conformance suite; nobody pulls its plug."""
        return Subject(name, self.profile.sensors[name], self.host, seconds=seconds)

    def join(self, gateway: Gateway, *options: str, device: str | None = None) -> Process:
        """Start `blossom-edge join` on this board."""
        return gateway.join(device or self.profile.id, "--profile", self.name, *options)


def open_trace(path: Path | str, profile: str, *, speed: float = 0.0) -> dict[str, Sensor]:
    """The sensors of a profile as players of a trace that `doctor --hil` wrote, open.

    Raises:
        ConfigError: `replay-invalid`; those of the profile.
    """
    loaded = _profile(profile)
    with hints_shown():
        recording = read_recording(Path(path))
    sensors: dict[str, Sensor] = {}
    for name, needed in needed_channels(loaded, None).items():
        sensors[name] = ReplaySensor(recording, loaded.sensors[name], needed=needed, speed=speed)
        sensors[name].open()
    return sensors


def _profile(name: str, sets: Sequence[str] = ()) -> Profile:
    with hints_shown():
        return load_device_profile(name, sets=sets)
