"""Labels of live sensors: what a person says, and from which moment on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.labels import (
    KEEP_S,
    Label,
    LabelledSensor,
    LabelTrack,
    check_labels,
    keep_label,
    parse_labels,
    read_label,
)

HAR = load_federation("har")
TWO = load_federation("two-tasks")


def track(folder: Path, **values: str) -> LabelTrack:
    return LabelTrack(folder, HAR, values=values, now=100.0, boot="b")


def test_a_label_holds_from_its_moment_on(tmp_path: Path) -> None:
    labels = track(tmp_path, har="PEN")
    keep_label(tmp_path, Label(since_s=110.0, boot="b", values={"har": "ROW"}))
    labels.look()
    keep_label(tmp_path, Label(since_s=120.0, boot="b", values={"har": ""}))
    labels.look()
    times = np.array([99.0, 100.0, 109.9, 110.0, 119.9, 120.0, 500.0])
    assert labels.at(times)["har"].tolist() == ["", "PEN", "PEN", "ROW", "ROW", "", ""]


def test_without_a_word_there_is_no_label(tmp_path: Path) -> None:
    assert track(tmp_path).at(np.array([100.0])) == {}


def test_a_label_of_an_earlier_boot_or_for_another_federation_is_not_taken(tmp_path: Path) -> None:
    labels = track(tmp_path)
    keep_label(tmp_path, Label(since_s=110.0, boot="another", values={"har": "ROW"}))
    labels.look()
    keep_label(tmp_path, Label(since_s=110.0, boot="b", values={"har": "SWIM"}))
    labels.look()
    assert labels.at(np.array([130.0])) == {}


def test_a_restarted_join_goes_on_with_the_last_label_but_not_against_its_flag(tmp_path: Path) -> None:
    keep_label(tmp_path, Label(since_s=50.0, boot="b", values={"har": "ROW"}))
    again = track(tmp_path)
    again.look()
    assert again.at(np.array([100.0]))["har"].tolist() == ["ROW"]
    told = track(tmp_path, har="PEN")
    told.look()
    assert told.at(np.array([100.0]))["har"].tolist() == ["PEN"]


def test_numbers_of_a_regression_and_sets_of_a_multilabel_task(tmp_path: Path) -> None:
    labels = LabelTrack(tmp_path, TWO, values={"speed": "1.5"}, now=0.0, boot="b")
    assert labels.at(np.array([-1.0, 1.0]))["speed"].tolist() == pytest.approx([float("nan"), 1.5], nan_ok=True)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("har", "found 'har', expected TASK=CLASS"),
        ("walk=1", "there is no task 'walk'"),
        ("har=SWIM", "found SWIM, expected one of PEN, ABD"),
    ],
)
def test_a_wrong_label_is_refused_with_what_there_is(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_labels(parse_labels([word]), HAR)


def test_a_number_is_wanted_for_a_regression() -> None:
    with pytest.raises(ConfigError, match="speed=fast: found no number, expected a value in m/s"):
        check_labels({"speed": "fast"}, TWO)


def test_a_damaged_file_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "label.json").write_text("{")
    assert read_label(tmp_path) is None


class OneReading:
    channels, units, rate_hz, exhausted = ("x",), ("V",), 10.0, False

    def __init__(self, labels: dict[str, np.ndarray]) -> None:
        self._labels = labels

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, now: float) -> Sequence[Reading]:
        return [Reading(np.array([101.0]), np.zeros((1, 1)), self._labels)]


def test_what_the_source_says_itself_goes_before_what_the_person_said(tmp_path: Path) -> None:
    plain = LabelledSensor(OneReading({}), track(tmp_path, har="PEN"))
    own = LabelledSensor(OneReading({"har": np.array(["ROW"])}), track(tmp_path, har="PEN"))
    assert plain.read(0.0)[0].labels["har"].tolist() == ["PEN"]
    assert own.read(0.0)[0].labels["har"].tolist() == ["ROW"]


def test_what_was_said_long_ago_is_forgotten_and_what_holds_is_not(tmp_path: Path) -> None:
    labels = track(tmp_path, har="PEN")
    for minute in range(1, 200):  # somebody changes it every minute
        keep_label(tmp_path, Label(since_s=100.0 + 60 * minute, boot="b", values={"har": ("ROW", "PEN")[minute % 2]}))
        labels.look()
    assert len(labels._changes) <= KEEP_S / 60 + 2
    end = 100.0 + 60 * 199
    assert labels.at(np.array([end, end - 1.0, end - KEEP_S + 60.0]))["har"].tolist() == ["PEN", "ROW", "ROW"]
