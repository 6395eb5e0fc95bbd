"""The gate of dual blocks: which share of the shared branch a few or many validation windows choose."""

from __future__ import annotations

import numpy as np
import pytest

from blossom_edge.core.gate import GATES, MOST_REMEMBERED, ValidationWindows, choose_gate


def losses(windows: int, shared: float, own: float, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A window's loss is a straight line from that of the own branch (gate 0) to that of the shared one (gate 1)."""
    generator = np.random.default_rng(seed)
    gates = np.array(GATES)[:, None]
    better = shared - own + noise * generator.standard_normal((1, windows))
    return own + gates * better


def test_many_windows_on_which_one_branch_is_always_better_move_the_gate_to_its_end() -> None:
    assert choose_gate(losses(200, shared=0.2, own=1.0, noise=0.1)) == 1.0
    assert choose_gate(losses(200, shared=1.0, own=0.2, noise=0.1)) == 0.0


def test_windows_that_say_nothing_certain_leave_it_in_the_middle() -> None:
    uncertain = losses(8, shared=0.95, own=1.0, noise=2.0, seed=3)
    assert choose_gate(uncertain) == 0.5
    assert choose_gate(losses(30, shared=1.0, own=1.0)) == 0.5


def test_the_rule_by_hand() -> None:
    """Gate 1 is best with mean 1; gate 0.9 is 0.05 behind, with a standard error of 0.076: it may stand."""
    rows = np.full((len(GATES), 3), 9.0)
    rows[6] = [1.0, 1.0, 1.0]
    rows[5] = [1.2, 1.0, 0.95]
    assert choose_gate(rows) == 0.9
    rows[5] = [1.11, 1.1, 1.1]  # 0.103 behind, error 0.003: it may not
    assert choose_gate(rows) == 1.0


def test_without_two_windows_the_gate_stays_in_the_middle() -> None:
    assert choose_gate(np.zeros((len(GATES), 0))) == 0.5
    assert choose_gate(losses(1, shared=0.0, own=5.0)) == 0.5


def test_what_are_no_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        choose_gate(np.zeros((3, 4)))


def test_a_branch_that_diverged_is_not_chosen_and_where_both_did_the_gate_stays_in_the_middle() -> None:
    rows = losses(40, shared=0.2, own=1.0)
    rows[1:, 7] = np.nan
    assert choose_gate(rows) == 0.0
    rows[0, 3] = np.inf
    assert choose_gate(rows) == 0.5


def test_a_fifth_of_the_windows_validates_and_few_windows_none() -> None:
    assert ValidationWindows().rows(np.arange(9.0)).sum() == 0
    assert ValidationWindows().rows(np.arange(10.0)).tolist() == [False] * 8 + [True] * 2
    assert ValidationWindows().rows(np.arange(100.0)).sum() == 20


def test_where_old_windows_make_room_for_new_ones_none_that_was_trained_on_ever_validates() -> None:
    """A buffer of 100 windows into which 7 new ones come in each round: by place alone nine of ten would have been."""
    choosing, learned, shares = ValidationWindows(), set(), []
    for first in range(0, 700, 7):
        times = np.arange(first, first + 100) * 1.28
        rows = choosing.rows(times)
        assert not learned & set(times[rows])
        learned |= set(times[~rows])
        shares.append(rows.mean())
    assert min(shares) > 0.15
    assert max(shares) < 0.25


def test_windows_that_go_away_for_a_while_keep_their_place_and_nine_first_ones_never_validate() -> None:
    choosing = ValidationWindows()
    times = np.arange(40.0)
    whole = choosing.rows(times)
    assert choosing.rows(times[10:]).tolist() == whole[10:].tolist()
    assert choosing.rows(times).tolist() == whole.tolist()
    growing = ValidationWindows()
    assert not growing.rows(times[:9]).any()
    assert np.flatnonzero(growing.rows(times)).tolist() == [9, 18, 19, 28, 29, 38, 39]


def test_what_is_remembered_has_an_end() -> None:
    choosing = ValidationWindows()
    for first in range(0, 300_000, 4096):
        choosing.rows(np.arange(first, first + 4096.0))
    assert len(choosing._validates) <= MOST_REMEMBERED + 2 * 4096
