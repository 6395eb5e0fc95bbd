"""What `blossom-edge status` says beside rounds: energy of the last training, and sensors that are absent."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from blossom_edge.cli.status import read_status, status, why
from blossom_edge.core.errors import ConfigError

STATUS = {
    "device": "a", "modalities": ["accel"], "federation": "har", "round": 3, "phase": "waiting", "detail": "",
    "deadline_in_s": None, "score": {}, "score_round": 3, "versions": {}, "sent": {}, "outcomes": {}, "private": [],
    "bytes": {"1": [10, 20]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"energy_j": 41.26}, "energy of the last training: 41.3 J"),
        ({"energy_j": None}, "energy of the last training: not measured"),
        ({}, "energy of the last training: not measured"),  # written by an earlier release
    ],
)
def test_status_tells_the_energy_of_the_last_training(
    tmp_path: Path, more: dict[str, float | None], expected: str
) -> None:
    folder = tmp_path / "devices" / "a"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({**STATUS, **more}))
    done = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == expected


def test_an_absent_sensor_is_told_with_its_reason_and_since_when_in_local_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    folder = tmp_path / "devices" / "a"
    folder.mkdir(parents=True)
    well = {"state": "ok", "reason": "", "since_utc": None}
    gone = {"state": "stuck", "reason": "ax showed 9.8 for 64 samples", "since_utc": "2026-11-24T12:00:00.000+00:00"}
    unknown = {"state": "unplugged", "reason": "no device", "since_utc": None}
    sensors = {"ecg": well, "imu": gone, "mic": unknown}
    (folder / "status.json").write_text(json.dumps({**STATUS, "sensors": sensors, "connected": True}))
    done = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    monkeypatch.undo()
    time.tzset()
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "sensor imu is absent since 2026-11-24 14:00:00 +02, stuck: ax showed 9.8 for 64 samples" in lines
    assert "sensor mic is absent, unplugged: no device" in lines
    assert not any("ecg" in line for line in lines)


NOTHING = {"connected": True, "waiting_for": [], "unconfirmed": []}


def write(folder: Path, name: str, **more: object) -> None:
    place = folder / "devices" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "status.json").write_text(json.dumps({**STATUS, **NOTHING, "device": name, **more}))


def lines(command: click.Command, folder: Path, *options: str) -> list[str]:
    done = CliRunner().invoke(command, [*options, "--data-dir", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@pytest.mark.parametrize("command", [status, why])
def test_the_error_that_ended_join_is_shown_in_place_of_what_it_waited_for(
    command: click.Command, tmp_path: Path
) -> None:
    error = {"id": "rejected", "message": "the gateway says no: the name is taken", "hint": "choose another --id"}
    write(tmp_path, "a", federation=None, phase="joining", detail="hello is said, no answer yet", error=error)
    said = lines(command, tmp_path)
    wanted = "join ended with an error: the gateway says no: the name is taken; choose another --id [rejected]"
    assert wanted in said
    assert not any("no answer yet" in line or "start it again" in line for line in said)


def test_the_time_left_is_that_of_now_and_none_when_join_does_not_run(tmp_path: Path) -> None:
    me: dict[str, object] = {"pid": os.getpid(), "running_here": True, "deadline_in_s": 100.0}
    write(tmp_path, "a", **me, written_s=time.monotonic() - 60)
    assert read_status(tmp_path, None)["deadline_in_s"] == pytest.approx(40.0, abs=1.0)
    write(tmp_path, "a", **me, written_s=time.monotonic() - 160)
    assert read_status(tmp_path, None)["deadline_in_s"] == 0.0
    write(tmp_path, "a", **{**me, "running_here": False}, written_s=time.monotonic())
    assert read_status(tmp_path, None)["deadline_in_s"] is None


def test_one_that_runs_comes_before_a_newer_one_that_does_not(tmp_path: Path) -> None:
    write(tmp_path, "running", pid=os.getpid(), running_here=True)
    write(tmp_path, "newer")
    os.utime(tmp_path / "devices/running/status.json", (1.0, 1.0))
    assert read_status(tmp_path, None)["device"] == "running"
    write(tmp_path, "other", pid=os.getpid(), running_here=True)
    with pytest.raises(ConfigError, match="2 devices run here: other, running"):
        read_status(tmp_path, None, joined=True)
    assert read_status(tmp_path, "newer")["device"] == "newer"
    done = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    assert done.stdout.startswith("other (accel) in federation har")
    assert done.stderr == "this is other; also running here: running; --id chooses\n"
