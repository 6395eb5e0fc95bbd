"""No byte of a private block leaves a device: everything that passes the broker, lies at the gateway or is logged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.leaks import files_of, find_leak, plant_canaries, secrets_of, windows_of
from support.learning import noise, tiny
from support.stage import ACCEL, BOTH, GYRO, Stage

from blossom_edge.codec.envelope import encode
from blossom_edge.codec.messages import Offer, Receipt, Refusal, UploadChunk, WireMessage
from blossom_edge.codec.tensors import make_codec
from blossom_edge.console.logs import OUR_LOGGERS, TextFormatter
from blossom_edge.core.blocks import BlockId
from blossom_edge.transport import topics

THREE = [("a", BOTH), ("b", ACCEL), ("c", GYRO)]


def stage_with_canaries(folder: Path, *sets: str) -> Stage:
    stage = Stage(folder, tiny("rounds.min_devices=3", *sets), THREE)
    for trainer in stage.trainers.values():
        plant_canaries(trainer, stage.world.federation.spec)
    return stage


def secrets(stage: Stage) -> Iterator[tuple[str, bytes]]:
    for trainer in stage.trainers.values():
        yield from secrets_of(trainer, stage.world.federation.spec)


def everything_outside(stage: Stage, logs: str) -> dict[str, bytes]:
    """All that is not on the devices' own disks."""
    return {
        "traffic": b"\0".join(topic.encode() + b"\0" + payload for topic, payload in stage.traffic),
        "the gateway's folder": files_of(stage.world.folder / "gateway"),
        "the logs": logs.encode(),
    }


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log as the product writes it, with all its fields."""
    caplog.handler.setFormatter(TextFormatter())
    for logger in OUR_LOGGERS:
        caplog.set_level(logging.DEBUG, logger=logger)
    return caplog


@pytest.mark.parametrize("visibility", ["private-head", "private-head-fusion", "private-encoders", "dual"])
@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_no_byte_of_a_private_block_is_found_outside_its_device(
    tmp_path: Path, log: pytest.LogCaptureFixture, visibility: str, codec: str
) -> None:
    stage = stage_with_canaries(tmp_path, f"visibility={visibility}", f"codec.up={codec}", f"codec.down={codec}")
    stage.run()
    assert sum(1 for _ in secrets(stage)) > 500, "the search has something to look for"
    assert len(stage.traffic) > 50
    assert "round-trained" in log.text
    assert find_leak(everything_outside(stage, log.text), secrets(stage)) == ""
    assert [agent.private_sent for agent in stage.world.agents] == [{}, {}, {}]
    stage.close()


def test_the_search_finds_the_private_blocks_where_they_belong(tmp_path: Path) -> None:
    stage = stage_with_canaries(tmp_path)
    stage.run()
    at_home = {d: files_of(tmp_path / "edge" / "devices" / d) for d in "abc"}
    for device, trainer in stage.trainers.items():
        last = [s for s in secrets_of(trainer, stage.world.federation.spec) if "round 3" in s[0] and "value" in s[0]]
        assert find_leak({device: at_home[device]}, iter(last)).startswith(f"{device} round 3 ")
    stage.close()


def test_without_the_check_of_the_sender_the_search_finds_a_leak_and_the_gateway_takes_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("blossom_edge.client.updates.may_leave", lambda spec: True)
    stage = stage_with_canaries(tmp_path)
    stage.run()
    places = everything_outside(stage, log.text)
    assert " in traffic" in find_leak(places, secrets(stage))
    assert find_leak({k: v for k, v in places.items() if k != "traffic"}, secrets(stage)) == ""
    assert {r["block"] for r in stage.records("accept")} == {"encoder/accel", "encoder/gyro"}
    refusals = stage.world.truth.machine.refusals
    assert set(refusals) == {"policy"}
    assert refusals["policy"] > 25, "three rounds, 4 private blocks of one device and 3 of the others"
    assert all(agent.private_sent["head/har"] > 0 for agent in stage.world.agents)
    assert stage.agent("a").session.story.sent["head/har"] == (
        "round 3: refused (policy): head/har is private: it must not leave the device"
    )
    stage.close()


def offer_private_block(stage: Stage) -> WireMessage:
    """A device with a changed program sends its head in an open round; returns the gateway's answer."""
    stage.world.broker.lose(lambda client, topic, _: client == "gateway" and "/up/b/" in topic)
    stage.until_round(1)
    head = BlockId.parse("head/har")
    spec = stage.world.federation.spec[head]
    codec = make_codec("float32")
    data = codec.encode({t.name: noise("rogue", 1, head, t.shape, t.name) for t in spec.tensors}, spec)
    sha = hashlib.sha256(data).hexdigest()
    offer = Offer(
        epoch=1,
        round=1,
        block="head/har",
        base_version=0,
        num_samples=1,
        num_steps=1,
        codec="float32",
        sha256=sha,
        num_bytes=len(data),
        num_chunks=1,
        sequence=1000,
    )
    chunk = UploadChunk(block="head/har", round=1, sha=sha[:16], index=0, data=data)
    sign = stage.agent("a").store.key
    for message in (offer, chunk):
        payload = encode(message, scope="har/a", sign=sign)
        stage.world.broker.deliver(topics.up("har", "a", message.NAME), payload, retain=False)
    while stage.world.service.step(0.0):
        pass
    answers = [m for kind in ("refusal", "receipt") for m in stage.sent("down", kind, "a") if m.sha256 == sha]
    assert len(answers) == 1
    return answers[0]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Stage]:
    """A device that could be rogue and one that keeps the round open."""
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.run(lambda: len(stage.state.members) == 1)
    yield stage
    stage.close()


def test_a_private_block_that_is_sent_all_the_same_is_refused_by_the_gateway(two: Stage) -> None:
    answer = offer_private_block(two)
    assert isinstance(answer, Refusal)
    assert (answer.type, answer.reason) == ("policy", "head/har is private: it must not leave the device")
    assert "head/har" not in {r["block"] for r in two.records("accept")}


def test_without_the_check_of_the_receiver_the_same_block_would_be_taken(
    two: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.admission.may_enter", lambda spec: True)
    monkeypatch.setattr("aggregator.round_state.may_enter", lambda spec: True)
    two.world.truth.machine.state._owned.clear()  # what was worked out with the check
    answer = offer_private_block(two)
    assert isinstance(answer, Receipt), "so the test above holds the check, not something else"
    assert "head/har" in {r["block"] for r in two.records("accept")}


def test_with_the_receivers_check_gone_devices_still_send_nothing_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aggregator.admission.may_enter", lambda spec: True)
    monkeypatch.setattr("aggregator.round_state.may_enter", lambda spec: True)
    stage = stage_with_canaries(tmp_path, "schedule.stop_rounds=1", "rounds.deadline_s=10.0")
    stage.run()
    assert find_leak(everything_outside(stage, log.text), secrets(stage)) == ""
    assert {r["block"] for r in stage.records("accept")} == {"encoder/accel", "encoder/gyro"}
    stage.close()


def test_the_search_itself_finds_float16_and_values_in_the_middle() -> None:
    values = np.arange(12, dtype=np.float32) + 0.5
    hay = b"x" + values.astype(np.float16)[8:12].tobytes() + b"y"
    assert find_leak({"here": hay}, windows_of("v", values)) == "v [8] float16 in here"
