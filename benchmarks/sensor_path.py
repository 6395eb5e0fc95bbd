"""What the sensors cost: processor time of a six-channel IMU at 100 Hz, and memory of a device without torch.

    python benchmarks/sensor_path.py [--quick]

Processor: real sensors of a profile, opened as `join` opens them and polled as it polls them, up to finished windows of
256 samples; time by getrusage, as a share of one core, the median of several runs. The fake IIO tree (files and a FIFO
with the kernel's numbers) is served by another process, so that only reading is counted; the fake MPU-6050 of the I2C
driver is a model in the same process, so that its figure is too high by what the model costs.

Memory: an agent that takes part in a real federation of three rounds with these sensors open, beside what the imports
alone take, each in a process of its own, all in the same run. Its trainer adds a constant, because learning in numpy or
onnxruntime is not what is measured here. `now` is the resident memory at the end, `peak` the most it ever was. All of
them run twice and the second run counts: as in an installation, the byte code is there by then, for compiling leaves
5 MB behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

GOAL_CORE_PERCENT, GOAL_MB = 3.0, 65.0
SETS = [f"modalities.{m}.{k}" for m in ("accel", "gyro") for k in ("rate_hz=100.0", "window=256", "hop=128")]
PROFILE = """
schema = 1
title = "MPU-6050 at 100 Hz"
extends = "mpu6050"
[[sensors.imu.sources]]
rate_hz = 100
{source}
[modalities.accel]
sensor = "imu"
channels = ["ax", "ay", "az"]
rate_hz = 100
window = 256
hop = 128
[modalities.gyro]
sensor = "imu"
channels = ["gx", "gy", "gz"]
rate_hz = 100
window = 256
hop = 128
"""
SOURCES = {
    "iio": 'driver = "iio"\ndevice = "mpu6050"',
    "mpu6050": 'driver = "mpu6050"\nbus = 1\naddress = 0x68',
}
IMPORTS: dict[str, str] = {
    "python": "",
    "+ numpy": "import numpy",
    "+ pydantic": "import numpy, pydantic",
    "+ paho": "import numpy, pydantic, paho.mqtt.client",
    "+ cryptography": (
        "import numpy, pydantic, paho.mqtt.client;"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey"
    ),
    "+ click": (
        "import numpy, pydantic, paho.mqtt.client, click;"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey"
    ),
    "+ numpy.random (if anything draws from it)": (
        "import numpy.random, pydantic, paho.mqtt.client, click;"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey"
    ),
}
POLL_S, NUM_ROUNDS = 0.5, 3
"""The first as in `join`."""


def memory_mb(status: str) -> dict[str, float]:
    """Resident memory from /proc/PID/status in 10^6 bytes, now and at its peak; ru_maxrss begins at the parent's."""
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {name: int(lines[key].split()[0]) * 1024 / 1e6 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


def memory_now() -> dict[str, float]:
    return memory_mb(Path("/proc/self/status").read_text())


@contextlib.contextmanager
def collector_of(driver: str, root: Path, folder: Path) -> Iterator[Any]:
    """The sensors of the profile, opened, and what makes windows of them."""
    from blossom_edge.federation.load import load_federation
    from blossom_edge.sensors.collector import Collector
    from blossom_edge.sensors.driver import Host
    from blossom_edge.sensors.labels import LabelledSensor, LabelTrack
    from blossom_edge.sensors.opening import close_sensors, open_sensors
    from firmware_profiles import load_profile

    file = folder / f"bench-{driver}.toml"
    file.write_text(PROFILE.format(source=SOURCES[driver]))
    profile, federation = load_profile(str(file)), load_federation("har", sets=SETS)
    sensors = open_sensors(profile, federation=federation, host=Host(root))
    try:
        track = LabelTrack(folder, federation, values={"har": "PEN"}, now=time.monotonic() - 1, boot="")
        yield Collector(
            profile, federation, {name: LabelledSensor(s, track) for name, s in sensors.items()}, split="blocks"
        )
    finally:
        close_sensors(sensors)


def moving(channel: str, seconds: float) -> float:
    """What both fakes measure: something else in each sample, else it would be taken for stuck."""
    return (9.8 if channel in ("az", "in_accel_z") else 0.0) + math.sin(11 * seconds + len(channel))


def serve_iio(root: Path, folder: Path, seconds: float) -> None:
    """The fake tree, until stdin ends."""
    from blossom_edge.testing.fake_iio import FakeIio
    from blossom_edge.testing.fake_iio_parts import MPU6050

    with FakeIio(root) as board:
        board.add(MPU6050, moving)
        print("{}", flush=True)
        sys.stdin.read()


def read_iio(root: Path, folder: Path, seconds: float) -> None:
    """Read for a while, say what it cost."""
    with collector_of("iio", root, folder) as collector:
        _measure(collector, seconds)


def read_mpu6050(root: Path, folder: Path, seconds: float) -> None:
    """The same from the model of the chip's registers, in this process."""
    from blossom_edge.testing.fake_i2c import FakeMpu6050
    from blossom_edge.testing.fake_smbus2 import install_fake_smbus2

    with install_fake_smbus2({1: {0x68: FakeMpu6050(moving)}}), collector_of("mpu6050", root, folder) as collector:
        _measure(collector, seconds)


def _measure(collector: Any, seconds: float) -> None:
    collector.poll(time.monotonic())
    time.sleep(1.0)
    before, began, windows = _cpu_s(), time.monotonic(), collector.num_seen()
    while (now := time.monotonic()) < began + seconds:
        collector.poll(now)
        time.sleep(POLL_S)
    wall = time.monotonic() - began
    share = 100 * (_cpu_s() - before) / wall
    print(json.dumps({"percent": share, "windows": (collector.num_seen() - windows) / wall}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Adder:
    """A trainer that moves every value a little."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def present_modalities(self) -> frozenset[str]:
        return frozenset({"accel", "gyro"})

    def num_windows(self) -> int:
        return 1 + int(self._collector.num_seen())

    def evaluate(self, blocks: Mapping[Any, Any]) -> dict[str, Any]:
        return {}

    def train(self, blocks: Mapping[Any, Mapping[str, Any]], training: Any, **_: Any) -> Any:
        from blossom_edge.core.training import TrainResult

        moved: dict[Any, Any] = {
            block: {name: value + value.dtype.type(1e-3) for name, value in t.items()} for block, t in blocks.items()
        }
        return TrainResult(moved, dict.fromkeys(blocks, 1), 1, {})


def agent(root: Path, folder: Path, seconds: float) -> None:
    """Take part in the federation of a gateway, whose port stands in the folder, with the sensors open."""
    from blossom_edge.client.actions import DeviceFacts
    from blossom_edge.client.agent import Agent
    from blossom_edge.client.discovery import find_federation
    from blossom_edge.client.learner import Learner
    from blossom_edge.client.session import Session
    from blossom_edge.client.store import Store
    from blossom_edge.transport.address import Address
    from blossom_edge.transport.malloc import tune_malloc
    from blossom_edge.transport.mqtt import MqttLink

    tune_malloc()
    address = Address("127.0.0.1", int((folder / "port").read_text()))
    name = find_federation(address, name=None, patience_s=30)
    with collector_of("iio", root, folder) as collector:
        collector.poll(time.monotonic())
        opened = memory_now()
        store = Store(folder / "edge", "bench")
        facts = DeviceFacts(
            device="bench",
            boot=store.boot,
            key=store.key.public_hex,
            profile="bench",
            profile_digest="0" * 64,
            modalities=("accel", "gyro"),
            role="train",
            tasks=(),
            software="benchmark",
        )
        device = Agent(
            MqttLink(address, client_id="bench"),
            Session(facts, federation=store.known_federation(name)),
            store,
            federation_name=name,
            make_learner=lambda _: Learner(Adder(collector), collector.poll, POLL_S, collector.num_seen),
            clock=time.monotonic,
        )
        stop = device.run()
        if stop.error is not None:
            raise stop.error
        print(json.dumps({"opened": opened, "finished": memory_now(), "torch": "torch" in sys.modules}))
        device.leave("measured")


ROLES = {"serve-iio": serve_iio, "read-iio": read_iio, "read-mpu6050": read_mpu6050, "agent": agent}


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            yield child
        finally:
            child.terminate()


def role(name: str, root: Path, folder: Path, seconds: float = 0.0) -> list[str]:
    return [sys.executable, __file__, "--role", name, str(root), str(folder), str(seconds)]


def answer(command: list[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, env=env)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def with_byte_code(folder: Path) -> dict[str, str]:
    """The environment of a process that keeps its byte code in a folder of ours, whatever this one does."""
    kept = {"PYTHONPYCACHEPREFIX": str(folder / "byte-code"), "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **kept}


def imports(code: str, env: Mapping[str, str]) -> dict[str, float]:
    """Memory after some imports, in a process that imports nothing else."""
    command = [sys.executable, "-c", f"{code}\nprint(open('/proc/self/status').read())"]
    for _ in range(2):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return memory_mb(done.stdout)


def device(root: Path, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """What an agent tells of its memory, with a gateway of its own."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "port").write_text(str(port))
    with running(gateway(folder, port)):
        return answer(role("agent", root, folder), env)


def gateway(folder: Path, port: int) -> list[str]:
    sets = [*SETS, "rounds.min_devices=1", f"schedule.stop_rounds={NUM_ROUNDS}"]
    options = [f"--port={port}", "--data-dir", str(folder / "gateway"), "--until-finished"]
    return [
        sys.executable,
        "-m",
        "aggregator.cli",
        "serve",
        "--federation",
        "har",
        *options,
        *(f"--set={s}" for s in sets),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="What the sensors cost.")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--role", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        name, root, folder, seconds = given.role
        ROLES[name](Path(root), Path(folder), float(seconds))
        return

    from blossom_edge.console.output import Output

    out = Output()
    num_runs, seconds = (1, 4.0) if given.quick else (5, 15.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "root"
        root.mkdir()
        env = with_byte_code(folder)
        memory = [(what, imports(code, env)) for what, code in IMPORTS.items()]
        with running(role("serve-iio", root, folder)) as fake:
            fake.stdout.readline()  # type: ignore[union-attr]  # it was opened with a pipe
            cpu = {
                what: [answer(role(which, root, folder, seconds)) for _ in range(num_runs)]
                for what, which in (
                    ("IIO, its FIFO", "read-iio"),
                    ("MPU-6050 over I2C, with its model", "read-mpu6050"),
                )
            }
            device(root, folder / "first", env)
            told = device(root, folder / "second", env)
    rows = []
    for what, runs in cpu.items():
        shares = [run["percent"] for run in runs]
        spread = f"{min(shares):.2f} to {max(shares):.2f}"
        rows.append((what, f"{statistics.median(shares):.2f}", spread, f"{runs[0]['windows']:.2f}"))
    out.table(rows, ["six channels at 100 Hz", "% of one core", f"of {num_runs} runs", "windows/s"])
    out.line(f"goal: below {GOAL_CORE_PERCENT:g} %\n")
    torch = "WITH torch" if told["torch"] else "no torch"
    memory.append((f"the device with sensors open, {torch}", told["opened"]))
    memory.append((f"and after {NUM_ROUNDS} rounds of the preset har", told["finished"]))
    out.table([(w, f"{m['now']:.1f}", f"{m['peak']:.1f}") for w, m in memory], ["resident memory", "MB now", "MB peak"])
    out.line(f"goal: at most {GOAL_MB:g} MB")


if __name__ == "__main__":
    main()
