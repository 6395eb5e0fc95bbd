"""Finds values of private blocks in bytes: as they are, as deltas, in float32 and in float16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from blossom_edge.core.blocks import Array, BlockId, ModelSpec, Tensors
from support.learning import NoiseTrainer, noise

WINDOW = 4
"""Neighbouring values that make a finding: 16 bytes in float32, 8 in float16."""


def plant_canaries(trainer: NoiseTrainer, spec: ModelSpec) -> None:
    """From now on the trainer puts a pattern into every private block, doubled in every round."""

    def learn(round_number: int, block: BlockId, base: Tensors) -> Tensors | None:
        if spec[block].leaves_device:
            return None
        return {n: noise("canary", 0, block, v.shape, n) * np.float32(2**round_number) for n, v in base.items()}

    trainer.learn = learn


def secrets_of(trainer: NoiseTrainer, spec: ModelSpec) -> Iterator[tuple[str, bytes]]:
    """What must be found nowhere: every window of every private block of every round, by a name for people."""
    for number, before, after in trainer.trained:
        for block, tensors in after.items():
            if spec[block].leaves_device:
                continue
            for name, new in tensors.items():
                forms = {"value": new, "delta": np.subtract(new, before[block][name], dtype=np.float32)}
                for form, values in forms.items():
                    yield from windows_of(f"{trainer.device} round {number} {block} {name} {form}", values)


def find_leak(haystacks: Mapping[str, bytes], secrets: Iterator[tuple[str, bytes]]) -> str:
    """The first secret that stands in one of the haystacks, or the empty text."""
    for what, pattern in secrets:
        for place, hay in haystacks.items():
            if pattern in hay:
                return f"{what} in {place}"
    return ""


def files_of(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"\0".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


def windows_of(what: str, values: Array) -> Iterator[tuple[str, bytes]]:
    """Every window of a tensor with a name, in float32 and in float16; one of zeros would be found anywhere."""
    flat = values.reshape(-1)
    for dtype in (np.float32, np.float16):
        for start in range(0, flat.size - WINDOW + 1, WINDOW):
            part = flat[start : start + WINDOW]
            if part.any():
                yield f"{what} [{start}] {np.dtype(dtype).name}", part.astype(dtype).tobytes()
