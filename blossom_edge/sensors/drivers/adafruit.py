"""One adapter for all CircuitPython drivers: the class, its attributes, their units. Knows no chip itself.

    [[sensors.imu.sources]]
    driver = "adafruit"
    rate_hz = 50
    class = "adafruit_lsm6ds.lsm6dsox.LSM6DSOX"
    bus = 1
    address = 0x6A
    read = ["acceleration[0]", "acceleration[1]", "acceleration[2]", "gyro[0]", "gyro[1]", "gyro[2]"]
    setup = { accelerometer_range = 2 }

A voltage of an ADS1115 is `class = "adafruit_ads1x15.ads1115.ADS1115"` with `analog_in = [0]`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Found, Host, Options, PolledDriver, Request, failed, need
from blossom_edge.sensors.drivers.adafruit_chips import find_chips
from blossom_edge.sensors.drivers.i2c import CircuitBus
from blossom_edge.sensors.units import check_units

_READ = re.compile(r"([A-Za-z_][\w.]*)(?:\[(\d+)\])?")
Pin = Annotated[int, Field(ge=0, le=7)]
_CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*$"


class AdafruitOptions(Options):
    """The keys of such a source.

    bus: N of /dev/i2c-N, which needs no knowledge of the board; "i2c" is the bus that Blinka takes for the board's.
    read: one attribute per channel, with an index into it where it is a tuple. analog_in: instead of it, one input of
    an analog-to-digital converter per channel, or two for their difference. setup: attributes to set once.
    units: of channels that the driver delivers in another unit than the profile's, such as "hPa" or "uT".
    """

    class_: Annotated[str, Field(alias="class", pattern=_CLASS)]
    bus: Annotated[int, Field(ge=0, le=1023)] | Literal["i2c"] = "i2c"
    address: Annotated[int, Field(ge=0x08, le=0x77)] | None = None
    read_: Annotated[tuple[Annotated[str, Field(pattern=rf"^{_READ.pattern}$")], ...], Field(alias="read")] = ()
    analog_in: tuple[Pin | tuple[Pin, Pin], ...] = ()
    setup: dict[str, int | float | str] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_one_way(self) -> AdafruitOptions:
        if bool(self.read_) == bool(self.analog_in):
            raise ValueError("give either read or analog_in")
        return self


class AdafruitDriver(PolledDriver):
    """Asks the CircuitPython driver at the source's rate. Up to about 100 Hz: it reads each group of axes by itself.

    An attribute is read once per sample, also when several channels index it. None, which some drivers give while they
    are not ready, becomes NaN.
    """

    Options = AdafruitOptions
    extra = "adafruit"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        options: AdafruitOptions = self.options
        names = [channel.name for channel in request.channels]
        ways = len(options.read_) or len(options.analog_in)
        if ways != len(names) or request.shape:
            raise ConfigError(
                "profile-invalid",
                f"sensor {request.sensor}: found {ways} values to read, expected one for each of {', '.join(names)}",
            )
        strange = sorted(set(options.units) - set(names))
        if strange:
            raise ConfigError(
                "profile-invalid",
                f"sensor {request.sensor}: units of {', '.join(strange)}, expected some of {', '.join(names)}",
            )
        self.units = tuple(options.units.get(channel.name, channel.unit) for channel in request.channels)
        check_units(request, self.units)
        self._bus: Any = None
        self._getters: list[Callable[[], Any]] = []
        self._places: list[tuple[int, int | None]] = []

    def open_bus(self) -> Any:
        """The bus for the CircuitPython driver, like `busio.I2C`. Override it to bring your own.

        Raises:
            ConfigError: `package-missing`.
            HardwareError: `sensor-missing`: no such bus.
        """
        if isinstance(self.options.bus, int):
            return CircuitBus(self.request.host, self.options.bus)
        try:
            return need("board", extra="adafruit").I2C()
        except (NotImplementedError, AttributeError, ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())[:200]
            raise HardwareError(
                "sensor-missing",
                f"Blinka knows no I2C bus of this board: {words}",
                hint="give the bus its number, N of /dev/i2c-N: bus = 1",
            ) from error

    def open(self) -> None:
        """Import the driver's module, make it and apply `setup`."""
        self.close()
        super().open()
        options: AdafruitOptions = self.options
        make = _load(options.class_)
        self._bus = self.open_bus()
        keys = {} if options.address is None else {"address": options.address}
        try:
            device = make(self._bus, **keys)
            for name, value in options.setup.items():
                self._set(device, name, value)
            self._prepare(device)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            at = "" if options.address is None else f" at {options.address:#x}"
            raise HardwareError(
                "sensor-missing",
                f"{options.class_}{at}: {' '.join(str(error).split())}",
                hint="see the wires, the bus and the address",
            ) from error

    def sample(self) -> Sequence[float]:
        """One value per channel."""
        if not self._getters:
            raise failed(self.request.sensor, "not open")
        try:
            found = [get() for get in self._getters]
            picked = [found[n] if i is None else found[n][i] for n, i in self._places]
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise failed(self.request.sensor, f"{self.options.class_}: {error}") from error
        return [float("nan") if value is None else float(value) for value in picked]

    def close(self) -> None:
        """Give a bus with a number back; the board's own one stays open for others."""
        bus, self._bus = self._bus, None
        self._getters = []
        if isinstance(bus, CircuitBus):
            with contextlib.suppress(OSError):
                bus.deinit()

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """What answers at the usual addresses of chips that we can name; reads a byte there and writes nothing.

        Raises:
            ConfigError: `package-missing`: there is a bus, but no smbus2.
        """
        return find_chips(host)

    def _set(self, device: Any, name: str, value: int | float | str) -> None:
        if not hasattr(device, name):
            raise self._wrong(f"setup: {self.options.class_} has no attribute {name}")
        try:
            setattr(device, name, value)
        except AttributeError as error:
            raise self._wrong(f"setup: {name} of {self.options.class_} can be read only") from error

    def _prepare(self, device: Any) -> None:
        options: AdafruitOptions = self.options
        if options.analog_in:
            analog_in = _load(options.class_.split(".")[0].split(":")[0] + ".analog_in.AnalogIn")
            inputs = [analog_in(device, *((pins,) if isinstance(pins, int) else pins)) for pins in options.analog_in]
            self._getters = [functools.partial(getattr, i, "voltage") for i in inputs]
            self._places = [(n, None) for n in range(len(inputs))]
            return
        paths: list[str] = []
        self._places = []
        for text in options.read_:
            match = _READ.fullmatch(text)
            path, index = (match[1], match[2]) if match else (text, None)
            if path not in paths:
                if not hasattr(type(device), path.split(".")[0]) and not hasattr(device, path.split(".")[0]):
                    raise self._wrong(f"read: {options.class_} has no attribute {path}")
                paths.append(path)
            self._places.append((paths.index(path), None if index is None else int(index)))
        self._getters = [functools.partial(operator.attrgetter(path), device) for path in paths]

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError("profile-invalid", f"sensor {self.request.sensor}: {what}")


def _load(path: str) -> Any:
    """The class behind `module.Class` or `module:Class`."""
    module, _, name = path.replace(":", ".").rpartition(".")
    package = module.split(".")[0].replace("adafruit_", "adafruit-circuitpython-", 1).replace("_", "-")
    try:
        return getattr(need(module, extra="adafruit", note=f"and pip install {package}"), name)
    except AttributeError as error:
        raise ConfigError("profile-invalid", f"class: module {module} has no {name}") from error
    except NotImplementedError as error:
        words = " ".join(str(error).split())[:200]
        raise HardwareError("sensor-missing", f"{module}: Blinka does not know this board: {words}") from error
