"""Which rule should choose the gate of dual blocks: each one's accuracy on the same trained branches.

    python benchmarks/gate_rules.py FOLDER [--seeds 4] [--rounds 40]

FOLDER holds fsdd.npz, mnist10k.npz, avdigits_pairs.npz and stress_e4.npz (docs/datasets.md). Ten devices with one
modality each learn dual blocks; then every rule sees the validation windows of each device and is scored on its test
windows. None of these data are in the registered test of docs/results.md. Takes about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aggregator.averaging import WeightedMean
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.console.output import Output
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.gate import GATES, MIDDLE, ValidationWindows, choose_gate
from blossom_edge.core.windows import WindowSet
from blossom_edge.datasets.dataset import Dataset
from blossom_edge.datasets.readers import read_dataset
from blossom_edge.federation.schema import Federation
from blossom_edge.models.block_model import BlockModel
from blossom_edge.simulation.experiments.division import divide
from blossom_edge.simulation.experiments.fitting import pooled_scales, window_set
from blossom_edge.training.trainer import TorchTrainer

CLIENTS = 10
Floats = NDArray[np.float64]


def within(errors: float) -> Callable[[Floats], float]:
    """The gate nearest to the middle of those at most so many standard errors behind the best."""

    def choose(losses: Floats) -> float:
        means, num = losses.mean(axis=1), losses.shape[1]
        best = int(np.argmin(means))
        spread = (losses - losses[best]).std(axis=1, ddof=1) / math.sqrt(num)
        near = [i for i in range(len(GATES)) if means[i] - means[best] <= errors * spread[i]]
        return GATES[min(near, key=lambda i: (abs(GATES[i] - MIDDLE), means[i]))]

    return choose


def least(losses: Floats) -> float:
    return GATES[int(np.argmin(losses.mean(axis=1)))]


def shrunk(losses: Floats, worth: int) -> float:
    """The best gate, pulled to the middle as if so many windows wanted that."""
    num = losses.shape[1]
    return (num * least(losses) + worth * MIDDLE) / (num + worth)


# own, shared: one branch alone. least: the gate with the least loss; shrunk: as if so many windows wanted the middle.
# error: of all gates at most so many standard errors behind the best, the one nearest to the middle.
RULES: Mapping[str, Callable[[Floats], float]] = {
    "own": lambda losses: 0.0,
    "shared": lambda losses: 1.0,
    "middle": lambda losses: MIDDLE,
    "least": least,
    "least from 20 on": lambda losses: least(losses) if losses.shape[1] >= 20 else MIDDLE,
    "shrunk by 10": lambda losses: shrunk(losses, 10),
    "shrunk by 30": lambda losses: shrunk(losses, 30),
    "half an error": within(0.5),
    "one error (ours)": choose_gate,
}


@dataclass(slots=True)
class Device:
    """One device of the comparison: what it has, holds and remembers."""

    trainer: TorchTrainer
    train: WindowSet
    test: WindowSet
    blocks: dict[BlockId, Tensors]
    optimizer: Mapping[str, Any]


def federation_of(dataset: Dataset, seed: int) -> Federation:
    """Small encoders for the data set: what is compared is the rule, not the model."""
    modalities = {
        name: {
            "rate_hz": signals.rate_hz,
            "window": signals.values.shape[1],
            "hop": 1,
            "shape": list(signals.shape),
            "channels": [{"name": f"c{i}", "unit": "1"} for i in range(len(signals.channels))],
        }
        for name, signals in dataset.modalities.items()
    }
    blocks: dict[str, Any] = {f"encoder/{m}": {"type": "mlp", "widths": [64, 48]} for m in modalities}
    blocks |= {"fusion/task": {"type": "concat", "width": 48}, "head/task": {"type": "mlp", "hidden": 48}}
    return Federation.from_dict(
        {
            "schema": 1,
            "name": "gate-rules",
            "visibility": "dual",
            "seed": seed,
            "modalities": modalities,
            "tasks": {"task": {"type": "classification", "classes": list(dataset.classes)}},
            "blocks": blocks,
            "training": {"lr": 0.02, "clip_norm": 1.0},
        }
    )


def learn(dataset: Dataset, *, split: str, windows: int, seed: int, rounds: int) -> tuple[Federation, list[Device]]:
    """Ten devices with one modality each after so many rounds of averaging."""
    federation, names = federation_of(dataset, seed), sorted(dataset.modalities)
    counts = {(m,): CLIENTS // len(names) + (i < CLIENTS % len(names)) for i, m in enumerate(names)}
    division = divide(dataset, names, split=split, profiles=counts, windows=windows, holdout=0.3, unseen=0, seed=seed)
    scales = pooled_scales(dataset, ((seat.modalities, seat.train) for seat in division.seats))
    devices = []
    for seat in division.seats:
        train, test = (
            window_set(dataset, rows, task="task", modalities=seat.modalities, have=seat.modalities, scales=scales)
            for rows in (seat.train, seat.test)
        )
        trainer = TorchTrainer(
            federation,
            device_id=seat.id,
            train=lambda own=train: own,  # type: ignore[misc]  # the default binds this round of the loop
            holdout=lambda own=test: own,  # type: ignore[misc]  # as above
            compute="cpu",
            threads=1,
        )
        devices.append(Device(trainer, train, test, DeviceBlocks(federation, seat.modalities, ()).model({}, {}), {}))
    for number in range(1, rounds + 1):
        one_round(federation, devices, number)
    return federation, devices


def one_round(federation: Federation, devices: list[Device], number: int) -> None:
    means: dict[BlockId, WeightedMean] = {}
    for device in devices:
        result = device.trainer.train(
            device.blocks,
            federation.local_training(number),
            round_number=number,
            frozen=frozenset(),
            optimizer=device.optimizer,
        )
        device.optimizer = result.optimizer
        for block, values in result.blocks.items():
            spec = federation.spec[block]
            if not spec.leaves_device:
                device.blocks[block] = values
                continue
            delta = {name: values[name] - device.blocks[block][name] for name in values}
            means.setdefault(block, WeightedMean(spec)).add(delta, result.num_samples[block])
    for block, mean in means.items():
        step = mean.result() or {}
        for device in (d for d in devices if block in d.blocks):
            before = device.blocks[block]
            device.blocks[block] = {name: (before[name] + step[name]).astype(np.float32) for name in before}


def branches(federation: Federation, device: Device, windows: WindowSet) -> dict[str, Floats]:
    """What both branches of a device say of these windows, (windows, classes) each."""
    model = BlockModel(federation, device.blocks).eval()
    model.load(device.blocks)
    inputs = {m: torch.from_numpy(np.asarray(x)) for m, x in windows.inputs.items()}
    present = {m: torch.from_numpy(x) for m, x in windows.present.items()}
    with torch.inference_mode():
        found = model.branches(inputs, present)["task"]
    return {branch: outputs.double().numpy() for branch, outputs in found.items()}


def mixed(found: Mapping[str, Floats], gate: float) -> Floats:
    return gate * found["shared"] + (1 - gate) * found["own"]


def losses_of(found: Mapping[str, Floats], labels: NDArray[np.int64]) -> Floats:
    rows = []
    for gate in GATES:
        logits = mixed(found, gate)
        logits = logits - logits.max(axis=1, keepdims=True)
        rows.append(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    out, columns = Output(), []
    scores: dict[str, dict[str, list[float]]] = {rule: {} for rule in RULES}
    for name, source in (("digits", f"avdigits:{args.folder}"), ("stress", str(args.folder / "stress_e4.npz"))):
        dataset = read_dataset(source)
        for split in ("iid", "dirichlet:0.5"):
            for windows in (60, 300):
                column = f"{name} {split.partition(':')[0][:4]} {windows}"
                columns.append(column)
                for seed in range(args.seeds):
                    federation, devices = learn(dataset, split=split, windows=windows, seed=seed, rounds=args.rounds)
                    for device in devices:
                        rows = np.flatnonzero(ValidationWindows().rows(device.train.times))
                        choosing = device.train.take(rows)
                        losses = losses_of(branches(federation, device, choosing), choosing.labels["task"])
                        answers = branches(federation, device, device.test)
                        for rule, choose in RULES.items():
                            right = mixed(answers, choose(losses)).argmax(axis=1) == device.test.labels["task"]
                            scores[rule].setdefault(column, []).append(100 * float(right.mean()))
                out.note(f"{column}: done")
    rows_out = [
        (rule, *(f"{np.mean(found[c]):.1f}" for c in columns), f"{np.mean([np.mean(found[c]) for c in columns]):.2f}")
        for rule, found in scores.items()
    ]
    out.table(rows_out, ["rule", *columns, "mean"])


if __name__ == "__main__":
    main()
