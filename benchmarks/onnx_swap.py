"""The swap part of `onnx_member.py`: versions of single blocks taken by a running model, also under a quota."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

QUOTA, PERIOD_S = 0.2, 0.1
CANARY_WINDOWS = 64
Facts = dict[str, Any]


def model_of(name: str, sets: tuple[str, ...] = ()) -> tuple[Any, dict[Any, Any]]:
    """A federation with everything shared, and first values of all blocks of a device that has all modalities."""
    from blossom_edge.federation.initial import initial_block
    from blossom_edge.federation.load import load_federation

    federation = load_federation(name, sets=["visibility=full", *sets])
    specs = federation.spec.owned(tuple(federation.modalities), tuple(federation.tasks))
    return federation, {s.id: initial_block(s, federation.digest, federation.seed) for s in specs}


def windows_of(federation: Any, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and masks of windows of noise."""
    noise = np.random.default_rng(0)
    shapes = {m: (count, s.signal.window, s.signal.width) for m, s in federation.modalities.items()}
    inputs = {m: noise.standard_normal(shape).astype(np.float32) for m, shape in shapes.items()}
    return inputs, {m: np.ones(count, dtype=np.bool_) for m in inputs}


def swap(quick: bool) -> Facts:
    """Milliseconds of each exchange by block: of the wall clock, and in every second version of the processor.

    Where BENCH_WAIT is set it says when it is ready, and waits for a line.
    """
    from blossom_edge.codec.tensors import make_codec
    from blossom_edge.core.windows import WindowSet
    from blossom_edge.inference.canary import CanaryWindows
    from blossom_edge.inference.generation import Received
    from blossom_edge.inference.live import LiveModel
    from blossom_edge.inference.model_folder import ModelFolder
    from blossom_edge.inference.runtime import RuntimeOptions
    from blossom_edge.inference.skeleton_set import SkeletonSet

    federation, blocks = model_of("har")
    keys = {b: federation.spec[b].key(tuple(federation.modalities)) for b in blocks}
    down = make_codec(federation.codec.down)
    inputs, present = windows_of(federation, CANARY_WINDOWS)
    bare = np.full(CANARY_WINDOWS, -1, dtype=np.int64)
    stored = CanaryWindows.of(WindowSet(inputs, present, {"har": bare}, np.arange(CANARY_WINDOWS, dtype=np.float64)))

    def received(block: Any, number: int) -> Any:
        scale = np.float32(1.0 + 1e-4 * number)
        data = b"".join((blocks[block][t.name] * scale).tobytes() for t in federation.spec[block].tensors)
        return Received(number, hashlib.sha256(data).hexdigest(), data)

    clocks, which = {"wall": time.perf_counter, "cpu": time.process_time}, "wall"

    def now() -> float:
        return clocks[which]()

    with tempfile.TemporaryDirectory() as name:
        live = LiveModel(
            federation,
            ModelFolder(Path(name)),
            skeletons=SkeletonSet().get,
            options=RuntimeOptions(),
            keys=keys,
            decode=lambda key, data: down.decode(data, federation.spec[key.block]),
            clock=now,
            boot=1,
        )
        live.offer({keys[b]: received(b, 1) for b in blocks}, windows=stored)
        live.proved()
        if os.environ.get("BENCH_WAIT"):
            print("ready", flush=True)
            sys.stdin.readline()
        found: dict[str, dict[str, list[float]]] = {}
        refused = 0
        for number in range(2, 6 if quick else 36):
            which = "wall" if number % 2 else "cpu"
            for block in [b for b in blocks if "gyro" not in str(b)]:
                new = {keys[block]: received(block, number)}
                began = now()
                done = live.offer(new, windows=stored)
                whole = now() - began
                refused += not done.taken
                session = sum(done.seconds.values())
                files = whole - session - done.canary_s
                one = {"session": session, "files": files, "swap": session + files, "whole": whole}
                for what, seconds in one.items():
                    found.setdefault(str(block), {}).setdefault(f"{what} {which}", []).append(1e3 * seconds)
                live.proved()
    return {"blocks": found, "refused": refused}


def under_quota(command: list[str], env: Mapping[str, str]) -> tuple[str, Facts]:
    """What the command tells, and how it was given a fifth of a core after it said that it is ready."""
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**env, "BENCH_WAIT": "1"}
    )
    with child:
        try:
            child.stdout.readline()  # type: ignore[union-attr]  # it was opened with a pipe
            with cgroup(child.pid) as made:
                child.stdin.write("\n")  # type: ignore[union-attr]  # it was opened with a pipe
                child.stdin.flush()  # type: ignore[union-attr]  # it was opened with a pipe
                while not made and child.poll() is None:
                    child.send_signal(signal.SIGCONT)
                    time.sleep(QUOTA * PERIOD_S)
                    child.send_signal(signal.SIGSTOP)
                    time.sleep((1 - QUOTA) * PERIOD_S)
                said = child.communicate(timeout=600)[0]
        finally:
            child.send_signal(signal.SIGCONT)
            child.terminate()
    how = "quota made by cpu.max of a cgroup" if made else "quota made by SIGSTOP/SIGCONT"
    told: Facts = json.loads(said.splitlines()[-1])
    return how, told


@contextlib.contextmanager
def cgroup(pid: int, root: Path = Path("/sys/fs/cgroup")) -> Iterator[bool]:
    """Whether the process runs in a group of its own with the quota, until the end."""
    group = root / f"blossom-bench-{pid}"
    try:
        made = "cpu" in (root / "cgroup.subtree_control").read_text().split()
        if made:
            group.mkdir()
            (group / "cpu.max").write_text(f"{int(QUOTA * PERIOD_S * 1e6)} {int(PERIOD_S * 1e6)}")
            (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        made = False
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
