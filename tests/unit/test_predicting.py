"""From outputs to predictions in words, and which head speaks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import FEDERATION, KEYS, MODALITIES, tensors_of

from blossom_edge.client.predicting import ModelInUse, Predictor, used_outputs, words_of
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Task
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import Generation, Used, own_name
from blossom_edge.inference.skeleton_set import SkeletonSet


def test_a_classification_says_the_class_with_the_largest_share() -> None:
    task = Task(type="classification", classes=("a", "b", "c"))
    labels, confidence, value = words_of(task, np.array([0.0, math.log(3.0), 0.0], dtype=np.float32))
    assert (labels, value) == (("b",), None)
    assert confidence == pytest.approx(0.6)  # 3 of 1 + 3 + 1


def test_a_multilabel_says_all_of_one_half_or_more_the_surest_first() -> None:
    task = Task(type="multilabel", classes=("a", "b", "c"))
    labels, confidence, _ = words_of(task, np.array([0.0, -1.0, math.log(4.0)], dtype=np.float32))
    assert labels == ("c", "a")
    assert confidence == pytest.approx(0.8)
    assert words_of(task, np.array([-1.0, -1.0, -2.0], dtype=np.float32)) == ((), None, None)


def test_a_regression_says_its_value_and_no_confidence() -> None:
    assert words_of(Task(type="regression", unit="m/s"), np.array([1.5], dtype=np.float32)) == ((), None, 1.5)


def test_the_own_head_speaks_unless_the_shared_one_is_known_to_be_better() -> None:
    shared, own = np.array([[1.0]], np.float32), np.array([[2.0]], np.float32)
    both = {"har": shared, own_name("har"): own}
    assert used_outputs(both, {}) == ({"har": own}, {"har"})
    assert used_outputs(both, {"har": True}) == ({"har": own}, {"har"})
    assert used_outputs(both, {"har": False}) == ({"har": shared}, set())
    assert used_outputs({own_name("har"): own}, {"har": False}) == ({"har": own}, {"har"})
    assert used_outputs({"har": shared}, {"har": True}) == ({"har": shared}, set())


def windows(present: list[tuple[bool, bool]], labels: list[int]) -> WindowSet:
    n = len(labels)
    words = np.sin(np.arange(n * 128 * 3, dtype=np.float32)).reshape(n, 128, 3)
    here = np.array(present)
    inputs = {m: words * here[:, i, None, None] for i, m in enumerate(MODALITIES)}
    times = 2.56 * np.arange(n, dtype=np.float64)
    return WindowSet(inputs, {m: here[:, i] for i, m in enumerate(MODALITIES)}, {"har": np.array(labels)}, times)


def test_every_window_is_predicted_once_with_its_time_its_modalities_and_one_set_of_versions(tmp_path: Path) -> None:
    model = OnnxModel.build(FEDERATION, {b: tensors_of(b, 1) for b in KEYS}, SkeletonSet(tmp_path).get)
    versions = {str(block): 7 for block in KEYS}
    ticks = iter(range(100))
    predictor = Predictor(FEDERATION, span_s=2.56, clock=lambda: next(ticks) / 1e3)
    used = ModelInUse(model, {}, versions, {}, generation=3)
    given = windows([(True, True), (True, False), (False, False)], [0, -1, 2])
    found = predictor.predict(used, given, uses_own={})
    assert [(p.number, p.start_s, p.end_s) for p in found] == [(1, 0.0, 2.56), (2, 2.56, 5.12)]  # the third saw nothing
    assert [p.present for p in found] == [("accel", "gyro"), ("accel",)]
    assert all(p.generation == 3 and dict(p.versions) == versions and not p.personal for p in found)
    assert [p.latency_ms for p in found] == pytest.approx([1.0, 1.0])
    assert predictor.num_windows == 3
    assert predictor.score["har.accuracy"].count == 1  # only the first had a label and was predicted
    again = predictor.predict(used, given, uses_own={})
    assert [p.number for p in again] == [4, 5]


def test_a_window_that_fails_is_counted_and_the_next_one_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OnnxModel.build(FEDERATION, {b: tensors_of(b, 1) for b in KEYS}, SkeletonSet(tmp_path).get)
    predictor = Predictor(FEDERATION, span_s=2.56, clock=lambda: 0.0)
    given = windows([(True, True), (True, True)], [0, 0])
    calls = iter([np.nan, 1.0])
    monkeypatch.setattr(
        "blossom_edge.client.predicting.run_model", lambda *args: {"har": np.full((1, 7), next(calls), np.float32)}
    )
    found = predictor.predict(ModelInUse(model, {}, {}, {}), given, uses_own={})
    assert [p.number for p in found] == [2]
    assert (predictor.num_windows, predictor.num_failed) == (2, 1)
    assert "not finite" in predictor.last_failure


def test_only_the_tasks_that_the_device_serves_are_told(tmp_path: Path) -> None:
    model = OnnxModel.build(FEDERATION, {b: tensors_of(b, 1) for b in KEYS}, SkeletonSet(tmp_path).get)
    predictor = Predictor(FEDERATION, span_s=2.56, clock=lambda: 0.0, tasks=("other",))
    assert predictor.predict(ModelInUse(model, {}, {}, {}), windows([(True, True)], [0]), uses_own={}) == []


def test_a_prediction_names_blocks_not_whose_copy_of_them(tmp_path: Path) -> None:
    model = OnnxModel.build(FEDERATION, {b: tensors_of(b, 1) for b in KEYS}, SkeletonSet(tmp_path).get)
    key = BlockKey.parse("fusion/har@accel.gyro")
    assert ModelInUse.of(Generation(1, {key: Used(3, "0" * 64)}, model)).versions == {"fusion/har": 3}
