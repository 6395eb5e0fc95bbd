"""The pytest plugin as a person's own test suite meets it: in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.testing.faults import Step, parse_script, play
from tests.live import until

THEIR_TESTS = """
from pathlib import Path

import pytest

from blossom_edge.testing import needs


def test_a_serial_board(fake_serial, device):
    pytest.importorskip("serial")
    board = device("serial-ecg")
    assert board.subject("ecg", seconds=0.5).heard.units == ("V",)


def test_an_imu_on_a_bus(fake_i2c):
    chip = fake_i2c(bus=7, address=0x68)
    from blossom_edge.testing.boards import FakeBoard
    import smbus2
    assert smbus2.SMBus(7).read_byte_data(0x68, 0x75) == 0x68
    chip.unplug()
    with pytest.raises(OSError):
        smbus2.SMBus(7).read_byte_data(0x68, 0x75)


def test_a_tree(fake_iio):
    from blossom_edge.testing.fake_iio_parts import MPU6050
    fake_iio.add(MPU6050)
    assert (fake_iio.root / "sys/bus/iio/devices/iio:device0/name").read_text() == "mpu6050\\n"


@needs.board("jetson-imu")
def test_only_there():
    raise AssertionError("this is no Jetson")


@needs.program("a-program-that-is-nowhere", package="nothing")
def test_only_with_it():
    raise AssertionError("it is not here")


@needs.package("a_module_that_is_nowhere", extra="i2c")
def test_only_with_the_module():
    raise AssertionError("it is not here")
"""


def run_pytest(folder: Path, *options: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"BLOSSOM_ROOT": str(root)} if root is not None else {})}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, str(folder), *options], cwd=folder, env=env, capture_output=True, text=True, timeout=50
    )


def jetson(root: Path, *compatible: str) -> Path:
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"".join(name.encode() + b"\0" for name in compatible))
    return root


def test_loading_the_plugin_imports_nothing_else_of_ours() -> None:
    script = (
        "import sys, blossom_edge.testing.plugin\n"
        "ours = ('blossom_edge', 'aggregator', 'firmware_profiles')\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ours), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "['blossom_edge', 'blossom_edge.testing', 'blossom_edge.testing.plugin'] False"


def test_a_person_s_tests_find_the_fixtures_and_skip_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    done = run_pytest(tmp_path)
    assert "3 passed, 3 skipped" in done.stdout, done.stdout + done.stderr
    assert "needs the board jetson-imu: run with --board jetson-imu" in done.stdout
    assert "needs a-program-that-is-nowhere: apt install nothing" in done.stdout
    assert "needs a_module_that_is_nowhere: pip install 'blossom-edge[i2c]'" in done.stdout


def test_a_wrong_board_ends_the_run_before_any_test(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    root = jetson(tmp_path / "root", "raspberrypi,5-model-b", "brcm,bcm2712")
    done = run_pytest(tmp_path, "--board", "jetson-imu", root=root)
    assert done.returncode == 4
    assert (
        "--board jetson-imu: this board is raspberrypi,5-model-b, not NVIDIA Jetson Orin Nano"
        in done.stdout + done.stderr
    )
    assert "passed" not in done.stdout


def test_the_right_board_runs_what_needs_it(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    root = jetson(tmp_path / "root", "nvidia,p3768-0000+p3767-0005", "nvidia,tegra234")
    done = run_pytest(tmp_path, "--board", "jetson-imu", "-k", "only_there", root=root)
    assert "this is no Jetson" in done.stdout  # it ran


def test_a_board_of_a_name_that_is_none_ends_the_run_too(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--board", "jetson-imo")
    assert done.returncode == 4
    assert "jetson-imu" in done.stdout + done.stderr


class Recorder:
    """Takes note of the faults that are played on it."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def unplug(self) -> None:
        self.calls.append("unplug")

    def rate(self, factor: float) -> None:
        self.calls.append(("rate", factor))


def test_a_script_of_faults_is_read_in_order_of_time() -> None:
    assert parse_script("at 2s rate(0.5); at 0.5s unplug\n3 clear") == (
        Step(0.5, "unplug"),
        Step(2.0, "rate", 0.5),
        Step(3.0, "clear"),
    )


@pytest.mark.parametrize("script", ["unplug", "at two seconds unplug", "at 1s rate(fast)"])
def test_what_is_no_fault_is_refused(script: str) -> None:
    with pytest.raises(ConfigError, match="expected for example 'at 2s rate"):
        parse_script(script)


def test_faults_are_played_and_what_a_fake_cannot_suffer_is_refused_before_anything_runs() -> None:
    fake = Recorder()
    with play("at 0s rate(0.5); at 0.01s unplug", on=fake) as playing:
        until(lambda: len(playing.done) == 2, "both faults", ())
    assert fake.calls == [("rate", 0.5), "unplug"]
    with pytest.raises(ConfigError, match="Recorder has no fault 'nan'") as caught:
        play("at 0s unplug; at 1s nan", on=fake).__enter__()
    assert caught.value.hint == "it has unplug, rate"
    assert len(fake.calls) == 2
