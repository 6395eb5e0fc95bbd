"""Numbers from a microcontroller on a serial port, one sample a line, read with pyserial. Never writes to the port.

A line is `[COUNTER,]NUMBER,NUMBER,...[,LABEL][*XX]` in ASCII and ends with a line feed (a carriage return before it is
fine). How it is made up is told by the source:

    [[sensors.imu.sources]]
    driver = "serial"
    rate_hz = 100
    port = "/dev/ttyACM0"       # better one of /dev/serial/by-id/, which stays when another device is plugged in
    time = "us"                 # COUNTER: "ms" or "us" since the start, "sequence" 0, 1, 2...; "none": there is none
    columns = ["ax", "ay", "temp"]      # the NUMBERs; when missing, those channels that the federation asks for
    units = ["g", "g", "Cel"]   # per column, or one for all; when missing, those of the profile
    checksum = true             # XX has to be there: all bytes before the `*` by XOR, in hexadecimal (as NMEA 0183)
    label = "har"               # LABEL is the class of this task; empty: no label

A counter of 32 bits may begin at 0 again. Empty lines, lines with a `#` in front, and half a line at the start are
passed over; all others that do not fit are counted in `num_damaged` and dropped. `nan` is a number. An Arduino does it
this way:

    void setup() { Serial.begin(115200); }
    void loop() {
      static unsigned long due = micros();
      while ((long)(micros() - due) < 0) {}
      due += 10000;
      char text[64];
      int n = snprintf(text, sizeof text, "%lu,%d,%d", micros(), analogRead(A0), analogRead(A1));
      byte sum = 0;
      for (int i = 0; i < n; i++) sum ^= text[i];
      snprintf(text + n, sizeof text - n, "*%02X", sum);
      Serial.println(text);
    }
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Driver, Found, Host, Options, Request, Samples, failed, need
from blossom_edge.sensors.drivers.columns import choose_columns
from blossom_edge.sensors.drivers.device_time import BITS_32, COUNTED_DRIFT, CRYSTAL_DRIFT, DeviceTime
from blossom_edge.sensors.drivers.serial_frames import DamagedLine, Line, LineCutter, LineFormat
from blossom_edge.sensors.drivers.serial_ports import find_ports

log = logging.getLogger(__name__)

GATHER_S = 0.02
"""Above 50 lines a second those of so much time are read together: fewer wake-ups, no sample lost."""
SILENT_S, SILENT_PERIODS = 5.0, 20
"""A port without a good line for so long, and so many periods, has failed; opening it anew restarts many boards."""
MAX_READ_BYTES = 1 << 16


class SerialOptions(Options):
    """See the module. start_s: how long `open` waits for the first good line; 0: it does not wait."""

    port: Annotated[str, Field(pattern=r"^/")]
    baud: Annotated[int, Field(ge=300, le=4_000_000)] = 115200
    format: Literal["csv"] = "csv"
    time: Literal["ms", "us", "sequence", "none"] = "none"
    columns: tuple[str, ...] = ()
    units: str | tuple[str, ...] = ()
    checksum: bool = False
    label: str = ""
    start_s: Annotated[float, Field(ge=0, le=60)] = 3.0


class SerialDriver(Driver):
    """See the module. `num_damaged`: lines that were dropped since `open`."""

    Options = SerialOptions
    extra = "serial"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.options: SerialOptions
        self.num_damaged = 0
        self._columns = choose_columns(request, self.options.columns, self.options.units, driver="serial")
        self.units = self._columns.units or self.units
        self._format = LineFormat(
            len(self._columns.names),
            counter=self.options.time != "none",
            label=bool(self.options.label),
            checksum=self.options.checksum,
        )
        self._port: Any = None
        self._first: Samples | None = None

    def open(self) -> None:
        """Open the port and wait for the first good line.

        Raises:
            HardwareError: `sensor-missing`: no port, no right to it, another program has it, no good line.
            ConfigError: `package-missing`.
        """
        serial = need("serial", extra=self.extra)
        path = str(self.request.host.path(self.options.port))
        try:
            self._port = serial.Serial(path, self.options.baud, timeout=0.0, exclusive=True)
            self._port.reset_input_buffer()
        except (OSError, ValueError) as error:
            self.close()
            raise self._missing(*_explain(error, self.options.port)) from error
        clock = self.request.host.clock
        self.num_damaged, self._damage, self._first, self._count = 0, "", None, 0
        self._cutter, self._time = LineCutter(self._format.max_bytes), self._new_time()
        self._heard = started = clock()
        while self._first is None and (left := started + self.options.start_s - clock()) > 0:
            samples = self.read(min(left, 0.2))
            self._first = samples if len(samples) else None
        if self._first is None and self.options.start_s:
            self.close()
            raise self._missing(f"{self.options.port}: {self._silence(self.options.start_s)}", _WHAT_TO_SEE)

    def read(self, timeout_s: float) -> Samples:
        """The good lines that have come.

        Raises:
            HardwareError: `sensor-failed`: unplugged, or no good line for `SILENT_S` and `SILENT_PERIODS`.
        """
        if self._first is not None:
            samples, self._first = self._first, None
            return samples
        clock = self.request.host.clock
        try:
            data = self._receive(timeout_s)
        except (OSError, TypeError) as error:  # TypeError: pyserial's, for a port that is closed while it is read
            raise failed(self.request.sensor, f"{self.options.port}: {error}") from error
        now = clock()
        samples = self._samples(data, now)
        if len(samples):
            self._heard = now
        elif now - self._heard > (limit := max(SILENT_S, SILENT_PERIODS / self.rate_hz, self.options.start_s)):
            raise failed(self.request.sensor, f"{self.options.port}: {self._silence(limit)}")
        return samples

    def close(self) -> None:
        """Close the port."""
        port, self._port = self._port, None
        if port is not None:
            port.close()

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """Serial ports of USB devices, and others that pyserial knows; none is opened."""
        for port in find_ports(host):
            options = {"port": port.stable or port.device, "baud": SerialOptions.model_fields["baud"].default}
            note = "add time, columns and units as this device sends them"
            yield Found("serial", f"serial port {port.what}", "serial", 100.0, options, note=note)

    def _new_time(self) -> DeviceTime:
        if self.options.time in ("none", "sequence"):
            lag_s = max(0.1, 3 / self.rate_hz)
            return DeviceTime(1 / self.rate_hz, wrap=BITS_32, drift=COUNTED_DRIFT, max_lag_s=lag_s)
        return DeviceTime(1e-3 if self.options.time == "ms" else 1e-6, wrap=BITS_32, drift=CRYSTAL_DRIFT)

    def _receive(self, timeout_s: float) -> bytes:
        if self._port.timeout != timeout_s:
            self._port.timeout = timeout_s
        data: bytes = self._port.read(1)
        if not data:
            return b""
        try:
            if self.rate_hz * GATHER_S > 1:
                time.sleep(GATHER_S)
            while len(data) < MAX_READ_BYTES and (waiting := self._port.in_waiting):
                data += self._port.read(waiting)
        except OSError as error:  # what came before it counts; the next read meets the error again
            log.debug("%s: %s", self.options.port, error)
        return data

    def _samples(self, data: bytes, now: float) -> Samples:
        lines: list[Line] = []
        ticks: list[int] = []
        too_long = self._cutter.num_too_long
        for text in self._cutter.feed(data):
            try:
                line = self._format.read(text)
            except DamagedLine as error:
                self.num_damaged += 1
                self._count += 1
                self._damage = f"{text[:60]!r}: {error}"
                continue
            if line is not None:
                lines.append(line)
                ticks.append(self._count if line.tick is None else line.tick)
                self._count = (self._count + 1) % BITS_32
        if self._cutter.num_too_long > too_long:
            self.num_damaged += self._cutter.num_too_long - too_long
            self._damage = f"no end of a line within {self._format.max_bytes} bytes"
        if not lines:
            return Samples.nothing(self.request.width)
        times, rises = self._time.times(ticks, now)
        values = np.array([line.values for line in lines], dtype=np.float64)[:, self._columns.places]
        labels = {}
        if self.options.label:  # "nan" is no label in every kind of task
            labels[self.options.label] = np.array([line.label or "nan" for line in lines])[rises]
        return Samples(times[rises], values[rises], labels)

    def _silence(self, seconds: float) -> str:
        if self.num_damaged:
            return f"{self.num_damaged} lines and none as declared, for {seconds:g} s; the last: {self._damage}"
        return f"nothing came for {seconds:g} s"

    def _missing(self, why: str, hint: str) -> HardwareError:
        return HardwareError("sensor-missing", f"{self.request.sensor}: {why}", hint=hint)


_WHAT_TO_SEE = "hold baud, time, columns and checksum against what the device sends"


def _explain(error: Exception, port: str) -> tuple[str, str]:
    """What kept a port from being opened, and the next step."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"there is no {port}", "plug the device in; `blossom-edge sensors find` shows the ports"
    if number in (errno.EACCES, errno.EPERM):
        return f"{port} may not be opened by this user", "sudo usermod -aG dialout $USER, then log in anew"
    if number in (errno.EAGAIN, errno.EBUSY):
        return f"another program has {port}", "end it (a serial monitor, ModemManager)"
    return f"{port}: {error}", "see the plug and the cable"
