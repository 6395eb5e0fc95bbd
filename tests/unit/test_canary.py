"""When a new model is refused after its trial run, with numbers worked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.blocks import Array
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Task
from blossom_edge.inference.canary import CanaryWindows, Observed, faults, judge, observe

MOVE = Task(type="classification", classes=("a", "b"))
SPEED = Task(type="regression", unit="km/h")
PARTS = Task(type="multilabel", classes=("a", "b"))
RIGHT, WRONG = (2.0, 1.0), (1.0, 2.0)  # logits of two classes, the label is 0


def made_windows(count: int, labels: Any = None, *, task: str = "move", first: float = 0.0) -> WindowSet:
    given = np.zeros(count, dtype=np.int64) if labels is None else np.asarray(labels)
    times = first + np.arange(count, dtype=np.float64)
    inputs: dict[str, Array] = {"accel": np.repeat(times, 2).reshape(count, 2, 1).astype(np.float32)}
    return WindowSet(inputs, {"accel": np.ones(count, dtype=np.bool_)}, {task: given}, times)


def seen(outputs: Sequence[Any], *, ms: float = 1.0, name: str = "move") -> Observed:
    found = [{name: np.asarray(values, dtype=np.float32)} for values in outputs]
    return Observed(list(found), [1e-3 * ms] * len(found))


def verdict(old: Observed | None, new: Observed, windows: WindowSet | None = None, task: Task = MOVE) -> str:
    chosen = made_windows(len(new.outputs)) if windows is None else windows
    return judge(old, new, chosen, {"move": task}, {"move": "move", "move (own head)": "move"})


def test_an_output_that_is_not_finite_is_refused_and_counted() -> None:
    bad = seen([RIGHT, (np.nan, 0.0), (np.inf, 0.0)])
    assert verdict(seen([RIGHT] * 3), bad) == "move: outputs are not finite on 2 of 3 windows"
    assert verdict(None, bad) != "", "also the first model of all"


def test_the_first_model_of_all_is_judged_on_finiteness_alone() -> None:
    assert verdict(None, seen([WRONG] * 40, ms=500.0)) == ""


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "taken"),
    [(1.0, 5.9, True), (1.0, 6.1, False), (10.0, 29.9, True), (10.0, 30.1, False), (0.1, 5.0, True)],
)
def test_a_model_may_take_three_times_as_long_or_5_ms_more(before_ms: float, after_ms: float, taken: bool) -> None:
    why = verdict(seen([RIGHT] * 8, ms=before_ms), seen([RIGHT] * 8, ms=after_ms))
    assert (why == "") is taken
    assert verdict(seen([RIGHT] * 7, ms=before_ms), seen([RIGHT] * 7, ms=after_ms)) == ""  # too few to say
    if not taken:
        assert f"latency {after_ms:.2f} ms, the one in use has {before_ms:.2f} ms" in why


def test_one_slow_window_of_many_does_not_refuse_a_model() -> None:
    new = Observed([{}] * 5, [0.001, 0.001, 9.0, 0.001, 0.001])
    assert verdict(Observed([{}] * 5, [0.001] * 5), new, made_windows(5)) == ""


def test_an_accuracy_that_falls_beyond_chance_and_margin_is_refused_with_numbers() -> None:
    # 40 windows, all right before; now 8 wrong: a fall of 0.2. Paired differences are 8 ones and 32 zeros, their
    # standard deviation is sqrt(40/39 * 0.2 * 0.8) = 0.4051, two standard errors are 2 * 0.4051 / sqrt(40) = 0.1281.
    why = verdict(seen([RIGHT] * 40), seen([WRONG] * 8 + [RIGHT] * 32))
    assert why == ("move: accuracy 0.800, the one in use has 1.000 on the same 40 windows, at most 0.128 less are let")


def test_a_fall_that_may_be_chance_is_let_through() -> None:
    # 3 of 40 wrong now: a fall of 0.075, above the margin of 0.05. Two standard errors are
    # 2 * sqrt(40/39 * 0.075 * 0.925) / sqrt(40) = 0.0843.
    assert verdict(seen([RIGHT] * 40), seen([WRONG] * 3 + [RIGHT] * 37)) == ""


def test_a_fall_within_the_margin_is_let_through_however_certain_it_is() -> None:
    # 1000 windows, 40 wrong now: a fall of 0.04; two standard errors are 0.0124, but the margin is 0.05.
    assert verdict(seen([RIGHT] * 1000), seen([WRONG] * 40 + [RIGHT] * 960)) == ""


def test_fewer_than_20_labelled_windows_say_nothing_about_the_score() -> None:
    labels = np.array([0] * 19 + [-1] * 30)
    assert verdict(seen([RIGHT] * 49), seen([WRONG] * 49), made_windows(49, labels)) == ""
    labels[19] = 0
    assert "accuracy 0.000" in verdict(seen([RIGHT] * 49), seen([WRONG] * 49), made_windows(49, labels))


def test_a_mean_error_may_rise_by_5_percent_and_no_more() -> None:
    truth = np.zeros(30, dtype=np.float32)
    windows = made_windows(30, truth)
    old = seen([(10.0,)] * 30)
    assert verdict(old, seen([(10.4,)] * 30), windows, SPEED) == ""
    why = verdict(old, seen([(10.6,)] * 30), windows, SPEED)
    assert why == "move: mean error 10.6 km/h, the one in use has 10 on the same 30 windows, at most 0.5 more are let"


def test_a_score_of_the_own_head_counts_like_that_of_the_shared_one() -> None:
    old, new = (seen([values] * 30, name="move (own head)") for values in (RIGHT, WRONG))
    assert verdict(old, new).startswith("move (own head): accuracy 0.000")


def test_a_task_that_the_new_model_does_not_serve_any_more_is_a_refusal() -> None:
    assert verdict(seen([RIGHT] * 3), Observed([{}] * 3, [0.001] * 3)) == (
        "move: the new model has no output, the one in use has"
    )


def test_an_old_model_that_gives_nonsense_does_not_keep_a_new_one_away() -> None:
    assert verdict(seen([(np.nan, np.nan)] * 30), seen([WRONG] * 30)) == ""


def test_a_multilabel_window_is_wrong_when_one_label_is() -> None:
    outputs = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]], dtype=np.float32)
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    assert faults(PARTS, outputs, labels).tolist() == [0.0, 1.0, 0.0]


def test_without_any_window_nothing_can_be_said_against_a_model() -> None:
    assert verdict(Observed(), Observed(), made_windows(0)) == ""


def test_both_models_see_each_window_once_and_take_turns_at_being_first() -> None:
    calls: list[tuple[str, float]] = []

    def predict(name: str) -> Any:
        def call(inputs: Mapping[str, Array], present: Mapping[str, Any]) -> dict[str, Array]:
            assert len(present["accel"]) == 1
            calls.append((name, float(inputs["accel"][0, 0, 0])))
            return {"move": np.array([RIGHT], dtype=np.float32)}

        return call

    moments = iter(np.arange(100.0))
    old, new = observe(predict("old"), predict("new"), made_windows(3), clock=lambda: float(next(moments)))
    assert calls[:2] == [("old", 0.0), ("new", 0.0)], "a first run of each, not timed"
    assert calls[2:] == [("new", 0.0), ("old", 0.0), ("old", 1.0), ("new", 1.0), ("new", 2.0), ("old", 2.0)]
    assert old is not None
    assert old.seconds == new.seconds == [1.0] * 3
    assert [found["move"].tolist() for found in new.outputs] == [list(RIGHT)] * 3


def test_the_newest_windows_are_chosen_and_some_without_a_label_among_them() -> None:
    labelled, bare = made_windows(100), made_windows(40, np.full(40, -1), first=1000.0)
    chosen = CanaryWindows.of(labelled, bare).windows
    assert chosen.times.tolist() == [*range(52, 100), *range(1024, 1040)], "48 and the 16 newest of the others"
    assert chosen.labelled("move").sum() == 48
    few = CanaryWindows.of(made_windows(10), bare).windows
    assert (few.labelled("move").sum(), len(few)) == (10, 50)
    assert len(CanaryWindows.of(made_windows(0), bare)) == 40
    assert len(CanaryWindows.of(labelled)) == 64
    assert len(CanaryWindows.of(made_windows(0))) == 0
