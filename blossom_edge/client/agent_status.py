"""What an agent tells of itself as plain data, for `status`, `why` and the files they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from blossom_edge.client.session import Session
from blossom_edge.core.blocks import BlockKind
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.metrics import MetricSums

SHOWN_ROUNDS = 100
"""How many rounds of scores stand in the status."""


def agent_status(
    session: Session,
    now: float,
    *,
    scores: Mapping[int, MetricSums],
    traffic: Mapping[int, tuple[int, int]],
    private_sent: Counter[str],
    sensors: Mapping[str, Any],
    energy_j: float | None,
    model: Mapping[str, Any],
    publishes: bool,
    error: BlossomError | None = None,
) -> dict[str, Any]:
    """The state of a device's part in its federation. Scores, counts, and of a model's values only its gates.

    traffic: bytes up and down by round. sensors: as `Learner.sensors` gives them. energy_j: joules of the last round's
    evaluation and training, None where nothing measures them. model: as `ModelUser.status` gives it. publishes: whether
    predictions leave. error: what ended it.
    """
    story, federation = session.story, session.federation
    trains = session.facts.role == "train"  # others do not hold private blocks, but a head of their own
    private = [str(block) for block in session.blocks.private] if session.blocks is not None and trains else []
    return {
        "device": session.facts.device,
        "profile": session.facts.profile,
        "modalities": list(session.facts.modalities),
        "tasks": list(session.facts.tasks),
        "federation": federation.name if federation is not None else None,
        "connected": session.welcomed,
        "phase": story.phase,
        "detail": story.detail,
        "round": story.round,
        "deadline_in_s": round(story.deadline - now, 1) if story.deadline is not None else None,
        "score": {name: metric.mean for name, metric in sorted(story.score.items())},
        "score_round": story.score_round,
        "scores": {
            str(number): {name: metric.mean for name, metric in sorted(score.items())}
            for number, score in sorted(scores.items())[-SHOWN_ROUNDS:]
        },
        "sent": dict(sorted(story.sent.items())),
        "outcomes": dict(sorted(story.outcomes.items())),
        "waiting_for": [str(key) for key in session.downloads.missing()],
        "unconfirmed": [str(update.key) for update in session.outbox.updates],
        "versions": {str(key): held.version for key, held in sorted(session.downloads.held.items())},
        "private": private,
        "gates": _gates(session) if trains else {},
        "private_sent": dict(sorted(private_sent.items())),
        "bytes": {str(number): list(sizes) for number, sizes in sorted(traffic.items())},
        "sensors": {name: dict(facts) for name, facts in sorted(sensors.items())},
        "energy_j": energy_j,
        "role": session.facts.role,
        "model": dict(model),
        "publishes": publishes,
        "error": None if error is None else {"id": error.error_id, "message": str(error), "hint": error.hint},
    }


def _gates(session: Session) -> dict[str, float]:
    """By task with a dual head, the share of the shared branch in what the device says, as its last round chose it."""
    kept = session.checkpoint.private
    return {b.name: float(values["gate"][0]) for b, values in sorted(kept.items()) if b.kind is BlockKind.GATE}
