"""What a device that does not train asks for, tells and publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from test_session_versions import joined

from blossom_edge.client.actions import Apply
from blossom_edge.client.learner import Taken
from blossom_edge.client.version_use import ASK_AGAIN_S, PUBLISH_EVERY_S, VersionUse
from blossom_edge.codec import messages
from blossom_edge.core.errors import RemoteError
from blossom_edge.core.metrics import Metric
from blossom_edge.core.prediction import Prediction

ONE, TWO = "1" * 64, "2" * 64


def prediction(number: int, task: str = "move", end_s: float = 9.0) -> Prediction:
    return Prediction(
        number, task, "classification", end_s - 2.0, end_s, 0.4, 1, {"encoder/accel": 3}, ("accel",), ("walk",), 0.9
    )


class User:
    """A model user whose windows and wishes the test sets."""

    def __init__(self) -> None:
        self.wanted: tuple[str, ...] = ()
        self.waiting: list[Prediction] = []
        self.added: list[str] = []
        self.score = {"move.accuracy": Metric(1.0, 2.0)}

    def lacking(self) -> tuple[str, ...]:
        return self.wanted

    def add_skeleton(self, digest: str, data: bytes) -> None:
        if data == b"bad":
            raise RemoteError("not ONNX", error_id="skeleton-invalid")
        self.added.append(digest)
        self.wanted = tuple(d for d in self.wanted if d != digest)

    def take(self, held: Any) -> Taken:
        return Taken(self.score, "generation 1 in use")

    def update(self, now: float) -> list[Prediction]:
        found, self.waiting = self.waiting, []
        return found

    def open(self, place: Path, *, keys: Any, boot: int) -> None: ...

    def present_modalities(self) -> frozenset[str]:
        return frozenset({"accel"})

    def num_windows(self) -> int:
        return 2

    def status(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


class Bench:
    def __init__(self, *, publish: bool) -> None:
        self.session, _ = joined()
        self.sent: list[messages.WireMessage] = []
        self.told: list[Prediction] = []
        self.scores: dict[int, Any] = {}
        self.user = User()
        self.use = VersionUse(
            self.session, scores=self.scores, send=self.sent.append, publish=publish, tell=self.told.append
        )

    def reports(self) -> list[messages.PredictionReport]:
        return [m for m in self.sent if isinstance(m, messages.PredictionReport)]


def test_no_prediction_leaves_the_device_unless_its_people_want_it() -> None:
    bench = Bench(publish=False)
    bench.user.waiting = [prediction(1), prediction(2)]
    bench.use.update(bench.user, 10.0)
    bench.use.update(bench.user, 20.0)
    assert [p.number for p in bench.told] == [1, 2]
    assert bench.sent == []


def test_the_newest_prediction_of_each_task_is_published_at_most_once_a_second() -> None:
    bench = Bench(publish=True)
    bench.user.waiting = [prediction(1), prediction(2, end_s=9.5), prediction(2, task="speed")]
    bench.use.update(bench.user, 10.0)
    assert [(r.task, round(r.age_s, 6)) for r in bench.reports()] == [("move", 0.0), ("speed", 0.0)]
    assert bench.reports()[0].sequence < bench.reports()[1].sequence
    bench.user.waiting = [prediction(3)]
    bench.use.update(bench.user, 10.0 + PUBLISH_EVERY_S / 2)
    assert len(bench.reports()) == 2
    bench.user.waiting = [prediction(4, end_s=10.9)]
    bench.use.update(bench.user, 10.0 + PUBLISH_EVERY_S)
    assert len(bench.reports()) == 3
    assert bench.reports()[-1].age_s == 0.0
    assert bench.use.num_published == 3


def test_offline_nothing_is_sent_and_the_newest_goes_out_when_the_link_is_back() -> None:
    bench = Bench(publish=True)
    bench.session.disconnected()
    bench.user.waiting, bench.user.wanted = [prediction(1)], (ONE,)
    bench.use.update(bench.user, 10.0)
    assert bench.sent == []
    assert len(bench.told) == 1
    bench.session.welcomed = True
    bench.use.update(bench.user, 60.0)
    assert [type(m).__name__ for m in bench.sent] == ["WantSkeletons", "PredictionReport"]
    assert bench.reports()[0].age_s == 50.0  # made at 10, sent at 60


def test_missing_skeletons_are_asked_for_again_until_they_are_here_then_the_versions_are_put_to_use() -> None:
    bench = Bench(publish=False)
    bench.user.wanted = (ONE, TWO)
    bench.use.update(bench.user, 0.0)
    bench.use.update(bench.user, ASK_AGAIN_S / 2)
    bench.use.update(bench.user, ASK_AGAIN_S)
    wants = [m.skeletons for m in bench.sent if isinstance(m, messages.WantSkeletons)]
    assert wants == [(ONE, TWO), (ONE, TWO)]

    def skeleton(digest: str, data: bytes = b"graph", reason: str = "") -> messages.Skeleton:
        return messages.Skeleton(digest=digest, sha256="0" * 64, reason=reason, data=data)

    assert bench.use.skeleton(skeleton(ONE), bench.user) == []
    assert bench.use.skeleton(skeleton(TWO, b"bad"), bench.user) == []
    assert bench.use.skeleton(skeleton(TWO, b"", reason="none here"), bench.user) == []
    assert bench.user.added == [ONE]
    bench.use.apply(Apply(3), bench.user)
    assert bench.session.story.detail == "for the next round; generation 1 in use; the gateway: none here"
    (again,) = bench.use.skeleton(skeleton(TWO), bench.user)
    assert isinstance(again, Apply)
    bench.use.apply(Apply(3), bench.user)
    assert bench.session.story.detail == "for the next round; generation 1 in use"
    assert bench.scores == {4: bench.user.score}
