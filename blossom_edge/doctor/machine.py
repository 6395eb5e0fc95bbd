"""The machine: Python, packages that really compute, memory, disk, clock, heat. Reads, sends nothing."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blossom_edge.board.clock import UtcClock
from blossom_edge.board.identity import compatible
from blossom_edge.board.state import BoardState, disk_free_mb, memory_total_mb, read_state
from blossom_edge.core.errors import StorageError
from blossom_edge.doctor.finding import Finding, Status
from blossom_edge.durable import atomic_write, make_folder
from firmware_profiles.schema import Profile

PYTHONS = ((3, 10), (3, 13))
STEP_TIMEOUT_S = 120.0
DISK_FAIL_MB, DISK_WARN_MB = 100.0, 1000.0
SLOW_WRITE_S = 0.5
ROLE_MB = {"train": 400.0, "personalize": 110.0, "infer": 110.0}
"""MiB that a device process of this role takes, without its windows (on x86: docs/hardware.md)."""

TORCH_STEP = """
import json, time
started = time.monotonic()
import torch
found = {"version": torch.__version__, "built_for": torch.version.cuda, "device": "cpu"}
def step(device):
    model = torch.nn.Sequential(torch.nn.Conv1d(6, 16, 5), torch.nn.Flatten(), torch.nn.Linear(16 * 124, 4)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    windows = torch.randn(8, 6, 128, device=device)
    classes = torch.zeros(8, dtype=torch.long, device=device)
    loss = torch.nn.functional.cross_entropy(model(windows), classes)
    loss.backward()
    optimizer.step()
    return float(loss.detach().cpu())
found["import_s"] = time.monotonic() - started
step("cpu")  # the first one loads libraries
began = time.monotonic()
step("cpu")
found["cpu_ms"] = 1000 * (time.monotonic() - began)
try:
    step("cuda")
    began = time.monotonic()
    step("cuda")
    found |= {"device": torch.cuda.get_device_name(), "cuda_ms": 1000 * (time.monotonic() - began)}
except (RuntimeError, AssertionError) as error:
    found["why_no_cuda"] = (str(error).splitlines() or [type(error).__name__])[0]
print(json.dumps(found))
"""
"""One training step on the CPU and one on CUDA: a step is the proof, what a flag says is not."""

ONNX_STEP = """
import json, sys
import numpy, onnxruntime
model = bytes.fromhex(sys.argv[1])
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in onnxruntime.get_available_providers()]
session = onnxruntime.InferenceSession(model, options, providers=wanted)
x = numpy.arange(4, dtype=numpy.float32)
assert session.run(None, {"x": x})[0].tolist() == (x + x).tolist()
print(json.dumps({"version": onnxruntime.__version__, "provider": session.get_providers()[0]}))
"""
ONNX_MODEL = (
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020804"
    "620f0a0179120a0a08080112040a0208044202100d"
)
"""y = x + x for 4 floats as an ONNX file: one Add node, opset 13, IR version 8."""


def check_machine(profile: Profile, *, root: Path, data_folder: Path) -> Iterator[Finding]:
    """All checks of the machine, the cheap ones first."""
    yield _python()
    yield _board(profile, root)
    state = read_state(root)
    yield _memory(profile, root)
    yield _disk(data_folder)
    yield _write(data_folder)
    yield _clock(root)
    yield _heat(profile, state)
    if (power := _power(state)) is not None:
        yield power
    yield _torch(profile, root)
    yield _onnxruntime(profile)


def _finding(check: str, status: Status, detail: str, fix: str = "") -> Finding:
    return Finding("machine", check, status, detail, fix)


def _python() -> Finding:
    bits = struct.calcsize("P") * 8
    found = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {bits} bit"
    if sys.platform != "linux":
        return _finding("python", "fail", found, "use Linux; on Windows inside WSL 2")
    if bits != 64:
        return _finding("python", "fail", found, "install the 64-bit system image: there is no torch for 32 bit")
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return _finding("python", "warn", found, "3.10 to 3.13 are supported")
    return _finding("python", "ok", found)


def _board(profile: Profile, root: Path) -> Finding:
    found = compatible(root)
    match = profile.hardware.match
    if not match:
        here = f"is {found[0]}" if found else "has no device tree"
        return _finding("board", "ok", f"the profile fits any board; this one {here}")
    if not found:
        return _finding("board", "warn", f"expected {profile.hardware.board}, this machine has no device tree", "")
    if set(found) & set(match):
        return _finding("board", "ok", found[0])
    return _finding(
        "board", "warn", f"found {found[0]}, expected {' or '.join(match)}", "see `blossom-edge profiles detect`"
    )


def _memory(profile: Profile, root: Path) -> Finding:
    total, need = memory_total_mb(root), ROLE_MB[profile.compute.role]
    if total is None:
        return _finding("memory", "skip", "not known")
    found = f"{total:.0f} MiB, role {profile.compute.role} takes about {need:.0f}"
    limit = profile.limits.memory_mb
    if total < need or (limit is not None and limit < need):
        shown = found if total < need else f"limits.memory_mb is {limit}, role {profile.compute.role} takes {need:.0f}"
        return _finding("memory", "fail", shown, "choose a role that needs less, or another board")
    return _finding(
        "memory", "ok" if total > 1.5 * need else "warn", found, "" if total > 1.5 * need else "little room"
    )


def _disk(folder: Path) -> Finding:
    free = disk_free_mb(folder)
    if free is None:
        return _finding("disk", "skip", f"{folder}: not known")
    status: Status = "fail" if free < DISK_FAIL_MB else "warn" if free < DISK_WARN_MB else "ok"
    fix = "" if status == "ok" else "free some space, or name another folder with --data-dir"
    return _finding("disk", status, f"{free:,.0f} MiB free at {folder}", fix)


def _write(folder: Path) -> Finding:
    times = []
    try:
        make_folder(folder)
        for _ in range(3):
            began = time.monotonic()
            atomic_write(folder / "doctor.probe", b"x" * 65536, name="doctor")
            times.append(time.monotonic() - began)
        (folder / "doctor.probe").unlink()
    except (StorageError, OSError) as error:
        return _finding("write", "fail", str(error), "see the owner of the folder, and whether the disk is read-only")
    middle = sorted(times)[1]
    detail = f"64 KiB are safe on disk after {1000 * middle:.0f} ms"
    slow = middle > SLOW_WRITE_S
    return _finding("write", "warn" if slow else "ok", detail, "the card is slow, or worn" if slow else "")


def _clock(root: Path) -> Finding:
    knowledge = UtcClock(root).knowledge()
    fix = "" if knowledge.known else "rounds do not need the time; files are stamped once it is known"
    return _finding("clock", "ok" if knowledge.known else "warn", knowledge.why, fix)


def _heat(profile: Profile, state: BoardState) -> Finding:
    limit = profile.limits.max_temp_c
    now = state.throttling.now() if state.throttling is not None else ()
    if state.hottest is None:
        return _finding("temperature", "warn" if now else "skip", ", ".join(now) or "no sensor of it")
    found = f"{state.hottest.celsius:.0f} Cel ({state.hottest.name})"
    if now:
        return _finding("temperature", "fail", f"{found}; {', '.join(now)}", "see cooling and the power supply")
    if limit is not None and state.hottest.celsius > limit:
        return _finding("temperature", "fail", f"{found}, the profile's limit is {limit:g}", "cool it: training pauses")
    before = state.throttling.before if state.throttling is not None else ()
    if before:
        fix = "see cooling and the power supply"
        return _finding("temperature", "warn", f"{found}; since the start: {', '.join(before)}", fix)
    return _finding("temperature", "ok", found)


def _power(state: BoardState) -> Finding | None:
    if state.battery_percent is None:
        return None
    source = "on mains" if state.on_mains else "on battery"
    low = state.battery_percent < 20 and not state.on_mains
    return _finding(
        "power", "warn" if low else "ok", f"{state.battery_percent:.0f} %, {source}", "charge it" if low else ""
    )


def _torch(profile: Profile, root: Path) -> Finding:
    needed = profile.compute.role == "train"
    found, why = _run(TORCH_STEP)
    jetson = any(name.startswith("nvidia,") for name in compatible(root))
    if found is None:
        fix = "see docs/install.md: on a Raspberry Pi from PyTorch's CPU index, on a Jetson from NVIDIA's"
        return _finding("torch", "fail" if needed else "skip", why, fix if needed else "")
    shown = f"{found['version']}, a step takes {found['cpu_ms']:.0f} ms on the CPU"
    if "cuda_ms" in found:
        return _finding("torch", "ok", f"{shown}, {found['cuda_ms']:.0f} ms on {found['device']}")
    reason = f"no step on CUDA: {found['why_no_cuda']}"
    if profile.compute.device == "cuda":
        return _finding("torch", "fail", f"{shown}; {reason}", "set compute.device to auto, or install NVIDIA's torch")
    if jetson:
        return _finding("torch", "warn", f"{shown}; {reason}", "install the torch of NVIDIA's index (docs/install.md)")
    if found["built_for"] is not None:
        fix = "a CUDA build of several GB; the CPU build does the same here (docs/install.md)"
        return _finding("torch", "warn", f"{shown}; {reason}", fix)
    return _finding("torch", "ok", shown)


def _onnxruntime(profile: Profile) -> Finding:
    needed = profile.compute.role != "train"
    found, why = _run(ONNX_STEP, ONNX_MODEL)
    if found is None:
        return _finding("onnxruntime", "fail" if needed else "skip", why, "pip install onnxruntime" if needed else "")
    return _finding("onnxruntime", "ok", f"{found['version']}, computes with {found['provider']}")


def _run(script: str, *arguments: str) -> tuple[dict[str, Any] | None, str]:
    """What a script in a process of its own prints as JSON; else why not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {STEP_TIMEOUT_S:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"ended with code {done.returncode}"
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        return None, "it ended without an answer"
    return found, ""
