"""What `blossom-edge status` says beside rounds: energy of the last training, and sensors that are absent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from blossom_edge.cli.status import status

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
