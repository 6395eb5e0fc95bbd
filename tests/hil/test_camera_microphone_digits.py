"""Camera and microphone on real recordings: handwritten digits (MNIST) and spoken ones (FSDD), played side by side."""

from __future__ import annotations

import os
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.driver import Driver, Host, Request, Samples
from blossom_edge.sensors.drivers.camera import CameraDriver
from blossom_edge.sensors.drivers.microphone import MicrophoneDriver
from blossom_edge.sensors.live import LiveSensor
from firmware_profiles.loading import load_profile
from firmware_profiles.schema import ProfileChannel, ProfileSensor, Source
from tests.live import until

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")

SHARED_DATA = os.environ.get("BLOSSOM_SHARED_DATA")
"""Read here, because each test begins without the settings of the person who runs it."""
GREY = ProfileChannel(name="grey", unit="/", range=(0.0, 1.0))
LEVEL = ProfileChannel(name="level", unit="dB", range=(-80.0, 3.1))
NUM_CLIPS = 60
WORDS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def shared(name: str) -> dict[str, NDArray[Any]]:
    path = (Path(SHARED_DATA) if SHARED_DATA else Path(__file__).parents[3] / "shared" / "data") / name
    if not path.is_file():
        pytest.skip(f"{name} is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key in ("image", "audio", "length", "label", "subject")}


class Digits:
    """Clips of one second: picture `i` and recording `i` show the same digit, `labels[i]`."""

    def __init__(self, folder: Path) -> None:
        images, speech = shared("mnist10k.npz"), shared("fsdd.npz")
        self.folder = folder
        self.labels = np.arange(NUM_CLIPS) % 10
        self.images, self.sounds = [], []
        for i, digit in enumerate(self.labels):
            nth = i // 10
            image = images["image"][np.flatnonzero(images["label"] == digit)[nth]]
            of_one = np.flatnonzero((speech["label"] == digit) & (speech["subject"] == 0))[nth]
            sound = speech["audio"][of_one][: int(speech["length"][of_one])]
            self.images.append(image)
            self.sounds.append(sound)
            self._write(i, WORDS[digit], image, sound)

    def _write(self, number: int, word: str, image: NDArray[np.uint8], sound: NDArray[np.int16]) -> None:
        for kind in ("images", "sounds"):
            (self.folder / kind / word).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(self.folder / "images" / word / f"{number:03}.png"), image)
        with wave.open(str(self.folder / "sounds" / word / f"{number:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(sound.astype("<i2").tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def both(digits: Digits) -> Iterator[tuple[CameraDriver, MicrophoneDriver]]:
    """Opened at the same moment, on a clock that a test sets to the end of the recording."""
    clock = iter([0.0, 0.0])
    host = Host(clock=lambda: next(clock, NUM_CLIPS + 1.0))
    camera_options = {"path": str(digits.folder / "images"), "fps": 1.0, "label": "digit"}
    sound_options = {"path": str(digits.folder / "sounds"), "clip_s": 1.0, "label": "digit"}
    camera = CameraDriver(Request("cam", (GREY,), 5.0, (28, 28), camera_options, host))
    microphone = MicrophoneDriver(Request("mic", (LEVEL,), 100.0, (40,), sound_options, host))
    camera.open()
    microphone.open()
    yield camera, microphone
    camera.close()
    microphone.close()


def to_the_end(driver: Driver, num_samples: int) -> Samples:
    parts: list[Samples] = []
    while sum(map(len, parts)) < num_samples:
        parts.append(driver.read(0.0))
    labels = np.concatenate([p.labels["digit"] for p in parts if len(p)])
    times, values = (np.concatenate([getattr(p, name) for p in parts]) for name in ("times", "values"))
    return Samples(times, values, {"digit": labels})


def score(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Of the last third, how many are nearest to the mean of their own class in the first two thirds."""
    split = 2 * len(labels) // 3
    means = np.stack([features[:split][labels[:split] == digit].mean(axis=0) for digit in range(10)])
    distance = ((features[split:, None] - means) ** 2).sum(axis=2)
    return float((distance.argmin(axis=1) == labels[split:]).mean())


def test_every_handwritten_digit_is_seen_as_it_is_for_its_second(
    digits: Digits, both: tuple[CameraDriver, MicrophoneDriver]
) -> None:
    seen = to_the_end(both[0], 5 * NUM_CLIPS)
    assert seen.times == pytest.approx(np.arange(5 * NUM_CLIPS) / 5)
    wanted = np.stack(digits.images).reshape(NUM_CLIPS, 784) / 255
    np.testing.assert_allclose(seen.values, np.repeat(wanted, 5, axis=0), atol=1e-9)
    assert seen.labels["digit"].tolist() == [WORDS[d] for d in digits.labels for _ in range(5)]
    assert score(seen.values[::5], digits.labels) > 0.5  # chance is 0.1


def test_every_spoken_digit_is_heard_in_its_second(digits: Digits, both: tuple[CameraDriver, MicrophoneDriver]) -> None:
    heard = to_the_end(both[1], 100 * NUM_CLIPS - 3)
    inside = [(heard.times > i + 0.0124) & (heard.times < i + 0.9876) for i in range(NUM_CLIPS)]
    assert {int(part.sum()) for part in inside} <= {98, 99}
    for number in range(NUM_CLIPS):
        frames = heard.values[inside[number]]
        assert set(heard.labels["digit"][inside[number]].tolist()) == {WORDS[digits.labels[number]]}
        # the powers of frames every 10 ms, summed, are the energy of the recording: relative to a sine's 1/2
        energy = 2 * float(((digits.sounds[number] / 32768) ** 2).sum()) / 8000
        found = float(((10 ** (frames / 10)) - 1e-8).sum()) / 100
        assert found == pytest.approx(energy, rel=0.1)
        assert frames[:, 32:].max() < frames[:, :32].max() - 20  # sampled at 8 kHz: nothing from 4.2 kHz on
    words = np.stack([heard.values[part][:60].reshape(6, 10, 40).mean(axis=1).reshape(-1) for part in inside])
    assert score(words, digits.labels) > 0.5


def test_what_is_seen_and_heard_at_one_time_is_the_same_digit(both: tuple[CameraDriver, MicrophoneDriver]) -> None:
    seen, heard = to_the_end(both[0], 5 * NUM_CLIPS), to_the_end(both[1], 100 * NUM_CLIPS - 3)
    nearest = np.searchsorted(seen.times, heard.times, side="right") - 1
    assert (seen.labels["digit"][nearest] == heard.labels["digit"]).all()


def test_live_sensors_play_both_side_by_side(digits: Digits) -> None:
    def live(name: str, channel: ProfileChannel, shape: list[int], source: dict[str, object]) -> LiveSensor:
        settings = ProfileSensor.model_validate(
            {"shape": shape, "channels": [channel.model_dump()], "sources": [{**source, "label": "digit"}]}
        )
        return LiveSensor(name, settings, needed=(channel.name,), host=Host())

    images, sounds = str(digits.folder / "images"), str(digits.folder / "sounds")
    camera = live("cam", GREY, [28, 28], {"driver": "camera", "rate_hz": 20.0, "fps": 4.0, "path": images})
    microphone = live("mic", LEVEL, [40], {"driver": "microphone", "rate_hz": 100.0, "clip_s": 0.25, "path": sounds})
    seen: list[Reading] = []
    heard: list[Reading] = []
    try:
        camera.open()
        microphone.open()
        until(lambda: bool(seen.extend(camera.read(0.0)) or sum(map(len, seen)) >= 20), "pictures", ())
        until(lambda: bool(heard.extend(microphone.read(0.0)) or sum(map(len, heard)) >= 100), "sound", ())
    finally:
        camera.close()
        microphone.close()
    times, labels = (np.concatenate(part) for part in zip(*[(r.times, r.labels["digit"]) for r in seen], strict=True))
    assert np.diff(times) == pytest.approx(0.05)
    assert labels[:20].tolist() == [word for word in WORDS[:4] for _ in range(5)]
    words = np.concatenate([r.labels["digit"] for r in heard])
    assert list(dict.fromkeys(words.tolist()))[:4] == list(WORDS[:4])
    assert abs(heard[0].times[0] - seen[0].times[0]) < 0.1


@pytest.mark.slow
def test_a_device_with_camera_and_microphone_gets_labelled_windows_of_both(digits: Digits) -> None:
    profile, federation = load_profile("jetson-orin-nano-av"), load_federation("audio-image")
    images = {"path": str(digits.folder / "images"), "fps": 0.5, "label": "digit"}
    sounds = {"path": str(digits.folder / "sounds"), "clip_s": 2.0, "label": "digit"}
    sources = {
        "cam": Source.model_validate({"driver": "camera", "rate_hz": 5.0, **images}),
        "mic": Source.model_validate({"driver": "microphone", "rate_hz": 100.0, **sounds}),
    }
    sensors = {}
    for name, source in sources.items():
        settings = profile.sensors[name]
        needed = [channel.name for channel in settings.channels]
        sensors[name] = LiveSensor(name, settings, needed=needed, host=Host(), sources=(source,))
    try:
        for sensor in sensors.values():
            sensor.open()
        collector = Collector(profile, federation, sensors, holdout=0.0, split="blocks")
        until(lambda: (collector.poll(time.monotonic()), collector.num_seen())[1] >= 6, "windows", ())
    finally:
        for sensor in sensors.values():
            sensor.close()
    assert collector.failures == {}
    windows = collector.train()
    assert windows.inputs["audio"].shape[1:] == (98, 40)
    assert windows.inputs["image"].shape[1:] == (1, 96 * 96 * 3)
    assert windows.present["audio"].all()
    assert windows.present["image"].all()
    labels = windows.labels["digit"]
    assert labels.tolist() == sorted(labels.tolist())
    assert set(labels.tolist()) >= {0, 1}
