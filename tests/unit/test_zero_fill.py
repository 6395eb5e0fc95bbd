"""`absent = "zero-fill"`: what a device lacks takes part as an encoder's answer to zeros, as in the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.roles import used_blocks
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.errors import BlossomError, ConfigError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

FILL = "tasks.har.absent=zero-fill"
SMALL = (
    "blocks.encoder/accel={type='mlp', widths=[4], dropout=0.0}",
    "blocks.encoder/gyro={type='mlp', widths=[3], dropout=0.0}",
    "blocks.fusion/har={type='concat', width=5}",
    "blocks.head/har={type='mlp', hidden=6, dropout=0.0}",
    "modalities.accel.window=2",
    "modalities.accel.hop=2",
    "modalities.gyro.window=2",
    "modalities.gyro.hop=2",
    "visibility=full",
)


def filled(*sets: str) -> Federation:
    return load_federation("har", sets=[*SMALL, FILL, *sets])


def values_of(federation: Federation, block: str) -> dict[str, np.ndarray]:
    return dict(initial_block(federation.spec[BlockId.parse(block)], federation.digest, federation.seed))


def shifted_blocks(federation: Federation, modality: str) -> dict[BlockId, dict[str, np.ndarray]]:
    """The blocks of a one-modality device, not at version 0: whoever took them for the absent encoder would err."""
    owned = federation.spec.owned([modality], ["har"])
    return {s.id: {n: v + np.float32(0.125) for n, v in values_of(federation, str(s.id)).items()} for s in owned}


def by_hand(federation: Federation, blocks: dict[BlockId, dict[str, np.ndarray]], windows: np.ndarray) -> np.ndarray:
    def block(name: str) -> dict[str, np.ndarray]:
        return blocks[BlockId.parse(name)]

    def encoded(values: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ values["layers.0.weight"].T + values["layers.0.bias"], 0)

    accel = encoded(block("encoder/accel"), windows.reshape(len(windows), -1))
    gyro = encoded(values_of(federation, "encoder/gyro"), np.zeros((len(windows), 6), np.float32))
    both = accel @ block("fusion/har.accel")["weight"].T + gyro @ block("fusion/har.gyro")["weight"].T
    fused = block("fusion/har")["bias"] + both / 2
    head = block("head/har")
    hidden = np.maximum(fused @ head["layers.0.weight"].T + head["layers.0.bias"], 0)
    answer: np.ndarray = hidden @ head["layers.1.weight"].T + head["layers.1.bias"]
    return answer


def test_every_device_of_the_task_owns_the_parts_of_all_modalities_but_only_its_encoders() -> None:
    federation = filled()
    held = DeviceBlocks(federation, ("accel",), ())
    assert [str(key) for key in held.shared] == [
        "encoder/accel",
        "fusion/har",
        "fusion/har.accel",
        "fusion/har.gyro",
        "head/har",
    ]
    assert held.private == ()
    private = DeviceBlocks(filled("visibility=private-head-fusion"), ("accel",), ())
    assert [str(key) for key in private.shared] == ["encoder/accel"]
    assert [str(b) for b in private.private] == ["fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"]
    masked = DeviceBlocks(load_federation("har"), ("accel",), ())
    assert "fusion/har.gyro" not in {str(b) for b in (*masked.private, *masked.shared)}


@pytest.mark.torch
def test_a_device_with_one_modality_answers_as_by_hand_with_zeros_through_version_0() -> None:
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import BlockModel

    federation = filled()
    blocks = shifted_blocks(federation, "accel")
    model = BlockModel(federation, blocks)
    model.load(blocks)
    windows = np.random.Generator(np.random.Philox(1)).standard_normal((5, 2, 3)).astype(np.float32)
    for mode in (True, False):
        model.train(mode)
        answer = model({"accel": torch.from_numpy(windows)}, {"accel": torch.ones(5, dtype=torch.bool)})["har"]
        assert answer.detach().numpy() == pytest.approx(by_hand(federation, blocks, windows), abs=1e-6)
    answer.sum().backward()
    assert model.module(BlockId.parse("fusion/har.gyro")).get_parameter("weight").grad.abs().sum() > 0
    assert {str(b) for b in model.specs} == {str(b) for b in blocks}, "the encoder of another device is no block here"


@pytest.mark.torch
def test_a_row_that_lacks_an_owned_modality_has_zeros_in_its_own_encoder() -> None:
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import BlockModel

    federation = filled()
    blocks = {s.id: values_of(federation, str(s.id)) for s in federation.spec.blocks}
    model = BlockModel(federation, blocks).eval()
    model.load({b: {n: v + np.float32(0.25) for n, v in t.items()} for b, t in blocks.items()})
    generator = torch.Generator().manual_seed(3)
    inputs = {m: torch.randn(3, 2, 3, generator=generator) for m in ("accel", "gyro")}
    zeroed = {"accel": inputs["accel"], "gyro": inputs["gyro"] * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)}
    every = torch.ones(3, dtype=torch.bool)
    some = {"accel": every, "gyro": torch.tensor([True, False, True])}
    expected = model(zeroed, {"accel": every, "gyro": every})["har"]
    assert torch.allclose(model(inputs, some)["har"], expected, atol=1e-6)
    masked = load_federation("har", sets=SMALL)
    other = BlockModel(masked, blocks).eval()
    other.load({b: {n: v + np.float32(0.25) for n, v in t.items()} for b, t in blocks.items()})
    assert not torch.allclose(other(inputs, some)["har"][1], expected[1], atol=1e-3)


@pytest.mark.torch
def test_in_a_round_every_device_trains_the_parts_of_all_modalities(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from small_model import make_windows, small

    from blossom_edge.client.learner import Learner
    from blossom_edge.simulation.world import SimulatedDevice, World
    from blossom_edge.training.trainer import TorchTrainer

    def device(name: str, modality: str, count: int) -> SimulatedDevice:
        windows = make_windows(np.arange(count, dtype=np.int64) % 7, {modality: [1] * count}, seed=count)

        def make(known: Federation) -> Learner:
            return Learner(
                TorchTrainer(
                    known, device_id=name, train=lambda: windows, holdout=lambda: windows, compute="cpu", threads=1
                )
            )

        return SimulatedDevice(name, "any", (modality,), make)

    federation = small(FILL, "visibility=full", "schedule.stop_rounds=1", "rounds.min_devices=2")
    world = World(federation, [device("one", "accel", 14), device("two", "gyro", 21)], tmp_path)
    world.run()
    state = world.truth.machine.state
    assert {str(s.id): state.version(BlockKey(s.id)).number for s in federation.spec.blocks} == {
        str(s.id): 1 for s in federation.spec.blocks
    }
    (committed,) = [r for r in world.truth.ledger.records if r["type"] == "commit"]
    text = str(committed)
    assert "refused" not in text, text
    assert world.clock.now < federation.rounds.deadline_s, "the round waited for what nobody sends"
    world.close()


@pytest.mark.parametrize("role", ["infer", "personalize"])
def test_a_role_that_runs_on_onnx_is_refused(role: str) -> None:
    with pytest.raises(ConfigError, match=f"role {role}: task har of federation har has absent zero-fill") as caught:
        used_blocks(filled(), ("accel",), (), role)
    assert caught.value.error_id == "role-unfit"


def test_a_chain_of_onnx_blocks_is_refused() -> None:
    from blossom_edge.inference.chain import OnnxModel

    with pytest.raises(ConfigError, match="ONNX can only mask"):
        OnnxModel.build(filled(), {}, lambda digest: None)


def test_a_merged_file_is_refused() -> None:
    pytest.importorskip("onnxscript")
    from blossom_edge.export.merged import export_merged

    federation = filled()
    blocks = {s.id: values_of(federation, str(s.id)) for s in federation.spec.blocks}
    with pytest.raises(BlossomError, match="found absent zero-fill") as caught:
        export_merged(federation, blocks, task="har")
    assert caught.value.error_id == "export-failed"
