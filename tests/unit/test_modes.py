"""The cast of the demo, and that all modes start from the same place with the same windows."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.client.fit import check_fit, load_device_profile
from blossom_edge.federation.initial import initial_block
from blossom_edge.simulation.modes import (
    CAST,
    NEW_PEOPLE,
    VISIBILITY,
    demo_federation,
    evaluate_model,
    learn,
    majority_scores,
)
from blossom_edge.simulation.results import MODES
from blossom_edge.simulation.watch import PEOPLE, write_people

CLEAR = 0.2
"""By so much every mode has to beat naming one label always."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        importlib.metadata.version("seglearn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package seglearn is not installed")
    folder = tmp_path_factory.mktemp("people")
    write_people(folder)
    return folder


def test_cast_has_two_devices_of_each_kind_and_no_person_twice() -> None:
    kinds = [seat.modalities for seat in CAST]
    assert {kind: kinds.count(kind) for kind in kinds} == {("accel", "gyro"): 2, ("accel",): 2, ("gyro",): 2}
    assert sorted([*(seat.person for seat in CAST), *NEW_PEOPLE]) == list(PEOPLE)


@pytest.mark.parametrize("mode", sorted(VISIBILITY))
def test_profiles_of_the_cast_have_the_modalities_it_says(mode: str) -> None:
    federation = demo_federation(mode, rounds=1, seed=0)
    for seat in CAST:
        assert check_fit(load_device_profile(seat.profile), federation) == seat.modalities


def test_full_mode_shares_what_the_block_wise_mode_keeps() -> None:
    shared = {
        mode: {str(spec.id) for spec in demo_federation(mode, rounds=1, seed=0).spec.blocks if spec.leaves_device}
        for mode in VISIBILITY
    }
    assert shared["private_head_fusion"] == {"encoder/accel", "encoder/gyro"}
    fusions = {"fusion/har", "fusion/har.accel", "fusion/har.gyro"}  # one for each set of modalities
    assert shared["full"] == {"encoder/accel", "encoder/gyro", "head/har", *fusions}


def test_naming_one_label_gets_about_a_seventh_of_seven_exercises(people: Path) -> None:
    federation = demo_federation("full", rounds=1, seed=0)
    own, new = majority_scores(federation, people, seed=0, labels_per_class=3)
    assert 1 / 7 <= own < 0.25
    assert 1 / 7 <= new < 0.25


@pytest.mark.torch
def test_untrained_model_is_near_chance_on_new_people(people: Path) -> None:
    pytest.importorskip("torch")
    federation = demo_federation("private_head_fusion", rounds=1, seed=0)
    blocks = {
        spec.id: initial_block(spec, federation.digest, 0)
        for spec in federation.spec.blocks
        if str(spec.id) != "encoder/accel"
    }
    score = evaluate_model(federation, blocks, "rpi4-gyro", people, NEW_PEOPLE[:1])
    assert 0.0 <= score < 0.5


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_beats_naming_one_label_by_20_points(mode: str, people: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rounds, heard = 8, []
    federation = demo_federation("private_head_fusion", rounds=rounds, seed=0)
    base, _ = majority_scores(federation, people, seed=0, labels_per_class=3)
    learned = learn(mode, people, rounds=rounds, seed=0, labels_per_class=3, folder=tmp_path, on_round=heard.append)
    assert heard == list(range(1, rounds + 1))
    assert {len(one.curve) for one in learned.values()} == {rounds + 1}
    assert float(np.mean([one.curve[-1] for one in learned.values()])) >= base + CLEAR
    assert all(0.0 <= one.new_people_score <= 1.0 for one in learned.values())
