"""A device whose values are enormous, and finite: nobody else stops, and every round ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from small_model import make_windows, small, trainer_of

from blossom_edge.client.learner import Learner
from blossom_edge.core.training import TrainResult
from blossom_edge.simulation.world import SimulatedDevice, World

pytestmark = pytest.mark.torch


class Enormous:
    """A trainer that adds the same huge number to every value."""

    def __init__(self, size: float) -> None:
        self._size = np.float32(size)

    def present_modalities(self) -> frozenset[str]:
        return frozenset({"accel"})

    def num_windows(self) -> int:
        return 100

    def evaluate(self, blocks: Any) -> Any:
        return {}

    def train(self, blocks: Mapping[Any, Any], training: Any, **rest: Any) -> TrainResult:
        moved = {b: {n: v + self._size for n, v in tensors.items()} for b, tensors in blocks.items()}
        return TrainResult(dict(moved), dict.fromkeys(blocks, 100), 7, {})


@pytest.mark.parametrize("size", [1e12, 1e20])
@pytest.mark.parametrize("visibility", ["full", "dual"])
def test_honest_devices_sit_out_what_they_cannot_learn_from(
    visibility: str, size: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="blossom_edge")
    federation = small(f"visibility={visibility}", "schedule.stop_rounds=4", "rounds.min_devices=3")
    devices = [_honest("a", 1), _honest("b", 2)]
    devices.append(SimulatedDevice("z", "any", ("accel",), lambda _: Learner(Enormous(size))))
    world = World(federation, devices, tmp_path)
    world.run()
    assert [agent.stopped.error for agent in world.agents if agent.stopped is not None] == [None, None, None]
    assert world.truth.machine.state.round == 4
    assert "round-skipped" in caplog.text, "so the values were what nobody can learn from"
    world.close()


def _honest(name: str, seed: int) -> SimulatedDevice:
    windows = make_windows(np.arange(28, dtype=np.int64) % 7, {"accel": [1] * 28}, seed=seed)
    return SimulatedDevice(name, "any", ("accel",), lambda f: Learner(trainer_of(f, windows, windows, name)))
