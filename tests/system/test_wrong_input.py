"""Wrong input that needs no gateway: one line with what was found, what is expected and the next step, and a code."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from live import ECG, ONLY_ACCEL, TINY, free_port

from aggregator.broker.mosquitto import find_mosquitto
from aggregator.cli import program as aggregator
from blossom_edge.cli.main import program as edge
from blossom_edge.client.store import Store
from blossom_edge.console.program import LazyGroup, run
from blossom_edge.core.errors import StorageError
from blossom_edge.durable import FolderLock

JOIN = ["join", "--gateway=127.0.0.1:1", "--wait=0.5"]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a federation, a profile and recordings that are wrong in one place each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "misspelt.toml").write_text(TINY.replace("deadline_s", "deadine_s"))
    (tmp_path / "unknown-key.toml").write_text(ECG.replace("hop =", "hopp ="))
    (tmp_path / "long-hop.toml").write_text(ECG.replace("hop = 320", "hop = 641"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-unit.csv").write_text("time [s],ax,ay,az\n0,1,2,3\n1,1,2,3\n")
    (tmp_path / "words.csv").write_text("time [s],ax [m/s2],ay [m/s2],az [m/s2]\n0,1,2,3\n1,1,2,much\n")
    (tmp_path / "not.npz").write_bytes(b"no archive at all")
    return tmp_path


def refusal(program: LazyGroup, args: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line that is said."""
    status = run(program, args)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1, shown.err
    assert "Traceback" not in shown.err
    return status, shown.err


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--profile=jetson-imuu"], 2, ["'jetson-imuu'", "did you mean 'jetson-imu'?", "profile-not-found"]),
        (["--profile=./unknown-key.toml"], 2, ["unknown-key.toml", "modalities.ecg.hopp", "did you mean 'hop'?"]),
        (["--profile=./long-hop.toml"], 2, ["long-hop.toml", "hop 641", "window 640", "profile-invalid"]),
        (["--profile=jetson-imu", "--set=modalities.accel.hop=200"], 2, ["--set", "hop 200", "window 128"]),
        (["--profile=jetson-imu", "--set=limits.train_nise=1"], 2, ["limits.train_nise", "did you mean"]),
        (["--profile=jetson-imu", "--publish"], 2, ["--publish", "compute.role train", "compute.role=infer"]),
        (["--profile=jetson-imu", "--label=har"], 2, ["'har'", "TASK=CLASS", "usage"]),
        (["--profile=jetson-imu", "--mock", "--label=har=PEN"], 2, ["--label", "--mock", "usage"]),
        (["--profile=jetson-imu", "--id=Bad Id"], 2, ["'Bad Id'", "a-z, 0-9", "bad-name"]),
        (["--profile=jetson-imu", "--labels-per-class=0"], 2, ["'0'", "'all'", "usage"]),
        (["--profile=jetson-imu", "--mock", "--replay=empty"], 2, ["--mock", "--replay", "leave one"]),
        (["--profile=jetson-imu", "--replay=nowhere/3"], 2, ["nowhere/3", "data sample", "replay-invalid"]),
        (["--profile=jetson-imu", "--replay=empty"], 2, ["empty", "person.npz", ".csv", "data sample"]),
        (["--profile=rpi4-accel", "--replay=no-unit.csv"], 2, ["no-unit.csv", "ax", "unit", "replay-invalid"]),
        (["--profile=rpi4-accel", "--replay=words.csv"], 2, ["words.csv", "much", "replay-invalid"]),
        (["--profile=rpi4-accel", "--replay=not.npz"], 2, ["not.npz", "replay-invalid"]),
        ([*ONLY_ACCEL], 3, ["127.0.0.1:1", "refused", "serve", "gateway-unreachable"]),
        ([*ONLY_ACCEL, "--gateway=localhost:many"], 2, ["localhost:many", "host:port", "settings-invalid"]),
    ],
)
def test_join_says_in_one_line_what_is_wrong_and_what_to_do(
    in_folder: Path, args: list[str], status: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = refusal(edge, [*JOIN, "--data-dir=edge", *args], capsys)
    assert found == status, line
    assert [word for word in words if word not in line] == [], line


def test_join_without_any_address_lists_what_was_tried(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, line = refusal(edge, ["join", "--data-dir=edge", *ONLY_ACCEL], capsys)
    assert status == 3
    assert "BLOSSOM_GATEWAY: not set" in line
    assert "the last join: not set" in line
    assert "--gateway HOST:PORT" in line
    (in_folder / "edge").mkdir()
    port = free_port()
    (in_folder / "edge" / "gateway.json").write_text(json.dumps({"address": f"127.0.0.1:{port}"}))
    monkeypatch.setenv("BLOSSOM_GATEWAY", "127.0.0.1:1")
    status, line = refusal(edge, ["join", "--data-dir=edge", "--wait=0.5", *ONLY_ACCEL], capsys)
    assert status == 3
    assert "BLOSSOM_GATEWAY: 127.0.0.1:1" in line
    assert f"the last join: 127.0.0.1:{port}" in line


def test_a_device_folder_in_use_is_refused_naming_who_has_it(in_folder: Path) -> None:
    folder = in_folder / "edge" / "devices" / "pi"
    folder.mkdir(parents=True)
    with FolderLock.acquire(folder, what="device pi"), pytest.raises(StorageError) as refused:
        Store(in_folder / "edge", "pi")
    assert refused.value.error_id == "folder-in-use"
    assert f"process {os.getpid()}" in refused.value.line()
    assert refused.value.hint


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--federation=harr"], 2, ["'harr'", "did you mean 'har'?", "federation-not-found"]),
        (["--federation=misspelt.toml"], 2, ["misspelt.toml", "rounds.deadine_s", "did you mean 'deadline_s'?"]),
        (["--federation=tiny.toml", "--set=modalities.accel.hop=33"], 2, ["modalities.accel.hop", "33", "32 samples"]),
        (["--federation=tiny.toml", "--set=training.lr=fast"], 2, ["training.lr", "'fast'", "number"]),
        (["--federation=tiny.toml", "--set=blocks.head/move.visibility=dual"], 2, ["head/move", "dual"]),
        ([], 2, ["holds no federation yet", "--federation"]),
        (["--federation=tiny.toml", "--listen=here"], 2, ["--listen", "'here'", "127.0.0.1"]),
        (["--federation=tiny.toml", "--port=99999"], 2, ["--port", "99999", "65535"]),
        (["--federation=tiny.toml", "--broker=rabbit"], 2, ["--broker", "'rabbit'", "mosquitto, amqtt"]),
        (["--federation=tiny.toml", "--listen=203.0.113.7"], 3, ["203.0.113.7", "--listen"]),
    ],
)
def test_serve_says_in_one_line_what_is_wrong_and_what_to_do(
    in_folder: Path, args: list[str], status: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = refusal(aggregator, ["serve", "--data-dir=gateway", *args], capsys)
    assert found == status, line
    assert [word for word in words if word not in line] == [], line


@pytest.mark.slow
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_serve_on_a_taken_port_names_the_port_and_who_has_it(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        status, line = refusal(
            aggregator, ["serve", "--federation=tiny.toml", "--data-dir=gateway", f"--port={port}"], capsys
        )
    assert status == 3
    assert re.search(rf"port {port} is taken by \S+ \(pid {os.getpid()}\)", line)
    assert "--port" in line


def test_serve_on_the_data_folder_of_another_federation_names_both(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from aggregator.recovery import open_truth
    from blossom_edge.federation.load import load_federation

    truth = open_truth(in_folder / "gateway", load_federation("har"))
    truth.ledger.close()
    status, line = refusal(aggregator, ["serve", "--federation=tiny.toml", "--data-dir=gateway"], capsys)
    assert status == 2
    assert "holds federation har" in line
    assert "not tiny" in line
    assert "--data-dir" in line
    assert "federation-changed" in line
    status, line = refusal(aggregator, ["serve", "--set=seed=1", "--data-dir=gateway"], capsys)
    assert status == 2
    assert "--set" in line


def test_a_second_gateway_on_the_same_folder_is_refused(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "gateway").mkdir()
    with FolderLock.acquire(in_folder / "gateway", what="gateway"):
        status, line = refusal(aggregator, ["serve", "--federation=tiny.toml", "--data-dir=gateway"], capsys)
    assert status == 1
    assert "folder-in-use" in line
    assert f"process {os.getpid()}" in line


@pytest.mark.parametrize("args", [["status"], ["why", "pi"], ["pause"], ["devices", "forget", "pi"]])
def test_commands_to_a_gateway_that_never_ran_name_the_folder(
    in_folder: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = refusal(aggregator, [*args, "--data-dir=nowhere"], capsys)
    assert status == 1
    assert "nowhere" in line
    assert "--data-dir" in line


@pytest.mark.parametrize("args", [["status"], ["why"], ["privacy"]])
def test_commands_about_a_device_that_never_joined_name_the_folder(
    in_folder: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = refusal(edge, [*args, "--data-dir=nowhere"], capsys)
    assert status in (1, 2)
    assert "nowhere" in line
