"""What a comparison of modes has found, as plain values. Computes means, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODES = ("alone", "full", "private_head_fusion")
"""Every device by itself; all blocks shared; encoders shared, fusion and head private."""

MODE_NAMES: Mapping[str, str] = {"alone": "alone", "full": "full model", "private_head_fusion": "private head + fusion"}


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """One device. Scores are accuracies by mode: on own later recordings, and on people no device has seen.

    `curve` has the own score after 0, 1, ... rounds. Bytes are those of the private_head_fusion run.
    """

    id: str
    profile: str
    modalities: tuple[str, ...]
    person: int
    score: Mapping[str, float]
    new_people_score: Mapping[str, float]
    curve: Mapping[str, tuple[float, ...]]
    bytes_up_per_round: float
    bytes_down_per_round: float
    private_blocks_sent: int
    private_blocks: tuple[str, ...] = ()
    private_place: str = ""
    """The folder that held the private blocks."""


@dataclass(frozen=True, slots=True)
class Results:
    """One comparison: the same people, splits, seeds and starting values in every mode.

    `majority_score` and `new_people_majority` are what always naming the most frequent label gets, mean over devices.
    """

    seed: int
    rounds: int
    labels_per_class: int | None
    federation: str
    digest: str
    majority_score: float
    new_people_majority: float
    devices: tuple[DeviceResult, ...]
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    """Block -> hash of its last version in the private_head_fusion run."""
    warnings: tuple[str, ...] = ()

    @property
    def mean_score(self) -> dict[str, float]:
        """Mean own score over the devices, by mode."""
        return {mode: _mean([d.score[mode] for d in self.devices]) for mode in MODES}

    @property
    def new_people_score(self) -> dict[str, float]:
        """Mean score on new people over the devices, by mode."""
        return {mode: _mean([d.new_people_score[mode] for d in self.devices]) for mode in MODES}

    def to_json(self, *, report: str) -> dict[str, Any]:
        """As `--json` prints it; `report` is the path of the page."""
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "labels_per_class": "all" if self.labels_per_class is None else self.labels_per_class,
            "federation": self.federation,
            "digest": self.digest,
            "mean_score": self.mean_score,
            "new_people_score": self.new_people_score,
            "majority_score": self.majority_score,
            "new_people_majority": self.new_people_majority,
            "devices": [_plain(device) for device in self.devices],
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 1),
            "report": report,
        }


def _plain(device: DeviceResult) -> dict[str, Any]:
    return {
        "id": device.id,
        "profile": device.profile,
        "modalities": list(device.modalities),
        "person": device.person,
        "score": dict(device.score),
        "new_people_score": dict(device.new_people_score),
        "curve": {mode: list(values) for mode, values in device.curve.items()},
        "bytes_up_per_round": round(device.bytes_up_per_round),
        "bytes_down_per_round": round(device.bytes_down_per_round),
        "private_blocks_sent": device.private_blocks_sent,
        "private_blocks": list(device.private_blocks),
        "private_place": device.private_place,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
