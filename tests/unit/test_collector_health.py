"""Live sensors that go wrong under a collector: noticed in two windows, absent in all windows, back by themselves."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.health import NOTICE_WINDOWS, RECOVER_WINDOWS
from tests.live_bench import (
    FEDERATION,
    PROFILE,
    STEP_S,
    WINDOW_S,
    Bench,
    Floats,
    half,
    jumping,
    none_are_numbers,
    nothing,
    saturated,
    stuck,
)

FAULTS = {"nan": none_are_numbers, "stuck": stuck, "saturated": saturated, "rate": half, "time": jumping}


@pytest.mark.parametrize("state", sorted(FAULTS))
def test_a_fault_is_noticed_in_two_windows_and_over_after_two_good_ones(state: str) -> None:
    bench = Bench()
    bench.run(6)
    assert bench.collector.present() == {"accel", "ecg"}
    before = int(bench.collector.train().present["accel"].sum())
    bench.imu.fault, began = FAULTS[state], bench.now
    slack = STEP_S / WINDOW_S  # the collector looks every 100 ms
    assert bench.until(state, at_most=NOTICE_WINDOWS + slack) <= NOTICE_WINDOWS + slack
    assert bench.collector.failures["imu"]
    assert bench.collector.present() == {"ecg"}
    train = bench.collector.train()
    assert not train.present["accel"].any()
    assert not train.inputs["accel"].any()
    assert train.present["ecg"].all()
    bench.run(6)
    bench.imu.fault, ended = None, bench.now
    bench.until("ok", at_most=RECOVER_WINDOWS + 1 + 1)  # the window that is half bad, and a chip that is opened again
    bench.run(5)
    train = bench.collector.train()
    assert bench.collector.present() == {"accel", "ecg"}
    assert int(train.present["accel"].sum()) >= before + 2  # the old ones count again, and new ones come
    spoilt = (train.times + WINDOW_S > began + 0.02) & (train.times < ended)
    assert spoilt.sum() >= 5
    assert not train.present["accel"][spoilt].any()
    assert np.abs(train.inputs["accel"] * 2.0).max() < 6  # none of what was spoilt is in


def test_silence_takes_a_sensor_away_after_two_seconds_and_it_is_opened_again() -> None:
    bench = Bench()
    bench.run(4)
    bench.imu.fault = nothing
    assert bench.until("silent", at_most=NOTICE_WINDOWS) == pytest.approx(2.1 / WINDOW_S, abs=0.2)
    assert bench.collector.failures == {"imu": "no sample for 2.1 s"}
    bench.run(3)
    assert bench.imu.opened  # it may have lost its power and sleep
    bench.imu.fault = None
    bench.until("ok", at_most=RECOVER_WINDOWS + 1)


def test_one_of_two_sensors_is_pulled_and_plugged_in_again() -> None:
    bench = Bench()
    bench.run(8)
    bench.imu.plugged = False
    bench.step()
    assert bench.state() == "unplugged"
    assert bench.collector.present() == {"ecg"}
    pulled = bench.now
    bench.run(10)
    away = bench.collector.train()
    assert away.present["ecg"].all()
    assert len(away) >= 15
    bench.imu.plugged = True
    bench.run(30)
    train = bench.collector.train()
    assert bench.collector.present() == {"accel", "ecg"}
    # the other one never missed a window: they follow each other without a break
    np.testing.assert_allclose(np.diff(train.times[train.present["ecg"]]), WINDOW_S, atol=1e-6)
    assert train.present["ecg"].all()
    accel = train.times[train.present["accel"]]
    assert (accel < pulled).sum() >= 6
    assert (accel > pulled + 10 * WINDOW_S).sum() >= 10
    assert not ((accel > pulled) & (accel < pulled + 10 * WINDOW_S)).any()
    assert bench.collector.counts()["ecg"] == {"made": len(train)}


def test_a_pulled_sensor_is_tried_after_two_seconds_and_then_more_and_more_rarely() -> None:
    bench = Bench()
    bench.run(1)
    bench.imu.plugged = False
    bench.run(100)
    gaps = np.diff(bench.imu.opened)
    np.testing.assert_allclose(gaps[:5], [4, 8, 16, 30, 30], atol=0.15)


def test_a_sensor_that_cannot_be_opened_again_as_its_profile_says_is_absent_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.run(1)
    bench.imu.plugged = False
    bench.run(1)

    tried = []

    def another_chip() -> None:
        tried.append(bench.imu.now)
        raise ConfigError("profile-invalid", "found rate_hz 50, the highest is 10")

    with monkeypatch.context() as patch:
        patch.setattr(bench.imu, "open", another_chip)
        bench.run(10)
        health = bench.collector.health()["imu"].health
    assert not health.ok
    assert len(tried) > 1


def test_windows_of_which_nothing_is_left_do_not_count() -> None:
    bench = Bench()
    bench.run(6)
    bench.imu.plugged = bench.heart.plugged = False
    bench.step()
    assert len(bench.collector.train()) == 0
    assert bench.collector.present() == frozenset()
    seen = bench.collector.num_seen()
    bench.run(5)
    assert bench.collector.num_seen() <= seen + 1


def test_the_sets_stay_the_same_objects_until_something_changes() -> None:
    bench = Bench()
    bench.run(4)
    train = bench.collector.train()
    bench.collector.poll(bench.now)
    assert bench.collector.train() is train
    bench.imu.plugged = False
    bench.step()
    masked = bench.collector.train()
    assert masked is not train
    assert bench.collector.train() is masked


def test_changes_are_logged_once_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="blossom_edge")
    bench = Bench()
    bench.run(3)
    bench.imu.fault = stuck
    bench.run(3)
    bench.imu.fault = None
    bench.run(5)
    events = [(record.getMessage(), record.__dict__["fields"]) for record in caplog.records]
    assert [event for event, _ in events] == ["sensor-absent", "sensor-back"]
    assert events[0][1] == {"sensor": "imu", "modalities": ["accel"], "state": "stuck", "reason": "64 equal samples"}


def test_a_sensor_three_percent_too_fast_is_resampled_from_its_true_rate_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="blossom_edge")
    bench = Bench(imu_hz=51.5)
    bench.run(80)
    (event,) = [record for record in caplog.records if record.getMessage() == "sensor-rate"]
    assert event.__dict__["fields"]["measured_hz"] == pytest.approx(51.5, rel=0.002)
    assert bench.collector.drift_ppm()["imu"] == pytest.approx(30_000, rel=0.02)
    assert bench.collector.drift_ppm()["heart"] == pytest.approx(0, abs=300)
    assert bench.collector.counts()["accel"].keys() == {"made"}


def test_values_beyond_the_range_are_clipped_and_counted_and_a_window_without_numbers_is_a_gap() -> None:
    bench = Bench()

    def one(times: Floats, values: Floats) -> tuple[Floats, Floats]:
        values[:1] = 100.0
        return times, values

    bench.run(2)
    bench.imu.fault = one
    bench.step()
    bench.imu.fault = lambda times, values: (times, np.full_like(values, np.nan))
    bench.step()
    bench.imu.fault = None
    bench.run(4)
    assert bench.state() == "ok"
    assert bench.collector.sample_counts()["imu"]["clipped"] == 1
    assert bench.collector.sample_counts()["imu"]["no number"] == 5
    assert bench.collector.counts()["accel"]["nan"] == 1
    assert np.abs(bench.collector.train().inputs["accel"]).max() <= 20.0 / 2.0


def test_a_clock_that_is_set_back_for_all_sensors_begins_a_new_grid() -> None:
    bench = Bench()
    bench.run(4)
    seen = bench.collector.num_seen()
    for wire in bench.wires.values():
        wire.fault = lambda times, values: (times - 1000.0, values)
    bench.run(6)
    assert bench.collector.num_seen() >= seen + 3
    assert bench.collector.train().times.min() < -900


def test_a_recording_is_taken_as_it_is() -> None:
    bench = Bench()
    for wire in bench.wires.values():
        wire.live = False
    recorded = Collector(PROFILE, FEDERATION, dict(bench.wires), holdout=0.0)
    bench.imu.fault = stuck
    recorded.poll(20.0)
    assert recorded.health()["imu"].health.ok
    assert recorded.sample_counts()["imu"].get("clipped") is None


def test_a_collector_that_is_closed_closes_its_sensors_and_reads_no_more() -> None:
    bench = Bench()
    bench.run(4)
    seen = bench.collector.num_seen()
    bench.collector.close()
    bench.run(4)
    assert (bench.imu.closed, bench.heart.closed) == (1, 1)
    assert bench.collector.num_seen() == seen
    assert bench.collector.present() == {"accel", "ecg"}
    assert not bench.collector.finished
