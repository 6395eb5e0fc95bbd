"""A sound card that records, through PortAudio (sounddevice). Its callback only puts blocks into a queue.

PortAudio reads the list of devices once, when it is begun. It is begun anew before a card is opened, so that one that
was plugged in again is found, unless another card of this process is open (python-sounddevice issue 125: the only way,
and it ends all open streams).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import need

BLOCK_S = 0.05
MAX_BLOCKS = 100
"""5 s of sound that nobody reads; then blocks are lost and counted."""
SILENT_S = 2.0
"""A card that sends no block for so long is gone."""
_PORTAUDIO = threading.Lock()
"""Cards are opened and closed in threads; PortAudio is begun and ended by one at a time."""


@dataclass(frozen=True, slots=True)
class Block:
    """Samples (n,) of -1...1 that came at `arrival`, monotonic seconds. `gap`: others were lost before them."""

    samples: NDArray[np.float64]
    arrival: float
    gap: bool


class SoundCard:
    """One channel of a card, in blocks of 50 ms. `num_overflows`: how often samples were lost since it was opened.

    device: the number of a device, a part of its name, or "" for the default one. rates_hz: the first one that it takes
    is used. channel: which one of its channels.

    Raises:
        ConfigError: `package-missing`: no sounddevice, or no PortAudio.
        HardwareError: `sensor-missing`: no such card, another program has it, or it cannot do this.
    """

    def __init__(self, device: int | str, *, rates_hz: Sequence[int], channel: int, clock: Callable[[], float]) -> None:
        self._sounddevice = need("sounddevice", extra="audio", note="apt install libportaudio2")
        self._channel, self._clock = channel, clock
        self._blocks: queue.Queue[Block] = queue.Queue(MAX_BLOCKS)
        self._lost = False
        self.num_overflows = 0
        self._stream: Any = None
        with _PORTAUDIO:
            begin_anew(self._sounddevice)
            self._sounddevice._initialize()  # noqa: SLF001  # counted there: tells that a card is open
        try:
            self.rate_hz = self._open(device if device != "" else None, rates_hz)
        except HardwareError:
            self.close()
            raise
        self._heard = clock()

    def read(self, timeout_s: float) -> list[Block]:
        """The blocks that have come; waits for the first one.

        Raises:
            OSError: the card is gone.
        """
        blocks: list[Block] = []
        with contextlib.suppress(queue.Empty):
            blocks.append(self._blocks.get(timeout=max(timeout_s, 0.0)))
            while len(blocks) < MAX_BLOCKS:
                blocks.append(self._blocks.get_nowait())
        now = self._clock()
        if blocks:
            self._heard = now
        elif not self._stream.active:
            raise OSError("the sound card has stopped")
        elif now - self._heard > SILENT_S:
            raise OSError(f"the sound card sent nothing for {SILENT_S:g} s")
        return blocks

    def close(self) -> None:
        """Let go of the card; a second time does nothing."""
        module, self._sounddevice = self._sounddevice, None
        if module is None:
            return
        if self._stream is not None:
            with contextlib.suppress(module.PortAudioError):  # a card that was pulled out cannot be stopped
                self._stream.close()
        with _PORTAUDIO:
            module._terminate()  # noqa: SLF001

    def _open(self, device: int | str | None, rates_hz: Sequence[int]) -> int:
        module, why = self._sounddevice, "it has no rate of ours"
        for rate_hz in rates_hz:
            for num_channels in sorted({self._channel + 1, max(2, self._channel + 1)}):  # some cards know only stereo
                try:
                    self._stream = module.InputStream(
                        samplerate=rate_hz,
                        blocksize=round(BLOCK_S * rate_hz),
                        device=device,
                        channels=num_channels,
                        dtype="float32",
                        latency="high",
                        callback=self._take,
                    )
                    self._stream.start()
                except (module.PortAudioError, ValueError) as error:
                    why = str(error)
                    if self._stream is not None:
                        self._stream.close()
                        self._stream = None
                    continue
                return int(rate_hz)
        name = "the default sound card" if device is None else f"sound card {device!r}"
        wanted = " or ".join(f"{rate} Hz" for rate in rates_hz)
        raise HardwareError(
            "sensor-missing",
            f"{name} at {wanted}: {why}",
            hint="`blossom-edge sensors find` lists the cards; capture_hz sets another rate",
        )

    def _take(self, data: Any, num_frames: int, _time: Any, status: Any) -> None:
        """Runs in PortAudio's thread."""
        lost = self._lost or bool(status.input_overflow)
        self.num_overflows += bool(status.input_overflow)
        block = Block(data[:, self._channel].astype(np.float64), self._clock(), lost)
        try:
            self._blocks.put_nowait(block)
            self._lost = False
        except queue.Full:
            self.num_overflows += not self._lost
            self._lost = True


def begin_anew(sounddevice: Any) -> None:
    """Let PortAudio look for devices again, unless a card is open: its counter is 1 after the import."""
    if sounddevice._initialized == 1:  # noqa: SLF001
        sounddevice._terminate()  # noqa: SLF001
        sounddevice._initialize()  # noqa: SLF001
