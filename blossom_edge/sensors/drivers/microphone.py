"""A microphone: log-mel spectra, or the waveform, of a sound card or of recorded .wav files. Never keeps sound.

    [sensors.mic]
    shape = [40]                # so many mel bands; without it the waveform comes, unit "/", full scale is 1
    channels = [{ name = "level", unit = "dB", range = [-80.0, 3.1] }]

    [[sensors.mic.sources]]
    driver = "microphone"
    rate_hz = 100               # frames per second; for a waveform its samples per second, 16000 for example
    device = "USB PnP"          # a part of a card's name, a named ALSA device, or a number; missing: the default
    capture_hz = 48000          # 16000, 44100 or 48000; when missing, the first of them that the card takes
    channel = 0                 # which channel of the card; an I2S microphone may be on 1

or, in place of a card, files that are played at the pace of the clock:

    path = "recordings"         # a .wav file, or a folder: all in it and below, by the name of the file
    loop = true                 # again and again; otherwise the sensor fails at the end, and is opened again later
    clip_s = 1.0                # each file lasts so long, with a faint hiss after it; when missing, as long as it is
    label = "digit"             # the name of a file's folder is its class in this task

Bands, scale and window are those of `blossom_edge.sensors.log_mel`, from sound of 16 kHz. The time of a frame is that
of the middle of its window.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Driver, Found, Host, Options, Request, Samples, failed
from blossom_edge.sensors.drivers.audio_rate import RateChanger
from blossom_edge.sensors.drivers.sample_clock import SampleClock
from blossom_edge.sensors.drivers.sound_card import Block, SoundCard
from blossom_edge.sensors.drivers.sound_cards import named_inputs, recording_cards
from blossom_edge.sensors.drivers.wav_player import WavPlayer
from blossom_edge.sensors.log_mel import FLOOR_DB, LogMel

MEL_HZ = 16000
CARD_RATES = (48000, 44100)
GATHER_S = 0.05
"""So much of a recording is played at once."""
MOST_S = 1.0
"""No more of it comes from one read, however late it is."""
PROPOSED_BANDS, HIGHEST_DB = 40, 3.1

_Floats = NDArray[np.float64]


class MicrophoneOptions(Options):
    """See the module."""

    device: int | str = ""
    capture_hz: Literal[16000, 44100, 48000] | None = None
    channel: Annotated[int, Field(ge=0, lt=32)] = 0
    path: str = ""
    loop: bool = False
    clip_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    label: str = ""


class MicrophoneDriver(Driver):
    """See the module."""

    Options = MicrophoneOptions
    extra = "audio"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.options: MicrophoneOptions
        self._check()
        self._sound_hz = MEL_HZ if request.shape else round(request.rate_hz)
        self.units = ("dB",) if request.shape else ("/",)
        self._card: SoundCard | None = None
        self._player: WavPlayer | None = None
        self._num_overflows = 0

    @property
    def num_overflows(self) -> int:
        """How often sound was lost since `open`, in the card or because nobody read; each is a gap in the times."""
        return self._card.num_overflows if self._card is not None else self._num_overflows

    def open(self) -> None:
        """Begin to record, or to play.

        Raises:
            HardwareError: `sensor-missing`: no such card, another program has it, or it has no such rate.
            ConfigError: `package-missing`; `replay-invalid`: no .wav file in PCM at `path`.
        """
        self.close()
        options, clock = self.options, self.request.host.clock
        if options.path:
            self._player = WavPlayer(
                options.path, self._sound_hz, channel=options.channel, loop=options.loop, clip_s=options.clip_s
            )
            self._spectra = self._new_spectra()
            self._started, self._num_played = clock(), 0
            return
        others = tuple(rate for rate in CARD_RATES if rate > self._sound_hz)
        rates_hz = (options.capture_hz,) if options.capture_hz else (self._sound_hz, *others)
        self._card = SoundCard(options.device, rates_hz=rates_hz, channel=options.channel, clock=clock)
        self._newest = -np.inf
        self._stream = _Stream(self._card.rate_hz, self._sound_hz, self._new_spectra(), after=self._newest)

    def read(self, timeout_s: float) -> Samples:
        """What has come.

        Raises:
            HardwareError: `sensor-failed`: the card is gone or silent for 2 s, or the recording is at its end.
        """
        if self._player is not None:
            return self._play(self._player, timeout_s)
        if self._card is None:
            raise failed(self.request.sensor, "it is closed")
        try:
            blocks = self._card.read(timeout_s)
        except OSError as error:
            raise failed(self.request.sensor, error) from error
        parts = [self._hear(block, self._card) for block in blocks]
        parts = [part for part in parts if len(part)]
        if not parts:
            return Samples.nothing(self.request.width)
        return Samples(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))

    def close(self) -> None:
        """Let go of the card."""
        card, self._card, self._player = self._card, None, None
        if card is not None:
            self._num_overflows = card.num_overflows
            card.close()

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """Sound cards that can record, and the sound server's input; none is opened."""
        channels = (("level", "dB", FLOOR_DB, HIGHEST_DB),)
        note, shape = "needs blossom-edge[audio] and apt install libportaudio2", (PROPOSED_BANDS,)
        for card in recording_cards(host):
            what = f"sound card {card.number} [{card.id}] {card.name}"
            yield Found("microphone", what, "mic", 100.0, {"device": card.name}, channels, note, shape)
        for name in named_inputs(host):
            what = f"input {name} of ALSA or a sound server"
            yield Found("microphone", what, "mic", 100.0, {"device": name}, channels, note, shape)

    def _check(self) -> None:
        request = self.request
        what = ""
        if len(request.channels) != 1 or len(request.shape) > 1:
            found = f"{len(request.channels)} channels of shape {list(request.shape)}"
            what = f"found {found}, expected one channel of shape [bands]"
        elif not request.shape and not (4000 <= request.rate_hz <= 192000 and request.rate_hz % 1 == 0):
            what = f"rate_hz: found {request.rate_hz:g}, expected a whole number of 4000...192000 for a waveform"
        elif request.shape and not (10 <= request.rate_hz <= 1000 and MEL_HZ % request.rate_hz == 0):
            what = f"rate_hz: found {request.rate_hz:g}, expected 10...1000 frames/s, a divisor of {MEL_HZ}"
        elif self.options.label and not self.options.path:
            what = "label: only recorded files have one"
        if not what and request.shape:
            try:
                self._new_spectra()
            except ValueError as error:
                what = f"shape: {error}"
        if what:
            raise ConfigError(
                "profile-invalid", f"sensor {request.sensor}: {what}", hint="see the source of driver 'microphone'"
            )

    def _new_spectra(self) -> LogMel | None:
        if not self.request.shape:
            return None
        return LogMel(self.request.shape[0], MEL_HZ, hop=round(MEL_HZ / self.request.rate_hz))

    def _hear(self, block: Block, card: SoundCard) -> Samples:
        if block.gap:
            self._stream = _Stream(card.rate_hz, self._sound_hz, self._new_spectra(), after=self._newest)
        samples = self._stream.push(block)
        if len(samples):
            self._newest = float(samples.times[-1])
        return samples

    def _play(self, player: WavPlayer, timeout_s: float) -> Samples:
        clock, rate_hz = self.request.host.clock, self._sound_hz
        least = self._started + self._num_played / rate_hz + GATHER_S - clock()
        if least > timeout_s:
            self._pause(timeout_s)
            return Samples.nothing(self.request.width)
        self._pause(least)
        due = round((clock() - self._started) * rate_hz) - self._num_played
        sound = player.take(min(max(due, 1), round(MOST_S * rate_hz)))
        if not len(sound):
            raise failed(self.request.sensor, f"{self.options.path} is at its end, and loop is false")
        self._num_played += len(sound)
        numbers, values = _features(sound, self._num_played, self._spectra)
        labels = {self.options.label: player.classes(numbers)} if self.options.label and len(numbers) else {}
        return Samples(self._started + numbers / rate_hz, values, labels)

    @staticmethod
    def _pause(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class _Stream:
    """From the blocks of a card, without a gap, to samples with times."""

    def __init__(self, card_hz: int, sound_hz: int, spectra: LogMel | None, *, after: float) -> None:
        self._changer = RateChanger(card_hz, sound_hz)
        self._spectra = spectra
        self._clock = SampleClock(card_hz, after=after)
        self._step = card_hz / sound_hz
        self._num_in = self._num_out = 0

    def push(self, block: Block) -> Samples:
        self._num_in += len(block.samples)
        self._clock.arrived(self._num_in, block.arrival)
        sound = self._changer.push(block.samples)
        self._num_out += len(sound)
        numbers, values = _features(sound, self._num_out, self._spectra)
        return Samples(self._clock.at(numbers * self._step), values)


def _features(sound: _Floats, num_so_far: int, spectra: LogMel | None) -> tuple[_Floats, _Floats]:
    """(n,) numbers of the samples that the values stand for, and (n, width) values.

    num_so_far: samples since the start, with `sound` as the last of them.
    """
    if spectra is None:
        return np.arange(num_so_far - len(sound), num_so_far, dtype=np.float64), sound[:, None]
    frame = float(spectra.num_frames)
    values = spectra.push(sound)
    numbers = (frame + np.arange(len(values), dtype=np.float64)) * spectra.hop + spectra.window / 2
    return numbers, values
