"""What a member without torch costs: latency, exchange of a block, imports and memory, an epoch of its own head.

    python benchmarks/onnx_member.py [--quick] [--only PART ...]     parts: chain, swap, quota, memory, head

Chain: one window through the whole model on one thread, the ways one after the other in each repetition, so that what
slows the machine down hits all alike; a ratio is the median of the ratios within the repetitions. All get and give
numpy arrays and have the same weights. `merged` is the file of `export --merged` as any onnxruntime user runs it
(it also takes the softmax), `merged, bound` is the same in buffers that are made once, as `per block` works.

Swap: a real `LiveModel` with its folder takes version after version of one block. `session` is from the received bytes
to a session beside the old one; `files` is what makes the exchange survive a power cut (the block and the state, each
with fsync) and the exchange itself, one assignment. The trial run on stored windows is between them. Then the same with
a fifth of a core, as a cgroup of version 2 gives it; where no such group can be made, this process stops and continues
the measured one, 20 ms of each 100, and the table says so.

Memory: fresh processes that only import, and real `blossom-edge infer` processes on fake IIO sensors in a federation of
three rounds over a real broker. In MB of 10^6 bytes: `resident` is VmRSS, `own` the part of it that is no file (what
remains are pages of libraries, which the kernel can drop and read again). All of it runs twice and the second run
counts: as in an installation, the byte code is there by then.

Head: one pass over 2000 windows in numpy, beside one pass of torch over the whole model on the same windows.
Parts that need torch or onnx are left out with a line where they are not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_memory
from onnx_swap import model_of, swap, under_quota, windows_of
from sensor_path import with_byte_code

GOALS = {"torch": 0.27, "merged": 1.10, "swap": 5.0, "infer": 85.0}
MODELS = {
    "har, concat": ("har", ()),
    "har, attention": ("har", ('blocks."fusion/har".type=attention',)),
    "audio-image": ("audio-image", ()),
}
NUM_WINDOWS, BATCH = 2000, 32
Facts = dict[str, Any]


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


# ---- chain


def skeletons_of(federation: Any, blocks: Collection[Any]) -> Callable[[str], bytes | None]:
    """Those of the package; a graph that no preset has is exported here."""
    from blossom_edge.federation.skeletons import skeleton_digest
    from blossom_edge.inference.skeleton_set import SkeletonSet

    packaged = SkeletonSet()
    mine = {skeleton_digest(federation, block): block for block in blocks}

    def get(digest: str) -> bytes | None:
        data = packaged.get(digest)
        if data is None and digest in mine and has("torch", "onnx", "onnxscript"):
            from blossom_edge.export.graph import export_skeleton

            data = export_skeleton(federation, mine[digest])
        return data

    return get


def ways_of(federation: Any, blocks: Mapping[Any, Any]) -> dict[str, Callable[[], Any]]:
    """The ways to run one window, by name; each gives the outputs of the first task."""
    from blossom_edge.inference.chain import OnnxModel

    inputs, present = windows_of(federation, 1)
    task = sorted(federation.tasks)[0]
    model = OnnxModel.build(federation, blocks, skeletons_of(federation, blocks))
    ways: dict[str, Callable[[], Any]] = {"per block": lambda: model.outputs(inputs, present)[task]}
    if has("torch"):
        ways = {"torch eager": torch_way(federation, blocks, inputs, present, task), **ways}
    if has("torch", "onnx", "onnxscript"):
        ways |= merged_ways(federation, blocks, inputs, task)
    return ways


def torch_way(federation: Any, blocks: Any, inputs: Any, present: Any, task: str) -> Callable[[], Any]:
    import torch

    from blossom_edge.models.block_model import BlockModel

    torch.set_num_threads(1)
    eager = BlockModel(federation, blocks).eval()
    eager.load(blocks)

    def run() -> Any:
        with torch.inference_mode():
            windows = {m: torch.from_numpy(value) for m, value in inputs.items()}
            return eager(windows, {m: torch.from_numpy(value) for m, value in present.items()})[task].numpy()

    return run


def merged_ways(federation: Any, blocks: Any, inputs: Any, task: str) -> dict[str, Callable[[], Any]]:
    from blossom_edge.export.merged import export_merged, merged_modalities
    from blossom_edge.inference.runtime import DEFAULT_OPTIONS, Session, _settings, load_onnxruntime

    runtime = load_onnxruntime()
    data = export_merged(federation, blocks, task=task)
    raw = runtime.InferenceSession(data, _settings(runtime, DEFAULT_OPTIONS), providers=["CPUExecutionProvider"])
    used = merged_modalities(federation, blocks, task=task)
    feeds = {**{m: inputs[m] for m in used}, "present": np.ones((1, len(used)), np.bool_)}
    session = Session(raw, label="merged", errors=(RuntimeError,))
    result = np.zeros((1, federation.tasks[task].num_outputs), np.float32)
    held = {name: value.copy() for name, value in feeds.items()}
    call = session.bind(held, {session.outputs[0]: result})

    def bound() -> Any:
        for name, value in feeds.items():
            held[name][...] = value
        call()
        return result.copy()

    return {"merged": lambda: raw.run(None, feeds)[0], "merged, bound": bound}


def chain(quick: bool) -> Facts:
    """Microseconds of each way: wall median, processor median, and the paired ratios."""
    names = list(MODELS)[:1] if quick else list(MODELS)
    return {name: compare(ways_of(*model_of(*MODELS[name])), 20 if quick else 300) for name in names}


def compare(ways: Mapping[str, Callable[[], Any]], repetitions: int, calls: int = 10) -> Facts:
    for run in ways.values():
        for _ in range(20):
            run()
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for i in range(repetitions):
        for name in order[i % len(order) :] + order[: i % len(order)]:
            run, cpu, took = ways[name], time.process_time(), []
            for _ in range(calls):
                began = time.perf_counter()
                run()
                took.append(time.perf_counter() - began)
            cpus[name].append((time.process_time() - cpu) / calls)
            walls[name].append(statistics.median(took))

    def ratio(other: str) -> float | None:
        pairs = zip(walls["per block"], walls.get(other, []), strict=False)
        return statistics.median([a / b for a, b in pairs]) if other in ways else None

    return {
        name: {"wall_us": 1e6 * statistics.median(walls[name]), "cpu_us": 1e6 * statistics.median(cpus[name])}
        | {"ratio": ratio(name)}
        for name in ways
    }


# ---- head


def head(quick: bool) -> Facts:
    """Milliseconds of one pass over the windows, by what learns."""
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.features import head_features
    from blossom_edge.inference.head import fit_head

    federation, blocks = model_of("har")
    model = OnnxModel.build(federation, blocks, skeletons_of(federation, blocks))
    inputs, present = windows_of(federation, 200 if quick else NUM_WINDOWS)
    num = len(next(iter(inputs.values())))
    labels = np.arange(num) % federation.tasks["har"].num_outputs
    embeddings = model.embed(inputs, present)
    features = head_features(embeddings, present, model.modalities)

    def fit(hidden: int) -> Callable[[], Any]:
        settings: Facts = {"task_type": "classification", "num_outputs": 7, "hidden": hidden, "epochs": 1}
        return lambda: fit_head(features, labels, **settings)

    ways: dict[str, Callable[[], Any]] = {
        "features by onnxruntime, once for each version": lambda: model.embed(inputs, present),
        "softmax head in numpy": fit(0),
        "head with 64 hidden in numpy": fit(64),
    }
    if has("torch"):
        ways["the whole model in torch, Adam"] = torch_epoch(federation, blocks, inputs, present, labels)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(2 if quick else 5):
        for name, run in ways.items():
            began = time.process_time()
            run()
            took[name].append(1e3 * (time.process_time() - began))
    return {
        "windows": num,
        "features": features.shape[1],
        "cpu_ms": {name: statistics.median(all_of) for name, all_of in took.items()},
    }


def torch_epoch(federation: Any, blocks: Any, inputs: Any, present: Any, labels: Any) -> Callable[[], Any]:
    import torch

    from blossom_edge.models.block_model import BlockModel

    torch.set_num_threads(1)
    model = BlockModel(federation, blocks).train()
    model.load(blocks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    windows = {m: torch.from_numpy(value) for m, value in inputs.items()}
    masks, wanted = {m: torch.from_numpy(value) for m, value in present.items()}, torch.from_numpy(labels)

    def run() -> None:
        for rows in torch.randperm(len(wanted)).split(BATCH):
            optimizer.zero_grad()
            outputs = model({m: w[rows] for m, w in windows.items()}, {m: p[rows] for m, p in masks.items()})
            torch.nn.functional.cross_entropy(outputs["har"], wanted[rows]).backward()
            optimizer.step()

    return run


# ---- all of it

PARTS: dict[str, Callable[[bool], Facts]] = {"chain": chain, "swap": swap, "head": head}
ALL = ("chain", "swap", "quota", "memory", "head")


def part(name: str, quick: bool) -> list[str]:
    return [sys.executable, __file__, "--part", name, *(["--quick"] if quick else [])]


def show_chain(out: Any, told: Facts) -> None:
    rows = []
    for model, ways in told.items():
        for way, found in ways.items():
            times = "" if way == "per block" or found["ratio"] is None else f"{found['ratio']:.2f}"
            rows.append((model, way, f"{found['wall_us']:.0f}", f"{found['cpu_us']:.0f}", times))
    out.table(rows, ["one window, one thread", "way", "us wall", "us processor", "per block takes, of it"])
    out.line(f"goal: at most {GOALS['torch']:g} of torch, {GOALS['merged']:g} of merged\n")


def show_swap(out: Any, how: str, told: Facts) -> None:
    columns = ("session wall", "session cpu", "files wall", "files cpu", "swap wall", "swap cpu", "whole wall")
    rows = []
    for block, found in told["blocks"].items():
        middle = [f"{statistics.median(found[what]):.1f}" for what in columns]
        rows.append((block, *middle, f"{max(found['swap wall']):.1f}"))
    num = len(next(iter(told["blocks"].values()))["swap wall"])
    out.line(f"exchange of one block, {how}: ms, medians of {num}; cpu: processor time; swap: session and files")
    out.table(rows, ["block", *(c.replace(" wall", "") for c in columns), "worst swap"])
    out.line(f"goal: a swap at most {GOALS['swap']:g}; {told['refused']} refused by the trial run\n")


def show_memory(out: Any, folder: Path, quick: bool) -> None:
    env = with_byte_code(folder)
    rows = []
    for what, code in onnx_memory.IMPORTS.items():
        if "torch" not in code or has("torch"):
            found = onnx_memory.imports(code, env, runs=1 if quick else 7)
            rows.append((what, f"{found['cpu_ms']:.0f}", *shown(found)))
    if has("torch"):
        for name in ("first", "second"):
            told = onnx_memory.agents(folder / name, env)
        for role, found in told.items():
            torch = "WITH torch" if found["torch"] else "no torch"
            rows.append((f"a device, role {role}, {torch}, {found['predictions']} predictions", "", *shown(found)))
    out.table(rows, ["a process with", "ms processor", "MB resident", "MB own", "MB peak"])
    out.line(f"goal: a device of role infer at most {GOALS['infer']:g} MB resident\n")
    if not has("torch"):
        out.line("devices are left out: nobody can train without torch\n")


def shown(found: Facts) -> tuple[str, ...]:
    return tuple(f"{found[key]:.1f}" for key in ("resident", "own", "peak"))


def show_head(out: Any, told: Facts) -> None:
    rows = [(what, f"{ms:.0f}") for what, ms in told["cpu_ms"].items()]
    out.table(rows, [f"one pass over {told['windows']} windows, {told['features']} features", "ms processor"])


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    packages = [f"{p} {version(p)}" for p in ("numpy", "onnxruntime", "onnx", "torch") if has(p)]
    cpu = names[0] if names else platform.machine()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{cpu}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, {', '.join(packages)}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a member without torch costs.")
    parser.add_argument("--quick", action="store_true", help="few repetitions of each")
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, help="these parts")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part](given.quick)))
        return

    from blossom_edge.console.output import Output

    out = Output()
    out.line(machine() + "\n")
    if lacking := [p for p in ("torch", "onnx", "onnxscript") if not has(p)]:
        out.line(f"not installed: {', '.join(lacking)}; what needs them is left out\n")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if "chain" in given.only:
        show_chain(out, onnx_memory.answer(part("chain", given.quick), env))
    if "swap" in given.only:
        show_swap(out, "a whole core", onnx_memory.answer(part("swap", given.quick), env))
    if "quota" in given.only:
        show_swap(out, *under_quota(part("swap", given.quick), env))
    if "memory" in given.only:
        with tempfile.TemporaryDirectory() as name:
            show_memory(out, Path(name), given.quick)
    if "head" in given.only:
        show_head(out, onnx_memory.answer(part("head", given.quick), env))


if __name__ == "__main__":
    main()
