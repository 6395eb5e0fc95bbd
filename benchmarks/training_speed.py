"""CPU seconds of one round of ten UCI-HAR devices: ours, torch's own modules in it, and what the published code does.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--rounds 5]

3,350 windows over ten devices with one modality each, 70 % trained on and 30 % scored, batches of 16, SGD with
momentum; the encoder is `conv1d_gru` [32, 64, 128] with a GRU of 128, the fusion `attention_sum`. One thread. The
windows are those of `ucihar.npz` in BLOSSOM_SHARED_DATA, or noise of the same shape. All rows come from one run, round
by round in turn, so that a busy machine is as unkind to one as to the other.

`as published` is the work of the code published with the paper (github.com/DaSH-Lab-CSIS/blossom), written again in
plain torch from a description of it, without its data set library, its server and Ray: every window brings both
modalities, the absent one as zeros; they go through a second encoder that is frozen but keeps its dropout, and through
the fusion; a `DataLoader` makes the batches, in training and in scoring. `plain torch` and `ours` mask what is absent.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

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
    "blocks.fusion/har.type=attention_sum",
)
NUM_WINDOWS, NUM_DEVICES, TRAINED = 3350, 10, 0.7
ROWS, PARTS = ("as published", "plain torch", "ours"), ("train", "score", "round")


def windows() -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Windows by modality, labels, and where they come from."""
    file = Path(os.environ.get("BLOSSOM_SHARED_DATA", "shared/data")) / "ucihar.npz"
    if file.is_file():
        data = np.load(file, allow_pickle=False)
        return {"accel": data["acc"], "gyro": data["gyro"]}, data["label"].astype(np.int64), file.name
    random = np.random.default_rng(0)
    noise = {m: random.standard_normal((NUM_WINDOWS, 128, 3), dtype=np.float32) for m in ("accel", "gyro")}
    return noise, random.integers(0, 6, NUM_WINDOWS), "noise"


def devices(federation: Federation) -> Crew:
    inputs, labels, source = windows()
    ours, published = [], []
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
        ours.append((trainer, DeviceBlocks(federation, (modality,), ()).model({}, {})))
        published.append(Published(train, holdout))
    return Crew(ours, published, source)


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


@dataclass(frozen=True)
class Crew:
    """Ten devices, as each row has them."""

    ours: list[tuple[TorchTrainer, Blocks]]
    published: list[Published]
    source: str


class Windows(Dataset[tuple[dict[str, Tensor], int]]):
    """Windows with both modalities, the absent one as zeros."""

    def __init__(self, windows: WindowSet) -> None:
        ((self._modality, values),) = windows.inputs.items()
        self._values, self._labels = torch.from_numpy(values), windows.labels["har"].tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        values = self._values[index]
        each = {name: values if name == self._modality else torch.zeros_like(values) for name in ("accel", "gyro")}
        return each, self._labels[index]


class PublishedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 32, 64, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv1d(before, after, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.1)]
        self.layers, self.gru = nn.Sequential(*layers), nn.GRU(128, 128, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(self.layers(x.transpose(1, 2)).transpose(1, 2))
        average: Tensor = states.mean(dim=1)
        return average


class PublishedModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: PublishedEncoder() for name in ("accel", "gyro")})
        self.scores = nn.Linear(256, 2)
        self.project = nn.ModuleDict({name: nn.Linear(128, 256) for name in ("accel", "gyro")})
        self.head = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 6))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        found = {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}
        weights = torch.softmax(self.scores(torch.cat(list(found.values()), dim=1)), dim=1)
        fused = sum(weights[:, i : i + 1] * self.project[name](x) for i, (name, x) in enumerate(found.items()))
        answer: Tensor = self.head(fused)
        return answer


class Published:
    """One client of the published code."""

    def __init__(self, train: WindowSet, holdout: WindowSet) -> None:
        self._train, self._holdout = Windows(train), Windows(holdout)
        self._model = PublishedModel()
        for name, encoder in self._model.encoders.items():
            encoder.requires_grad_(name in train.inputs)

    def train(self) -> None:
        named = [p for p in self._model.parameters() if p.requires_grad]
        steps = torch.optim.SGD(named, lr=0.05, momentum=0.9, weight_decay=1e-5)
        self._model.train()
        for inputs, labels in DataLoader(self._train, batch_size=16, shuffle=True):
            steps.zero_grad()
            nn.functional.cross_entropy(self._model(inputs), labels).backward()
            steps.step()

    def evaluate(self) -> None:
        self._model.eval()
        with torch.no_grad():
            for inputs, labels in DataLoader(self._holdout, batch_size=16):
                answer = self._model(inputs)
                nn.functional.cross_entropy(answer, labels).item()
                (answer.argmax(dim=1) == labels).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds of one round of ten UCI-HAR devices")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds; one more warms up")
    rounds = parser.parse_args().rounds
    federation = load_federation("har", sets=SETTINGS)
    crew = devices(federation)
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(1, rounds + 2):
        plan = federation.local_training(number)
        for name in ROWS:
            with plain(name == "plain torch"):
                start = time.process_time()
                if name == "as published":
                    for client in crew.published:
                        client.train()
                else:
                    for trainer, blocks in crew.ours:
                        trainer.train(blocks, plan, round_number=number, frozen=frozenset(), optimizer={})
                middle = time.process_time()
                if name == "as published":
                    for client in crew.published:
                        client.evaluate()
                else:
                    for trainer, blocks in crew.ours:
                        trainer.evaluate(blocks)
                end = time.process_time()
            if number > 1:
                for part, seconds in (("train", middle - start), ("score", end - middle), ("round", end - start)):
                    found.setdefault((name, part), []).append(seconds)
    print(f"windows: {crew.source}; median (least) CPU seconds of {rounds} rounds, {NUM_DEVICES} devices, one thread")
    print(f"{'':13} {'train':>13} {'score':>13} {'round':>13}  of 'as published'")
    for name in ROWS:
        cells = [found[name, part] for part in PARTS]
        share = statistics.median(a / b for a, b in zip(found[name, "round"], found[ROWS[0], "round"], strict=True))
        numbers = " ".join(f"{statistics.median(c):6.2f} ({min(c):.2f})" for c in cells)
        print(f"{name:13} {numbers}  {share:.2f}")


if __name__ == "__main__":
    main()
