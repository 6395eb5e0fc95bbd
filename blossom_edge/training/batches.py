"""What is trained on: windows stacked once as tensors, and the order of batches as a pure function of seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blossom_edge.core.blocks import BlockId, BlockSpec
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.spec import part_modality

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stacked:
    """The windows that a device can learn from: labelled for a task, with a modality of that task present.

    inputs (n, time, channel), present (n,) and labels (n, ...) lie on the compute device; `has` and `used` are the
    same masks as present and "counts for the task", on the CPU for counting; times (n,) are those of `WindowSet`.
    """

    inputs: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    has: Mapping[str, Mask]
    used: Mapping[str, Mask]
    times: NDArray[np.float64]
    num_windows: int


def stack(windows: WindowSet, wiring: Mapping[str, Sequence[str]], device: torch.device) -> Stacked:
    """Stack what counts for the tasks of `wiring` (task -> modalities); other windows are left out."""
    used = {task: usable(windows, task, modalities) for task, modalities in wiring.items()}
    used = {task: mask for task, mask in used.items() if mask.any()}
    keep = np.flatnonzero(np.logical_or.reduce([*used.values(), np.zeros(len(windows), dtype=np.bool_)]))
    modalities = sorted({m for task in used for m in wiring[task] if m in windows.inputs})
    has = {m: windows.present[m][keep] for m in modalities}
    return Stacked(
        inputs={m: _tensor(windows.inputs[m][keep].astype(np.float32, copy=False), device) for m in modalities},
        present={m: _tensor(has[m], device) for m in modalities},
        labels={t: _tensor(_label(windows.labels[t][keep]), device) for t in used},
        has=has,
        used={t: mask[keep] for t, mask in used.items()},
        times=windows.times[keep],
        num_windows=len(keep),
    )


def usable(windows: WindowSet, task: str, modalities: Sequence[str]) -> Mask:
    """(n,) bool: windows with a label of the task and at least one of its modalities present."""
    present = [windows.present[m] for m in modalities if m in windows.present]
    if not present:
        return np.zeros(len(windows), dtype=np.bool_)
    mask: Mask = windows.labelled(task) & np.logical_or.reduce(present)
    return mask


def batch_rows(num_windows: int, training: LocalTraining, *, round_number: int, device_id: str) -> Iterator[Tensor]:
    """The rows of each optimiser step of one round: a new order in each pass, batches of nearly equal size.

    `batch_size` is the upper limit: 21 windows with batches of 16 give 11 and 10, not 16 and 5.
    """
    num_batches = training.batches(num_windows)
    words = np.random.Philox(key=int.from_bytes(seed_bytes(training, round_number, device_id)[:16], "little"))
    for step in range(training.num_steps(num_windows)):
        if step % num_batches == 0:
            order = np.argsort(words.random_raw(num_windows), kind="stable")
            batches = np.array_split(order, num_batches)
        yield torch.from_numpy(batches[step % num_batches])


def seed_bytes(training: LocalTraining, round_number: int, device_id: str) -> bytes:
    """32 bytes that depend on seed, round and device: 16 for the batches' order, 8 for dropout."""
    return hashlib.sha256(f"{training.seed}\n{round_number}\n{device_id}".encode()).digest()


def count_samples(specs: Sequence[BlockSpec], stacked: Stacked, seen: Mask) -> dict[BlockId, int]:
    """Per block the windows among `seen` that exercised it, each counted once, however many passes were made.

    An encoder: its modality is present and a task that uses it is labelled. A part of a fusion: its modality is present
    and its task labelled. The rest of a fusion, a head, and where zeros are filled in a part: their task is labelled.
    """
    counts: dict[BlockId, int] = {}
    by_task = {(s.task, modality) for s in specs if s.task is not None and (modality := part_modality(s.id))}
    nothing = np.zeros(stacked.num_windows, dtype=np.bool_)
    for spec in specs:
        if spec.task is None:
            masks = [stacked.used[t] for t, m in by_task if m == spec.modality and t in stacked.used]
        else:
            masks = [stacked.used.get(spec.task, nothing)]
        rows = np.logical_or.reduce([nothing, *masks]) & seen
        if spec.modality is not None:
            rows = rows & stacked.has.get(spec.modality, nothing)
        counts[spec.id] = int(rows.sum())
    return counts


def _label(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.int64 if values.dtype.kind == "i" else np.float32, copy=False)


def _tensor(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
