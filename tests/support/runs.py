"""Records of runs that nobody ran, with figures that are known or drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from blossom_edge.simulation.experiments.records import Cell, ClientRecord, RunRecord

CELL = Cell("ucihar", "5-5-0", "iid", 60)
LEVELS: Mapping[str, float] = {
    "local": 0.55, "full": 0.62, "private-head-fusion": 0.58, "dual": 0.66, "centralised": 0.80,
}  # fmt: skip


def client_of(
    right: int,
    wrong: int,
    *,
    id: str = "c0",
    modalities: tuple[str, ...] = ("accel",),
    unseen: tuple[int, int] | None = None,
    curve: Sequence[float] = (),
    bytes_up: float = 0.0,
) -> ClientRecord:
    """A client with two classes: of each, `right` test windows are answered right and `wrong` wrong.

    So accuracy, balanced accuracy and macro F1 are all right / (right + wrong).
    """
    return ClientRecord(
        id=id,
        modalities=modalities,
        num_train=40,
        train_labels=(20, 20),
        confusion=((right, wrong), (wrong, right)),
        unseen=() if unseen is None else (unseen, unseen[::-1]),
        accuracy=tuple(curve),
        macro_f1=tuple(curve),
        bytes_up_per_round=bytes_up,
        bytes_down_per_round=bytes_up,
    )


def run_of(mode: str, seed: int, clients: Sequence[ClientRecord], *, cell: Cell = CELL) -> RunRecord:
    """A run of these clients."""
    return RunRecord(
        key=f"{mode}-{seed}-{cell}",
        experiment="fake",
        cell=cell,
        mode=mode,
        seed=seed,
        rounds=10,
        classes=("sit", "walk"),
        clients=tuple(clients),
        cpu_s=1.5,
        software="0.1.0",
        digest="ab" * 32,
    )


def runs_with(points: Mapping[str, Sequence[float]], *, cell: Cell = CELL) -> list[RunRecord]:
    """One client a run: mode -> macro F1 in points with seed 0, 1, ..., to a tenth of a point."""
    return [
        run_of(mode, seed, [client_of(round(10 * value), 1000 - round(10 * value))], cell=cell)
        for mode, values in points.items()
        for seed, value in enumerate(values)
    ]


def whole_experiment(*, seeds: int = 5, rounds: int = 10, levels: Mapping[str, float] = LEVELS) -> list[RunRecord]:
    """4 cells x 5 modes x 5 seeds with 10 clients each: made up, noisy, equal in every call."""
    cells = [Cell("ucihar", mix, split) for mix in ("3-3-4", "5-5-0") for split in ("iid", "dirichlet:0.5")]
    return [
        run_of(mode, seed, _clients(mode, level, seed, rounds, number, cell), cell=cell)
        for number, cell in enumerate(cells)
        for seed in range(seeds)
        for mode, level in levels.items()
    ]


def _clients(mode: str, level: float, seed: int, rounds: int, number: int, cell: Cell) -> list[ClientRecord]:
    draw = random.Random(f"{mode} {seed} {number}")
    alone, other = (5, 10) if cell.mix == "5-5-0" else (3, 6)
    found = []
    for i in range(10):
        modalities = ("accel",) if i < alone else ("gyro",) if i < other else ("accel", "gyro")
        skew = 0.08 if mode == "private-head-fusion" and cell.split != "iid" else 0.0
        end = min(max(level + skew + 0.04 * len(modalities) - 0.05 * number + draw.gauss(0, 0.02), 0.05), 0.98)
        curve = [0.2 + (end - 0.2) * (1 - 0.7**k) for k in range(rounds)] if mode != "local" else []
        right = round(end * 50)
        up = {"full": 180e3, "dual": 180e3, "private-head-fusion": 90e3}.get(mode, 0.0) * len(modalities)
        found.append(
            client_of(
                right, 50 - right, id=f"c{i}", modalities=modalities, unseen=(right, 60 - right),
                curve=(*curve, end), bytes_up=up,
            )
        )  # fmt: skip
    return found
