"""Opens an I2C bus by its number: as smbus2 sees it, and as CircuitPython's drivers want it. Knows no chip."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Host, need

BLOCK = 32
"""Most bytes in one block transfer of SMBus."""
_MAINBOARD = re.compile(r"SMBus .*adapter.* at ")  # Linux, drivers/i2c/busses: i2c-i801.c, i2c-piix4.c and others


class Bus(Protocol):
    """What we use of `smbus2.SMBus`. Each call may raise OSError: 121 nothing answers at this address."""

    def read_byte(self, address: int) -> int:
        """One byte, of whatever register the chip stands at; nothing is written."""
        ...

    def read_byte_data(self, address: int, register: int) -> int:
        """One register."""
        ...

    def write_byte_data(self, address: int, register: int, value: int) -> None:
        """Set one register."""
        ...

    def read_i2c_block_data(self, address: int, register: int, length: int) -> list[int]:
        """`length` bytes, at most 32, beginning at a register."""
        ...

    def close(self) -> None:
        """Give the bus back."""
        ...


def open_bus(host: Host, number: int) -> Bus:
    """The bus behind /dev/i2c-N.

    Raises:
        ConfigError: `package-missing`.
        HardwareError: `sensor-missing`: there is no such bus, or we may not use it.
    """
    path = host.path(f"/dev/i2c-{number}")
    smbus2 = need("smbus2", extra="i2c")
    try:
        bus: Bus = smbus2.SMBus(str(path))
    except OSError as error:
        raise HardwareError("sensor-missing", f"{path}: {error.strerror or error}", hint=_hint(error)) from error
    return bus


def bus_numbers(host: Host) -> Iterator[int]:
    """Numbers of the buses of this machine on which sensors may be looked for, rising.

    Without those of a PC's mainboard: reading may lock up a clock chip at 0x69 there (i2cdetect(8), option -r).
    """
    found = (re.fullmatch(r"i2c-(\d+)", path.name) for path in host.path("/dev").glob("i2c-*"))
    for number in sorted(int(match[1]) for match in found if match):
        if not _MAINBOARD.match(_name(host, number)):
            yield number


def who_answers(bus: Bus, addresses: Iterable[int]) -> dict[int, bool]:
    """Reads one byte at each address, as `i2cdetect -r` does: those that answer, and whether we may speak to them.

    What a driver of the kernel holds answers, too, but not to us.
    """
    found = {}
    for address in addresses:
        try:
            bus.read_byte(address)
            found[address] = True
        except OSError as error:
            if error.errno == errno.EBUSY:
                found[address] = False
    return found


def explain(error: OSError) -> tuple[str, str]:
    """What an error of a transfer means, and what to do: (words, hint)."""
    if error.errno in (errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT):
        return f"nothing answers ({error.strerror or error})", "see the wires: 3V3, GND, SDA, SCL, and the address"
    if error.errno == errno.EBUSY:
        return "a driver of the kernel holds this address", "read it with the driver iio"
    return str(error), "see the plug and the cable"


class CircuitBus:
    """A bus as drivers of CircuitPython want it (`busio.I2C`), on any Linux bus by number, without pins or a board.

    Writing nothing, which those drivers do to see who answers, reads a byte instead: not every adapter can send
    an empty message.
    """

    def __init__(self, host: Host, number: int) -> None:
        """Open /dev/i2c-N; raises like `open_bus`."""
        self._bus: Any = open_bus(host, number)
        self._message: Any = need("smbus2", extra="i2c").i2c_msg
        self._locked = False

    def try_lock(self) -> bool:
        """Take the bus, unless somebody has it."""
        free = not self._locked
        self._locked = True
        return free

    def unlock(self) -> None:
        """Give it back."""
        self._locked = False

    def scan(self) -> list[int]:
        """The addresses that answer."""
        return [address for address in range(0x08, 0x78) if self._answers(address)]

    def writeto(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        """Send buffer[start:end]."""
        data = bytes(buffer[start:end])
        if data:
            self._bus.i2c_rdwr(self._message.write(address, data))
        else:
            self._bus.read_byte(address)

    def readfrom_into(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        """Fill buffer[start:end]."""
        end = len(buffer) if end is None else end
        message = self._message.read(address, end - start)
        self._bus.i2c_rdwr(message)
        buffer[start:end] = bytes(message)

    def writeto_then_readfrom(
        self,
        address: int,
        out_buffer: Any,
        in_buffer: Any,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
    ) -> None:
        """Send one buffer and fill another one, nothing in between."""
        in_end = len(in_buffer) if in_end is None else in_end
        message = self._message.read(address, in_end - in_start)
        self._bus.i2c_rdwr(self._message.write(address, bytes(out_buffer[out_start:out_end])), message)
        in_buffer[in_start:in_end] = bytes(message)

    def deinit(self) -> None:
        """Close the bus."""
        self._bus.close()

    def _answers(self, address: int) -> bool:
        try:
            self._bus.read_byte(address)
        except OSError:
            return False
        return True


def _name(host: Host, number: int) -> str:
    try:
        return host.path(f"/sys/bus/i2c/devices/i2c-{number}/name").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _hint(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "`sudo usermod -aG i2c $USER`, then log in again"
    return "switch I2C on (Raspberry Pi: `sudo raspi-config nonint do_i2c 0`) and see `ls /dev/i2c-*`"
