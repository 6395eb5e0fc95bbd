"""FedProx and modality dropout: each worked out by hand, and as part of a round."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_model import first_blocks, make_windows, raw, run, small, trainer_of  # noqa: E402

from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.training.regularisers import add_pull, drop_modalities, pulled_to_start  # noqa: E402

pytestmark = pytest.mark.torch


def test_the_pull_by_hand() -> None:
    moved, still = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))
    pulled = pulled_to_start([moved, still])
    with torch.no_grad():
        moved.copy_(torch.tensor([1.5, 1.0]))
    moved.grad = torch.tensor([0.1, 0.1])
    add_pull(pulled, 2.0)
    assert moved.grad.tolist() == pytest.approx([0.1 + 2 * 0.5, 0.1 - 2 * 1.0])
    assert still.grad is None


def test_a_strong_pull_keeps_shared_blocks_near_the_start_and_leaves_private_ones_alone() -> None:
    windows = make_windows(np.arange(42, dtype=np.int64) % 7)
    moves = {}
    for mu in (0.0, 5.0):
        federation = small("training.epochs=10", f"training.prox_mu={mu}")
        base = first_blocks(small())
        result = run(federation, trainer_of(federation, windows), base)
        moves[mu] = {
            str(block): sum(float(np.square(values[n] - base[block][n]).sum()) for n in values) ** 0.5
            for block, values in result.blocks.items()
        }
    assert moves[5.0]["encoder/accel"] < 0.5 * moves[0.0]["encoder/accel"]
    assert moves[5.0]["head/har"] > 0.5 * moves[0.0]["head/har"]


def test_one_step_of_sgd_with_the_pull_is_that_without_it() -> None:
    """At the start of a round the pull is zero: only the second step can differ."""
    windows = make_windows(np.arange(14, dtype=np.int64) % 7)
    sets = ["training.momentum=0.0", "training.batch_size=14"]
    for steps, equal in ((1, True), (2, False)):
        results = []
        for mu in ("0.0", "1.0"):
            federation = small(*sets, f"training.steps={steps}", f"training.prox_mu={mu}")
            results.append(raw(run(federation, trainer_of(federation, windows), first_blocks(small())).blocks))
        assert (results[0] == results[1]) is equal


def test_dropped_modalities_by_count_and_never_all_of_them() -> None:
    torch.manual_seed(3)
    rows = 20_000
    present = {"a": torch.ones(rows, dtype=torch.bool), "b": torch.ones(rows, dtype=torch.bool)}
    kept = drop_modalities(present, 0.3)
    assert bool((kept["a"] | kept["b"]).all())
    # one modality is lost: 0.3 by itself, and in the 0.09 of rows that would lose both, half keep this one
    for name in present:
        assert float((~kept[name]).double().mean()) == pytest.approx(0.3 - 0.09 / 2, abs=0.015)


def test_what_is_absent_stays_absent_and_a_single_modality_stays_present() -> None:
    present = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, False, False])}
    for seed in range(20):
        torch.manual_seed(seed)
        kept = drop_modalities(present, 0.9)
        assert kept["a"].tolist() == [True, False, True]
        assert kept["b"].tolist() == [False, False, False]


def test_equal_rounds_with_dropped_modalities_give_equal_bits_and_count_as_without() -> None:
    windows = make_windows(np.arange(21, dtype=np.int64) % 7)
    federation = small("training.modality_dropout=0.5")
    first, second = (run(federation, trainer_of(federation, windows)) for _ in range(2))
    plain = run(small(), trainer_of(small(), windows))
    assert raw(first.blocks) == raw(second.blocks)
    assert raw(first.blocks) != raw(plain.blocks)
    assert first.num_samples == plain.num_samples
    assert first.num_samples[BlockId.parse("encoder/gyro")] == 21
