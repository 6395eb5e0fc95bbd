"""`blossom-edge doctor` as a person runs it: on fake hardware, without hardware, against a real broker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.doctor.gateway import PAYLOAD_BYTES
from blossom_edge.sensors.recordings import read_recording
from blossom_edge.testing import needs
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.processes import free_port
from tests.live import until

pytest.importorskip("serial")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def doctor(folder: Path, *options: str, root: Path | None = None) -> tuple[int, dict[str, Any], str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env.pop("BLOSSOM_GATEWAY", None)
    if root is not None:
        env["BLOSSOM_ROOT"] = str(root)
    command = [sys.executable, "-m", "blossom_edge.cli.main", "doctor", "--json", "--data-dir", str(folder / "data")]
    if "--profile=serial-ecg" in options:
        command.append("--set=compute.role=train")  # its own role needs onnxruntime, which is not always here
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=140,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def of(report: dict[str, Any], check: str) -> dict[str, Any]:
    return next(finding for finding in report["findings"] if finding["check"] == check)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeBoard]:
    with FakeBoard("serial-ecg", tmp_path / "board") as board:
        board.activity = 1
        yield board


def test_a_board_that_works_is_well_and_its_trace_can_be_replayed(
    board: FakeBoard, tmp_path: Path, replay_trace: Callable[..., Any]
) -> None:
    code, report, said = doctor(
        tmp_path, "--profile=serial-ecg", "--hil", "--seconds=2", "--id=me", root=board.host.root
    )
    assert code == 0, (report, said)
    assert report["healthy"]
    assert of(report, "ecg: rate")["status"] == "ok"
    assert of(report, "ecg: unplug")["status"] == "skip"
    written = json.loads((tmp_path / report["report"]).read_text())
    assert written["passed"]
    assert written["profile"] == "serial-ecg"
    trace = tmp_path / report["trace"]
    recording = read_recording(trace)
    assert recording.streams["ecg"].units == ("V",)
    assert recording.streams["ecg"].rate_hz == pytest.approx(250, rel=0.05)
    played = replay_trace(trace, "serial-ecg")["ecg"].read(0.0)
    values = np.concatenate([reading.values for reading in played])
    assert 0.0005 < values.max() < 0.0012  # a beat of a millivolt


def test_without_its_hardware_the_red_line_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    code, report, _ = doctor(tmp_path, "--profile=serial-ecg", root=tmp_path / "nothing")
    assert code == 4
    red = [finding for finding in report["findings"] if finding["status"] == "fail"]
    assert [finding["check"] for finding in red] == ["ecg: answers"]
    assert "serial: " in red[0]["detail"]
    assert "sensors find" in red[0]["fix"]


def test_a_sensor_at_half_its_rate_is_red(board: FakeBoard, tmp_path: Path) -> None:
    board.fakes["ecg"].rate(0.5)
    code, report, _ = doctor(tmp_path, "--profile=serial-ecg", "--seconds=2", root=board.host.root)
    assert code == 4
    rate = of(report, "ecg: rate")
    assert rate["status"] == "fail"
    assert "the driver says 250 Hz" in rate["detail"]


def test_without_sensor_and_gateway_the_code_is_that_of_the_sensor(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    where = f"--gateway=127.0.0.1:{free_port()}"
    code, report, said = doctor(tmp_path, "--profile=serial-ecg", where, root=tmp_path / "nothing")
    red = [finding["group"] for finding in report["findings"] if finding["status"] == "fail"]
    assert red == ["sensors", "gateway"]
    assert code == 4
    assert f"are read below {tmp_path / 'nothing'}" in said


def test_a_simulated_sensor_is_said_and_not_red(tmp_path: Path) -> None:
    code, report, _ = doctor(tmp_path, "--profile=generic-mock")
    sensors = {finding["check"]: finding for finding in report["findings"] if finding["group"] == "sensors"}
    assert {check: finding["status"] for check, finding in sensors.items()} == {
        "ecg: answers": "skip",
        "imu: answers": "skip",
        "mic: answers": "skip",
    }
    assert sensors["imu: answers"]["detail"] == "simulated (synthetic): nothing to check"
    assert code == 0


def test_where_nobody_can_pull_a_plug_that_is_said(board: FakeBoard, tmp_path: Path) -> None:
    code, told, said = doctor(
        tmp_path, "--profile=serial-ecg", "--hil", "--unplug", "--seconds=1", root=board.host.root
    )
    assert (code, told["error"]["id"]) == (2, "usage")
    assert "pull the plug of ecg, then press Enter" in said
    assert said.splitlines()[-1].startswith("error: the input ended at a question")


@pytest.mark.broker
def test_the_way_to_a_gateway_is_proved_by_sending(
    board: FakeBoard, tmp_path: Path, gateway: Callable[..., Any]
) -> None:
    running = gateway("har")
    where = f"--gateway={running.address}"
    code, report, _ = doctor(tmp_path, "--profile=serial-ecg", "--seconds=1", where, root=board.host.root)
    assert of(report, "reach")["detail"] == f"federation har at {running.address}"
    assert of(report, "packet size")["status"] == "ok"
    assert f"{PAYLOAD_BYTES:,} bytes is acknowledged" in of(report, "packet size")["detail"]
    assert of(report, "will")["status"] == "ok"
    assert of(report, "federation")["status"] == "fail"  # an ECG and a federation of motion
    assert "nothing in common" in of(report, "federation")["detail"]
    assert code == 3
    assert running.status()["devices"] == []  # it joined nothing


def test_nothing_at_the_address_is_red(board: FakeBoard, tmp_path: Path) -> None:
    where = f"--gateway=127.0.0.1:{free_port()}"
    code, report, _ = doctor(tmp_path, "--profile=serial-ecg", "--seconds=1", where, root=board.host.root)
    assert code == 3
    assert of(report, "reach")["status"] == "fail"


@pytest.mark.broker
@needs.program("mosquitto", package="mosquitto")
def test_a_broker_that_takes_small_messages_only_is_named_with_its_setting(tmp_path: Path) -> None:
    from blossom_edge.doctor.gateway import _Client, _size
    from blossom_edge.transport.address import Address

    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size 20000\n")
    broker = subprocess.Popen([shutil.which("mosquitto") or "", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        with _Client(Address.parse(f"127.0.0.1:{port}"), "doctor-test") as client:
            finding = _size(client, "bl/1/har/up/doctor-test/probe")
    finally:
        broker.kill()
        broker.wait()
    assert finding.status == "fail"
    assert finding.detail == f"16,384 bytes are acknowledged, {PAYLOAD_BYTES:,} are not"
    assert "max_packet_size" in finding.fix


def _wait_for(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, f"somebody who listens on {port}", ())
