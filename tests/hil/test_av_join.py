"""A device with a camera and a microphone in a real federation, on recorded input: pictures and wav made here."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.federation import load
from blossom_edge.testing.boards import FakeBoard

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]

SHARED_DATA = os.environ.get("BLOSSOM_SHARED_DATA")
"""Read here, because each test begins without the settings of the person who runs it."""
DATA = Path(SHARED_DATA) if SHARED_DATA else Path(__file__).parents[3] / "shared" / "data"
ROUNDS = 3


def federation(folder: Path) -> Path:
    """The preset, finished after three rounds, of which the first finds no ten windows yet; every other one does."""
    preset = Path(load.__file__).parent / "presets" / "audio-image.toml"
    path = folder / "audio-image.toml"
    path.write_text(preset.read_text() + f"\n[schedule]\nstop_rounds = {ROUNDS}\nevery_s = 8.0\n")
    return path


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_pictures(folder: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"{i:03d}.png"), picture)
    return folder


def made(folder: Path, seed: int) -> dict[str, Path]:
    """Six seconds of a hum with noise, and discs on a dark ground."""
    rng = np.random.default_rng(seed)
    t = np.arange(6 * 16000) / 16000
    hum = 6000 * np.sin(2 * np.pi * (300 + 100 * seed) * t) + 500 * rng.standard_normal(len(t))
    pictures = []
    for i in range(10):
        picture = np.full((120, 160, 3), 30, dtype=np.uint8)
        cv2.circle(picture, (20 + 12 * i, 60), 15 + 5 * seed, (40, 200, 90), -1)
        pictures.append(picture)
    return {"mic": write_wav(folder / "hum.wav", hum, 16000), "cam": write_pictures(folder / "pictures", pictures)}


def recorded(folder: Path, digit: int) -> dict[str, Path]:
    """The same digit spoken by people and written by hand, from the data sets of this project."""
    for name in ("fsdd.npz", "mnist10k.npz"):
        if not (DATA / name).is_file():
            pytest.skip(f"{name} is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    with np.load(DATA / "fsdd.npz") as speech, np.load(DATA / "mnist10k.npz") as written:
        spoken = speech["audio"][speech["label"] == digit][:8].ravel()
        images = written["image"][written["label"] == digit][:20]
    pictures = [np.repeat(image[:, :, None], 3, axis=2) for image in images]
    return {"mic": write_wav(folder / "spoken.wav", spoken, 8000), "cam": write_pictures(folder / "written", pictures)}


@pytest.mark.parametrize("media", [made, recorded], ids=["made", "digits"])
def test_devices_with_camera_and_microphone_train_and_upload(
    media: Callable[[Path, int], dict[str, Path]], tmp_path: Path, gateway: Callable[..., Any]
) -> None:
    folders = [tmp_path / f"media{n}" for n in (1, 2)]
    for folder in folders:
        folder.mkdir()
    played = [media(folder, n + 1) for n, folder in enumerate(folders)]
    running = gateway(str(federation(tmp_path)), options=["--until-finished"])
    with (
        FakeBoard("jetson-orin-nano-av", tmp_path / "a", media=played[0]) as one,
        FakeBoard("jetson-orin-nano-av", tmp_path / "b", media=played[1]) as two,
    ):
        joined = [
            board.join(running, f"--label=digit={n + 1}", "--holdout=0", device=f"av-{n + 1}")
            for n, board in enumerate((one, two))
        ]
        assert [device.wait(180) for device in joined] == [0, 0], [device.err for device in joined]
    assert running.process.wait() == 0
    status = running.status()
    assert status["round"] == ROUNDS
    for n in (1, 2):
        mine = running.device(f"av-{n}")
        assert set(mine["versions"]) == {"encoder/audio", "encoder/image"}
        assert min(mine["versions"].values()) >= ROUNDS - 1
        assert all("1 other and this device" in text for text in mine["outcomes"].values()), mine["outcomes"]
