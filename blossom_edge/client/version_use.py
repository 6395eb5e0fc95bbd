"""What a device of role `infer` or `personalize` does with versions and windows: use, predict, and say so if wanted.

Asks the gateway for skeletons that are missing. Sends no prediction unless it was told to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from blossom_edge.client.actions import Action, Apply
from blossom_edge.client.learner import ModelUser, newest
from blossom_edge.client.session import Session
from blossom_edge.codec import messages
from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction

ASK_AGAIN_S = 10.0
"""Skeletons that did not come are asked for again after this time."""
PUBLISH_EVERY_S = 1.0
"""At most one prediction of each task in this time goes to the gateway: the newest."""

log = logging.getLogger("blossom_edge")


class VersionUse:
    """The use of received versions by one device.

    scores: takes the own score of each round's model, under the number after the round. send: hands a message to the
    link. publish: predictions go to the gateway. tell: called with each.
    """

    def __init__(
        self,
        session: Session,
        *,
        scores: dict[int, MetricSums],
        send: Callable[[messages.WireMessage], None],
        publish: bool,
        tell: Callable[[Prediction], None],
    ) -> None:
        self.num_published = 0
        self._session = session
        self._scores = scores
        self._send = send
        self._publish = publish
        self._tell = tell
        self._asked_at = float("-inf")
        self._no_skeleton: dict[str, str] = {}
        self._published_at = float("-inf")
        self._unpublished: dict[str, tuple[Prediction, float]] = {}

    def apply(self, action: Apply, user: ModelUser) -> list[Action]:
        """Put the received versions to use; what is to be done then."""
        session = self._session
        taken = user.take(session.downloads.held)
        self._scores[action.round + 1] = taken.score
        words = taken.words
        if self._no_skeleton and user.lacking():  # one says for all what the operator has to do
            words += f"; the gateway: {next(iter(self._no_skeleton.values()))}"
        log_event(log, "versions-taken", round=action.round, words=words)
        present = user.present_modalities()
        return session.applied(taken.score, present, user.num_windows(), words=words, lacks=taken.lacks)

    def update(self, user: ModelUser, now: float) -> None:
        """Predict the windows that came; ask for what is missing; publish what is due."""
        self._take(user.update(now), now)
        if not self._session.welcomed:
            return
        lacking = user.lacking()
        if lacking and now - self._asked_at >= ASK_AGAIN_S:
            self._asked_at = now
            self._send(messages.WantSkeletons(epoch=self._session.voice.epoch, skeletons=lacking[:64]))
        if self._unpublished and now - self._published_at >= PUBLISH_EVERY_S:
            self._published_at = now
            for prediction, made_at in self._unpublished.values():
                self._send(self._session.voice.prediction(prediction, age_s=now - made_at))
                self.num_published += 1
            self._unpublished.clear()

    def skeleton(self, message: messages.Skeleton, user: ModelUser) -> list[Action]:
        """A skeleton came, or the word that there is none; once all are here the versions are put to use."""
        if message.digest not in user.lacking():
            return []
        if message.reason:
            self._no_skeleton[message.digest] = message.reason
            log_event(log, "skeleton-missing", level=logging.WARNING, digest=message.digest[:12], reason=message.reason)
            return []
        try:
            user.add_skeleton(message.digest, message.data)
        except BlossomError as error:
            self._no_skeleton[message.digest] = str(error)
            log_event(log, "skeleton-refused", level=logging.WARNING, digest=message.digest[:12], reason=str(error))
            return []
        self._no_skeleton.pop(message.digest, None)
        return self._session.apply_again() if not user.lacking() else []

    def _take(self, predictions: Sequence[Prediction], now: float) -> None:
        for prediction in predictions:
            self._tell(prediction)
        if self._publish:
            self._unpublished |= {task: (one, now) for task, one in newest(predictions).items()}
