"""Every profile that is called proved, on fake hardware through its real drivers: the whole conformance suite."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.doctor.hardware import write_report
from blossom_edge.testing.boards import FakeBoard, open_trace
from blossom_edge.testing.conformance import CHECKS, run_check
from firmware_profiles import list_profiles, load_profile

HARDWARE = (
    ("jetson-imu", ("iio",)),
    ("jetson-imu", ("mpu6050",)),
    ("rpi4-accel", ("iio",)),
    ("rpi4-gyro", ("mpu6050",)),
    ("rpi5-imu-ecg", ("iio", "adafruit")),
    ("rpi-zero2-imu", ("iio",)),
    ("serial-ecg", ("serial",)),
    ("rpi4-audio", ("microphone",)),
    ("jetson-orin-nano-av", ("camera", "microphone")),
)
QUICK = (("jetson-imu", ("iio",)), ("serial-ecg", ("serial",)))
"""Those of the fast suite; the others are marked slow."""
MODULES = {"mpu6050": "smbus2", "adafruit": "adafruit_ads1x15", "serial": "serial", "camera": "cv2"}


def media(folder: Path, profile: str) -> dict[str, Path]:
    """A hum of 440 Hz and pictures of a moving bar, for the sensors of the profile that play them."""
    sensors = load_profile(profile).sensors
    made: dict[str, Path] = {}
    if "mic" in sensors:
        made["mic"] = folder / "hum.wav"
        t = np.arange(5 * 16000) / 16000
        samples = (8000 * np.sin(2 * np.pi * 440 * t) + 50 * np.sin(2 * np.pi * 3000 * t)).astype("<i2")
        with wave.open(str(made["mic"]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
    if "cam" in sensors:
        cv2 = pytest.importorskip("cv2")
        made["cam"] = folder / "pictures"
        made["cam"].mkdir()
        for i in range(20):
            picture = np.full((480, 640, 3), 40, dtype=np.uint8)
            picture[:, 20 * i : 20 * i + 60] = (200, 120, 60)
            cv2.imwrite(str(made["cam"] / f"{i:03d}.png"), picture)
    return made


@pytest.mark.parametrize(
    ("profile", "only"),
    [
        pytest.param(profile, only, id=f"{profile}-{'-'.join(only)}", marks=[] if quick else [pytest.mark.slow])
        for profile, only in HARDWARE
        for quick in [(profile, only) in QUICK]
    ],
)
def test_a_proved_profile_passes_every_check_on_fake_hardware_and_its_trace_replays(
    profile: str, only: tuple[str, ...], tmp_path: Path
) -> None:
    for driver in only:
        if driver in MODULES:
            pytest.importorskip(MODULES[driver])
    with FakeBoard(profile, tmp_path / "board", only=only, media=media(tmp_path, profile)) as board:
        board.activity = 1
        for sensor in board.fakes:
            subject = board.subject(sensor, seconds=1.5, missing_share=0.3)  # the test machine is busy
            verdicts = [run_check(check, subject) for check in CHECKS]
            failed = [f"{v.check}: {v.detail}" for v in verdicts if v.status == "failed"]
            assert failed == [], f"{profile} {sensor}"
            played = only == ("microphone",) or sensor in ("cam", "mic")
            assert [v.check for v in verdicts if v.status == "skipped"] == (["unplug"] if played else [])
        tested = {sensor: board.subject(sensor, seconds=1.5, missing_share=0.3) for sensor in board.fakes}
        _, trace = write_report(tmp_path, board.profile, tested, [], host=board.host, stem="trace")
        assert trace is not None
        replayed = open_trace(trace, profile)
        for sensor, subject in tested.items():
            readings = replayed[sensor].read(0.0)
            values = np.concatenate([reading.values for reading in readings])
            heard = subject.heard.reading.values
            if not subject.settings.shape:  # a trace has all channels, a profile may use some of them
                heard = heard[:, [subject.heard.channels.index(name) for name in replayed[sensor].channels]]
            assert values.shape == heard.shape
            slack = 0.05 * float(np.abs(heard).max())
            assert values.mean(axis=0) == pytest.approx(heard.mean(axis=0), rel=0.05, abs=slack)


def test_the_table_above_is_that_of_the_profiles_called_proved() -> None:
    proved = {entry.id for entry in list_profiles() if not entry.problem and load_profile(entry.id).tier == "proved"}
    assert proved - {name for name, _ in HARDWARE} == {"generic-mock"}
    assert len(proved) >= 6
    assert {"jetson-imu", "rpi5-imu-ecg", "rpi4-audio", "jetson-orin-nano-av"} <= proved
