"""Sensors whose samples are images or spectra: in federation, profile, recording and simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.client.fit import check_fit, load_device_profile
from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.recordings import Recording, Stream, Track, read_recording, write_recording
from blossom_edge.sensors.replay import ReplaySensor
from blossom_edge.sensors.synthetic import FRAME_BLOCK, SyntheticSensor, SyntheticTask
from firmware_profiles.loading import profile_folders
from firmware_profiles.schema import ProfileChannel, ProfileSensor

AV = load_federation("audio-image")
PROFILE = """
schema = 1
title = "A camera and a microphone"

[sensors.mic]
shape = [40]
channels = [{ name = "mel", unit = "dB", range = [-80.0, 0.0] }]
sources = [{ driver = "microphone", rate_hz = 100 }]

[sensors.cam]
shape = [96, 96]
channels = [
  { name = "r", unit = "/", range = [0.0, 1.0] },
  { name = "g", unit = "/", range = [0.0, 1.0] },
  { name = "b", unit = "/", range = [0.0, 1.0] },
]
sources = [{ driver = "my_board.eye:Eye", rate_hz = 5 }]

[modalities.audio]
sensor = "mic"
channels = ["mel"]
rate_hz = 100
window = 98
hop = 49

[modalities.image]
sensor = "cam"
channels = ["r", "g", "b"]
rate_hz = 5
window = 1
hop = 1
"""
BEFORE_SHAPES = {
    "har": "a09d03485688b178d61987ae0cb7d35858b99da4c548990bca221509d5f7a981",
    "two-tasks": "97738317a14d8a3423f6caca60d70985a69657ae5ff51ca62687f21be7e4b181",
}


def test_a_federation_without_shapes_keeps_the_digest_that_it_had_before_there_were_any() -> None:
    assert {name: load_federation(name).digest for name in BEFORE_SHAPES} == BEFORE_SHAPES
    assert load_federation("har", sets=["modalities.accel.shape=[]"]).digest == BEFORE_SHAPES["har"]
    assert "shape" not in load_federation("har").to_dict()["modalities"]["accel"]


def test_a_shape_is_part_of_the_digest_and_survives_the_wire() -> None:
    values = AV.to_dict()
    assert values["modalities"]["image"]["shape"] == [96, 96]
    assert Federation.from_dict(values).digest == AV.digest
    assert load_federation("audio-image", sets=["modalities.image.shape=[48, 48]"]).digest != AV.digest


def test_a_profile_without_shapes_is_written_without_the_key(tmp_path: Path) -> None:
    def sensors(*sets: str) -> dict[str, Any]:
        found: dict[str, Any] = load_device_profile("rpi4-accel", sets=sets, folders=[profile_folders()[-1]]).to_dict()
        return found

    assert "shape" not in sensors()["sensors"]["imu"]
    assert sensors("sensors.imu.shape=[]") == sensors()


def test_the_width_of_a_sample_is_its_shape_times_its_channels() -> None:
    image, audio = AV.modalities["image"], AV.modalities["audio"]
    assert (image.width, audio.width, load_federation("har").modalities["accel"].width) == (96 * 96 * 3, 40, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "modalities.image.shape=[1000, 1000]",
            "modalities.image.shape: found 3000000 values in a sample, expected at",
        ),
        ("modalities.image.shape=[2, 2, 2, 2]", "modalities.image.shape: found "),
        ("modalities.image.shape=[96, 0]", "modalities.image.shape[1]: found 0"),
        ("modalities.image.window=607", "modalities.image.window: found 16782336 values in a window, expected at most"),
        (
            "modalities.image.shape=[96]",
            "blocks.\"encoder/image\".type: found 'conv2d' for samples of shape [96], expected a shape [height, width]",
        ),
        ("modalities.image.shape=[]", "found 'conv2d' for samples that are single numbers, expected a shape"),
        ("blocks.encoder/audio={type='conv2d'}", "blocks.\"encoder/audio\".type: found 'conv2d' for samples of shape"),
    ],
)
def test_a_shape_that_cannot_be_is_told_with_its_key(change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_federation("audio-image", sets=[change])
    assert said in str(caught.value)


def test_encoders_take_the_width_of_a_sample_where_they_took_the_number_of_channels() -> None:
    sets = ["blocks.encoder/image={type='mlp', widths=[8]}", "modalities.image.shape=[6, 5]"]
    spec = load_federation("audio-image", sets=sets).spec
    shapes = {str(b.id): {t.name: t.shape for t in b.tensors} for b in spec.blocks}
    assert shapes["encoder/audio"]["conv.0.weight"] == (32, 40, 5)
    assert shapes["encoder/image"]["layers.0.weight"] == (8, 6 * 5 * 3)


def test_the_size_of_a_conv2d_hangs_on_its_channels_and_not_on_the_image() -> None:
    # 3*16*9+16, 16*32*9+32, 32*64*9+64 and the linear layer 64*128+128
    assert 448 + 4_640 + 18_496 + 8_320 == 31_904
    small = load_federation("audio-image", sets=["modalities.image.shape=[7, 9]"])
    for federation in (AV, small):
        assert federation.spec[BlockId.parse("encoder/image")].num_values == 31_904


def test_a_convolution_over_images_starts_within_one_over_the_root_of_its_inputs() -> None:
    block = initial_block(AV.spec[BlockId.parse("encoder/image")], "d" * 64, 0)
    for name, inputs in (("conv.1.weight", 16 * 9), ("conv.1.bias", 16 * 9), ("linear.weight", 64)):
        assert 0.8 / np.sqrt(inputs) < np.abs(block[name]).max() <= 1.0001 / np.sqrt(inputs)


def fitted(folder: Path, *sets: str) -> tuple[str, ...]:
    (folder / "eye.toml").write_text(PROFILE)
    return check_fit(load_device_profile("eye", sets=sets, folders=[folder]), AV)


def test_a_profile_with_the_same_shapes_fits(tmp_path: Path) -> None:
    assert fitted(tmp_path) == ("audio", "image")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["sensors.cam.shape=[64, 64]"],
            "image: the federation wants 96 x 96 values in each sample of a channel, "
            "this profile gives 64 x 64 values: set sensors.cam.shape = [96, 96]",
        ),
        (
            ["sensors.mic.shape=[]"],
            "audio: the federation wants 40 values in each sample of a channel, this profile gives one number: "
            "set sensors.mic.shape = [40]",
        ),
        (
            ["modalities.audio.window=100", "modalities.audio.hop=50"],
            "audio: the federation wants 100 Hz windows of 98 x 40 x 1 in dB, "
            "this profile gives windows of 100 every 50: set window = 98, hop = 49",
        ),
    ],
)
def test_a_shape_that_differs_is_told_with_the_one_to_set(tmp_path: Path, sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fitted(tmp_path, *sets)
    assert caught.value.error_id == "federation-mismatch"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            'modalities.image.channels=["g", "r", "b"]',
            "modalities.image.channels: found g, r, b, expected all channels of sensor 'cam' in its order, "
            "because its samples have a shape: r, g, b",
        ),
        ('modalities.image.channels=["r"]', "modalities.image.channels: found r, expected all channels"),
        ("sensors.cam.shape=[2000, 2000]", "sensors.cam.shape: found 12000000 values in a sample, expected at most"),
        ("sensors.cam.shape=[96, 0]", "sensors.cam.shape.1: found 0"),
    ],
)
def test_a_shape_that_no_profile_can_have_is_refused(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fitted(tmp_path, change)
    assert caught.value.error_id == "profile-invalid"
    assert said in str(caught.value)


COLOURS = ("r", "g", "b")


def camera(shape: tuple[int, ...] = (2, 2)) -> ProfileSensor:
    return ProfileSensor.model_validate(
        {
            "channels": [{"name": n, "unit": "/", "range": (0.0, 1.0)} for n in COLOURS],
            "sources": [{"driver": "camera", "rate_hz": 5}],
            "shape": shape,
        }
    )


def four_pictures() -> Recording:
    """Pictures of 2 x 2 points; value 100 * picture + 10 * point + channel."""
    values = np.add.outer(100.0 * np.arange(4), np.add.outer(10.0 * np.arange(4), np.arange(3)).ravel())
    track = Track(0.0, values.astype(np.float32), {"digit": np.array([0, 0, 1, -1])})
    stream = Stream(COLOURS, ("/", "/", "/"), 5.0, {0: track}, (2, 2))
    return Recording("test", {"cam": stream}, {"digit": ("3", "8")})


def test_a_recording_of_pictures_comes_back_with_its_shape(tmp_path: Path) -> None:
    write_recording(tmp_path / "person.npz", four_pictures())
    stream = read_recording(tmp_path).streams["cam"]
    assert stream.shape == (2, 2)
    np.testing.assert_array_equal(stream.tracks[0].values, four_pictures().streams["cam"].tracks[0].values)


def test_a_recording_of_numbers_is_written_without_the_key(tmp_path: Path) -> None:
    stream = Stream(("x",), ("V",), 10.0, {0: Track(0.0, np.ones((3, 1), np.float32))})
    write_recording(tmp_path / "p.npz", Recording("test", {"a": stream}, {}))
    with np.load(tmp_path / "p.npz") as archive:
        assert "streams/a/shape" not in archive.files
    assert read_recording(tmp_path / "p.npz").streams["a"].shape == ()


def wrong(folder: Path, **changes: Any) -> str:
    write_recording(folder / "p.npz", four_pictures())
    with np.load(folder / "p.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays |= {f"streams/cam/{key.replace('__', '/')}": np.asarray(value) for key, value in changes.items()}
    np.savez(folder / "p.npz", **arrays)
    with pytest.raises(ConfigError) as caught:
        read_recording(folder / "p.npz")
    assert caught.value.error_id == "replay-invalid"
    return str(caught.value)


def test_a_recording_whose_values_do_not_have_their_shape_is_refused(tmp_path: Path) -> None:
    assert "streams/cam/shape: found [2, 0], expected up to three sizes from 1 on" in wrong(tmp_path, shape=[2, 0])
    assert "streams/cam/shape: found 2.5" in wrong(tmp_path, shape=2.5)
    said = wrong(tmp_path, shape=[3, 2])
    assert "values: found float32 [4, 12], expected numbers [samples, 18] for r, g, b of shape [3, 2]" in said


def test_a_colour_that_was_never_measured_is_refused_by_name(tmp_path: Path) -> None:
    values = four_pictures().streams["cam"].tracks[0].values.copy()
    values[:, 1::3] = np.nan
    assert "found no finite value of g, expected" in wrong(tmp_path, **{"0000__values": values})


def test_a_replay_of_pictures_delivers_whole_rows_or_the_colours_asked_for() -> None:
    whole = ReplaySensor(four_pictures(), camera(), needed=COLOURS, speed=0.0).read(0.0)[0]
    assert whole.values.shape == (4, 12)
    assert whole.values.dtype == np.float64
    assert whole.labels["digit"] is not None
    assert whole.labels["digit"].tolist() == ["3", "3", "8", ""]
    some = ReplaySensor(four_pictures(), camera(), needed=("b", "r"), speed=0.0).read(0.0)[0]
    assert some.values[1].tolist() == [102.0, 100.0, 112.0, 110.0, 122.0, 120.0, 132.0, 130.0]


def test_a_replay_of_pictures_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape: found \[2, 2\] for r, g, b, expected \[4, 1\] as the profile says"):
        ReplaySensor(four_pictures(), camera((4, 1)), needed=COLOURS, speed=0.0)


DIGIT = {"digit": SyntheticTask("classification", 4)}
RGB = [ProfileChannel(name=n, unit="/", range=(0.0, 1.0)) for n in COLOURS]


def eye(
    seed: int = 1,
    *,
    history_s: float = 100.0,
    speed: float = 0.0,
    tasks: dict[str, SyntheticTask] = DIGIT,
    shape: tuple[int, ...] = (12, 10),
) -> SyntheticSensor:
    return SyntheticSensor(RGB, rate_hz=5.0, tasks=tasks, seed=seed, speed=speed, history_s=history_s, shape=shape)


def test_simulated_pictures_have_the_width_of_their_shape_and_stay_in_the_range_of_the_sensor() -> None:
    (reading,) = eye().read(0.0)
    assert reading.values.shape == (500, 12 * 10 * 3)
    assert reading.values.min() >= 0.0
    assert reading.values.max() <= 1.0
    assert 0.02 < reading.values.std() < 0.3


def test_simulated_pictures_do_not_depend_on_how_often_they_are_read() -> None:
    (at_once,) = eye(history_s=20.0).read(0.0)
    live = eye(history_s=3.0, speed=1.0)
    parts = [reading for now in np.arange(0.0, 16.9, 0.7) for reading in live.read(float(now))]
    values = np.concatenate([part.values for part in parts])
    assert FRAME_BLOCK < len(values) < 100
    assert values.tobytes() == at_once.values[: len(values)].tobytes()


def test_what_a_simulated_class_looks_like_is_the_same_on_all_devices() -> None:
    centres = []
    for seed in (1, 2):
        (reading,) = eye(seed).read(0.0)
        labels = reading.labels["digit"]
        assert labels is not None
        assert set(labels.tolist()) == {0, 1, 2, 3}
        centres.append(np.array([reading.values[labels == k].mean(axis=0) for k in range(4)]))
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    assert distance.argmin(axis=1).tolist() == [0, 1, 2, 3]
    apart = np.linalg.norm(centres[0][:, None] - centres[0][None], axis=2)[~np.eye(4, dtype=bool)]
    assert distance.diagonal().max() < 0.5 * apart.min()


def test_a_simulated_number_shows_in_the_strength_of_the_picture() -> None:
    (reading,) = eye(tasks={"light": SyntheticTask("regression", mean=1.0, spread=1.0)}, history_s=200.0).read(0.0)
    light = reading.labels["light"]
    assert light is not None
    contrast = reading.values.std(axis=1)
    assert np.corrcoef(light, contrast)[0, 1] > 0.9


def test_a_simulated_spectrum_and_picture_show_the_same_class_at_the_same_time() -> None:
    mel = [ProfileChannel(name="mel", unit="dB", range=(-80.0, 0.0))]
    sound = SyntheticSensor(mel, rate_hz=100.0, tasks=DIGIT, seed=1, speed=0.0, history_s=100.0, shape=(40,))
    (heard,), (seen,) = sound.read(0.0), eye().read(0.0)
    assert heard.values.shape == (10_000, 40)
    labels = heard.labels["digit"]
    assert labels is not None
    np.testing.assert_array_equal(labels[::20], seen.labels["digit"])
