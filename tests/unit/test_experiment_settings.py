"""The file of an experiment and the runs that it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.simulation.experiments.plan import Plan
from blossom_edge.simulation.experiments.settings import load_settings, parse
from tests.support.experiments import EXPERIMENT, toml_of, write_tiny


def plan(folder: Path, **changes: Any) -> Plan:
    return Plan(parse({**EXPERIMENT, **changes}), folder=folder)


def test_every_combination_is_one_run_with_a_key_of_its_own(tmp_path: Path) -> None:
    found = plan(tmp_path, splits=["iid", "dirichlet:0.5"], windows=[0, 60], mixes=["1-1-2", "2-2-0"])
    assert len(found.runs) == 2 * 2 * 2 * 2 * 2
    assert "tiny_1-1-2_dirichlet-0.5_60_full_seed1" in found.runs


def test_short_forms_are_written_out_and_read_back() -> None:
    found = parse(EXPERIMENT)
    assert found.seeds == (0, 1)
    assert found.modes["full"].visibility == "full"
    assert parse(found.to_dict()) == found


def test_a_file_without_modes_has_dual_and_every_baseline() -> None:
    found = parse({key: value for key, value in EXPERIMENT.items() if key != "modes"})
    federated = {"full", "private-head", "private-head-fusion", "dual"}
    assert set(found.modes) == federated | {"majority", "local", "centralised"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modes": ["fulll"]}, "fulll"),
        ({"rouns": 3}, "rouns"),
        ({"splits": ["half"]}, "by-subject or dirichlet"),
        ({"splits": ["dirichlet:0.0"]}, "by-subject or dirichlet"),
        ({"mixes": ["3-3-4"]}, "10 clients, expected clients = 4"),
        ({"federation": ""}, "tiny has no federation"),
        ({"seeds": [1, 1]}, "a value twice"),
        ({"data": ["a/tiny.npz", "b/tiny.npz"]}, "two sources of one name"),
        ({"behaviours": [{"attack": "noise"}]}, "expected one: how many, or which"),
        (
            {"modes": {"full": {"reference": "local"}, "dual": {}}},
            "full.reference: found 'local', expected one of dual",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse({**EXPERIMENT, **changes})
    assert caught.value.error_id == "experiment-invalid"


def test_a_file_that_is_missing_or_no_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(tmp_path / "bad.toml")
    (tmp_path / "good.toml").write_text(toml_of(EXPERIMENT))
    assert load_settings(tmp_path / "good.toml") == parse(
        {**EXPERIMENT, "federation": str((tmp_path / EXPERIMENT["federation"]).resolve())}
    ), "a federation's file lies beside that of the experiment, not among the data"


def test_what_changes_a_result_changes_its_digest_and_the_name_of_the_experiment_does_not(tmp_path: Path) -> None:
    write_tiny(tmp_path)

    def digest(**changes: Any) -> str:
        found = plan(tmp_path, **changes)
        return found.digest(next(iter(found.runs.values())))

    first = digest()
    assert first == digest(name="other")
    assert first == digest(seeds=1)
    others = [
        digest(rounds=3), digest(holdout=0.5), digest(standardise="none"), digest(set=["training.lr=0.2"]),
        digest(behaviours=[{"attack": "noise", "count": 1}]), digest(unseen=1),
    ]  # fmt: skip
    write_tiny(tmp_path, num_windows=243)
    assert len({first, *others, digest()}) == 8


def test_a_table_of_profiles_may_have_any_modalities_of_the_federation(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    found = plan(tmp_path, mixes={"mine": {"gyro,accel": 3, "gyro": 1}})
    run = next(iter(found.runs.values()))
    assert found.profiles(run, found.federation(run)) == {("accel", "gyro"): 3, ("gyro",): 1}
    wrong = plan(tmp_path, mixes={"mine": {"ecg": 4}})
    run = next(iter(wrong.runs.values()))
    with pytest.raises(ConfigError, match="expected some of accel, gyro"):
        wrong.profiles(run, wrong.federation(run))


def test_the_federation_takes_classes_and_channels_of_the_data(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    found = plan(tmp_path)
    federation = found.federation(next(iter(found.runs.values())))
    assert federation.tasks["move"].classes == ("sit", "walk", "run")
    assert federation.rounds.min_devices == 4
    assert federation.schedule.stop_rounds == 2
