"""MPU-6050 and its relatives over I2C, without a driver of the kernel. Reads the chip's FIFO; needs no interrupt pin.

The FIFO, not one read per sample: a busy board that comes late by half a second loses nothing, no sample is taken
twice because two clocks drift, and five wake-ups per second do the work of a hundred. What the chip delivers stays as
it is: axes and signs are those of the kernel's driver inv_mpu6050, which turns nothing either.

Its numbers are in `mpu6050_registers`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Driver, Found, Host, Options, Request, Samples, failed
from blossom_edge.sensors.drivers.i2c import Bus, bus_numbers, explain, open_bus
from blossom_edge.sensors.drivers.mpu6050_registers import (
    ACCEL_CONFIG_2,
    ACCEL_STEPS,
    ADDRESSES,
    ALL_TO_FIFO,
    CHIPS,
    CLOCK_OF_GYRO,
    FIFO,
    FIFO_COUNT,
    FIFO_ENABLE,
    FIFO_ON,
    FIFO_RESET,
    FRAME,
    FRAMES_PER_READ,
    GYRO_STEPS,
    POWER_1,
    POWER_2,
    RESET,
    SAMPLE_RATE_DIVIDER,
    SLEEP,
    USER_CONTROL,
    WHO_AM_I,
    Chip,
    column,
    filter_setting,
    range_setting,
    rate_divider,
)

log = logging.getLogger(__name__)

_Floats = NDArray[np.float64]

_RESET_S, _RESET_LIMIT_S, _START_S = 0.1, 1.0, 0.1
_STALL_S = 1.0
_RESETS = 3


class Mpu6050Options(Options):
    """bus: N of /dev/i2c-N. dlpf: the filter register, 1 (188 Hz) to 6 (5 Hz); by default chosen by the rate."""

    bus: Annotated[int, Field(ge=0, le=1023)] = 1
    address: Literal[0x68, 0x69] = 0x68
    dlpf: Annotated[int, Field(ge=1, le=6)] | None = None


class Mpu6050Driver(Driver):
    """Channels by unit and last letter: m/s2 with x, y, z; rad/s with x, y, z; Cel.

    Times are those of the chip's samples on the host's clock, right within one sample period. A chip that lost its
    settings (a loose wire, a brown-out) is set up again, what it missed is a gap.
    """

    Options = Mpu6050Options
    extra = "i2c"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.chip: Chip | None = None
        """Which one answered."""
        self._columns = [column(channel.name, channel.unit) for channel in request.channels]
        divider = rate_divider(request.rate_hz)
        self.rate_hz = 1000 / (1 + divider)
        self._period = 1 / self.rate_hz
        limits = [(channel.unit, channel.range) for channel in request.channels]
        self._accel = range_setting((r for unit, r in limits if unit == "m/s2"), ACCEL_STEPS, "m/s2")
        self._gyro = range_setting((r for unit, r in limits if unit == "rad/s"), GYRO_STEPS, "rad/s")
        dlpf = self.options.dlpf or filter_setting(self.rate_hz)
        self._settings = bytes([divider, dlpf, self._gyro << 3, self._accel << 3])  # registers 0x19 to 0x1C
        self._scale, self._offset = np.ones(len(self._columns)), np.zeros(len(self._columns))
        self._bus: Bus | None = None
        self._address = self.options.address
        self._drained = self._newest = self._alive = 0.0
        self._resets = 0

    def open(self) -> None:
        """Find the chip, reset it and start its FIFO; takes about 0.2 s."""
        self.close()
        where = f"I2C bus {self.options.bus}, address {self._address:#x}"
        bus = open_bus(self.request.host, self.options.bus)
        try:
            found = bus.read_byte_data(self._address, WHO_AM_I)
            if found not in CHIPS:
                expected = ", ".join(f"{code:#x} ({chip.name})" for code, chip in CHIPS.items())
                raise HardwareError(
                    "sensor-missing",
                    f"{where}: found WHO_AM_I {found:#x}, expected {expected}",
                    hint="another chip needs another driver, for example adafruit",
                )
            chip = self.chip = CHIPS[found]
            self._bus = bus
            if found != 0x68:
                log.info("%s: the chip on %s is an %s", self.request.sensor, where, chip.name)
            self._set_up(bus, chip)
        except OSError as error:
            words, hint = explain(error)
            raise HardwareError("sensor-missing", f"{where}: {words}", hint=hint) from error
        finally:
            if self._bus is None:
                bus.close()
        scales, offsets = self._conversion(chip)
        self._scale, self._offset = scales[self._columns], offsets[self._columns]
        self._resets = 0

    def read(self, timeout_s: float) -> Samples:
        """What the chip has measured, several times per second; waits at most `timeout_s`."""
        bus, chip, clock = self._bus, self.chip, self.request.host.clock
        if bus is None or chip is None:
            raise failed(self.request.sensor, "not open")
        patience = 0.3 * chip.fifo_bytes / FRAME * self._period
        now = clock()
        self._pause(min(timeout_s, self._drained + patience - now))
        try:
            return self._drain(bus, chip)
        except OSError as error:
            raise failed(self.request.sensor, explain(error)[0]) from error

    def close(self) -> None:
        """Send the chip to sleep, if it still listens, and give the bus back."""
        bus, self._bus = self._bus, None
        if bus is not None:
            with contextlib.suppress(OSError):
                bus.write_byte_data(self._address, POWER_1, SLEEP)
            bus.close()

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """Chips of this family on all buses; reads one register at the two addresses that they can have.

        Raises:
            ConfigError: `package-missing`: there is a bus, but no smbus2.
        """
        for number in bus_numbers(host):
            try:
                bus = open_bus(host, number)
            except HardwareError as error:
                yield Found("mpu6050", f"I2C bus {number}: {error}", "imu", 100.0, {"bus": number}, note=error.hint)
                continue
            try:
                for address in ADDRESSES:
                    with contextlib.suppress(OSError):  # nothing there, or a driver of the kernel has it
                        chip = CHIPS.get(bus.read_byte_data(address, WHO_AM_I))
                        if chip is not None:
                            yield _found(chip, number, address)
            finally:
                bus.close()

    def _set_up(self, bus: Bus, chip: Chip) -> None:
        """Reset, wake, settings, FIFO. Raises OSError."""
        clock, address = self.request.host.clock, self._address
        bus.write_byte_data(address, POWER_1, RESET)
        end = clock() + _RESET_LIMIT_S
        while True:
            self._pause(_RESET_S)
            with contextlib.suppress(OSError):  # it need not answer while it resets
                if not bus.read_byte_data(address, POWER_1) & RESET:
                    break
            if clock() > end:
                raise OSError(errno.ETIMEDOUT, "the reset does not end")
        bus.write_byte_data(address, POWER_1, CLOCK_OF_GYRO)
        bus.write_byte_data(address, POWER_2, 0)
        for register, value in enumerate(self._settings, start=SAMPLE_RATE_DIVIDER):
            bus.write_byte_data(address, register, value)
        if chip.accel_filter:
            bus.write_byte_data(address, ACCEL_CONFIG_2, self._settings[1])
        self._pause(_START_S)  # the gyroscope starts in 60 to 80 ms
        self._start_fifo(bus)
        self._alive = self._newest

    def _start_fifo(self, bus: Bus) -> None:
        for register, value in (
            (FIFO_ENABLE, 0),
            (USER_CONTROL, FIFO_RESET),
            (USER_CONTROL, FIFO_ON),
            (FIFO_ENABLE, ALL_TO_FIFO),
        ):
            bus.write_byte_data(self._address, register, value)
        self._newest = self._drained = self.request.host.clock()

    def _drain(self, bus: Bus, chip: Chip) -> Samples:
        clock, address, nothing = self.request.host.clock, self._address, Samples.nothing(len(self._columns))
        before = clock()
        high, low = bus.read_i2c_block_data(address, FIFO_COUNT, 2)
        after = self._drained = clock()
        count = high << 8 | low
        frames = count // FRAME
        data = bytearray()
        overrun = count >= chip.fifo_bytes - 3 * FRAME  # as in the kernel: nearly full counts
        if not overrun:
            while len(data) < frames * FRAME:
                part = min(FRAMES_PER_READ, frames - len(data) // FRAME)
                data += bytes(bus.read_i2c_block_data(address, FIFO, part * FRAME))
        if bytes(bus.read_i2c_block_data(address, SAMPLE_RATE_DIVIDER, 4)) != self._settings:
            self._resets += 1
            if self._resets > _RESETS:
                raise OSError(errno.EIO, "it does not keep its settings")
            log.warning("%s: the %s lost its settings and is set up again", self.request.sensor, chip.name)
            self._set_up(bus, chip)
            return nothing
        if overrun:
            log.warning("%s: read too late, about %d samples are lost", self.request.sensor, frames)
            self._start_fifo(bus)
            return nothing
        if not frames:
            if after - self._alive > max(_STALL_S, 5 * self._period):
                raise OSError(errno.EIO, "it answers but measures nothing")
            return nothing
        self._alive, self._resets = after, 0
        raw = np.frombuffer(bytes(data), ">i2").reshape(frames, FRAME // 2)
        return Samples(self._times(frames, before, after), raw[:, self._columns] * self._scale + self._offset)

    def _times(self, frames: int, before: float, after: float) -> _Floats:
        """The newest sample is less than a period older than the look at the counter; the others go back evenly.

        Between these bounds the chip's nominal period counts, so that a late look moves no sample.
        """
        expected = self._newest + frames * self._period
        newest = max(min(max(expected, before - self._period), after), self._newest + 1e-6 * frames)
        times: _Floats = np.linspace(self._newest, newest, frames + 1)[1:]
        self._newest = newest
        return times

    def _conversion(self, chip: Chip) -> tuple[_Floats, ...]:
        per_degree, at_zero = chip.temperature
        accel, gyro = [ACCEL_STEPS[self._accel]] * 3, [GYRO_STEPS[self._gyro]] * 3
        return np.array([*accel, 1 / per_degree, *gyro]), np.array([0, 0, 0, at_zero, 0, 0, 0])

    @staticmethod
    def _pause(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


def _found(chip: Chip, bus: int, address: int) -> Found:
    channels = [(f"a{axis}", "m/s2", -39.2, 39.2) for axis in "xyz"]
    channels += [(f"g{axis}", "rad/s", -8.73, 8.73) for axis in "xyz"]
    what = f"{chip.name} on I2C bus {bus}, address {address:#x}"
    return Found("mpu6050", what, "imu", 100.0, {"bus": bus, "address": address}, tuple(channels))
