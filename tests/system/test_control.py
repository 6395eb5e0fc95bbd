"""What an operator tells a running gateway: everybody gets an answer, and it is true."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from live import AGGREGATOR, ONLY_ACCEL, WAIT_S, Place, call
from support.learning import tiny
from support.machine import offer
from support.stage import ACCEL, Stage

from aggregator.cli.commands import FOLDER, Ask, Commands
from aggregator.cli.status import read_status
from aggregator.status import STATUS_FILE, snapshot
from blossom_edge.core.names import DeviceId

Told = Future[CompletedProcess[str]]


class Gateway:
    """A gateway's loop on a stage, whose data folder the commands of other processes find."""

    def __init__(self, folder: Path, rounds: str) -> None:
        federation = tiny("schedule.stop_rounds=0", f"rounds={{{rounds}, deadline_s=120.0, rejoin_s=5.0}}")
        self.stage = Stage(folder, federation, [("a", ACCEL), ("b", ACCEL), ("c", ACCEL)])
        self.folder = folder / "gateway"
        self.commands = Commands(self.folder)
        self.service = self.stage.world.service
        self.service._may_open = lambda number: not self.commands.waiting
        self.say()

    def say(self, **more: Any) -> None:
        found = {**snapshot(self.service, self.stage.world.clock.now), "running_here": True, "pid": os.getpid()}
        (self.folder / STATUS_FILE).write_text(json.dumps({**found, "broker": "none", "updated": "now", **more}))

    def open_round(self) -> None:
        """A round that waits for the updates of everybody."""
        self.stage.world.broker.lose(lambda client, topic, _: topic.endswith(("/offer", "/chunk")))
        self.stage.until_round(1)
        while self.stage.world.step():
            pass
        self.say()

    def end_round(self) -> None:
        """Time passes to the deadline."""
        self.stage.world.clock.now = self.stage.state.current.deadline
        self.service.step(0.0)

    def serve(self, *told: Told) -> list[CompletedProcess[str]]:
        """Take up commands until all of these have their answer."""
        until = time.monotonic() + WAIT_S
        while not all(t.done() for t in told):
            assert time.monotonic() < until
            self.commands.carry_out(self.service)
            time.sleep(0.01)
        return [t.result() for t in told]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, "min_devices=3")
    yield gateway
    gateway.stage.close()


@pytest.fixture
def calm(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that knows three devices and opens no round."""
    gateway = Gateway(tmp_path, "min_devices=9, start_after_s=1e6")
    gateway.stage.run(lambda: len(gateway.stage.state.members) == 3)
    yield gateway
    gateway.stage.close()


def tell(pool: ThreadPoolExecutor, gateway: Gateway, *words: str) -> Told:
    return pool.submit(call, AGGREGATOR, *words, "--data-dir", str(gateway.folder))


def test_two_devices_forgotten_at_the_same_time_are_both_forgotten(calm: Gateway) -> None:
    gateway = calm
    with ThreadPoolExecutor(2) as pool:
        done = gateway.serve(*(tell(pool, gateway, "devices", "forget", d) for d in "ab"))
    assert [(d.returncode, d.stdout) for d in done] == [(0, "a is forgotten\n"), (0, "b is forgotten\n")]
    assert list(gateway.stage.state.members) == ["c"]
    assert list((gateway.folder / FOLDER).iterdir()) == []


def test_forget_waits_for_the_end_of_the_round_and_no_other_opens_before(gateway: Gateway) -> None:
    gateway.open_round()
    with ThreadPoolExecutor(1) as pool:
        told = tell(pool, gateway, "devices", "forget", "a")
        until = time.monotonic() + WAIT_S
        while not gateway.commands.waiting:
            assert time.monotonic() < until
            gateway.commands.carry_out(gateway.service)
        gateway.commands.carry_out(gateway.service)
        assert not told.done()
        gateway.end_round()
        gateway.service.step(0.0)
        assert gateway.stage.state.current is None, "a round opened although a command waits for the end of rounds"
        (done,) = gateway.serve(told)
    assert (done.returncode, done.stdout) == (0, "a is forgotten\n")
    assert "a" not in gateway.stage.state.members


def test_while_it_waits_the_operator_reads_for_what_and_how_long(gateway: Gateway) -> None:
    gateway.open_round()
    ask = Ask(gateway.folder, {"word": "forget", "device": "a"})
    gateway.commands.carry_out(gateway.service)
    answer = ask.answer()
    assert answer is not None
    assert (answer.state, answer.message) == ("waits", "until round 1 has ended")
    ask.withdraw()
    gateway.commands.carry_out(gateway.service)
    assert not gateway.commands.waiting, "who gave up holds nobody up"
    gateway.end_round()
    gateway.commands.carry_out(gateway.service)
    assert "a" in gateway.stage.state.members


def test_what_cannot_be_done_is_answered_with_the_reason(calm: Gateway) -> None:
    gateway = calm
    with ThreadPoolExecutor(1) as pool:
        (done,) = gateway.serve(tell(pool, gateway, "devices", "forget", "nope"))
        assert done.returncode == 2
        assert "no device 'nope'" in done.stderr
        assert "there is a, b, c" in done.stderr
        gateway.serve(tell(pool, gateway, "finish"))
        (done,) = gateway.serve(tell(pool, gateway, "pause"))
        assert done.returncode == 2
        assert "the federation is finished" in done.stderr


def test_a_gateway_that_does_not_run_is_said_at_once_and_its_old_commands_are_not_carried_out(gateway: Gateway) -> None:
    gateway.say(running_here=False)
    done = call(AGGREGATOR, "finish", "--data-dir", str(gateway.folder))
    assert done.returncode == 1
    assert "no gateway is running in" in done.stderr
    Ask(gateway.folder, {"word": "finish"})
    Commands(gateway.folder).carry_out(gateway.service)
    assert gateway.stage.state.running.value == "yes"


def test_the_deadline_is_that_of_now_not_of_the_last_write(gateway: Gateway) -> None:
    gateway.open_round()
    gateway.say(deadline_in_s=117.0, written_s=time.monotonic() - 58.0)
    assert read_status(gateway.folder)["deadline_in_s"] == pytest.approx(59.0, abs=1.0)
    gateway.say(deadline_in_s=117.0, written_s=time.monotonic() - 200.0)
    assert read_status(gateway.folder)["deadline_in_s"] == 0.0
    gateway.say(deadline_in_s=117.0, running_here=False)
    assert read_status(gateway.folder)["deadline_in_s"] is None


def test_why_tells_of_a_refused_update_that_it_was_refused(gateway: Gateway) -> None:
    gateway.open_round()
    machine = gateway.stage.world.truth.machine
    for device in "ab":
        gateway.service._execute(machine.refuse(DeviceId(device), offer(device, 1), "norm", "too long", now=1.0))
    gateway.end_round()
    gateway.say()
    where = ("--data-dir", str(gateway.folder))
    device = call(AGGREGATOR, "why", "a", *where).stdout
    assert "encoder/accel: its update of round 1 was refused (norm)" in device
    assert "took no part" not in device
    assert "encoder/accel: took no part in round 1" in call(AGGREGATOR, "why", "c", *where).stdout
    block = call(AGGREGATOR, "why", "encoder/accel", *where).stdout
    assert "held in round 1: 2 refused (norm), none accepted" in block
    assert "refused in round 1: a (norm), b (norm); next: blossom-aggregator why a" in block
    assert "nobody trained it" not in block


@pytest.mark.torch
@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_while_one_round_follows_the_other_two_devices_are_forgotten_at_the_same_time(place: Place) -> None:
    pytest.importorskip("torch")
    place.serve("--set=schedule.stop_rounds=0", "--set=rounds.min_devices=2")
    devices = {name: place.join(name, *ONLY_ACCEL) for name in ("a", "b", "c", "d")}
    place.wait_for(lambda: all(place.at_gateway(name).get("participant") for name in devices), "all four take part")
    for name in "ab":
        assert devices[name].end(15) == 0
    place.wait_for(lambda: not place.at_gateway("a")["online"] and not place.at_gateway("b")["online"], "both left")
    before = place.gateway()["round"]
    with ThreadPoolExecutor(2) as pool:
        where = ("--data-dir", str(place.gateway_folder))
        told = [pool.submit(call, AGGREGATOR, "devices", "forget", name, *where) for name in "ab"]
    assert [t.result().stdout for t in told] == ["a is forgotten\n", "b is forgotten\n"]
    place.wait_for(lambda: [d["id"] for d in place.gateway()["devices"]] == ["c", "d"], "c and d alone are known")
    place.wait_for(lambda: place.gateway()["round"] > before, "rounds go on")
