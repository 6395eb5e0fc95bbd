"""A gateway that is killed before and after every record of its ledger: the federation ends with the same versions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.calm import Calm, each_update_once, make_calm
from support.learning import tiny
from support.stage import ACCEL, BOTH, GYRO, Stage

from aggregator.ledger import Ledger

THREE = [("a", BOTH), ("b", ACCEL), ("c", GYRO)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """The versions of a run in which nothing breaks."""
    return make_calm(lambda: tmp_path_factory.mktemp("calm"))


class Crash(BaseException):
    """The gateway's process is killed here."""


CRASH_SETS = ("rounds.min_devices=3", "schedule.stop_rounds=2", "rounds.deadline_s=30.0")


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int, *, written: bool) -> None:
    """Die at the append of record `number`: before it, or when it is on disk and nothing else has happened."""
    append = Ledger.append

    def crashing(self: Ledger, record: Mapping[str, Any]) -> tuple[int, str]:
        if self.seq + 1 != number:
            return append(self, record)
        monkeypatch.undo()
        if written:
            append(self, record)
        raise Crash

    monkeypatch.setattr(Ledger, "append", crashing)


@pytest.mark.parametrize("written", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("number", range(3, 20))
def test_a_gateway_killed_at_any_record_ends_with_the_same_versions(
    tmp_path: Path, calm: Calm, monkeypatch: pytest.MonkeyPatch, number: int, written: bool
) -> None:
    stage = Stage(tmp_path, tiny(*CRASH_SETS), THREE)
    crash_at(monkeypatch, number, written=written)
    with pytest.raises(Crash):
        stage.run()
    stage.restart_gateway()
    stage.run(longest_s=600.0)
    assert stage.versions() == calm(CRASH_SETS, THREE)
    assert stage.state.round == 2
    assert each_update_once(stage)
    assert stage.members("encoder/accel") == [(1, ["a", "b"]), (2, ["a", "b"])]
    stage.close()


def test_the_crashes_above_meet_every_record_of_the_run(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(*CRASH_SETS), THREE)
    stage.run()
    assert stage.world.truth.ledger.seq == 19
    stage.close()


def test_a_gateway_killed_again_and_again_ends_with_the_same_versions(
    tmp_path: Path, calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, tiny(*CRASH_SETS), THREE)
    ended, num_lives = False, 1
    while not ended:
        crash_at(monkeypatch, stage.world.truth.ledger.seq + 3, written=num_lives % 2 == 0)
        try:
            stage.run(longest_s=3600.0)
            ended = True
        except Crash:
            stage.restart_gateway()
            num_lives += 1
    monkeypatch.undo()
    assert num_lives > 5
    assert stage.versions() == calm(CRASH_SETS, THREE)
    assert each_update_once(stage)
    stage.close()


@pytest.mark.slow
def test_a_gateway_put_back_from_an_old_copy_says_that_it_has_lost_something(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path / "stage", tiny("rounds.min_devices=3", "schedule.stop_rounds=500"), THREE)
    folder = stage.world.folder / "gateway"
    stage.until_round(1)
    shutil.copytree(folder, tmp_path / "copy")
    stage.until_round(2)
    stage.restart_gateway()
    stage.run_for(1.0)
    assert "ledger-behind" not in caplog.messages
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    stage.restart_gateway()
    stage.run_for(1.0)
    assert caplog.messages.count("ledger-behind") == len(THREE)
    stage.close()
