"""The doctor's judgement: its exit code, the role, what it asks once only. The commands: tests/hil/test_doctor.py."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest

from blossom_edge.cli import doctor
from blossom_edge.cli.main import program
from blossom_edge.console.output import Output
from blossom_edge.console.program import run
from blossom_edge.core.errors import ConfigError
from blossom_edge.doctor import gateway, hardware
from blossom_edge.doctor.finding import Finding
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.live import LiveSensor
from firmware_profiles import load_profile

SENSOR = Finding("sensors", "imu: answers", "fail", "no")
GATEWAY = Finding("gateway", "reach", "fail", "no")
MACHINE = Finding("machine", "disk", "fail", "full")
FINE = Finding("sensors", "imu: rate", "ok", "50 Hz")
LOOK = Finding("sensors", "imu: rate", "warn", "49 Hz")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([FINE, LOOK], 0),
        ([MACHINE, FINE], 1),
        ([MACHINE, GATEWAY], 3),
        ([MACHINE, SENSOR, GATEWAY], 4),
    ],
)
def test_of_several_red_groups_sensors_come_before_the_gateway_and_the_machine(
    findings: list[Finding], code: int
) -> None:
    assert doctor.exit_status(findings) == code


@pytest.mark.parametrize(("words", "flag"), [(["--unplug"], "--unplug"), (["--report=x"], "--report")])
def test_what_only_the_suite_does_is_refused_without_it(
    words: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, ["doctor", "--profile=jetson-imu", *words]) == 2
    assert f"{flag} needs --hil" in capsys.readouterr().err


def test_a_role_that_takes_no_part_yet_is_no_green_line(tmp_path: Path) -> None:
    fits = gateway._fit(load_profile("generic-mock"), "har", tmp_path)
    assert fits.status == "ok"
    later = gateway._fit(load_profile("generic-mock", sets=["compute.role=infer"]), "har", tmp_path)
    assert later.status == "warn"
    assert later.detail == f"{fits.detail}, but role infer takes no part in rounds yet"
    assert "compute.role=train" in later.fix


def test_the_report_does_not_listen_again_to_a_sensor_that_did_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    before = LiveSensor.open

    def counted(self: LiveSensor) -> None:
        opened.append(self)
        before(self)

    monkeypatch.setattr(LiveSensor, "open", counted)
    profile, host = load_profile("jetson-imu"), Host(tmp_path / "nothing")
    host.root.mkdir()
    tested = hardware.subjects(profile, host, seconds=0.1)
    findings = list(hardware.check_sensors(tested, full=True))
    assert [finding.status for finding in findings] == ["fail"]
    path, trace = hardware.write_report(tmp_path / "hil", profile, tested, findings, host=host, stem="x")
    assert len(opened) == 1
    assert trace is None
    told = json.loads(path.read_text())
    assert (told["passed"], told["drivers"]) == (False, {})


def test_hands_are_asked_for_on_a_line_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    stream = Terminal()
    monkeypatch.setattr(click, "prompt", lambda wish, **_: asked.append((wish, stream.getvalue()[-1])))
    out = Output(stdout=io.StringIO(), stderr=stream, environ={})
    hands = doctor._hands(out)
    out.progress(1, 20, "sensors: imu: restart")
    hands.unplug("imu")
    assert asked == [("pull the plug of imu, then press Enter", "\n")]


def test_a_root_that_is_not_there_is_said_and_a_relative_one_is_meant_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOSSOM_ROOT", "board")
    with pytest.raises(ConfigError, match=r"found no folder .*/board, expected"):
        Host.here()
    (tmp_path / "board").mkdir()
    assert Host.here().root == tmp_path / "board"
    assert run(program, ["sensors", "find", "--json"]) == 0
    assert f"are read below {tmp_path / 'board'} (BLOSSOM_ROOT)" in capsys.readouterr().err
    monkeypatch.delenv("BLOSSOM_ROOT")
    assert Host.here().root == Path("/")
