"""What is refused, of which type, with which figures; and what gets its receipt again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.learning import tiny
from support.machine import ACCEL, BYTES, GYRO, hello, make_machine, name_of, offer, opened

from aggregator.admission import Kept, Refused, judge, judge_norm
from aggregator.round_machine import RoundMachine
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId

A = DeviceId("a")


@pytest.fixture
def machine() -> RoundMachine:
    """Round 1 is open for a (accel) and c (both); its deadline is at 120 s."""
    federation = tiny("schedule.stop_rounds=0", "rounds.deadline_s=120.0")
    machine, _ = opened(("a", ("accel",)), ("c", ("accel", "gyro")), federation=federation)
    return machine


def verdict(machine: RoundMachine, *, device: str = "a", now: float = 1.0, **changes: Any) -> Kept | Refused | None:
    key = changes.pop("key", ACCEL)
    number = changes.pop("number", 1)
    made = offer(device, number, key, **changes)
    return judge(machine.state, DeviceId(device), made, expected_bytes=BYTES, now=now)


def test_an_update_as_the_plan_asks_for_may_come(machine: RoundMachine) -> None:
    assert verdict(machine) is None
    assert verdict(machine, device="c", key=GYRO) is None


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"epoch": 2}, "stale", "epoch 2, this federation is in epoch 1"),
        ({"number": 0}, "stale", "round 0 is over, round 1 is open"),
        ({"number": 2}, "stale", "round 2 is over, round 1 is open"),
        ({"now": 120.0}, "late", "round 1 is frozen"),
        ({"key": GYRO}, "policy", "a (accel) does not own encoder/gyro"),
        ({"key": BlockKey.parse("encoder/ecg")}, "policy", "the federation has no block encoder/ecg"),
        ({"key": BlockKey.parse("head/har")}, "policy", "head/har is private: it must not leave the device"),
        ({"key": BlockKey.parse("encoder/accel@accel")}, "policy", "a (accel) does not own encoder/accel@accel"),
        ({"version": 3}, "stale", "encoder/accel: trained on version 3, the plan says 0"),
        ({"codec": "float16"}, "codec", "codec float16, the plan says float32"),
        ({"num_bytes": 401}, "size", "401 bytes, an update of encoder/accel has 400"),
    ],
)
def test_what_is_not_as_planned_is_refused_by_type_and_with_figures(
    machine: RoundMachine, changes: dict[str, Any], kind: str, words: str
) -> None:
    found = verdict(machine, **changes)
    assert isinstance(found, Refused)
    assert (found.type, found.reason) == (kind, words)


def test_a_device_that_came_after_the_opening_waits_for_the_next_plan(machine: RoundMachine) -> None:
    machine.hello(DeviceId("late"), hello("late"), 1.0)
    assert verdict(machine, device="late") == Refused(
        "policy", "late came after round 1 had opened", "wait for the next plan"
    )


def test_the_same_update_again_gets_its_receipt_again_even_when_the_round_is_over(machine: RoundMachine) -> None:
    for device, key in (("a", ACCEL), ("c", ACCEL), ("c", GYRO)):
        machine.update(DeviceId(device), offer(device, 1, key), b"", norm=1.0, now=1.0)
    assert machine.state.phase.value == "frozen"
    assert isinstance(verdict(machine, now=500.0), Kept)
    machine.state.apply({"type": "commit", "round": 1, "blocks": {}, "score": {}, "stop": ""})
    assert isinstance(verdict(machine), Kept)


def test_another_content_for_an_update_that_is_kept_is_a_conflict_and_the_first_counts(machine: RoundMachine) -> None:
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    found = verdict(machine, sha256=name_of("other"))
    assert found == Refused(
        "conflict", "encoder/accel of round 1 is kept already, with other content", "the first counts"
    )


def test_an_update_of_the_round_that_has_just_ended_is_late_not_stale(machine: RoundMachine) -> None:
    machine.state.apply({"type": "commit", "round": 1, "blocks": {}, "score": {}, "stop": ""})
    found = verdict(machine)
    assert isinstance(found, Refused)
    assert (found.type, found.reason) == ("late", "round 1 is over, the next is not open yet")
    machine.state.apply({"type": "running", "value": "finished", "reason": "3 rounds"})
    found = verdict(machine)
    assert isinstance(found, Refused)
    assert found.reason == "round 1 is over, the federation is finished (3 rounds)"


def accept(number: int, norm: float) -> dict[str, Any]:
    return {
        "type": "accept", "device": "a", "block": "encoder/accel", "round": number, "sha256": name_of(number),
        "codec": "float32", "base_version": 0, "num_samples": 1, "num_steps": 1, "norm": norm, "sequence": number,
    }  # fmt: skip


def test_a_norm_more_than_twenty_times_the_median_is_refused_once_there_is_a_history() -> None:
    few = make_machine(records=[accept(n, 2.0) for n in range(1, 8)]).state
    assert judge_norm(few, ACCEL, 1e9) is None, "seven updates are no history yet"
    state = make_machine(records=[accept(n, 2.0) for n in range(1, 9)]).state
    assert judge_norm(state, ACCEL, 40.0) is None
    assert judge_norm(state, GYRO, 1e9) is None
    found = judge_norm(state, ACCEL, 50.0)
    assert found is not None
    assert found.type == "norm"
    assert found.reason == "norm 50 is 25 times the median 2 of encoder/accel (limit 20)"


def test_after_a_time_with_nothing_to_learn_real_updates_pass_and_wild_ones_do_not() -> None:
    """Boards that had one class alone sent zeros; then the second class comes."""
    state = make_machine(records=[accept(n, 0.0) for n in range(1, 41)]).state
    quiet = 0.002 * math.sqrt(state.spec[ACCEL.block].num_values)
    assert judge_norm(state, ACCEL, 0.0) is None
    assert judge_norm(state, ACCEL, 19.9 * quiet) is None
    found = judge_norm(state, ACCEL, 21 * quiet)
    assert found is not None
    assert (
        found.reason
        == f"norm {21 * quiet:.4g} is 21 times that of a quiet update, {quiet:.4g} of encoder/accel (limit 20)"
    )


def test_only_the_last_32_norms_count() -> None:
    state = make_machine(records=[accept(n, 1.0 if n <= 40 else 100.0) for n in range(1, 73)]).state
    assert len(state.norms[ACCEL]) == 32
    assert judge_norm(state, ACCEL, 1999.0) is None


def refused_round(number: int, refused: dict[str, str], members: list[str]) -> dict[str, Any]:
    block = {
        "version": 0, "sha256": name_of(0), "cast_sha256": name_of(0), "members": members, "held": "",
        "refused": refused,
    }  # fmt: skip
    return {"type": "commit", "round": number, "blocks": {"encoder/accel": block}, "score": {}, "stop": ""}


def device(name: str) -> dict[str, Any]:
    facts = {"profile": "test", "modalities": ["accel"], "tasks": [], "role": "train"}
    return {"type": "device", "device": name, "key": name_of(name), **facts}


def test_norms_that_most_owners_have_outgrown_are_forgotten_after_three_rounds_in_a_row() -> None:
    records = [*map(device, "abc"), *(accept(n, 1.0) for n in range(1, 9))]
    most = {"a": "norm", "b": "norm"}
    twice = [*records, refused_round(9, most, ["c"]), refused_round(10, most, ["c"])]
    assert judge_norm(make_machine(records=twice).state, ACCEL, 30.0) is not None
    assert judge_norm(make_machine(records=[*twice, refused_round(11, most, ["c"])]).state, ACCEL, 30.0) is None
    between = [*twice, refused_round(11, {}, ["a"]), refused_round(12, most, ["c"])]
    assert judge_norm(make_machine(records=between).state, ACCEL, 30.0) is not None, "not in a row"


def test_a_single_device_cannot_make_a_gateway_forget_the_norms_of_the_others() -> None:
    alone, other = {"a": "norm"}, {"a": "norm", "b": "nonfinite"}
    for names, refused in (("ab", alone), ("abc", alone), ("ab", other)):
        records = [*map(device, names), *(accept(n, 1.0) for n in range(1, 9))]
        records += [refused_round(n, refused, []) for n in range(9, 40)]
        assert judge_norm(make_machine(records=records).state, ACCEL, 30.0) is not None
