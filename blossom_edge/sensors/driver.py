"""What a driver is: one way to read one sensor. Drivers are found by name; none is imported before it is asked for.

    class Thermistor(PolledDriver):
        def sample(self) -> list[float]:
            return [20.0 + read_my_adc() / 10]

A profile names it as `driver = "my_module:Thermistor"`, or by the name of an entry point of the group
`blossom_edge.drivers`.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from blossom_edge.core.errors import ConfigError, HardwareError
from firmware_profiles.schema import ProfileChannel, Source
from firmware_profiles.wording import option_faults

ROOT_VARIABLE = "BLOSSOM_ROOT"
ENTRY_POINTS = "blossom_edge.drivers"
BUILT_IN: Mapping[str, str] = {
    "adafruit": "blossom_edge.sensors.drivers.adafruit:AdafruitDriver",
    "camera": "blossom_edge.sensors.drivers.camera:CameraDriver",
    "iio": "blossom_edge.sensors.drivers.iio:IioDriver",
    "microphone": "blossom_edge.sensors.drivers.microphone:MicrophoneDriver",
    "mpu6050": "blossom_edge.sensors.drivers.mpu6050:Mpu6050Driver",
    "mqtt-topic": "blossom_edge.sensors.drivers.mqtt_topic:MqttTopicDriver",
    "serial": "blossom_edge.sensors.drivers.serial:SerialDriver",
}
SIMULATED = ("replay", "synthetic")
"""Named in profiles like drivers, but on a clock of their own: see `opening`."""

OptionsT = TypeVar("OptionsT", bound="Options")


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that carries the sensors. `root` stands before /sys, /proc and /dev; `clock` is monotonic seconds."""

    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def here(cls) -> Host:
        """The machine we run on; a folder named in BLOSSOM_ROOT stands in for its root in tests.

        Raises:
            ConfigError: `usage`: there is no such folder.
        """
        root = Path(os.environ.get(ROOT_VARIABLE) or "/").absolute()
        if not root.is_dir():
            why = f"{ROOT_VARIABLE}: found no folder {root}, expected one that stands in for /"
            raise ConfigError("usage", why, hint=f"unset {ROOT_VARIABLE} to use this machine's own hardware")
        return cls(root)

    def path(self, absolute: str) -> Path:
        """Where a file such as `/dev/ttyACM0` really is."""
        return self.root / absolute.lstrip("/")


class Options(BaseModel):
    """The driver's own keys of a source. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls: type[OptionsT], values: Mapping[str, Any], where: str) -> OptionsT:
        """Check the options of a source.

        Raises:
            ConfigError: `profile-invalid`, with each key, what was found and what was expected.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            known = sorted(field.alias or name for name, field in cls.model_fields.items())
            faults = option_faults(error.errors(include_url=False), values, known)
            found = "; ".join(f"{key}: {what}" if key else what for key, what in faults)
            raise ConfigError(
                "profile-invalid", f"{where}: {found}", hint=f"options of this driver: {', '.join(known) or 'none'}"
            ) from error


@dataclass(frozen=True, slots=True)
class Request:
    """What a driver is made from: the sensor as the profile declares it, and one of its sources.

    channels: the columns wanted, in this order. shape: of one sample of one channel, () for a number.
    options: the source's keys beside `driver`, `rate_hz` and `gain`.
    """

    sensor: str
    channels: tuple[ProfileChannel, ...]
    rate_hz: float
    shape: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    host: Host = field(default_factory=Host)

    @property
    def width(self) -> int:
        """Numbers per sample."""
        return int(np.prod(self.shape, dtype=int)) * len(self.channels)


@dataclass(frozen=True, slots=True)
class Samples:
    """Consecutive samples: times (n,) monotonic seconds, values (n, width) float64 in the driver's units.

    labels: task -> (n,) class names or numbers, where the source carries labels itself.
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def nothing(cls, width: int) -> Samples:
        """No sample came."""
        return cls(np.zeros(0), np.zeros((0, width)))


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of hardware that a driver could read, with the source line that would do it.

    what: for people. sensor: a proposed name. options: the driver's keys. channels: (name, unit, low, high) each.
    shape: of one sample of a channel, () for a number. note: what to do or to know first. by_address: only something
    that answers; dropped where another driver knows the chip. Without options and channels it proposes nothing.
    """

    driver: str
    what: str
    sensor: str = "sensor"
    rate_hz: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[tuple[str, str, float, float], ...] = ()
    note: str = ""
    shape: tuple[int, ...] = ()
    by_address: bool = False

    @property
    def is_proposal(self) -> bool:
        """Whether a source can be written for it; else it is only something to know."""
        return bool(self.options or self.channels)


class Driver(ABC):
    """Reads one sensor. Used from one thread at a time; after `close` it may be opened again."""

    Options: ClassVar[type[Options]] = Options
    extra: ClassVar[str] = ""
    """The extra of this package that brings what the driver imports."""

    def __init__(self, request: Request) -> None:
        """Check the options; touches no hardware.

        Raises:
            ConfigError: `profile-invalid`.
        """
        self.request = request
        self.options: Any = self.Options.read(request.options, f"sensor {request.sensor}")
        self.rate_hz = request.rate_hz
        """Samples per second as the source really gives them; right once it is open."""
        self.units: tuple[str, ...] = tuple(channel.unit for channel in request.channels)
        """The unit of each channel as this driver delivers it; another than the profile's is converted."""

    @abstractmethod
    def open(self) -> None:
        """Begin to deliver.

        Raises:
            HardwareError: `sensor-missing`: nothing answers.
            ConfigError: `package-missing`, `profile-invalid`.
        """

    @abstractmethod
    def read(self, timeout_s: float) -> Samples:
        """What has come since the last call; waits at most `timeout_s` for it.

        Raises:
            HardwareError: `sensor-failed`: it delivers no more.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop. May be called twice, and after a failed `open`."""

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """The hardware on this machine that this driver could read; opens as little as it can."""
        return ()


class PolledDriver(Driver):
    """A sensor that is asked for each sample. Override `sample`, and `open` and `close` where there is something to do.

    Samples are taken at the source's rate on the host's clock. A late one is taken at once, those missed are left out,
    and the next one comes when it would have come anyway.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._due: float | None = None

    @abstractmethod
    def sample(self) -> Sequence[float]:
        """One sample, in the order of the channels. An OSError means that the sensor is gone."""

    def open(self) -> None:
        """Nothing to open."""
        self._due = None

    def close(self) -> None:
        """Nothing to close."""

    def read(self, timeout_s: float) -> Samples:
        """The samples that fall due within `timeout_s`."""
        clock, period = self.request.host.clock, 1.0 / self.rate_hz
        end = clock() + timeout_s
        times: list[float] = []
        rows: list[Sequence[float]] = []
        while True:
            now = clock()
            due = self._due = now if self._due is None else self._due
            if due > now:
                if due > end:
                    self._pause(end - now)
                    break
                self._pause(due - now)
            taken = clock()
            try:
                rows.append(self.sample())
            except OSError as error:
                if rows:  # first what was read before; the next call meets the error again
                    break
                raise failed(self.request.sensor, error) from error
            times.append(taken)
            self._due = due + period * max(1, math.ceil((taken - due) / period))
        values = np.array(rows, dtype=np.float64).reshape(len(rows), self.request.width)
        return Samples(np.array(times), values)

    @staticmethod
    def _pause(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


def failed(sensor: str, why: object) -> HardwareError:
    """The error of a sensor that was there and is not any more."""
    return HardwareError("sensor-failed", f"{sensor}: {why}", hint="see the plug and the cable; it is tried again")


def need(module: str, *, extra: str, note: str = "") -> Any:
    """Import a third-party module, now that a driver is opened.

    Raises:
        ConfigError: `package-missing`, with the extra to install.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library behind it is missing
        hint = f"pip install 'blossom-edge[{extra}]'" + (f"; {note}" if note else "")
        raise ConfigError("package-missing", f"{module} cannot be imported: {error}", hint=hint) from error


def driver_class(name: str) -> type[Driver]:
    """The class behind a driver's name: built in, of an entry point, or `module:Class`.

    Raises:
        ConfigError: `profile-invalid`: there is no such driver, or it is none.
    """
    target = BUILT_IN.get(name) or (name if ":" in name else _entry_points().get(name))
    if target is None:
        known = [*BUILT_IN, *SIMULATED, *_entry_points()]
        near = difflib.get_close_matches(name, known, 1)
        raise ConfigError(
            "profile-invalid",
            "there is no such driver" + (f", did you mean {near[0]!r}?" if near else ""),
            hint=f"there are {', '.join(sorted(known))}",
        )
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "profile-invalid", f"{target} cannot be imported: {error}", hint="is its folder in PYTHONPATH?"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise ConfigError("profile-invalid", f"{target} is no Driver", hint="derive it from blossom_edge's Driver")
    return found


def driver_names() -> tuple[str, ...]:
    """Names of all drivers that can be asked for here, built in and of entry points, sorted."""
    return tuple(sorted({*BUILT_IN, *_entry_points()}))


def make_driver(request: Request, source: Source) -> Driver:
    """The driver of one source.

    Raises:
        ConfigError: `profile-invalid`: no such driver, or wrong options.
    """
    return driver_class(source.driver)(request)


def gain_of(source: Source) -> float:
    """What the values of a source are divided by.

    Raises:
        ConfigError: `profile-invalid`: not a number, or 0.
    """
    gain = source.options.get("gain", 1.0)
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not math.isfinite(gain) or gain == 0:
        raise ConfigError("profile-invalid", f"gain: found {gain!r}, expected a number other than 0")
    return float(gain)


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
