"""What is in use, before it, pinned and refused: each change by hand, and model.json there and back."""

from __future__ import annotations

import json

import pytest

from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.errors import ConfigError
from blossom_edge.inference.generation import Used
from blossom_edge.inference.model_state import MAX_REFUSED, Kept, ModelState, Trial, read_state

A, B = BlockKey(BlockId.parse("encoder/accel")), BlockKey(BlockId.parse("head/har"), "accel.gyro")


def used(version: int) -> Used:
    return Used(version, f"{version:064x}")


def at(state: ModelState, a: int, b: int, *, boot: int = 1, stamp: str = "") -> ModelState:
    return state.exchange({A: used(a), B: used(b)}, head_number=0, heads={}, boot=boot, stamp=stamp)


def versions(kept: Kept | None) -> list[int]:
    return [] if kept is None else [kept.versions[key].version for key in (A, B)]


def test_an_exchange_numbers_on_and_keeps_what_was_in_use_as_the_one_before() -> None:
    state = at(at(ModelState(), 1, 1, stamp="t1"), 2, 1, boot=7, stamp="t2")
    assert (state.number, versions(state.in_use), versions(state.previous)) == (2, [2, 1], [1, 1])
    assert state.trial == Trial(2, (7,))
    assert state.since == {A: "t2", B: "t1"}


def test_a_rollback_goes_back_under_a_new_number_and_refuses_what_it_left() -> None:
    state = at(at(ModelState(), 1, 1), 2, 2).roll_back(None, "bad", by="person", boots=(3,))
    assert (state.number, versions(state.in_use), state.previous) == (3, [1, 1], None)
    assert [(r.key, r.used, r.reason, r.by) for r in state.refused] == [
        (A, used(2), "bad", "person"), (B, used(2), "bad", "person")
    ]  # fmt: skip
    assert state.trial == Trial(3, (3,))
    with pytest.raises(ConfigError, match="no version before the one in use"):
        state.roll_back(None, "again", by="person")


def test_a_rollback_of_one_block_leaves_the_others_and_their_way_back() -> None:
    state = at(at(ModelState(), 1, 1), 2, 2).roll_back([A], "bad", by="person")
    assert (versions(state.in_use), versions(state.previous)) == ([1, 2], [1, 1])
    assert state.refusal(A, used(2)) is not None
    assert state.refusal(B, used(2)) is None
    state = state.roll_back([B], "bad too", by="person")
    assert (versions(state.in_use), state.previous) == ([1, 1], None)


def test_a_block_that_did_not_change_or_is_pinned_is_not_rolled_back() -> None:
    state = at(at(ModelState(), 1, 1), 2, 1)
    with pytest.raises(ConfigError, match=r"head/har@accel\.gyro: no version before"):
        state.roll_back([B], "no", by="person")
    with pytest.raises(ConfigError, match="encoder/accel is pinned to version 2") as refused:
        state.pin(A).roll_back(None, "no", by="person")
    assert "blocks pin --off encoder/accel" in refused.value.hint


def test_own_heads_go_back_with_all_blocks_and_stay_when_some_do() -> None:
    state = ModelState()
    for number, version in ((1, 1), (2, 2)):
        blocks = {A: used(version), B: used(version)}
        state = state.exchange(blocks, head_number=number, heads={"har": "f" * 64}, boot=1, stamp="")
    assert state.next_head_number == 3
    whole = state.roll_back(None, "bad", by="person").in_use
    part = state.roll_back([A], "bad", by="person").in_use
    assert whole is not None
    assert part is not None
    assert (whole.head_number, part.head_number) == (1, 2)


def test_the_third_start_after_an_exchange_that_never_proved_itself_restores_the_one_before() -> None:
    state = at(at(ModelState(), 1, 1).prove(), 2, 2, boot=5)  # killed
    state = state.start(6)  # killed
    state = state.start(7)  # killed
    assert state.trial == Trial(2, (5, 6, 7))
    state = state.start(8)
    assert (state.number, versions(state.in_use), state.previous) == (3, [1, 1], None)
    assert {(r.by, r.reason) for r in state.refused} == {("crash-loop", "crash loop: 3 starts without 10 predictions")}
    assert state.trial == Trial(3, (8,)), "what is restored is on trial, too"


def test_clean_ends_and_proof_are_no_crashes() -> None:
    state = at(at(ModelState(), 1, 1), 2, 2, boot=5)
    for boot in range(6, 20):
        state = state.end().start(boot)
    assert versions(state.in_use) == [2, 2]
    state = state.prove()
    for boot in range(20, 40):
        state = state.start(boot)
    assert (versions(state.in_use), state.trial) == ([2, 2], None)


def test_the_same_start_counts_once() -> None:
    state = at(ModelState(), 1, 1, boot=5)
    assert state.start(5).start(5) == state


def test_a_first_model_in_a_crash_loop_leaves_nothing_in_use() -> None:
    state = at(ModelState(), 1, 1, boot=1).start(2).start(3).start(4)
    assert (state.in_use, state.trial) == (None, None)
    assert [(r.key, r.used) for r in state.refused] == [(A, used(1)), (B, used(1))]
    assert at(state, 2, 2).number == 3, "numbers go on"


def test_a_crash_loop_is_stronger_than_a_pin() -> None:
    state = at(at(ModelState(), 1, 1), 2, 1, boot=1).pin(A).pin(B).start(2).start(3).start(4)
    assert versions(state.in_use) == [1, 1]
    assert state.pinned == {B: used(1)}


def test_to_let_go_of_a_block_gives_its_refused_versions_another_chance() -> None:
    state = at(at(ModelState(), 1, 1), 2, 2).roll_back(None, "bad", by="person").pin(A).unpin(A)
    assert state.pinned == {}
    assert [r.key for r in state.refused] == [B]


def test_only_what_is_in_use_can_be_pinned() -> None:
    with pytest.raises(ConfigError, match="encoder/accel is not in use"):
        ModelState().pin(A)


def test_refusals_are_kept_to_a_number_and_the_newest_stay() -> None:
    state = ModelState()
    for version in range(MAX_REFUSED + 10):
        state = state.refuse({A: used(version)}, "no", by="check")
    state = state.refuse({A: used(30)}, "once more", by="canary")
    assert len(state.refused) == MAX_REFUSED
    assert state.refused[-1].reason == "once more"
    assert [r.used.version for r in state.refused].count(30) == 1


def test_what_cannot_be_read_is_replaced_by_the_one_before_or_by_nothing_and_not_refused() -> None:
    state = at(at(ModelState(), 1, 1), 2, 2)
    state = state.lose()
    assert (versions(state.in_use), state.previous, state.refused, state.number) == ([1, 1], None, (), 3)
    assert state.lose().in_use is None


def test_model_json_says_it_all_and_is_read_back_as_it_was() -> None:
    state = at(at(ModelState(), 1, 1, stamp="2026-03-01T10:00:00+00:00"), 2, 2, boot=4)
    state = state.new_heads(3, {"har": "a" * 64}).pin(B).refuse({A: used(9)}, "NaN", by="check")
    data = state.to_json()
    assert read_state(data) == state
    assert read_state(ModelState().to_json()) == ModelState()
    values = json.loads(data)
    assert values["in_use"]["encoder/accel"] == {"version": 2, "sha256": f"{2:064x}"}
    assert values["previous"]["blocks"]["head/har@accel.gyro"]["version"] == 1
    assert values["refused"] == [
        {"key": "encoder/accel", "version": 9, "sha256": f"{9:064x}", "reason": "NaN", "by": "check"}
    ]
    assert (values["schema"], values["number"], values["head_number"], values["trial"]) == (
        1, 2, 3, {"number": 2, "boots": [4]}
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"number": -1}, {"number": "1"}, {"in_use": {"nonsense": {"version": 1, "sha256": "a" * 64}}},
        {"in_use": {"encoder/accel": {"version": 1, "sha256": "../../etc/passwd"}}}, {"in_use": []},
        {"heads": {"../x": "a" * 64}}, {"trial": {"number": 1, "boots": "12"}}, {"refused": [{}]}, {"since": None},
    ],
)  # fmt: skip
def test_a_model_json_with_something_else_in_it_is_refused(change: dict[str, object]) -> None:
    values = json.loads(at(ModelState(), 1, 1).to_json()) | change
    with pytest.raises(ValueError, match=r"."):
        read_state(json.dumps(values).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 1}', b'{"schema": 1, "number"', b"\xff\xfe"])
def test_a_damaged_model_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_state(data)
