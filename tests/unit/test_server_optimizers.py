"""Server optimisers: numbers by hand, pure, named by the federation file."""

import numpy as np
import pytest

from aggregator.server_optimizers import Avg, make_server_optimizer
from blossom_edge.core.errors import ConfigError

BLOCK = {"w": np.array([1.0, 2.0], dtype=np.float32)}
DELTA = {"w": np.array([0.5, -4.0])}


def test_avg_adds_the_mean_delta() -> None:
    optimizer = Avg()
    after, state = optimizer.apply(BLOCK, DELTA, optimizer.init(BLOCK))
    assert after["w"].tolist() == [1.5, -2.0]
    assert after["w"].dtype == np.float32
    assert state == {}


def test_avg_with_half_the_rate_goes_half_the_way() -> None:
    after, _ = Avg(lr=0.5).apply(BLOCK, DELTA, {})
    assert after["w"].tolist() == [1.25, 0.0]


def test_sum_is_rounded_once_from_float64() -> None:
    # 1 + 2**-24 rounds to 1 in float32 (tie to even); with 2**-48 more it must round up.
    after, _ = Avg().apply({"w": np.ones(1, np.float32)}, {"w": np.array([2.0**-24 + 2.0**-48])}, {})
    assert after["w"][0] == np.float32(1 + 2.0**-23)


def test_inputs_stay_as_they_are() -> None:
    block, delta = {"w": BLOCK["w"].copy()}, {"w": DELTA["w"].copy()}
    block["w"].flags.writeable = delta["w"].flags.writeable = False
    after, _ = Avg().apply(block, delta, {})
    assert block["w"].tolist() == [1.0, 2.0]
    assert delta["w"].tolist() == [0.5, -4.0]
    assert not np.shares_memory(after["w"], block["w"])


def test_sum_beyond_float32_is_left_to_the_caller_as_inf() -> None:
    huge = {"w": np.full(1, 3e38, dtype=np.float32)}
    after, _ = Avg().apply(huge, huge, {})
    assert np.isinf(after["w"][0])


@pytest.mark.parametrize("delta", [{}, {"v": DELTA["w"]}, {"w": np.zeros(1)}, {**DELTA, "v": DELTA["w"]}])
def test_delta_of_another_block_is_refused(delta: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="the delta has tensors"):
        Avg().apply(BLOCK, delta, {})


def test_optimizer_is_made_by_name() -> None:
    assert make_server_optimizer("avg") == Avg(1.0)
    assert make_server_optimizer("avg", lr=0.25) == Avg(0.25)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("adma", {}, "'adma' is not known"),
        ("avg", {"beta": 1}, "no option 'beta'"),
        ("avg", {"lr": 0.0}, "server_lr is 0.0"),
        ("avg", {"lr": float("nan")}, "server_lr is nan"),
    ],
)
def test_what_is_not_there_is_refused_by_name(name: str, options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        make_server_optimizer(name, **options)
    assert caught.value.error_id == "federation-invalid"
