"""Dual blocks: a shared and a private copy of fusion and head on the same encoders, and a gate between the two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.round_end import checkpoint_of
from blossom_edge.core.blocks import BlockId, Tensors, Visibility
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.gate import GATES, ValidationWindows
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

OWN = {"own-fusion/har", "own-fusion/har.accel", "own-fusion/har.gyro", "own-head/har", "gate/har"}


def dual(*sets: str) -> Federation:
    return load_federation("har", sets=["visibility=dual", *sets])


def test_every_dual_block_has_a_private_copy_of_the_same_shape_and_the_task_a_gate() -> None:
    spec = dual().spec
    shared = {s.id: s for s in spec.blocks if s.visibility is Visibility.DUAL}
    assert {str(b) for b in shared} == {"fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"}
    private = {str(s.id): s for s in spec.blocks if s.visibility is Visibility.PRIVATE}
    assert set(private) == OWN
    for block, one in shared.items():
        copy = private[f"own-{block}"]
        assert (copy.tensors, copy.type, copy.options) == (one.tensors, one.type, one.options)
        assert (copy.modality, copy.task) == (one.modality, one.task)


def test_a_device_holds_the_copies_of_its_own_modalities_and_shares_none_of_them() -> None:
    blocks = DeviceBlocks(dual(), ("accel",), ())
    assert {str(b) for b in blocks.private} == OWN - {"own-fusion/har.gyro"}
    assert {str(k) for k in blocks.shared} == {"encoder/accel", "fusion/har", "fusion/har.accel", "head/har"}


def test_the_copies_start_from_other_values_and_the_gate_in_the_middle() -> None:
    federation = dual()
    first = {str(s.id): initial_block(s, federation.digest, 0) for s in federation.spec.blocks}
    assert not np.array_equal(first["head/har"]["layers.0.weight"], first["own-head/har"]["layers.0.weight"])
    assert first["gate/har"]["gate"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["blocks.encoder/accel.visibility=dual"], "expected shared, private or cohort"),
        (["blocks.fusion/har.visibility=dual"], 'dual under a private "head/har"'),
        (["visibility=full", "blocks.fusion/har.visibility=dual"], 'dual under a shared "head/har"'),
        (["blocks.head/har.visibility=dual"], 'private under a dual "head/har"'),
        (["visibility=dual", 'blocks."fusion/har.accel".visibility=shared'], "found dual for some of its parts"),
    ],
)
def test_what_cannot_be_dual_is_refused(sets: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_federation("har", sets=sets)
    assert words in str(caught.value)


def test_a_dual_head_alone_has_both_copies_on_the_shared_fusion() -> None:
    federation = load_federation("har", sets=["visibility=full", "blocks.head/har.visibility=dual"])
    assert {str(s.id) for s in federation.spec.blocks if s.visibility is Visibility.PRIVATE} == {
        "own-head/har",
        "gate/har",
    }


def test_both_branches_learn_and_only_the_shared_one_leaves_the_device() -> None:
    pytest.importorskip("torch")
    from small_model import EMPTY, make_windows, small

    from blossom_edge.client.actions import Checkpoint
    from blossom_edge.client.actions import DeviceFacts as Facts
    from blossom_edge.client.speech import Voice
    from blossom_edge.codec.messages import Plan
    from blossom_edge.training.trainer import TorchTrainer

    federation = small("visibility=dual", "training.epochs=2")
    windows = make_windows(np.arange(40, dtype=np.int64) % 7)
    trainer = TorchTrainer(
        federation, device_id="d1", train=lambda: windows, holdout=lambda: EMPTY, compute="cpu", threads=1
    )
    mine = DeviceBlocks(federation, ("accel", "gyro"), ())
    base = mine.model({}, {})
    result = trainer.train(base, federation.local_training(1), round_number=1, frozen=frozenset(), optimizer={})
    moved = {str(b) for b, values in result.blocks.items() if changed(values, base[b])}
    assert {"head/har", "own-head/har", "fusion/har.accel", "own-fusion/har.accel", "encoder/gyro"} <= moved
    validating = int(ValidationWindows().rows(windows.times).sum())
    assert validating == 8
    assert result.num_samples[BlockId.parse("gate/har")] == validating
    assert result.num_samples[BlockId.parse("head/har")] == 40 - validating
    assert {key.partition(":")[0] for key in result.optimizer} == OWN - {"gate/har"}

    facts = Facts("d1", 1, "0" * 64, "p", "0" * 64, ("accel", "gyro"), ())
    plan = Plan(
        epoch=1,
        round=1,
        remaining_s=10.0,
        blocks=(),
        training=_planned(federation),
        codec="float32",
        min_new_windows=0,
    )
    kept = checkpoint_of(plan, result, base, blocks=mine, before=Checkpoint(), voice=Voice(facts), num_seen=40)
    assert not [update for update in kept.outbox if str(update.key).startswith(("own-", "gate"))]
    assert {str(u.key) for u in kept.outbox} >= {"head/har", "fusion/har", "encoder/accel"}
    assert {str(b) for b in kept.private} == OWN


def test_the_answer_is_what_the_gate_mixes() -> None:
    torch = pytest.importorskip("torch")
    from small_model import small

    from blossom_edge.models.block_model import BlockModel

    federation = small("visibility=dual")
    blocks = DeviceBlocks(federation, ("accel", "gyro"), ()).model({}, {})
    model = BlockModel(federation, blocks).eval()
    model.load(blocks)
    inputs = {m: torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(1)) for m in ("accel", "gyro")}
    present = {m: torch.ones(5, dtype=torch.bool) for m in inputs}
    branches = model.branches(inputs, present)["har"]
    for gate in (0.0, 0.25, 1.0):
        model.load({BlockId.parse("gate/har"): {"gate": np.array([gate], np.float32)}})
        mixed = model(inputs, present)["har"]
        by_hand = gate * branches["shared"].double() + (1 - gate) * branches["own"].double()
        assert torch.allclose(mixed.double(), by_hand, atol=1e-6)


def test_a_device_on_which_the_own_branch_is_right_listens_to_it() -> None:
    """The shared branch always answers class 0, the own one is trained: the gate goes down and the score up."""
    pytest.importorskip("torch")
    from small_model import make_windows, small

    from blossom_edge.training.trainer import TorchTrainer

    federation = small("visibility=dual", "training.epochs=160")
    windows = make_windows(np.arange(140, dtype=np.int64) % 7)
    holdout = make_windows(np.arange(70, dtype=np.int64) % 7, seed=1)
    trainer = TorchTrainer(
        federation, device_id="d1", train=lambda: windows, holdout=lambda: holdout, compute="cpu", threads=1
    )
    base = DeviceBlocks(federation, ("accel", "gyro"), ()).model({}, {})
    result = trainer.train(base, federation.local_training(1), round_number=1, frozen=frozenset(), optimizer={})
    blocks: dict[BlockId, Tensors] = {**base, **result.blocks}
    head = BlockId.parse("head/har")
    blocks[head] = {name: np.zeros_like(values) for name, values in blocks[head].items()}
    bias = np.zeros(7, np.float32)
    bias[0] = 20.0
    blocks[head] = {**blocks[head], "layers.1.bias": bias}
    again = trainer.train(blocks, federation.local_training(2), round_number=2, frozen=frozenset(), optimizer={})
    assert again.blocks[BlockId.parse("gate/har")]["gate"] == pytest.approx(0.0)
    score = trainer.evaluate(blocks)["har.accuracy"]
    assert score.total / score.count > 0.9


def test_a_device_says_how_its_answer_is_mixed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from small_model import make_windows, small, trainer_of

    from blossom_edge.client.learner import Learner
    from blossom_edge.simulation.world import SimulatedDevice, World

    federation = small("visibility=dual", "schedule.stop_rounds=1", "rounds.min_devices=1")
    windows = make_windows(np.arange(40, dtype=np.int64) % 7)
    both = ("accel", "gyro")
    device = SimulatedDevice("d1", "any", both, lambda f: Learner(trainer_of(f, windows, windows)))
    world = World(federation, [device], tmp_path)
    assert world.agents[0].status()["gates"] == {}
    world.run()
    found = world.agents[0].status()["gates"]
    world.close()
    assert list(found) == ["har"]
    assert min(abs(found["har"] - gate) for gate in GATES) < 1e-6


def changed(values: Tensors, before: Tensors) -> bool:
    return any(not np.array_equal(values[name], before[name]) for name in values)


def _planned(federation: Federation) -> object:
    from blossom_edge.codec.messages import PlannedTraining

    training = federation.local_training(1)
    fields: Mapping[str, object] = {name: getattr(training, name) for name in training.__slots__}
    return PlannedTraining.model_validate(fields)
