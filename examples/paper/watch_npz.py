"""Write watch.npz: windows of 128 samples, every 64, of the smart-watch recordings that the package seglearn carries.

    pip install --no-deps seglearn==1.2.5
    python examples/paper/watch_npz.py FOLDER

3,605 windows of ten people: `acc` in g, `gyro` in rad/s (n, 128, 3), `label`, `subject`, `side`, `recording`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from blossom_edge.simulation.watch import EXERCISES, read_exercises

WINDOW, HOP = 128, 64


def main(folder: Path) -> None:
    exercises = read_exercises()
    starts = [(number, s) for number, e in enumerate(exercises) for s in range(0, len(e.values) - WINDOW + 1, HOP)]
    values = np.stack([exercises[number].values[start : start + WINDOW] for number, start in starts])
    of_window = [exercises[number] for number, _ in starts]
    np.savez(
        folder / "watch.npz",
        acc=values[:, :, :3].astype(np.float32),
        gyro=values[:, :, 3:].astype(np.float32),
        label=np.array([e.label for e in of_window]),
        subject=np.array([e.person for e in of_window]),
        side=np.array([e.side for e in of_window], dtype=np.int8),
        recording=np.array([number for number, _ in starts]),
        class_names=np.array(EXERCISES),
    )
    print(f"{len(starts)} windows of {len({e.person for e in exercises})} people in {folder / 'watch.npz'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
