"""Why a block is held, in the words of its commit record: too few updates, and which were refused."""

from __future__ import annotations

import pytest
from support.learning import tiny
from support.machine import ACCEL, make_machine, offer, opened, settle

from aggregator.plans import refused_words
from aggregator.rounds import Publish, Record, outcome_of, outcome_record
from blossom_edge.core.names import DeviceId

A, B = DeviceId("a"), DeviceId("b")
ONE = ("accel",)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], ""),
        (["norm"], "1 refused (norm)"),
        (["norm", "norm"], "2 refused (norm)"),
        (["norm", "nonfinite", "norm"], "3 refused (nonfinite 1, norm 2)"),
    ],
)
def test_refusals_are_counted_by_type(kinds: list[str], words: str) -> None:
    assert refused_words(kinds) == words


def test_a_block_below_its_quorum_says_how_many_updates_were_refused_also_after_a_restart() -> None:
    federation = tiny("schedule.stop_rounds=0", "rounds.quorum=2")
    machine, commands = opened(("a", ONE), ("b", ONE), federation=federation)
    records = [c.record for c in commands if isinstance(c, Record)]
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    done = settle(machine, machine.refuse(B, offer("b", 1), "norm", "too long", now=2.0), 2.0)
    (publish,) = [c for c in done if isinstance(c, Publish)]
    outcome = publish.outcomes[ACCEL]
    assert outcome.held == "1 of the 2 updates that its quorum asks for; 1 refused (norm)"
    assert outcome.refused == {"b": "norm"}
    records += [c.record for c in done if isinstance(c, Record)]
    again = make_machine(federation, records).state
    assert again.outcomes[ACCEL] == (1, outcome)


def test_where_nothing_was_refused_the_record_is_as_it_was_before_there_was_that_field() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.update(A, offer("a", 1), b"", norm=1.0, now=1.0)
    settle(machine, machine.update(B, offer("b", 1), b"", norm=1.0, now=1.0), 1.0)
    body = outcome_record(machine.state.outcomes[ACCEL][1])
    assert sorted(body) == ["cast_sha256", "held", "members", "sha256", "version"]
    assert outcome_of(body).refused == {}


def test_a_refusal_that_is_not_final_does_not_count() -> None:
    machine, _ = opened(("a", ONE), ("b", ONE))
    machine.refuse(B, offer("b", 1), "busy", "too many", now=1.0, final=False)
    assert machine.state.current is not None
    assert machine.state.current.refused == {}
