"""Who gets which windows: every window once, the same for equal seeds, whole people where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.simulation.experiments.division import Division, divide
from blossom_edge.simulation.experiments.fitting import pooled_scales, window_set

MIX = {("accel",): 1, ("gyro",): 1, ("accel", "gyro"): 2}


def dataset(num: int = 240, people: int = 6) -> Dataset:
    values = np.arange(num * 4, dtype=np.float32).reshape(num, 4, 1)
    here = np.ones(num, dtype=np.bool_)
    signals = {m: Signals(values, here, 10.0, (("x", "g"),)) for m in ("accel", "gyro")}
    return Dataset("t", signals, np.arange(num) % 3, ("a", "b", "c"), np.arange(num) * people // num).check()


def divided(data: Dataset | None = None, **changes: Any) -> Division:
    options: dict[str, Any] = {
        "split": "iid", "profiles": MIX, "windows": 0, "holdout": 0.3, "unseen": 0, "seed": 1,
    }  # fmt: skip
    return divide(data or dataset(), ("accel", "gyro"), **{**options, **changes})


@pytest.mark.parametrize("split", ["iid", "dirichlet:0.5", "by-subject"])
def test_every_window_is_used_exactly_once(split: str) -> None:
    found = divided(split=split)
    used = np.concatenate([np.concatenate([seat.train, seat.test]) for seat in found.seats])
    assert sorted(used) == list(range(240))
    assert sorted(seat.modalities for seat in found.seats) == [
        ("accel",), ("accel", "gyro"), ("accel", "gyro"), ("gyro",)
    ]  # fmt: skip


@pytest.mark.parametrize("split", ["iid", "dirichlet:0.5", "by-subject"])
def test_equal_seeds_divide_equally_and_others_do_not(split: str) -> None:
    one, two, three = (divided(split=split, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(one.seats, two.seats, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(one.seats, three.seats, strict=True))


def test_a_mix_changes_nobodys_windows() -> None:
    one, two = divided(windows=20), divided(windows=20, profiles={("accel", "gyro"): 4})
    assert all(np.array_equal(a.train, b.train) for a, b in zip(one.seats, two.seats, strict=True))


def test_few_windows_are_training_and_test_together() -> None:
    assert [(len(seat.train), len(seat.test)) for seat in divided(windows=20).seats] == [(14, 6)] * 4


def test_a_dirichlet_split_is_skewed_and_gives_everybody_ten_windows() -> None:
    data = dataset()
    shares = []
    for seat in divided(split="dirichlet:0.1").seats:
        rows = np.concatenate([seat.train, seat.test])
        assert len(rows) >= 10
        shares.append(np.bincount(data.labels[rows], minlength=3).max() / len(rows))
    assert max(shares) > 0.6


def test_by_subject_gives_whole_people_and_tests_on_their_later_windows() -> None:
    data, people = dataset(), []
    for seat in divided(split="by-subject").seats:
        own = set(data.subjects[np.concatenate([seat.train, seat.test])])
        people += own
        for person in own:
            for label in range(3):
                train, test = (
                    rows[(data.subjects[rows] == person) & (data.labels[rows] == label)]
                    for rows in (seat.train, seat.test)
                )
                assert train.max() < test.min()
    assert sorted(people) == list(range(6))


def test_people_kept_apart_are_with_no_client() -> None:
    data = dataset()
    found = divided(data, unseen=[2, 5])
    assert set(data.subjects[found.unseen]) == {2, 5}
    assert all(not set(data.subjects[np.r_[seat.train, seat.test]]) & {2, 5} for seat in found.seats)
    assert len(set(data.subjects[divided(data, unseen=2).unseen])) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "by-subject", "profiles": {("accel",): 7}}, "found 6 known people"),
        ({"split": "dirichlet:0.5", "profiles": {("accel",): 30}}, "expected ten for each"),
        ({"unseen": 6}, "expected some of them"),
        ({"unseen": [9]}, "expected some of them"),
        ({"windows": 1}, "expected at least 2"),
    ],
)
def test_what_cannot_be_dealt_out_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        divided(**changes)
    assert caught.value.error_id == "experiment-invalid"


def test_pooled_scales_are_those_of_the_owners_training_windows() -> None:
    data = dataset(4)
    scales = pooled_scales(data, [(("accel",), np.array([0])), (("accel", "gyro"), np.array([1]))])
    assert scales["accel"][0] == pytest.approx([3.5])  # 0..7
    assert scales["gyro"][0] == pytest.approx([5.5])  # 4..7
    assert scales["gyro"][1] == pytest.approx([np.sqrt(1.25)])


def test_a_modality_that_a_client_lacks_is_absent_and_zero() -> None:
    data = dataset(4)
    scales = {m: (np.array([1.0]), np.array([2.0])) for m in ("accel", "gyro")}
    found = window_set(data, np.array([1]), task="t", modalities=("accel", "gyro"), have=("accel",), scales=scales)
    assert found.inputs["accel"][0, :, 0].tolist() == [1.5, 2.0, 2.5, 3.0]
    assert not found.present["gyro"].any()
    assert not found.inputs["gyro"].any()


def test_the_tiny_set_of_these_tests_is_read(tmp_path: Path) -> None:
    from blossom_edge.datasets.readers import read_dataset
    from tests.support.experiments import write_tiny

    found = read_dataset(str(write_tiny(tmp_path) / "tiny.npz"))
    assert len(found) == 240
    assert found.classes == ("sit", "walk", "run")
