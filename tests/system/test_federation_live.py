"""A whole federation as a user runs it: the two programs as processes, a real broker, what they say of themselves."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from live import AGGREGATOR, BOTH, EDGE, ONLY_ACCEL, ONLY_GYRO, Place, call, call_json, check_members, rounds_of

from aggregator.broker.mosquitto import find_mosquitto

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.timeout(120)]


def test_three_devices_with_different_sensors_come_to_the_end_of_their_federation(place: Place) -> None:
    gateway = place.serve("--until-finished")
    devices = [place.join("both", *BOTH), place.join("a", *ONLY_ACCEL), place.join("g", *ONLY_GYRO)]

    assert [device.wait() for device in devices] == [0, 0, 0]
    assert gateway.wait() == 0
    records = place.records()
    assert rounds_of(records) == [1, 2, 3]
    last = next(record for record in reversed(records) if record["type"] == "commit")
    assert set(last["blocks"]) == {"encoder/accel", "encoder/gyro"}
    assert "both" in last["blocks"]["encoder/accel"]["members"]
    assert check_members(records) >= 6

    at_gateway = ["--data-dir", str(place.gateway_folder)]
    status = call_json(AGGREGATOR, "status", *at_gateway)
    assert (status["running"], status["round"], status["running_here"]) == ("finished", 3, False)
    assert {d["id"]: d["modalities"] for d in status["devices"]} == {
        "a": ["accel"],
        "both": ["accel", "audio", "ecg", "gyro"],
        "g": ["gyro"],
    }
    assert status["refusals"] == {}
    assert status["dropped"] == {}
    assert call_json(AGGREGATOR, "why", "encoder/accel", *at_gateway)["why"]
    assert call_json(AGGREGATOR, "why", "g", *at_gateway)["why"]

    here = ["--data-dir", str(place.edge_folder), "--id", "g"]
    own = call_json(EDGE, "status", *here)
    assert (own["phase"], own["running_here"]) == ("finished", False)
    assert own["private"] == ["fusion/move", "fusion/move.gyro", "head/move"]
    assert own["versions"] == {"encoder/gyro": 3}
    assert own["score_round"] == 4
    assert call_json(EDGE, "why", *here)["why"]
    for command in (
        [*AGGREGATOR, "status", *at_gateway],
        [*AGGREGATOR, "why", "g", *at_gateway],
        [*EDGE, "status", *here],
        [*EDGE, "why", *here],
        [*EDGE, "privacy", *here],
    ):
        done = call(command)
        assert done.returncode == 0, done
        assert all(line.startswith("warning: ") for line in done.stderr.splitlines()), done
        assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout


def test_what_leaves_a_device_is_said_at_the_join_and_again_later(place: Place) -> None:
    place.serve("--until-finished", "--set=schedule.stop_rounds=1", "--set=rounds.min_devices=1")
    log = place.folder / "g.log"
    device = place.join("g", *ONLY_GYRO, f"--log-file={log}", "--log-format=json")
    assert device.wait() == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["event"] for e in events if e.get("round") == 1] == ["round-trained", "update-kept", "round-committed"]
    assert [e["block"] for e in events if e["event"] == "update-kept"] == ["encoder/gyro"]
    assert "learns on cpu" in device.out
    said = call_json(EDGE, "privacy", "--data-dir", str(place.edge_folder), "--id", "g")
    text = str(said)
    assert "encoder/gyro" in text
    assert "head/move" in text
    assert "encoder/accel" not in text
    again = call([*EDGE, "privacy", "--data-dir", str(place.edge_folder), "--id", "g"]).stdout.strip()
    assert again.splitlines()[-1] in device.out


@pytest.mark.slow
def test_a_device_comes_late_leaves_and_comes_back_under_the_same_id(place: Place) -> None:
    gateway = place.serve("--until-finished", "--set=schedule.stop_rounds=0")
    first, guest = place.join("a", *ONLY_ACCEL), place.join("guest", *BOTH)
    place.wait_for(lambda: place.gateway()["round"] >= 2, "round 2")
    late = place.join("late", *ONLY_GYRO)
    place.wait_for(lambda: place.device("late").get("versions", {}).get("encoder/gyro", 0) >= 3, "late has version 3")

    guest.send(signal.SIGINT)
    assert guest.wait() == 130
    place.wait_for(lambda: place.at_gateway("guest")["online"] is False, "the gateway knows that the guest left")
    left_in = place.gateway()["round"]
    place.wait_for(lambda: place.gateway()["round"] >= left_in + 2, "the others go on without it")

    guest = place.join("guest", *BOTH)
    place.wait_for(lambda: place.at_gateway("guest")["online"], "the guest is here again")
    back_in = place.gateway()["round"]
    during = call_json(AGGREGATOR, "status", "--data-dir", str(place.gateway_folder))
    assert during["running_here"]
    assert {d["id"] for d in during["devices"]} == {"a", "guest", "late"}
    place.wait_for(lambda: place.device("guest").get("round", 0) >= back_in + 2, "the guest takes part again")
    finished = call([*AGGREGATOR, "finish", "--data-dir", str(place.gateway_folder)])
    assert finished.returncode == 0, finished.stderr
    assert [program.wait() for program in (first, late, guest, gateway)] == [0, 0, 0, 0]

    records = place.records()
    check_members(records)
    opened = {record["round"]: record["participants"] for record in records if record["type"] == "open"}
    assert "late" not in opened[1]
    assert "guest" not in opened[left_in + 2]
    assert "guest" in opened[max(opened)]
    kept = {(r["round"], r["block"]) for r in records if r["type"] == "accept" and r["device"] == "guest"}
    assert {block for number, block in kept if number > back_in} == {"encoder/accel", "encoder/gyro"}


@pytest.mark.slow
def test_a_second_device_needs_no_address_and_a_pause_stops_the_rounds_until_resume(place: Place) -> None:
    at_gateway = ["--data-dir", str(place.gateway_folder)]
    gateway = place.serve("--until-finished", "--set=schedule.stop_rounds=0")
    devices = [place.join("a", *ONLY_ACCEL)]
    place.wait_for((place.edge_folder / "gateway.json").exists, "a has joined")
    devices.append(place.join("b", *ONLY_ACCEL, "--seed=1", gateway=""))
    place.wait_for(lambda: place.gateway()["round"] >= 1, "round 1")
    assert call([*AGGREGATOR, "pause", *at_gateway]).returncode == 0
    paused_in = place.wait_for(
        lambda: place.gateway()["running"] == "paused" and not place.open_phase() and place.gateway()["round"], "pause"
    )
    assert "paused" in call([*AGGREGATOR, "status", *at_gateway]).stdout
    assert place.gateway()["round"] == paused_in
    assert call([*AGGREGATOR, "resume", *at_gateway]).returncode == 0
    place.wait_for(lambda: place.gateway()["round"] >= paused_in + 1, "the next round")
    assert call([*AGGREGATOR, "finish", *at_gateway]).returncode == 0
    assert [program.wait() for program in (*devices, gateway)] == [0, 0, 0]


@pytest.mark.slow
def test_ctrl_c_at_the_gateway_leaves_no_broker_and_no_taken_port(place: Place) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    gateway = place.serve()
    device = place.join("a", *ONLY_ACCEL)
    place.wait_for(lambda: place.device("a").get("connected"), "a has joined")
    assert gateway.end(signal.SIGINT) in (0, 130)
    place.wait_for(lambda: "the gateway is gone" in device.err, "a knows that the gateway is gone")
    place.wait_for(lambda: place.device("a")["phase"] == "offline", "a says so in its status")
    assert device.running()
    assert "the gateway does not answer" in str(
        call_json(EDGE, "why", "--data-dir", str(place.edge_folder), "--id", "a")["why"]
    )
    assert device.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_the_broker_inside_the_gateway_process_carries_a_federation_too(place: Place) -> None:
    pytest.importorskip("amqtt")
    gateway = place.serve("--until-finished", "--broker=amqtt")
    devices = [place.join("both", *BOTH), place.join("g", *ONLY_GYRO)]
    assert [device.wait() for device in devices] == [0, 0], [d.err for d in devices]
    assert gateway.wait() == 0
    assert "they stop together" in gateway.out
    assert rounds_of(place.records()) == [1, 2, 3]
    check_members(place.records())
    assert "Traceback" not in gateway.err


@pytest.mark.slow
def test_a_gateway_that_listens_on_every_address_lets_in_who_has_its_password(place: Place) -> None:
    gateway = place.serve("--until-finished", "--listen=0.0.0.0", "--set=schedule.stop_rounds=1")
    line = place.wait_for(lambda: [x for x in gateway.out.splitlines() if "join with" in x], "the join line")[0]
    word = line.rpartition("--password ")[2]
    assert (place.gateway_folder / "device.password").stat().st_mode & 0o777 == 0o600
    assert len(word) >= 12
    outsider = place.join("outsider", *ONLY_ACCEL)
    wrong = place.join("wrong", *ONLY_ACCEL, "--password=guess")
    for refused in (outsider, wrong):
        assert refused.wait() == 3
        assert refused.err.count("\n") == 1
        assert "login-refused" in refused.err
        assert "--password" in refused.err
    inside = [
        place.join("a", *ONLY_ACCEL, f"--password={word}"),
        place.join("b", *ONLY_GYRO, env={"BLOSSOM_PASSWORD": word}),
    ]
    assert [device.wait() for device in inside] == [0, 0]
    assert gateway.wait() == 0
    texts = [path.read_text(errors="replace") for path in _text_files(place.folder)]
    assert [word for text in texts if word in text] == []


def _text_files(folder: Path) -> list[Path]:
    """What was written and said, but for the password file and the line that is to show the password."""
    return [p for p in folder.rglob("*") if p.is_file() and p.name not in ("device.password", "serve0.out")]


@pytest.mark.slow
def test_insecure_lan_listens_without_a_password_and_says_so(place: Place) -> None:
    gateway = place.serve("--until-finished", "--listen=0.0.0.0", "--insecure-lan", "--set=schedule.stop_rounds=1")
    devices = [place.join("a", *ONLY_ACCEL), place.join("b", *ONLY_GYRO)]
    assert [device.wait() for device in devices] == [0, 0]
    assert gateway.wait() == 0
    assert "--password" not in gateway.out
    assert "without a password" in gateway.out + gateway.err
