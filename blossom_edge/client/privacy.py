"""What leaves a device and what stays, for one set of modalities in one federation. The one list of both."""

from __future__ import annotations

from dataclasses import dataclass

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.core.blocks import BlockId, BlockKey, BlockKind, Visibility
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import shared_id


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


def privacy_of(
    federation: Federation,
    modalities: tuple[str, ...],
    tasks: tuple[str, ...] = (),
    *,
    role: str = "train",
    publishes: bool = False,
) -> Privacy:
    """The table for a device of a role; every message kind that it can send stands in it.

    publishes: whether its people let predictions leave (`--publish`; never of a device that trains).
    """
    blocks = DeviceBlocks(federation, modalities, tasks)
    trains = role == "train"
    leaves = (
        *(_training(federation, blocks) if trains else ()),
        Leaving("scores", "accuracy and loss of the received model on own holdout", "state", GATEWAY, "--holdout 0"),
        *([_PREDICTIONS] if publishes and not trains else ()),
        *([_MEMBERSHIP] if trains else ()),
        Leaving(
            "state",
            "training, skipped or slowed down and why (with the board's temperature, charge, memory), steps done, "
            "present modalities"
            if trains
            else "which versions are in use or were refused and why, present modalities, number of labelled windows",
            "state, bye",
            GATEWAY,
            "leave the federation",
        ),
        Leaving(
            "identity",
            "device id, public key, profile id and digest, modalities, tasks, software version, held versions"
            + ("" if trains else ", which block graphs are missing"),
            "hello, ask" if trains else "hello, ask, want",
            GATEWAY,
            "--id changes the name",
        ),
    )
    stays = (
        "every sample and window of every sensor",
        "labels, and which of them this device has",
        *(_kept(block) for block in blocks.private if trains),
        *(["the own head: its values, what it was trained on, its gate"] if role == "personalize" else ()),
        *(["predictions (they leave only with --publish)"] if not trains and not publishes else ()),
        "optimiser state, calibration, the device's secret key" if trains else "calibration, the device's secret key",
    )
    return Privacy(leaves, stays)


_PREDICTIONS = Leaving(
    "predictions",
    "class or value, confidence, latency, versions and modalities used, of the newest window, at most one a second",
    "prediction",
    f"{GATEWAY}; it passes them on to Home Assistant (home_assistant in gateway.toml)",
    "leave out --publish",
)
_MEMBERSHIP = Leaving("membership", "that this device took part in a version", "commit", ALL, "leave the federation")


def _kept(block: BlockId) -> str:
    """A block that stays, in words."""
    if block.kind is BlockKind.GATE:
        return f"{block} (how much this device listens to the shared copies: private)"
    if shared_id(block) != block:
        return f"{block} (private copy of {shared_id(block)})"
    return f"{block} (private block)"


def _name(federation: Federation, key: BlockKey) -> str:
    dual = federation.spec[key.block].visibility is Visibility.DUAL
    return f"{key} (shared copy)" if dual else str(key)


def _training(federation: Federation, blocks: DeviceBlocks) -> tuple[Leaving, ...]:
    """What only a device that trains sends."""
    trained = [_name(federation, key) for key in blocks.shared if key.block.kind is not BlockKind.SCALE]
    shared = ", ".join(trained) or "none"
    cohort = federation.rounds.min_cohort
    scales = [str(key) for key in blocks.shared if key.block.kind is BlockKind.SCALE]
    measured = Leaving(
        "channel figures",
        "of each channel the mean and the mean squared distance from all devices' mean, over own labelled windows, in "
        f"its first two rounds: {', '.join(scales)}",
        "offer, chunk",
        f"{GATEWAY}; the mean over {cohort} or more owners: {ALL}",
        'normalise = "unit" in the federation',
    )
    return (
        Leaving(
            "block deltas",
            f"how training changed {shared}",
            "offer, chunk",
            f"{GATEWAY}; the mean over {cohort} or more owners: {ALL}",
            'visibility = "private" in the federation, min_cohort for the mean',
        ),
        *([measured] if scales else ()),
        Leaving("sample counts", "labelled windows and steps per block", "offer, state", GATEWAY, "not possible"),
    )
