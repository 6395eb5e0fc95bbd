"""The written-out gradients of the wearable encoder: those of torch, to the last digits of float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from blossom_edge.federation.block_types import Conv1dGruOptions, Signal  # noqa: E402
from blossom_edge.models.encoders import Conv1dGru  # noqa: E402
from blossom_edge.models.gru import MeanGru  # noqa: E402
from blossom_edge.models.halving import dropout_masks, halve  # noqa: E402

pytestmark = pytest.mark.torch


def make(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def fill(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 * make(seed, *parameter.shape))


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).detach().abs().max()) < 1e-12


@pytest.mark.parametrize(("batch", "time", "inputs", "hidden"), [(3, 5, 4, 6), (1, 1, 2, 3), (4, 16, 1, 2)])
def test_mean_gru_and_its_gradients_are_those_of_torch(batch: int, time: int, inputs: int, hidden: int) -> None:
    gru = MeanGru(inputs, hidden).double()
    fill(gru)
    steps, weights = make(9, batch, time, inputs), make(10, batch, hidden)
    everything = [steps, *gru.parameters()]
    plain = gru(steps)[0].mean(dim=1)
    quick = gru.mean(steps)
    assert type(quick.grad_fn).__name__ == "_MeanGruBackward"
    near(quick, plain)
    expected = torch.autograd.grad((plain * weights).sum(), everything)
    for found, known in zip(torch.autograd.grad((quick * weights).sum(), everything), expected, strict=True):
        near(found, known)


def test_mean_gru_passes_the_numerical_check_of_gradients() -> None:
    gru = MeanGru(2, 3).double()
    fill(gru)
    assert torch.autograd.gradcheck(lambda *_: gru.mean(steps), [steps := make(4, 2, 4, 2), *gru.parameters()])


@pytest.mark.parametrize(("time", "kernel"), [(8, 5), (7, 5), (8, 4), (9, 3), (2, 1)])
def test_halving_and_its_gradients_are_those_of_torch(time: int, kernel: int) -> None:
    steps, weight, bias = make(1, 3, time, 2), make(2, 4, 2, kernel), make(3, 4)
    plain = torch.nn.functional.conv1d(steps.transpose(1, 2), weight, bias, padding=kernel // 2)
    plain = torch.nn.functional.max_pool1d(torch.relu(plain), 2).transpose(1, 2)
    keep = dropout_masks([tuple(plain.shape)], 0.5, like=plain)[0]
    assert {0.0, 2.0} == set(keep.flatten().tolist())
    quick, plain = halve(steps, weight, bias, keep), plain * keep
    near(quick, plain)
    expected = torch.autograd.grad(plain.square().sum(), [steps, weight, bias])
    for found, known in zip(torch.autograd.grad(quick.square().sum(), [steps, weight, bias]), expected, strict=True):
        near(found, known)
    assert torch.autograd.gradcheck(lambda *given: halve(*given, keep), [steps, weight, bias])


def test_of_two_equal_steps_the_first_takes_the_gradient_as_in_torch() -> None:
    steps = torch.ones(1, 2, 1, requires_grad=True)
    halve(steps, torch.ones(1, 1, 1), torch.zeros(1), None).sum().backward()
    assert steps.grad is not None
    assert steps.grad.flatten().tolist() == [1.0, 0.0]


def test_the_encoder_trains_by_the_gradients_that_scoring_with_torch_would_give() -> None:
    encoder = Conv1dGru(Conv1dGruOptions(channels=(3, 4), hidden=5, dropout=0.0), signal=Signal(2, 11)).double()
    fill(encoder)
    window = make(20, 3, 11, 2)
    found = torch.autograd.grad(encoder.train()(window).square().sum(), list(encoder.parameters()))
    expected = torch.autograd.grad(encoder.eval()(window).square().sum(), list(encoder.parameters()))
    for one, other in zip(found, expected, strict=True):
        near(one, other)


def test_dropout_drops_by_the_probability_and_equal_seeds_give_equal_masks() -> None:
    like = torch.zeros(())
    torch.manual_seed(3)
    first = dropout_masks([(100, 99), (1, 7)], 0.1, like=like)
    torch.manual_seed(3)
    again = dropout_masks([(100, 99), (1, 7)], 0.1, like=like)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [tuple(mask.shape) for mask in first] == [(100, 99), (1, 7)]
    dropped = float((first[0] == 0).double().mean())
    assert abs(dropped - 0.1) < 4 * (0.1 * 0.9 / 9900) ** 0.5  # four spreads of the mean of 9900 coins
    assert float(first[0].max()) == pytest.approx(1 / 0.9)


def test_equal_rounds_of_the_quick_path_give_equal_bits_with_dropout_on() -> None:
    from small_model import make_windows, raw, run, small, trainer_of

    sets = [
        f"blocks.encoder/{m}={{type='conv1d_gru', channels=[4, 6], hidden=5, dropout=0.5}}" for m in ("accel", "gyro")
    ]
    federation, windows = small(*sets), make_windows(np.arange(21, dtype=np.int64) % 7)
    first, second = (raw(run(federation, trainer_of(federation, windows)).blocks) for _ in range(2))
    other = raw(run(federation, trainer_of(federation, windows), round_number=2).blocks)
    assert first == second
    assert first != other
