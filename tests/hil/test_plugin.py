"""The pytest plugin as a person's own test suite meets it: in a process and a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
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
    pytest.importorskip("serial")
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

    def stuck(self, on: bool = True) -> None:
        self.calls.append(("stuck", on))

    def reset(self) -> None:
        raise RuntimeError("the fake broke")


def test_a_script_of_faults_is_read_in_order_of_time() -> None:
    assert parse_script("at 2s rate(0.5); at 0.5s unplug\n3 clear") == (
        Step(0.5, "unplug"),
        Step(2.0, "rate", 0.5),
        Step(3.0, "clear"),
    )


@pytest.mark.parametrize("script", ["unplug", "at two seconds unplug", "at 1s rate(fast)", "explode", " ; "])
def test_what_is_no_fault_is_refused(script: str) -> None:
    with pytest.raises(ConfigError, match="expected for example 'at 2s rate"):
        play(script, on=Recorder())


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("explode", "Recorder has no fault 'explode'; it has unplug, stuck, rate, reset"),
        ("calls", "Recorder has no fault 'calls'"),
        ("rate", "Recorder: rate needs a number: found 'rate'"),
        ("rate()", "Recorder: rate needs a number: found 'rate'"),
        ("unplug(3)", "Recorder: unplug takes no number: found 'unplug(3)'"),
        ("rate(0)", "found 'rate(0)', expected a factor above 0"),
        ("rate(-1)", "found 'rate(-1)', expected a factor above 0"),
        ("stuck(3)", "found 'stuck(3)', expected no number"),
    ],
)
def test_a_step_that_the_fake_cannot_do_is_refused_before_anything_runs(step: str, found: str) -> None:
    fake = Recorder()
    with pytest.raises(ConfigError) as caught:
        play(f"at 0s unplug; at 1s {step}", on=fake)
    assert found in str(caught.value)
    assert fake.calls == []


def test_a_fixture_factory_in_place_of_its_fake_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`on` is a function without any fault.*on=fake_i2c\(\)"):
        play("at 0s unplug", on=lambda: Recorder())


def test_faults_are_played_at_once_with_and_without_a_block_and_end_with_it() -> None:
    fake = Recorder()
    with play("at 0s rate(0.5); at 0.01s unplug; at 60s unplug", on=fake) as playing:
        until(lambda: len(playing.done) == 2, "both faults", ())
    assert fake.calls == [("rate", 0.5), "unplug"]
    playing = play("at 0s unplug(); at 60s unplug", on=fake)
    until(lambda: playing.done == [0.0], "the fault", ())
    playing.stop()
    assert fake.calls == [("rate", 0.5), "unplug", "unplug"]
    assert "faults" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_a_fake_is_raised_where_the_block_ends() -> None:
    fake = Recorder()
    with pytest.raises(RuntimeError, match="the fake broke"), play("at 0s unplug; at 0.01s reset", on=fake) as playing:
        until(lambda: playing.broken, "its error", ())
    assert fake.calls == ["unplug"]


FORGOTTEN = """
import threading

import pytest

from blossom_edge.testing.faults import play


class Fake:
    def __init__(self):
        self.closed = self.reached = False

    def reset(self):
        raise RuntimeError("the fake broke")

    def unplug(self):
        self.reached = True


@pytest.fixture
def fake():
    made = Fake()
    yield made
    assert "faults" not in {thread.name for thread in threading.enumerate()}, "its script still runs"


def test_forgets_to_stop(fake):
    play("at 60s unplug", on=fake)


def test_forgets_an_error(fake):
    playing = play("at 0s reset", on=fake)
    while not playing.broken:
        pass
"""


def test_the_plugin_ends_what_a_test_left_playing_before_its_fakes_and_shows_its_error(tmp_path: Path) -> None:
    (tmp_path / "test_forgotten.py").write_text(FORGOTTEN)
    done = run_pytest(tmp_path)
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "RuntimeError: the fake broke" in done.stdout


OTHER_CHIP = """
schema = 1
title = "A chip without a fake"

[sensors.accel]
channels = [
  { name = "ax", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "ay", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "az", unit = "m/s2", range = [-39.2, 39.2] },
]

[[sensors.accel.sources]]
driver = "iio"
rate_hz = 100
device = "bmi270"

[modalities.accel]
sensor = "accel"
channels = ["ax", "ay", "az"]
rate_hz = 100
window = 256
hop = 128
"""
SAYING = """
from pathlib import Path

def test_media(device):
    device("rpi4-audio")


def test_name(device):
    device("jetson-imo")


def test_part(device):
    device(str(Path(__file__).parent / "own.toml"))


def test_trace(replay_trace):
    replay_trace("nowhere.npz", "jetson-imu")


def test_gateway(gateway):
    gateway("hra")
"""


def test_what_the_kit_refuses_is_said_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "test_saying.py").write_text(SAYING)
    (tmp_path / "own.toml").write_text(OTHER_CHIP)
    done = run_pytest(tmp_path, "--tb=line")
    said = done.stdout
    assert "5 failed" in said, said + done.stderr
    assert "nothing to play as its microphone; give media={'mic': path} of a .wav file" in said
    assert "'jetson-imo'; did you mean 'jetson-imu'" in said
    assert "sensor accel: no fake for its sources (iio bmi270); there are fakes for iio mpu6050" in said
    assert "nowhere.npz" in said
    assert "AttributeError" not in said
    assert "the gateway ended with exit code 2: error: " in said
    assert "waited 60 s" not in said


@pytest.mark.torch
@pytest.mark.broker
@pytest.mark.slow
def test_the_test_that_the_documentation_shows_passes_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    page = (Path(__file__).parents[2] / "docs/hardware.md").read_text("utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def test_" in block]
    (tmp_path / "test_shown.py").write_text(example)
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
