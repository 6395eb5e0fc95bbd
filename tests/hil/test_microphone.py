"""The microphone driver on recorded files: spectra, the waveform, pace, classes, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.wav_player import REMEMBER_S, WavPlayer
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.conformance import Subject, run_checks
from firmware_profiles.schema import ProfileSensor
from tests.hil.microphone_bench import HZ_1000, HZ_3000, LEVEL, Time, gather, make, tone, write
from tests.live import until


def test_a_tone_in_a_file_comes_as_frames_of_its_band(tmp_path: Path) -> None:
    time = Time()
    driver = make(time, path=str(write(tmp_path / "a.wav", tone(1000, 2.0))))
    driver.open()
    heard = gather(driver, time, 1.0)
    assert heard.values.shape == (98, 40)  # in one second; the 99th ends after it
    assert (heard.values.argmax(axis=1) == HZ_1000).all()
    level = 10 * np.log10((10 ** (heard.values / 10)).sum(axis=1))
    assert level == pytest.approx(20 * np.log10(0.5), abs=0.05)
    assert heard.times[0] == pytest.approx(100.0125)  # the middle of the first 25 ms
    assert np.diff(heard.times) == pytest.approx(0.01)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_files_of_any_rate_and_width_sound_the_same(tmp_path: Path, rate: int, width: int) -> None:
    time = Time()
    path = write(tmp_path / "a.wav", tone(1000, 0.6, rate), rate, width=width, num_channels=2, channel=1)
    driver = make(time, shape=(), rate_hz=16000, path=str(path), channel=1)
    driver.open()
    heard = gather(driver, time, 0.5)
    assert heard.values.shape == (8000, 1)
    assert heard.values[200:7800, 0] == pytest.approx(tone(1000, 0.5)[200:7800], abs=0.012 if width == 1 else 0.003)
    assert np.diff(heard.times) == pytest.approx(1 / 16000)


def test_the_files_of_a_folder_follow_each_other_by_name_and_carry_their_class(tmp_path: Path) -> None:
    time = Time()
    write(tmp_path / "seven" / "2.wav", tone(3000, 0.3))
    write(tmp_path / "one" / "1.wav", tone(1000, 0.3))
    write(tmp_path / "one" / "3.wav", tone(1000, 2.0))
    driver = make(time, path=str(tmp_path), clip_s=0.5, label="digit")
    driver.open()
    heard = gather(driver, time, 1.4)
    at = heard.times - 100.0
    assert (heard.labels["digit"] == np.where((at >= 0.5) & (at < 1.0), "seven", "one")).all()
    loud = {name: heard.values[(at > low) & (at < high)] for name, low, high in [("1", 0.02, 0.28), ("2", 0.52, 0.78)]}
    assert (loud["1"].argmax(axis=1) == HZ_1000).all()
    assert (loud["2"].argmax(axis=1) == HZ_3000).all()
    rest = heard.values[(at > 0.32) & (at < 0.48)]  # is no sound, but no silence either, which looks stuck
    assert 10 * np.log10((10 ** (rest / 10)).sum(axis=1)).mean() == pytest.approx(-60.0, abs=0.5)
    assert not (rest[0] == rest[1]).all()


def test_a_recording_at_its_end_is_a_sensor_that_failed(tmp_path: Path) -> None:
    time = Time()
    driver = make(time, path=str(write(tmp_path / "a.wav", tone(1000, 0.3))))
    driver.open()
    assert len(gather(driver, time, 0.3)) == 28
    with pytest.raises(HardwareError, match="at its end") as error:
        gather(driver, time, 1.0)
    assert error.value.error_id == "sensor-failed"
    driver.open()
    assert len(gather(driver, time, 0.3)) == 28  # from its beginning


def test_a_recording_in_a_loop_goes_on(tmp_path: Path) -> None:
    time = Time()
    driver = make(time, path=str(write(tmp_path / "a.wav", tone(1000, 0.3))), loop=True)
    driver.open()
    assert len(gather(driver, time, 2.0)) == 198


def test_what_was_played_long_ago_is_forgotten_also_when_nobody_asks_for_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "one.wav", tone(HZ_1000, 0.1))
    player = WavPlayer(str(tmp_path), 16000, channel=0, loop=True, clip_s=0.1)
    for _ in range(180):
        player.take(16000)
    assert len(player._begins) <= (REMEMBER_S + 2) * 10
    numbers = (179 + np.arange(10) / 10 + 0.05) * 16000
    assert player.classes(numbers).tolist() == ["a", "b"] * 5


def test_who_reads_late_gets_all_of_it_a_second_at_a_time(tmp_path: Path) -> None:
    time = Time()
    driver = make(time, path=str(write(tmp_path / "a.wav", tone(1000, 5.0))))
    driver.open()
    time.wait(2.5)
    assert [len(driver.read(0.0)) for _ in range(4)] == [98, 100, 50, 0]


def test_a_live_sensor_hears_a_file_at_the_pace_of_the_clock(tmp_path: Path) -> None:
    source = {"driver": "microphone", "rate_hz": 100.0, "path": str(write(tmp_path / "a.wav", tone(1000, 5.0)))}
    settings = ProfileSensor.model_validate({"shape": [40], "channels": [LEVEL.model_dump()], "sources": [source]})
    sensor = LiveSensor("mic", settings, needed=("level",), host=Host())
    sensor.open()
    try:
        parts = []
        until(lambda: bool(parts.extend(sensor.read(0.0)) or sum(map(len, parts)) >= 50), "frames", ())
    finally:
        sensor.close()
    values, times = (np.concatenate([getattr(p, name) for p in parts]) for name in ("values", "times"))
    assert values.shape[1] == 40
    assert (values.argmax(axis=1) == HZ_1000).all()
    assert np.diff(times) == pytest.approx(0.01)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no wave at all, only text"])
def test_a_file_that_is_no_wav_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.wav") as error:
        make(path=str(tmp_path)).open()
    assert error.value.error_id == "replay-invalid"


def test_a_folder_without_files_and_a_channel_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty folder"):
        make(path=str(tmp_path)).open()
    with pytest.raises(ConfigError, match="nothing"):
        make(path=str(tmp_path / "x")).open()
    write(tmp_path / "a.wav", tone(1000, 0.1))
    with pytest.raises(ConfigError, match="1 channels, expected a channel 1"):
        make(path=str(tmp_path), channel=1).open()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": (LEVEL, LEVEL)}, "expected one channel"),
        ({"shape": (40, 3)}, "expected one channel"),
        ({"rate_hz": 99.0}, "divisor of 16000"),
        ({"rate_hz": 5.0}, r"10\.\.\.1000"),
        ({"shape": (), "rate_hz": 100.0}, "4000"),
        ({"shape": (400,)}, "too many"),
        ({"label": "digit"}, "only recorded files"),
        ({"capture_hz": 12345}, "capture_hz"),
        ({"gain_db": 3}, "gain_db"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_opened(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make(**wrong)  # type: ignore[arg-type]  # each key goes to its own argument
    assert error.value.error_id == "profile-invalid"


def test_a_recording_meets_the_checks_that_every_driver_meets(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.wav", tone(1000, 3.0)))
    source = {"driver": "microphone", "rate_hz": 100.0, "path": path}
    settings = ProfileSensor.model_validate({"shape": [40], "channels": [LEVEL.model_dump()], "sources": [source]})
    verdicts = list(run_checks(Subject("mic", settings, Host(), seconds=1.0)))
    assert [(v.check, v.detail) for v in verdicts if v.status == "failed"] == []
