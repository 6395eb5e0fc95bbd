"""Wrong input that only a running gateway can tell: what a device or an operator is told, in one line, and the code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import AGGREGATOR, BOTH, ECG, EDGE, ONLY_ACCEL, Place, call, call_json, check_members

from aggregator.broker import start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.sensors.recordings import Recording, Stream, Track, write_recording

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.timeout(120)]


IN_VOLT = ", ".join(f"{{name='{name}', unit='V', range=[-4, 4]}}" for name in ("ax", "ay", "az"))

ROGUE = """
import sys
from dataclasses import replace
import numpy as np
import blossom_edge.client.round_end as round_end
from blossom_edge.core.blocks import BlockKey

honest, kind = round_end.make_updates, sys.argv.pop(1)
CHANGES = {
    "foreign": lambda u: replace(u, key=BlockKey.parse("encoder/gyro")),
    "nan": lambda u: replace(u, data=np.full(len(u.data) // 4, np.nan, dtype="<f4").tobytes()),
    "old": lambda u: replace(u, round=u.round - 1),
    "short": lambda u: replace(u, data=u.data[:-4]),
    "base": lambda u: replace(u, base_version=u.base_version + 7),
}
round_end.make_updates = lambda *args, **options: tuple(map(CHANGES[kind], honest(*args, **options)))
from blossom_edge.cli.main import main
main()
"""
"""The device's program, its updates changed in one way before they are offered."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that opens no round: two devices are never here."""
    place = Place(tmp_path_factory.mktemp("gateway"))
    place.serve("--set=rounds.min_devices=9")
    yield place
    place.close()


def refused(place: Place, device: str, *options: str) -> tuple[int, str]:
    """Exit code of a join and the one line it says on stderr."""
    program = place.join(device, *options)
    status = program.wait()
    assert program.err.count("\n") == 1, program.err
    assert program.err.startswith("error: ")
    return status, program.err


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (  # windows that are cut otherwise than the federation wants
            ["--profile=rpi4-accel", "--mock"],
            2,
            ["accel: the federation wants 50 Hz windows of 32 x 3 in m/s2", "128", "set window = 32, hop = 16"],
        ),
        (  # another unit
            [*ONLY_ACCEL, f"--set=sensors.imu.channels=[{IN_VOLT}]"],
            2,
            ["accel: the federation wants x in m/s2, this profile gives ax in V", "federation-mismatch"],
        ),
        (["--profile=ecg.toml", "--mock"], 3, ["learns from accel, gyro", "ecg", "choose another profile", "rejected"]),
        ([*ONLY_ACCEL, "--task=speed"], 3, ["no task speed here", "move", "--task"]),
        ([*ONLY_ACCEL, "--federation=har", "--wait=1"], 3, ["no aggregator of federation har", "gateway-silent"]),
        ([*ONLY_ACCEL, "--gateway-key=0000-0000-0000-0000"], 3, ["--gateway-key says 0000", "gateway-key"]),
        (["--profile=rpi4-accel", *ONLY_ACCEL[3:]], 4, ["imu: no source answered", "iio", "mpu6050", "--mock"]),
        (["--profile=rpi4-accel", *ONLY_ACCEL[3:], "--replay=g.npz"], 2, ["ax in g", "expected m/s2", "g.npz"]),
        (["--profile=rpi4-accel", *ONLY_ACCEL[3:], "--replay=other.npz"], 2, ["labels/move", "jump", "rest, walk"]),
    ],
)
def test_a_device_that_does_not_fit_is_told_what_differs(
    gateway: Place, options: list[str], status: int, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gateway.folder)
    (gateway.folder / "ecg.toml").write_text(ECG)
    write_recording(gateway.folder / "g.npz", _recording("g", "rest"))
    write_recording(gateway.folder / "other.npz", _recording("m/s2", "jump"))
    found, line = refused(gateway, "pi", *options)
    assert found == status, line
    assert [word for word in words if word not in line] == [], line


@pytest.mark.slow
def test_another_key_under_a_known_id_is_refused_until_the_operator_forgets_the_device(gateway: Place) -> None:
    first = gateway.join("twin", *ONLY_ACCEL)
    gateway.wait_for(lambda: gateway.at_gateway("twin").get("online"), "twin is here")
    assert first.end(15) == 0
    shutil.rmtree(gateway.edge_folder / "devices" / "twin")
    status, line = refused(gateway, "twin", *ONLY_ACCEL)
    assert status == 3
    assert "twin is known here under another key" in line
    assert "blossom-aggregator devices forget twin" in line
    at_gateway = ["--data-dir", str(gateway.gateway_folder)]
    gateway.wait_for(lambda: gateway.gateway()["refusals"].get("hello-key"), "the gateway counts the refusal")
    assert call([*AGGREGATOR, "devices", "forget", "twin", *at_gateway]).returncode == 0
    again = gateway.join("twin", *ONLY_ACCEL)
    gateway.wait_for(lambda: gateway.at_gateway("twin").get("online"), "twin is taken under its new key")
    assert again.end(15) == 0


def test_a_second_join_with_the_same_id_from_the_same_folder_is_refused(gateway: Place) -> None:
    first = gateway.join("only-one", *ONLY_ACCEL)
    gateway.wait_for(lambda: gateway.at_gateway("only-one").get("online"), "the first is here")
    second = gateway.join("only-one", *ONLY_ACCEL)
    assert second.wait() == 1
    line = second.err.splitlines()[-1]
    assert "folder-in-use" in line
    assert f"process {first.pid}" in line
    assert first.running()
    assert first.end(15) == 0


@pytest.mark.slow
def test_a_gateway_that_shows_another_key_than_the_trusted_one_is_not_joined(place: Place) -> None:
    first_gateway = place.serve("--set=rounds.min_devices=9")
    device = place.join("pi", *ONLY_ACCEL)
    place.wait_for(lambda: place.device("pi").get("connected"), "pi is here")
    assert device.end(15) == 0
    assert first_gateway.end(15) == 0
    shutil.rmtree(place.gateway_folder)
    place.serve("--set=rounds.min_devices=9")
    status, line = refused(place, "pi", *ONLY_ACCEL)
    assert status == 3
    assert "this device trusts" in line
    assert "trust.json" in line
    assert "gateway-key" in line


@pytest.mark.slow
def test_a_modality_that_nobody_has_is_told_by_serve_status_and_why(place: Place) -> None:
    gateway = place.serve("--until-finished", "--set=schedule.stop_rounds=1", "--set=rounds.min_devices=1")
    assert place.join("a", *ONLY_ACCEL).wait() == 0
    assert gateway.wait() == 0
    words = "encoder/gyro: no device has gyro"
    assert sum(words in line for line in gateway.err.splitlines()) == 1
    at_gateway = ["--data-dir", str(place.gateway_folder)]
    status = call_json(AGGREGATOR, "status", *at_gateway)
    assert any(words in warning for warning in status["warnings"])
    assert any("encoder/accel: 1 owner" in warning for warning in status["warnings"])
    assert any(words in line for line in call_json(AGGREGATOR, "why", "encoder/gyro", *at_gateway)["why"])


@pytest.mark.slow
def test_updates_that_may_not_come_in_are_refused_by_type_and_the_round_ends_without_them(place: Place) -> None:
    kinds = {"foreign": "policy", "nan": "nonfinite", "old": "stale", "short": "size", "base": "stale"}
    gateway = place.serve(
        "--until-finished", "--set=schedule.stop_rounds=1", "--set=rounds={min_devices=6, deadline_s=30.0}"
    )
    honest = place.join("honest", *ONLY_ACCEL)
    common = ["--data-dir", str(place.edge_folder), "--speed=0", "--gateway", f"127.0.0.1:{place.port}", *ONLY_ACCEL]
    rogues = [place.run_script(kind, ROGUE, kind, "join", f"--id={kind}", *common) for kind in kinds]
    for program in (honest, *rogues, gateway):
        assert program.wait(timeout_s=100.0) == 0, program.err  # six imports of torch, then the whole deadline

    records = place.records()
    check_members(records)
    commit = next(record for record in records if record["type"] == "commit")
    assert commit["blocks"]["encoder/accel"]["members"] == ["honest"]
    assert [record["device"] for record in records if record["type"] == "accept"] == ["honest"]

    at_gateway = ["--data-dir", str(place.gateway_folder)]
    status = call_json(AGGREGATOR, "status", *at_gateway)
    assert status["refusals"] == {"nonfinite": 1, "policy": 1, "size": 1, "stale": 2}
    figures = {
        "foreign": "foreign (accel) does not own encoder/gyro",
        "nan": "NaN or infinity in the update",
        "old": "round 0 is over",
        "short": "an update of encoder/accel has",
        "base": "trained on version 7, the plan says 0",
    }
    for device, kind in kinds.items():
        told = call_json(AGGREGATOR, "why", device, *at_gateway)["why"]
        assert any(f"({kind})" in line and figures[device] in line for line in told), told
        own = call_json(EDGE, "why", "--id", device, "--data-dir", str(place.edge_folder))["why"]
        assert any(figures[device] in line for line in own), own
    assert np.isfinite(commit["score"]["move.loss"]).all()


def _recording(unit: str, name: str) -> Recording:
    """A minute of acceleration in some unit, with one class."""
    values = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    track = Track(0.0, values, {"move": np.zeros(3000, dtype=np.int64)})
    return Recording("r", {"imu": Stream(("ax", "ay", "az"), (unit,) * 3, 50.0, {0: track})}, {"move": (name,)})


def test_both_modalities_are_told_when_both_differ(gateway: Place) -> None:
    status, line = refused(gateway, "pi", *BOTH, "--set=modalities.accel.window=64", "--set=modalities.gyro.window=64")
    assert status == 2
    assert "accel: the federation wants" in line
    assert "gyro: the federation wants" in line


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_gateway_whose_login_another_broker_refuses_says_so_and_ends(tmp_path: Path, kind: str) -> None:
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with start_broker(kind, tmp_path / "broker", port=0, device_password="right") as broker:
        address = f"mqtt://device:wrong@{broker.address.host}:{broker.port}"
        done = call(AGGREGATOR, "serve", "--federation=har", f"--data-dir={tmp_path / 'gw'}", f"--broker={address}")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert "refused the connection" in last
    assert "--broker mqtt://USER:PASSWORD@HOST:PORT" in last
    assert last.endswith("[login-refused]")
    assert "wrong" not in done.stdout + done.stderr
