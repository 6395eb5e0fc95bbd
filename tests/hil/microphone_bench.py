"""What the tests of the microphone share: a clock, tones, .wav files, a driver, and a stand-in for PortAudio."""

from __future__ import annotations

import types
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.driver import Host, Request, Samples
from blossom_edge.sensors.drivers.microphone import MicrophoneDriver
from firmware_profiles.schema import ProfileChannel

LEVEL = ProfileChannel(name="level", unit="dB", range=(-80.0, 3.1))
WAVE = ProfileChannel(name="sound", unit="/", range=(-1.0, 1.0))
RATE = 16000
HZ_1000, HZ_3000 = 13, 26
"""1 kHz: see test_log_mel. 3 kHz is 1876.5 mel, 26.93 steps of 68.49 above 31.75: 0.93 in band 26, 0.07 in 25."""


class Time:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


def tone(hz: float, seconds: float, rate: int = RATE, *, amplitude: float = 0.5) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write(
    path: Path, sound: NDArray[np.float64], rate: int = RATE, *, width: int = 2, num_channels: int = 1, channel: int = 0
) -> Path:
    """A .wav file; the other channels are silent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.zeros((len(sound), num_channels))
    table[:, channel] = sound
    whole = np.round(table * (2 ** (8 * width - 1) - 1)).astype(np.int64) + (128 if width == 1 else 0)
    data = whole.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def make(
    time: Time | None = None,
    *,
    shape: tuple[int, ...] = (40,),
    rate_hz: float = 100.0,
    channels: tuple[ProfileChannel, ...] = (),
    root: Path = Path("/"),
    **options: object,
) -> MicrophoneDriver:
    """A driver, on a clock of its own if there is one."""
    wanted = channels or ((LEVEL,) if shape else (WAVE,))
    host = Host(root, time) if time else Host(root)
    driver = MicrophoneDriver(Request("mic", wanted, rate_hz, shape, options, host))
    if time is not None:
        driver._pause = time.wait  # type: ignore[method-assign]  # waits in the time of the test
    return driver


def gather(driver: MicrophoneDriver, time: Time, seconds: float) -> Samples:
    end, parts = time.now + seconds - 1e-9, []
    while time.now < end:
        part = driver.read(0.2)
        if len(part):
            parts.append(part)
    labels = {task: np.concatenate([p.labels[task] for p in parts]) for task in parts[0].labels}
    return Samples(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]), labels)


class PortAudioError(Exception):
    """As in sounddevice."""


class FakeCard:
    """Stands in for the module `sounddevice` with one card. `say` plays a block into the callback."""

    def __init__(self) -> None:
        self.rates, self.channels, self.there = {48000, 44100}, {1, 2}, True
        self.stream: types.SimpleNamespace | None = None
        self.opened: list[tuple[object, int, int]] = []
        self.num_begun = 1
        module = types.ModuleType("sounddevice")
        vars(module).update(InputStream=self._open, PortAudioError=PortAudioError, _initialized=1)
        vars(module).update(_initialize=self._count_up, _terminate=self._count_down)
        self.module = module

    def say(self, sound: NDArray[np.float64], *, overflow: bool = False) -> None:
        assert self.stream is not None
        table = np.zeros((len(sound), self.stream.channels), dtype=np.float32)
        table[:, 0] = sound
        self.stream.callback(table, len(sound), None, types.SimpleNamespace(input_overflow=overflow))

    def _open(self, *, samplerate: int, device: object, channels: int, callback: object, **_more: object) -> object:
        if not self.there:
            raise ValueError(f"No input device matching {device!r}")
        if samplerate not in self.rates:
            raise PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        if channels not in self.channels:
            raise PortAudioError("Error opening InputStream: Invalid number of channels [PaErrorCode -9998]")
        self.opened.append((device, samplerate, channels))
        stream = types.SimpleNamespace(channels=channels, callback=callback, active=False)
        stream.start = lambda: setattr(stream, "active", True)
        stream.close = lambda: setattr(stream, "active", False)
        self.stream = stream
        return stream

    def _count_up(self) -> None:
        self.num_begun += self.module._initialized == 0
        self.module._initialized += 1

    def _count_down(self) -> None:
        self.module._initialized -= 1


def speak(card: FakeCard, time: Time, sound: NDArray[np.float64], *, late_s: float = 0.0) -> None:
    """All of it, in blocks of 50 ms that come when they are over."""
    for block in np.split(sound, range(2400, len(sound), 2400)):
        time.now += len(block) / 48000
        now, time.now = time.now, time.now + late_s
        card.say(block)
        time.now = now
