"""FedAvgM, FedAdagrad, FedAdam and FedYogi: two steps each worked by hand, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.server_optimizers import Adagrad, Adam, Avg, AvgM, ServerOptimizer, Yogi, server_optimizer_of
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import RoundSettings

BLOCK = {"w": np.array([1.0, 2.0], dtype=np.float32)}
FIRST = {"w": np.array([0.5, -4.0])}
SECOND = {"w": np.array([1.0, 2.0])}


def two_steps(optimizer: ServerOptimizer) -> list[tuple[list[float], dict[str, list[float]]]]:
    """Values and state after each of the two deltas."""
    block, state, found = BLOCK, optimizer.init(BLOCK), []
    for delta in (FIRST, SECOND):
        block, state = optimizer.apply(block, delta, state)
        found.append((block["w"].tolist(), {name: values.tolist() for name, values in state.items()}))
    return found


def test_avgm_rolls_on_with_half_of_the_step_before() -> None:
    # m: 0.5 * 0 + (0.5, -4) = (0.5, -4); then 0.5 * (0.5, -4) + (1, 2) = (1.25, 0)
    assert two_steps(AvgM(momentum=0.5)) == [
        ([1.5, -2.0], {"m.w": [0.5, -4.0]}),
        ([2.75, -2.0], {"m.w": [1.25, 0.0]}),
    ]


def test_avgm_without_momentum_is_avg() -> None:
    after, _ = AvgM(lr=0.25, momentum=0.0).apply(BLOCK, FIRST, AvgM().init(BLOCK))
    assert after["w"].tolist() == Avg(lr=0.25).apply(BLOCK, FIRST, {})[0]["w"].tolist() == [1.125, 1.0]


def test_adagrad_sums_squares_and_has_no_momentum() -> None:
    # tau 0.5, v starts at 0.25. First: v = 0.25 + 0.25 = 0.5 and 0.25 + 16 = 16.25; steps 0.5 / (sqrt(0.5) + 0.5)
    # and -4 / (sqrt(16.25) + 0.5). Second: v = 0.5 + 1 = 1.5 and 16.25 + 4 = 20.25; steps 1 / (sqrt(1.5) + 0.5)
    # and 2 / (4.5 + 0.5)
    (first, state), (second, after) = two_steps(Adagrad(lr=1.0, tau=0.5))
    assert state == {"m.w": [0.5, -4.0], "v.w": [0.5, 16.25]}
    assert first == pytest.approx([1.0 + 0.4142135623730951, 2.0 - 0.8827822], abs=1e-6)
    assert after == {"m.w": [1.0, 2.0], "v.w": [1.5, 20.25]}
    assert second == pytest.approx([1.4142135 + 0.5797959, 1.1172178 + 0.4], abs=1e-6)


def test_adam_forgets_old_squares() -> None:
    # tau 0.5, momentum 0.5, beta2 0.75, lr 2.
    # m: (0.25, -2); v: 0.75 * 0.25 + 0.25 * 0.25 = 0.25 and 0.75 * 0.25 + 0.25 * 16 = 4.1875
    # steps 2 * 0.25 / (0.5 + 0.5) = 0.5 and 2 * -2 / (2.0463382 + 0.5) = -1.5708833
    # m: 0.5 * 0.25 + 0.5 = 0.625 and 0.5 * -2 + 1 = 0; v: 0.75 * 0.25 + 0.25 = 0.4375, 0.75 * 4.1875 + 1 = 4.140625
    # steps 2 * 0.625 / (0.6614378 + 0.5) = 1.0762527 and 0
    (first, state), (second, after) = two_steps(Adam(lr=2.0, momentum=0.5, tau=0.5, beta2=0.75))
    assert state == {"m.w": [0.25, -2.0], "v.w": [0.25, 4.1875]}
    assert first == pytest.approx([1.5, 0.4291167], abs=1e-6)
    assert after == {"m.w": [0.625, 0.0], "v.w": [0.4375, 4.140625]}
    assert second == pytest.approx([1.5 + 1.0762527, 0.4291167], abs=1e-6)


def test_yogi_moves_v_by_the_square_alone() -> None:
    # tau 0.5, momentum 0.5, beta2 0.75. v - square: 0.25 - 0.25 = 0 (v stays 0.25); 0.25 - 16 < 0: 0.25 + 4 = 4.25
    # steps 0.25 / (0.5 + 0.5) = 0.25 and -2 / (2.0615528 + 0.5) = -0.7807764
    # then 0.25 - 1 < 0: 0.25 + 0.25 = 0.5; 4.25 - 4 > 0: 4.25 - 1 = 3.25
    # m: 0.625 and 0; steps 0.625 / (0.7071068 + 0.5) = 0.5177669 and 0
    (first, state), (second, after) = two_steps(Yogi(lr=1.0, momentum=0.5, tau=0.5, beta2=0.75))
    assert state == {"m.w": [0.25, -2.0], "v.w": [0.25, 4.25]}
    assert first == pytest.approx([1.25, 1.2192236], abs=1e-6)
    assert after == {"m.w": [0.625, 0.0], "v.w": [0.5, 3.25]}
    assert second == pytest.approx([1.7677669, 1.2192236], abs=1e-6)


@pytest.mark.parametrize("optimizer", [AvgM(), Adagrad(), Adam(), Yogi()], ids=lambda o: type(o).__name__)
def test_state_is_float64_and_the_one_before_stays_as_it_was(optimizer: ServerOptimizer) -> None:
    before = optimizer.init(BLOCK)
    kept = {name: values.copy() for name, values in before.items()}
    for values in before.values():
        values.flags.writeable = False
    block, after = optimizer.apply(BLOCK, FIRST, before)
    assert block["w"].dtype == np.float32
    assert {values.dtype for values in after.values()} == {np.dtype(np.float64)}
    assert after.keys() == before.keys()
    assert all(np.array_equal(before[name], kept[name]) for name in kept)


@pytest.mark.parametrize("optimizer", [AvgM(), Adam()], ids=lambda o: type(o).__name__)
def test_state_of_another_block_is_refused(optimizer: ServerOptimizer) -> None:
    with pytest.raises(ValueError, match="the state has tensors"):
        optimizer.apply(BLOCK, FIRST, optimizer.init({"v": BLOCK["w"]}))


def test_a_federation_gives_each_optimiser_the_options_it_has() -> None:
    def made(name: str) -> ServerOptimizer:
        settings = {"server_optimizer": name, "server_lr": 0.5, "server_momentum": 0.25, "server_beta2": 0.75}
        return server_optimizer_of(RoundSettings.model_validate({**settings, "server_tau": 0.125}))

    assert made("avg") == Avg(0.5)
    assert made("avgm") == AvgM(0.5, 0.25)
    assert made("adagrad") == Adagrad(lr=0.5, momentum=0.0, tau=0.125)
    assert made("adam") == Adam(lr=0.5, momentum=0.25, tau=0.125, beta2=0.75)
    assert made("yogi") == Yogi(lr=0.5, momentum=0.25, tau=0.125, beta2=0.75)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"momentum": 1.0}, "server_momentum is 1.0"),
        ({"beta2": -0.1}, "server_beta2 is -0.1"),
        ({"tau": 0.0}, "server_tau is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, float], text: str) -> None:
    for kind in (Adam, Yogi):
        with pytest.raises(ConfigError, match=text):
            kind(**options)
