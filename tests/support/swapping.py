"""A torch-free device without link and sensors: versions of the blocks of `har`, and the model that takes them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from blossom_edge.codec import safetensors_file
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.windows import WindowSet
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.spec import embedding_width, encoder_id
from blossom_edge.inference.canary import CanaryWindows
from blossom_edge.inference.generation import Generation, Received
from blossom_edge.inference.head_values import HeadValues
from blossom_edge.inference.live import LiveModel
from blossom_edge.inference.model_folder import ModelFolder, store_file
from blossom_edge.inference.runtime import RuntimeOptions
from blossom_edge.inference.skeleton_set import SkeletonSet

FEDERATION = load_federation("har", sets=["visibility='full'"])
MODALITIES = tuple(FEDERATION.modalities)
KEYS = {spec.id: spec.key(MODALITIES) for spec in FEDERATION.spec.owned(MODALITIES, FEDERATION.tasks)}
CODEC = make_codec(FEDERATION.codec.down)
ACCEL, HEAD = BlockKey(BlockId.parse("encoder/accel")), BlockKey(BlockId.parse("head/har"))


def decode(key: BlockKey, data: bytes) -> Tensors:
    return CODEC.decode(data, FEDERATION.spec[key.block])


@cache
def first_of(block: BlockId) -> Tensors:
    return initial_block(FEDERATION.spec[block], FEDERATION.digest, FEDERATION.seed)


@cache
def tensors_of(block: BlockId, version: int) -> Tensors:
    """Version 0 is the federation's first; each next is 1 % larger, so that every version has outputs of its own."""
    grown = np.float32(1.0 + 0.01 * version)
    return {name: (values * grown).astype(np.float32) for name, values in first_of(block).items()}


def received(block: BlockId, version: int, tensors: Tensors | None = None) -> Received:
    """`tensors` (else those of the version) as they would be cast, NaN too."""
    values = tensors_of(block, version) if tensors is None else tensors
    data = b"".join(np.ascontiguousarray(values[t.name], "<f4").tobytes() for t in FEDERATION.spec[block].tensors)
    return Received(version, hashlib.sha256(data).hexdigest(), data)


def held_at(version: int, *keys: BlockKey) -> dict[BlockKey, Received]:
    """All blocks (or these) at one version."""
    return {key: received(block, version) for block, key in KEYS.items() if not keys or key in keys}


def spoiled(key: BlockKey, version: int, value: float) -> Received:
    """A version in which one value of each tensor is `value`."""
    tensors = {name: values.copy() for name, values in tensors_of(key.block, version).items()}
    for values in tensors.values():
        values.flat[0] = value
    return received(key.block, version, tensors)


def store(place: Path, held: Mapping[BlockKey, Received]) -> None:
    """Write versions as `client.store` does."""
    make_folder(place / "blocks")
    for key, version in held.items():
        tensors = {"bytes": np.frombuffer(version.data, dtype=np.uint8)}
        metadata = {"version": str(version.version), "sha256": version.sha256}
        atomic_write(store_file(place, key), safetensors_file.write(tensors, metadata))


def windows(count: int = 8, *, seed: int = 0, labels: Any = None) -> WindowSet:
    generator = np.random.Generator(np.random.Philox(seed))
    inputs = {
        m: generator.standard_normal((count, seen.window, seen.width)).astype(np.float32)
        for m, seen in FEDERATION.modalities.items()
    }
    given = np.full(count, -1, dtype=np.int64) if labels is None else np.asarray(labels)
    present = {m: np.ones(count, dtype=np.bool_) for m in inputs}
    return WindowSet(inputs, present, {"har": given}, np.arange(count, dtype=np.float64))


STORED = CanaryWindows.of(windows(4))


def live_model(
    place: Path,
    *,
    boot: int = 1,
    skeletons: Callable[[str], bytes | None] | None = None,
    stamp: Callable[[], str | None] = lambda: None,
) -> LiveModel:
    return LiveModel(
        FEDERATION,
        ModelFolder(place),
        skeletons=skeletons or SkeletonSet().get,
        options=RuntimeOptions(),
        keys=KEYS,
        decode=decode,
        clock=time.perf_counter,
        boot=boot,
        stamp=stamp,
    )


def own_head(bias: float = 0.0) -> HeadValues:
    """An own head for all embeddings of `har`: weights of zero, each bias the same."""
    width = sum(embedding_width(FEDERATION, encoder_id(m)) + 1 for m in FEDERATION.modalities)
    classes = FEDERATION.tasks["har"].num_outputs
    weight = np.zeros((classes, width), np.float32)
    return HeadValues("softmax", {"layers.0.weight": weight, "layers.0.bias": np.full(classes, bias, np.float32)})


def outputs(generation: Generation | None, batch: WindowSet) -> Any:
    """(n, classes) logits of `har`."""
    assert generation is not None
    return generation.model.outputs(batch.inputs, batch.present)["har"]


def versions_of(live: LiveModel) -> dict[str, int]:
    """Block -> version in use."""
    return {} if live.current is None else live.current.shown()


def at(place: Path, *numbers: int, boot: int = 1) -> LiveModel:
    """A device that took these versions of all blocks, one after the other, each proved."""
    live = live_model(place, boot=boot)
    for number in numbers:
        assert live.offer(held_at(number), windows=STORED).taken
        live.proved()
    return live


def running(live: LiveModel) -> Generation:
    assert live.current is not None
    return live.current


def all_at(version: int) -> dict[str, int]:
    return {str(key): version for key in KEYS.values()}
