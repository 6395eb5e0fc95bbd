"""Plays .wav files as one stream of sound at one rate. Knows no clock: who calls it paces it. Never changes a level."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.drivers.audio_rate import RateChanger
from blossom_edge.sensors.drivers.recorded_files import class_of, recorded_files

BLOCK = 8192
"""Samples that are read from a file at once."""
REMEMBER_S = 60.0
"""Of what was played so long ago nobody asks for the class any more."""
HISS_DB = -60.0
"""Of what fills up a clip, relative to a sine of full scale. A second of zeros would look like a stuck microphone."""

_Floats = NDArray[np.float64]


class WavPlayer:
    """The files of `path` one after the other; `loop`: again and again.

    channel: which of a file's channels. clip_s: each file lasts so long: a faint hiss follows a shorter one, a
    longer one is cut off; 0: as long as it is.

    Raises:
        ConfigError: `replay-invalid`: no file, or one that is no PCM file with this channel.
    """

    def __init__(self, path: str, rate_hz: int, *, channel: int, loop: bool, clip_s: float) -> None:
        self._files = recorded_files(path, (".wav",), ".wav files")
        self._rate_hz, self._channel, self._loop = rate_hz, channel, loop
        self._clip = round(clip_s * rate_hz)
        for file in self._files:
            with _open(file, channel):
                pass
        self._noise = np.random.default_rng(0)
        self._parts = self._play()
        self._rest: _Floats = np.zeros(0)
        self._num_out = 0
        self._begins: list[int] = [0]
        self._classes: list[str] = [class_of(self._files[0])]

    def take(self, count: int) -> _Floats:
        """The next `count` samples of -1...1; fewer only at the end."""
        while len(self._rest) < count and (part := next(self._parts, None)) is not None:
            self._rest = np.concatenate([self._rest, part])
        result, self._rest = self._rest[:count], self._rest[count:]
        self._num_out += len(result)
        while len(self._begins) > 1 and self._begins[1] < self._num_out - REMEMBER_S * self._rate_hz:
            del self._begins[0], self._classes[0]
        return result

    def classes(self, samples: _Floats) -> NDArray[np.str_]:
        """The class of each of these samples by number, the folder of its file; only for those of the last minute."""
        places = np.searchsorted(self._begins, samples, side="right") - 1
        result: NDArray[np.str_] = np.array(self._classes, dtype=np.str_)[places]
        return result

    def _play(self) -> Iterator[_Floats]:
        total = 0
        while True:
            for file in self._files:
                if total:
                    self._begins.append(total)
                    self._classes.append(class_of(file))
                for part in self._clipped(file):
                    total += len(part)
                    yield part
            if not (self._loop and total):
                return

    def _clipped(self, file: Path) -> Iterator[_Floats]:
        length = 0
        for part in self._read(file):
            if self._clip:
                part = part[: self._clip - length]
            length += len(part)
            yield part
            if self._clip and length >= self._clip:
                return
        if length < self._clip:
            yield 10 ** (HISS_DB / 20) / np.sqrt(2) * self._noise.normal(size=self._clip - length)

    def _read(self, file: Path) -> Iterator[_Floats]:
        with _open(file, self._channel) as recording:
            changer = RateChanger(recording.getframerate(), self._rate_hz)
            while data := recording.readframes(BLOCK):
                yield changer.push(_decode(data, recording.getsampwidth(), recording.getnchannels(), self._channel))
            yield changer.finish()


def _open(file: Path, channel: int) -> wave.Wave_read:
    try:
        recording = wave.open(str(file), "rb")  # noqa: SIM115  # the caller closes it
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(
            "replay-invalid", f"{file}: {error or 'it is cut off'}", hint="a .wav file in PCM is expected"
        ) from error
    if channel >= recording.getnchannels():
        found = recording.getnchannels()
        recording.close()
        raise ConfigError("replay-invalid", f"{file}: found {found} channels, expected a channel {channel}")
    return recording


def _decode(data: bytes, width: int, num_channels: int, channel: int) -> _Floats:
    """PCM of 1 byte is unsigned, of more bytes signed, little endian (RIFF)."""
    raw = np.frombuffer(data[: len(data) // (width * num_channels) * width * num_channels], dtype=np.uint8)
    columns = raw.reshape(-1, num_channels, width)[:, channel, :]
    if width == 1:
        return (columns[:, 0].astype(np.float64) - 128.0) / 128.0
    wide = np.zeros((len(columns), 4), dtype=np.uint8)
    wide[:, 4 - width :] = columns  # into the high bytes, so that the sign is right
    return wide.view("<i4")[:, 0].astype(np.float64) / 2.0**31
