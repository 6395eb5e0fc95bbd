"""An I2C bus without hardware, behind smbus2 and behind CircuitPython's bus. Knows no chip: see `fake_i2c` for one."""

from __future__ import annotations

import errno
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class I2cDevice(Protocol):
    """Anything with registers on a bus. Each call may raise OSError."""

    def write(self, data: bytes) -> None:
        """One message to the device; its first byte is the register."""
        ...

    def read(self, length: int) -> bytes:
        """One message from the device, beginning at the register that was written last."""
        ...


class FakeMessage:
    """`smbus2.i2c_msg`."""

    def __init__(self, address: int, data: bytes, length: int) -> None:
        self.addr, self.data, self.len = address, data, length

    @classmethod
    def read(cls, address: int, length: int) -> FakeMessage:
        """A message from the device."""
        return cls(address, b"", length)

    @classmethod
    def write(cls, address: int, buf: bytes) -> FakeMessage:
        """A message to the device."""
        return cls(address, bytes(buf), 0)

    def __bytes__(self) -> bytes:
        return self.data

    def __iter__(self) -> Iterator[int]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class FakeSmbus:
    """`smbus2.SMBus`: the methods that drivers use. An address without a device is OSError 121."""

    def __init__(self, devices: Mapping[int, I2cDevice]) -> None:
        self._devices: Mapping[int, I2cDevice] | None = devices

    def read_byte_data(self, address: int, register: int, force: bool | None = None) -> int:
        """One register."""
        return self.read_i2c_block_data(address, register, 1)[0]

    def write_byte_data(self, address: int, register: int, value: int, force: bool | None = None) -> None:
        """Set one register."""
        self._device(address).write(bytes([register, value]))

    def read_i2c_block_data(self, address: int, register: int, length: int, force: bool | None = None) -> list[int]:
        """Registers from one on, at most 32."""
        if length > 32:
            raise ValueError("Desired block length over 32 bytes")
        device = self._device(address)
        device.write(bytes([register]))
        return list(device.read(length))

    def write_i2c_block_data(self, address: int, register: int, data: list[int], force: bool | None = None) -> None:
        """Set registers from one on, at most 32."""
        if len(data) > 32:
            raise ValueError("Data length cannot exceed 32 bytes")
        self._device(address).write(bytes([register, *data]))

    def read_byte(self, address: int, force: bool | None = None) -> int:
        """The register that was chosen last."""
        return self._device(address).read(1)[0]

    def write_byte(self, address: int, value: int, force: bool | None = None) -> None:
        """Choose a register."""
        self._device(address).write(bytes([value]))

    def i2c_rdwr(self, *messages: FakeMessage) -> None:
        """Messages one after the other."""
        for message in messages:
            if message.len:
                message.data = self._device(message.addr).read(message.len)
            else:
                self._device(message.addr).write(message.data)

    def close(self) -> None:
        """Nothing can be sent after it."""
        self._devices = None

    def __enter__(self) -> FakeSmbus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _device(self, address: int) -> I2cDevice:
        if self._devices is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        device = self._devices.get(address)
        if device is None:
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
        return device


class FakeBusIo:
    """`busio.I2C` of CircuitPython: lock, write, read. Refuses to work unlocked, as the real one."""

    def __init__(self, devices: Mapping[int, I2cDevice]) -> None:
        self._bus, self._locked = FakeSmbus(devices), False

    def try_lock(self) -> bool:
        """Take the bus, unless somebody has it."""
        taken, self._locked = self._locked, True
        return not taken

    def unlock(self) -> None:
        """Give it back."""
        self._locked = False

    def writeto(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        """Send buffer[start:end]."""
        self._transfer(FakeMessage.write(address, bytes(buffer[start:end])))

    def readfrom_into(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        """Fill buffer[start:end]."""
        end = len(buffer) if end is None else end
        message = FakeMessage.read(address, end - start)
        self._transfer(message)
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
        """Send one buffer, then fill the other."""
        self.writeto(address, out_buffer, start=out_start, end=out_end)
        self.readfrom_into(address, in_buffer, start=in_start, end=in_end)

    def _transfer(self, message: FakeMessage) -> None:
        if not self._locked:
            raise RuntimeError("Function requires lock")
        self._bus.i2c_rdwr(message)


@contextmanager
def install_fake_smbus2(buses: Mapping[int, Mapping[int, I2cDevice]]) -> Iterator[None]:
    """Let `import smbus2` find these buses, by number and by path, until the end of the block."""

    def smbus(bus: int | str, force: bool = False) -> FakeSmbus:
        number = int(re.findall(r"\d+", str(bus))[-1])
        if number not in buses:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(bus))
        return FakeSmbus(buses[number])

    module = types.ModuleType("smbus2")
    vars(module).update(SMBus=smbus, i2c_msg=FakeMessage)
    before = sys.modules.get("smbus2")
    sys.modules["smbus2"] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules["smbus2"]
        else:
            sys.modules["smbus2"] = before
