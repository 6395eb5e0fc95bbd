"""What holds for every test: no state outside its own folder, no settings of the person who runs it, nothing left."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; must be set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    import hypothesis
except ImportError:  # the tests that need it skip themselves
    pass
else:
    hypothesis.settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
    hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs torch where there is none, and say so."""
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))


@pytest.fixture(autouse=True)
def house_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the test its own home, and none of the caller's settings."""
    for name in list(os.environ):
        if name.startswith("BLOSSOM_") or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "home"
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command configures the log of its process, which is that of all tests: `caplog` would hear nothing any more."""
    ours, root = logging.getLogger("blossom_edge"), logging.getLogger()
    before = ours.propagate, ours.level, list(ours.handlers), list(root.handlers)
    yield
    ours.propagate, ours.level, ours.handlers[:], root.handlers[:] = before


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fail the session when a process that a test started is still there at the end."""
    yield
    left = [f"{pid} ({_command_line(pid)})" for pid in _children(os.getpid())]
    assert not left, f"still running: {', '.join(left)}"


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.glob("*/children") for child in task.read_text().split()]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "gone"
