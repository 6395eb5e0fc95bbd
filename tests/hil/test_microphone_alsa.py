"""The microphone driver on the real PortAudio and ALSA, with a file in the place of a card (ALSA's `file` plugin).

The plugin delivers as fast as it is asked, so nothing is said here about time and rate.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sounddevice", reason="needs sounddevice and PortAudio", exc_type=(ImportError, OSError))
if not (ctypes.util.find_library("portaudio") and Path("/usr/share/alsa/alsa.conf").exists()):
    pytest.skip("needs apt install libportaudio2 libasound2-plugins", allow_module_level=True)

ROOT = Path(__file__).parents[2]
ASOUNDRC = """
pcm.from_file {{
  type file
  slave.pcm null
  file /dev/null
  infile {file}
  format raw
}}
pcm.mymic {{
  type plug
  slave {{ pcm from_file format S16_LE rate {rate} channels 1 }}
}}
pcm.!default mymic
"""
LISTEN = """
import json, sys, time
import numpy as np
from blossom_edge.sensors.driver import Host, Request
from blossom_edge.sensors.drivers.microphone import MicrophoneDriver
from firmware_profiles.schema import ProfileChannel

shape, rate_hz, unit, options = json.loads(sys.argv[1])
channel = ProfileChannel(name="s", unit=unit, range=(-80.0, 80.0))
driver = MicrophoneDriver(Request("mic", (channel,), rate_hz, tuple(shape), options, Host()))
driver.open()
values, end = [], time.monotonic() + 20
while sum(map(len, values)) < rate_hz and time.monotonic() < end:
    values.append(driver.read(0.2).values)
driver.close()
found = [f.options["device"] for f in MicrophoneDriver.find(Host())]
values = np.concatenate(values)[: int(rate_hz)]
json.dump({"found": found, "rms": float(values.std()), "peak": float(abs(values).max()), "n": len(values),
           "mean": values.mean(axis=0).tolist()}, sys.stdout)
"""


def listen(
    folder: Path, rate: int, *, shape: tuple[int, ...], rate_hz: float, unit: str, **options: object
) -> dict[str, Any]:
    """What the driver hears of 20 s of 1 kHz at a quarter of full scale."""
    sound = np.round(0.25 * 32768 * np.sin(2 * np.pi * 1000 * np.arange(20 * rate) / rate)).astype("<i2")
    sound.tofile(folder / "mic.raw")
    (folder / ".asoundrc").write_text(ASOUNDRC.format(file=folder / "mic.raw", rate=rate))
    asked = json.dumps([shape, rate_hz, unit, options])
    done = subprocess.run(
        [sys.executable, "-c", LISTEN, asked],
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("capture_hz", [16000, 48000])
def test_the_waveform_of_an_alsa_device_is_heard(tmp_path: Path, capture_hz: int) -> None:
    heard = listen(tmp_path, capture_hz, shape=(), rate_hz=16000.0, unit="/", device="mymic", capture_hz=capture_hz)
    assert heard["n"] == 16000
    assert heard["rms"] == pytest.approx(0.25 / np.sqrt(2), rel=0.01)
    assert heard["peak"] == pytest.approx(0.25, abs=0.01)
    assert "default" in heard["found"]


def test_the_default_device_is_heard_in_the_band_of_its_tone(tmp_path: Path) -> None:
    heard = listen(tmp_path, 16000, shape=(40,), rate_hz=100.0, unit="dB")
    assert heard["n"] == 100
    assert int(np.argmax(heard["mean"])) == 13  # see test_log_mel
    assert heard["mean"][13] == pytest.approx(20 * np.log10(0.25) - 1.08, abs=0.5)


def test_a_device_that_alsa_does_not_know_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"sensor-missing|No input device matching 'no such card'"):
        listen(tmp_path, 16000, shape=(40,), rate_hz=100.0, unit="dB", device="no such card")
