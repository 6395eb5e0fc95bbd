"""What a running `join` tells the person before it, and writes for `status` and `why`. Never asks anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from blossom_edge.client.agent import Agent
from blossom_edge.console.output import Output, format_bytes

STATUS_EVERY_S = 0.5
"""While something happens, `status.json` is written so often ..."""
QUIET_EVERY_S = 5.0
"""... and so often when only counts of samples change: an SD card lives on few writes."""


class Screen:
    """Tells the person what happens, and keeps `status.json`. Called with the agent at every step.

    gateway: its address, as it is kept for the next join. publishes: predictions leave the device. clock: monotonic
    seconds, the same in all processes.
    """

    def __init__(
        self, out: Output, gateway: str, *, publishes: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._publishes = publishes
        self._gateway = gateway
        self._clock = clock
        self._joined = False
        self._phase = self._detail = ""
        self._scored = 0
        self._absent: dict[str, str] = {}
        self._looked_at = self._written_at = float("-inf")
        self._written: dict[str, Any] = {}

    def __call__(self, agent: Agent) -> None:
        """Say what is new, and write it if it is time."""
        session = agent.session
        if session.welcomed and not self._joined and session.blocks is not None:
            self._joined = True
            agent.store.remember_gateway(self._gateway)
            self._say_joined(agent)
        story = session.story
        if story.score_round != self._scored and story.score:
            self._scored = story.score_round
            self._say_score(agent)
        if session.facts.role != "train" and story.detail != self._detail:
            self._detail = story.detail
            if "waits" in story.detail or "refused" in story.detail or story.detail.count(";") > 1:
                self._out.note(f"round {story.round}: {story.detail}")
        if story.phase == "offline" and self._phase not in ("offline", ""):
            self._out.note("the gateway is gone; trying again by itself")
        now, changed = self._clock(), story.phase != self._phase
        self._phase = story.phase
        if changed or agent.stopped is not None or now - self._looked_at >= STATUS_EVERY_S:
            self._looked_at = now
            status = agent.status()
            self._say_sensors(status["sensors"])
            self._write(agent, status, now)

    def _write(self, agent: Agent, status: dict[str, Any], now: float) -> None:
        lasting = {key: value for key, value in status.items() if key not in ("deadline_in_s", "sensors")}
        lasting["absent"] = dict(self._absent)
        if lasting == self._written and agent.stopped is None and now - self._written_at < QUIET_EVERY_S:
            return
        self._written, self._written_at = lasting, now
        process = {"pid": os.getpid(), "running_here": agent.stopped is None, "written_s": now}
        agent.store.keep_status({**status, **process, "gateway": self._gateway})

    def _say_sensors(self, sensors: Mapping[str, Mapping[str, Any]]) -> None:
        absent = {name: f"{s['state']}, {s['reason']}" for name, s in sensors.items() if s["state"] != "ok"}
        for name, why in absent.items():
            if name not in self._absent:
                self._out.note(f"{name} is absent: {why}")
        for name in self._absent:
            if name not in absent and name in sensors:
                self._out.note(f"{name} is back")
        self._absent = absent

    def _say_score(self, agent: Agent) -> None:
        story = agent.session.story
        measure = next((n for n in sorted(story.score) if not n.endswith(".loss")), None)
        mean = story.score[measure].mean if measure is not None else None
        shown = "-" if mean is None else f"{mean:.3f}"
        last = agent.traffic.get(story.score_round - 1) if story.score_round > 1 else None
        sizes = f"; last round sent {format_bytes(last.up)}, received {format_bytes(last.down)}" if last else ""
        self._out.line(f"round {story.score_round}: {measure} {shown} on own holdout{sizes}")

    def _say_joined(self, agent: Agent) -> None:
        from blossom_edge.cli.privacy import print_privacy
        from blossom_edge.client.privacy import privacy_of

        facts, blocks = agent.session.facts, agent.session.blocks
        if blocks is None:
            return
        self._out.line(f"{facts.device} joined federation {blocks.federation.name} at {self._gateway}")
        if agent.learner is not None and agent.learner.compute:
            verb = "learns on" if facts.role == "train" else "runs on"
            role = "" if facts.role == "train" else f", role {facts.role}"
            self._out.line(f"{verb} {agent.learner.compute}{role}")
        if not self._out.quiet:
            print_privacy(
                self._out,
                privacy_of(
                    blocks.federation, facts.modalities, facts.tasks, role=facts.role, publishes=self._publishes
                ),
            )
