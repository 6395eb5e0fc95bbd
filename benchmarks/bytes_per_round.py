"""Bytes per device and round: what each visibility and codec costs, by the modalities of the device.

    python benchmarks/bytes_per_round.py

Counts what real agents publish and receive in a whole simulated federation of the preset `har`: MQTT payloads,
topics and packet headers of every message, in a round in the middle of the run. Training is replaced by adding a
constant, because sizes do not depend on it. For comparison the same device in the code published with the paper
(https://github.com/DaSH-Lab-CSIS/blossom), counted from its model as that code sends it: own encoders, fusion and
head down and up for training, and the whole model down once more for evaluation, whatever is private.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from blossom_edge.client.learner import Learner
from blossom_edge.console.output import Output
from blossom_edge.core.blocks import Array, BlockId
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SimulatedDevice, World

DEVICES = {"accel only": ("accel",), "gyro only": ("gyro",), "both": ("accel", "gyro")}
VISIBILITIES = ("full", "private-head", "private-head-fusion", "private-encoders")
ORIGINAL_ENCODER, ORIGINAL_FUSION, ORIGINAL_HEAD = 150_976, 66_562, 16_968
"""Parameters of the paper's KU-HAR model (8 classes), from its code."""


class Shift:
    """A trainer that moves every value a little."""

    def present_modalities(self) -> frozenset[str]:
        return frozenset({"accel", "gyro"})

    def num_windows(self) -> int:
        return 100

    def evaluate(self, blocks: Blocks) -> MetricSums:
        return {"har.accuracy": Metric(50, 100), "har.loss": Metric(150.0, 100)}

    def train(
        self,
        blocks: Blocks,
        training: LocalTraining,
        *,
        round_number: int,
        frozen: frozenset[BlockId],
        optimizer: Mapping[str, Array],
        keep_going: Callable[[], bool] | None = None,
    ) -> TrainResult:
        moved = {b: {n: v + np.float32(1e-3) for n, v in tensors.items()} for b, tensors in blocks.items()}
        return TrainResult(dict(moved), dict.fromkeys(blocks, 100), 7, {})


def measure(federation: Federation, folder: Path) -> dict[str, tuple[int, int]]:
    """Bytes up and down of each device in the second of three rounds."""
    devices = [
        SimulatedDevice(name.replace(" ", "-"), "any", modalities, lambda _: Learner(Shift()))
        for name, modalities in DEVICES.items()
    ]
    world = World(federation, devices, folder)
    world.run()
    found = {}
    for name, agent in zip(DEVICES, world.agents, strict=True):
        found[name] = (agent.traffic[2].up, agent.traffic[2].down)
    world.close()
    return found


def main() -> None:
    out = Output()
    rows = []
    for visibility in VISIBILITIES:
        for codec in ("float32", "float16"):
            sets = [f"visibility={visibility}", f"codec.up={codec}", f"codec.down={codec}"]
            federation = load_federation("har", sets=[*sets, "schedule.stop_rounds=3", "rounds.min_devices=3"])
            with tempfile.TemporaryDirectory() as folder:
                found = measure(federation, Path(folder))
            for name, (up, down) in found.items():
                rows.append(
                    (visibility, codec, name, f"{up / 1e3:,.1f}", f"{down / 1e3:,.1f}", f"{(up + down) / 1e3:,.1f}")
                )
    out.table(rows, ["visibility", "codec", "device", "kB up", "kB down", "kB per round"])
    own = 4 * (ORIGINAL_ENCODER + ORIGINAL_FUSION + ORIGINAL_HEAD)
    whole = 4 * (2 * ORIGINAL_ENCODER + ORIGINAL_FUSION + ORIGINAL_HEAD)
    total = (2 * own + whole) / 1e3
    out.line(f"\nthe paper's published code, one modality, any visibility: {total:,.0f} kB per round")


if __name__ == "__main__":
    main()
