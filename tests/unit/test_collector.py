"""The collector: what trains, what is held out, what is kept, and what happens when a sensor fails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Reading, Sensor
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.opening import open_sensors
from firmware_profiles.loading import load_profile, profile_folders
from firmware_profiles.schema import Profile

HAR = load_federation("har")
SHIPPED = [profile_folders()[-1]]
WINDOW_S = 2.56


def profile(name: str = "rpi4-accel", *sets: str) -> Profile:
    return load_profile(name, sets=sets, folders=SHIPPED)


class Scripted:
    """A sensor that delivers the readings it was given, one list per `read`; None makes it fail."""

    channels: tuple[str, ...] = ("ax", "ay", "az")
    units: tuple[str, ...] = ("m/s2",) * 3

    def __init__(self, *script: list[Reading] | None, rate_hz: float = 50.0, endless: bool = False) -> None:
        self._script = list(script)
        self._endless = endless
        self.rate_hz = rate_hz
        self.opened = 0

    @property
    def exhausted(self) -> bool:
        return not self._script and not self._endless

    def open(self) -> None:
        self.opened += 1

    def read(self, now: float) -> Sequence[Reading]:
        part = self._script.pop(0) if self._script else []
        if part is None:
            raise HardwareError("sensor-missing", "imu: the bus answers no more")
        return part

    def close(self) -> None:
        pass


def stretch(windows: int, *, start: int = 0, classes: Sequence[int] = (0,), recording: int = 0) -> Reading:
    """Samples for `windows` windows of 128 with hop 64, 50 Hz, from sample `start`; classes change every 64 samples."""
    index = np.arange(start, start + 64 * (windows + 1))
    labels = np.array(classes)[(index // 64) % len(classes)]
    return Reading(index / 50, np.repeat(index[:, None].astype(float), 3, axis=1), {"har": labels}, recording)


def collector(sensor: Sensor, federation: Federation = HAR, **options: object) -> Collector:
    return Collector(profile(), federation, {"imu": sensor}, **options)  # type: ignore[arg-type]  # test options by name


def overlap(first: WindowSet, second: WindowSet) -> bool:
    return bool((np.abs(first.times[:, None] - second.times[None]) < WINDOW_S - 1e-6).any())


def test_later_trains_on_the_first_part_of_each_recording_and_drops_what_crosses_the_border() -> None:
    both = [stretch(10), stretch(10, start=100_000, recording=1)]
    c = collector(Scripted(both), holdout=0.3)
    assert c.poll(0.0) == 20
    # a recording lasts 11 x 1.28 = 14.08 s, the border is at 9.856 s. Windows that end by then start at up to 7.296 s:
    # 0 to 5 (6.4 s). Those that start after it are 8 (10.24 s) and 9; 6 and 7 cross it.
    np.testing.assert_allclose(c.train().times[:6], np.arange(6) * 1.28)
    np.testing.assert_allclose(c.holdout().times[:2], [10.24, 11.52])
    assert (len(c.train()), len(c.holdout())) == (12, 4)
    assert not overlap(c.train(), c.holdout())


def test_without_holdout_everything_trains() -> None:
    for split in ("later", "blocks"):
        c = collector(Scripted([stretch(10)]), holdout=0.0, split=split)
        c.poll(0.0)
        assert (len(c.train()), len(c.holdout())) == (10, 0)


def test_blocks_give_two_of_ten_windows_to_the_holdout_and_nothing_overlaps() -> None:
    c = collector(Scripted([stretch(30)]), split="blocks")
    c.poll(0.0)
    assert [round(t / 1.28) for t in c.holdout().times] == [8, 9, 18, 19, 28, 29]
    # 10 and 20 share half of their samples with the holdout windows 9 and 19
    assert [round(t / 1.28) for t in c.train().times] == [*range(7), *range(11, 17), *range(21, 27)]
    assert not overlap(c.train(), c.holdout())


def test_a_window_of_the_live_split_never_changes_its_side() -> None:
    script = [[stretch(1)]] + [[Reading(r.times, r.values, r.labels)] for r in _pieces(40)]
    c = collector(Scripted(*script, endless=True), split="blocks")
    sides: dict[float, str] = {}
    for now in range(45):
        c.poll(float(now))
        for side, windows in (("train", c.train()), ("holdout", c.holdout())):
            for time in windows.times.tolist():
                assert sides.setdefault(time, side) == side
    assert len(sides) > 30


def _pieces(count: int) -> list[Reading]:
    whole = stretch(count + 1)
    cuts = [slice(64 * i, 64 * (i + 1)) for i in range(2, count + 2)]
    return [
        Reading(whole.times[c], whole.values[c], {t: y[c] for t, y in whole.labels.items() if y is not None})
        for c in cuts
    ]


def test_few_labels_keep_so_many_windows_per_class_spread_over_the_time() -> None:
    parts = [stretch(20, start=100_000 * k, classes=(k,), recording=k) for k in range(3)]
    c = collector(Scripted(parts), holdout=0.3, labels_per_class=3, seed=1)
    c.poll(0.0)
    labels = c.train().labels["har"]
    assert np.bincount(labels).tolist() == [3, 3, 3]
    assert len(c.holdout()) == 3 * 5  # the holdout keeps its labels
    first = c.train().times[:3]  # 13 training windows per recording, one of each third is taken
    assert (np.diff(first) >= 1.28 * 3).all()


def test_few_labels_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    def chosen(seed: int) -> list[float]:
        c = collector(Scripted([stretch(60)]), labels_per_class=3, seed=seed)
        c.poll(0.0)
        times: list[float] = c.train().times.tolist()
        return times

    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


def test_more_labels_than_there_are_windows_keeps_all() -> None:
    c = collector(Scripted([stretch(10)]), labels_per_class=100)
    c.poll(0.0)
    assert len(c.train()) == 6


def test_the_newest_windows_are_kept() -> None:
    c = collector(Scripted([stretch(30)]), holdout=0.0, capacity=4)
    c.poll(0.0)
    assert [round(t / 1.28) for t in c.train().times] == [26, 27, 28, 29]


def test_windows_without_a_label_are_not_kept() -> None:
    c = collector(Scripted([stretch(10, classes=(0, 1))]))  # the label changes in the middle of every window
    assert c.poll(0.0) == 0
    assert (len(c.train()), c.train().inputs["accel"].shape) == (0, (0, 128, 3))
    assert c.present() == frozenset()


def test_all_windows_that_ever_came_are_counted_also_those_that_are_gone() -> None:
    c = collector(Scripted([stretch(3)], [stretch(3, start=256, classes=(1,))], endless=True), capacity=4)
    c.poll(0.0)
    assert c.num_seen() == 3
    c.poll(1.0)
    assert c.num_seen() == 6


def test_arrays_have_the_federations_shape_scale_and_types() -> None:
    c = collector(Scripted([stretch(10)]))
    c.poll(0.0)
    windows = c.train()
    assert set(windows.inputs) == set(windows.present) == {"accel"}
    assert windows.inputs["accel"].shape == (6, 128, 3)
    assert windows.inputs["accel"].dtype == np.float32
    assert windows.labels["har"].dtype == np.int64
    assert windows.times.dtype == np.float64
    spread = HAR.modalities["accel"].channels[0].spread
    assert windows.inputs["accel"][1, 0, 0] == pytest.approx(64 / spread)


def test_a_sensor_that_fails_is_absent_and_opened_again_after_two_seconds() -> None:
    sensor = Scripted([stretch(10)], None, [], endless=True)
    c = collector(sensor)
    c.poll(0.0)
    assert c.present() == {"accel"}
    c.poll(1.0)
    assert c.present() == frozenset()
    assert c.failures == {"imu": "imu: the bus answers no more"}
    c.poll(2.9)
    assert sensor.opened == 0
    c.poll(3.0)
    assert sensor.opened == 1
    assert not c.failures
    assert set(c.present()) == {"accel"}


def test_after_the_last_recording_the_collector_is_finished() -> None:
    c = collector(Scripted([stretch(3)]))
    before = c.finished
    c.poll(0.0)
    assert (before, c.finished) == (False, True)
    assert c.poll(1.0) == 0


def test_a_sensor_of_another_rate_needs_resampling_in_the_profile() -> None:
    with pytest.raises(ConfigError, match="accel: sensor imu delivers 25 Hz, the federation wants 50 Hz") as caught:
        Collector(profile("rpi4-accel", "modalities.accel.preprocess=[]"), HAR, {"imu": Scripted(rate_hz=25.0)})
    assert caught.value.error_id == "federation-mismatch"
    assert 'add preprocess = ["resample"]' in caught.value.hint


def test_a_sensor_of_another_unit_is_refused() -> None:
    sensor = Scripted()
    sensor.units = ("g", "g", "g")
    with pytest.raises(ConfigError, match="accel: sensor imu delivers ax in g, the federation wants m/s2"):
        collector(sensor)


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found holdout 1, .* expected a holdout from 0 to below 1"):
        collector(Scripted(), holdout=1.0)


def test_two_tasks_on_synthetic_sensors_have_labels_of_both_kinds() -> None:
    federation = load_federation("two-tasks")
    sets = ("modalities.accel.window=64", "modalities.accel.hop=32")
    mine = profile("rpi4-accel", *sets)
    sensors = open_sensors(mine, federation=federation, mock=True, seed=3, speed=0.0, history_s=200.0)
    c = Collector(mine, federation, sensors, split="blocks")
    c.poll(0.0)
    train = c.train()
    assert len(train) > 60
    assert train.labels["speed"].dtype == np.float32
    assert train.labelled("speed").all()
    assert 0 < train.labelled("activity").sum() < len(train)  # bouts change in some windows: a mean speed, no activity
    only_speed = Collector(mine, federation, sensors, split="blocks", tasks=["speed"])
    assert set(only_speed.train().labels) == {"speed"}


def test_a_board_of_100_hz_gives_the_windows_of_a_federation_of_50_hz() -> None:
    mine = profile("rpi5-imu-ecg")
    sensors = open_sensors(mine, federation=HAR, mock=True, seed=3, speed=0.0, history_s=60.0)
    assert sensors["imu"].rate_hz == 100
    c = Collector(mine, HAR, sensors, split="blocks")
    c.poll(0.0)
    train = c.train()
    assert train.inputs["accel"].shape[1:] == train.inputs["gyro"].shape[1:] == (128, 3)
    assert train.present["accel"].all()
    assert train.present["gyro"].all()
    slow = open_sensors(profile("jetson-imu"), federation=HAR, mock=True, seed=3, speed=0.0, history_s=60.0)
    assert c.modalities == ("accel", "gyro")
    twin = Collector(profile("jetson-imu"), HAR, slow, split="blocks")
    twin.poll(0.0)
    # the low-pass looks 0.36 s beyond a window, so other windows are left out between training and holdout
    _times, mine_at, twins_at = np.intersect1d(train.times, twin.train().times, return_indices=True)
    assert len(mine_at) > 15
    np.testing.assert_array_equal(twin.train().labels["har"][twins_at], train.labels["har"][mine_at])
