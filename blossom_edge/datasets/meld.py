"""MELD (Poria et al. 2019): utterances of a television series with sound and text; four of its seven emotions.

The archive has video; `docs/datasets.md` has the line of ffmpeg that makes the sound files, in `waves/` below each
part's folder, as FedMultimodal has them. The development part counts as training.
"""

from __future__ import annotations

from pathlib import Path

from blossom_edge.datasets.dataset import Dataset
from blossom_edge.datasets.files import find_below, invalid, not_found, read_table
from blossom_edge.datasets.speech import TEXT_FILE, Utterance, read_utterances

PARTS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
CLASSES = ("anger", "joy", "neutral", "sadness")
LICENCE = "MELD (Poria et al. 2019), GPL-3.0; sound and pictures are of a television series: research only"


def read_meld(path: Path) -> Dataset:
    """Read the folder MELD.Raw with its CSV files, sound and text features; `path` may be a folder above it.

    An utterance's id in the text features is PART_diaD_uttU. Utterances whose sound is missing are left out: some
    videos of the set cannot be decoded.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    root = find_below(path, "test_sent_emo.csv", expected="the folder MELD.Raw", hint="blossom-edge data fetch meld")
    found: list[tuple[str, str, Path, int]] = []
    for part, folder in PARTS.items():
        file = next(
            (f for f in (root / f"{part}_sent_emo.csv", root / part / f"{part}_sent_emo.csv") if f.exists()), None
        )
        if file is None:
            raise not_found(root / f"{part}_sent_emo.csv", "the table of a part", hint="unpack the whole archive")
        for row in read_table(file, ("Dialogue_ID", "Utterance_ID", "Speaker", "Emotion")):
            if row["Emotion"] not in CLASSES:
                continue
            if not (row["Dialogue_ID"].isdecimal() and row["Utterance_ID"].isdecimal()):
                raise invalid(file, f"the dialogue {row['Dialogue_ID'][:20]!r}", "a number")
            name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            wav = next(
                (w for w in (root / folder / "waves" / f"{name}.wav", root / folder / f"{name}.wav") if w.is_file()),
                None,
            )
            if wav is not None:
                found.append((f"{part}_{name}", row["Speaker"], wav, CLASSES.index(row["Emotion"])))
    if not found:
        raise not_found(
            root / PARTS["train"] / "waves",
            "sound files such as dia0_utt0.wav",
            hint="make them from the videos with ffmpeg, see docs/datasets.md",
        )
    numbers = {name: i for i, name in enumerate(sorted({speaker for _, speaker, _, _ in found}))}
    utterances = [
        Utterance(name, wav, label, numbers[speaker], name.startswith("test_")) for name, speaker, wav, label in found
    ]
    return read_utterances("meld", utterances, root / TEXT_FILE, classes=CLASSES, licence=LICENCE, has_test=True)
