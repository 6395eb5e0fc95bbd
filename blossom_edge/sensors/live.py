"""A sensor on real hardware: a driver in a thread of its own, its samples converted and kept until they are asked for.

The thread reads on while the device trains, so that no kernel buffer overflows. It closes the driver itself: nobody
else is in a library of other people at the same time. Never judges the samples.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.calibration import Calibration
from blossom_edge.sensors.driver import Driver, Host, Request, Samples, gain_of, make_driver
from blossom_edge.sensors.units import conversion
from firmware_profiles.schema import ProfileSensor, Source

log = logging.getLogger("blossom_edge")
READ_S = 0.2
"""How long one read of a driver may wait."""
KEEP_S = 600.0
"""Samples that nobody asks for are kept this long ..."""
KEEP_BYTES = 64 * 1024 * 1024
"""... and no more than this of them; older ones are dropped, which shows as a gap. Matters for images only."""
STOP_S = 5.0
"""How long `close` waits for the thread; a driver that comes back later is closed then."""


class LiveSensor:
    """One sensor of a profile, read through the first of its sources that answers. Each `open` tries them anew.

    needed: the channels to deliver, in the profile's order (for a framed sensor all of them). sources: those to try,
    by default all of the profile.
    A gain in a source divides its values before they are converted to the profile's units.
    """

    live = True

    def __init__(
        self,
        name: str,
        settings: ProfileSensor,
        *,
        needed: Sequence[str],
        host: Host,
        sources: Sequence[Source] = (),
        calibration: Calibration | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._sources = tuple(sources) or settings.sources
        self._host = host
        self._channels = tuple(c for c in settings.channels if c.name in needed)
        self._calibration = calibration or Calibration()
        self.channels = tuple(channel.name for channel in self._channels)
        self.units = tuple(channel.unit for channel in self._channels)
        self.rate_hz = self._sources[0].rate_hz
        self.source: Source | None = None
        """The source that answered."""
        self.tried: tuple[str, ...] = ()
        """Sources that did not answer at the last `open`, with the reason."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._readings: deque[Reading] = deque()
        self._num_bytes = 0
        self._error: BlossomError | None = None
        self._lock = threading.Lock()
        self._factor: NDArray[np.float64] = np.ones(1)
        self._offset: NDArray[np.float64] = np.zeros(1)

    @property
    def exhausted(self) -> bool:
        """Never: hardware has no end."""
        return False

    def open(self) -> None:
        """Open the first source that answers and begin to read it. May take as long as its drivers do.

        Raises:
            HardwareError: `sensor-missing`, with each source that was tried and why it did not answer;
                `sensor-failed`: its thread of before still hangs in a driver.
            ConfigError: `profile-invalid`: every source failed because the profile is wrong.
        """
        self.close()
        if self._thread is not None:
            why = f"{self._name}: its driver does not come back from a call"
            self._error = HardwareError("sensor-failed", why, hint="pull the plug and put it back; it is tried again")
            raise self._error
        tried: list[str] = []
        wrong: list[BlossomError] = []
        for source in self._sources:
            driver: Driver | None = None
            try:
                driver = make_driver(self._request(source), source)
                driver.open()
                self._prepare(driver, source)
            except BlossomError as error:
                why = f"{error} ({error.hint})" if error.hint else str(error)
                wrong += [error] if error.error_id == "profile-invalid" else []
            except Exception as error:  # the outermost frame of ours around a driver of other people
                log.debug("driver cannot be opened", exc_info=True)
                why = f"{type(error).__name__}: {error}"
            else:
                self.source, self.tried = source, tuple(tried)
                self._start(driver)
                return
            if driver is not None:
                _release(driver)
            tried.append(f"{source.driver}: {why}")
        self.tried = tuple(tried)
        self._error = self._none_opened(tried, wrong)
        raise self._error

    def _none_opened(self, tried: Sequence[str], wrong: Sequence[BlossomError]) -> BlossomError:
        if len(wrong) == len(tried):
            pairs = zip(self._sources, wrong, strict=True)
            why = "; ".join(f"{source.driver}: {str(error).removeprefix(self._prefix)}" for source, error in pairs)
            return ConfigError("profile-invalid", self._prefix + why, hint=wrong[0].hint)
        return HardwareError(
            "sensor-missing",
            f"{self._name}: no source answered ({'; '.join(tried)})",
            hint="`blossom-edge sensors find` shows what is here; --mock simulates it",
        )

    @property
    def _prefix(self) -> str:
        """How the drivers begin what they say of a profile."""
        return f"sensor {self._name}: "

    def read(self, now: float) -> Sequence[Reading]:
        """What has come; never waits. The error of the driver comes after its last samples."""
        with self._lock:
            readings, self._readings, self._num_bytes = list(self._readings), deque(), 0
            error = None if readings else self._error
        if error is not None:
            raise HardwareError(error.error_id, str(error), hint=error.hint)
        return readings

    def close(self) -> None:
        """Stop the thread, which closes the driver; waits for it, but not for long."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
            if not self._thread.is_alive():
                self._thread = None
        with self._lock:
            self._readings, self._num_bytes, self._error = deque(), 0, None

    def _request(self, source: Source) -> Request:
        options = {key: value for key, value in source.options.items() if key != "gain"}
        return Request(
            sensor=self._name,
            channels=self._channels,
            rate_hz=source.rate_hz,
            shape=self._settings.shape,
            options=options,
            host=self._host,
        )

    def _prepare(self, driver: Driver, source: Source) -> None:
        pairs = [conversion(found, channel.unit) for found, channel in zip(driver.units, self._channels, strict=True)]
        gain = gain_of(source)
        repeat = math.prod(self._settings.shape)
        self._factor = np.tile(np.array([factor / gain for factor, _ in pairs]), repeat)
        self._offset = np.tile(np.array([offset for _, offset in pairs]), repeat)
        self.rate_hz = driver.rate_hz

    def _start(self, driver: Driver) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._pump, args=(driver, self._stop), name=f"sensor {self._name}", daemon=True
        )
        self._thread.start()

    def _pump(self, driver: Driver, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                samples = driver.read(READ_S)
                if len(samples):
                    self._keep(self._reading(samples), stop)
        except BlossomError as error:
            self._fail(error, stop)
        except Exception as error:  # the outermost loop of a thread that runs drivers of other people
            log.debug("driver failed", exc_info=True)
            why = f"{self._name}: {type(error).__name__}: {error}"
            self._fail(HardwareError("sensor-failed", why, hint="a fault in its driver?"), stop)
        finally:
            _release(driver)

    def _keep(self, reading: Reading, stop: threading.Event) -> None:
        with self._lock:
            if stop.is_set():
                return
            self._readings.append(reading)
            self._num_bytes += reading.values.nbytes
            oldest = float(reading.times[-1]) - KEEP_S
            while len(self._readings) > 1 and (
                self._num_bytes > KEEP_BYTES or float(self._readings[0].times[-1]) < oldest
            ):
                self._num_bytes -= self._readings.popleft().values.nbytes

    def _fail(self, error: BlossomError, stop: threading.Event) -> None:
        with self._lock:
            if not stop.is_set():
                self._error = error

    def _reading(self, samples: Samples) -> Reading:
        """In the profile's units. Raises HardwareError: the driver does not deliver what `Samples` says."""
        expected = (len(samples), len(self._factor))
        if samples.values.shape != expected or any(len(kept) != len(samples) for kept in samples.labels.values()):
            why = f"{self._name}: found values of shape {samples.values.shape}, expected {expected}, and as many labels"
            raise HardwareError("sensor-failed", why, hint="a fault in its driver?")
        values = samples.values * self._factor + self._offset
        if self._settings.shape:  # frames are large, and windows are float32 anyway
            return Reading(samples.times, values.astype(np.float32), dict(samples.labels))
        return Reading(samples.times, self._calibration.apply(values, self.channels, self.units), dict(samples.labels))


def _release(driver: Driver) -> None:
    """Close a driver, whatever it thinks of it."""
    try:
        driver.close()
    except Exception:  # the outermost frame of ours around a driver of other people
        log.debug("driver cannot be closed", exc_info=True)
