"""What `sensors watch` shows of a sensor that delivers, falls silent, fails and comes back. No thread, no clock."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blossom_edge.cli.sensor_view import SensorView
from blossom_edge.console.output import Output
from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.base import Reading


class Plug:
    """A sensor of one channel at 10 Hz, without a thread. It delivers what it is given."""

    source = None
    channels = ("x",)
    units = ("m",)
    rate_hz = 10.0

    def __init__(self) -> None:
        self.given: list[Reading] = []
        self.is_out = False
        self.opened = self.closed = 0

    def give(self, *times: float) -> None:
        self.given.append(Reading(np.array(times), np.full((len(times), 1), 0.5)))

    def read(self, now: float) -> Sequence[Reading]:
        given, self.given = self.given, []
        if self.is_out and not given:
            raise HardwareError("sensor-failed", "x: it is unplugged")
        return given

    def open(self) -> None:
        self.opened += 1
        if self.is_out:
            raise HardwareError("sensor-missing", "x: nobody there")

    def close(self) -> None:
        self.closed += 1


class Later:
    """Keeps what it should run until it is told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self.work.append(work)

    def run(self) -> None:
        self.work.pop()()


def view_of(plug: Plug) -> tuple[SensorView, Later]:
    later = Later()
    sensor: Any = plug
    return SensorView(sensor, [(0.0, 1.0)], now=100.0, spawn=later), later


def shown(view: SensorView) -> list[str]:
    return view.lines("x", Output(stdout=io.StringIO(), stderr=io.StringIO()))


def test_rate_and_bar_of_what_comes() -> None:
    plug = Plug()
    view, _ = view_of(plug)
    plug.give(100.1, 100.2, 100.3)
    view.take(100.3)
    assert view.delivers
    assert shown(view) == [
        "x (-): 10.0 of 10 Hz, 3 samples",
        "  x               0 [..........#.........] 1               0.5 m",
    ]


def test_a_sensor_that_falls_silent_has_no_bars_and_no_rate_but_an_age() -> None:
    plug = Plug()
    view, _ = view_of(plug)
    plug.give(100.1, 100.2)
    view.take(102.0)  # 1.8 s old
    assert len(shown(view)) == 2
    view.take(103.2)  # 3 s old: more than the 2 s that a sensor of 10 Hz has
    assert shown(view) == ["x (-): no samples for 3.0 s, 2 before"]
    assert not view.delivers
    assert (view.summary()["rate_hz"], view.summary()["last_age_s"]) == (0.0, 3.0)


def test_a_slow_sensor_has_five_periods() -> None:
    plug = Plug()
    plug.rate_hz = 0.5
    view, _ = view_of(plug)
    plug.give(100.0)
    view.take(109.9)
    assert view.delivers
    view.take(110.1)
    assert not view.delivers


def test_a_sensor_that_never_delivered_does_not() -> None:
    view, _ = view_of(Plug())
    view.take(100.5)
    assert not view.delivers
    assert shown(view) == ["x (-): no samples for 0.5 s, 0 before"]


def test_a_failed_sensor_is_opened_every_two_seconds_until_it_is_back() -> None:
    plug = Plug()
    view, later = view_of(plug)
    plug.give(100.1, 100.2)
    view.take(100.2)
    plug.is_out = True
    view.take(101.0)
    assert shown(view) == ["x (-): no samples for 0.8 s, 2 before", "  x: it is unplugged"]
    view.take(102.5)
    assert later.work == []  # not within 2 s
    view.take(103.0)
    assert len(later.work) == 1
    plug.is_out = False
    plug.give(103.1)  # of another thread: not to be read while it is opened
    view.take(103.5)
    assert view.count == 2
    plug.is_out, plug.given = True, []
    later.run()
    view.take(104.0)
    assert view.why == "x: nobody there"
    view.take(105.5)
    assert later.work == []
    view.take(106.0)
    plug.is_out = False
    later.run()
    plug.give(106.1, 106.2)
    view.take(106.2)
    assert view.delivers
    assert view.why == ""
    assert (plug.opened, plug.closed) == (2, 2)


def test_a_sensor_that_is_just_being_opened_is_closed_when_that_ends() -> None:
    plug = Plug()
    view, later = view_of(plug)
    plug.is_out = True
    view.take(101.0)
    view.take(103.0)
    plug.is_out = False
    view.close()
    assert plug.closed == 0  # another thread has it
    later.run()
    assert (plug.opened, plug.closed) == (1, 2)
