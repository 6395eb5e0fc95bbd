"""Local training and scoring with torch, on small models and windows whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from blossom_edge.core.blocks import Array, BlockId  # noqa: E402
from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError  # noqa: E402
from blossom_edge.core.metrics import Metric  # noqa: E402
from blossom_edge.core.rounds import LocalTraining  # noqa: E402
from blossom_edge.core.training import Blocks, Trainer, TrainResult  # noqa: E402
from blossom_edge.core.windows import WindowSet  # noqa: E402
from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.schema import Federation  # noqa: E402
from blossom_edge.training import compute  # noqa: E402
from blossom_edge.training.batches import batch_rows  # noqa: E402
from blossom_edge.training.trainer import TorchTrainer  # noqa: E402

pytestmark = pytest.mark.torch

MLP = "{type='mlp', widths=[16, 12]}"
SMALL = [
    "training={optimizer='sgd', lr=0.05, batch_size=16}",
    f"blocks.encoder/accel={MLP}",
    f"blocks.encoder/gyro={MLP}",
    "blocks.fusion/har.width=16",
    "blocks.head/har.hidden=16",
    "modalities.accel.window=8",
    "modalities.accel.hop=8",
    "modalities.gyro.window=8",
    "modalities.gyro.hop=8",
]


def small(*sets: str) -> Federation:
    return load_federation("har", sets=[*SMALL, *sets])


def make_windows(
    labels: NDArray[Any], present: Mapping[str, list[int]] | None = None, *, task: str = "har", seed: int = 0
) -> WindowSet:
    """Windows with a bump whose place is the class, so that they can be learned."""
    generator = np.random.Generator(np.random.Philox(seed))
    shown = present or {"accel": [1] * len(labels), "gyro": [1] * len(labels)}
    inputs: dict[str, Array] = {}
    for modality in shown:
        values = 0.1 * generator.standard_normal((len(labels), 8, 3))
        values[np.arange(len(labels)), np.nan_to_num(labels).astype(int), 0] += 2.0
        inputs[modality] = values.astype(np.float32)
    masks = {m: np.array(rows, dtype=np.bool_) for m, rows in shown.items()}
    return WindowSet(inputs, masks, {task: labels}, np.arange(len(labels), dtype=np.float64))


EMPTY = make_windows(np.zeros(0, dtype=np.int64))
CLASSES = make_windows(np.arange(21, dtype=np.int64) % 7)


def trainer_of(
    federation: Federation, windows: WindowSet = CLASSES, holdout: WindowSet = EMPTY, device: str = "d1"
) -> TorchTrainer:
    return TorchTrainer(
        federation, device_id=device, train=lambda: windows, holdout=lambda: holdout, compute="cpu", threads=1
    )


def first_blocks(federation: Federation, *modalities: str) -> dict[BlockId, Mapping[str, Array]]:
    owned = federation.spec.owned(modalities or federation.modalities, federation.tasks)
    return {s.id: initial_block(s, federation.digest, 0) for s in owned}


def run(
    federation: Federation,
    trainer: TorchTrainer,
    blocks: Blocks | None = None,
    *,
    round_number: int = 1,
    frozen: tuple[str, ...] = (),
    optimizer: Mapping[str, Array] | None = None,
) -> TrainResult:
    return trainer.train(
        blocks or first_blocks(federation),
        federation.local_training(round_number),
        round_number=round_number,
        frozen=frozenset(BlockId.parse(b) for b in frozen),
        optimizer=optimizer or {},
    )


def mean(metric: Metric) -> float:
    assert metric.mean is not None
    return metric.mean


def raw(blocks: Blocks) -> dict[str, bytes]:
    return {f"{b}:{n}": v.tobytes() for b, tensors in blocks.items() for n, v in tensors.items()}


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


def test_a_regression_is_scored_in_its_unit() -> None:
    federation = load_federation(
        "two-tasks", sets=["tasks.speed.mean=2.0", "modalities.accel.window=8", "modalities.accel.hop=8"]
    )
    labels = np.array([1.0, 2.0, 5.0, np.nan], dtype=np.float32)
    windows = make_windows(labels, {"accel": [1, 1, 1, 1]}, task="speed")
    trainer = TorchTrainer(
        federation,
        device_id="d1",
        train=lambda: windows,
        holdout=lambda: windows,
        compute="cpu",
        threads=1,
        tasks=("speed",),
    )
    blocks = {s.id: initial_block(s, federation.digest, 0) for s in federation.spec.owned(["accel"], ["speed"])}
    head = BlockId.parse("head/speed")
    blocks[head] = {name: np.zeros_like(values) for name, values in blocks[head].items()}
    # the head says 2.0 for each: errors 1, 0, 3
    metrics = trainer.evaluate(blocks)
    assert metrics == {"speed.loss": Metric(10.0, 3.0), "speed.mae": Metric(4.0, 3.0)}
    result = run(federation, trainer, blocks)
    assert {str(b) for b in result.blocks} == {"encoder/accel", "fusion/speed", "fusion/speed.accel", "head/speed"}
    assert set(result.num_samples.values()) == {3}


def test_a_regression_learns_in_spreads() -> None:
    sets = ["tasks.speed.mean=2.0", "tasks.speed.spread=4.0", "modalities.accel.window=8", "modalities.accel.hop=8"]
    training = "training={lr=0.5, momentum=0.0, steps=1}"
    federation = load_federation("two-tasks", sets=[*sets, training])
    windows = make_windows(np.array([1.0, 2.0, 5.0], dtype=np.float32), {"accel": [1, 1, 1]}, task="speed")
    blocks = {s.id: initial_block(s, federation.digest, 0) for s in federation.spec.owned(["accel"], ["speed"])}
    head = BlockId.parse("head/speed")
    blocks[head] = {name: np.zeros_like(values) for name, values in blocks[head].items()}
    result = run(federation, trainer_of(federation, windows), blocks)
    # it says 2.0: errors 1, 0, -3 are 1/4, 0, -3/4 spreads; the gradient is twice their mean, -1/3; lr 0.5
    assert result.blocks[head]["layers.1.bias"][0] == pytest.approx(1 / 6)


def test_a_multilabel_window_is_right_when_all_its_labels_are() -> None:
    federation = small("tasks.har.type=multilabel", "tasks.har.classes=['a', 'b']")
    labels = np.array([[1, 0], [1, 1], [0, 0], [np.nan, 0]], dtype=np.float32)
    inputs = make_windows(np.zeros(4, dtype=np.int64))
    windows = WindowSet(inputs.inputs, inputs.present, {"har": labels}, inputs.times)
    trainer = trainer_of(federation, windows, windows)
    blocks = first_blocks(federation)
    head = BlockId.parse("head/har")
    blocks[head] = {name: np.zeros_like(values) for name, values in blocks[head].items()}
    blocks[head] = {**blocks[head], "layers.1.bias": np.array([20.0, -20.0], np.float32)}
    # always {a}: right once in three; the loss is 20 per wrong label, over two labels
    metrics = trainer.evaluate(blocks)
    assert metrics["har.accuracy"] == Metric(1.0, 3.0)
    assert metrics["har.loss"].total == pytest.approx(20.0, rel=1e-6)
    assert set(run(federation, trainer).num_samples.values()) == {3}


def test_a_device_with_two_tasks_learns_both_and_counts_the_encoder_once() -> None:
    federation = load_federation("two-tasks", sets=["modalities.accel.window=8", "modalities.accel.hop=8"])
    base = make_windows(np.array([0, 1, 2, -1, -1], dtype=np.int64), {"accel": [1] * 5}, task="activity")
    speed = np.array([np.nan, 1.0, 2.0, 3.0, np.nan], dtype=np.float32)
    windows = WindowSet(base.inputs, base.present, {**base.labels, "speed": speed}, base.times)
    result = run(federation, trainer_of(federation, windows, windows))
    counts = {str(b): n for b, n in result.num_samples.items()}
    assert counts == {
        "encoder/accel": 4,
        "fusion/activity": 3,
        "fusion/activity.accel": 3,
        "fusion/speed": 3,
        "fusion/speed.accel": 3,
        "head/activity": 3,
        "head/speed": 3,
    }
    scored = trainer_of(federation, windows, windows).evaluate(result.blocks)
    assert set(scored) == {"activity.accuracy", "activity.loss", "speed.loss", "speed.mae"}


def test_evaluation_is_the_same_in_any_batches_and_leaves_dropout_out() -> None:
    federation = small("blocks.head/har.dropout=0.9")
    many = make_windows(np.arange(300, dtype=np.int64) % 7)
    trainer = trainer_of(federation, CLASSES, many)
    blocks = first_blocks(federation)
    whole = trainer.evaluate(blocks)
    assert whole == trainer.evaluate(blocks)
    parts = [trainer_of(federation, CLASSES, many.take(rows)).evaluate(blocks) for rows in np.split(np.arange(300), 3)]
    assert whole["har.accuracy"].total == sum(p["har.accuracy"].total for p in parts)
    assert whole["har.loss"].total == pytest.approx(sum(p["har.loss"].total for p in parts), rel=1e-6)
    assert whole["har.loss"].count == 300.0


def test_new_windows_are_used_as_soon_as_they_are_there() -> None:
    federation = small()
    sets = [CLASSES.take(np.arange(7)), CLASSES]
    trainer = TorchTrainer(
        federation, device_id="d1", train=lambda: sets[0], holdout=lambda: EMPTY, threads=1, compute="cpu"
    )
    assert set(run(federation, trainer).num_samples.values()) == {7}
    sets.reverse()
    assert set(run(federation, trainer).num_samples.values()) == {21}


def test_values_that_are_no_longer_finite_stop_the_round_with_advice() -> None:
    federation = small("training.lr=100.0", "training.epochs=200", "training.momentum=0.99")
    with pytest.raises(BlossomError, match=r"^training diverged in round 1: .* is not finite$") as caught:
        run(federation, trainer_of(federation))
    assert caught.value.error_id == "local-value"
    assert "clip_norm" in caught.value.hint


def test_each_pass_sees_every_window_once_in_batches_of_nearly_equal_size() -> None:
    training = LocalTraining("sgd", 0.1, 2, 0, 16, 0.9, 0.0, 0.0, 0)
    batches = [rows.tolist() for rows in batch_rows(21, training, round_number=1, device_id="d1")]
    assert [len(b) for b in batches] == [11, 10, 11, 10]
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second


def test_cuda_that_is_not_there_is_refused_and_auto_says_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HardwareError, match="cuda is not available") as caught:
        compute.choose_device("cuda")
    assert caught.value.error_id == "device-unavailable"
    assert compute.choose_device("auto") == (torch.device("cpu"), "cpu (auto: no CUDA device)")
    assert trainer_of(small()).compute_note == "cpu, 1 thread"
    with pytest.raises(ConfigError, match="found 'gpu', expected auto, cpu or cuda"):
        compute.choose_device("gpu")


def test_threads_are_set_and_never_less_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_allowed_cpus", lambda: 8)
    monkeypatch.setattr(compute, "_physical_cores", lambda: 4)
    assert compute.default_threads() == 3
    monkeypatch.setattr(compute, "_physical_cores", lambda: 1)
    assert compute.default_threads() == 1
    monkeypatch.setattr(compute, "_physical_cores", lambda: 64)
    monkeypatch.setattr(compute, "_allowed_cpus", lambda: 2)
    assert compute.default_threads() == 2
    assert compute.set_threads(0) == 1
    assert torch.get_num_threads() == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_learns_the_same_windows_and_returns_float32_on_the_cpu() -> None:
    federation = small("training.epochs=160", "training.lr=0.02")
    holdout = make_windows(np.arange(70, dtype=np.int64) % 7, seed=1)
    trainer = TorchTrainer(federation, device_id="d1", train=lambda: CLASSES, holdout=lambda: holdout, compute="cuda")
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(5)
    result = run(federation, trainer)
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    assert trainer.compute_note.startswith("cuda: ")
    assert {v.dtype for t in result.blocks.values() for v in t.values()} == {np.dtype(np.float32)}
    assert mean(trainer.evaluate(result.blocks)["har.accuracy"]) > 0.9
    on_cpu = trainer_of(federation, CLASSES, holdout).evaluate(result.blocks)
    assert on_cpu["har.loss"].total == pytest.approx(trainer.evaluate(result.blocks)["har.loss"].total, rel=1e-3)
