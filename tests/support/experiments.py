"""A tiny data set and a tiny federation, for experiments that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FEDERATION = """
schema = 1
name = "tiny"
[modalities.accel]
rate_hz = 10.0
window = 8
hop = 8
channels = [{ name = "x", unit = "g" }]
[modalities.gyro]
rate_hz = 10.0
window = 8
hop = 8
channels = [{ name = "x", unit = "rad/s" }]
[tasks.move]
type = "classification"
classes = ["a", "b", "c"]
[blocks."encoder/accel"]
type = "mlp"
widths = [8]
[blocks."encoder/gyro"]
type = "mlp"
widths = [8]
[blocks."fusion/move"]
type = "concat"
width = 8
[blocks."head/move"]
type = "mlp"
hidden = 8
[training]
lr = 0.03
epochs = 2
batch_size = 8
"""
EXPERIMENT: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "data": ["tiny.npz"],
    "federation": "tiny.toml",
    "mixes": ["1-1-2"],
    "modes": ["local", "full"],
    "seeds": 2,
    "rounds": 2,
    "clients": 4,
}


def write_tiny(folder: Path, *, num_windows: int = 240, people: int = 6) -> Path:
    """tiny.npz with three classes that both modalities tell apart, and tiny.toml."""
    rng = np.random.default_rng(0)
    label = np.arange(num_windows) % 3
    level = label[:, None, None].astype(np.float32)
    np.savez(
        folder / "tiny.npz",
        accel=(5 + 4 * level + rng.normal(size=(num_windows, 8, 1))).astype(np.float32),
        gyro=(-4 * level + rng.normal(size=(num_windows, 8, 1))).astype(np.float32),
        label=label,
        subject=np.arange(num_windows) * people // num_windows,
        class_names=np.array(["sit", "walk", "run"]),
        **{"rate_hz.accel": 10.0, "rate_hz.gyro": 10.0},
    )
    (folder / "tiny.toml").write_text(FEDERATION)
    return folder


def toml_of(values: dict[str, Any]) -> str:
    """A flat table as TOML; JSON's lists, texts and numbers are TOML's too."""
    import json

    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
