"""Sessions of one block: what is not whole is refused by name first, and errors of onnxruntime are ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, seal_skeleton
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import BlossomError, ConfigError, RemoteError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.runtime import (
    CPU,
    RuntimeOptions,
    Session,
    check_version,
    choose_providers,
    load_onnxruntime,
    make_session,
)
from blossom_edge.inference.skeleton_set import SkeletonSet

onnxruntime = pytest.importorskip("onnxruntime")

FEDERATION = load_federation("two-tasks")
HEAD = BlockId.parse("head/activity")
SPEC = FEDERATION.spec[HEAD]
DIGEST = skeleton_digest(FEDERATION, HEAD)
SKELETON = SkeletonSet().get(DIGEST) or b""
SEAL_BYTES = 89  # of the last entry of a skeleton
FUSED = np.linspace(-1, 1, 3 * 32, dtype=np.float32).reshape(3, 32)


def values() -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in initial_block(SPEC, FEDERATION.digest, 0).items()}


def session(tensors: Tensors | None = None, skeleton: bytes = SKELETON, **options: Any) -> Session:
    given = values() if tensors is None else tensors
    return make_session(skeleton, SPEC, given, digest=DIGEST, **options)


def by_hand(t: Tensors) -> np.ndarray:
    hidden = np.maximum(FUSED @ t["layers.0.weight"].T + t["layers.0.bias"], 0)
    return hidden @ t["layers.1.weight"].T + t["layers.1.bias"]


def test_the_block_computes_with_the_values_that_it_was_given() -> None:
    made = session()
    assert (made.inputs, made.outputs, made.provider) == (("fused",), ("output",), CPU)
    np.testing.assert_allclose(made.run({"fused": FUSED})[0], by_hand(values()), atol=1e-6)


def test_values_that_change_or_go_after_it_was_made_do_not_matter() -> None:
    given = values()
    made, before = session(given), by_hand(given)
    for tensor in given.values():
        tensor[...] = 7.0
    del given
    np.testing.assert_allclose(made.run({"fused": FUSED})[0], before, atol=1e-6)


def test_a_bound_call_reads_and_writes_where_the_arrays_lie() -> None:
    fused, output = np.zeros((1, 32), np.float32), np.zeros((1, 3), np.float32)
    call = session().bind({"fused": fused}, {"output": output})
    for row in range(3):
        fused[0] = FUSED[row]
        call()
        np.testing.assert_allclose(output[0], by_hand(values())[row], atol=1e-6)


def without(tensors: dict[str, np.ndarray]) -> None:
    del tensors["layers.1.bias"]


def one_more(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.2.bias"] = np.zeros(3, np.float32)


def turned(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.1.weight"] = np.ascontiguousarray(tensors["layers.1.weight"].T)


def wider(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.bias"] = tensors["layers.0.bias"].astype(np.float64)


def not_a_number(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.weight"][3, 5] = np.nan


def infinite(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.1.bias"][0] = -np.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "head/activity: tensor missing: layers.1.bias"),
        (one_more, "head/activity: tensor unknown: layers.2.bias"),
        (turned, "head/activity: layers.1.weight has shape [32, 3], expected [3, 32]"),
        (wider, "head/activity: layers.0.bias is float64, expected float32"),
        (not_a_number, "head/activity: layers.0.weight has values that are not finite"),
        (infinite, "head/activity: layers.1.bias has values that are not finite"),
    ],
)
def test_wrong_values_are_refused_by_name(change: Callable[[dict[str, np.ndarray]], None], words: str) -> None:
    tensors = values()
    change(tensors)
    with pytest.raises(RemoteError) as caught:
        session(tensors)
    assert (caught.value.error_id, str(caught.value)) == ("block-invalid", words)


def test_a_skeleton_of_another_block_is_refused_by_its_digest() -> None:
    other = SkeletonSet().get(skeleton_digest(FEDERATION, BlockId.parse("head/speed"))) or b""
    with pytest.raises(RemoteError, match=r"skeleton of head/activity: that of another block") as caught:
        session(skeleton=other)
    assert caught.value.error_id == "skeleton-invalid"


def test_what_onnxruntime_itself_refuses_is_an_error_of_ours_with_its_words() -> None:
    unknown_operator = SKELETON[:-SEAL_BYTES].replace(b"Relu", b"Rela")
    with pytest.raises(RemoteError, match=r"onnxruntime refuses it: \w+: .*Rela") as caught:
        session(skeleton=seal_skeleton(unknown_operator))
    assert caught.value.error_id == "skeleton-invalid"
    assert "\n" not in caught.value.line()


def test_a_run_on_wrong_inputs_is_an_error_of_ours() -> None:
    with pytest.raises(RemoteError, match="onnxruntime refuses it") as caught:
        session().run({"fused": FUSED[:, :5]})
    assert caught.value.error_id == "skeleton-invalid"
    with pytest.raises(KeyError, match="fused"):
        session().run({"values": FUSED})


def test_a_graph_that_is_changed_and_sealed_again_runs_or_is_refused_and_never_ends_the_process() -> None:
    body = SKELETON[:-SEAL_BYTES]
    refused = 0
    for at in range(0, len(body), 13):
        changed = body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1 :]
        try:
            session(skeleton=seal_skeleton(changed)).run({"fused": FUSED})
        except (BlossomError, KeyError):
            refused += 1
    assert refused > 20


def test_an_onnxruntime_that_is_too_old_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.19.2")
    with pytest.raises(ConfigError) as caught:
        session()
    assert caught.value.error_id == "runtime-too-old"
    assert str(caught.value) == "onnxruntime: found 1.19.2, expected 1.20 or newer"
    assert caught.value.hint == "pip install --upgrade 'onnxruntime>=1.20'"


@pytest.mark.parametrize("version", ["1.20", "1.20.1", "1.32.0", "2.0.0rc1", "nightly"])
def test_newer_versions_and_unknown_ones_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["1.9.0", "1.19.2", "0.5"])
def test_versions_are_compared_as_numbers(version: str) -> None:
    with pytest.raises(ConfigError, match=f"found {version}"):
        check_version(version)


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError) as caught:
        load_onnxruntime()
    assert (caught.value.error_id, caught.value.hint) == ("package-missing", "pip install 'blossom-edge[onnx]'")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((), (CPU,)),
        ((CPU, "CUDAExecutionProvider"), ("CUDAExecutionProvider", CPU)),
        (("TensorrtExecutionProvider", "CUDAExecutionProvider"), ("CUDAExecutionProvider", CPU)),
        (("XnnpackExecutionProvider", "ArmNNExecutionProvider"), ("XnnpackExecutionProvider", CPU)),
    ],
)  # fmt: skip
def test_providers_are_taken_by_preference_and_the_cpu_comes_last(
    wanted: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    available = [CPU, "CUDAExecutionProvider", "XnnpackExecutionProvider"]
    assert choose_providers(wanted, available) == chosen


def test_a_provider_that_is_not_there_is_passed_over() -> None:
    made = session(options=RuntimeOptions(threads=2, spinning=True, providers=("CUDAExecutionProvider",)))
    assert made.provider in (CPU, "CUDAExecutionProvider")
    np.testing.assert_allclose(made.run({"fused": FUSED})[0], by_hand(values()), atol=1e-5)


def test_a_set_of_skeletons_looks_into_the_package_first_and_keeps_new_ones_in_its_last_folder(tmp_path: Path) -> None:
    packaged, own = tmp_path / "packaged", tmp_path / "data" / "skeletons"
    packaged.mkdir()
    skeletons = SkeletonSet(own, packaged=packaged)
    assert skeletons.get(DIGEST) is None
    assert skeletons.missing([DIGEST, "0" * 64, DIGEST]) == sorted([DIGEST, "0" * 64])
    skeletons.add(DIGEST, SKELETON)
    assert skeletons.get(DIGEST) == SKELETON == (own / f"{DIGEST}.onnx").read_bytes()
    assert skeletons.missing([DIGEST, "0" * 64]) == ["0" * 64]
    (own / f"{DIGEST}.onnx").write_bytes(SKELETON[:-1])
    assert skeletons.missing([DIGEST]) == [DIGEST], "a damaged one is fetched again"
    (packaged / f"{DIGEST}.onnx").write_bytes(SKELETON)
    assert skeletons.get(DIGEST) == SKELETON


def test_a_set_of_skeletons_takes_only_whole_ones_under_their_own_digest(tmp_path: Path) -> None:
    skeletons = SkeletonSet(tmp_path)
    for digest, data in (("0" * 64, SKELETON), (DIGEST, SKELETON[:-1]), (DIGEST, b"")):
        with pytest.raises(RemoteError) as caught:
            skeletons.add(digest, data)
        assert caught.value.error_id == "skeleton-invalid"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="packaged skeletons only"):
        SkeletonSet().add(DIGEST, SKELETON)


def test_a_file_of_another_name_or_beyond_the_bound_is_not_there(tmp_path: Path) -> None:
    (tmp_path / f"{'0' * 64}.onnx").write_bytes(b"x" * (MAX_SKELETON_BYTES + 1))
    skeletons = SkeletonSet(tmp_path)
    assert skeletons.get("0" * 64) is None
    assert skeletons.get("../secret") is None


def test_a_device_that_runs_blocks_has_neither_torch_nor_onnx_nor_numpys_random_numbers() -> None:
    code = """
import sys
import numpy as np
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.head import fit_head
from blossom_edge.inference.skeleton_set import SkeletonSet
before = set(sys.modules)
federation = load_federation("two-tasks")
blocks = {s.id: initial_block(s, federation.digest, 0) for s in federation.spec.blocks}
model = OnnxModel.build(federation, blocks, SkeletonSet().get)
windows = {"accel": np.zeros((4, 64, 3), np.float32)}
model.outputs(windows, {"accel": np.ones(4, bool)})
fit_head(np.eye(4, dtype=np.float32), np.arange(4), task_type="classification", num_outputs=4)
print(sorted({"torch", "onnx", "onnxscript", "numpy.random", "paho"} & set(sys.modules)))
print("onnxruntime" in before, "onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False True"]
