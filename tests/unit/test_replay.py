"""Recordings: written, read, replayed at any speed, and refused with file, key, found and expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.recordings import Recording, Stream, Track, read_recording, write_recording
from blossom_edge.sensors.replay import ReplaySensor
from firmware_profiles.schema import ProfileSensor

SENSOR = ProfileSensor.model_validate(
    {
        "channels": [{"name": n, "unit": "m/s2", "range": (-40.0, 40.0)} for n in ("ax", "ay")],
        "sources": [{"driver": "iio", "rate_hz": 10}],
    }
)


def two_recordings() -> Recording:
    """Recording 0: 20 samples of class 1; recording 1: 10 samples of class 0; ax counts, ay is ax + 100; 10 Hz."""
    tracks = {}
    for number, (count, label) in enumerate(((20, 1), (10, 0))):
        ax = np.arange(count, dtype=np.float32)
        tracks[number] = Track(
            0.0, np.stack([ax, ax + 100], axis=1), {"har": np.full(count, label), "speed": ax.astype(np.float32)}
        )
    stream = Stream(("ax", "ay"), ("m/s2", "m/s2"), 10.0, tracks)
    return Recording("test", {"watch": stream}, {"har": ("sit", "walk"), "speed": ()})


def sensor(recording: Recording, *, speed: float, needed: tuple[str, ...] = ("ax", "ay")) -> ReplaySensor:
    return ReplaySensor(recording, SENSOR, needed=needed, speed=speed)


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_recording(tmp_path / "person.npz", two_recordings())
    again = read_recording(tmp_path)
    stream, before = again.streams["watch"], two_recordings().streams["watch"]
    assert (stream.channels, stream.units, stream.rate_hz) == (before.channels, before.units, before.rate_hz)
    assert again.label_names == {"har": ("sit", "walk"), "speed": ()}
    for number, track in before.tracks.items():
        np.testing.assert_array_equal(stream.tracks[number].values, track.values)
        for task, labels in track.labels.items():
            np.testing.assert_array_equal(stream.tracks[number].labels[task], labels)
    assert stream.tracks[0].labels["har"].tolist() == [1] * 20


def test_equal_recordings_are_equal_bytes(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.npz", two_recordings())
    write_recording(tmp_path / "b.npz", two_recordings())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_speed_0_delivers_everything_at_once_with_a_pause_between_recordings() -> None:
    replay = sensor(two_recordings(), speed=0.0)
    first, second = replay.read(1234.5)
    assert (len(first), len(second), replay.exhausted) == (20, 10, True)
    assert (first.times[0], first.times[-1], second.times[0]) == (0.0, 1.9, 3.0)
    assert (first.recording, second.recording) == (0, 1)
    assert list(replay.read(2000.0)) == []


def test_speed_2_delivers_twice_as_fast_as_the_clock() -> None:
    replay = sensor(two_recordings(), speed=2.0)
    counts = [sum(len(r) for r in replay.read(now)) for now in (100.0, 100.05, 100.5, 101.0, 101.5, 102.0, 103.0)]
    # clock 0, .1, 1, 2, 3, 4, 6 s: samples due 1, 2, 11, 20, 20 + the one at 3 s, 20 + 10, nothing more
    assert counts == [1, 1, 9, 9, 1, 9, 0]
    assert replay.exhausted


def test_samples_do_not_depend_on_how_often_they_are_read() -> None:
    at_once = np.concatenate([r.values for r in sensor(two_recordings(), speed=0.0).read(0.0)])
    slow = sensor(two_recordings(), speed=1.0)
    slowly = [r.values for now in np.arange(0.0, 5.0, 0.07) for r in slow.read(float(now))]
    np.testing.assert_array_equal(np.concatenate(slowly), at_once)


def test_class_labels_are_names_and_number_labels_are_numbers() -> None:
    reading = sensor(two_recordings(), speed=0.0).read(0.0)[0]
    assert reading.labels["har"] is not None
    assert reading.labels["har"].tolist() == ["walk"] * 20
    assert reading.labels["speed"] is not None
    assert reading.labels["speed"][3] == 3.0


def test_only_the_channels_asked_for_are_delivered() -> None:
    reading = sensor(two_recordings(), speed=0.0, needed=("ay",)).read(0.0)[0]
    assert reading.values[:3].tolist() == [[100.0], [101.0], [102.0]]


def test_samples_that_are_not_finite_are_left_out_and_make_a_gap() -> None:
    recording = two_recordings()
    recording.streams["watch"].tracks[0].values[5, 0] = np.nan
    reading = sensor(recording, speed=0.0).read(0.0)[0]
    assert len(reading) == 19
    assert reading.times[4:6].tolist() == [0.4, 0.6]
    assert np.isfinite(reading.values).all()


def test_streams_of_one_recording_keep_their_distance_in_time() -> None:
    def stream(name: str, rate_hz: float, start_s: float) -> Stream:
        return Stream((name,), ("m/s2",), rate_hz, {0: Track(start_s, np.zeros((20, 1), dtype=np.float32))})

    recording = Recording("test", {"a": stream("ax", 10.0, 7.0), "b": stream("ay", 20.0, 7.5)}, {})
    ax = sensor(recording, speed=0.0, needed=("ax",))
    ay = sensor(recording, speed=0.0, needed=("ay",))
    assert (ax.read(0.0)[0].times[0], ay.read(0.0)[0].times[0]) == (0.0, 0.5)


def test_another_unit_than_the_profiles_is_refused() -> None:
    stream = two_recordings().streams["watch"]
    wrong = Recording("p.npz", {"watch": Stream(stream.channels, ("m/s2", "g"), 10.0, stream.tracks)}, {})
    with pytest.raises(ConfigError, match="units: found ay in g, expected m/s2 as the profile says") as caught:
        sensor(wrong, speed=0.0)
    assert caught.value.error_id == "replay-invalid"


Arrays = dict[str, Any]


def without(key: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.pop(key)


def changed(key: str, value: Any) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({key: np.array(value)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("format"), "format: found no such key, expected 'blossom-recording/1'"),
        (changed("format", "other/9"), "format: found 'other/9', expected 'blossom-recording/1'"),
        (without("streams/watch/units"), "streams/watch/units: is missing"),
        (changed("streams/watch/units", ["m/s2", ""]), "units: found 1 units, expected one for each of ax, ay"),
        (changed("streams/watch/units", [1, 2]), "streams/watch/units: found int64, expected text"),
        (without("streams/watch/rate_hz"), "streams/watch/rate_hz: is missing"),
        (changed("streams/watch/rate_hz", -1.0), "rate_hz: found -1, expected samples per second"),
        (changed("streams/watch/rate_hz", [1.0, 2.0]), r"rate_hz: found float64 \[2\], expected one number"),
        (
            changed("streams/watch/0000/values", np.zeros((20, 3))),
            r"0000/values: found float64 \[20, 3\], expected numbers \[samples, 2\] for ax, ay",
        ),
        (
            changed("streams/watch/0001/values", np.full((10, 2), np.nan)),
            "0001/values: found no finite value of ax, ay, expected measurements",
        ),
        (changed("streams/watch/0000/labels/har", 2), "0000/labels/har: found 2 to 2, expected -1 to 1"),
        (changed("streams/watch/0000/labels/har", [0, 1]), r"found int64 \[2\], expected one or 20 class indices"),
        (changed("streams/watch/0000/labels/har", 0.5), r"found float64 \[\], expected one or 20 class indices"),
        (changed("streams/watch/x/values", np.zeros((1, 2))), "streams/watch/x: expected the number of a recording"),
    ],
)
def test_a_wrong_npz_is_refused_with_file_and_key(
    tmp_path: Path, change: Callable[[Arrays], None], expected: str
) -> None:
    path = tmp_path / "person.npz"
    write_recording(path, two_recordings())
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_recording(path)
    assert caught.value.error_id == "replay-invalid"
    assert str(path) in str(caught.value)


def test_a_file_with_pickled_objects_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "person.npz"
    np.savez(path, format=np.array("blossom-recording/1"), trap=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="is no npz of plain arrays"):
        read_recording(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY", b"hello"])
def test_bytes_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "person.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no npz of plain arrays"):
        read_recording(path)


def test_a_person_who_is_not_there_is_answered_with_those_who_are(tmp_path: Path) -> None:
    for person in ("1", "2", "10"):
        (tmp_path / person).mkdir()
        write_recording(tmp_path / person / "person.npz", two_recordings())
    with pytest.raises(ConfigError, match="there is no recording") as caught:
        read_recording(tmp_path / "33")
    assert caught.value.hint == "there are 1, 2, 10"
    with pytest.raises(ConfigError, match=r"neither person\.npz nor a \.csv file") as caught:
        read_recording(tmp_path)
    assert caught.value.hint == "name one of them: 1, 2, 10"


CSV = "time [s],ax [m/s2],ay [m/s2],label:har,label:speed [m/s]\n0.0,1,2,walk,0.5\n0.1,3,,walk,0.5\n0.2,5,6,,\n"


def test_a_csv_brings_names_units_rate_and_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    recording = read_recording(tmp_path / "a.csv")
    stream = recording.streams["csv"]
    assert (stream.channels, stream.units, stream.rate_hz) == (("ax", "ay"), ("m/s2", "m/s2"), 10.0)
    assert stream.tracks[0].values[0].tolist() == [1.0, 2.0]
    assert np.isnan(stream.tracks[0].values[1, 1])
    assert recording.label_names == {"har": ("walk",), "speed": ()}
    assert stream.tracks[0].labels["har"].tolist() == [0, 0, -1]
    assert stream.tracks[0].labels["speed"].tolist()[:2] == [0.5, 0.5]


def test_a_folder_of_csv_files_is_one_recording_per_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv").write_text(CSV.replace("walk", "sit"))
    recording = read_recording(tmp_path)
    assert recording.label_names["har"] == ("walk", "sit")
    assert recording.streams["csv"].tracks[1].labels["har"].tolist() == [1, 1, -1]
    (tmp_path / "c.csv").write_text(CSV.replace("ay [m/s2]", "ay [g]"))
    with pytest.raises(ConfigError, match=r"c\.csv: its header differs from that of a\.csv"):
        read_recording(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ax [m/s2]", "ax", "column 'ax': found no unit, expected for example 'ax \\[m/s2\\]'"),
        ("time [s]", "t [s]", r"found 0 columns 'time \[s\]', expected one"),
        ("ax [m/s2]", "A X", "column 'A X': expected 'NAME"),
        ("0.1,3", "0.0,3", "line 3: time does not rise"),
        ("0.1,3,,walk", "0.1,3,walk", "line 3: found 4 cells, expected 5"),
        ("0.1,3", "0.1,three", "line 3: ax: found 'three', expected a number"),
        ("0.2,5", "9.9,5", "line 4: found a step of 9.8 s"),
    ],
)
def test_a_wrong_csv_is_refused_with_file_and_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "a.csv"
    text = CSV.replace("0.2,5,6,,\n", "0.2,5,6,,\n0.3,5,6,,\n0.4,5,6,,\n")
    if new == "9.9,5":
        text = text.replace("0.3,", "10.0,").replace("0.4,", "10.1,") + "10.2,1,1,,\n10.3,1,1,,\n"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=expected) as caught:
        read_recording(path)
    assert caught.value.error_id == "replay-invalid"
    assert str(path) in str(caught.value)
