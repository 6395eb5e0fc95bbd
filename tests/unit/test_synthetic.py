"""Simulated sensors: the same for the same seed, in real units, with classes that can be learned across devices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.synthetic import GRAVITY_M_S2, Schedule, SyntheticSensor, SyntheticTask
from firmware_profiles.schema import ProfileChannel

IMU = [ProfileChannel(name=n, unit="m/s2", range=(-39.2, 39.2)) for n in ("ax", "ay", "az")] + [
    ProfileChannel(name=n, unit="rad/s", range=(-8.73, 8.73)) for n in ("gx", "gy", "gz")
]
ECG = [ProfileChannel(name="ecg", unit="V", range=(-0.005, 0.005))]
HAR = {"har": SyntheticTask("classification", 4)}


def imu(seed: int = 1, *, speed: float = 0.0, history_s: float = 240.0) -> SyntheticSensor:
    return SyntheticSensor(IMU, rate_hz=50.0, tasks=HAR, seed=seed, speed=speed, history_s=history_s)


def only(sensor: SyntheticSensor, now: float = 0.0) -> Reading:
    (reading,) = sensor.read(now)
    return reading


def labels_of(reading: Reading, task: str = "har") -> NDArray[np.int64]:
    labels = reading.labels[task]
    assert labels is not None
    return labels


def test_equal_seeds_give_equal_bits_and_other_seeds_other_people() -> None:
    first, again, other = only(imu(1)), only(imu(1)), only(imu(2))
    assert first.values.tobytes() == again.values.tobytes()
    assert labels_of(first).tobytes() == labels_of(again).tobytes()
    assert not np.array_equal(first.values, other.values)
    assert not np.array_equal(labels_of(first), labels_of(other))


def test_samples_do_not_depend_on_how_often_they_are_read() -> None:
    at_once = only(imu(history_s=60.0))
    live = imu(speed=1.0, history_s=10.0)
    parts = [reading for now in np.arange(7.0, 57.01, 0.37) for reading in live.read(float(now))]
    values = np.concatenate([part.values for part in parts])
    assert len(values) == 500 + int(49.95 * 50)
    assert values.tobytes() == at_once.values[: len(values)].tobytes()
    times = np.concatenate([part.times for part in parts])
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-9)


def test_the_history_comes_at_once_and_then_samples_follow_the_clock_times_speed() -> None:
    sensor = imu(speed=2.0, history_s=3.0)
    assert len(only(sensor, 1000.0)) == 150
    assert len(only(sensor, 1001.0)) == 100
    assert list(sensor.read(1001.0)) == []
    assert not sensor.exhausted


def test_speed_0_is_the_history_alone() -> None:
    sensor = imu(history_s=3.0)
    before = sensor.exhausted
    assert len(only(sensor, 5.0)) == 150
    assert (before, sensor.exhausted) == (False, True)
    assert list(sensor.read(500.0)) == []


def test_values_are_in_real_units_within_the_range_of_the_sensor() -> None:
    reading = only(imu(history_s=240.0))
    accel, gyro = reading.values[:, :3], reading.values[:, 3:]
    resting = np.linalg.norm([accel[labels_of(reading) == k].mean(axis=0) for k in range(4)], axis=1)
    np.testing.assert_allclose(resting, GRAVITY_M_S2, rtol=0.1)
    assert np.abs(gyro.mean(axis=0)).max() < 0.3
    assert 0.2 < gyro.std() < 3.0
    assert (np.abs(accel) <= 39.2).all()
    assert (np.abs(gyro) <= 8.73).all()


def test_the_ecg_beats_between_40_and_200_times_a_minute_with_peaks_of_about_a_millivolt() -> None:
    sensor = SyntheticSensor(ECG, rate_hz=250.0, tasks=HAR, seed=3, speed=0.0, history_s=60.0)
    ecg = only(sensor).values[:, 0]
    assert 6e-4 < ecg.max() < 1.6e-3
    high = ecg > 0.5 * ecg.max()
    beats = int(np.sum(high[1:] & ~high[:-1]))
    assert 40 <= beats <= 200


def test_all_sensors_of_a_device_do_the_same_thing_at_the_same_time() -> None:
    motion = only(imu(5, history_s=60.0))
    heart = only(SyntheticSensor(ECG, rate_hz=250.0, tasks=HAR, seed=5, speed=0.0, history_s=60.0))
    np.testing.assert_array_equal(labels_of(heart)[::5], labels_of(motion))


def test_every_class_comes_once_in_each_turn() -> None:
    schedule = Schedule(HAR, 9)
    labels = schedule.at(np.arange(0.0, 400.0, 0.5))["har"]
    bouts = labels[np.concatenate([[True], np.diff(labels) != 0])]
    assert set(bouts[:4].tolist()) == {0, 1, 2, 3}
    changes = np.flatnonzero(np.diff(labels)) / 2
    assert np.diff(changes).min() > 11.0


def features(reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean, spread and mean step of each channel in windows of 128 with one label."""
    rows, labels = [], []
    for start in range(0, len(reading) - 128, 64):
        label = labels_of(reading)[start : start + 128]
        part = reading.values[start : start + 128]
        if len(set(label.tolist())) == 1:
            rows.append(
                np.concatenate([part.mean(axis=0), part.std(axis=0), np.abs(np.diff(part, axis=0)).mean(axis=0)])
            )
            labels.append(int(label[0]))
    return np.array(rows), np.array(labels)


def test_what_is_learned_on_some_devices_helps_on_another_one() -> None:
    known = [features(only(imu(seed, history_s=300.0))) for seed in (1, 2, 3)]
    rows, labels = np.concatenate([x for x, _ in known]), np.concatenate([y for _, y in known])
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    centres = np.array([((rows - mean) / spread)[labels == k].mean(axis=0) for k in range(4)])
    unseen, truth = features(only(imu(99, history_s=300.0)))
    distance = np.linalg.norm(((unseen - mean) / spread)[:, None] - centres[None], axis=2)
    assert (distance.argmin(axis=1) == truth).mean() > 0.6  # chance is 0.25


def strongest_hz(values: NDArray[np.float64]) -> float:
    """The frequency with the most power over all channels, at 50 Hz."""
    power = (np.abs(np.fft.rfft(values - values.mean(axis=0), axis=0)) ** 2).sum(axis=1)
    return float(np.fft.rfftfreq(len(values), 0.02)[power.argmax()])


def test_classes_differ_in_pace() -> None:
    reading = only(imu(1))
    labels = labels_of(reading)
    changes = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    paces: dict[int, float] = {}
    for first, end in itertools.pairwise(changes):
        paces.setdefault(int(labels[first]), strongest_hz(reading.values[first:end]))
    distinct = sorted(paces.values())
    assert len(distinct) == 4
    assert np.diff(distinct).min() > 0.05


def test_noise_never_repeats() -> None:
    values = only(imu(1)).values[: 2 * 1024]
    jitter = np.diff(values, n=2, axis=0)  # what moves slowly is gone
    first, second = jitter[:1020, 0], jitter[1024 : 1024 + 1020, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_a_regression_moves_faster_and_further_for_larger_values() -> None:
    tasks = {"speed": SyntheticTask("regression", mean=1.5, spread=1.5)}
    sensor = SyntheticSensor(IMU[:3], rate_hz=50.0, tasks=tasks, seed=4, speed=0.0, history_s=900.0)
    reading = only(sensor)
    speed = reading.labels["speed"]
    assert speed is not None
    assert speed.min() >= 0.0
    assert speed.max() <= 3.0
    values = sorted(set(speed.tolist()))
    moved = [reading.values[speed == value].std() for value in values]
    assert np.corrcoef(values, moved)[0, 1] > 0.8
    paces = [strongest_hz(reading.values[speed == value]) for value in values]
    assert np.corrcoef(values, paces)[0, 1] > 0.8


def test_two_tasks_and_a_multilabel_one_have_their_own_labels() -> None:
    tasks = HAR | {
        "speed": SyntheticTask("regression", mean=1.0, spread=0.5),
        "marks": SyntheticTask("multilabel", 3),
    }
    sensor = SyntheticSensor(IMU, rate_hz=50.0, tasks=tasks, seed=4, speed=0.0, history_s=100.0)
    labels = only(sensor).labels
    assert {name: rows.shape for name, rows in labels.items() if rows is not None} == {
        "har": (5000,),
        "speed": (5000,),
        "marks": (5000, 3),
    }


def test_a_negative_speed_is_refused() -> None:
    with pytest.raises(ConfigError, match="found speed -1"):
        imu(speed=-1.0)
