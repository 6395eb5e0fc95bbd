"""The memory part of `onnx_member.py`: what imports take, and real devices without torch. Prints nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensor_path import moving

NUM_ROUNDS, NUM_PREDICTIONS = 3, 10
IMPORTS = {
    "python": "pass",
    "numpy": "import numpy",
    "onnxruntime (with numpy)": "import onnxruntime",
    "+ pydantic, paho, click, cryptography": (
        "import onnxruntime, pydantic, paho.mqtt.client, click;"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey"
    ),
    "+ the parts of blossom-edge for infer": (
        "import onnxruntime, blossom_edge.cli.infer, blossom_edge.cli.infer_modes, blossom_edge.client.agent;"
        "import blossom_edge.client.onnx_member, blossom_edge.transport.mqtt, blossom_edge.sensors.opening"
    ),
    "torch (with numpy)": "import numpy, torch",
}
CLI = [sys.executable, "-m", "blossom_edge.cli.main"]
Facts = dict[str, Any]


def imports(code: str, env: Mapping[str, str], runs: int) -> Facts:
    """Processor time (the least of several) and memory of a process that imports only this."""
    tail = "import json, resource, sys\nu = resource.getrusage(resource.RUSAGE_SELF)\n"
    tail += "print(json.dumps([u.ru_utime + u.ru_stime, open('/proc/self/status').read()]))"
    told = [answer([sys.executable, "-c", f"{code}\n{tail}"], env) for _ in range(runs + 1)][1:]
    return {"cpu_ms": 1e3 * min(seconds for seconds, _ in told), **memory(told[-1][1])}


def memory(status: str) -> Facts:
    """Of /proc/PID/status, in 10^6 bytes."""
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    keys = {"resident": "VmRSS", "own": "RssAnon", "peak": "VmHWM"}
    return {name: int(lines[key].split()[0]) * 1024 / 1e6 for name, key in keys.items()}


def agents(folder: Path, env: Mapping[str, str]) -> Facts:
    """Memory of a device of each torch-free role, after three rounds that a device with torch trains."""
    from blossom_edge.testing.fake_iio import FakeIio
    from blossom_edge.testing.fake_iio_parts import MPU6050
    from blossom_edge.testing.processes import Gateway

    roles, found = ("infer", "personalize"), {}
    shared = ("visibility=full", "rounds.min_devices=1", "training.epochs=1", f"schedule.stop_rounds={NUM_ROUNDS}")
    with contextlib.ExitStack() as stack:
        roots = {role: folder / role for role in roles}
        for root in roots.values():
            root.mkdir(parents=True)
            stack.enter_context(FakeIio(root)).add(MPU6050, moving)
        options = [part for text in shared for part in ("--set", text)]
        gateway = stack.enter_context(Gateway(folder / "gateway", federation="har", options=options))
        devices = {}
        for role in roles:
            flags = ["--profile", "rpi-zero2-imu", "--set", f"compute.role={role}", "--label", "har=PEN"]
            own = {**env, "BLOSSOM_ROOT": str(roots[role])}
            devices[role] = gateway.run(role, [*CLI, "infer", "--json"], *flags, env=own)
        for role in roles:
            gateway.wait_for(lambda r=role: gateway.device(r).get("phase"), f"{role} to be in")
        gateway.join("trainer", "--profile", "jetson-imu", "--mock", "--speed", "20")
        for role, process in devices.items():
            gateway.wait_for(
                lambda r=role, p=process: (
                    gateway.device(r).get("model", {}).get("versions", {}).get("encoder/accel") == NUM_ROUNDS
                    and p.out.count("\n") >= NUM_PREDICTIONS
                ),
                f"{role} with the last versions",
                timeout_s=180,
            )
        for role, process in devices.items():
            found[role] = memory(Path(f"/proc/{process.pid}/status").read_text())
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found[role] |= {"torch": "libtorch" in maps, "predictions": process.out.count("\n")}
    return found


def answer(command: list[str], env: Mapping[str, str]) -> Any:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600, env=env)
    return json.loads(done.stdout.splitlines()[-1])
