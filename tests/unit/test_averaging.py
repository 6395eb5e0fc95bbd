"""The weighted mean of a block over its owners, against numbers worked by hand and against the readable twin."""

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aggregator.averaging import WeightedMean, in_device_order, mean_delta
from aggregator.server_optimizers import Avg
from blossom_edge.core.blocks import BlockId, BlockKey, BlockSpec, Tensors, TensorSpec
from blossom_edge.core.names import DeviceId
from blossom_edge.core.rounds import BlockUpdate

ACCEL = BlockSpec(BlockId.parse("encoder/accel"), "mlp", (TensorSpec("bias", (2,)), TensorSpec("weight", (2, 2))))
FLOATS = st.floats(-1e6, 1e6, width=32)


def make_delta(*values: float) -> Tensors:
    """Two bias values, then four of the weight, row by row."""
    array = np.array(values, dtype=np.float32)
    return {"bias": array[:2], "weight": array[2:].reshape(2, 2)}


def make_update(device: str, samples: int, delta: Tensors, spec: BlockSpec = ACCEL) -> BlockUpdate:
    return BlockUpdate(DeviceId(device), 1, BlockKey(spec.id), 0, samples, 1, delta)


def flat_spec(size: int) -> BlockSpec:
    return BlockSpec(BlockId.parse("head/har"), "mlp", (TensorSpec("w", (size,)),))


def bits(tensors: Tensors | None) -> dict[str, bytes]:
    assert tensors is not None
    return {name: values.tobytes() for name, values in tensors.items()}


def test_mean_is_weighted_by_samples() -> None:
    # (1 * 1 + 3 * 5) / 4 = 4; (1 * -2 + 3 * 2) / 4 = 1; (1 * 0 + 3 * 8) / 4 = 6; (1 * 4 + 3 * 0) / 4 = 1
    updates = [
        make_update("pi-a", 1, make_delta(1, -2, 0, 4, 1, -2)),
        make_update("pi-b", 3, make_delta(5, 2, 8, 0, 5, 2)),
    ]
    mean = mean_delta(ACCEL, iter(updates))
    assert mean is not None
    assert mean["bias"].tolist() == [4.0, 1.0]
    assert mean["weight"].tolist() == [[6.0, 1.0], [4.0, 1.0]]
    assert mean["weight"].dtype == np.float64


def test_third_owner_counts_like_the_others() -> None:
    # (2 * 3 + 1 * 6 + 1 * 12) / 4 = 6
    updates = [make_update(d, n, make_delta(*[v] * 6)) for d, n, v in (("a", 2, 3.0), ("b", 1, 6.0), ("c", 1, 12.0))]
    mean = mean_delta(ACCEL, updates)
    assert mean is not None
    assert mean["bias"].tolist() == [6.0, 6.0]


def test_block_trained_by_nobody_has_no_mean() -> None:
    assert mean_delta(ACCEL, []) is None
    assert WeightedMean(ACCEL).result() is None


@pytest.mark.parametrize("samples", [1, 3, 7, 2**40 - 87])
def test_block_trained_by_one_device_takes_its_full_delta(samples: int) -> None:
    # 0.1 and -0.3 are no float32; 1e-30 is far below the base; -0.0 keeps its sign.
    delta = make_delta(0.1, -0.3, 1e-30, 3.4e38, -0.0, 7.0)
    mean = mean_delta(ACCEL, [make_update("pi-a", samples, delta)])
    assert bits(mean) == {name: values.astype(np.float64).tobytes() for name, values in delta.items()}
    base = make_delta(1, 2, 3, 0, -0.0, 0.5)
    after, _ = Avg().apply(base, mean or {}, {})
    expected = {n: (base[n].astype(np.float64) + delta[n].astype(np.float64)).astype(np.float32) for n in base}
    assert bits(after) == bits(expected)
    assert after["weight"].tolist() == [[3.0, float(np.float32(3.4e38))], [0.0, 7.5]]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, 6, elements=FLOATS), st.lists(st.integers(1, 10**6), min_size=1, max_size=8))
def test_equal_updates_give_the_one_update_whatever_their_weights(values: np.ndarray, weights: list[int]) -> None:
    updates = [make_update(f"pi-{i}", weight, make_delta(*values)) for i, weight in enumerate(weights)]
    mean = mean_delta(ACCEL, updates)
    assert mean is not None
    assert np.array_equal(mean["bias"], values[:2].astype(np.float64))
    assert np.array_equal(mean["weight"].reshape(-1), values[2:].astype(np.float64))


def test_arrival_order_changes_no_bit() -> None:
    # 1e8 + 1 - 1e8 style values: a sum in arrival order would differ in float32 and in float64.
    deltas = {"a": 1e16, "b": 1.0, "c": -1e16, "d": 3.3}
    updates = [make_update(d, 1, make_delta(*[v] * 6)) for d, v in deltas.items()]
    results = {str(bits(mean_delta(ACCEL, in_device_order(arrived)))) for arrived in itertools.permutations(updates)}
    assert len(results) == 1
    accumulator = WeightedMean(ACCEL)
    for device in "acbd":
        accumulator.add(make_delta(*[deltas[device]] * 6), 1)
    assert str(bits(accumulator.result())) not in results, "these values must tell orders apart"


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_chunked_sum_has_the_bits_of_the_plain_formula(data: st.DataObject, num_devices: int) -> None:
    spec = flat_spec(5)
    deltas = [data.draw(arrays(np.float32, 5, elements=FLOATS)) for _ in range(num_devices)]
    weights = [data.draw(st.integers(1, 2**40)) for _ in range(num_devices)]
    updates = [make_update(f"d{i}", weights[i], {"w": deltas[i]}, spec) for i in range(num_devices)]
    mean = mean_delta(spec, updates)
    assert mean is not None
    total = weights[0] * deltas[0].astype(np.float64)
    for weight, delta in zip(weights[1:], deltas[1:], strict=True):
        total = total + weight * delta.astype(np.float64)
    expected = total / float(sum(weights)) if num_devices > 1 else deltas[0].astype(np.float64)
    assert mean["w"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_blocks_beyond_one_chunk_are_summed_to_the_last_value(size: int) -> None:
    spec = flat_spec(size)
    ramp = np.arange(size, dtype=np.float32)
    updates = [make_update(d, n, {"w": ramp * s}, spec) for d, n, s in (("a", 1, 1), ("b", 2, 4), ("c", 1, -1))]
    mean = mean_delta(spec, updates)  # (1 * x + 2 * 4x - x) / 4 = 2x
    assert mean is not None
    assert np.array_equal(mean["w"], 2.0 * np.arange(size))


def test_deltas_that_are_views_or_read_only_are_taken_and_left_alone() -> None:
    spec = BlockSpec(BlockId.parse("head/har"), "mlp", (TensorSpec("w", (2, 3)), TensorSpec("x", ())))
    turned = np.arange(6, dtype=np.float32).reshape(3, 2).T
    turned.flags.writeable = False
    delta = {"w": turned, "x": np.array(5, dtype=np.float32)}
    mean = mean_delta(spec, [make_update(d, 2, delta, spec) for d in ("a", "b")])
    assert mean is not None
    assert mean["w"].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert mean["x"].shape == ()
    assert turned.tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]


def test_result_is_a_copy_and_adding_goes_on_behind_it() -> None:
    accumulator = WeightedMean(ACCEL)
    accumulator.add(make_delta(*[2.0] * 6), 1)
    first = accumulator.result()
    assert first is not None
    accumulator.add(make_delta(*[4.0] * 6), 1)
    second = accumulator.result()
    assert second is not None
    assert (first["bias"].tolist(), second["bias"].tolist()) == ([2.0, 2.0], [3.0, 3.0])
    assert accumulator.num_members == 2


def test_updates_are_taken_one_by_one() -> None:
    alive: list[int] = []

    def stream() -> Iterator[BlockUpdate]:
        for number in range(5):
            alive.append(number)
            yield make_update(f"pi-{number}", 1, make_delta(*[number] * 6))
            assert alive == list(range(number + 1)), "somebody read ahead"

    mean = mean_delta(ACCEL, stream())
    assert mean is not None
    assert mean["bias"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("devices", [("b", "a"), ("a", "a"), ("a", "c", "b")])
def test_device_ids_that_do_not_ascend_are_refused(devices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        mean_delta(ACCEL, [make_update(d, 1, make_delta(*[1.0] * 6)) for d in devices])


def test_update_of_another_block_is_refused() -> None:
    with pytest.raises(ValueError, match="head/har in the mean of encoder/accel"):
        mean_delta(ACCEL, [make_update("a", 1, {"w": np.zeros(1, np.float32)}, flat_spec(1))])


@pytest.mark.parametrize(
    ("delta", "weight"),
    [
        (make_delta(*[1.0] * 6), 0),
        ({"bias": np.zeros(2, np.float32)}, 1),
        ({**make_delta(*[1.0] * 6), "extra": np.zeros(1, np.float32)}, 1),
        ({"bias": np.zeros(1, np.float32), "weight": np.zeros((2, 2), np.float32)}, 1),
        ({"bias": np.zeros(2, np.float32), "weight": np.zeros(4, np.float32)}, 1),
    ],
    ids=["no-samples", "missing", "extra", "broadcastable", "flat"],
)
def test_what_does_not_fit_the_block_is_refused_and_adds_nothing(delta: Tensors, weight: int) -> None:
    accumulator = WeightedMean(ACCEL)
    accumulator.add(make_delta(*[2.0] * 6), 1)
    with pytest.raises(ValueError, match="encoder/accel"):
        accumulator.add(delta, weight)
    result = accumulator.result()
    assert result is not None
    assert (accumulator.num_members, result["bias"].tolist()) == (1, [2.0, 2.0])


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "one_round_by_hand.py"
    spec = importlib.util.spec_from_file_location("one_round_by_hand", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("private", [(), ("head/har",), ("fusion/har", "head/har")])
def test_readable_twin_and_the_package_agree_bit_for_bit(twin: ModuleType, private: tuple[str, ...]) -> None:
    base = twin.start()
    shared, at_home = twin.run(private=private)
    assert set(shared) == set(base) - set(private)
    for name in shared:
        spec = BlockSpec(BlockId.parse(name), "linear", (TensorSpec("w", base[name].shape),))
        updates = []
        for device in twin.DEVICES:
            local, samples = twin.train(device, base)
            if name in local:
                updates.append(make_update(device, samples, {"w": local[name] - base[name]}, spec))
        mean = mean_delta(spec, in_device_order(reversed(updates)))
        assert mean is not None
        after, _ = Avg().apply({"w": base[name]}, mean, {})
        assert after["w"].dtype == shared[name].dtype == np.float32
        assert after["w"].tobytes() == shared[name].tobytes()
    for device, blocks in at_home.items():
        assert set(blocks) == set(private)
        for name, values in blocks.items():
            assert values.tobytes() == twin.train(device, base)[0][name].tobytes()


def test_twin_gives_the_encoder_of_one_owner_its_whole_delta(twin: ModuleType) -> None:
    base = twin.start()
    local, _ = twin.train("pi-c", base)
    assert np.array_equal(twin.run()[0]["encoder/gyro"], local["encoder/gyro"])
