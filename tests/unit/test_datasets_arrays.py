"""Data sets in one `.npz` file: what is read, what is refused and with which words."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets import files
from blossom_edge.datasets.readers import read_dataset
from blossom_edge.federation.load import load_federation

_GIVEN = os.environ.get("BLOSSOM_SHARED_DATA")
SHARED = Path(_GIVEN) if _GIVEN else Path(__file__).parents[3] / "shared" / "data"


def save(path: Path, **more: Any) -> str:
    """A file of four windows of two people; `more` replaces arrays, None leaves one out."""
    arrays: dict[str, Any] = {
        "accel": np.arange(24, dtype=np.int16).reshape(4, 2, 3),
        "label": np.array([0, 1, 1, 0]),
        "subject": np.array([7, 7, 9, 9]),
        "rate_hz.accel": np.float64(50.0),
        **more,
    }
    file = path / "mine.npz"
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return str(file)


def refused(source: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_dataset(source)
    assert caught.value.hint
    return caught.value


def test_arrays_become_a_data_set_with_units_and_people(tmp_path: Path) -> None:
    more = {"scale.accel": 0.5, "unit.accel": np.array("m/s2"), "channels.accel": np.array(["x", "y", "z"])}
    found = read_dataset(save(tmp_path, **more, class_names=np.array(["SIT", "RUN"]), hr=np.ones(4)))
    accel = found.modalities["accel"]
    assert list(found.modalities) == ["accel"]
    assert accel.values.dtype == np.float32
    assert accel.values[1, 0].tolist() == [3.0, 3.5, 4.0]  # the halves of 6, 7, 8
    assert accel.channels == (("x", "m/s2"), ("y", "m/s2"), ("z", "m/s2"))
    assert accel.rate_hz == 50.0
    assert found.classes == ("SIT", "RUN")
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.subjects.tolist() == [7, 7, 9, 9]
    assert found.is_test is None


def test_labels_may_be_words_and_nobody_may_be_known(tmp_path: Path) -> None:
    found = read_dataset(save(tmp_path, label=np.array(["run", "sit", "sit", "run"]), subject=None))
    assert found.classes == ("run", "sit")
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.subjects.tolist() == [-1] * 4


def test_pictures_keep_their_shape_and_what_is_not_present_is_zeros(tmp_path: Path) -> None:
    image = np.ones((4, 1, 2, 5, 3))
    image[2] = np.nan
    more = {"image": image, "rate_hz.image": 1.0, "present.image": np.array([True, True, False, True])}
    signals = read_dataset(save(tmp_path, **more)).modalities["image"]
    assert signals.shape == (2, 5)
    assert signals.values.shape == (4, 1, 30)
    assert signals.values.sum(axis=(1, 2)).tolist() == [30.0, 30.0, 0.0, 30.0]
    assert [name for name, _ in signals.channels] == ["c0", "c1", "c2"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"rate_hz.accel": None}, "no array rate_hz.accel"),
        ({"rate_hz.accel": -1.0}, "rate_hz.accel -1"),
        ({"label": None}, "no array label"),
        ({"label": np.array([0, 1, 1])}, "4 windows of accel"),
        ({"label": np.array([0, 1, 1, -1])}, "labels -1 to 1"),
        ({"class_names": np.array(["ONE"])}, "labels 0 to 1"),
        ({"subject": np.zeros(3, dtype=int)}, "subject int64 (3,)"),
        ({"is_test": np.zeros(4)}, "is_test float64"),
        ({"accel": np.full((4, 2, 3), np.nan)}, "not finite"),
        ({"present.accel": np.ones(4)}, "present.accel float64"),
        ({"unit.accel": np.array(["g", "g"])}, "unit.accel with 2 entries"),
        ({"accel": None}, "the arrays label"),
        ({"accel": np.zeros((0, 2, 3)), "label": np.zeros(0, dtype=int)}, "accel (0, 2, 3)"),
        ({"Bad_Name": np.ones((4, 2, 3))}, "a modality 'Bad_Name'"),
    ],
)
def test_file_that_breaks_a_rule_is_refused_with_what_was_found(tmp_path: Path, change: Any, found: str) -> None:
    error = refused(save(tmp_path, **change))
    assert error.error_id == "data-invalid"
    assert found in str(error)
    assert "mine.npz" in str(error)
    assert "expected" in str(error)


def test_pickle_is_never_opened(tmp_path: Path) -> None:
    error = refused(save(tmp_path, label=np.array([{}, {}, {}, {}], dtype=object)))
    assert error.error_id == "data-invalid"
    assert "pickle" in str(error)


def test_size_is_checked_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path)
    monkeypatch.setattr(files, "MAX_ARRAY_BYTES", 100)
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("it was read"))
    assert "at most 100" in str(refused(source))


def test_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = Path(save(tmp_path))
    path.write_bytes(path.read_bytes()[:-40])
    assert refused(str(path)).error_id == "data-invalid"


def test_source_without_reader_lists_those_there_are(tmp_path: Path) -> None:
    error = refused("mnist:/somewhere")
    assert error.error_id == "data-not-found"
    assert "ucihar:PATH" in str(error)
    assert refused(str(tmp_path / "none.npz")).error_id == "data-not-found"


@pytest.mark.parametrize(
    ("name", "people", "shapes", "unit"),
    [
        ("ucihar", 30, {"accel": (3350, 128, 3), "gyro": (3350, 128, 3)}, "g"),
        ("watch", 10, {"accel": (3605, 128, 3), "gyro": (3605, 128, 3)}, "m/s2"),
        ("ecg_motion", 10, {"ecg": (4452, 1000, 1)}, "count"),
    ],
)
def test_real_sets_are_read_as_they_are(name: str, people: int, shapes: dict[str, Any], unit: str) -> None:
    file = SHARED / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"{file.name} is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    found = read_dataset(str(file))
    assert {name: signals.values.shape for name, signals in found.modalities.items()} == shapes
    assert len(set(found.subjects.tolist())) == people
    assert next(iter(found.modalities.values())).channels[0][1] == unit


def test_watch_data_fit_the_federation_har() -> None:
    if not (SHARED / "watch.npz").is_file():
        pytest.skip("watch.npz is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    accel = read_dataset(str(SHARED / "watch.npz")).modalities["accel"]
    har = load_federation("har").modalities["accel"]
    assert accel.channels == tuple((channel.name, channel.unit) for channel in har.channels)
    assert accel.values.shape[1:] == (har.window, har.width)
    assert 9.0 < np.linalg.norm(accel.values, axis=2).mean() < 13.0, "gravity and some motion, in m/s2"


def test_stress_data_have_four_modalities_with_rates_and_units_of_their_own() -> None:
    file = SHARED / "stress_e4.npz"
    if not file.is_file():
        pytest.skip(f"{file.name} is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    found = read_dataset(str(file))
    rates = {name: (s.rate_hz, s.channels[0][1], s.values.shape[1]) for name, s in found.modalities.items()}
    assert rates == {
        "accel": (32.0, "g", 512),
        "bvp": (64.0, "/", 1024),
        "eda": (4.0, "uS", 64),
        "temp": (4.0, "Cel", 64),
    }
    norm = np.linalg.norm(found.modalities["accel"].values, axis=2).mean()
    assert 0.9 < norm < 1.1, "a wrist at rest feels about 1 g: the scale of the file was not used"
    counts = Counter(found.labels.tolist())
    assert [counts[i] for i in range(4)] == [9218, 1463, 2484, 460]
