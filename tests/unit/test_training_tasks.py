"""Scores, kinds of tasks and the choice of a device, on small models and windows whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_model import CLASSES, EMPTY, first_blocks, make_windows, mean, run, small, trainer_of  # noqa: E402

from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.core.errors import BlossomError, ConfigError, HardwareError  # noqa: E402
from blossom_edge.core.metrics import Metric  # noqa: E402
from blossom_edge.core.rounds import LocalTraining  # noqa: E402
from blossom_edge.core.windows import WindowSet  # noqa: E402
from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.training import compute  # noqa: E402
from blossom_edge.training.batches import batch_rows  # noqa: E402
from blossom_edge.training.trainer import TorchTrainer  # noqa: E402

pytestmark = pytest.mark.torch


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
    monkeypatch.setattr(compute, "allowed_cpus", lambda root: 8)
    monkeypatch.setattr(compute, "physical_cores", lambda root: 4)
    assert compute.default_threads() == 3
    monkeypatch.setattr(compute, "physical_cores", lambda root: 1)
    assert compute.default_threads() == 1
    monkeypatch.setattr(compute, "physical_cores", lambda root: 64)
    monkeypatch.setattr(compute, "allowed_cpus", lambda root: 2)
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
