"""What is wrong, forged, replayed or too much: dropped or refused by type, and the federation goes on."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learning import tiny
from support.stage import ACCEL, BOTH, GYRO, Stage, key

from aggregator.rounds import Phase
from aggregator.uploads import Uploads
from blossom_edge.codec.envelope import encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import Ask, Offer, State, UploadChunk, WireMessage
from blossom_edge.core.blocks import BlockId
from blossom_edge.transport import topics

ENCODER = BlockId.parse("encoder/accel")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Round 1 is open, a and b take part, nothing of either has arrived."""
    made = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    made.world.broker.lose(lambda client, topic, _: client == "gateway" and topic.endswith(("/offer", "/chunk")))
    made.until_round(1)
    while made.world.step():
        pass
    made.world.broker.lose(None)
    return made


def put(stage: Stage, device: str, *sent: WireMessage, sign: SigningKey | None = None, scope: str = "") -> None:
    """Bring these messages to the gateway as if `device` had sent them."""
    for message in sent:
        payload = encode(message, scope=scope or f"har/{device}", sign=sign or stage.agent(device).store.key)
        stage.world.broker.deliver(topics.up("har", device, message.NAME), payload, retain=False)
    while stage.world.service.step(0.0):
        pass


def update(data: bytes, **changes: Any) -> tuple[Offer, UploadChunk]:
    """An offer of these bytes and their only chunk."""
    facts: dict[str, Any] = {
        "epoch": 1, "round": 1, "block": "encoder/accel", "base_version": 0, "num_samples": 5, "num_steps": 1,
        "codec": "float32", "sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data), "num_chunks": 1,
        "sequence": 500,
    }  # fmt: skip
    offer = Offer(**{**facts, **changes})
    return offer, UploadChunk(block=offer.block, round=offer.round, sha=offer.sha256[:16], index=0, data=data)


def raw(stage: Stage, fill: float) -> bytes:
    spec = stage.world.federation.spec[ENCODER]
    return np.full(spec.num_values, fill, dtype="<f4").tobytes()


def refusals(stage: Stage, device: str = "a") -> list[tuple[str, bool]]:
    return [(m.type, m.final) for m in stage.sent("down", "refusal", device)]


def test_an_update_with_nan_is_refused_for_good_and_the_round_ends_without_it(stage: Stage) -> None:
    data = bytearray(stage.agent("a").session.outbox.updates[0].data)
    data[-4:] = np.array([np.nan], dtype="<f4").tobytes()
    put(stage, "a", *update(bytes(data)))
    assert refusals(stage) == [("nonfinite", True)]
    (refusal,) = stage.sent("down", "refusal", "a")
    assert refusal.reason == "encoder/accel: NaN or infinity in the update"
    assert stage.world.truth.machine.refusals["nonfinite"] == 1
    assert "a" not in stage.state.awaited(stage.world.clock.now)
    stage.close()


def test_chunks_without_the_offered_hash_are_refused_but_may_come_again(stage: Stage) -> None:
    good = stage.agent("a").session.outbox.updates[0].data
    offer, chunk = update(good)
    put(stage, "a", offer, chunk.model_copy(update={"data": good[:-1] + b"\xff"}))
    assert refusals(stage) == [("hash", False)]
    put(stage, "a", offer, chunk)
    assert [m.sha256 for m in stage.sent("down", "receipt", "a")] == [offer.sha256]
    stage.close()


def test_another_length_is_refused_before_a_byte_is_taken(stage: Stage) -> None:
    put(stage, "a", update(bytes(50_000))[0])
    assert refusals(stage) == [("size", True)]
    assert len(stage.world.service.uploads) == 0
    stage.close()


def test_a_gateway_without_room_says_busy_and_takes_the_update_later(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=1"), [("a", ACCEL), ("b", ACCEL)])
    stage.world.service.uploads = Uploads(max_bytes=600)
    stage.world.broker.lose(lambda client, topic, _: client == "gateway" and "/up/a/chunk" in topic and not lifted)
    lifted: list[bool] = []
    stage.run(lambda: ("busy", False) in refusals(stage, "b"))
    lifted.append(True)
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a", "b"])]
    stage.close()


def test_messages_that_are_no_frames_or_on_no_topic_of_ours_are_dropped_and_counted(stage: Stage) -> None:
    broker, service = stage.world.broker, stage.world.service
    for topic, payload in (
        (topics.up("har", "a", "offer"), b""),
        (topics.up("har", "a", "offer"), b"\0" * 200),
        (topics.up("har", "a", "nonsense"), b"{}"),
        (topics.up("har", "a", "hello"), encode(update(b"x")[1], scope="")),
    ):
        broker.deliver(topic, payload, retain=False)
    while service.step(0.0):
        pass
    assert service.dropped == {"frame": 4}
    assert stage.state.phase is Phase.OPEN
    stage.close()


def test_a_message_signed_by_another_device_or_moved_to_anothers_topic_is_dropped(stage: Stage) -> None:
    offer, chunk = update(raw(stage, 1.0))
    put(stage, "a", offer, chunk, sign=stage.agent("b").store.key)
    put(stage, "a", offer, chunk, scope="har/b")
    put(stage, "a", offer, chunk, scope="other/a")
    assert stage.world.service.dropped == {"signature": 3}
    assert refusals(stage) == []
    assert stage.sent("down", "receipt", "a") == []
    stage.close()


def test_a_device_that_never_said_hello_is_not_listened_to(stage: Stage) -> None:
    put(stage, "stranger", update(raw(stage, 1.0))[0], sign=SigningKey.generate())
    assert stage.world.service.dropped == {"frame": 1}
    assert "stranger" not in stage.state.members
    stage.close()


def test_nobody_is_sent_a_block_that_it_does_not_own(stage: Stage) -> None:
    put(stage, "a", Ask(epoch=1, block="encoder/gyro", version=0))
    assert stage.world.service.dropped == {"frame": 1}
    put(stage, "a", Ask(epoch=1, block="encoder/accel", version=0))
    assert [m.block for m in stage.sent("down", "chunk", "a")] == ["encoder/accel"]
    stage.close()


def test_a_device_cannot_speak_for_a_round_that_it_has_no_part_in(stage: Stage) -> None:
    stage.add("late", ACCEL)
    stage.run(lambda: stage.agent("late").session.welcomed)
    put(stage, "late", State(epoch=1, round=1, phase="skipped", sequence=900))
    put(stage, "late", *update(raw(stage, 1.0)))
    assert refusals(stage, "late") == [("policy", True)]
    assert sorted(stage.state.awaited(stage.world.clock.now)) == ["a", "b"]
    stage.close()


def test_every_frame_of_a_run_played_again_changes_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=0"), [("a", BOTH), ("b", ACCEL), ("c", GYRO)])
    stage.until_round(4)
    before = [(t, p) for t, p in stage.traffic if "/up/" in t]
    accepted, versions = len(stage.records("accept")), stage.versions()
    stage.world.broker.lose(lambda client, topic, _: client != "gateway")
    for topic, payload in before:
        stage.world.broker.deliver(topic, payload, retain=False)
    while stage.world.service.step(0.0):
        pass
    assert (len(stage.records("accept")), stage.versions()) == (accepted, versions)
    stage.world.broker.lose(None)
    stage.run(lambda: stage.state.round == 6)
    counts = Counter((r["round"], r["block"], r["device"]) for r in stage.records("accept"))
    assert set(counts.values()) == {1}
    stage.close()


def test_frames_of_another_federation_are_worth_nothing_here(tmp_path: Path, stage: Stage) -> None:
    other = Stage(tmp_path / "other", tiny(), [("a", ACCEL), ("b", ACCEL)], seed=77)
    other.run()
    for topic, payload in other.traffic:
        if "/up/" in topic and not topic.endswith("/chunk"):
            stage.world.broker.deliver(topic, payload, retain=False)
    while stage.world.service.step(0.0):
        pass
    assert stage.records("accept") == []
    assert stage.world.service.dropped["signature"] > 5
    assert stage.world.truth.machine.refusals["hello-key"] == 2, "a hello of a known id under another key"
    assert set(stage.state.members) == {"a", "b"}
    stage.close()
    other.close()


def test_a_gateway_that_is_not_trusted_cannot_give_plans_or_commits(stage: Stage) -> None:
    forged = SigningKey.generate()
    sessions = {d: stage.agent(d).session for d in "ab"}
    before = {d: (s.story.round, s.downloads.missing()) for d, s in sessions.items()}
    (plan,) = stage.sent("down", "plan", "a")
    payload = encode(plan.model_copy(update={"round": 9}), scope="har/a", sign=forged)
    stage.world.broker.deliver(topics.down("har", "a", "plan"), payload, retain=False)
    for agent in stage.world.agents:
        while agent.step(0.0):
            pass
    assert {d: (s.story.round, s.downloads.missing()) for d, s in sessions.items()} == before
    assert stage.state.version(key("encoder/accel")).number == 0
    stage.close()
