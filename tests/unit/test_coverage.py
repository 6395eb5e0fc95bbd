"""The plan before a run: who trains which block, what starves, and bytes that a simulated round really takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.cli import program
from aggregator.coverage import Coverage, Devices, plan_coverage
from aggregator.status import warnings
from blossom_edge.client.learner import Learner
from blossom_edge.console.program import run
from blossom_edge.core.training import TrainResult
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SimulatedDevice, World

BOTH, ACCEL, GYRO = ("accel", "gyro"), ("accel",), ("gyro",)


def coverage(federation: Federation, *fleet: tuple[int, tuple[str, ...]]) -> Coverage:
    return plan_coverage(federation, [Devices("+".join(m), count, m) for count, m in fleet])


def by_key(found: Coverage) -> dict[str, Any]:
    return {str(block.key): block for block in found.blocks}


def test_each_block_counts_the_devices_that_own_it() -> None:
    found = by_key(coverage(load_federation("har", sets=["visibility=full"]), (2, BOTH), (3, ACCEL)))
    owners = {key: block.owners for key, block in found.items()}
    assert owners == {
        "encoder/accel": 5,
        "encoder/gyro": 2,
        "fusion/har": 5,
        "fusion/har.accel": 5,
        "fusion/har.gyro": 2,
        "head/har": 5,
    }
    assert "the other's update" in found["encoder/gyro"].note


def test_a_block_without_owners_or_with_too_few_starves_and_a_private_one_never_does() -> None:
    federation = load_federation("har", sets=["rounds.quorum=2", "blocks.encoder/accel.min_cohort=4"])
    found = coverage(federation, (3, ACCEL))
    assert {str(b.key): b.problem.partition(":")[0] for b in found.starving} == {
        "encoder/accel": "3 of the 4 updates that a round needs",
        "encoder/gyro": "nobody has it",
        "fusion/har.gyro": "nobody has it",
    }
    assert by_key(found)["head/har"].problem == ""
    assert by_key(found)["head/har"].bytes_up == 0


def test_a_rule_needs_updates_of_its_own_beyond_the_quorum() -> None:
    sets = ["visibility=full", "rounds.rule=multi-krum", "rounds.quorum=5"]
    found = by_key(coverage(load_federation("har", sets=sets), (4, ACCEL), (6, GYRO)))
    assert "4 of the 5" in found["encoder/accel"].problem
    assert (found["encoder/gyro"].problem, found["encoder/gyro"].needed) == ("", 5)


def test_cohorts_are_counted_apart() -> None:
    federation = load_federation("har", sets=["visibility=cohort-head-fusion"])
    whole = coverage(federation, (2, BOTH), (3, ACCEL))
    assert whole.starving == (), "no cohort of accel alone can have the part of gyro"
    found = by_key(whole)
    assert found["head/har@accel.gyro"].owners == 2
    assert found["head/har@accel"].owners == 3
    assert found["encoder/accel"].owners == 5


class Shift:
    """A trainer that moves every value a little: sizes do not depend on what is learned."""

    def present_modalities(self) -> frozenset[str]:
        return frozenset(BOTH)

    def num_windows(self) -> int:
        return 100

    def evaluate(self, blocks: Any) -> Any:
        return {}

    def train(self, blocks: Mapping[Any, Any], training: Any, **rest: Any) -> TrainResult:
        moved = {b: {n: v + np.float32(1e-3) for n, v in tensors.items()} for b, tensors in blocks.items()}
        return TrainResult(dict(moved), dict.fromkeys(blocks, 100), 7, {})


@pytest.mark.parametrize("visibility", ["full", "private-head-fusion", "dual"])
def test_the_bytes_of_a_round_are_those_that_agents_count(visibility: str, tmp_path: Path) -> None:
    sets = [f"visibility={visibility}", "schedule.stop_rounds=3", "rounds.min_devices=2"]
    federation = load_federation("har", sets=sets)
    devices = [SimulatedDevice("both", "any", BOTH, _shift), SimulatedDevice("gyro", "any", GYRO, _shift)]
    world = World(federation, devices, tmp_path)
    world.run()
    measured = [(agent.traffic[2].up, agent.traffic[2].down) for agent in world.agents]
    world.close()
    planned = coverage(federation, (1, BOTH), (1, GYRO)).costs
    for cost, (up, down) in zip(planned, measured, strict=True):
        assert cost.bytes_up == pytest.approx(up, rel=0.02)
        assert cost.bytes_down == pytest.approx(down, rel=0.02)


def test_a_running_gateway_says_which_blocks_no_round_can_commit(tmp_path: Path) -> None:
    sets = ["visibility=full", "rounds.rule=median", "rounds.quorum=3", "schedule.stop_rounds=1"]
    federation = load_federation("har", sets=[*sets, "rounds.min_devices=2"])
    devices = [SimulatedDevice(name, "any", ACCEL, _shift) for name in ("a", "b")]
    world = World(federation, devices, tmp_path)
    world.run()
    said = warnings(world.service)
    world.close()
    assert "encoder/accel: 2 of the 3 updates that a round needs, so it is held in every round" in said
    assert not any("work out the other's" in warning for warning in said)


def test_the_command_names_what_starves_and_says_so_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["plan", "har", "accel=3", "rpi4-gyro", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["starving"] == []
    assert run(program, ["plan", "har", "rpi4-accel=3"]) == 1
    shown = capsys.readouterr()
    assert "encoder/gyro starves: nobody has it" in shown.err
    assert "encoder/accel" in shown.out


@pytest.mark.parametrize(
    "words", [["har", "accel=0"], ["har", "accel=many"], ["har", "rpi4-accl=2"], ["har", "usb-mic"]]
)
def test_devices_that_nobody_knows_are_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["plan", *words]) == 2
    assert words[-1].partition("=")[0] in capsys.readouterr().err


def _shift(federation: Federation) -> Learner:
    return Learner(Shift())
