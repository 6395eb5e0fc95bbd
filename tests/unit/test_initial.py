import hashlib
import math

import numpy as np
import pytest

from blossom_edge.core.blocks import BlockId, BlockSpec, Tensors
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.philox import philox_words

DIGEST = "d" * 64
GOLDEN = "add55ab7329e4de683ee1ef689d7601d0a80080b5fd9997c3777979a3e93e1b2"


def spec_of(block: str, *sets: str) -> BlockSpec:
    return load_federation("har", sets=sets).spec[BlockId.parse(block)]


def raw(block: Tensors) -> bytes:
    return b"".join(block[name].tobytes() for name in sorted(block))


def test_the_first_values_of_a_tensor_are_these_on_every_machine() -> None:
    values = initial_block(spec_of("encoder/accel"), DIGEST, 7)["conv.0.weight"]
    # worked out from the rule: Philox words keyed by SHA-256, upper 53 bits, +-1/sqrt(3 channels x 5 taps)
    key = hashlib.sha256(f"{DIGEST}\n7\nencoder/accel\nconv.0.weight".encode()).digest()[:16]
    word = int(np.random.Philox(key=int.from_bytes(key, "little")).random_raw())
    assert values.flat[0] == np.float32((2.0 * ((word >> 11) / 2**53) - 1.0) / math.sqrt(15))


def test_version_0_of_the_preset_has_these_bits() -> None:
    block = initial_block(spec_of("encoder/accel"), DIGEST, 7)
    assert hashlib.sha256(raw(block)).hexdigest() == GOLDEN


def test_equal_arguments_give_equal_bits_whatever_was_made_before() -> None:
    first = raw(initial_block(spec_of("encoder/accel"), DIGEST, 0))
    initial_block(spec_of("head/har"), DIGEST, 0)
    np.random.default_rng(3).random(5)
    assert raw(initial_block(spec_of("encoder/accel"), DIGEST, 0)) == first


@pytest.mark.parametrize(
    ("digest", "seed", "block"), [("e" * 64, 0, "accel"), (DIGEST, 1, "accel"), (DIGEST, 0, "gyro")]
)
def test_another_federation_seed_or_block_gives_other_values(digest: str, seed: int, block: str) -> None:
    first = initial_block(spec_of("encoder/accel"), DIGEST, 0)
    other = initial_block(spec_of(f"encoder/{block}"), digest, seed)
    for name, values in first.items():
        assert not np.array_equal(values, other[name]), name


def test_names_shapes_and_type_are_those_of_the_spec() -> None:
    for spec in load_federation("har").spec.blocks:
        block = initial_block(spec, DIGEST, 0)
        assert [(n, v.shape) for n, v in block.items()] == [(t.name, t.shape) for t in spec.tensors]
        assert {v.dtype for v in block.values()} == {np.dtype(np.float32)}


def test_layers_start_uniform_within_one_over_the_root_of_their_inputs() -> None:
    encoder = initial_block(spec_of("encoder/accel"), DIGEST, 0)
    head = initial_block(spec_of("head/har"), DIGEST, 0)
    part = initial_block(spec_of("fusion/har.accel"), DIGEST, 0)
    bounds = [
        (encoder["conv.1.weight"], 1 / math.sqrt(32 * 5)),
        (encoder["conv.1.bias"], 1 / math.sqrt(32 * 5)),
        (encoder["gru.weight_ih_l0"], 1 / math.sqrt(128)),
        (encoder["gru.bias_hh_l0"], 1 / math.sqrt(128)),
        (head["layers.0.weight"], 1 / math.sqrt(256)),
        (head["layers.1.bias"], 1 / math.sqrt(64)),
        (part["weight"], 1 / math.sqrt(128)),
    ]
    for values, bound in bounds:
        assert np.abs(values).max() <= np.float32(bound)
        if values.size > 1000:
            assert np.abs(values).max() > 0.99 * bound
            assert abs(float(values.mean())) < 4 * bound / math.sqrt(3 * values.size)
            assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_layer_norm_starts_at_one_and_zero_and_a_concat_bias_at_zero() -> None:
    norm = initial_block(spec_of("fusion/har", 'blocks."fusion/har".type=attention'), DIGEST, 0)
    assert (norm["norm.weight"] == 1.0).all()
    assert (norm["norm.bias"] == 0.0).all()
    assert (initial_block(spec_of("fusion/har"), DIGEST, 0)["bias"] == 0.0).all()


@pytest.mark.parametrize("key", [0, 1, 1 << 64, (1 << 128) - 1, 0x0123456789ABCDEFFEDCBA9876543210])
def test_the_words_are_those_of_numpys_philox_across_the_pieces_that_are_worked_on_together(key: int) -> None:
    numpys = np.random.Philox(key=key).random_raw(3 * 16_384)
    for count in (0, 1, 3, 4, 5, 16_383, 16_384, 16_385, 3 * 16_384):
        assert np.array_equal(philox_words(key, count), numpys[:count]), count


@pytest.mark.parametrize(("key", "count"), [(-1, 4), (1 << 128, 4), (0, -1)])
def test_a_key_beyond_128_bits_or_a_negative_count_is_refused(key: int, count: int) -> None:
    with pytest.raises(ValueError, match="a key of 0 to"):
        philox_words(key, count)
