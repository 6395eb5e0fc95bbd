"""Small comparisons of modes whose figures are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blossom_edge.simulation.results import MODES, DeviceResult, Results


def results_of(
    own: Mapping[str, Sequence[float]],
    new: Mapping[str, Sequence[float]] | None = None,
    *,
    warnings: tuple[str, ...] = (),
    private_blocks_sent: int = 0,
) -> Results:
    """A comparison with these scores: mode -> one score per device; curves go from 0.1 straight to the score."""
    new = own if new is None else new
    devices = tuple(
        DeviceResult(
            id=f"rpi4-gyro-{i + 1}",
            profile="rpi4-gyro",
            modalities=("gyro",),
            person=i + 1,
            score={mode: own[mode][i] for mode in MODES},
            new_people_score={mode: new[mode][i] for mode in MODES},
            curve={mode: (0.1, (0.1 + own[mode][i]) / 2, own[mode][i]) for mode in MODES},
            bytes_up_per_round=604_000.0,
            bytes_down_per_round=605_000.0,
            private_blocks_sent=private_blocks_sent,
            private_blocks=("fusion/har", "head/har"),
            private_place=f"devices/rpi4-gyro-{i + 1}",
        )
        for i in range(len(own["alone"]))
    )
    return Results(
        seed=7,
        rounds=2,
        labels_per_class=3,
        federation="har",
        digest="ab" * 32,
        majority_score=0.17,
        new_people_majority=0.18,
        devices=devices,
        seconds=61.0,
        versions={"encoder/gyro": "cd" * 32},
        warnings=warnings,
    )
