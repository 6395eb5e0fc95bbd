"""One round of local training with torch, on small models and windows whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_model import CLASSES, EMPTY, first_blocks, make_windows, mean, raw, run, small, trainer_of  # noqa: E402

from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.core.training import Trainer  # noqa: E402

pytestmark = pytest.mark.torch


def test_the_trainer_keeps_the_protocol_of_the_core() -> None:
    trainer: Trainer = trainer_of(small())
    assert trainer.num_windows() == 21


@pytest.mark.parametrize(
    "settings", [["training.optimizer=sgd", "training.lr=0.02"], ["training.optimizer=adam", "training.lr=0.01"]]
)
def test_training_learns_windows_that_can_be_learned(settings: list[str]) -> None:
    federation = small("training.epochs=160", *settings)
    holdout = make_windows(np.arange(70, dtype=np.int64) % 7, seed=1)
    trainer = trainer_of(federation, CLASSES, holdout)
    before = trainer.evaluate(first_blocks(federation))
    result = run(federation, trainer)
    after = trainer.evaluate(result.blocks)
    assert mean(before["har.accuracy"]) < 0.5
    assert after["har.accuracy"].count == 70.0
    assert after["har.accuracy"].total >= 63.0
    assert mean(after["har.loss"]) < mean(before["har.loss"])


def test_equal_calls_give_equal_bits_also_from_another_trainer() -> None:
    federation = small("blocks.head/har.dropout=0.5")
    results = [run(federation, trainer_of(federation)) for _ in range(2)]
    trainer = trainer_of(federation)
    results += [run(federation, trainer), run(federation, trainer)]
    torch.manual_seed(99)
    results.append(run(federation, trainer))
    assert len({tuple(sorted(raw(r.blocks).items())) for r in results}) == 1


def test_another_round_device_or_seed_trains_in_another_order() -> None:
    federation = small()
    blocks = first_blocks(federation)
    seeded = federation.from_dict({**federation.to_dict(), "seed": 1})
    results = [
        run(federation, trainer_of(federation), blocks),
        run(federation, trainer_of(federation), blocks, round_number=2),
        run(federation, trainer_of(federation, device="d2"), blocks),
        run(seeded, trainer_of(seeded), blocks),
    ]
    assert len({tuple(sorted(raw(r.blocks).items())) for r in results}) == 4


def test_training_does_not_disturb_other_users_of_random_numbers() -> None:
    federation = small()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(federation, trainer_of(federation))
    assert torch.equal(torch.rand(3), expected)


def test_the_blocks_handed_in_are_not_changed() -> None:
    federation = small()
    blocks = first_blocks(federation)
    before = raw(blocks)
    result = run(federation, trainer_of(federation), blocks)
    assert raw(blocks) == before
    assert all(raw(result.blocks)[key] != value for key, value in before.items() if "encoder" in key)


def test_one_step_of_sgd_without_momentum_is_lr_times_gradient() -> None:
    federation = small(
        "training.lr=0.5",
        "training.momentum=0",
        "training.steps=1",
        "training.batch_size=64",
        "blocks.head/har.dropout=0",
        "blocks.encoder/accel.dropout=0",
        "blocks.encoder/gyro.dropout=0",
    )
    blocks = first_blocks(federation)
    result = run(federation, trainer_of(federation), blocks)
    # of the last bias the gradient is known: mean over the windows of softmax - one-hot
    from blossom_edge.models.block_model import BlockModel

    model = BlockModel(federation, blocks)
    model.load(blocks)
    with torch.no_grad():
        outputs = model(
            {m: torch.from_numpy(x) for m, x in CLASSES.inputs.items()},
            {m: torch.from_numpy(p) for m, p in CLASSES.present.items()},
        )
    gradient = (torch.softmax(outputs["har"], 1) - torch.eye(7)[torch.from_numpy(CLASSES.labels["har"])]).mean(0)
    head = BlockId.parse("head/har")
    moved = result.blocks[head]["layers.1.bias"] - blocks[head]["layers.1.bias"]
    assert moved == pytest.approx(-0.5 * gradient.numpy(), abs=1e-6)
    assert (result.num_steps, result.optimizer) == (1, {})


def test_clipping_limits_the_step_to_lr_times_the_norm() -> None:
    federation = small("training.lr=1.0", "training.momentum=0", "training.steps=1", "training.clip_norm=0.01")
    blocks = first_blocks(federation)
    result = run(federation, trainer_of(federation), blocks)
    moved = [result.blocks[b][n] - v for b, tensors in blocks.items() for n, v in tensors.items()]
    assert float(np.sqrt(sum(np.square(m).sum() for m in moved))) == pytest.approx(0.01, rel=1e-3)


def test_frozen_blocks_are_used_but_neither_changed_nor_returned() -> None:
    federation = small()
    result = run(federation, trainer_of(federation), frozen=("encoder/accel", "head/har"))
    assert {str(b) for b in result.blocks} == {"encoder/gyro", "fusion/har", "fusion/har.accel", "fusion/har.gyro"}
    assert set(result.num_samples) == set(result.blocks)
    everything = [str(s.id) for s in federation.spec.blocks]
    nothing = run(federation, trainer_of(federation), frozen=tuple(everything))
    assert (nothing.blocks, nothing.num_steps) == ({}, 0)


def test_samples_are_the_labelled_windows_that_exercised_a_block_counted_once() -> None:
    federation = small("training.epochs=3")
    labels = np.array([0, 1, 2, 3, -1, 5, 6, -1], dtype=np.int64)
    present = {"accel": [1, 1, 1, 0, 1, 0, 0, 0], "gyro": [1, 0, 0, 1, 1, 1, 0, 1]}
    trainer = trainer_of(federation, make_windows(labels, present))
    result = run(federation, trainer)
    # rows 0-3 and 5 have a label and a modality; row 6 has a label, but nothing is present
    assert {str(b): n for b, n in result.num_samples.items()} == {
        "encoder/accel": 3,
        "encoder/gyro": 3,
        "fusion/har": 5,
        "fusion/har.accel": 3,
        "fusion/har.gyro": 3,
        "head/har": 5,
    }
    assert trainer.num_windows() == 5
    assert trainer.present_modalities() == {"accel", "gyro"}
    assert result.num_steps == 3
    assert result.metrics["har.train_loss"].count == 15


def test_with_steps_only_the_windows_that_were_seen_count() -> None:
    federation = small("training.steps=2", "training.batch_size=4")
    result = run(federation, trainer_of(federation))
    # 21 windows in 6 batches of 4, 4, 4, 3, 3, 3
    assert set(result.num_samples.values()) == {8}


def test_a_modality_without_windows_leaves_its_blocks_alone() -> None:
    federation = small("training.weight_decay=0.5")
    windows = make_windows(np.arange(6, dtype=np.int64), {"accel": [1] * 6, "gyro": [0] * 6})
    trainer = trainer_of(federation, windows)
    result = run(federation, trainer)
    assert {str(b) for b in result.blocks} == {"encoder/accel", "fusion/har", "fusion/har.accel", "head/har"}
    assert trainer.present_modalities() == {"accel"}


def test_unlabelled_windows_do_not_change_the_result() -> None:
    federation = small("training.batch_size=64")
    more = make_windows(np.array([*range(7), -1, -1], dtype=np.int64))
    fewer = more.take(np.arange(7))
    assert raw(run(federation, trainer_of(federation, more)).blocks) == raw(
        run(federation, trainer_of(federation, fewer)).blocks
    )


def test_a_device_without_labelled_windows_trains_nothing_and_keeps_its_state() -> None:
    federation = small()
    trainer = trainer_of(federation, EMPTY)
    kept = {"head/har:layers.1.bias:momentum_buffer": np.ones(7, np.float32)}
    result = run(federation, trainer, optimizer=kept)
    assert (result.blocks, result.num_samples, result.num_steps, result.optimizer) == ({}, {}, 0, kept)
    assert trainer.present_modalities() == frozenset()
    assert trainer.evaluate(first_blocks(federation)) == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_state_of_private_blocks_comes_back_and_goes_on(optimizer: str) -> None:
    federation = small(f"training.optimizer={optimizer}", "visibility=private-head")
    trainer = trainer_of(federation)
    first = run(federation, trainer)
    assert {key.partition(":")[0] for key in first.optimizer} == {"head/har"}
    assert all(v.dtype == np.float32 and v.ndim >= 1 for v in first.optimizer.values())
    blocks = {**first_blocks(federation), **first.blocks}
    going_on = run(federation, trainer, blocks, round_number=2, optimizer=first.optimizer)
    anew = run(federation, trainer, blocks, round_number=2)
    assert raw(going_on.blocks) != raw(anew.blocks)
    again = run(federation, trainer, blocks, round_number=2, optimizer=dict(first.optimizer))
    assert raw(going_on.blocks) == raw(again.blocks)


def test_the_state_of_a_private_block_that_is_frozen_for_a_round_is_not_lost() -> None:
    federation = small("visibility=private-head")
    trainer = trainer_of(federation)
    first = run(federation, trainer)
    second = run(federation, trainer, round_number=2, frozen=("head/har",), optimizer=first.optimizer)
    assert raw({BlockId.parse("head/har"): second.optimizer}) == raw({BlockId.parse("head/har"): first.optimizer})


def test_two_rounds_with_kept_state_are_one_long_training() -> None:
    sets = (
        "visibility=full",
        *(f'blocks."{b}".visibility=private' for b in ("encoder/accel", "encoder/gyro", "fusion/har", "head/har")),
    )
    dropout = ("blocks.encoder/accel.dropout=0", "blocks.encoder/gyro.dropout=0", "blocks.head/har.dropout=0")
    federation = small("training.batch_size=64", "training.epochs=2", *sets, *dropout)
    trainer = trainer_of(federation)
    one = run(federation, trainer)
    two = run(federation, trainer, one.blocks, round_number=2, optimizer=one.optimizer)
    double = small("training.batch_size=64", "training.epochs=4", *sets, *dropout)
    whole = run(double, trainer_of(double), first_blocks(federation))
    for block, tensors in whole.blocks.items():
        for name, values in tensors.items():
            assert two.blocks[block][name] == pytest.approx(values, abs=1e-5)


def test_kept_state_of_shared_blocks_or_of_another_shape_is_passed_over() -> None:
    federation = small()
    trainer = trainer_of(federation)
    strange = {
        "encoder/accel:layers.0.bias:momentum_buffer": np.full(16, 100.0, np.float32),
        "head/har:layers.1.bias:momentum_buffer": np.full(3, 100.0, np.float32),
    }
    assert raw(run(federation, trainer, optimizer=strange).blocks) == raw(run(federation, trainer).blocks)
