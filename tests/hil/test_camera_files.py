"""The camera driver on recorded files, with the real OpenCV: colours, cut, pace, classes, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Samples
from blossom_edge.sensors.drivers.camera import CameraDriver, centre
from tests.hil.camera_bench import GREY, RGB, Time, make

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """An RGB picture of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def write(path: Path, rgb: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[:, :, ::-1])


def gather(driver: CameraDriver, time: Time, seconds: float) -> Samples:
    end, parts = time.now + seconds - 1e-9, []
    while time.now < end:
        part = driver.read(0.05)
        if len(part):
            parts.append(part)
    labels = {task: np.concatenate([p.labels[task] for p in parts]) for task in parts[0].labels}
    return Samples(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]), labels)


def test_colours_stand_at_their_places(tmp_path: Path) -> None:
    picture = plain(RED)
    picture[:24, 32:] = GREEN
    picture[24:, :32] = BLUE
    picture[24:, 32:] = (255, 128, 0)
    write(tmp_path / "a.png", picture)
    driver = make(path=str(tmp_path / "a.png"), shape=(6, 8))
    driver.open()
    image = driver.read(0.5).values[0].reshape(6, 8, 3)
    assert image[0, 0].tolist() == [1, 0, 0]
    assert image[0, 7].tolist() == [0, 1, 0]
    assert image[5, 0].tolist() == [0, 0, 1]
    assert image[5, 7] == pytest.approx([1, 128 / 255, 0])
    assert image[2, 3].tolist() == [1, 0, 0]  # the last of the left upper part
    assert image[3, 4] == pytest.approx([1, 128 / 255, 0])


def test_channels_in_another_order_get_their_own_colour(tmp_path: Path) -> None:
    write(tmp_path / "a.png", plain((10, 20, 30)))
    driver = make(path=str(tmp_path), channels=(RGB[2], RGB[0], RGB[1]))
    driver.open()
    assert driver.read(0.5).values[0][:3] * 255 == pytest.approx([30, 10, 20])


def test_grey_is_the_luma_of_bt_601(tmp_path: Path) -> None:
    write(tmp_path / "a.png", plain((200, 100, 50)))
    driver = make(path=str(tmp_path), channels=GREY)
    driver.open()
    values = driver.read(0.5).values
    assert values.shape == (1, 64)
    assert values[0] * 255 == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=0.6)


def test_the_middle_is_used_and_small_pixels_are_means() -> None:
    wide = np.zeros((4, 10, 3), dtype=np.uint8)
    wide[:, 3:7] = 100
    assert (centre(wide, 96, 96) == 100).all()
    assert centre(wide, 96, 96).shape == (4, 4, 3)
    assert centre(wide, 1, 5).shape == (2, 10, 3)
    assert centre(np.zeros((480, 640, 3), dtype=np.uint8), 96, 96).shape == (480, 480, 3)
    assert centre(np.zeros((480, 640, 3), dtype=np.uint8), 48, 64).shape == (480, 640, 3)


def test_a_small_pixel_is_the_mean_of_those_it_stands_for(tmp_path: Path) -> None:
    picture = plain((0, 0, 0), 16, 16)
    picture[::2, ::2] = 200  # one of four
    write(tmp_path / "a.png", picture)
    driver = make(path=str(tmp_path), channels=GREY)
    driver.open()
    assert driver.read(0.5).values[0] * 255 == pytest.approx(50)


def test_images_follow_each_other_by_name_at_5_hz_and_carry_their_class(tmp_path: Path) -> None:
    for name, colour in (("red/1.png", RED), ("green/2.png", GREEN), ("red/3.png", RED), ("blue/4.png", BLUE)):
        write(tmp_path / name, plain(colour))
    time = Time()
    driver = make(time, path=str(tmp_path), fps=1, label="colour")
    driver.open()
    seen = gather(driver, time, 3.9)
    assert seen.times == pytest.approx(100 + np.arange(20) / 5)
    assert seen.labels["colour"].tolist() == ["red"] * 5 + ["green"] * 5 + ["red"] * 5 + ["blue"] * 5
    assert [row[:3].tolist() for row in seen.values[::5]] == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(HardwareError, match="at its end") as error:
        gather(driver, time, 1.0)
    assert error.value.error_id == "sensor-failed"
    driver.open()
    assert gather(driver, time, 0.2).values[0][:3].tolist() == [1, 0, 0]  # from the beginning


def test_images_in_a_loop_go_on(tmp_path: Path) -> None:
    write(tmp_path / "1.png", plain(RED))
    write(tmp_path / "2.png", plain(GREEN))
    time = Time()
    driver = make(time, path=str(tmp_path), loop=True)
    driver.open()
    seen = gather(driver, time, 1.9)
    assert seen.values[:, 0].tolist() == [1, 0] * 5


def test_who_looks_late_gets_all_pictures_a_second_at_a_time(tmp_path: Path) -> None:
    write(tmp_path / "1.png", plain(RED))
    time = Time()
    driver = make(time, path=str(tmp_path), loop=True)
    driver.open()
    time.wait(2.1)
    assert [len(driver.read(0.0)) for _ in range(4)] == [5, 5, 1, 0]


def test_an_image_that_cannot_be_read_fails_after_those_before_it(tmp_path: Path) -> None:
    write(tmp_path / "1.png", plain(RED))
    (tmp_path / "2.png").write_bytes(b"no image")
    time = Time()
    driver = make(time, path=str(tmp_path))
    driver.open()
    time.wait(0.5)
    assert len(driver.read(0.0)) == 1
    with pytest.raises(HardwareError, match=r"2\.png"):
        driver.read(0.0)


def write_video(path: Path, *, fps: float, num_frames: int) -> Path:
    """Frame i is grey of 8 * i."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for number in range(num_frames):
        video.write(np.full((48, 64, 3), 8 * number, dtype=np.uint8))
    video.release()
    return path


def test_of_a_video_of_30_frames_a_second_every_sixth_is_used_at_5_hz(tmp_path: Path) -> None:
    time = Time()
    driver = make(time, path=str(write_video(tmp_path / "a.avi", fps=30, num_frames=31)), channels=GREY)
    driver.open()
    seen = gather(driver, time, 1.1)
    assert seen.times == pytest.approx(100 + np.arange(6) / 5)
    assert seen.values.mean(axis=1) * 255 == pytest.approx([0, 48, 96, 144, 192, 240], abs=3)
    with pytest.raises(HardwareError, match="at its end"):
        gather(driver, time, 1.0)


def test_a_video_in_a_loop_begins_again(tmp_path: Path) -> None:
    time = Time()
    path = write_video(tmp_path / "a.avi", fps=10, num_frames=6)
    driver = make(time, path=str(path), channels=GREY, loop=True)
    driver.open()
    seen = gather(driver, time, 1.3)
    assert seen.values.mean(axis=1) * 255 == pytest.approx([0, 16, 32, 0, 16, 32, 0], abs=3)


def test_a_file_that_is_no_video_and_a_folder_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for path in (tmp_path / "a.mp4", tmp_path, tmp_path / "x"):
        with pytest.raises(ConfigError) as error:
            make(path=str(path)).open()
        assert error.value.error_id == "replay-invalid"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": ()}, "expected 1 or 3 of shape"),
        ({"channels": RGB[:2]}, "found 2 channels"),
        ({"label": "digit"}, "only recorded files"),
        ({"backend": "picamera2", "device": "/dev/video0"}, "expected a number for picamera2"),
        ({"backend": "dshow"}, "backend"),
        ({"device": "video0"}, "device"),
        ({"fourcc": "jpeg!"}, "fourcc"),
        ({"exposure": 3}, "exposure"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_opened(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make(**wrong)  # type: ignore[arg-type]  # each key goes to its own argument
    assert error.value.error_id == "profile-invalid"
