"""The pytest plugin that comes with the package. Imports nothing of ours before a fixture is asked for.

    def test_my_board(device, gateway):
        board = device("jetson-imu")                     # fake hardware, or the real one with --board jetson-imu
        joined = board.join(gateway(), "--label", "har=PEN")

Fixtures: `fake_iio`, `fake_i2c`, `fake_serial`, `replay_trace`, `gateway`, `device`, `fault_proxy`. Options: `--board`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from blossom_edge.sensors.base import Sensor
    from blossom_edge.testing.boards import FakeBoard, RealBoard
    from blossom_edge.testing.fake_i2c import FakeMpu6050
    from blossom_edge.testing.fake_iio import FakeIio
    from blossom_edge.testing.fake_serial import FakeSerial
    from blossom_edge.testing.fault_proxy import FaultProxy
    from blossom_edge.testing.processes import Gateway

WRONG_BOARD = 4
"""Exit code of a run with `--board` on another board, as of all hardware that is not what was said."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--board`."""
    group = parser.getgroup("blossom-edge", "blossom-edge: sensors and boards")
    group.addoption("--board", metavar="PROFILE", help="Run on the real hardware of this profile, not on fakes.")


def pytest_configure(config: pytest.Config) -> None:
    """Name our marker; end the run when the board is not the one that was named."""
    config.addinivalue_line("markers", "needs_board(profile): needs the real hardware of this profile (--board)")
    name = config.getoption("--board")
    if name is not None:
        wrong = _why_wrong(name)
        if wrong:
            pytest.exit(f"--board {name}: {wrong}", returncode=WRONG_BOARD)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs another board than the one here."""
    here = config.getoption("--board")
    for item in items:
        for mark in item.iter_markers("needs_board"):
            wanted = mark.args[0] if mark.args else None
            if here is None or wanted not in (None, here):
                reason = f"needs the board {wanted or ''}: run with --board {wanted or 'PROFILE'}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """End the scripts of faults that a test left running, before its fakes go; an error of theirs is the test's."""
    faults = sys.modules.get("blossom_edge.testing.faults")
    error = None if faults is None else faults.stop_all()
    yield
    if error is not None:
        raise error


@pytest.fixture
def fake_iio(tmp_path: Path) -> Iterator[FakeIio]:
    """A tree of /sys and /dev for IIO devices below `tmp_path / "root"`."""
    from blossom_edge.testing.fake_iio import FakeIio

    fake = FakeIio(tmp_path / "root")
    yield fake
    fake.close()


@pytest.fixture
def fake_i2c() -> Iterator[Callable[..., FakeMpu6050]]:
    """`fake_i2c(bus=1, address=0x68, signal=...)`: an MPU-6050 on a bus of this process, behind `smbus2`."""
    from blossom_edge.testing.fake_i2c import FakeMpu6050
    from blossom_edge.testing.fake_smbus2 import install_fake_smbus2

    buses: dict[int, dict[int, Any]] = {}
    with install_fake_smbus2(buses):

        def add(*, bus: int = 1, address: int = 0x68, **settings: Any) -> FakeMpu6050:
            chip = FakeMpu6050(**settings)
            buses.setdefault(bus, {})[address] = chip
            return chip

        yield add


@pytest.fixture
def fake_serial(tmp_path: Path) -> Iterator[Callable[..., FakeSerial]]:
    """`fake_serial(signal, rate_hz, ...)`: a microcontroller at `tmp_path / "root/dev/ttyACM0"` and on."""
    from blossom_edge.testing.fake_serial import FakeSerial

    with ExitStack() as stack:
        count = 0

        def add(signal: Callable[[str, float], float], rate_hz: float, **settings: Any) -> FakeSerial:
            nonlocal count
            settings.setdefault("path", tmp_path / f"root/dev/ttyACM{count}")
            count += 1
            return stack.enter_context(FakeSerial(signal, rate_hz, **settings))

        yield add


@pytest.fixture
def replay_trace() -> Iterator[Callable[..., dict[str, Sensor]]]:
    """`replay_trace(path, profile, speed=0)`: the sensors of a profile, open, playing what `doctor --hil` recorded."""
    from blossom_edge.testing.boards import open_trace

    with ExitStack() as stack:

        def replay(path: Path | str, profile: str, *, speed: float = 0.0) -> dict[str, Sensor]:
            sensors = open_trace(path, profile, speed=speed)
            for sensor in sensors.values():
                stack.callback(sensor.close)
            return sensors

        yield replay


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """`gateway("har", options=[])`: a real `blossom-aggregator serve` on a free port, ended with the test."""
    from blossom_edge.testing.processes import Gateway

    with ExitStack() as stack:

        def start(federation: str = "har", *, options: list[str] | None = None) -> Gateway:
            number = len(list(tmp_path.glob("gateway*")))
            return stack.enter_context(
                Gateway(tmp_path / f"gateway{number}", federation=federation, options=options or [])
            )

        yield start


@pytest.fixture
def fault_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """`fault_proxy(port)`: a TCP proxy before that port which can delay, stall, cut, duplicate, swallow."""
    from blossom_edge.testing.fault_proxy import FaultProxy

    with ExitStack() as stack:
        yield lambda port, **settings: stack.enter_context(FaultProxy(port, **settings))


@pytest.fixture
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., FakeBoard | RealBoard]]:
    """`device("jetson-imu", ...)`: a board with fake hardware for that profile; the real one with `--board`."""
    from blossom_edge.testing.boards import FakeBoard, RealBoard

    here = request.config.getoption("--board")
    with ExitStack() as stack:

        def make(profile: str, **settings: Any) -> FakeBoard | RealBoard:
            if here is not None:
                if profile != here:
                    pytest.skip(f"needs the board {profile}, this is {here}")
                return RealBoard(profile)
            number = len(list(tmp_path.glob("board*")))
            return stack.enter_context(FakeBoard(profile, tmp_path / f"board{number}", **settings))

        yield make


def _why_wrong(name: str) -> str:
    """Why this machine is not the board of a profile; empty when it is, or when the profile fits any board."""
    from blossom_edge.board.identity import compatible
    from blossom_edge.client.fit import load_device_profile
    from blossom_edge.core.errors import BlossomError
    from blossom_edge.sensors.driver import Host

    try:
        profile = load_device_profile(name)
    except BlossomError as error:
        return error.line()
    found = compatible(Host.here().root)
    if not profile.hardware.match or set(found) & set(profile.hardware.match):
        return ""
    return f"this board is {found[0] if found else 'no board with a device tree'}, not {profile.hardware.board}"
