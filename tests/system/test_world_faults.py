"""Links that break, messages that get lost, devices and gateways that die: the federation goes on, each update once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.calm import Calm, each_update_once, make_calm
from support.learning import tiny
from support.stage import ACCEL, BOTH, GYRO, Stage, key

from aggregator.recovery import open_truth
from aggregator.rounds import Phase
from aggregator.service import Service
from blossom_edge.codec.envelope import decode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import CastChunk
from blossom_edge.core.errors import ConfigError, LinkError, StorageError
from blossom_edge.durable import FolderLock
from blossom_edge.transport.topics import Topic

THREE = [("a", BOTH), ("b", ACCEL), ("c", GYRO)]
LARGE = ("modalities.accel.window=128", "modalities.accel.hop=128", "blocks.encoder/accel={type='mlp', widths=[1200]}")
"""An encoder of 1,848,000 bytes: 19 chunks, more than one window of 16."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """The versions of a run in which nothing breaks."""
    return make_calm(lambda: tmp_path_factory.mktemp("calm"))


def kind_of(topic: str) -> str:
    parsed = Topic.parse(topic)
    return parsed.kind if parsed is not None else ""


def test_a_device_that_reconnects_in_mid_round_gets_the_same_plan_with_the_seconds_that_remain(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.deadline_s=100.0", "rounds.rejoin_s=60.0"), [("a", ACCEL), ("b", ACCEL)])
    stage.run(lambda: stage.state.phase is Phase.OPEN)
    stage.world.broker.cut("b")
    stage.run(lambda: len(stage.records("accept")) == 1)
    stage.run_for(30.0)
    stage.world.broker.restore("b")
    stage.run(lambda: stage.state.round == 2)
    first, second = (p for p in stage.sent("down", "plan", "b") if p.round == 1)
    assert first.remaining_s == pytest.approx(100.0)
    assert second.remaining_s == pytest.approx(70.0, abs=1.0)
    assert first.model_copy(update={"remaining_s": 0.0}) == second.model_copy(update={"remaining_s": 0.0})
    assert stage.members("encoder/accel")[0] == (1, ["a", "b"])
    stage.close()


def test_a_round_does_not_wait_for_a_device_that_is_gone_for_longer_than_the_time_to_rejoin(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.rejoin_s=5.0"), [("a", ACCEL), ("b", ACCEL)])
    stage.run(lambda: stage.state.phase is Phase.OPEN)
    stage.kill("b")
    stage.run(lambda: stage.state.phase is Phase.WAITING)
    assert stage.members("encoder/accel") == [(1, ["a"])]
    assert 5.0 <= stage.world.clock.now < 6.0
    stage.close()


def test_a_round_ends_by_its_deadline_whatever_a_device_that_stays_connected_does_not_do(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.deadline_s=40.0", "schedule.stop_rounds=1"), [("a", ACCEL), ("b", ACCEL)])
    stage.run(lambda: stage.state.phase is Phase.OPEN)
    stage.world.broker.lose(lambda client, topic, _: client == "gateway" and "/up/b/" in topic)
    stage.run(lambda: stage.state.phase is Phase.WAITING)
    assert stage.members("encoder/accel") == [(1, ["a"])]
    assert 40.0 <= stage.world.clock.now < 41.0
    stage.close()


def test_nobody_spins_while_the_round_waits_for_one_device_and_another_is_gone(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("rounds.deadline_s=100.0", "rounds.min_devices=3"), THREE)
    stage.until_round(1)
    stage.kill("b")
    stage.world.broker.lose(lambda client, topic, _: client == "gateway" and "/up/c/" in topic)
    steps = stage.count_steps(lambda: stage.state.phase is Phase.WAITING)
    assert stage.world.clock.now >= 100.0
    assert steps < 500
    stage.close()


@pytest.mark.parametrize("num_before", [1, 7, 17])
def test_an_upload_that_was_cut_goes_on_with_the_chunks_that_are_missing(tmp_path: Path, num_before: int) -> None:
    stage = Stage(
        tmp_path, tiny(*LARGE, "schedule.stop_rounds=1", "rounds.rejoin_s=60.0"), [("a", ACCEL), ("b", ACCEL)]
    )
    broker, seen = stage.world.broker, []

    def cut_after(client: str, topic: str, payload: bytes) -> bool:
        if client != "gateway" or not topic.endswith("/up/b/chunk") or len(seen) > num_before:
            return False
        seen.append(payload)
        return len(seen) > num_before

    broker.lose(cut_after)
    stage.run(lambda: len(seen) > num_before)
    sent_before = len(stage.sent("up", "chunk", "b"))
    broker.lose(lambda client, topic, _: client == "gateway" and topic.endswith("/up/b/chunk"))
    stage.run_for(0.5)
    broker.cut("b")
    stage.run_for(10.0)
    broker.lose(None)
    broker.restore("b")
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a", "b"])]
    assert each_update_once(stage)
    indices = Counter(chunk.index for chunk in stage.sent("up", "chunk", "b")[sent_before:])
    assert len(indices) <= 19 - num_before + 1, "chunks that had arrived were sent again"
    stage.close()


def test_a_device_killed_in_mid_upload_comes_back_with_its_outbox_and_does_not_train_twice(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path, tiny(*LARGE, "schedule.stop_rounds=1", "rounds.rejoin_s=60.0"), [("a", ACCEL), ("b", ACCEL)]
    )
    broker, seen = stage.world.broker, []

    def lose(client: str, topic: str, payload: bytes) -> bool:
        if client == "gateway" and topic.endswith("/up/b/chunk"):
            seen.append(payload)
            return len(seen) > 5
        return False

    broker.lose(lose)
    stage.run(lambda: len(seen) > 5)
    stage.kill("b")
    broker.lose(None)
    stage.run_for(3.0)
    stage.join("b")
    stage.run()
    assert stage.members("encoder/accel") == [(1, ["a", "b"])]
    assert each_update_once(stage)
    assert len(stage.trainers["b"].trained) == 1
    stage.close()


@pytest.mark.parametrize("kind", ["receipt", "grant", "need", "welcome", "plan", "offer", "state", "commit", "hello"])
def test_every_message_of_a_kind_lost_once_changes_no_version(tmp_path: Path, calm: Calm, kind: str) -> None:
    sets = (*LARGE, "rounds.min_devices=3", "schedule.stop_rounds=2", "rounds.deadline_s=30.0")
    stage = Stage(tmp_path, tiny(*sets), THREE)
    lost: set[tuple[str, str, int]] = set()

    def lose(client: str, topic: str, _: bytes) -> bool:
        mark = (client, topic, stage.state.round)
        if kind_of(topic) != kind or mark in lost or (kind == "commit" and client != "b"):
            return False
        lost.add(mark)
        return True

    stage.world.broker.lose(lose)
    # A lost last commit leaves a device waiting: the gateway's end is the end of the test.
    stage.run(lambda: stage.state.round == 2 and stage.state.phase is Phase.WAITING)
    if kind in ("plan", "state"):
        assert stage.state.round == 2, "the round ends by its deadline"
    elif kind == "commit":
        assert [number for number, _, _ in stage.trainers["b"].trained] == [1, 2]
    else:
        assert stage.versions() == calm(sets, THREE)
    assert each_update_once(stage)
    stage.close()


def test_chunks_lost_on_the_way_up_are_asked_for_and_sent_again(tmp_path: Path, calm: Calm) -> None:
    sets = (*LARGE, "rounds.min_devices=2", "schedule.stop_rounds=1")
    cast = [("a", ACCEL), ("b", ACCEL)]
    stage = Stage(tmp_path, tiny(*sets), cast)
    count = Counter[str]()

    def lose(client: str, topic: str, _: bytes) -> bool:
        if client != "gateway" or not topic.endswith("/chunk"):
            return False
        count[topic] += 1
        return count[topic] in (1, 4, 5, 20)

    stage.world.broker.lose(lose)
    stage.run()
    assert stage.versions() == calm(sets, cast)
    assert stage.sent("down", "need", "a")
    assert len(stage.sent("up", "chunk", "a")) < 19 + 19
    stage.close()


def casts(stage: Stage) -> Counter[int]:
    """How often each chunk of `encoder/accel` was cast to all."""
    found: Counter[int] = Counter()
    for topic, payload in stage.traffic:
        if topic.endswith("/cast/chunk/encoder/accel"):
            found[decode(payload, allowed=(CastChunk,)).message.index] += 1
    return found


@pytest.mark.parametrize("num_deaf", [1, 2, 3])
def test_lost_cast_chunks_are_repaired_one_by_one_and_cast_again_for_three(tmp_path: Path, num_deaf: int) -> None:
    cast = [(d, ACCEL) for d in "abcd"]
    stage = Stage(tmp_path, tiny("schedule.stop_rounds=1", "rounds.min_devices=4"), cast)
    deaf = {"b", "c", "d"} if num_deaf == 3 else set("bcd"[:num_deaf])
    lost: set[str] = set()

    def lose(client: str, topic: str, _: bytes) -> bool:
        if client not in deaf or client in lost or "/cast/chunk/" not in topic:
            return False
        lost.add(client)
        return True

    stage.world.broker.lose(lose)
    stage.run()
    repairs = {d: len(stage.sent("down", "chunk", d)) for d in "abcd"}
    if num_deaf < 3:
        assert repairs == {d: int(d in deaf) for d in "abcd"}
        assert casts(stage) == {0: 1}
    else:
        assert sum(repairs.values()) == 2, "the first two who ask get it for themselves"
        assert casts(stage) == {0: 2}, "the third makes it be cast again"
    assert all(a.session.downloads.held[key("encoder/accel")].version == 1 for a in stage.world.agents)
    stage.close()


def test_the_gateways_link_alone_breaks_and_the_federation_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(2)
    stage.world.broker.cut("gateway")
    stage.run_for(8.0)
    stage.world.broker.restore("gateway")
    stage.run(longest_s=600.0)
    assert stage.state.round == 3
    assert each_update_once(stage)
    stage.close()


def test_the_broker_is_gone_for_five_seconds_and_the_federation_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(2)
    for client in ("gateway", "a", "b"):
        stage.world.broker.cut(client)
    stage.run_for(5.0)
    for client in ("a", "gateway", "b"):
        stage.world.broker.restore(client)
    stage.run(longest_s=600.0)
    assert stage.members("encoder/accel") == [(n, ["a", "b"]) for n in (1, 2, 3)]
    stage.close()


def test_an_old_will_that_comes_after_the_new_hello_is_ignored(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny("schedule.every_s=5.0"), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(1)
    wills = []
    stage.world.broker.lose(
        lambda client, topic, payload: topic.endswith("/up/b/bye") and not wills.append((topic, payload))
    )
    stage.world.broker.cut("b")
    stage.world.broker.restore("b")
    stage.run_for(1.0)
    stage.world.broker.lose(None)
    assert wills
    stage.world.broker.deliver(*wills[0], retain=False)
    stage.run_for(0.5)
    assert stage.state.members["b"].online
    stage.close()


def test_another_key_under_a_known_id_is_refused_by_name(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(1)
    stage.kill("b")
    key_file = tmp_path / "edge" / "devices" / "b" / "device.key"
    key_file.write_bytes(SigningKey.generate().to_bytes())
    stage.join("b")
    with pytest.raises(LinkError, match="b is known here under another key") as caught:
        stage.run()
    assert caught.value.error_id == "rejected"
    assert "devices forget b" in caught.value.hint
    assert stage.world.truth.machine.refusals["hello-key"] == 1
    stage.kill("b")
    stage.run(lambda: stage.state.phase is Phase.WAITING)
    assert stage.world.service.forget("b")
    stage.join("b")
    stage.run()
    assert stage.members("encoder/accel")[-1] == (3, ["a", "b"])
    stage.close()


def test_a_gateway_with_another_key_is_refused_by_the_device(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL), ("b", ACCEL)])
    stage.until_round(1)
    stage.world.truth.ledger.close()
    impostor = open_truth(tmp_path / "impostor", stage.world.federation)
    stage.world.truth = impostor
    stage.world.service = Service(impostor, stage.world.broker.link("gateway"), clock=stage.world.clock)
    stage.kill("a")
    agent = stage.join("a")
    with pytest.raises(LinkError, match="this device trusts") as caught:
        stage.run()
    assert caught.value.error_id == "gateway-key"
    assert agent.session.federation is not None, "it is known from the run before"
    assert not agent.session.welcomed
    stage.close()


def test_a_device_told_the_gateways_fingerprint_trusts_no_other_key(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL)])
    agent = stage.agent("a")
    agent._gateway_key = "0000-0000-0000-0000"
    with pytest.raises(LinkError, match="--gateway-key says 0000-0000-0000-0000"):
        stage.run()
    stage.close()


def test_a_second_gateway_on_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    with FolderLock.acquire(tmp_path, what="gateway"):
        with pytest.raises(StorageError, match="gateway") as caught:
            FolderLock.acquire(tmp_path, what="gateway")
        assert caught.value.error_id == "folder-in-use"
    FolderLock.acquire(tmp_path, what="gateway").release()


def test_a_folder_of_another_federation_is_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL)])
    stage.close()
    with pytest.raises(ConfigError, match="holds federation har") as caught:
        open_truth(tmp_path / "gateway", tiny("training.lr=0.5"))
    assert caught.value.error_id == "federation-changed"
