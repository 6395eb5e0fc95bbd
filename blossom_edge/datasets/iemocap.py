"""IEMOCAP (Busso et al. 2008): ten actors in five sessions; sad, neutral, angry, and happy together with excited."""

from __future__ import annotations

import re
from pathlib import Path

from blossom_edge.datasets.dataset import Dataset
from blossom_edge.datasets.files import find_below, not_found, read_text
from blossom_edge.datasets.speech import TEXT_FILE, Utterance, read_utterances

CLASSES = ("sad", "neutral", "angry", "happy")
LABELS = {"sad": 0, "neu": 1, "ang": 2, "hap": 3, "exc": 3}
LICENCE = "IEMOCAP (Busso et al. 2008, USC): for those who signed its release form"
_LINE = re.compile(r"^\[\d+\.\d+ - \d+\.\d+\]\s+(Ses0([1-5])[MF]_\w+_([MF])\d+)\s+([a-z]{3})\s+\[", re.MULTILINE)
"""[6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5000, 2.5000, 2.5000]"""


def read_iemocap(path: Path) -> Dataset:
    """Read the folder IEMOCAP_full_release with Session1 to Session5 (as many as are there), or a folder above it.

    An utterance's id in the text features is that of the set, such as Ses01F_impro01_F000. There is no official test
    part. Speakers are numbered 1 to 10: 2 s - 1 the woman, 2 s the man of session s.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    root = find_below(
        path, "Session1", expected="the folder IEMOCAP_full_release", hint="blossom-edge data fetch iemocap says how"
    )
    utterances: list[Utterance] = []
    for session in sorted(root.glob("Session[1-5]")):
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
            for name, number, sex, emotion in _LINE.findall(read_text(file)):
                if emotion in LABELS:
                    wav = session / "sentences" / "wav" / name.rpartition("_")[0] / f"{name}.wav"
                    speaker = 2 * int(number) - (sex == "F")
                    utterances.append(Utterance(name, wav, LABELS[emotion], speaker, False))
    if not utterances:
        place = root / "Session1" / "dialog" / "EmoEvaluation"
        raise not_found(place, "files such as Ses01F_impro01.txt", hint="unpack the whole archive")
    return read_utterances("iemocap", utterances, root / TEXT_FILE, classes=CLASSES, licence=LICENCE, has_test=False)
