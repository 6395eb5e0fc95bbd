"""Where training runs: the CPU or a CUDA device, and on how many threads. Says what it chose."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from blossom_edge.board.processors import allowed_cpus, physical_cores
from blossom_edge.core.errors import ConfigError, HardwareError

MAX_THREADS = 4
"""Small models do not gain from more."""


def choose_device(compute: str) -> tuple[torch.device, str]:
    """The device for `auto`, `cpu` or `cuda`, and a sentence that says which and why.

    Raises:
        HardwareError: `device-unavailable`, CUDA was asked for and is not there.
        ConfigError: `device-unavailable`, another word.
    """
    if compute not in ("auto", "cpu", "cuda"):
        raise ConfigError("device-unavailable", f"compute.device: found {compute!r}, expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if compute == "cuda" and not there:
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise HardwareError(
            "device-unavailable", f"compute.device: cuda is not available ({built})", hint="set compute.device to auto"
        )
    if compute == "cpu" or not there:
        return torch.device("cpu"), "cpu" if compute == "cpu" else "cpu (auto: no CUDA device)"
    name = torch.cuda.get_device_name()
    return torch.device("cuda", torch.cuda.current_device()), f"cuda: {name}" + (" (auto)" if compute == "auto" else "")


def set_threads(threads: int | None = None) -> int:
    """Set torch's threads for this whole process and return their number; None takes `default_threads()`.

    Too many threads on a busy board cost far more than they bring. `OMP_WAIT_POLICY=passive` in the environment
    keeps idle threads from spinning.
    """
    count = max(1, default_threads() if threads is None else threads)
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    return count


def default_threads(root: Path = Path("/")) -> int:
    """One less than the physical cores (one stays for sensors and network), at most four.

    Never more than the processors that affinity and the quota of the control group leave to this process; `root`
    stands before /sys and /proc.
    """
    cores = physical_cores(root) or os.cpu_count() or 1
    return max(1, min(allowed_cpus(root), cores - 1, MAX_THREADS))
