"""What the robust rules cost: time and memory to join the updates of 10 and of 50 devices, 1 M values each.

    python benchmarks/robust_rules.py [--values 1000000] [--devices 10 50] [--budget-mib 16]

The updates lie on disk as they do on a gateway (float32, one file each) and are read as it reads them, hashes checked.
Every rule runs in a process of its own; `peak` is its largest resident memory above what it had when it began, the
result (8 bytes a value) among it. The files are in the page cache: this is processor time and not that of a disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aggregator import robust
from aggregator.aggregation import SpooledRows
from aggregator.averaging import mean_delta
from aggregator.rounds import Accepted
from aggregator.spool import Spool
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey, BlockSpec, TensorSpec
from blossom_edge.core.names import DeviceId
from blossom_edge.core.rounds import BlockUpdate
from blossom_edge.federation.combinations import num_bad

RULES = ("mean", "norm-clip", "median", "trimmed-mean", "multi-krum")
BLOCK = BlockId.parse("encoder/accel")
SHARE = 0.8


def block(num_values: int) -> BlockSpec:
    """A block of one tensor."""
    return BlockSpec(BLOCK, "mlp", (TensorSpec("weight", (num_values,)),))


def fill(folder: Path, *, num_values: int, num_devices: int) -> None:
    """Put the updates of all devices into the spool, and what the gateway knows of them beside it."""
    spool, codec, spec, facts = Spool(folder / "spool"), make_codec("float32"), block(num_values), []
    for device in range(num_devices):
        delta = np.random.default_rng(device).standard_normal(num_values, dtype=np.float32)
        sha256 = spool.put(codec.encode({"weight": delta}, spec))
        facts.append([f"d{device:03}", sha256, 100 + device, float(np.linalg.norm(delta.astype(np.float64)))])
    # a benchmark's own scratch file, gone with its folder
    (folder / "facts.json").write_text(json.dumps(facts))


def join(folder: Path, rule: str, *, num_values: int, budget: int) -> dict[str, float]:
    """Join them by one rule; seconds and bytes."""
    spec, spool = block(num_values), Spool(folder / "spool")
    facts = json.loads((folder / "facts.json").read_text())
    members = tuple(
        Accepted(DeviceId(name), BlockKey(BLOCK), 1, sha256, "float32", 0, samples, 1, norm)
        for name, sha256, samples, norm in facts
    )
    before, start = memory_mib("VmRSS"), time.perf_counter()
    if rule == "mean":
        codec = make_codec("float32")
        mean_delta(
            spec,
            (
                BlockUpdate(a.device, 1, a.key, 0, a.num_samples, 1, codec.decode(spool.get(a.sha256), spec))
                for a in members
            ),
        )
    else:
        rows, bad = SpooledRows.open(spec, members, spool), num_bad(len(members), SHARE)
        if rule == "norm-clip":
            samples = [a.num_samples for a in members]
            robust.norm_clip(rows, norms=[a.norm for a in members], num_samples=samples, tile_bytes=budget)
        elif rule == "median":
            robust.median(rows, tile_bytes=budget)
        elif rule == "trimmed-mean":
            robust.trimmed_mean(rows, num_trimmed=bad, tile_bytes=budget)
        else:
            robust.multi_krum(rows, num_bad=bad, tile_bytes=budget)
    took = time.perf_counter() - start
    return {"s": took, "mib": memory_mib("VmHWM") - before}


def memory_mib(word: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process. Not from getrusage: that one keeps the parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{word}:"))) / 1024


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--budget-mib", type=int, default=robust.TILE_BYTES >> 20)
    parser.add_argument("--one", nargs=2, metavar=("RULE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        rule, folder = args.one
        print(json.dumps(join(Path(folder), rule, num_values=args.values, budget=args.budget_mib << 20)))
        return
    print(f"{args.values:,} values, tiles of {args.budget_mib} MiB, trusted_share {SHARE}")
    print(f"{'rule':14}{'devices':>8}{'time':>9}{'peak':>11}")
    for num_devices in args.devices:
        with tempfile.TemporaryDirectory() as name:
            fill(Path(name), num_values=args.values, num_devices=num_devices)
            for rule in RULES:
                given = ["--values", str(args.values), "--budget-mib", str(args.budget_mib), "--one", rule, name]
                done = subprocess.run([sys.executable, __file__, *given], check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                print(f"{rule:14}{num_devices:>8}{found['s']:>7.2f} s{found['mib']:>7.0f} MiB")


if __name__ == "__main__":
    main()
