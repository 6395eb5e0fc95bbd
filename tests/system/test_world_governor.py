"""Devices whose boards get hot, run empty or are slow on the line, in a whole federation in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.learning import tiny
from support.stage import BOTH, Stage

from aggregator.status import snapshot
from blossom_edge.board.heat import Temperature
from blossom_edge.board.state import BoardState
from blossom_edge.client.governor import Governor
from blossom_edge.client.pacing import UploadPace
from blossom_edge.codec import messages
from blossom_edge.core.rounds import LocalTraining
from firmware_profiles.schema import Limits

STEPS = "training={epochs=0, steps=8, batch_size=16}"
STEP_S = 0.5
TWO = [("a", BOTH), ("b", BOTH)]


class HotStage(Stage):
    """Two devices; `a` has a governor that allows 80 °C, and a temperature that is a function of time."""

    def __init__(self, folder: Path, *sets: str, celsius: Callable[[float], float] = lambda now: 50.0) -> None:
        super().__init__(folder, tiny(STEPS, *sets), TWO)
        self.board = BoardState()
        self.celsius = celsius
        self.asked: list[LocalTraining] = []
        clock = self.world.clock
        self.agent("a")._work.governor = Governor(
            self.read, Limits(max_temp_c=80.0), clock=clock, lower=lambda nice: nice
        )
        self.trainers["a"].work = self.work

    def read(self) -> BoardState:
        now = self.world.clock.now
        return BoardState(
            Temperature("cpu-thermal", self.celsius(now), "zone"), battery_percent=self.board.battery_percent
        )

    def work(self, training: LocalTraining, keep_going: Callable[[], bool] | None) -> int:
        """Every step takes half a second."""
        self.asked.append(training)
        done = 0
        for _ in range(training.num_steps(10)):
            if done and keep_going is not None and not keep_going():
                break
            self.world.clock.now += STEP_S
            done += 1
        return done

    def states(self, round_number: int) -> list[tuple[str, str, int]]:
        """Phase, reason and steps as device `a` told them in a round."""
        said: list[Any] = self.sent("up", "state", "a")
        return [(s.phase, s.reason, s.num_steps) for s in said if s.round == round_number and s.phase != "evaluated"]

    def shown(self) -> dict[str, Any]:
        """Device `a` in the gateway's status."""
        devices: list[dict[str, Any]] = snapshot(self.world.service, self.world.clock.now)["devices"]
        return next((d for d in devices if d["id"] == "a"), {"reason": ""})


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., HotStage]]:
    made: list[HotStage] = []

    def make(*sets: str, **more: Any) -> HotStage:
        made.append(HotStage(tmp_path / str(len(made)), *sets, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_governor_that_allows_everything_changes_no_byte_on_the_wire(stage: Callable[..., HotStage]) -> None:
    with_governor, without = stage(), stage()
    without.agent("a")._work.governor = None
    with_governor.run()
    without.run()
    assert with_governor.wire_hash() == without.wire_hash()
    assert with_governor.versions() == without.versions()


def test_near_its_limit_a_device_does_half_of_the_steps_and_says_so(stage: Callable[..., HotStage]) -> None:
    hot = stage("schedule={stop_rounds=1}", celsius=lambda now: 78.0)
    hot.run(lambda: len(hot.records("commit")) == 1)
    reason = "4 of 8 steps: cpu-thermal has 78.0 °C, within 5 K of the limit of 80 °C"
    assert [(t.epochs, t.steps) for t in hot.asked] == [(0, 4)]
    assert hot.states(1) == [("training", "", 0), ("uploading", reason, 4)]
    offers: list[Any] = hot.sent("up", "offer", "a")
    assert {offer.num_steps for offer in offers} == {4}
    assert hot.members("encoder/accel") == [(1, ["a", "b"])]
    assert hot.shown()["reason"] == reason


def test_a_hot_device_waits_in_the_round_goes_on_when_it_is_cool_and_is_counted(stage: Callable[..., HotStage]) -> None:
    hot = stage("schedule={stop_rounds=1}", celsius=lambda now: 85.0 if now < 20.0 else 70.0)
    hot.run(lambda: hot.shown()["reason"] != "")
    assert hot.agent("a").status()["phase"] == "paused"
    assert hot.agent("a").next_due() is not None
    assert hot.shown()["reason"] == "paused: cpu-thermal has 85.0 °C, the limit is 80 °C"
    hot.run()
    assert [(phase, steps) for phase, _, steps in hot.states(1)] == [("waiting", 0), ("training", 0)]
    assert 20.0 <= hot.world.clock.now < 30.0
    assert hot.members("encoder/accel") == [(1, ["a", "b"])]


def test_the_link_is_served_during_a_pause(stage: Callable[..., HotStage]) -> None:
    hot = stage("schedule={stop_rounds=1}", celsius=lambda now: 85.0 if now < 40.0 else 70.0)
    hot.run(lambda: hot.agent("a").status()["phase"] == "paused")
    hot.run_for(7.0)
    hot.restart_gateway()
    hot.run_for(7.0)
    assert hot.agent("a").session.welcomed, "it said hello to the gateway that came back"
    hot.run()
    assert hot.members("encoder/accel") == [(1, ["a", "b"])]


def test_a_device_that_stays_hot_sits_the_round_out_before_the_others_wait_in_vain(
    stage: Callable[..., HotStage],
) -> None:
    hot = stage("schedule={stop_rounds=1}", celsius=lambda now: 85.0)
    hot.run()
    phases = [phase for phase, _, _ in hot.states(1)]
    assert phases == ["waiting", "skipped"]
    assert hot.states(1)[1][1] == "cpu-thermal has 85.0 °C, the limit is 80 °C, after a pause of 60 s"
    assert hot.world.clock.now < 70.0, "half of the 120 s of a round, not all of them"
    assert hot.members("encoder/accel") == [(1, ["b"])]
    assert hot.trainers["a"].evaluated == hot.trainers["a"].evaluated[-1:], "only the finished model is scored"


def test_a_pause_does_not_outlive_a_short_round(stage: Callable[..., HotStage]) -> None:
    short = ("schedule={stop_rounds=2}", "rounds.deadline_s=4.0", "training={epochs=0, steps=2, batch_size=16}")
    hot = stage(*short, celsius=lambda now: 85.0 if now < 2.5 else 60.0)
    hot.run()
    assert [phase for phase, _, _ in hot.states(1)] == ["waiting", "skipped"]
    assert [phase for phase, _, _ in hot.states(2)] == ["waiting", "training"]
    assert hot.members("encoder/accel") == [(1, ["b"]), (2, ["a", "b"])]
    assert hot.world.clock.now < 8.5


def test_a_pause_for_a_round_that_is_gone_leads_to_no_work(stage: Callable[..., HotStage]) -> None:
    hot = stage(celsius=lambda now: 85.0)
    hot.run(lambda: hot.agent("a").status()["phase"] == "paused")
    session = hot.agent("a").session
    session.tick(121.0)  # its deadline has passed
    assert session.go_on(121.0) == []


def test_a_device_that_gets_too_hot_in_training_stops_and_what_was_done_counts(stage: Callable[..., HotStage]) -> None:
    hot = stage("schedule={stop_rounds=1}", celsius=lambda now: 70.0 + 10.0 * now)
    hot.run(lambda: len(hot.records("commit")) == 1)
    phase, reason, steps = hot.states(1)[-1]
    assert (phase, steps) == ("uploading", 4), "looked at after 1 s: 80.0 °C, and after 2 s: too hot"
    assert reason.startswith("4 of 8 steps: cpu-thermal has 90.0 °C, the limit is 80 °C")
    assert hot.members("encoder/accel") == [(1, ["a", "b"])]


def test_a_device_whose_battery_is_low_skips_and_the_round_says_why(stage: Callable[..., HotStage]) -> None:
    low = stage("schedule={stop_rounds=1}")
    low.board = BoardState(battery_percent=12.0)
    low.run(lambda: len(low.records("commit")) == 1)
    assert low.states(1) == [("skipped", "the battery is at 12 %, below 20 %", 0)]
    assert low.members("encoder/gyro") == [(1, ["b"])]
    assert low.shown()["reason"] == "the battery is at 12 %, below 20 %"


def test_windows_are_fetched_before_the_work_is_judged(stage: Callable[..., HotStage]) -> None:
    calm = stage("schedule={stop_rounds=1}")
    polled: list[int] = []
    calm.run(lambda: calm.agent("a").learner is not None)
    learner = calm.agent("a").learner
    assert learner is not None
    from dataclasses import replace

    trainer = calm.trainers["a"]
    calm.agent("a").learner = replace(learner, poll=lambda now: polled.append(len(trainer.evaluated)))
    calm.run(lambda: len(calm.records("commit")) == 1)
    assert polled == [0], "once, before the first evaluation"


def test_a_slow_line_carries_all_chunks_and_no_faster_than_it_is_told_to(stage: Callable[..., HotStage]) -> None:
    wide = "blocks.encoder/accel={type='mlp', widths=[4000]}"  # 5 chunks of 96 KiB
    slow = stage(wide, "schedule={stop_rounds=1}", "rounds.deadline_s=600.0")
    slow.agent("a")._pace = UploadPace(400)
    times: list[float] = []
    slow.world.broker.watch(
        lambda topic, payload: times.append(slow.world.clock.now) if topic.endswith("/up/a/chunk") else None
    )
    slow.run(lambda: len(slow.records("commit")) == 1)
    chunks: list[messages.UploadChunk] = slow.sent("up", "chunk", "a")  # type: ignore[assignment]  # all of one kind
    num_bytes = sum(len(c.data) for c in chunks)
    assert len({(c.sha, c.index) for c in chunks}) == len(chunks), "no chunk was sent twice"
    assert len(chunks) > 5
    assert times[-1] - times[0] >= (num_bytes - len(chunks[-1].data)) / 50_000 - 1e-6, "400 kbit/s are 50,000 bytes/s"
    assert slow.members("encoder/accel") == [(1, ["a", "b"])]
