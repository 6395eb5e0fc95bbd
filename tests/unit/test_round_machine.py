"""The rules of a round, event by event: who is greeted, when it opens, what it waits for, how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from support.learning import tiny
from support.machine import ACCEL, BYTES, GYRO, bye, hello, make_machine, name_of, offer, opened, said, settle

from aggregator.rounds import (
    Aggregate,
    Command,
    Confirm,
    Forget,
    Greet,
    Keep,
    Phase,
    Publish,
    Receive,
    Record,
    Running,
    Send,
)
from blossom_edge.codec.messages import Plan, Refusal, Reject
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId

A, B, C = map(DeviceId, "abc")
ONE, BOTH = ("accel",), ("accel", "gyro")


def kinds(commands: list[Command]) -> list[str]:
    return [type(c).__name__ for c in commands]


def only(commands: list[Command], kind: type) -> Any:
    (found,) = [c for c in commands if isinstance(c, kind)]
    return found


def test_a_new_device_is_written_down_then_greeted() -> None:
    machine = make_machine()
    commands = machine.hello(A, hello("a"), 0.0)
    assert kinds(commands) == ["Record", "Greet"]
    assert commands[0].record["type"] == "device"
    assert machine.state.members[A].online


def test_a_device_that_comes_back_unchanged_is_greeted_only() -> None:
    machine = make_machine()
    machine.hello(A, hello("a"), 0.0)
    assert kinds(machine.hello(A, hello("a", connection=2), 1.0)) == ["Greet"]
    assert kinds(machine.hello(A, hello("a", BOTH, connection=3), 2.0)) == ["Record", "Greet"]
    assert machine.state.keys_of(machine.state.members[A]) == (ACCEL, GYRO)


def test_a_hello_of_an_older_connection_is_ignored() -> None:
    machine = make_machine()
    machine.hello(A, hello("a", boot=2, connection=1), 0.0)
    assert machine.hello(A, hello("a", boot=1, connection=9), 1.0) == []


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"protocol_min": 2, "protocol_max": 3}, "protocol", "this gateway speaks protocol 1, the device 2 to 3"),
        ({"key": name_of("other")}, "key", "a is known here under another key"),
        ({"tasks": ("speed",)}, "federation", "no task speed here, there are har"),
        ({"modalities": ("ecg",)}, "unowned", "the federation learns from accel, gyro, a has ecg"),
    ],
)
def test_a_device_that_cannot_take_part_is_told_why(changes: dict[str, Any], kind: str, words: str) -> None:
    machine = make_machine()
    machine.hello(A, hello("a"), 0.0)
    (command,) = machine.hello(A, hello("a", **{"connection": 2, **changes}), 1.0)
    assert isinstance(command, Send)
    assert isinstance(command.message, Reject)
    assert (command.message.type, command.message.reason, command.message.final) == (kind, words, True)
    assert command.message.hint
    assert machine.refusals[f"hello-{kind}"] == 1


def test_a_round_opens_when_enough_devices_are_here() -> None:
    machine = make_machine(tiny("rounds.min_devices=2", "rounds.start_after_s=60.0"))
    machine.hello(A, hello("a"), 0.0)
    assert machine.tick(10.0) == []
    machine.hello(B, hello("b", BOTH), 20.0)
    commands = machine.tick(20.0)
    assert kinds(commands) == ["Record", "Send", "Send"]
    assert commands[0].record == {
        "type": "open",
        "round": 1,
        "participants": ["a", "b"],
        "blocks": {"encoder/accel": 0, "encoder/gyro": 0},
    }
    plans = {c.device: c.message for c in commands if isinstance(c, Send)}
    assert [b.block for b in plans[A].blocks] == ["encoder/accel"]
    assert [b.block for b in plans[B].blocks] == ["encoder/accel", "encoder/gyro"]
    assert plans[A].remaining_s == 120.0


def test_fewer_devices_start_when_the_time_for_others_is_over() -> None:
    machine = make_machine(tiny("rounds.min_devices=3", "rounds.start_after_s=60.0"))
    machine.hello(A, hello("a"), 5.0)
    assert machine.next_due(5.0) == 65.0
    assert machine.tick(64.9) == []
    assert kinds(machine.tick(65.0)) == ["Record", "Send"]


def test_the_time_for_others_begins_anew_when_everybody_had_gone() -> None:
    machine = make_machine(tiny("rounds.min_devices=3", "rounds.start_after_s=60.0"))
    machine.hello(A, hello("a"), 0.0)
    machine.bye(A, bye(), 50.0)
    assert machine.next_due(50.0) is None
    machine.hello(A, hello("a", connection=2), 70.0)
    assert machine.tick(129.0) == []
    assert machine.tick(130.0)


def test_devices_that_only_infer_are_greeted_and_do_not_take_part() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    infer = make_machine(tiny("rounds.min_devices=1"))
    infer.hello(A, hello("a", role="infer"), 0.0)
    assert infer.tick(1000.0) == []
    assert machine.state.current is not None


def test_nothing_opens_while_the_schedule_says_no() -> None:
    machine = make_machine(tiny("rounds.min_devices=1"))
    machine.hello(A, hello("a"), 0.0)
    assert machine.tick(1.0, may_open=False) == []
    assert machine.tick(1.0, may_open=True)


def test_an_offer_is_received_then_kept_and_the_last_one_freezes_the_round() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    assert machine.offer(A, offer("a", 1), 1.0) == [Receive(A, offer("a", 1))]
    assert kinds(machine.update(A, offer("a", 1), b"x", norm=1.0, now=2.0)) == ["Keep"]
    commands = settle(machine, machine.update(B, offer("b", 1), b"y", norm=2.0, now=3.0), 3.0)
    assert kinds(commands) == ["Keep", "Record", "Aggregate", "Record", "Forget", "Publish"]
    kept = only(commands, Keep)
    assert (kept.data, kept.record["norm"], kept.record["sequence"]) == (b"y", 2.0, 10)
    freeze, commit = (c.record for c in commands if isinstance(c, Record))
    assert freeze == {"type": "freeze", "round": 1, "members": {"encoder/accel": ["a", "b"]}}
    assert commit["blocks"]["encoder/accel"]["members"] == ["a", "b"]
    assert only(commands, Publish).outcomes[ACCEL].version.number == 1
    assert only(commands, Forget).round == 1
    assert machine.state.phase is Phase.WAITING


def test_members_are_averaged_in_device_order_however_they_came() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE), ("c", ONE))
    for device in (C, A):
        machine.update(device, offer(device, 1), b"", norm=1.0, now=1.0)
    command = only(machine.update(B, offer("b", 1), b"", norm=1.0, now=1.0), Aggregate)
    assert [a.device for a in command.members[ACCEL]] == ["a", "b", "c"]


def test_an_update_that_comes_twice_is_confirmed_twice_and_counted_once() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    again = offer("a", 1, sequence=77)
    assert machine.offer(A, again, 2.0) == [Confirm(A, again)]
    assert machine.update(A, again, b"", norm=1.0, now=2.0) == [Confirm(A, again)]
    assert len(machine.state.current.accepted) == 1


def test_an_offer_of_somebody_unknown_is_ignored() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    assert machine.offer(DeviceId("x"), offer("x", 1), 1.0) == []


def test_what_is_refused_for_good_is_not_awaited_any_more_what_may_come_again_is() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    (sent,) = machine.refuse(B, offer("b", 1), "hash", "it arrived broken", now=2.0, final=False)
    assert isinstance(sent.message, Refusal)
    assert machine.state.phase is Phase.OPEN
    commands = machine.refuse(B, offer("b", 1), "nonfinite", "NaN in the update", now=3.0)
    assert kinds(commands) == ["Send", "Record", "Aggregate"]
    assert machine.refused[B].reason == "NaN in the update"
    assert machine.refusals == {"hash": 1, "nonfinite": 1}


def test_an_update_of_the_wrong_size_is_refused_with_both_sizes() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    (sent,) = machine.offer(A, offer("a", 1, num_bytes=BYTES + 4), 1.0)
    assert (sent.message.type, sent.message.final) == ("size", True)
    assert sent.message.reason == "404 bytes, an update of encoder/accel has 400"


def test_at_the_deadline_the_round_ends_with_what_there_is() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    assert machine.next_due(1.0) == 120.0
    assert machine.tick(119.9) == []
    commands = settle(machine, machine.tick(120.0), 120.0)
    assert only(commands, Publish).outcomes[ACCEL].members == ("a",)


def test_a_device_that_is_gone_is_waited_for_only_as_long_as_it_has_to_rejoin() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    assert machine.bye(B, bye(), 10.0) == []
    assert machine.next_due(10.0) == 15.0
    assert machine.tick(14.9) == []
    assert kinds(machine.tick(15.0)) == ["Record", "Aggregate"]


def test_a_device_that_rejoins_in_time_gets_the_plan_with_what_remains() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.bye(B, bye(), 10.0)
    commands = machine.hello(B, hello("b", connection=2), 14.0)
    assert kinds(commands) == ["Greet", "Send"]
    plan = only(commands, Send).message
    assert isinstance(plan, Plan)
    assert (plan.round, plan.remaining_s) == (1, 106.0)
    assert isinstance(only(commands, Greet), Greet)


def test_a_will_of_an_older_connection_does_not_send_a_device_away() -> None:
    machine = make_machine()
    machine.hello(A, hello("a", connection=2), 0.0)
    assert machine.bye(A, bye(connection=1), 1.0) == []
    assert machine.state.members[A].online
    machine.bye(A, bye(connection=2), 1.0)
    assert not machine.state.members[A].online


def test_who_skips_the_round_or_has_no_windows_of_a_modality_is_not_awaited() -> None:
    machine, _ = opened(("a", BOTH), ("b", ONE))
    machine.device_state(A, said(1, present=("accel",)), 1.0)
    assert machine.state.awaited(1.0) == {"a": (ACCEL,), "b": (ACCEL,)}
    assert machine.state.current.settled == {(GYRO, "a"): "no gyro windows"}
    machine.device_state(B, said(1, "skipped", reason="no labelled windows yet"), 2.0)
    assert machine.state.awaited(2.0) == {"a": (ACCEL,)}
    commands = settle(machine, machine.update(A, offer("a", 1), b"", norm=1.0, now=3.0), 3.0)
    outcomes = only(commands, Publish).outcomes
    assert (outcomes[ACCEL].members, outcomes[GYRO].held) == (("a",), "nobody trained it")


def test_a_state_that_was_seen_already_or_is_older_changes_nothing() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.device_state(A, said(1, sequence=5, present=ONE, loss=2.0), 1.0)
    for sequence in (5, 4):
        assert machine.device_state(A, said(1, "skipped", sequence=sequence), 2.0) == []
    assert machine.state.members[A].phase == "training"
    assert "a" in machine.state.awaited(2.0)


def test_after_a_round_in_which_nobody_sent_anything_the_next_waits_a_little() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.device_state(A, said(1, "skipped"), 1.0)
    commands = settle(machine, machine.device_state(B, said(1, "skipped"), 2.0), 2.0)
    assert only(commands, Publish).outcomes[ACCEL].held == "nobody trained it"
    assert machine.tick(6.9) == []
    assert machine.next_due(2.0) == 7.0
    assert machine.tick(7.0)


def test_the_score_of_a_round_is_that_of_its_participants_for_its_base() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.device_state(A, said(1, present=ONE, loss=2.0), 1.0)
    machine.device_state(B, said(0, present=ONE, loss=9.0), 1.0)
    commands = settle(machine, machine.tick(120.0), 120.0)
    commit = [c.record for c in commands if isinstance(c, Record)][-1]
    assert commit["score"] == {"har.loss": [2.0, 1.0]}


def round_of(machine: Any, number: int, loss: float) -> list[Command]:
    """One whole round of a and b, with this loss of its base."""
    now = 10.0 * number
    machine.tick(now)
    for device in "ab":
        machine.device_state(DeviceId(device), said(number, sequence=100 * number, present=ONE, loss=loss), now)
    commands: list[Command] = []
    for device in "ab":
        made = offer(device, number, version=number - 1, sequence=100 * number + 1)
        commands += settle(machine, machine.update(DeviceId(device), made, b"", norm=1.0, now=now), now)
    return commands


def test_the_last_round_and_the_end_of_the_federation_are_one_record() -> None:
    federation = tiny("schedule.stop_rounds=2")
    machine, _ = opened(("a", ONE), ("b", ONE), federation=federation)
    round_of(machine, 1, 1.0)
    assert machine.state.running is Running.YES
    commands = round_of(machine, 2, 1.0)
    last = [c.record for c in commands if isinstance(c, Record)][-1]
    assert (last["type"], last["stop"]) == ("commit", "2 rounds")
    assert machine.state.running is Running.FINISHED
    assert machine.tick(1000.0) == []


@pytest.mark.parametrize(
    ("losses", "stops"),
    [([3.0, 2.0, 2.0, 2.5], True), ([3.0, 2.0, 2.5, 1.9], False), ([3.0, 3.0, 3.0], True), ([3.0, 3.0], False)],
)
def test_no_gain_means_that_the_best_of_the_last_rounds_is_no_better_than_the_best_before(
    losses: list[float], stops: bool
) -> None:
    federation = tiny("schedule.stop_rounds=0", "schedule.stop_no_gain_rounds=2")
    machine, _ = opened(("a", ONE), ("b", ONE), federation=federation)
    for number, loss in enumerate(losses, 1):
        assert machine.state.running is Running.YES
        round_of(machine, number, loss)
    assert (machine.state.running is Running.FINISHED) == stops
    assert machine.state.stop_reason == ("no gain in 2 rounds" if stops else "")


def test_what_is_finished_cannot_be_paused_but_resumed() -> None:
    machine = make_machine()
    assert kinds(machine.control("finish", 0.0)) == ["Record", "Publish"]
    assert machine.control("pause", 1.0) == []
    assert machine.control("finish", 1.0) == []
    machine.control("resume", 2.0)
    assert machine.state.running is Running.YES


def test_a_device_is_forgotten_only_between_rounds() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    assert machine.forget(A) == []
    settle(machine, machine.tick(120.0), 120.0)
    assert kinds(machine.forget(A)) == ["Record"]
    assert machine.forget(A) == []
    assert kinds(machine.hello(A, hello("a", key=name_of("new"), connection=1), 130.0)) == ["Record", "Greet"]


def test_a_restarted_machine_gives_an_open_round_its_full_time_again() -> None:
    _, commands = opened(("a", ONE), ("b", ONE))
    records = [
        {"type": "device", "device": d, "key": name_of("key", d), "profile": "test", "modalities": ["accel"],
         "tasks": [], "role": "train"} for d in "ab"
    ]  # fmt: skip
    records += [c.record for c in commands if isinstance(c, Record)]
    again = make_machine(records=records)
    assert [c.record for c in again.resume(1000.0)] == [{"type": "reopen", "round": 1}]
    assert again.state.current.deadline == 1120.0
    assert again.tick(1004.0) == []
    for device in "ab":
        again.hello(DeviceId(device), hello(device, connection=2), 1004.0)
    assert again.tick(1010.0) == [], "they are here and awaited"


def test_a_frozen_round_is_averaged_after_a_restart_and_a_committed_one_told_again() -> None:
    machine, commands = opened(("a", ONE), ("b", ONE))
    records = [c.record for c in commands if isinstance(c, Record)]
    for device in "ab":
        commands = settle(machine, machine.update(DeviceId(device), offer(device, 1), b"", norm=1.0, now=1.0), 1.0)
        records += [c.record for c in commands if isinstance(c, Record | Keep)]
    frozen = make_machine(records=records[:-1])
    (command,) = frozen.resume(5.0)
    assert isinstance(command, Aggregate)
    assert [a.device for a in command.members[ACCEL]] == ["a", "b"]
    (told,) = make_machine(records=records).resume(5.0)
    assert isinstance(told, Publish)
    assert told.outcomes[ACCEL].version == machine.state.version(ACCEL)


def test_cohort_copies_of_a_block_are_apart() -> None:
    federation = tiny("blocks.encoder/accel.visibility=cohort", "schedule.stop_rounds=0")
    machine, _ = opened(("a", ONE), ("b", BOTH), ("c", BOTH), federation=federation)
    alone, both = BlockKey.parse("encoder/accel@accel"), BlockKey.parse("encoder/accel@accel.gyro")
    assert set(machine.state.current.blocks) == {alone, both, GYRO}
    for device, key in ((A, alone), (B, both), (C, both), (B, GYRO)):
        machine.update(device, offer(device, 1, key), b"", norm=1.0, now=1.0)
    command = only(machine.update(C, offer("c", 1, GYRO), b"", norm=1.0, now=1.0), Aggregate)
    assert {k: [a.device for a in found] for k, found in command.members.items()} == {
        alone: ["a"], both: ["b", "c"], GYRO: ["b", "c"],
    }  # fmt: skip


def test_aggregated_without_a_frozen_round_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no round is frozen"):
        make_machine().aggregated({}, 0.0)
