"""A small bundle for tests, and ways to change what is in it. Needs neither torch nor onnxruntime."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blossom_edge.codec.skeleton_file import seal_skeleton
from blossom_edge.core.blocks import BlockId, BlockSpec
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.bundle import Bundle, read_bundle, write_bundle
from blossom_edge.inference.head import HeadValues
from blossom_edge.inference.sealed_zip import write_sealed
from firmware_profiles.loading import load_profile

ACCEL, HEAD = BlockId.parse("encoder/accel"), BlockId.parse("head/har")
MLP = "{type='mlp', widths=[16, 12]}"
FEDERATION = load_federation(
    "har",
    sets=[
        f"blocks.encoder/accel={MLP}", f"blocks.encoder/gyro={MLP}", "blocks.fusion/har.width=16",
        "blocks.head/har.hidden=16", "modalities.accel.window=8", "modalities.accel.hop=8",
        "modalities.gyro.window=8", "modalities.gyro.hop=8",
    ],
)  # fmt: skip
ACCEL_FILE, OWN_HEAD = "blocks/encoder.accel.safetensors", "heads/har.safetensors"
INPUTS = 12 + 12 + 2
"""What an own head sees of FEDERATION: two embeddings of 12, a flag for each of the two modalities."""

Parts = dict[str, bytes]
Manifest = dict[str, Any]


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def skeleton(federation: Federation, spec: BlockSpec) -> bytes:
    """The smallest file that is a skeleton of a block: its parameters, no nodes."""
    parameters = b"".join(
        _field(5, b"".join(_field(1, n) for n in t.shape) + _field(2, 1) + _field(8, t.name) + _field(14, 1))
        for t in spec.tensors
    )
    digest = {"blossom_edge.digest": skeleton_digest(federation, spec.id), "blossom_edge.type": spec.type}
    facts = b"".join(_field(14, _field(1, key) + _field(2, value)) for key, value in digest.items())
    opset = _field(8, _field(1, "") + _field(2, 20))
    return seal_skeleton(_field(1, 10) + _field(7, _field(2, "block") + parameters) + opset + facts)


def own_head(seed: int = 0) -> HeadValues:
    draw = np.random.Generator(np.random.Philox(seed))
    tensors = {"layers.0.weight": draw.standard_normal((7, INPUTS)), "layers.0.bias": draw.standard_normal(7)}
    return HeadValues(kind="softmax", tensors={name: t.astype(np.float32) for name, t in tensors.items()})


def make_bundle() -> Bundle:
    specs = FEDERATION.spec.blocks
    return Bundle(
        federation=FEDERATION,
        profile=load_profile("generic-mock").to_dict(),
        modalities=("accel", "gyro"),
        tasks=("har",),
        device="watch-1",
        blocks={s.id: initial_block(s, FEDERATION.digest, 0) for s in specs},
        versions={s.id: 3 for s in specs if s.leaves_device},
        heads={"har": own_head()},
        skeletons={skeleton_digest(FEDERATION, s.id): skeleton(FEDERATION, s) for s in specs},
        made_by="blossom-edge 0.0",
    )


BUNDLE = make_bundle()
DATA = write_bundle(BUNDLE)


def members() -> tuple[Parts, Manifest]:
    """The members of `DATA`, and its manifest as values."""
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return parts, json.loads(parts.pop("manifest.json"))


def forged(change: Callable[[Parts, Manifest], object], *, hashes: bool = True) -> bytes:
    """`DATA` after a change, sealed again as a forger would; hashes and sizes are put right too."""
    parts, manifest = members()
    change(parts, manifest)
    if hashes:
        sums = {name: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for name, d in parts.items()}
        manifest["members"] = sums
    return write_sealed({"manifest.json": json.dumps(manifest).encode(), **parts})


def refusal(data: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_bundle(data, name="watch.bundle")
    assert caught.value.error_id == "bundle-invalid"
    assert str(caught.value).startswith("watch.bundle: ")
    assert caught.value.hint
    return caught.value
