"""A sensor on real hardware: a driver in a thread of its own, its samples converted and kept until they are asked for.

The thread reads on while the device trains, so that no kernel buffer overflows. Never judges the samples.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import BlossomError, HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.calibration import Calibration
from blossom_edge.sensors.driver import Driver, Host, Request, Samples, make_driver
from blossom_edge.sensors.units import conversion
from firmware_profiles.schema import ProfileSensor, Source

log = logging.getLogger("blossom_edge")
READ_S = 0.2
"""How long one read of a driver may wait."""
KEEP_S = 600.0
"""Samples that nobody asks for are kept this long; older ones are dropped, which shows as a gap."""
STOP_S = 5.0
"""How long `close` waits for the thread."""


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
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._samples: deque[Samples] = deque()
        self._error: BlossomError | None = None
        self._lock = threading.Lock()
        self._factor: NDArray[np.float64] = np.ones(1)
        self._offset: NDArray[np.float64] = np.zeros(1)

    @property
    def exhausted(self) -> bool:
        """Never: hardware has no end."""
        return False

    def open(self) -> None:
        """Open the first source that answers and begin to read it.

        Raises:
            HardwareError: `sensor-missing`, with each source that was tried and why it did not answer.
        """
        self.close()
        tried: list[str] = []
        for source in self._sources:
            driver: Driver | None = None
            try:
                driver = make_driver(self._request(source), source)
                driver.open()
                self._prepare(driver, source)
            except BlossomError as error:
                if driver is not None:
                    driver.close()
                hint = f" ({error.hint})" if error.hint else ""
                tried.append(f"{source.driver}: {error}{hint}")
                continue
            self.source, self.tried = source, tuple(tried)
            self._start(driver)
            return
        self.tried = tuple(tried)
        self._error = HardwareError(
            "sensor-missing",
            f"{self._name}: no source answered ({'; '.join(tried)})",
            hint="`blossom-edge sensors find` shows what is here; --mock simulates it",
        )
        raise self._error

    def read(self, now: float) -> Sequence[Reading]:
        """What has come; never waits. The error of the driver comes after its last samples."""
        with self._lock:
            samples, self._samples = list(self._samples), deque()
            error = None if samples else self._error
        if error is not None:
            raise HardwareError(error.error_id, str(error), hint=error.hint)
        return [self._reading(part) for part in samples if len(part)]

    def close(self) -> None:
        """Stop the thread and close the driver."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)
        if self._driver is not None:
            self._driver.close()
        self._driver, self._thread = None, None
        with self._lock:
            self._samples, self._error = deque(), None

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
        gain = float(source.options.get("gain", 1.0))
        if not (math.isfinite(gain) and gain != 0):
            raise HardwareError("sensor-missing", f"gain: found {gain:g}, expected a number other than 0")
        repeat = math.prod(self._settings.shape)
        self._factor = np.tile(np.array([factor / gain for factor, _ in pairs]), repeat)
        self._offset = np.tile(np.array([offset for _, offset in pairs]), repeat)
        self.rate_hz = driver.rate_hz

    def _start(self, driver: Driver) -> None:
        self._stop = threading.Event()
        self._driver = driver
        self._thread = threading.Thread(
            target=self._pump, args=(driver, self._stop), name=f"sensor {self._name}", daemon=True
        )
        self._thread.start()

    def _pump(self, driver: Driver, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                samples = driver.read(READ_S)
                if not len(samples):
                    continue
                with self._lock:
                    if stop.is_set():
                        return
                    self._samples.append(samples)
                    oldest = float(samples.times[-1]) - KEEP_S
                    while self._samples and float(self._samples[0].times[-1]) < oldest:
                        self._samples.popleft()
        except BlossomError as error:
            self._fail(error, stop)
        except Exception as error:  # the outermost loop of a thread that runs drivers of other people
            log.debug("driver failed", exc_info=True)
            why = f"{self._name}: {type(error).__name__}: {error}"
            self._fail(HardwareError("sensor-failed", why, hint="a fault in its driver?"), stop)

    def _fail(self, error: BlossomError, stop: threading.Event) -> None:
        with self._lock:
            if not stop.is_set():
                self._error = error

    def _reading(self, samples: Samples) -> Reading:
        values = samples.values * self._factor + self._offset
        if not self._settings.shape:
            values = self._calibration.apply(values, self.channels, self.units)
        labels: Mapping[str, NDArray[np.generic]] = samples.labels
        return Reading(samples.times, values, dict(labels))
