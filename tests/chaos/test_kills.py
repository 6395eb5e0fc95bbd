"""Processes killed at the worst moments, and a broker that goes away: the federation goes on and comes to its end."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from live import ONLY_ACCEL, Ear, Place, Program, check_members, free_port, is_running, rounds_of

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.codec.envelope import decode
from blossom_edge.codec.messages import UploadChunk
from blossom_edge.testing.fault_proxy import FaultProxy

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.chaos,
    pytest.mark.torch,
    pytest.mark.broker,
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

LARGE = "--set=blocks.encoder/accel={type='mlp', widths=[1500, 400]}"
"""An encoder of 745,900 values: 3 MB, which takes seconds through a slow link."""
NUM_CHUNKS = 31
PATIENT = ["--set=rounds.rejoin_s=60.0", "--set=rounds.deadline_s=90.0"]
KILLED = -signal.SIGKILL


def two_devices(place: Place) -> list[Program]:
    return [place.join(name, *ONLY_ACCEL, f"--seed={seed}") for seed, name in enumerate("ab")]


def assert_whole(place: Place, num_rounds: int) -> list[dict[str, Any]]:
    """All rounds were committed, once each, every kept update stands in its commit, every device once in a round."""
    records = place.records()
    assert rounds_of(records) == list(range(1, num_rounds + 1))
    check_members(records)
    return records


def test_a_device_killed_in_mid_upload_sends_the_rest_when_it_is_back(place: Place) -> None:
    gateway = place.serve("--until-finished", LARGE, *PATIENT, "--set=schedule.stop_rounds=1")
    ear = Ear(place.port)
    proxy = FaultProxy(place.port)
    proxy.up.rate_bps = 3_200_000
    try:
        other = place.join("b", *ONLY_ACCEL, "--seed=1")
        device = place.join("a", *ONLY_ACCEL, gateway=f"127.0.0.1:{proxy.port}")
        place.wait_for(lambda: len(_chunks(ear, "a")) >= 10, "a third of the update of a has arrived")
        assert device.end(signal.SIGKILL) == KILLED
        proxy.close()
        place.wait_for(lambda: place.at_gateway("a")["online"] is False, "the gateway got the will of a")
        assert place.gateway()["phase"] == "open"
        arrived = _chunks(ear, "a")
        device = place.join("a", "-v", *ONLY_ACCEL)
        assert [program.wait() for program in (device, other, gateway)] == [0, 0, 0]
        again = _chunks(ear, "a")[len(arrived) :]
    finally:
        ear.close()
        proxy.close()

    records = assert_whole(place, 1)
    commit = next(r for r in records if r["type"] == "commit")
    assert commit["blocks"]["encoder/accel"]["members"] == ["a", "b"]
    assert sorted({*arrived, *again}) == list(range(NUM_CHUNKS))
    assert set(arrived).isdisjoint(again), "what had arrived was sent again"
    assert "link-up" in device.err
    assert "round-trained" not in device.err, "it was trained again"


def test_the_gateway_killed_in_mid_round_after_it_kept_an_update_counts_it_once(place: Place) -> None:
    # The ledger's records: genesis, start, two devices, open, then the first update that is kept.
    gateway = place.serve("--until-finished", *PATIENT, env={"BLOSSOM_FAILPOINT": "ledger:done#6"})
    broker = int((place.gateway_folder / "broker" / "mosquitto.pid").read_text())
    devices = two_devices(place)
    assert gateway.wait() == KILLED
    place.wait_for(lambda: not is_running(broker), "the broker dies with the gateway")
    assert [r["type"] for r in place.records()] == ["genesis", "start", "device", "device", "open", "accept"]

    gateway = place.serve("--until-finished", *PATIENT)
    assert [program.wait() for program in (*devices, gateway)] == [0, 0, 0]
    records = assert_whole(place, 3)
    assert [r["round"] for r in records if r["type"] == "reopen"] == [1]
    commit = next(r for r in records if r["type"] == "commit")
    assert commit["blocks"]["encoder/accel"]["members"] == ["a", "b"]
    assert sum(r["type"] == "accept" and r["round"] == 1 for r in records) == 2


@pytest.mark.parametrize(("place_of_death", "when"), [("ledger:done#8", "frozen"), ("ledger:done#9", "committed")])
def test_the_gateway_killed_when_a_round_is_frozen_or_just_committed_goes_on(
    place: Place, place_of_death: str, when: str
) -> None:
    gateway = place.serve("--until-finished", *PATIENT, env={"BLOSSOM_FAILPOINT": place_of_death})
    devices = two_devices(place)
    assert gateway.wait() == KILLED
    assert place.records()[-1]["type"] == {"frozen": "freeze", "committed": "commit"}[when]
    gateway = place.serve("--until-finished", *PATIENT)
    assert [program.wait() for program in (*devices, gateway)] == [0, 0, 0]
    records = assert_whole(place, 3)
    commit = next(r for r in records if r["type"] == "commit")
    assert commit["blocks"]["encoder/accel"]["members"] == ["a", "b"]


def test_the_gateway_killed_between_rounds_starts_again_on_its_folder_and_port(place: Place) -> None:
    paced = ["--until-finished", *PATIENT, "--set=schedule={every_s=3.0, stop_rounds=4}"]
    gateway = place.serve(*paced)
    broker = int((place.gateway_folder / "broker" / "mosquitto.pid").read_text())
    devices = two_devices(place)
    place.wait_for(lambda: place.gateway()["round"] >= 2 and not place.open_phase(), "between two rounds")
    assert gateway.end(signal.SIGKILL) == KILLED
    place.wait_for(lambda: not is_running(broker), "the broker dies with the gateway")
    assert place.records()[-1]["type"] == "commit"
    assert place.gateway()["running_here"] is False
    gateway = place.serve(*paced)
    assert [program.wait() for program in (*devices, gateway)] == [0, 0, 0]
    records = assert_whole(place, 4)
    assert [r["boot"] for r in records if r["type"] == "start"] == [1, 2]


def test_a_broker_that_is_gone_for_five_seconds_is_waited_for_by_both_sides(place: Place, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "broker"
    broker = start_broker("mosquitto", folder, port=port)
    try:
        gateway = place.serve("--until-finished", f"--broker=mqtt://127.0.0.1:{port}", *PATIENT, *_paced())
        devices = [place.join(n, *ONLY_ACCEL, gateway=f"127.0.0.1:{port}") for n in "ab"]
        place.wait_for(lambda: place.gateway()["round"] >= 1, "round 1")
        _kill(broker)
        place.wait_for(lambda: not place.gateway()["connected"], "the gateway knows")
        for name in "ab":
            place.wait_for(lambda name=name: place.device(name)["phase"] == "offline", f"{name} knows")
        gone_in = place.gateway()["round"]
        threading.Event().wait(5.0)  # the five seconds of this test's name, no state is waited for
        assert all(program.running() for program in (gateway, *devices))
        broker = start_broker("mosquitto", folder, port=port)
        assert [program.wait() for program in (*devices, gateway)] == [0, 0, 0]
    finally:
        broker.stop()
    records = assert_whole(place, 6)
    assert gone_in < 6
    assert [r["type"] for r in records].count("start") == 1


def _paced() -> list[str]:
    return ["--set=schedule={every_s=1.0, stop_rounds=6}"]


def _kill(broker: Broker) -> None:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    broker.stop()


def _chunks(ear: Ear, device: str) -> list[int]:
    """Indices of the chunks that the broker had from a device, in order."""
    payloads = [payload for topic, payload in list(ear.heard) if topic.endswith(f"/up/{device}/chunk")]
    messages = [decode(payload, allowed=(UploadChunk,)).message for payload in payloads]
    return [message.index for message in messages if isinstance(message, UploadChunk)]
