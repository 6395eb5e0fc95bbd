"""What MELD and IEMOCAP share: mel power of an utterance's sound, and text features that the user makes beforehand.

Text features come from a language model that this project does not ship: an `.npz` with `id` (n,) and `text`
(n, tokens, width), see docs/datasets.md for the command that makes it.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import invalid, not_found, read_npz
from blossom_edge.datasets.spectra import mel_power

RATE_HZ, FRAME_HZ = 16_000, 100.0
SIZE, HOP, BANDS = 400, 160, 80
MAX_FRAMES = 1000
"""Of an utterance the first 10 s are read, as the paper does; a shorter one is followed by zeros."""
TEXT_FILE = "text_features.npz"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence: its id in the text features, its sound, class and speaker."""

    id: str
    wav: Path
    label: int
    speaker: int
    is_test: bool


def read_utterances(
    name: str,
    utterances: Sequence[Utterance],
    text_file: Path,
    *,
    classes: tuple[str, ...],
    licence: str,
    has_test: bool,
) -> Dataset:
    """Sound and text of all utterances; `audio` is (n, 1000, 80).

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    text = _text(text_file, [utterance.id for utterance in utterances])
    audio = np.zeros((len(utterances), MAX_FRAMES, BANDS), dtype=np.float32)
    for row, utterance in zip(audio, utterances, strict=True):
        found = read_mel(utterance.wav)
        row[: len(found)] = found
    present = np.ones(len(utterances), dtype=bool)
    modalities = {
        "audio": Signals(audio, present, FRAME_HZ, (("mel", "/"),), (BANDS,)),
        "text": Signals(text, present, 1.0, (("feature", "/"),), (text.shape[2],)),
    }
    return Dataset(
        name,
        modalities,
        np.array([u.label for u in utterances], dtype=np.int64),
        classes,
        np.array([u.speaker for u in utterances], dtype=np.int64),
        np.array([u.is_test for u in utterances], dtype=bool) if has_test else None,
        licence,
    )


def read_mel(path: Path) -> NDArray[np.float32]:
    """(at most 1000, 80) mel power of a 16 kHz PCM file; several channels are averaged.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    hint = f"ffmpeg -i {path.with_suffix('.mp4').name} -ac 1 -ar {RATE_HZ} {path.name}"
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if rate != RATE_HZ or width != 2 or not 1 <= channels <= 8:
                found = f"{channels} channels of {8 * width} bit at {rate} Hz"
                raise invalid(path, found, f"16 bit at {RATE_HZ} Hz", hint=hint)
            data = file.readframes(MAX_FRAMES * HOP)
    except FileNotFoundError as error:
        raise not_found(path, "the sound of an utterance", hint=hint) from error
    except (OSError, EOFError, wave.Error) as error:
        raise invalid(path, f"what is no WAV ({error})", "a WAV file", hint=hint) from error
    whole = len(data) // (2 * channels) * channels
    samples = np.frombuffer(data, dtype="<i2", count=whole).reshape(-1, channels).mean(axis=1) / 32768.0
    if len(samples) < SIZE:
        raise invalid(path, f"{len(samples)} samples", f"at least {SIZE}", hint=hint)
    return mel_power(samples, RATE_HZ, size=SIZE, hop=HOP, num_bands=BANDS)[:MAX_FRAMES].astype(np.float32)


def _text(path: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    if not path.is_file():
        raise not_found(
            path,
            "the text features, which a language model makes",
            hint=f"make {TEXT_FILE} as docs/datasets.md says, beside the data set",
        )
    arrays = read_npz(path)
    if (
        not {"id", "text"} <= arrays.keys()
        or arrays["text"].ndim != 3
        or arrays["id"].shape != arrays["text"].shape[:1]
    ):
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise invalid(path, found or "no array", "id (n,) and text (n, tokens, width)")
    rows = {str(name): row for row, name in enumerate(arrays["id"])}
    missing = [name for name in ids if name not in rows]
    if missing:
        raise invalid(path, f"no text of {missing[0]} and {len(missing) - 1} more", f"{len(ids)} utterances")
    text = arrays["text"][[rows[name] for name in ids]]
    if text.dtype.kind != "f" or not np.isfinite(text).all():
        raise invalid(path, f"text {text.dtype}", "floating-point numbers that are finite")
    return np.asarray(text).astype(np.float32)
