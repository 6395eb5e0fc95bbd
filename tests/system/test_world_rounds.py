"""Whole federations in virtual time: who takes part, what is averaged, when rounds take place and when they end."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.learning import noise, tiny
from support.stage import ACCEL, BOTH, GYRO, Stage, key

from aggregator.rounds import Phase, Running
from aggregator.schedule import Gate
from aggregator.server_optimizers import Avg
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation

THREE = [("a", BOTH), ("b", ACCEL), ("c", GYRO)]


def value_of(stage: Stage, block: str) -> Tensors:
    """The newest version of a block, as it lies on the gateway's disk."""
    data = stage.world.truth.versions.get(stage.state.version(key(block)).sha256)
    return make_codec("float32").decode(data, stage.state.spec[BlockId.parse(block)])


def first_of(stage: Stage, block: str) -> Tensors:
    federation = stage.world.federation
    return initial_block(federation.spec[BlockId.parse(block)], federation.digest, federation.seed)


def delta_of(stage: Stage, device: str, block: str, round_number: int) -> Tensors:
    """What a device's trainer changed in a round."""
    _, base, new = next(t for t in stage.trainers[device].trained if t[0] == round_number)
    block_id = BlockId.parse(block)
    return {name: new[block_id][name] - base[block_id][name] for name in new[block_id]}


def test_a_federation_of_three_devices_ends_after_its_rounds_and_all_have_the_last_versions(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.min_devices=3"), THREE)
    stage.run()
    assert [r["round"] for r in stage.records("commit")] == [1, 2, 3]
    assert stage.state.running is Running.FINISHED
    assert stage.state.stop_reason == "3 rounds"
    assert stage.members("encoder/accel") == [(1, ["a", "b"]), (2, ["a", "b"]), (3, ["a", "b"])]
    assert stage.members("encoder/gyro") == [(1, ["a", "c"]), (2, ["a", "c"]), (3, ["a", "c"])]
    for agent in stage.world.agents:
        held = agent.session.downloads.held
        assert {str(k): h.version for k, h in held.items()} == {str(k): 3 for k in agent.session.blocks.shared}
    stage.close()


def test_every_device_scores_each_version_once_and_the_last_one_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.min_devices=3"), THREE)
    stage.run()
    assert {device: len(t.evaluated) for device, t in stage.trainers.items()} == {"a": 4, "b": 4, "c": 4}
    last = stage.trainers["b"].evaluated[-1][BlockId.parse("encoder/accel")]
    assert all(np.array_equal(last[n], v) for n, v in value_of(stage, "encoder/accel").items())
    assert [r["score"]["har.loss"] for r in stage.records("commit")] == [[3.0, 3.0], [1.5, 3.0], [1.0, 3.0]]
    stage.close()


def test_a_block_that_one_device_owns_takes_exactly_its_delta(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=1"), [("a", ACCEL), ("c", GYRO)])
    stage.run()
    first, delta = first_of(stage, "encoder/gyro"), delta_of(stage, "c", "encoder/gyro", 1)
    found = value_of(stage, "encoder/gyro")
    for name in first:
        expected = (first[name].astype(np.float64) + delta[name].astype(np.float64)).astype(np.float32)
        assert found[name].tobytes() == expected.tobytes()
    stage.close()


def test_the_mean_is_weighted_by_the_samples_of_each_owner(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=1"), [("a", ACCEL), ("b", ACCEL)])
    stage.trainers["a"].num_samples, stage.trainers["b"].num_samples = 30, 10
    stage.run()
    first, found = first_of(stage, "encoder/accel"), value_of(stage, "encoder/accel")
    of_a, of_b = (delta_of(stage, d, "encoder/accel", 1) for d in "ab")
    for name in first:
        assert np.allclose(found[name], first[name] + 0.75 * of_a[name] + 0.25 * of_b[name], rtol=0, atol=1e-6)
        assert not np.allclose(found[name], first[name] + 0.5 * of_a[name] + 0.5 * of_b[name], rtol=0, atol=1e-3)
    stage.close()


def test_a_block_that_nobody_trained_keeps_its_version_and_its_bytes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.min_devices=3"), THREE)
    stage.trainers["a"].absent = stage.trainers["c"].absent = frozenset({"gyro"})
    stage.run()
    version = stage.state.version(key("encoder/gyro"))
    assert version.number == 0
    assert all(
        np.array_equal(v, first_of(stage, "encoder/gyro")[n]) for n, v in value_of(stage, "encoder/gyro").items()
    )
    body = stage.records("commit")[-1]["blocks"]["encoder/gyro"]
    assert (body["version"], body["members"], body["held"]) == (0, [], "nobody trained it")
    assert stage.state.version(key("encoder/accel")).number == 3
    assert stage.world.clock.now < 1.0, "no round waited for a modality that its owners said is absent"
    stage.close()


def test_below_the_quorum_or_min_cohort_a_block_is_held_and_the_record_says_why(tmp_path: Path) -> None:
    sets = ("rounds.min_devices=3", "blocks.encoder/gyro.quorum=3", "blocks.encoder/accel.min_cohort=3")
    stage = Stage(tmp_path, tiny(*sets, "schedule.stop_rounds=1"), THREE)
    stage.run()
    (commit,) = stage.records("commit")
    assert commit["blocks"]["encoder/gyro"]["held"] == "2 of the 3 updates that its quorum asks for"
    assert commit["blocks"]["encoder/accel"]["held"] == "2 owners trained it, min_cohort asks for 3"
    assert {v.number for v in stage.state.versions.values()} == {0}
    told = stage.agent("c").session.story.outcomes["encoder/gyro"]
    assert told == "round 1: held, 2 of the 3 updates that its quorum asks for"
    stage.close()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_in_which_updates_arrive_changes_no_bit(tmp_path: Path, order: tuple[int, ...]) -> None:
    cast = [("a", ACCEL), ("b", BOTH), ("c", ACCEL), ("d", BOTH)]
    found = []
    for folder, places in (("straight", (0, 1, 2, 3)), ("other", order)):
        stage = Stage(tmp_path / folder, tiny("rounds.min_devices=4"), [cast[i] for i in places])
        for n, device in enumerate("abcd"):
            stage.trainers[device].num_samples = 7 + 3 * n
        stage.run()
        arrived = [r["device"] for r in stage.records("accept") if r["round"] == 1 and r["block"] == "encoder/accel"]
        found.append((arrived, stage.versions()))
        stage.close()
    assert found[0][1] == found[1][1]
    assert (found[0][0] != found[1][0]) == (order != (0, 1, 2, 3)), "the updates did come in another order"


def test_equal_arguments_give_equal_bytes_on_the_wire_and_another_seed_gives_others(tmp_path: Path) -> None:
    hashes = []
    for n, seed in enumerate((5, 5, 6)):
        stage = Stage(tmp_path / str(n), tiny(), THREE, seed=seed)
        stage.run()
        hashes.append(stage.wire_hash())
        stage.close()
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_late_joiner_gets_the_versions_at_once_and_takes_part_from_the_next_round(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(2)
    stage.add("late", ACCEL)
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a", "b"]), (2, ["a", "b"]), (3, ["a", "b", "late"])]
    assert [number for number, _, _ in stage.trainers["late"].trained] == [3]
    assert [r["participants"] for r in stage.records("open")] == [["a", "b"], ["a", "b"], ["a", "b", "late"]]
    stage.close()


def test_a_device_alone_starts_after_the_time_it_was_given_for_others_to_come(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.start_after_s=30.0"), [("a", ACCEL)])
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a"]), (2, ["a"]), (3, ["a"])]
    assert 90.0 <= stage.world.clock.now < 95.0
    stage.close()


def test_a_device_without_new_windows_sits_the_round_out_and_says_why(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.min_new_windows=5"), [("a", ACCEL), ("b", ACCEL)])
    stage.trainers["a"].seen = lambda evaluations: 10 + 5 * evaluations
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a", "b"]), (2, ["a"]), (3, ["a"])]
    said = [m for m in stage.sent("up", "state", "b") if m.phase == "skipped"]
    assert [(m.round, m.reason) for m in said] == [(n, "0 new windows since round 1, waits for 5") for n in (2, 3)]
    assert stage.world.clock.now < 1.0, "no round waited for who sits it out"
    stage.close()


def test_rounds_end_when_the_loss_has_not_fallen_for_as_many_rounds_as_the_schedule_says(tmp_path: Path) -> None:
    sets = ("schedule.stop_rounds=0", "schedule.stop_no_gain_rounds=2")
    stage = Stage(tmp_path, tiny(*sets), [("a", ACCEL), ("b", ACCEL)])
    for trainer in stage.trainers.values():
        trainer.loss = lambda calls: [9.0, 4.0, 3.0, 3.0, 3.5][min(calls, 5) - 1]
    stage.run()
    assert stage.state.round == 5
    assert stage.state.stop_reason == "no gain in 2 rounds"
    stage.close()


def test_paused_no_round_opens_and_resumed_the_federation_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(2)
    stage.world.service.control("pause")
    stage.run(lambda: stage.state.phase is Phase.WAITING)
    while stage.world.step():
        pass
    assert stage.state.round == 2, "the open round ends by its own rules"
    assert stage.agent("a").session.story.detail == "the federation is paused"
    stage.world.clock.now += 1000.0
    while stage.world.step():
        pass
    assert stage.state.round == 2
    stage.world.service.control("resume")
    stage.run()
    assert stage.state.round == 3
    stage.close()


def test_finish_lets_the_open_round_end_and_the_devices_stop(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=0"), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(2)
    stage.world.service.control("finish")
    stage.run()
    assert stage.state.round == 2
    assert stage.state.stop_reason == "operator"
    assert {a.stopped.reason for a in stage.world.agents} == {"the federation is finished"}
    stage.close()


def test_rounds_open_no_oftener_than_the_schedule_says_and_nobody_spins_meanwhile(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.every_s=600.0"), [("a", ACCEL), ("b", ACCEL)])
    start = datetime(2026, 1, 1)
    gate = Gate(
        stage.world.federation.schedule,
        local_time=lambda: start + timedelta(seconds=stage.world.clock.now),
        round_number=0,
    )
    stage.world.service._may_open = gate
    opened: dict[int, float] = {}

    def ended() -> bool:
        opened.setdefault(stage.state.round, stage.world.clock.now)
        return stage.state.running is Running.FINISHED

    steps = stage.count_steps(ended)
    assert opened[2] - opened[1] == pytest.approx(600.0, abs=3.0)
    assert stage.world.clock.now == pytest.approx(1200.0, abs=6.0)
    assert steps < 3000
    stage.close()


def test_two_tasks_share_one_encoder_and_keep_fusions_and_heads_at_home(tmp_path: Path) -> None:
    federation = load_federation("two-tasks", sets=["schedule.stop_rounds=2"])
    tasks = {"a": ("activity",), "b": ("speed",)}
    stage = Stage(tmp_path, federation, [("a", ACCEL), ("b", ACCEL)], tasks=tasks)
    stage.run()
    assert set(stage.versions()) == {"encoder/accel"}
    assert stage.members("encoder/accel") == [(1, ["a", "b"]), (2, ["a", "b"])]
    assert {m.block for d in "ab" for m in stage.sent("up", "offer", d)} == {"encoder/accel"}
    assert sorted(map(str, stage.trainers["a"].trained[0][2])) == [
        "encoder/accel", "fusion/activity", "fusion/activity.accel", "head/activity",
    ]  # fmt: skip
    assert "head/speed" in map(str, stage.trainers["b"].trained[0][2])
    first, of_a, of_b = first_of(stage, "encoder/accel"), *(delta_of(stage, d, "encoder/accel", 1) for d in "ab")
    mean = {n: (10.0 * of_a[n].astype(np.float64) + 10.0 * of_b[n].astype(np.float64)) / 20.0 for n in first}
    expected, _ = Avg(1.0).apply(first, mean, Avg(1.0).init(first))
    base_of_round_2 = stage.trainers["a"].trained[1][1][BlockId.parse("encoder/accel")]
    assert all(base_of_round_2[n].tobytes() == v.tobytes() for n, v in expected.items())
    stage.close()


def test_private_blocks_go_on_from_where_the_device_left_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.run()
    head = BlockId.parse("head/har")
    rounds = stage.trainers["a"].trained
    for (_, _, after), (_, before, _) in pairwise(rounds):
        assert all(np.array_equal(before[head][n], v) for n, v in after[head].items())
    shape = rounds[0][1][head]["layers.0.bias"].shape
    grown = rounds[0][2][head]["layers.0.bias"] - rounds[0][1][head]["layers.0.bias"]
    assert np.allclose(grown, noise("a", 1, head, shape, "layers.0.bias"), rtol=0, atol=1e-6)
    stage.close()


def test_what_retention_lets_go_of_is_never_needed_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=6"), [("a", ACCEL), ("b", ACCEL)])
    stage.world.service._retention_rounds = 1
    stage.until_round(4)
    stage.add("late", BOTH)
    stage.run(lambda: len(stage.records("commit")) == 5)
    folder = tmp_path / "gateway"
    kept = {r["sha256"] for r in stage.records("accept") if r["round"] == 5}
    assert {p.name for p in (folder / "spool").iterdir()} == kept
    stage.restart_gateway()
    stage.run()
    assert stage.members("encoder/accel")[-1] == (6, ["a", "b", "late"])
    value_of(stage, "encoder/accel")
    stage.close()
