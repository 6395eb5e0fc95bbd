"""`examples/one_round_by_hand.py` and a whole federation (agents, wire, gateway) come to the same bits."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.client.learner import Learner
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SimulatedDevice, World


def _load_example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "one_round_by_hand.py"
    spec = importlib.util.spec_from_file_location("one_round_by_hand", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = (
    "rounds.min_devices=3",
    "schedule.stop_rounds=1",
    "blocks.encoder/accel={type='mlp', widths=[4, 4]}",
    "blocks.encoder/gyro={type='mlp', widths=[4, 4]}",
    "blocks.fusion/har={type='attention', width=4}",  # begins with ones: through zeros nothing would learn
    "blocks.head/har.hidden=4",
)
BLOCKS = ("encoder/accel", "encoder/gyro", "fusion/har", "head/har")


def _place_of(federation: Federation, block: BlockId) -> str:
    """The largest tensor of the block: it has room for the example's values."""
    return max(reversed(federation.spec[block].tensors), key=lambda tensor: tensor.size).name


def _put(tensors: Tensors, name: str, values: NDArray[np.float32]) -> dict[str, Array]:
    changed = {n: np.array(v) for n, v in tensors.items()}
    changed[name].reshape(-1)[: values.size] = values.reshape(-1)
    return changed


class ByHand:
    """A trainer that trains as the example does, in the first values of each block."""

    def __init__(self, example: ModuleType, device: str, federation: Federation) -> None:
        self._example, self._device, self._federation = example, device, federation

    def present_modalities(self) -> frozenset[str]:
        return frozenset({self._example.DEVICES[self._device][0]})

    def num_windows(self) -> int:
        return len(self._example.DEVICES[self._device][2])

    def evaluate(self, blocks: Blocks) -> MetricSums:
        return {}

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
        local, samples = self._example.train(self._device, self._example.start())
        values = {block: dict(tensors) for block, tensors in blocks.items()}
        for name, trained in local.items():
            block = BlockId.parse(name)
            values[block] = _put(blocks[block], _place_of(self._federation, block), trained)
        return TrainResult(values, dict.fromkeys(blocks, samples), samples, {})


@pytest.mark.parametrize(
    ("visibility", "private"), [("full", ()), ("private-head-fusion", ("fusion/har", "head/har"))], ids=lambda v: str(v)
)
def test_round_by_hand_gives_bit_for_bit_the_versions_of_a_whole_federation(
    visibility: str, private: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = _load_example()
    federation = load_federation("har", sets=(*SMALL, f"visibility={visibility}"))
    # the example begins with the federation's first values instead of its own round ones
    start: dict[str, NDArray[np.float32]] = {}
    for name, values in example.start().items():
        block = BlockId.parse(name)
        first = initial_block(federation.spec[block], federation.digest, federation.seed)
        place = np.array(first[_place_of(federation, block)])
        start[name] = place.reshape(-1)[: values.size].reshape(values.shape).astype(np.float32)
    monkeypatch.setattr(example, "start", lambda: start)
    devices = [
        SimulatedDevice(name, "by-hand", (modality,), lambda f, n=name: Learner(ByHand(example, n, f)))
        for name, (modality, _, _) in example.DEVICES.items()
    ]
    world = World(federation, devices, tmp_path)
    try:
        world.run()
        versions = {str(key.block): version for key, version in world.truth.machine.state.versions.items()}
        by_hand, at_home = example.run(private=private)
        assert set(by_hand) == set(versions) & set(BLOCKS) == set(BLOCKS) - set(private)
        for name, values in by_hand.items():
            block = BlockId.parse(name)
            data = world.truth.versions.get(versions[name].sha256)
            found = make_codec("float32").decode(data, federation.spec[block])
            place = np.asarray(found[_place_of(federation, block)])
            assert versions[name].number == 1
            assert place.reshape(-1)[: values.size].tobytes() == values.tobytes()
            assert not np.array_equal(values, start[name])
        assert all(set(blocks) == set(private) for blocks in at_home.values())
    finally:
        world.close()
