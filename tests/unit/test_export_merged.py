"""One ONNX file of a whole model: any program with onnxruntime can use it, and it computes what torch does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

from support.learning import tiny  # noqa: E402

from blossom_edge.core.blocks import BlockId, Tensors  # noqa: E402
from blossom_edge.core.errors import BlossomError  # noqa: E402
from blossom_edge.export import merged  # noqa: E402
from blossom_edge.export.merged import FACTS_KEY, export_merged  # noqa: E402
from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.schema import Federation  # noqa: E402

pytestmark = pytest.mark.torch

REST, HEAD = BlockId.parse("fusion/har"), BlockId.parse("head/har")


def blocks_of(federation: Federation, *modalities: str) -> dict[BlockId, Tensors]:
    specs = federation.spec.owned(modalities or federation.modalities, federation.tasks)
    return {s.id: initial_block(s, "test", 5) for s in specs}


def opened(data: bytes) -> tuple[Any, dict[str, Any]]:
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map[FACTS_KEY])


def test_a_classification_file_says_what_its_numbers_mean_and_hides_what_is_absent() -> None:
    federation = tiny()
    accel = BlockId.parse("encoder/accel")
    session, facts = opened(export_merged(federation, blocks_of(federation), task="har", versions={accel: 4, HEAD: 9}))
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [
        ("accel", [8, 3]),
        ("gyro", [8, 3]),
        ("present", [2]),
    ]
    assert [(o.name, o.shape[1:]) for o in session.get_outputs()] == [("probabilities", [7])]
    assert facts["classes"] == ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
    assert (facts["federation"], facts["digest"], facts["type"]) == ("har", federation.digest, "classification")
    assert facts["versions"] == {"encoder/accel": 4, "head/har": 9}
    assert [m["name"] for m in facts["modalities"]] == ["accel", "gyro"]
    assert facts["modalities"][0]["channels"][0] == {"name": "x", "unit": "m/s2", "mean": 0.0, "spread": 6.0}
    generator = np.random.Generator(np.random.Philox(0))
    feeds = {m: generator.standard_normal((3, 8, 3), dtype=np.float32) for m in ("accel", "gyro")}
    feeds["present"] = np.array([[True, True], [True, False], [True, False]])
    (first,) = session.run(None, feeds)
    assert first.sum(axis=1) == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)
    feeds["gyro"][1:] = np.nan
    (again,) = session.run(None, feeds)
    assert np.array_equal(first, again), "what is absent was looked at"
    feeds["gyro"][0] = 5.0
    (other,) = session.run(None, feeds)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.slow
def test_a_regression_file_gives_its_value_in_the_unit_of_the_task() -> None:
    federation = load_federation("two-tasks")
    task = federation.tasks["speed"]
    blocks = blocks_of(federation)
    head = BlockId.parse("head/speed")
    blocks[head] = {name: np.zeros_like(values) for name, values in blocks[head].items()}
    blocks[head]["layers.1.bias"] = np.array([2.0], dtype=np.float32)  # two spreads above the mean, whatever comes in
    session, facts = opened(export_merged(federation, blocks, task="speed"))
    windows = np.ones((2, 64, 3), np.float32)
    (value,) = session.run(["value"], {"accel": windows, "present": np.array([[True], [True]])})
    assert value == pytest.approx([task.mean + 2.0 * task.spread] * 2)
    assert (facts["unit"], facts["classes"]) == (task.unit, [])


@pytest.mark.slow
def test_a_device_with_one_sensor_gets_a_file_with_one() -> None:
    federation = tiny()
    session, facts = opened(export_merged(federation, blocks_of(federation, "gyro"), task="har"))
    assert [i.name for i in session.get_inputs()] == ["gyro", "present"]
    assert [m["name"] for m in facts["modalities"]] == ["gyro"]


def test_missing_blocks_and_a_model_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = tiny()
    blocks = blocks_of(federation)
    without = {block: values for block, values in blocks.items() if block != HEAD}
    with pytest.raises(BlossomError, match="task har: head/har is not on this device") as caught:
        export_merged(federation, without, task="har")
    assert caught.value.error_id == "export-failed"
    with pytest.raises(BlossomError, match="an encoder with its part of the fusion is not on this device"):
        export_merged(federation, {b: blocks[b] for b in (REST, HEAD)}, task="har")
    monkeypatch.setattr(merged, "MAX_MERGED_BYTES", 1000)
    with pytest.raises(BlossomError, match=r"its weights have \d+ bytes, one ONNX file holds at most 1000"):
        export_merged(federation, blocks, task="har")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("har", []),
        ("har", ['blocks."fusion/har".type=attention', "tasks.har.type=multilabel"]),
        ("two-tasks", ['blocks."fusion/activity".type=attention', 'blocks."fusion/speed".type=attention']),
        ("audio-image", []),
    ],
)
def test_every_preset_can_be_one_file_that_computes_what_torch_does(name: str, sets: list[str]) -> None:
    federation = load_federation(name, sets=sets)
    for task in federation.tasks:
        data = export_merged(federation, blocks_of(federation), task=task)  # compares with torch, or raises
        weights = sum(4 * s.num_values for s in federation.spec.owned(federation.modalities, [task]))
        assert weights < len(data) < weights + 64 * 1024
