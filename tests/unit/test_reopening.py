"""Opening a sensor again while the device goes on: nobody waits for hardware that takes its time, or never comes."""

from __future__ import annotations

import threading

import pytest

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.reopening import Reopening
from tests.live import until
from tests.live_bench import FEDERATION, PROFILE, STEP_S, Bench, Wire


class Slow(Wire):
    """Its `open` does not come back before it is let."""

    def __init__(self) -> None:
        super().__init__(("ax", "ay", "az"), "m/s2", rate_hz=50.0)
        self.opening, self.let = threading.Event(), threading.Event()

    def open(self) -> None:
        self.opening.set()
        assert self.let.wait(20)
        super().open()


class SlowBench(Bench):
    """The accelerometer opens slowly, in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = self.imu = Slow()
        self.wires = {"imu": self.imu, "heart": self.heart}
        self.collector = Collector(PROFILE, FEDERATION, dict(self.wires), split="blocks", holdout=0.0)

    def pull_until_it_opens(self) -> None:
        self.run(4)
        self.imu.plugged = False
        while not self.slow.opening.is_set():
            self.step()


def test_the_other_sensor_goes_on_while_one_takes_its_time_to_open() -> None:
    bench = SlowBench()
    bench.pull_until_it_opens()
    seen = bench.collector.num_seen()
    bench.run(20)  # far longer than the next attempt would be due
    assert bench.collector.num_seen() >= seen + 18
    assert bench.state() == "unplugged"
    bench.imu.plugged = True
    bench.slow.let.set()
    until(lambda: bool(bench.imu.opened), "opened", ())
    until(lambda: bool(bench.step() or bench.state() == "ok"), "back", ())
    assert len(bench.imu.opened) == 1


def test_a_sensor_that_cannot_be_opened_in_its_thread_is_tried_again() -> None:
    bench = SlowBench()
    bench.pull_until_it_opens()
    bench.slow.let.set()
    until(lambda: bool(bench.step() or len(bench.imu.opened) >= 2), "another attempt", ())
    assert bench.state() == "unplugged"


def test_a_collector_that_is_closed_meanwhile_leaves_the_sensor_to_whoever_opens_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blossom_edge.sensors.collector.CLOSE_S", STEP_S)
    bench = SlowBench()
    bench.pull_until_it_opens()
    closed = bench.imu.closed
    bench.collector.close()
    assert (bench.imu.closed, bench.heart.closed) == (closed, 1)
    bench.imu.plugged = True
    bench.slow.let.set()
    until(lambda: bench.imu.closed == closed + 1, "closed after it was opened", ())
    assert bench.imu.opened


def test_a_fault_of_a_sensor_s_own_code_is_an_error_like_others() -> None:
    class Broken(Wire):
        def open(self) -> None:
            raise ZeroDivisionError("division by zero")

    opening = Reopening(Broken(("ecg",), "V", rate_hz=1.0), spawn=lambda work: work())
    assert opening.done
    with pytest.raises(HardwareError, match="ZeroDivisionError: division by zero"):
        opening.check()
