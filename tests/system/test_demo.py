"""`blossom-edge demo` as a person runs it: what it shows and leaves, and that no process is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from live import EDGE, Program, call, is_free, is_running

from blossom_edge.console.output import Output
from blossom_edge.core.errors import ConfigError
from blossom_edge.simulation.demo import DemoPlan, demo_folder
from blossom_edge.simulation.demo_processes import Children, Interrupts
from blossom_edge.simulation.demo_view import DeviceRow, Lines, LiveTable, Picture

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.timeout(180)]

MODES = {"alone", "full", "private_head_fusion"}
ONE_ENCODER_DOWN_AND_UP = 1_208_000


class Running:
    """A demo under way; `family` are the processes seen below it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.data = folder / "out"
        self.program = Program("demo", [*EDGE, "demo", "--data-dir", str(self.data), *options], folder)
        self.family: set[int] = set()

    def look(self) -> None:
        """Note every process that is there now."""
        todo = [self.program.pid]
        while todo:
            for path in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found = {int(pid) for pid in path.read_text().split()} - self.family
                    self.family |= found
                    todo += found

    def wait_for(self, condition: Callable[[], object], *, timeout_s: float = 100.0) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            assert self.program.running() or condition(), self.program.err
            assert time.monotonic() < until, f"never came:\n{self.program.err}"
            self.look()
            time.sleep(0.02)

    def left(self) -> list[int]:
        return [pid for pid in self.family if is_running(pid)]

    @property
    def port(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.data / "run" / "gateway" / "broker" / "broker.port").read_text())
        return 0

    def rounds(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            found: int = json.loads((self.data / "run" / "gateway" / "status.json").read_text())["round"]
            return found
        return 0

    def all_started(self) -> bool:
        return len(list((self.data / "run" / "devices").glob("*/status.json"))) == 6


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*options: str) -> Running:
        started.append(Running(tmp_path, *options))
        return started[-1]

    yield start
    for demo in started:
        demo.program.end(signal.SIGKILL)
        until = time.monotonic() + 20
        while demo.left() and time.monotonic() < until:
            time.sleep(0.05)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.mark.slow
def test_a_whole_demo_gives_one_json_object_a_report_and_blocks_and_leaves_no_process(
    start: Callable[..., Running],
) -> None:
    demo = start("--rounds", "2", "--labels-per-class", "2", "--seed", "5", "--json")
    demo.wait_for(lambda: not demo.program.running())
    assert demo.program.wait() == 0, demo.program.err
    assert demo.program.err == "", "progress is for terminals"
    found: dict[str, Any] = json.loads(demo.program.out)
    assert (found["seed"], found["rounds"], found["labels_per_class"]) == (5, 2, 2)
    assert set(found["mean_score"]) == set(found["new_people_score"]) == MODES
    devices = {device["id"]: device for device in found["devices"]}
    assert sorted(device["modalities"] for device in devices.values()) == sorted(
        2 * [["accel", "gyro"]] + 2 * [["accel"]] + 2 * [["gyro"]]
    )
    for device in devices.values():
        assert set(device["score"]) == MODES
        assert all(len(curve) == 3 for curve in device["curve"].values()), "before, between and after two rounds"
        assert device["private_blocks_sent"] == 0
        moved = device["bytes_up_per_round"] + device["bytes_down_per_round"]
        assert moved == pytest.approx(len(device["modalities"]) * ONE_ENCODER_DOWN_AND_UP, rel=0.01)
    for mode, mean in found["mean_score"].items():
        assert mean == pytest.approx(sum(d["score"][mode] for d in devices.values()) / 6)
    page = Path(found["report"]).read_text("utf-8")
    parser = _Page()
    parser.feed(page)
    assert [link for link in parser.links if not link.startswith("#")] == []
    assert json.loads((demo.data / "results.json").read_text()) == found
    _check_blocks(demo.data / "blocks", devices)
    assert not (demo.data / "run").exists(), "big folders go unless --keep"
    assert demo.family
    assert demo.left() == []


def _check_blocks(folder: Path, devices: dict[str, Any]) -> None:
    """The files open with the safetensors package; what is shared is not among a device's private blocks."""
    safetensors = pytest.importorskip("safetensors.numpy")
    shared = {path.name for path in (folder / "shared").iterdir()}
    assert shared == {"encoder.accel.safetensors", "encoder.gyro.safetensors"}
    for name, device in devices.items():
        expected = {f"fusion.har.{m}.safetensors" for m in device["modalities"]}
        expected |= {"fusion.har.safetensors", "head.har.safetensors"}
        assert {path.name for path in (folder / name).iterdir()} == expected
    sizes = {path.name: sum(v.size for v in safetensors.load_file(path).values()) for path in folder.glob("*/*")}
    assert sizes["encoder.accel.safetensors"] == sizes["encoder.gyro.safetensors"] == 150_976


def test_ctrl_c_while_it_starts_leaves_no_process(start: Callable[..., Running]) -> None:
    demo = start("--rounds", "3")
    demo.wait_for(lambda: demo.family)
    demo.program.send(signal.SIGINT)
    assert demo.program.wait(20) == 130, demo.program.err
    demo.look()
    assert demo.left() == []
    assert not (demo.data / "run").exists()
    assert "Traceback" not in demo.program.err


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_in_mid_round_leaves_no_process_and_no_port(start: Callable[..., Running], twice: bool) -> None:
    demo = start("--rounds", "30")
    demo.wait_for(lambda: demo.rounds() >= 1)
    port = demo.port
    assert len(demo.family) >= 8, "gateway, broker, six devices, comparison"
    demo.program.send(signal.SIGINT)
    if twice:
        demo.wait_for(lambda: "stopping" in demo.program.err)
        demo.program.send(signal.SIGINT)
    assert demo.program.wait(20) == 130, demo.program.err
    assert demo.left() == []
    assert port
    assert is_free(port)
    assert "Traceback" not in demo.program.err


@pytest.mark.slow
def test_a_demo_that_is_killed_takes_its_processes_with_it(start: Callable[..., Running]) -> None:
    demo = start("--rounds", "30")
    demo.wait_for(demo.all_started)
    port = demo.port
    demo.program.send(signal.SIGKILL)
    demo.program.wait()
    until = time.monotonic() + 30
    while demo.left() and time.monotonic() < until:
        time.sleep(0.05)
    assert demo.left() == []
    assert is_free(port)


@pytest.mark.slow
def test_a_device_that_dies_ends_the_demo_with_its_name_and_its_log(start: Callable[..., Running]) -> None:
    demo = start("--rounds", "30")
    demo.wait_for(demo.all_started)
    victim = json.loads((demo.data / "run/devices/rpi4-gyro-5/status.json").read_text())["pid"]
    os.kill(victim, signal.SIGKILL)
    assert demo.program.wait(30) == 1
    last = demo.program.err.splitlines()[-1]
    assert last.startswith("error: rpi4-gyro-5 ended early (exit code -9)")
    assert last.endswith("[demo-failed]")
    assert str(demo.data / "run" / "logs" / "rpi4-gyro-5.log") in last
    assert (demo.data / "run" / "logs" / "rpi4-gyro-5.log").exists()
    assert demo.left() == []


def test_a_folder_that_no_demo_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "mine").write_text("precious")
    done = call(EDGE, "demo", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    expected = f"error: {tmp_path} is not empty, and no demo has made it; name a new one with --data-dir [usage]\n"
    assert done.stderr == expected
    assert [path.name for path in tmp_path.iterdir()] == ["blocks"]


def test_the_next_demo_replaces_what_an_earlier_one_made_and_nothing_else(tmp_path: Path) -> None:
    plan = DemoPlan(tmp_path / "out", rounds=1, seed=0, labels_per_class=3, keep=False)
    with demo_folder(plan):
        for name in ("run/logs", "report", "blocks"):
            (plan.folder / name).mkdir(parents=True)
        (plan.folder / "results.json").write_text("{}")
        (plan.folder / "notes.txt").write_text("by hand")
    with demo_folder(plan):
        left = {path.name for path in plan.folder.iterdir()}
    assert left == {".made-by-blossom-edge-demo", "lock", "notes.txt"}


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    plan = DemoPlan(tmp_path / "out", rounds=1, seed=0, labels_per_class=3, keep=False)
    with demo_folder(plan):
        done = call(EDGE, "demo", "--data-dir", str(plan.folder))
    assert done.returncode == 1
    assert "[folder-in-use]" in done.stderr


def test_a_child_that_will_not_end_is_killed(tmp_path: Path) -> None:
    children = Children(tmp_path, Interrupts(), keeper="last")
    stubborn = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    child = children.start("stubborn", ["-c", stubborn])
    until = time.monotonic() + 20
    while "deaf" not in child.log.read_text() and time.monotonic() < until:
        time.sleep(0.02)
    children.stop()
    assert child.process.returncode == -signal.SIGKILL


def test_signals_wait_until_a_child_is_in_the_list_and_the_first_one_counts() -> None:
    interrupts = Interrupts()
    with interrupts.caught():
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.impatient
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


PICTURE = Picture(
    devices=(
        DeviceRow("jetson-imu-1", "jetson-imu", ("accel", "gyro"), "uploading", 10, 0.8125, 12_100_000, 12_200_000),
        DeviceRow("rpi4-gyro-5", "rpi4-gyro", ("gyro",)),
    ),
    round=9,
    rounds=10,
    phase="waiting for the comparison",
    done=7,
    total=20,
    comparing="alone",
    seconds=61.0,
)


def test_the_live_table_fits_80_columns_and_shows_every_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "80")
    table = LiveTable()
    table.show(PICTURE)
    table.close()
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    row = next(line for line in lines if line.startswith("jetson-imu-1"))
    assert " ".join(row.split()) == "jetson-imu-1 jetson-imu accel, gyro uploading 10 0.812 12.1 MB 12.2 MB"
    assert any("9/10 waiting for the comparison" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_without_a_terminal_there_is_a_line_per_round(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Output())
    lines.show(PICTURE)
    lines.show(PICTURE)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "waiting for the comparison (1 min 01 s)",
        "round 9 of 10 is over, mean own score 0.812 (1 min 01 s)",
    ]


def test_a_missing_torch_is_one_line_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blossom_edge.simulation import demo

    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    plan = DemoPlan(tmp_path / "out", rounds=1, seed=0, labels_per_class=3, keep=False)
    with pytest.raises(ConfigError, match="torch, which is missing") as caught:
        demo.run_demo(plan, Lines(Output()), Interrupts(), say=print)
    assert caught.value.hint == "pip install 'blossom-edge[torch]'"
    assert not plan.folder.exists()
