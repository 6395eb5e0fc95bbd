"""The real recordings of the package seglearn: read once hashed, converted, written for replay."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.datasets.readers import read_dataset
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.opening import open_sensors
from blossom_edge.sensors.recordings import read_recording
from blossom_edge.simulation import watch
from firmware_profiles.loading import load_profile, profile_folders

HAR = load_federation("har")
SHIPPED = [profile_folders()[-1]]

SHARED_DATA = os.environ.get("BLOSSOM_SHARED_DATA")
"""Read here, because each test begins without the settings of the person who runs it."""

needs_seglearn = pytest.mark.skipif(
    not any(d.metadata["Name"] == "seglearn" for d in importlib.metadata.distributions()),
    reason="the package seglearn is not installed",
)


def reference() -> Path:
    """Windows that were cut from the same data by other code, kept outside of this repository."""
    path = (Path(SHARED_DATA) if SHARED_DATA else Path(__file__).parents[3] / "shared" / "data") / "watch.npz"
    if not path.is_file():
        pytest.skip("watch.npz is not there: set BLOSSOM_SHARED_DATA to the folder that has it")
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "people"
    watch.write_people(folder)
    return folder


@needs_seglearn
def test_ten_people_are_written_with_licence_and_source(people: Path) -> None:
    assert sorted(p.name for p in people.iterdir() if p.is_dir()) == sorted(str(n) for n in range(1, 11))
    notice = (people / "README.md").read_text()
    assert "BSD-3-Clause" in notice
    assert "arXiv:1802.01489" in notice
    assert "David M. Burns" in (people / "LICENSE").read_text()


@needs_seglearn
def test_every_person_did_every_exercise_on_both_sides(people: Path) -> None:
    for person in watch.PEOPLE:
        recording = read_recording(people / str(person))
        stream = recording.streams["watch"]
        exercises = sorted(int(track.labels["har"][0]) for track in stream.tracks.values())
        assert exercises == sorted(list(range(7)) * 2)
        assert recording.label_names == {"har": ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")}
        assert (stream.channels, stream.units, stream.rate_hz) == (watch.CHANNELS, watch.UNITS, 50.0)


@needs_seglearn
def test_acceleration_is_in_metres_per_second_squared(people: Path) -> None:
    values = np.concatenate([t.values for t in read_recording(people / "1").streams["watch"].tracks.values()])
    length = np.linalg.norm(values[:, :3], axis=1)
    assert 9.0 < np.median(length) < 10.6  # gravity, for a watch that moves slowly


@needs_seglearn
def test_written_people_are_equal_bytes_each_time(people: Path, tmp_path: Path) -> None:
    watch.write_people(tmp_path / "again")
    assert (tmp_path / "again/7/person.npz").read_bytes() == (people / "7" / "person.npz").read_bytes()


@needs_seglearn
def test_windows_of_a_replay_equal_those_cut_by_other_code(people: Path) -> None:
    with np.load(reference()) as archive:
        expected = {key: archive[key] for key in ("acc", "gyro", "label", "subject", "recording")}
    profile = load_profile("jetson-imu", folders=SHIPPED)
    for person in (1, 3, 10):
        sensors = open_sensors(profile, federation=HAR, replay=people / str(person))
        collector = Collector(profile, HAR, sensors, holdout=0.0)
        collector.poll(0.0)
        windows = collector.train()
        rows = np.flatnonzero(expected["subject"] == person)
        rows = rows[np.argsort(expected["recording"][rows], kind="stable")]
        assert len(windows) == len(rows)
        np.testing.assert_array_equal(windows.labels["har"], expected["label"][rows])
        accel = [c.spread for c in HAR.modalities["accel"].channels]
        gyro = [c.spread for c in HAR.modalities["gyro"].channels]
        np.testing.assert_allclose(
            windows.inputs["accel"] * accel, expected["acc"][rows] * watch.STANDARD_GRAVITY_M_S2, atol=1e-4
        )
        np.testing.assert_allclose(windows.inputs["gyro"] * gyro, expected["gyro"][rows], atol=1e-4)


@needs_seglearn
def test_the_package_itself_is_never_imported() -> None:
    code = (
        "import sys; from blossom_edge.simulation import watch; watch.read_people(); "
        "sys.exit(bool({'seglearn', 'torch', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_changed_data_file_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = _fake_package(tmp_path)
    mark = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(mark),))

    np.save(site / "seglearn/data/watch_dataset.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    monkeypatch.setattr(sys, "path", [str(site)])
    with pytest.raises(StorageError, match=r"found sha256 .*, expected eb122f23cdf06ef6") as caught:
        watch.read_people()
    assert caught.value.error_id == "file-damaged"
    assert not mark.exists()


def test_a_missing_package_is_answered_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="the package seglearn is not installed") as caught:
        watch.read_people()
    assert (caught.value.error_id, caught.value.hint) == (
        "package-missing",
        "pip install --no-deps seglearn==1.2.5",
    )


def _fake_package(folder: Path) -> Path:
    """An installed package of the right name whose data file is ours to write."""
    site = folder / "site"
    (site / "seglearn" / "data").mkdir(parents=True)
    metadata = site / "seglearn-1.2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: seglearn\nVersion: 1.2.5\n")
    (metadata / "RECORD").write_text("seglearn/data/watch_dataset.npy,,\n")
    return site


@needs_seglearn
def test_the_example_writes_the_windows_of_the_paper_s_experiments(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "paper" / "watch_npz.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    found = read_dataset(str(tmp_path / "watch.npz"))
    assert (len(found), found.classes, sorted(found.modalities)) == (3605, watch.EXERCISES, ["accel", "gyro"])
    # the sum of |gyro| in the file that the results of docs/results.md were made with
    assert np.abs(found.modalities["gyro"].values.astype(np.float64)).sum() == pytest.approx(1_519_640.2219, abs=1e-3)
