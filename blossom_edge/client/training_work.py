"""One round of a device that trains: ask the board, evaluate what was received, train it. Sends nothing itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from blossom_edge.client.actions import Action, Work
from blossom_edge.client.governor import FULL, Decision, Governor
from blossom_edge.client.learner import Learner
from blossom_edge.client.session import Session
from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.training import Trainer

log = logging.getLogger("blossom_edge")


class TrainingWork:
    """The work of a device's rounds. `governor` says what the board can bear; without it every plan is done whole.

    scores: takes the own score of each round's model. tell: carries out actions in the middle of the work, so that the
    gateway knows of it while it goes on.
    """

    def __init__(
        self,
        session: Session,
        governor: Governor | None,
        *,
        clock: Callable[[], float],
        scores: dict[int, MetricSums],
        tell: Callable[[Iterable[Action]], None],
    ) -> None:
        self.resume_at: float | None = None
        """When a pause is looked at again."""
        self._scores = scores
        self._session = session
        self.governor = governor
        self._clock = clock
        self._tell = tell

    def do(self, work: Work, learner: Learner) -> list[Action]:
        """Work off a plan, or say why not; what is to be done then."""
        session, governor = self._session, self.governor
        decision, trainer = self._ask_governor(work), learner.must_train()
        if decision.action == "pause" and governor is not None:
            self.resume_at = self._clock() + governor.recheck_s()
            return session.paused(decision.reason)
        if decision.action == "skip":
            return self._skipped(work, decision.reason, {}, trainer.present_modalities())
        if governor is not None:
            governor.begin()
        num_seen, blocks = learner.count(), session.model()
        self._scores[work.round] = score = trainer.evaluate(blocks)
        present = trainer.present_modalities()
        num_windows = trainer.num_windows()
        lacking = session.lacks_windows(num_windows, num_seen, at_least=learner.min_new_windows)
        if lacking:
            return self._skipped(work, lacking, score, present)
        if not all(math.isfinite(measure.total) for measure in score.values()):
            return self._skipped(work, "the received model answers with no numbers", score, present)
        self._tell(session.scored(score, present, num_windows))
        planned = training = session.training()
        num_planned = planned.num_steps(num_windows)
        if decision.action == "smaller":
            training = replace(planned, epochs=0, steps=max(1, int(num_planned * decision.share)))
        try:
            result = trainer.train(
                blocks,
                training,
                round_number=work.round,
                frozen=frozenset(),
                optimizer=session.checkpoint.optimizer,
                keep_going=governor.keep_going if governor is not None else None,
            )
            why_fewer = self._end(work, decision, result.num_steps, num_planned)
            return session.trained(blocks, result, num_seen=num_seen, now=self._clock(), why_fewer=why_fewer)
        except BlossomError as error:
            if error.error_id != "local-value":
                raise
            # nothing was kept of it: private blocks are those of before, and the next version may be a better start
            return self._skipped(work, f"{error}: {error.hint}" if error.hint else str(error), score, present)

    def _end(self, work: Work, decision: Decision, num_steps: int, num_planned: int) -> str:
        """The training of a round is over; why it took fewer steps than planned, or the empty text."""
        why_fewer, governor = "", self.governor
        if governor is not None:
            governor.end()
            why = governor.stopped_by or decision.reason
            if why and num_steps < num_planned:
                why_fewer = f"{num_steps} of {num_planned} steps: {why}"
                log_event(log, "governor", round=work.round, action="fewer steps", reason=why_fewer)
        log_event(log, "round-trained", round=work.round, steps=num_steps)
        return why_fewer

    def _skipped(self, work: Work, reason: str, score: MetricSums, present: frozenset[str]) -> list[Action]:
        log_event(log, "round-skipped", round=work.round, reason=reason)
        return self._session.skipped(reason, score, present)

    def evaluate(self, round_number: int, trainer: Trainer) -> list[Action]:
        """Score the finished model."""
        self._scores[round_number + 1] = score = trainer.evaluate(self._session.model())
        return self._session.evaluated(round_number, score, trainer.present_modalities())

    def resume(self, now: float) -> list[Action] | None:
        """What a pause that is over leaves to do; None while there is none, or it goes on."""
        if self.resume_at is None or now < self.resume_at:
            return None
        self.resume_at = None
        return self._session.go_on(now)

    def _ask_governor(self, work: Work) -> Decision:
        self.resume_at = None
        if self.governor is None:
            return FULL
        deadline = self._session.story.deadline
        decision = self.governor.ask(work.round, None if deadline is None else deadline - self._clock())
        if decision.action != "full":
            log_event(log, "governor", round=work.round, action=decision.action, reason=decision.reason)
        return decision
