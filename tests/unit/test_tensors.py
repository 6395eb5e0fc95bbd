"""Values as bytes: exact layout, exact lengths, and only what the spec says."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blossom_edge.codec.tensors import CODECS, check_finite, l2_norm, make_codec
from blossom_edge.core.blocks import BlockId, BlockSpec, TensorSpec
from blossom_edge.core.errors import BlossomError, RemoteError, SpecMismatch

SPEC = BlockSpec(
    BlockId.parse("head/har"),
    "linear",
    (TensorSpec("bias", (2,)), TensorSpec("scale", ()), TensorSpec("weight", (2, 3))),
)
VALUES = {
    "weight": np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32),
    "bias": np.array([0.5, -0.5], dtype=np.float32),
    "scale": np.array(2.0, dtype=np.float32),
}


def test_float32_is_the_numbers_in_the_order_of_the_spec():
    assert make_codec("float32").encode(VALUES, SPEC) == struct.pack("<9f", 0.5, -0.5, 2, 1, 2, 3, 4, 5, 6)


def test_float16_is_the_same_in_half_the_bytes():
    assert make_codec("float16").encode(VALUES, SPEC) == struct.pack("<9e", 0.5, -0.5, 2, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(("wire_id", "size"), [("float32", 36), ("float16", 18)])
def test_the_size_is_known_before_anything_is_encoded(wire_id, size):
    codec = make_codec(wire_id)
    assert codec.wire_id == wire_id
    assert codec.encoded_size(SPEC) == size == len(codec.encode(VALUES, SPEC))


@pytest.mark.parametrize("wire_id", CODECS)
def test_values_come_back_as_read_only_float32_in_the_order_of_the_spec(wire_id):
    codec = make_codec(wire_id)
    got = codec.decode(codec.encode(VALUES, SPEC), SPEC)
    assert list(got) == ["bias", "scale", "weight"]
    for name, values in got.items():
        assert values.dtype == np.float32
        assert values.shape == VALUES[name].shape
        assert not values.flags.writeable
        np.testing.assert_array_equal(values, VALUES[name])


def test_float32_values_look_into_the_bytes_received():
    data = make_codec("float32").encode(VALUES, SPEC)
    got = make_codec("float32").decode(data, SPEC)
    whole = np.frombuffer(data, dtype=np.uint8)
    assert all(np.shares_memory(values, whole) for values in got.values())


def test_bytes_that_can_change_still_give_arrays_that_cannot():
    data = bytearray(make_codec("float32").encode(VALUES, SPEC))
    got = make_codec("float32").decode(data, SPEC)
    assert not got["weight"].flags.writeable


def test_an_array_in_another_memory_order_is_written_by_rows():
    turned = {**VALUES, "weight": np.asfortranarray(VALUES["weight"])}
    assert make_codec("float32").encode(turned, SPEC) == make_codec("float32").encode(VALUES, SPEC)


@pytest.mark.parametrize("wire_id", CODECS)
@pytest.mark.parametrize("change", [-1, 1, -36, 4])
def test_any_other_length_is_refused(wire_id, change):
    codec = make_codec(wire_id)
    with pytest.raises(SpecMismatch):
        codec.decode(bytes(max(0, codec.encoded_size(SPEC) + change)), SPEC)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra": np.zeros(1, np.float32)}, "extra"),
        ({"weight": np.zeros((3, 2), np.float32)}, "weight is float32"),
        ({"weight": np.zeros((2, 3), np.float64)}, "weight is float64"),
        ({"scale": np.zeros(1, np.float32)}, "scale is float32"),
    ],
)
def test_tensors_that_are_not_the_specs_are_not_sent(change, said):
    with pytest.raises(SpecMismatch, match=said):
        make_codec("float32").encode({**VALUES, **change}, SPEC)


def test_a_missing_tensor_is_named():
    with pytest.raises(SpecMismatch, match="weight"):
        make_codec("float32").encode({k: v for k, v in VALUES.items() if k != "weight"}, SPEC)


@pytest.mark.parametrize("wire_id", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_sent(wire_id, value):
    bad = {**VALUES, "bias": np.array([0, value], dtype=np.float32)}
    with pytest.raises(BlossomError, match="bias has values that are not finite") as caught:
        make_codec(wire_id).encode(bad, SPEC)
    assert caught.value.error_id == "local-value"
    assert not isinstance(caught.value, RemoteError)


def test_float16_sends_65504_and_refuses_what_rounds_beyond():
    codec = make_codec("float16")
    largest = {**VALUES, "scale": np.array(65504, dtype=np.float32)}
    assert codec.decode(codec.encode(largest, SPEC), SPEC)["scale"] == 65504
    with pytest.raises(BlossomError, match="scale has values that are too large for float16"):
        codec.encode({**VALUES, "scale": np.array(65520, dtype=np.float32)}, SPEC)


@given(hnp.arrays(np.float32, 9, elements=st.floats(-60000, 60000, width=32)))
def test_float16_errs_by_at_most_half_a_step(flat):
    values = {"bias": flat[:2], "scale": flat[2].reshape(()), "weight": flat[3:].reshape(2, 3)}
    codec = make_codec("float16")
    got = codec.decode(codec.encode(values, SPEC), SPEC)
    for name, sent in values.items():
        # 11 significant bits; below 2^-14 steps are 2^-24
        assert np.all(np.abs(got[name] - sent) <= np.maximum(np.abs(sent) * 2.0**-11, 2.0**-25))


@given(hnp.arrays(np.float32, 9, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_float32_comes_back_bit_by_bit(flat):
    values = {"bias": flat[:2], "scale": flat[2].reshape(()), "weight": flat[3:].reshape(2, 3)}
    codec = make_codec("float32")
    got = codec.decode(codec.encode(values, SPEC), SPEC)
    assert all(got[name].tobytes() == values[name].tobytes() for name in values)


@pytest.mark.parametrize("wire_id", CODECS)
@given(data=st.binary(max_size=72))
def test_random_bytes_are_values_or_a_spec_mismatch(wire_id, data):
    codec = make_codec(wire_id)
    if len(data) == codec.encoded_size(SPEC):
        check_finite(codec.decode(data, SPEC))
        l2_norm(codec.decode(data, SPEC))
    else:
        with pytest.raises(SpecMismatch):
            codec.decode(data, SPEC)


def test_an_empty_tensor_takes_no_bytes():
    spec = BlockSpec(SPEC.id, "x", (TensorSpec("a", (0, 3)), TensorSpec("b", (1,))))
    values = {"a": np.zeros((0, 3), np.float32), "b": np.ones(1, np.float32)}
    codec = make_codec("float32")
    assert codec.encode(values, spec) == struct.pack("<f", 1.0)
    assert codec.decode(struct.pack("<f", 1.0), spec)["a"].shape == (0, 3)


def test_received_values_that_are_not_finite_are_found():
    codec = make_codec("float32")
    for value, finite in ((1.0, True), (math.nan, False), (math.inf, False)):
        assert check_finite(codec.decode(struct.pack("<9f", *[1.0] * 8, value), SPEC)) is finite


def test_the_norm_is_over_all_tensors_of_the_block():
    # 3-4-12: sqrt(9 + 16 + 144) = 13
    assert l2_norm({"a": np.array([3, 4], np.float32), "b": np.array([[12]], np.float32)}) == 13.0


def test_the_norm_of_large_float32_values_does_not_overflow():
    assert l2_norm({"a": np.array([3e30, 4e30], np.float32)}) == pytest.approx(5e30, rel=1e-6)


def test_a_codec_of_another_version_is_a_mismatch():
    with pytest.raises(SpecMismatch, match="'int8' is not known here"):
        make_codec("int8")
