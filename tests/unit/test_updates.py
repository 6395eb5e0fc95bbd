"""From trained blocks to what leaves: deltas of shared blocks that samples exercised, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from support.learning import tiny

from blossom_edge.client.updates import Outgoing, make_updates, may_leave
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.training import TrainResult
from blossom_edge.federation.initial import initial_block

FEDERATION = tiny()
ACCEL, GYRO, HEAD = map(BlockId.parse, ("encoder/accel", "encoder/gyro", "head/har"))
BASE: dict[BlockId, Tensors] = {b.id: initial_block(b, FEDERATION.digest, 0) for b in FEDERATION.spec.blocks}


def trained(**samples: int) -> TrainResult:
    new = {block: {n: v + np.float32(0.5) for n, v in values.items()} for block, values in BASE.items()}
    counts = dict.fromkeys(new, 10) | {BlockId.parse(f"encoder/{m}"): n for m, n in samples.items()}
    return TrainResult(new, counts, 4, {})


def updates_of(result: TrainResult, codec: str = "float32") -> tuple[Outgoing, ...]:
    return make_updates(
        FEDERATION.spec,
        result,
        BASE,
        round_number=3,
        base_versions={BlockKey(ACCEL): 2},
        key_by_block={block: BlockKey(block) for block in BASE},
        codec=make_codec(codec),
    )


def test_only_shared_blocks_leave_and_they_leave_as_deltas() -> None:
    accel, gyro = updates_of(trained())
    assert (accel.key, gyro.key) == (BlockKey(ACCEL), BlockKey(GYRO))
    assert (accel.round, accel.base_version, accel.num_samples, accel.num_steps) == (3, 2, 10, 4)
    assert accel.sha256 == hashlib.sha256(accel.data).hexdigest()
    delta = make_codec("float32").decode(accel.data, FEDERATION.spec[ACCEL])
    assert all(np.allclose(v, 0.5, rtol=0, atol=1e-6) for v in delta.values())


def test_a_block_that_no_sample_exercised_is_not_sent() -> None:
    assert [u.key.block for u in updates_of(trained(gyro=0))] == [ACCEL]


def test_a_value_that_is_no_number_never_leaves() -> None:
    result = trained()
    result.blocks[ACCEL] = {**result.blocks[ACCEL], "layers.0.bias": np.full(4, np.nan, dtype=np.float32)}
    with pytest.raises(BlossomError, match=r"layers\.0\.bias") as caught:
        updates_of(result)
    assert caught.value.error_id == "local-value"


def test_the_codec_of_the_plan_is_used_and_named() -> None:
    half = updates_of(trained(), "float16")[0]
    assert half.codec == "float16"
    assert len(half.data) < 0.6 * len(updates_of(trained())[0].data)


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        ("full", {"encoder", "fusion", "head"}),
        ("private-head", {"encoder", "fusion"}),
        ("private-head-fusion", {"encoder"}),
        ("private-encoders", {"fusion", "head"}),
    ],
)
def test_what_may_leave_is_what_the_preset_says(visibility: str, expected: set[str]) -> None:
    spec = tiny(f"visibility={visibility}").spec
    assert {b.id.kind.value for b in spec.blocks if may_leave(b)} == expected
