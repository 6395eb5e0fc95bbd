"""Single runs in this process: every mode gives a record, equal seeds equal records, attacks and late comers act."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.simulation.experiments.plan import Plan
from blossom_edge.simulation.experiments.records import RunRecord
from blossom_edge.simulation.experiments.scores import accuracy
from blossom_edge.simulation.experiments.settings import parse
from tests.support.experiments import EXPERIMENT, write_tiny

pytest.importorskip("torch")
pytestmark = pytest.mark.torch
MODES = [
    "majority", "local", "full", "private-head", "private-head-fusion", "dual", "cohort-head-fusion", "centralised",
]  # fmt: skip


def on_fast_disk() -> str | None:
    """Where fsync costs nothing, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def records(folder: Path, **changes: Any) -> dict[str, RunRecord]:
    """By mode, of seed 0."""
    from blossom_edge.simulation.experiments.running import run_one

    if not (folder / "tiny.npz").exists():
        write_tiny(folder)
    plan = Plan(parse({**EXPERIMENT, "seeds": 1, **changes}), folder=folder)
    with TemporaryDirectory(dir=on_fast_disk()) as scratch:
        found = {run.mode: run_one(plan, run, scratch=Path(scratch), digest="d") for run in plan.runs.values()}
        assert not list(Path(scratch).iterdir()), "what the devices kept is still there"
    return found


def mean_accuracy(record: RunRecord) -> float:
    return float(np.mean([accuracy(client.confusion) for client in record.clients]))


@pytest.mark.slow
def test_every_mode_scores_the_same_windows_of_the_same_clients(tmp_path: Path) -> None:
    found = records(tmp_path, modes=MODES, unseen=1)
    assert sorted(found) == sorted(MODES)
    first = found["majority"]
    for mode, record in found.items():
        assert record.classes == ("sit", "walk", "run")
        for one, other in zip(first.clients, record.clients, strict=True):
            assert (one.id, one.modalities, one.num_train, one.train_labels) == (
                other.id, other.modalities, other.num_train, other.train_labels,
            )  # fmt: skip
            assert list(map(sum, one.confusion)) == list(map(sum, other.confusion)), mode
            assert sum(map(sum, other.unseen)) == 40
            assert len(other.accuracy) == len(other.macro_f1) == 3
            assert other.accuracy[-1] == pytest.approx(accuracy(other.confusion), abs=1e-6)
            assert (other.gate is not None) == (mode == "dual")
            assert (other.bytes_up_per_round > 0) == (mode not in ("majority", "local", "centralised"))
    up = {mode: found[mode].clients[0].bytes_up_per_round for mode in found}
    assert up["private-head-fusion"] < up["private-head"] < up["full"]


def test_what_is_learned_is_learned(tmp_path: Path) -> None:
    found = records(tmp_path, modes=["majority", "local", "full", "centralised"], rounds=8)
    for mode in ("local", "full", "centralised"):
        assert mean_accuracy(found[mode]) > 0.8 > mean_accuracy(found["majority"])


def test_equal_seeds_give_equal_records(tmp_path: Path) -> None:
    one, two = (records(tmp_path, modes=["local", "dual"]) for _ in range(2))
    for mode in one:
        assert replace(one[mode], cpu_s=0.0) == replace(two[mode], cpu_s=0.0)
        assert RunRecord.from_dict(one[mode].to_dict()) == one[mode]


@pytest.mark.slow
def test_an_attack_spoils_the_mean_and_the_attacker_is_not_scored(tmp_path: Path) -> None:
    behaviours = {"none": "none", "flip": "sign-flip", "noise": "noise", "labels": "label-flip"}
    modes = {
        name: {"visibility": "full", "behaviours": [{"attack": attack, "clients": [0], "strength": 30.0}]}
        for name, attack in behaviours.items()
    }
    found = records(tmp_path, modes=modes, mixes=["0-0-4"], rounds=6)
    assert {len(record.clients) for record in found.values()} == {3}
    assert {record.clients[0].id for record in found.values()} == {"c1"}
    good = mean_accuracy(found["none"])
    assert good > 0.8
    assert mean_accuracy(found["flip"]) < good - 0.2
    assert len({record.clients[0].macro_f1 for record in found.values()}) == 4


def test_who_joins_late_takes_part_from_then_on_and_who_never_joins_is_scored(tmp_path: Path) -> None:
    behaviours = [{"join_round": 3, "clients": [0]}, {"join_round": 9, "clients": [1]}]
    found = records(tmp_path, modes=["full"], behaviours=behaviours, mixes=["0-0-4"], rounds=6)["full"]
    late, never, *others = found.clients
    assert [len(client.accuracy) for client in found.clients] == [7] * 4
    assert 0 < late.bytes_up_per_round < others[0].bytes_up_per_round
    assert never.bytes_up_per_round == 0
    assert accuracy(never.confusion) > 0.8
    assert [client.join_round for client in found.clients] == [3, 9, 1, 1]
    assert [client.behaviour for client in found.clients] == ["join_round = 3", "join_round = 9", "", ""]


def test_the_gate_of_a_device_that_never_trained_is_the_one_that_it_was_scored_with(tmp_path: Path) -> None:
    behaviours = [{"join_round": 9, "clients": [0]}]
    never, *others = records(tmp_path, modes=["dual"], behaviours=behaviours, mixes=["0-0-4"], rounds=6)["dual"].clients
    assert never.gate == 1.0  # its own copy never learned, the shared one did
    assert all(client.gate is not None for client in others)


def test_a_sensor_that_died_says_nothing_of_people_never_seen(tmp_path: Path) -> None:
    modes = {
        name: {"visibility": "local", "behaviours": [{"lose": "gyro", "at_round": number, "clients": [0]}]}
        for name, number in (("dead", 3), ("alive", 9))
    }
    found = records(tmp_path, modes=modes, mixes=["0-0-4"], rounds=4, unseen=1, set=["training.lr=0.002"])
    dead, alive = (found[mode].clients[0] for mode in ("dead", "alive"))
    assert sum(map(sum, dead.unseen)) == sum(map(sum, alive.unseen)) == 40
    assert dead.unseen != alive.unseen
    assert found["dead"].clients[1].unseen == found["alive"].clients[1].unseen


def test_a_centralised_model_learns_from_a_modality_from_the_round_in_which_it_comes(tmp_path: Path) -> None:
    modes = {
        name: {"visibility": "centralised", "behaviours": [{"gain": "gyro", "at_round": number, "clients": [0]}]}
        for name, number in (("early", 1), ("middle", 3), ("never", 9))
    }
    found = records(tmp_path, modes=modes, mixes=["0-0-4"], rounds=4, set=["training.lr=0.002"])
    curves = {mode: record.clients[0].macro_f1 for mode, record in found.items()}
    assert curves["middle"][:2] == curves["never"][:2] != curves["early"][:2]
    assert curves["middle"][2] != curves["never"][2], curves


@pytest.mark.slow
def test_a_modality_that_is_lost_or_gained_changes_what_its_client_can_do(tmp_path: Path) -> None:
    changes = [{"gain": "gyro", "at_round": 4, "clients": [0]}, {"lose": "gyro", "at_round": 4, "clients": [1]}]
    modes = {
        "as-ever": {"visibility": "full", "behaviours": [{"attack": "", "count": 1}]},
        "changing": {"visibility": "full", "behaviours": changes},
    }
    found = records(tmp_path, modes=modes, mixes=["0-0-4"], rounds=6)
    for number in (0, 1):
        assert found["as-ever"].clients[number].macro_f1 != found["changing"].clients[number].macro_f1
    assert found["changing"].clients[1].accuracy[-1] > 0.6


def test_a_behaviour_that_fits_nobody_is_refused(tmp_path: Path) -> None:
    for behaviours in ([{"count": 5}], [{"gain": "gyro", "count": 3}], [{"clients": [7]}]):
        with pytest.raises(ConfigError, match="behaviours: found"):
            records(tmp_path, modes=["majority"], behaviours=behaviours)
