"""The chain of sessions against a reference in numpy that is written here: no torch, so it also runs on a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.errors import RemoteError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.chain import AT_ONCE, OnnxModel
from blossom_edge.inference.features import head_features
from blossom_edge.inference.skeleton_set import SkeletonSet

pytest.importorskip("onnxruntime")

HAR = load_federation("har")
TWO = load_federation("two-tasks")
Masks = Mapping[str, list[int]]


def blocks_of(federation: Federation, seed: int = 0, only: str = "") -> dict[BlockId, Tensors]:
    specs = [s for s in federation.spec.blocks if str(s.id).startswith(only)]
    return {s.id: initial_block(s, federation.digest, seed) for s in specs}


def build(federation: Federation, blocks: Mapping[BlockId, Tensors], **more: Any) -> OnnxModel:
    return OnnxModel.build(federation, blocks, SkeletonSet().get, **more)


def windows(federation: Federation, num: int, seed: int = 1) -> dict[str, Array]:
    generator = np.random.Generator(np.random.Philox(seed))
    return {
        m: generator.standard_normal((num, s.window, s.width), dtype=np.float32)
        for m, s in federation.modalities.items()
    }


def masks(rows: Masks) -> dict[str, np.ndarray]:
    return {m: np.array(row, dtype=np.bool_) for m, row in rows.items()}


# ---- the reference: mlp and conv1d_gru encoders, concat fusion, mlp head


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mlp_encoder(t: Tensors, window: np.ndarray) -> np.ndarray:
    x = window.reshape(len(window), -1)
    for layer in range(2):
        x = np.maximum(x @ t[f"layers.{layer}.weight"].T + t[f"layers.{layer}.bias"], 0)
    return x


def conv1d_gru(t: Tensors, window: np.ndarray) -> np.ndarray:
    x = window
    for layer in range(3):
        weight = t[f"conv.{layer}.weight"]  # (out, in, 5)
        padded = np.pad(x, ((0, 0), (2, 2), (0, 0)))
        taps = np.stack([padded[:, i : i + x.shape[1]] for i in range(5)], axis=3)
        x = np.maximum(np.einsum("btik,oik->bto", taps, weight) + t[f"conv.{layer}.bias"], 0)
        x = x.reshape(len(x), -1, 2, x.shape[2]).max(axis=2)
    state, states = np.zeros((len(x), 128)), []
    for step in range(x.shape[1]):
        r_in, z_in, n_in = np.split(x[:, step] @ t["gru.weight_ih_l0"].T + t["gru.bias_ih_l0"], 3, axis=1)
        r_own, z_own, n_own = np.split(state @ t["gru.weight_hh_l0"].T + t["gru.bias_hh_l0"], 3, axis=1)
        update = sigmoid(z_in + z_own)
        state = (1 - update) * np.tanh(n_in + sigmoid(r_in + r_own) * n_own) + update * state
        states.append(state)
    return np.mean(states, axis=0)


def reference(
    federation: Federation, blocks: Mapping[BlockId, Tensors], inputs: Mapping[str, Array], present: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Row by row: the mean of the projections of what is there, through the head."""
    encoders: dict[str, Callable[[Tensors, np.ndarray], np.ndarray]] = {"mlp": mlp_encoder, "conv1d_gru": conv1d_gru}
    found = {}
    for task, settings in federation.tasks.items():
        head, rest = blocks[BlockId.parse(f"head/{task}")], blocks[BlockId.parse(f"fusion/{task}")]
        rows = []
        for row in range(len(next(iter(present.values())))):
            projections = []
            for m in federation.task_modalities(task):
                if m in inputs and present[m][row]:
                    encoder = encoders[federation.blocks[f"encoder/{m}"].type]
                    embedding = encoder(blocks[BlockId.parse(f"encoder/{m}")], inputs[m][row : row + 1])
                    projections.append(embedding @ blocks[BlockId.parse(f"fusion/{task}.{m}")]["weight"].T)
            fused = rest["bias"] + (np.mean(projections, axis=0) if projections else 0.0)
            hidden = np.maximum(np.atleast_2d(fused) @ head["layers.0.weight"].T + head["layers.0.bias"], 0)
            rows.append((hidden @ head["layers.1.weight"].T + head["layers.1.bias"])[0])
        scale = (settings.spread, settings.mean) if settings.type == "regression" else (1.0, 0.0)
        found[task] = np.array(rows) * scale[0] + scale[1]
    return found


HAR_BLOCKS = blocks_of(HAR)
HAR_MODEL = build(HAR, HAR_BLOCKS)


@pytest.mark.parametrize(
    "rows",
    [
        {"accel": [1, 1, 1, 1], "gyro": [1, 1, 1, 1]},
        {"accel": [1, 0, 1, 0], "gyro": [1, 1, 0, 0]},  # the last row has nothing
        {"accel": [1, 1, 0, 1], "gyro": [0, 0, 0, 0]},  # no gyro at all
        {"accel": [1], "gyro": [1]},
        {"accel": [1], "gyro": [0]},
        {"accel": [0], "gyro": [1]},
    ],
)
def test_outputs_are_those_of_the_reference_whatever_is_present(rows: Masks) -> None:
    present = masks(rows)
    inputs = windows(HAR, len(rows["accel"]))
    expected = reference(HAR, HAR_BLOCKS, inputs, present)
    found = HAR_MODEL.outputs(inputs, present)
    assert found.keys() == {"har"}
    assert found["har"].dtype == np.float32
    np.testing.assert_allclose(found["har"], expected["har"], atol=1e-5)


def test_two_tasks_share_an_encoder_and_a_regression_comes_in_its_unit() -> None:
    blocks = blocks_of(TWO)
    model = build(TWO, blocks)
    assert model.tasks == ("activity", "speed")
    for num in (1, 5):
        inputs, present = windows(TWO, num), masks({"accel": [1] * num})
        expected = reference(TWO, blocks, inputs, present)
        found = model.outputs(inputs, present)
        assert {t: v.shape for t, v in found.items()} == {"activity": (num, 3), "speed": (num, 1)}
        for task in found:
            np.testing.assert_allclose(found[task], expected[task], atol=1e-5)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_a_task_without_any_modality_is_left_out(num: int) -> None:
    nothing = masks({"accel": [0] * num, "gyro": [0] * num})
    assert HAR_MODEL.outputs(windows(HAR, num), nothing) == {}
    assert HAR_MODEL.outputs({}, nothing) == {}
    assert HAR_MODEL.outputs({}, {}) == {}


def test_a_modality_that_is_not_in_the_inputs_is_absent() -> None:
    inputs, present = windows(HAR, 2), masks({"accel": [1, 1], "gyro": [1, 1]})
    expected = HAR_MODEL.outputs(inputs, {"accel": present["accel"], "gyro": ~present["gyro"]})["har"]
    np.testing.assert_array_equal(HAR_MODEL.outputs({"accel": inputs["accel"]}, present)["har"], expected)


def test_embeddings_that_are_known_are_not_worked_out_again() -> None:
    for num in (1, 3):
        inputs, present = windows(HAR, num), masks({"accel": [1] * num, "gyro": [1] * num})
        embeddings = HAR_MODEL.embed(inputs, present)
        zeros = {m: np.zeros_like(x) for m, x in inputs.items()}
        expected = HAR_MODEL.outputs(inputs, present)["har"]
        np.testing.assert_allclose(HAR_MODEL.outputs(zeros, present, embeddings)["har"], expected, atol=1e-6)


def test_embeddings_of_rows_without_the_modality_are_zeros() -> None:
    inputs, present = windows(HAR, 3), masks({"accel": [1, 0, 1], "gyro": [0, 0, 0]})
    found = HAR_MODEL.embed(inputs, present)
    expected = conv1d_gru(HAR_BLOCKS[BlockId.parse("encoder/accel")], inputs["accel"])
    np.testing.assert_allclose(found["accel"], expected * present["accel"][:, None], atol=1e-5)
    assert np.array_equal(found["gyro"], np.zeros((3, 128), np.float32))
    alone = HAR_MODEL.embed({"accel": inputs["accel"][:1]}, {"accel": present["accel"][:1]})
    np.testing.assert_allclose(alone["accel"], expected[:1], atol=1e-5)
    assert np.array_equal(alone["gyro"], np.zeros((1, 128), np.float32))


def test_a_result_is_the_callers_and_does_not_change_with_the_next_window() -> None:
    first, second = (({m: x[i : i + 1] for m, x in windows(HAR, 2).items()}) for i in range(2))
    present = masks({"accel": [1], "gyro": [1]})
    outputs, embedding = HAR_MODEL.outputs(first, present)["har"], HAR_MODEL.embed(first, present)["accel"]
    kept = outputs.copy(), embedding.copy()
    HAR_MODEL.outputs(second, present)
    assert np.array_equal(outputs, kept[0])
    assert np.array_equal(embedding, kept[1])


def test_many_windows_give_what_each_gives_alone() -> None:
    num = 2 * AT_ONCE + 3
    inputs = windows(HAR, num)
    present = masks({"accel": [1] * num, "gyro": [i % 3 > 0 for i in range(num)]})
    together = HAR_MODEL.outputs(inputs, present)["har"]
    for row in range(0, num, 11):
        one = slice(row, row + 1)
        alone = HAR_MODEL.outputs({m: x[one] for m, x in inputs.items()}, {m: x[one] for m, x in present.items()})
        np.testing.assert_allclose(alone["har"][0], together[row], atol=1e-6)


def test_two_threads_do_not_mix_their_windows() -> None:
    inputs, present = windows(HAR, 8), masks({"accel": [1], "gyro": [1]})
    whole = HAR_MODEL.outputs(inputs, masks({"accel": [1] * 8, "gyro": [1] * 8}))["har"]
    wrong: list[int] = []

    def run(rows: range) -> None:
        for _ in range(20):
            for row in rows:
                found = HAR_MODEL.outputs({m: x[row : row + 1] for m, x in inputs.items()}, present)["har"][0]
                if not np.allclose(found, whole[row], atol=1e-6):
                    wrong.append(row)

    threads = [threading.Thread(target=run, args=(range(start, 8, 2),)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_encoders_alone_serve_no_task_and_embed() -> None:
    model = build(HAR, blocks_of(HAR, only="encoder/"))
    assert (model.tasks, model.modalities) == ((), ("accel", "gyro"))
    inputs, present = windows(HAR, 2), masks({"accel": [1, 1], "gyro": [1, 0]})
    assert model.outputs(inputs, present) == {}
    features = head_features(model.embed(inputs, present), present, model.modalities)
    assert features.shape == (2, 128 + 128 + 2)
    assert np.array_equal(features[:, 256:], [[1, 1], [1, 0]])


def test_a_device_without_a_modality_serves_the_task_with_the_other() -> None:
    blocks = {b: t for b, t in HAR_BLOCKS.items() if "gyro" not in str(b)}
    model = build(HAR, blocks)
    assert (model.modalities, model.task_modalities("har")) == (("accel",), ("accel",))
    inputs = windows(HAR, 2)
    present = masks({"accel": [1, 1], "gyro": [1, 1]})
    expected = HAR_MODEL.outputs(inputs, {"accel": present["accel"], "gyro": ~present["gyro"]})["har"]
    np.testing.assert_allclose(model.outputs(inputs, present)["har"], expected, atol=1e-6)


def test_a_new_version_of_one_block_shares_the_other_sessions_and_the_old_model_goes_on() -> None:
    changed = BlockId.parse("encoder/gyro")
    inputs, present = windows(HAR, 1), masks({"accel": [1], "gyro": [1]})
    before = HAR_MODEL.outputs(inputs, present)["har"]
    newer = {**HAR_BLOCKS, changed: blocks_of(HAR, seed=5)[changed]}
    model = build(HAR, newer, reuse=HAR_MODEL, changed=[changed])
    same = {b for b in model.blocks if model.sessions[b] is HAR_MODEL.sessions[b]}
    assert same == set(HAR_BLOCKS) - {changed}
    np.testing.assert_allclose(
        model.outputs(inputs, present)["har"], reference(HAR, newer, inputs, present)["har"], atol=1e-5
    )
    np.testing.assert_array_equal(HAR_MODEL.outputs(inputs, present)["har"], before)
    assert not np.allclose(model.outputs(inputs, present)["har"], before, atol=1e-5)


def test_without_a_list_of_what_changed_nothing_is_shared() -> None:
    two = build(TWO, blocks_of(TWO))
    again = build(TWO, blocks_of(TWO), reuse=two)
    assert all(again.sessions[b] is not two.sessions[b] for b in two.blocks)
    other = build(TWO, blocks_of(TWO), reuse=HAR_MODEL, changed=[])
    assert other.blocks == two.blocks


def test_a_graph_that_is_not_here_is_an_error_that_names_it() -> None:
    with pytest.raises(RemoteError, match=r"encoder/accel: its graph 0f3dd8ce2d52 is not on this machine") as caught:
        OnnxModel.build(HAR, HAR_BLOCKS, lambda _digest: None)
    assert caught.value.error_id == "skeleton-missing"


def test_a_block_that_the_federation_does_not_have_is_an_error() -> None:
    with pytest.raises(RemoteError, match=r"encoder/ecg: no block of federation har") as caught:
        build(HAR, {BlockId.parse("encoder/ecg"): {}})
    assert caught.value.error_id == "block-invalid"


@pytest.mark.parametrize("num", [1, 2])
def test_a_window_of_another_shape_is_refused_and_not_stretched(num: int) -> None:
    inputs, present = windows(HAR, num), masks({"accel": [1] * num, "gyro": [1] * num})
    inputs["gyro"] = inputs["gyro"][:, :1]
    with pytest.raises(ValueError, match=r"windows of gyro: found \(\d, 1, 3\), expected \(n, 128, 3\)"):
        HAR_MODEL.outputs(inputs, present)
    with pytest.raises(ValueError, match="windows of gyro"):
        HAR_MODEL.embed(inputs, present)
