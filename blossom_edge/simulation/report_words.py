"""What a comparison of modes found, in sentences. Assumes no winner: every sentence follows from the figures given."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blossom_edge.console.output import format_bytes
from blossom_edge.simulation.results import MODE_NAMES, MODES, DeviceResult, Results

PAIRS = (("full", "alone"), ("private_head_fusion", "alone"), ("private_head_fusion", "full"))
"""Which modes are held against each other, the second being the one to beat."""
OWN, NEW = "own later recordings", "people no device has seen"
SHOWN_DIFFERENCE = 0.0005
"""A smaller difference is shown as none."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One mode against another over the same devices: mean difference, and its spread from device to device.

    `spread` is the sample standard deviation of the devices' differences; None with one device.
    """

    mode: str
    other: str
    difference: float
    spread: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the mean difference is larger than its spread over the devices."""
        return self.spread is not None and abs(self.difference) > max(self.spread, SHOWN_DIFFERENCE)


def compare(scores: Sequence[Mapping[str, float]], mode: str, other: str) -> Comparison:
    """Compare two modes device by device; `scores` has each device's score by mode."""
    differences = [score[mode] - score[other] for score in scores]
    spread = statistics.stdev(differences) if len(differences) > 1 else None
    return Comparison(mode, other, statistics.fmean(differences), spread)


def report_words(results: Results) -> list[str]:
    """The result in sentences: per kind of score the means and each pair of modes, then bytes and private blocks."""
    words = [
        *_score_words(OWN, results.mean_score, [d.score for d in results.devices], results.majority_score),
        *_score_words(
            NEW, results.new_people_score, [d.new_people_score for d in results.devices], results.new_people_majority
        ),
        _bytes_words(results.devices),
        _private_words(results.devices),
    ]
    return words + [f"Note: {warning}." for warning in results.warnings] + [_caution(results)]


def verdict(results: Results) -> str:
    """The whole result in one line, for a headline."""
    own = _winner(results.mean_score)
    new = _winner(results.new_people_score)
    if own == new:
        return f"Highest on {OWN} and on {NEW}: {own}"
    return f"Highest on {OWN}: {own}. Highest on {NEW}: {new}."


def _score_words(
    what: str, means: Mapping[str, float], scores: Sequence[Mapping[str, float]], base: float
) -> list[str]:
    ranked = sorted(MODES, key=lambda mode: -means[mode])
    figures = ", ".join(f"{MODE_NAMES[mode]} {means[mode]:.3f}" for mode in ranked)
    sentences = [f"{_capital(what)} (mean of {len(scores)} devices): {figures}; naming one label always: {base:.3f}."]
    return sentences + [_pair_words(compare(scores, mode, other)) for mode, other in PAIRS]


def _pair_words(found: Comparison) -> str:
    mode, other = _capital(MODE_NAMES[found.mode]), MODE_NAMES[found.other]
    size = abs(found.difference)
    if size < SHOWN_DIFFERENCE:
        return f"{mode} and {other} came out equal."
    verb = "won against" if found.difference > 0 else "lost against"
    if found.spread is None:
        return f"{mode} {verb} {other} by {size:.3f}; one device shows no spread."
    relation = "more than" if found.is_clear else "within"
    return f"{mode} {verb} {other} by {size:.3f}, {relation} the spread over the devices ({found.spread:.3f})."


def _bytes_words(devices: Sequence[DeviceResult]) -> str:
    parts = []
    for modalities in sorted({device.modalities for device in devices}):
        same = [device for device in devices if device.modalities == modalities]
        up = statistics.fmean(device.bytes_up_per_round for device in same)
        down = statistics.fmean(device.bytes_down_per_round for device in same)
        parts.append(f"{' + '.join(modalities)} {format_bytes(up)} up, {format_bytes(down)} down")
    return f"Bytes per device and round with {MODE_NAMES['private_head_fusion']}: {'; '.join(parts)}."


def _private_words(devices: Sequence[DeviceResult]) -> str:
    sent = sum(device.private_blocks_sent for device in devices)
    blocks = sorted({block for device in devices for block in device.private_blocks})
    named = f" ({', '.join(blocks)})" if blocks else ""
    if sent:
        return f"Messages that carried a private block{named}: {sent}. That must not happen; please report it."
    return f"Messages that carried a private block{named}: none. Each stayed in the folder of its own device."


def _caution(results: Results) -> str:
    labels = "all labels" if results.labels_per_class is None else f"{results.labels_per_class} labels per class"
    return (
        f"This is one run: seed {results.seed}, {results.rounds} rounds, {labels}, {len(results.devices)} devices. "
        "Another seed moves the figures; try some before believing a small difference."
    )


def _winner(means: Mapping[str, float]) -> str:
    best = max(means.values())
    return " and ".join(MODE_NAMES[mode] for mode in MODES if best - means[mode] < SHOWN_DIFFERENCE)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
