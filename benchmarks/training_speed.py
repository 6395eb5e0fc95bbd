"""CPU seconds of one round of ten UCI-HAR devices: our training against the plain torch modules, same mathematics.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--rounds 5]

3,350 windows over ten devices with one modality each, 70 % trained on and 30 % scored, batches of 16, SGD with
momentum; the encoder is `conv1d_gru` [32, 64, 128] with a GRU of 128, the fusion `attention`. One thread. The windows
are those of `ucihar.npz` in BLOSSOM_SHARED_DATA, or noise of the same shape. Both columns come from one run, round by
round in turn, so that a busy machine is as unkind to one as to the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.core.training import Blocks
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.models import encoders, gru
from blossom_edge.training.trainer import TorchTrainer

SETTINGS = (
    "training.optimizer=sgd",
    "training.lr=0.05",
    "training.lr_min=0.0",
    "training.lr_rounds=60",
    "training.epochs=1",
    "training.batch_size=16",
    "blocks.fusion/har.type=attention",
)
NUM_WINDOWS, NUM_DEVICES, TRAINED = 3350, 10, 0.7


def windows() -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Windows by modality, labels, and where they come from."""
    file = Path(os.environ.get("BLOSSOM_SHARED_DATA", "shared/data")) / "ucihar.npz"
    if file.is_file():
        data = np.load(file, allow_pickle=False)
        return {"accel": data["acc"], "gyro": data["gyro"]}, data["label"].astype(np.int64), file.name
    random = np.random.default_rng(0)
    noise = {m: random.standard_normal((NUM_WINDOWS, 128, 3), dtype=np.float32) for m in ("accel", "gyro")}
    return noise, random.integers(0, 6, NUM_WINDOWS), "noise"


def devices(federation: Federation) -> tuple[list[tuple[TorchTrainer, Blocks]], str]:
    inputs, labels, source = windows()
    result = []
    for i, rows in enumerate(np.array_split(np.random.default_rng(0).permutation(len(labels)), NUM_DEVICES)):
        modality = ("accel", "gyro")[i % 2]
        x = inputs[modality][rows].astype(np.float32)
        ones = np.ones(len(rows), dtype=np.bool_)
        every = WindowSet({modality: x / x.std()}, {modality: ones}, {"har": labels[rows]}, np.arange(len(rows)) * 1.0)
        border = int(TRAINED * len(rows))
        train, holdout = every.take(np.arange(border)), every.take(np.arange(border, len(rows)))
        trainer = TorchTrainer(
            federation,
            device_id=f"device-{i}",
            train=lambda train=train: train,
            holdout=lambda holdout=holdout: holdout,
            compute="cpu",
            threads=1,
        )
        result.append((trainer, DeviceBlocks(federation, (modality,), ()).model({}, {})))
    return result, source


@contextmanager
def plain(on: bool) -> Iterator[None]:
    """With torch's own modules in training, as on a CUDA device."""
    if not on:
        yield
        return
    with (
        mock.patch.object(gru, "trains_on_cpu", return_value=False),
        mock.patch.object(encoders, "trains_on_cpu", return_value=False),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds of one round of ten UCI-HAR devices")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds; one more warms up")
    rounds = parser.parse_args().rounds
    federation = load_federation("har", sets=SETTINGS)
    crew, source = devices(federation)
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(1, rounds + 2):
        for name in ("plain torch", "ours"):
            with plain(name == "plain torch"):
                start = time.process_time()
                for trainer, blocks in crew:
                    plan = federation.local_training(number)
                    trainer.train(blocks, plan, round_number=number, frozen=frozenset(), optimizer={})
                middle = time.process_time()
                for trainer, blocks in crew:
                    trainer.evaluate(blocks)
                end = time.process_time()
            if number > 1:
                for part, seconds in (("train", middle - start), ("score", end - middle), ("round", end - start)):
                    found.setdefault((name, part), []).append(seconds)
    print(f"windows: {source}; median (least) CPU seconds of {rounds} rounds, {NUM_DEVICES} devices, one thread")
    print(f"{'':12} {'train':>13} {'score':>13} {'round':>13}")
    for name in ("plain torch", "ours"):
        cells = [found[name, part] for part in ("train", "score", "round")]
        print(f"{name:12} " + " ".join(f"{statistics.median(c):6.2f} ({min(c):.2f})" for c in cells))


if __name__ == "__main__":
    main()
