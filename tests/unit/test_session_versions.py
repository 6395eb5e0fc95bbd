"""A device that does not train: each version is put to use as it comes, and told."""

from __future__ import annotations

from dataclasses import replace

from support.learning import tiny
from test_session import FACTS, FEDERATION, chunk, commit, plan, welcome

from blossom_edge.client.actions import Action, Adopt, Apply, KeepBlock, Publish, Stop
from blossom_edge.client.session import Session
from blossom_edge.codec import messages
from blossom_edge.core.metrics import Metric

SCORE = {"move.accuracy": Metric(3.0, 4.0)}


def joined(*, stays: bool = False, number: int = 0, running: str = "waiting") -> tuple[Session, list[Action]]:
    session = Session(replace(FACTS, role="infer"), stays=stays)
    session.connected(1, 0.0)
    first = session.received(welcome(number, running=running), 0.0)
    assert isinstance(first[0], Adopt)
    return session, session.adopted(None, {}, 0.0)


def applies(actions: list[Action]) -> list[int]:
    return [action.round for action in actions if isinstance(action, Apply)]


def test_the_first_versions_are_put_to_use_at_once() -> None:
    _session, actions = joined()
    assert applies(actions) == [0]


def test_a_commit_is_put_to_use_once_its_bytes_are_here_and_told_as_the_score_of_the_next_round() -> None:
    session, _ = joined()
    session.applied({}, frozenset(), 0, words="waits")
    assert applies(session.received(commit(1, 1), 1.0)) == []
    actions = session.received(chunk(1), 1.1)
    assert isinstance(actions[0], KeepBlock)
    assert applies(actions) == [1]
    (said,) = session.applied(SCORE, frozenset({"accel"}), 12, words="generation 1 in use")
    assert isinstance(said, Publish)
    state = said.message
    assert isinstance(state, messages.State)
    assert (state.phase, state.round, state.reason, state.num_windows) == ("evaluated", 2, "generation 1 in use", 12)
    assert state.score["move.accuracy"].total == 3.0
    assert applies(session.tick(2.0)) == []


def test_the_same_versions_are_not_put_to_use_twice_but_again_when_something_that_lacked_has_come() -> None:
    session, _ = joined()
    session.applied({}, frozenset(), 0, words="waits for skeletons")
    assert applies(session.received(commit(1, 0, members=()), 1.0)) == []  # held: nothing is new
    assert applies(session.apply_again()) == [1]


def test_a_plan_asks_nothing_of_a_device_that_does_not_train() -> None:
    session, _ = joined()
    session.applied({}, frozenset(), 0, words="")
    actions = session.received(plan(1), 1.0)
    assert not any(type(action).__name__ == "Work" for action in actions)


def test_when_the_federation_is_finished_join_ends_and_infer_stays() -> None:
    for stays in (False, True):
        session, _ = joined(stays=stays)
        session.applied({}, frozenset(), 0, words="")
        session.received(commit(1, 1, running="finished"), 1.0)
        assert applies(session.received(chunk(1), 1.1)) == [1]
        actions = session.applied(SCORE, frozenset(), 0, words="generation 1 in use")
        assert [type(action) for action in actions] == ([Publish] if stays else [Publish, Stop])
        assert session.story.phase == "finished"


def test_offline_it_goes_on_and_takes_up_what_came_meanwhile() -> None:
    session, _ = joined()
    session.applied({}, frozenset(), 0, words="")
    session.disconnected()
    assert applies(session.apply_again()) == []  # not welcome: nothing is known of what is newest
    session.connected(2, 5.0)
    assert applies(session.received(welcome(2, known=True), 5.0)) == []
    assert applies(session.received(chunk(2), 5.1)) == [2]


def test_what_lacks_a_graph_is_no_end_even_when_the_federation_is_finished() -> None:
    session, _ = joined(running="finished")
    actions = session.applied({}, frozenset(), 0, words="waits for the skeletons of encoder/accel", lacks=True)
    assert [type(action) for action in actions] == [Publish]
    assert applies(session.apply_again()) == [0]
    actions = session.applied(SCORE, frozenset(), 0, words="generation 1 in use")
    assert [type(action) for action in actions] == [Publish, Stop]


def test_a_device_that_predicts_begins_in_the_federation_that_it_knows_and_follows_the_gateway_into_another() -> None:
    session = Session(replace(FACTS, role="infer"), federation=FEDERATION, stays=True)
    adopted = session.begin()
    assert isinstance(adopted[0], Adopt)
    assert session.adopted(None, {}, 0.0) == []
    session.connected(1, 0.0)
    other = tiny("rounds.min_devices=1")
    assert other.digest != FEDERATION.digest
    again = session.received(welcome(federation=other), 1.0)
    assert isinstance(again[0], Adopt)
    assert again[0].federation.digest == other.digest
    assert Session(FACTS, federation=FEDERATION).begin() == []  # who trains waits for a plan
