"""What leaves a device and what stays, for one set of modalities in one federation. The one list of both."""

from __future__ import annotations

from dataclasses import dataclass

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.federation.schema import Federation


@dataclass(frozen=True, slots=True)
class Leaving:
    """One kind of thing that leaves: in which message, who can see it, how to keep it home."""

    kind: str
    what: str
    message: str
    seen_by: str
    turn_off: str


@dataclass(frozen=True, slots=True)
class Privacy:
    """Everything that leaves, and what stays."""

    leaves: tuple[Leaving, ...]
    stays: tuple[str, ...]


GATEWAY = "the gateway, and whoever reads its broker"
ALL = "all devices of the federation"


def privacy_of(federation: Federation, modalities: tuple[str, ...], tasks: tuple[str, ...] = ()) -> Privacy:
    """The table for a device; every message kind that a device can send stands in it."""
    blocks = DeviceBlocks(federation, modalities, tasks)
    shared = ", ".join(str(key) for key in blocks.shared) or "none"
    private = [str(block) for block in blocks.private]
    cohort = federation.rounds.min_cohort
    leaves = (
        Leaving(
            "block deltas",
            f"how training changed {shared}",
            "offer, chunk",
            f"{GATEWAY}; the mean over {cohort} or more owners: {ALL}",
            'visibility = "private" in the federation, min_cohort for the mean',
        ),
        Leaving("sample counts", "labelled windows and steps per block", "offer, state", GATEWAY, "not possible"),
        Leaving("scores", "accuracy and loss of the received model on own holdout", "state", GATEWAY, "--holdout 0"),
        Leaving("membership", "that this device took part in a version", "commit", ALL, "leave the federation"),
        Leaving(
            "state",
            "training, skipped or slowed down and why (with the board's temperature, charge, memory), steps done, "
            "present modalities",
            "state, bye",
            GATEWAY,
            "leave the federation",
        ),
        Leaving(
            "identity",
            "device id, public key, profile id and digest, modalities, tasks, software version, held versions",
            "hello, ask",
            GATEWAY,
            "--id changes the name",
        ),
    )
    stays = (
        "every sample and window of every sensor",
        "labels, and which of them this device has",
        *(f"{block} (private block)" for block in private),
        "optimiser state, calibration, the device's secret key",
    )
    return Privacy(leaves, stays)
