"""AV-MNIST: written and spoken digits, paired by label. Two layouts: MultiBench's arrays, and pairs over digit files.

MultiBench (Liang et al. 2021): `image/{train,test}_data.npy` (n, 784), `audio/{train,test}_data.npy` (n, 112, 112) and
`{train,test}_labels.npy`. Pairs: avdigits_pairs.npz (indexes) over fsdd.npz and mnist10k.npz in one folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import find_below, invalid, read_npy, read_npz
from blossom_edge.datasets.spectra import mel_power, power_to_db

CLASSES = tuple(str(digit) for digit in range(10))
IMAGE = (28, 28)
PARTS = ("train", "test")
LICENCE = "AV-MNIST (Vielzeuf et al. 2018; MNIST and FSDD): no licence is stated with the arrays"
PAIRS_LICENCE = "FSDD CC BY-SA 4.0; MNIST without a licence in its copy; paired by label"
SPEECH_HZ, AUDIO_HZ, SECONDS = 8_000, 48_000, 1.5
SIZE, HOP, BANDS = 1024, 512, 64
FRAMES = int(SECONDS * AUDIO_HZ) // HOP + 1
"""141: as many frames of 64 bands as the paper's audio encoder takes."""


def read_avmnist(path: Path) -> Dataset:
    """Read MultiBench's arrays. Sound is (n, 112, 112): rows of the stored spectrogram are taken as time.

    Bytes 0...255 become 0...1. Nobody knows who wrote or spoke, so every subject is -1.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    root = find_below(
        path, "train_labels.npy", expected="the folder avmnist", hint="blossom-edge data fetch avmnist says how"
    )
    labels = [_labels(root / f"{part}_labels.npy") for part in PARTS]
    counts = [len(part) for part in labels]
    image = _stacked(root, "image", counts)
    if image[0].size // max(1, counts[0]) != 784:
        raise invalid(root / "image" / "train_data.npy", f"{image[0].shape}", "(n, 784)")
    audio = _stacked(root, "audio", counts)
    if audio[0].ndim != 3:
        raise invalid(root / "audio" / "train_data.npy", f"{audio[0].shape}", "(n, 112, 112)")
    bands = audio[0].shape[2]
    n = sum(counts)
    present = np.ones(n, dtype=bool)
    modalities = {
        "image": Signals(_scaled(image).reshape(n, 1, 784), present, 1.0, (("grey", "/"),), IMAGE),
        "audio": Signals(_scaled(audio), present, 100.0, (("level", "/"),), (bands,)),
    }
    nobody = np.full(n, -1, dtype=np.int64)
    is_test = np.repeat([False, True], counts)
    return Dataset("av-mnist", modalities, np.concatenate(labels), CLASSES, nobody, is_test, LICENCE)


def read_avdigits_once(path: Path) -> Dataset:
    """As `read_avdigits`, but only the first pair of each recording: none is in a training and a test part.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    return read_avdigits(path, once=True)


def read_avdigits(path: Path, *, once: bool = False) -> Dataset:
    """Read the pairs of a folder. Sound becomes what the paper's model takes: log-mel (n, 141, 64) at 48 kHz, 1.5 s.

    Of the paper's two equal channels one is made, and no noise is put into the silence after a word. Pictures are
    (n, 1, 784), 0...1; subjects are the speakers. once: only the first pair of each recording.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    pairs_file = path / "avdigits_pairs.npz"
    pairs, speech, digits = read_npz(pairs_file), read_npz(path / "fsdd.npz"), read_npz(path / "mnist10k.npz")
    for file, arrays, needs in (
        (pairs_file, pairs, ("audio_idx", "image_idx", "label", "subject", "is_test")),
        (path / "fsdd.npz", speech, ("audio", "label")),
        (path / "mnist10k.npz", digits, ("image", "label")),
    ):
        if not set(needs) <= arrays.keys():
            raise invalid(file, f"the arrays {', '.join(arrays)}", ", ".join(needs))
    if once:
        first = np.sort(np.unique(pairs["audio_idx"], return_index=True)[1])
        pairs = {name: values[first] for name, values in pairs.items()}
    words = _whole(pairs_file, "audio_idx", pairs["audio_idx"], len(speech["audio"]))
    pictures = _whole(pairs_file, "image_idx", pairs["image_idx"], len(digits["image"]))
    labels = _whole(pairs_file, "label", pairs["label"], len(CLASSES))
    if not (np.array_equal(speech["label"][words], labels) and np.array_equal(digits["label"][pictures], labels)):
        raise invalid(pairs_file, "pairs of different digits", "one digit in sound, picture and label")
    used, which = np.unique(words, return_inverse=True)
    spectra = np.stack([log_mel(np.asarray(speech["audio"][i], dtype=np.float64) / 32768.0) for i in used])
    images = np.asarray(digits["image"][pictures], dtype=np.float32).reshape(len(labels), 1, -1) / np.float32(255.0)
    present = np.ones(len(labels), dtype=bool)
    return Dataset(
        "av-digits",
        {
            "image": Signals(images, present, 1.0, (("grey", "/"),), IMAGE),
            "audio": Signals(spectra[which], present, AUDIO_HZ / HOP, (("mel", "dB"),), (BANDS,)),
        },
        labels,
        CLASSES,
        np.asarray(pairs["subject"]).astype(np.int64),
        np.asarray(pairs["is_test"]).astype(bool),
        PAIRS_LICENCE,
    )


def log_mel(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n,) samples at 8 kHz, -1...1 -> (141, 64) dB of the first 1.5 s at 48 kHz, at most 80 dB below the loudest.

    The rate is raised by zeros in the spectrum, so nothing is above 4 kHz.
    """
    length = int(SECONDS * SPEECH_HZ)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    spectrum = np.fft.rfft(samples)
    raised = np.fft.irfft(spectrum, length * AUDIO_HZ // SPEECH_HZ) * (AUDIO_HZ / SPEECH_HZ)
    return power_to_db(mel_power(raised, AUDIO_HZ, size=SIZE, hop=HOP, num_bands=BANDS)).astype(np.float32)


def _labels(path: Path) -> NDArray[np.int64]:
    return _whole(path, "labels", read_npy(path), len(CLASSES))


def _whole(path: Path, name: str, array: NDArray[np.generic], end: int) -> NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise invalid(path, f"{name} {array.dtype} {array.shape}", "whole numbers (n,)")
    numbers = np.asarray(array).astype(np.int64)
    if not np.array_equal(numbers, array) or (len(numbers) and not (numbers.min() >= 0 and numbers.max() < end)):
        raise invalid(path, f"{name} from {numbers.min()} to {numbers.max()}", f"whole numbers 0 to {end - 1}")
    return numbers


def _stacked(root: Path, kind: str, counts: list[int]) -> list[NDArray[np.generic]]:
    parts: list[NDArray[np.generic]] = []
    for part, count in zip(PARTS, counts, strict=True):
        path = root / kind / f"{part}_data.npy"
        array = read_npy(path)
        if array.dtype.kind not in "iuf" or array.ndim not in (2, 3) or len(array) != count:
            raise invalid(path, f"{array.dtype} {array.shape}", f"numbers of {count} digits")
        if parts and array.shape[1:] != parts[0].shape[1:]:
            raise invalid(path, f"{array.shape}", f"(n, {', '.join(map(str, parts[0].shape[1:]))}) as in train")
        parts.append(array)
    return parts


def _scaled(parts: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    values = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
    values /= np.float32(255.0)
    return values
