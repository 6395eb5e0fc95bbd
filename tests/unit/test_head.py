"""A personal head in numpy: its gradients, what it learns, that it goes on from where it was, and its file."""

from __future__ import annotations

import numpy as np
import pytest

from blossom_edge.codec import safetensors_file
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import Task
from blossom_edge.inference.features import head_features
from blossom_edge.inference.head import (
    BATCH,
    HeadValues,
    apply_head,
    fit_head,
    head_from_bytes,
    head_to_bytes,
    loss_and_gradients,
)
from blossom_edge.inference.head_values import MAX_HEAD_BYTES
from blossom_edge.inference.scoring import score

GENERATOR = np.random.Generator(np.random.Philox(8))
FEATURES = GENERATOR.standard_normal((120, 10), dtype=np.float32)
CLASSES = (FEATURES[:, 0] > 0).astype(np.int64) + 2 * (FEATURES[:, 1] > 0)
SOFTMAX = HeadValues(
    "softmax",
    {
        "layers.0.weight": np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),
        "layers.0.bias": np.array([0.0, 1.0], np.float32),
    },
)
HIDDEN = HeadValues(
    "hidden",
    {
        "layers.0.weight": np.array([[1.0, -1.0], [-1.0, 0.5]], np.float32),
        "layers.0.bias": np.array([0.0, 0.5], np.float32),
        "layers.1.weight": np.array([[2.0, 3.0]], np.float32),
        "layers.1.bias": np.array([-1.0], np.float32),
    },
)


def accuracy(head: HeadValues, features: np.ndarray = FEATURES, labels: np.ndarray = CLASSES) -> float:
    return float((apply_head(head, features).argmax(axis=1) == labels).mean())


def test_heads_compute_what_can_be_worked_out_by_hand() -> None:
    x = np.array([[3.0, 1.0]], np.float32)
    assert apply_head(SOFTMAX, x).tolist() == [[3.0, 3.0]]
    # hidden: relu(3 - 1) = 2 and relu(-3 + 0.5 + 0.5) = 0, so 2 * 2 + 3 * 0 - 1
    assert apply_head(HIDDEN, x).tolist() == [[3.0]]


def test_loss_and_gradients_by_hand_for_each_task() -> None:
    x = np.array([[3.0, 1.0]], np.float32)
    # two equal logits: each class has 1/2, so the gradient of the logits is (-1/2, 1/2)
    loss, gradients = loss_and_gradients(SOFTMAX, x, np.array([0]), "classification")
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(gradients["layers.0.bias"], [-0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(gradients["layers.0.weight"], [[-1.5, -0.5], [1.5, 0.5]], atol=1e-6)
    # a multilabel of two: (sigmoid(3) - y) / 2
    loss, gradients = loss_and_gradients(SOFTMAX, x, np.array([[1.0, 0.0]], np.float32), "multilabel")
    sigmoid = 1 / (1 + np.exp(-3.0))
    assert loss == pytest.approx((-np.log(sigmoid) - np.log(1 - sigmoid)) / 2, rel=1e-5)
    np.testing.assert_allclose(gradients["layers.0.bias"], [(sigmoid - 1) / 2, sigmoid / 2], rtol=1e-5)
    # a regression: 3 for 5, (-2)^2, and the second hidden unit sleeps
    loss, gradients = loss_and_gradients(HIDDEN, x, np.array([5.0], np.float32), "regression")
    assert loss == pytest.approx(4.0)
    assert gradients["layers.1.bias"].tolist() == [-4.0]
    assert gradients["layers.1.weight"].tolist() == [[-8.0, 0.0]]
    assert gradients["layers.0.bias"].tolist() == [-8.0, 0.0]
    assert gradients["layers.0.weight"].tolist() == [[-24.0, -8.0], [0.0, 0.0]]


def test_large_logits_neither_overflow_nor_warn() -> None:
    x = np.array([[300.0, -300.0]], np.float32)
    for labels, task_type in ((np.array([1]), "classification"), (np.array([[0.0, 1.0]], np.float32), "multilabel")):
        loss, gradients = loss_and_gradients(SOFTMAX, x, labels, task_type)
        assert np.isfinite(loss)
        assert all(np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize("hidden", [0, 16])
def test_a_new_head_learns_to_tell_classes_apart(hidden: int) -> None:
    fit = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, hidden=hidden, epochs=40, seed=1)
    assert fit.head.kind == ("hidden" if hidden else "softmax")
    assert accuracy(fit.head) > 0.8  # chance is 0.25
    assert (fit.steps, fit.finished) == (40 * 4, True)  # 120 windows are 4 batches of 30
    expected = loss_and_gradients(fit.head, FEATURES, CLASSES, "classification")[0]
    assert fit.loss == pytest.approx(expected, rel=1e-5)


def test_it_learns_several_labels_at_once() -> None:
    labels = (FEATURES[:, :3] > 0).astype(np.float32)
    fit = fit_head(FEATURES, labels, task_type="multilabel", num_outputs=3, hidden=16, epochs=40, seed=1)
    assert ((apply_head(fit.head, FEATURES) > 0) == (labels > 0.5)).mean() > 0.9


def test_a_regression_far_from_zero_comes_in_the_unit_of_its_labels() -> None:
    labels = (1000.0 + 50.0 * FEATURES[:, 0]).astype(np.float32)
    fit = fit_head(FEATURES, labels, task_type="regression", num_outputs=1, hidden=16, epochs=60, seed=1)
    error = np.abs(apply_head(fit.head, FEATURES)[:, 0] - labels)
    assert error.mean() < 10.0  # of a spread of 50
    assert fit.loss == pytest.approx(float(np.square(error).mean()), rel=1e-3)


def test_features_of_another_scale_and_place_teach_the_same() -> None:
    plain = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=5, seed=1)
    moved = fit_head(50 * FEATURES + 300, CLASSES, task_type="classification", num_outputs=4, epochs=5, seed=1)
    both = apply_head(plain.head, FEATURES), apply_head(moved.head, 50 * FEATURES + 300)
    np.testing.assert_allclose(both[0], both[1], atol=0.02)


def test_equal_arguments_give_equal_bits_and_another_seed_another_head() -> None:
    first, again, other = (
        fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=2, seed=seed).head
        for seed in (3, 3, 4)
    )
    assert all(np.array_equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not np.array_equal(first.tensors["layers.0.weight"], other.tensors["layers.0.weight"])


@pytest.mark.parametrize(
    ("task_type", "labels"),
    [
        ("classification", CLASSES),
        ("multilabel", (FEATURES[:, :3] > 0).astype(np.float32)),
        ("regression", FEATURES[:, 0] * 3),
    ],
)
def test_windows_without_a_label_change_nothing(task_type: str, labels: np.ndarray) -> None:
    outputs = {"classification": 4, "multilabel": 3, "regression": 1}[task_type]
    gaps = np.concatenate([labels, labels[:7]])
    gaps[len(labels) :] = -1 if task_type == "classification" else np.nan
    more = np.concatenate([FEATURES, 1e6 * np.ones((7, 10), np.float32)])
    whole, with_gaps = (
        fit_head(x, y, task_type=task_type, num_outputs=outputs, epochs=2, seed=3)
        for x, y in ((FEATURES, labels), (more, gaps))
    )
    assert (whole.loss, whole.steps) == (with_gaps.loss, with_gaps.steps)
    assert all(np.array_equal(v, with_gaps.head.tensors[n]) for n, v in whole.head.tensors.items())


def test_a_warm_start_goes_on_from_the_head_that_is_given() -> None:
    first = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=20, seed=1)
    nothing = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=0, head=first.head)
    np.testing.assert_allclose(apply_head(nothing.head, FEATURES), apply_head(first.head, FEATURES), atol=1e-4)
    moved = FEATURES + 0.1  # the encoders have changed a little
    warm = fit_head(moved, CLASSES, task_type="classification", num_outputs=4, epochs=1, head=first.head)
    cold = fit_head(moved, CLASSES, task_type="classification", num_outputs=4, epochs=1)
    assert warm.loss < 0.7 * cold.loss


def test_a_warm_start_keeps_the_kind_of_the_head() -> None:
    first = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, hidden=0, epochs=1)
    warm = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, hidden=64, epochs=1, head=first.head)
    assert warm.head.kind == "softmax"


def test_a_head_for_other_features_is_refused_and_not_bent() -> None:
    first = fit_head(FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=1).head
    assert first.fits(num_features=10, num_outputs=4)
    assert not first.fits(num_features=9, num_outputs=4)
    with pytest.raises(
        ConfigError, match=r"one for \(features, outputs\) \(10, 4\) cannot go on with \(9, 4\)"
    ) as caught:
        fit_head(FEATURES[:, :9], CLASSES, task_type="classification", num_outputs=4, head=first)
    assert caught.value.error_id == "head-invalid"
    with pytest.raises(ConfigError, match=r"features \(120, 9\), expected \(n, 10\)"):
        apply_head(first, FEATURES[:, :9])


@pytest.mark.parametrize(
    ("labels", "task_type", "words"),
    [
        (np.full(120, -1), "classification", "no labelled window to learn from"),
        (np.full(120, np.nan, np.float32), "regression", "no labelled window to learn from"),
        (CLASSES + 1, "classification", "found label 4, expected a class from 0 to 3"),
        (np.zeros((120, 3), np.float32), "multilabel", r"labels \(120, 3\), expected \(n, 4\)"),
    ],
)
def test_labels_that_cannot_be_learned_are_an_error(labels: np.ndarray, task_type: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        fit_head(FEATURES, labels, task_type=task_type, num_outputs=4)
    assert caught.value.error_id == "head-invalid"


def test_features_that_are_not_finite_give_no_head() -> None:
    bad = FEATURES.copy()
    bad[3, 3] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        fit_head(bad, CLASSES, task_type="classification", num_outputs=4, epochs=1)


def test_it_stops_between_passes_when_it_is_told_to() -> None:
    asked = iter([True, True, False])
    fit = fit_head(
        FEATURES, CLASSES, task_type="classification", num_outputs=4, epochs=10, keep_going=lambda: next(asked)
    )
    assert (fit.steps, fit.finished) == (2 * 4, False)


def test_one_window_is_enough_to_run() -> None:
    fit = fit_head(FEATURES[:1], CLASSES[:1], task_type="classification", num_outputs=4, epochs=3)
    assert fit.steps == 3
    assert BATCH >= 1


@pytest.mark.parametrize("head", [SOFTMAX, HIDDEN])
def test_a_file_gives_the_head_back(head: HeadValues) -> None:
    data = head_to_bytes(head, {"task": "har"})
    found = head_from_bytes(data)
    assert found.kind == head.kind
    assert all(np.array_equal(v, found.tensors[n]) for n, v in head.tensors.items())
    assert safetensors_file.read(data)[1] == {"kind": head.kind, "task": "har"}
    for length in range(0, len(data), 7):
        with pytest.raises(ConfigError) as caught:
            head_from_bytes(data[:length])
        assert caught.value.error_id == "head-invalid"


def changed(**tensors: np.ndarray) -> bytes:
    return safetensors_file.write({**HIDDEN.tensors, **tensors}, {"kind": "hidden"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (safetensors_file.write(HIDDEN.tensors, {"kind": "softmax"}), "tensors layers.0.bias, layers.0.weight"),
        (safetensors_file.write(HIDDEN.tensors, {}), "found kind '', expected hidden or softmax"),
        (changed(more=np.zeros(1, np.float32)), "tensors layers.0.bias"),
        (changed(**{"layers.0.bias": np.array([np.nan, 0], np.float32)}), "layers.0.bias is float32 or not finite"),
        (changed(**{"layers.0.bias": np.zeros(2)}), "layers.0.bias is float64 or not finite"),
        (changed(**{"layers.0.bias": np.zeros(3, np.float32)}), r"layers.0 has shapes \(2, 2\) and \(3,\)"),
        (changed(**{"layers.1.weight": np.zeros((1, 3), np.float32)}), "layers.1 has 3 inputs, expected 2"),
        (changed(**{"layers.1.weight": np.zeros((1, 2, 1), np.float32)}), "layers.1 has shapes"),
        (b"\0" * (MAX_HEAD_BYTES + 1), f"found {MAX_HEAD_BYTES + 1} bytes, expected at most"),
    ],
)
def test_a_file_that_is_no_head_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        head_from_bytes(data)
    assert caught.value.error_id == "head-invalid"


def test_features_are_embeddings_in_order_with_zeros_for_what_is_absent_and_a_flag_for_each() -> None:
    embeddings = {"accel": np.array([[1.0, 2.0], [3.0, 4.0]]), "gyro": np.array([[5.0], [6.0]])}
    present = {"accel": np.array([True, False])}
    found = head_features(embeddings, present, ("gyro", "accel"))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    with pytest.raises(KeyError, match="ecg"):
        head_features(embeddings, present, ("ecg",))


def test_scores_are_sums_over_labelled_windows_worked_by_hand() -> None:
    task = Task(type="classification", classes=("a", "b"))
    outputs = np.array([[0.0, 0.0], [0.0, np.log(3)], [9.0, 0.0]], np.float32)
    found = score("har", task, outputs, np.array([0, 1, -1]))
    assert found["har.loss"].total == pytest.approx(np.log(2) + np.log(4 / 3))
    assert (found["har.accuracy"].total, found["har.accuracy"].count) == (2.0, 2.0)  # a tie is the first class
    speed = Task(type="regression", unit="m/s", mean=1.0, spread=5.0)
    found = score("speed", speed, np.array([[1.0], [4.0], [0.0]], np.float32), np.array([2.0, 2.0, np.nan], np.float32))
    assert {n: (m.total, m.count) for n, m in found.items()} == {"speed.loss": (5.0, 2.0), "speed.mae": (3.0, 2.0)}
    many = Task(type="multilabel", classes=("a", "b"))
    labels = np.array([[1.0, 0.0], [1.0, 1.0], [np.nan, 1.0]], np.float32)
    found = score("many", many, np.array([[1.0, -1.0], [1.0, -1.0], [1.0, 1.0]], np.float32), labels)
    assert (found["many.accuracy"].total, found["many.accuracy"].count) == (1.0, 2.0)
    right, wrong = np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))
    assert found["many.loss"].total == pytest.approx(right + (right + wrong) / 2)


def test_without_a_label_there_is_no_score() -> None:
    assert score("har", Task(type="classification", classes=("a", "b")), np.zeros((2, 2)), np.array([-1, -1])) == {}
