"""A device's part of a federation, message by message: what it says, keeps, fetches, trains and stops for."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from support.learning import tiny
from support.machine import ACCEL, name_of

from blossom_edge.client.actions import (
    Action,
    Adopt,
    Checkpoint,
    DeviceFacts,
    Evaluate,
    Held,
    KeepBlock,
    KeepCheckpoint,
    Publish,
    Stop,
    Subscribe,
    Work,
)
from blossom_edge.client.session import HELLO_S, LONGEST_HELLO_S, Session
from blossom_edge.codec import messages
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.errors import ConfigError, LinkError
from blossom_edge.core.metrics import Metric
from blossom_edge.core.training import TrainResult
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

FEDERATION = tiny()
SPEC = FEDERATION.spec[ACCEL.block]
FACTS = DeviceFacts("a", 1, "0" * 64, "test", "0" * 64, ("accel",))


def version(number: int) -> tuple[bytes, str]:
    """A version of the encoder as it is cast, and its hash. Version 0 is the one the device makes itself."""
    values = initial_block(SPEC, FEDERATION.digest, FEDERATION.seed)
    data = make_codec("float32").encode({n: v + np.float32(number) for n, v in values.items()}, SPEC)
    return data, hashlib.sha256(data).hexdigest()


def welcome(number: int = 0, *, federation: Federation = FEDERATION, known: bool = False, **changes: Any) -> Any:
    held = messages.HeldBlock(block="encoder/accel", version=number, sha256=version(number)[1])
    facts: dict[str, Any] = {
        "key": "0" * 64, "protocol": 1, "epoch": 1, "round": number, "running": "waiting",
        "federation_digest": federation.digest, "federation": None if known else federation.to_dict(),
        "versions": (held,), "sequence": 0, "ledger_seq": 5, "ledger_hash": "0" * 64, "boot": 1, "come_back_s": 0.0,
    }  # fmt: skip
    return messages.Welcome(**{**facts, **changes})


def plan(number: int, base: int = 0, *, remaining_s: float = 100.0, **changes: Any) -> messages.Plan:
    block = messages.PlannedBlock(block="encoder/accel", version=base, sha256=version(base)[1], quorum=1, min_cohort=1)
    training = FEDERATION.local_training(number)
    facts: dict[str, Any] = {
        "epoch": 1, "round": number, "remaining_s": remaining_s, "blocks": (block,), "codec": "float32",
        "training": messages.PlannedTraining.model_validate({f: getattr(training, f) for f in training.__slots__}),
        "min_new_windows": 0,
    }  # fmt: skip
    return messages.Plan(**{**facts, **changes})


def commit(number: int, made: int, *, members: tuple[str, ...] = ("a", "b"), **changes: Any) -> messages.Commit:
    block = messages.CommittedBlock(
        block="encoder/accel", version=made, sha256=version(made)[1], members=members, held="" if members else "few"
    )
    facts: dict[str, Any] = {
        "epoch": 1, "round": number, "blocks": (block,), "ledger_seq": 9, "ledger_hash": "0" * 64,
        "running": "waiting", "next_s": 0.0,
    }  # fmt: skip
    return messages.Commit(**{**facts, **changes})


def chunk(number: int) -> messages.CastChunk:
    data, sha = version(number)
    return messages.CastChunk(
        block="encoder/accel", version=number, codec="float32", sha256=sha, num_bytes=len(data), index=0, count=1,
        data=data,
    )  # fmt: skip


def receipt(offer: messages.Offer) -> messages.Receipt:
    return messages.Receipt(
        epoch=1, round=offer.round, block=offer.block, base_version=offer.base_version, sha256=offer.sha256,
        sequence=offer.sequence, ledger_seq=7, ledger_hash="0" * 64,
    )  # fmt: skip


def refusal(offer: messages.Offer, kind: Any, *, final: bool = True) -> messages.Refusal:
    return messages.Refusal(
        epoch=1, round=offer.round, block=offer.block, sha256=offer.sha256, type=kind, final=final, reason="because"
    )


def said(actions: list[Action], kind: type) -> list[Any]:
    return [a.message for a in actions if isinstance(a, Publish) and isinstance(a.message, kind)]


def kinds(actions: list[Action]) -> list[str]:
    return [type(a.message).__name__ if isinstance(a, Publish) else type(a).__name__ for a in actions]


def joined(number: int = 0, checkpoint: Checkpoint | None = None) -> Session:
    """A session that is welcome and has version 0."""
    session = Session(FACTS)
    session.connected(1, 0.0)
    session.received(welcome(number), 0.0)
    session.adopted(checkpoint, {}, 0.0)
    return session


def train(session: Session, now: float = 1.0, *, num_samples: int = 10) -> list[Action]:
    """What the agent does at `Work`: every block grows by one."""
    base = session.model()
    new = {block: {n: v + np.float32(1) for n, v in values.items()} for block, values in base.items()}
    result = TrainResult(new, dict.fromkeys(new, num_samples), 3, {})
    return session.trained(base, result, num_seen=num_samples, now=now)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_left_out_of_the_score_and_stops_nobody(loss: float) -> None:
    session = joined()
    score = {"har.accuracy": Metric(9.0, 60.0), "har.loss": Metric(loss, 60.0)}
    state = session.voice.state("evaluated", score, frozenset({"accel"}), round_number=1)
    assert state.score == {"har.accuracy": messages.MetricSum(total=9.0, count=60.0)}


def test_a_hello_without_an_answer_is_said_again_and_the_pause_doubles() -> None:
    session = Session(FACTS)
    assert kinds(session.connected(1, 0.0)) == ["Hello"]
    now, pauses = 0.0, []
    for _ in range(6):
        due = session.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert kinds(session.tick(now)) == ["Hello"]
    assert pauses == [HELLO_S, 10.0, 20.0, 40.0, LONGEST_HELLO_S, LONGEST_HELLO_S]


def test_a_welcome_brings_the_federation_its_topics_and_the_end_of_the_hellos() -> None:
    session = Session(FACTS)
    session.connected(1, 0.0)
    actions = session.received(welcome(), 0.0)
    assert actions == [Adopt(FEDERATION), Subscribe(ACCEL)]
    assert not session.welcomed, "not before the agent has found what an earlier run left"
    session.adopted(None, {}, 0.0)
    assert session.welcomed
    assert session.tick(1000.0) == []


def test_a_federation_that_does_not_have_the_digest_it_names_is_refused() -> None:
    session = Session(FACTS)
    session.connected(1, 0.0)
    with pytest.raises(ConfigError, match="does not have the digest"):
        session.received(welcome(federation_digest=name_of("other")), 0.0)


def test_a_gateway_that_runs_another_federation_now_stops_the_device() -> None:
    session = joined()
    (stop,) = session.received(welcome(federation=tiny("seed=9")), 1.0)
    assert isinstance(stop, Stop)
    assert stop.error is not None
    assert stop.error.error_id == "federation-changed"


def test_a_device_that_knows_the_federation_needs_not_be_sent_it_again() -> None:
    session = Session(FACTS, federation=FEDERATION)
    (hello,) = said(session.connected(1, 0.0), messages.Hello)
    assert hello.federation_digest == FEDERATION.digest
    assert Adopt(FEDERATION) in session.received(welcome(known=True), 0.0)


def test_a_final_no_ends_the_device_with_the_gateways_reason_another_makes_it_come_back() -> None:
    session = Session(FACTS)
    session.connected(1, 0.0)
    facts: dict[str, Any] = {"key": "0" * 64, "type": "quota", "reason": "too many", "hint": "wait"}
    assert session.received(messages.Reject(**facts, final=False, come_back_s=30.0), 1.0) == []
    assert session.next_due() == 31.0
    (stop,) = session.received(messages.Reject(**facts, final=True), 2.0)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, LinkError)
    assert (str(stop.error), stop.error.hint) == ("the gateway says no: too many", "wait")


def test_a_plan_on_versions_that_are_here_is_worked_on_at_once() -> None:
    assert joined().received(plan(1), 0.0) == [Work(1)]


def test_a_plan_waits_for_exactly_the_version_it_names() -> None:
    session = joined()
    assert session.received(plan(5, 4), 0.0) == []
    assert session.received(chunk(3), 1.0) == [], "another version does not do"
    keep, work = session.received(chunk(4), 2.0)
    assert keep == KeepBlock(ACCEL, Held(4, version(4)[1], version(4)[0]))
    assert work == Work(5)


def test_a_plan_whose_versions_do_not_come_in_time_is_given_up() -> None:
    session = joined()
    session.received(plan(5, 4, remaining_s=10.0), 0.0)
    session.tick(10.0)
    assert session.story.detail == "the round ended before its versions were here"
    assert kinds(session.received(chunk(4), 11.0)) == ["KeepBlock"], "kept for the next, but not worked on"


def test_the_checkpoint_is_written_before_anything_is_offered() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    actions = train(session)
    assert kinds(actions) == ["KeepCheckpoint", "Offer", "UploadChunk"]
    (keep,) = [a for a in actions if isinstance(a, KeepCheckpoint)]
    assert keep.checkpoint.round == 1
    assert sorted(map(str, keep.checkpoint.private)) == ["fusion/har", "fusion/har.accel", "head/har"]
    assert [str(u.key) for u in keep.checkpoint.outbox] == ["encoder/accel"]
    (offer,) = said(actions, messages.Offer)
    assert offer.sequence < keep.checkpoint.sequence, "a restart goes on behind every number that was used"


def test_a_round_that_was_trained_already_is_not_trained_again() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    assert "Work" not in kinds(session.received(plan(1, remaining_s=50.0), 30.0))
    restarted = joined(checkpoint=session.checkpoint)
    actions = restarted.received(plan(1), 0.0)
    assert "Work" not in kinds(actions)


def test_a_restarted_device_offers_what_was_in_its_outbox() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    restarted = Session(FACTS)
    restarted.connected(1, 0.0)
    restarted.received(welcome(), 0.0)
    actions = restarted.adopted(session.checkpoint, {}, 0.0)
    (offer,) = said(actions, messages.Offer)
    assert offer.sha256 == session.outbox.updates[0].sha256
    assert offer.sequence > session.checkpoint.sequence


def test_a_receipt_empties_the_outbox_and_that_is_written_down() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    (offer,) = said(train(session), messages.Offer)
    (keep,) = session.received(receipt(offer), 2.0)
    assert isinstance(keep, KeepCheckpoint)
    assert (keep.checkpoint.outbox, keep.checkpoint.ledger_seq) == ((), 7)
    assert session.story.sent == {"encoder/accel": "round 1: kept by the gateway"}
    assert session.received(receipt(offer), 3.0) == [], "again: nothing to do"


def test_a_final_refusal_ends_the_update_one_that_is_not_makes_it_come_again() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    (offer,) = said(train(session), messages.Offer)
    assert session.received(refusal(offer, "busy", final=False), 2.0) == []
    again = session.tick(4.0)
    assert kinds(again) == ["Offer", "UploadChunk"]
    assert kinds(session.received(refusal(offer, "norm"), 5.0)) == ["KeepCheckpoint"]
    assert session.story.sent == {"encoder/accel": "round 1: refused (norm): because"}
    assert session.tick(1000.0) == []


def test_a_commit_settles_an_update_whose_receipt_got_lost_and_names_what_became_of_the_block() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    session.received(commit(1, 1), 2.0)
    assert session.story.sent == {"encoder/accel": "round 1: counted"}
    assert session.story.outcomes == {"encoder/accel": "round 1: version 1 from 1 other and this device"}
    assert len(session.outbox) == 0
    assert session.downloads.missing() == (ACCEL,)


def test_a_commit_without_this_device_says_that_its_update_came_too_late() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    session.received(commit(1, 1, members=("b",)), 2.0)
    assert session.story.sent == {"encoder/accel": "round 1: too late, the round had ended"}


def test_a_commit_of_another_epoch_or_before_the_welcome_is_ignored() -> None:
    session = joined()
    assert session.received(commit(1, 1, epoch=2), 1.0) == []
    session.disconnected()
    assert session.received(commit(1, 1), 1.0) == []
    assert session.downloads.missing() == ()


def test_a_new_epoch_makes_the_device_forget_versions_and_outbox_but_not_its_private_blocks() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    private = session.checkpoint.private
    session.received(welcome(0, known=True, epoch=2), 5.0)
    assert len(session.outbox) == 0
    assert session.checkpoint.round == 0
    assert session.checkpoint.private is private
    assert session.downloads.held[ACCEL].version == 0


def test_a_finished_federation_is_evaluated_once_when_the_last_versions_are_here() -> None:
    session = joined()
    assert session.received(commit(3, 2, running="finished"), 1.0) == []
    actions = session.received(chunk(2), 2.0)
    assert kinds(actions) == ["KeepBlock", "Evaluate"]
    assert actions[-1] == Evaluate(3)
    state, stop = session.evaluated(3, {}, frozenset({"accel"}))
    assert isinstance(state, Publish)
    assert (state.message.phase, state.message.round) == ("evaluated", 4)
    assert stop == Stop("the federation is finished")


def test_the_last_evaluation_waits_until_the_outbox_is_settled_too() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    (offer,) = said(train(session), messages.Offer)
    session.disconnected()
    session.connected(2, 5.0)
    actions = session.received(welcome(1, known=True, running="finished"), 5.0)
    assert "Evaluate" not in kinds(actions)
    assert "Evaluate" not in kinds(session.received(chunk(1), 6.0))
    assert kinds(session.received(receipt(offer), 7.0)) == ["KeepCheckpoint", "Evaluate"]


def test_a_gateway_that_announces_itself_is_said_hello_to_and_offered_everything_again() -> None:
    session = joined()
    session.received(plan(1), 0.0)
    train(session)
    announce = messages.Announce(epoch=1, boot=1, round=1, key="0" * 64, ledger_seq=5, ledger_hash="0" * 64)
    assert kinds(session.received(announce, 3.0)) == ["Hello"]
    assert not session.welcomed
    assert said(session.tick(4.0), messages.Offer) == [], "not before it is welcome"
    actions = session.received(welcome(known=True), 4.0)
    assert kinds(actions) == ["Offer"], "no chunk unasked"


def test_after_a_broken_link_the_hello_names_the_new_connection_and_what_is_held() -> None:
    session = joined()
    session.received(commit(1, 1), 1.0)
    session.received(chunk(1), 1.0)
    session.disconnected()
    assert session.story.phase == "offline"
    (hello,) = said(session.connected(2, 9.0), messages.Hello)
    assert (hello.boot, hello.connection) == (1, 2)
    assert [(h.block, h.version) for h in hello.held] == [("encoder/accel", 1)]


def test_a_device_with_too_few_windows_says_so_and_offers_nothing() -> None:
    session = joined()
    session.received(plan(1, min_new_windows=5), 0.0)
    assert session.lacks_windows(0, 0) == "no labelled windows yet"
    assert session.lacks_windows(10, 4) == "4 new windows, waits for 5"
    assert session.lacks_windows(10, 5) == ""
    assert session.lacks_windows(10, 9, at_least=10) == "9 new windows, waits for 10"
    assert session.lacks_windows(10, 10, at_least=10) == ""
    (said_skip,) = session.skipped("4 new windows", {}, frozenset())
    assert isinstance(said_skip, Publish)
    assert (said_skip.message.phase, said_skip.message.reason) == ("skipped", "4 new windows")
    assert session.tick(50.0) == []


def test_chunks_of_a_block_that_is_not_ours_are_ignored() -> None:
    session = joined()
    foreign = chunk(1).model_copy(update={"block": "encoder/gyro"})
    assert session.received(foreign, 1.0) == []
