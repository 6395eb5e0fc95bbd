"""The camera driver on a stand-in for a camera: rate, a camera that stands still, goes and comes, what is found."""

from __future__ import annotations

import sys
import threading
import time as real_time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.camera import CameraDriver
from blossom_edge.sensors.drivers.camera_capture import jetson_pipeline
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.testing.conformance import Subject, run_checks
from firmware_profiles.schema import ProfileSensor
from tests.hil.camera_bench import RGB, Time, make
from tests.live import until

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")


class FakeVideo:
    """Stands in for cv2.VideoCapture: 30 pictures a second, as blue as their number, until it is told otherwise."""

    def __init__(self, source: object, api: int) -> None:
        self.source, self.api = source, api
        self.settings: dict[int, float] = {}
        self.fps, self.opens, self.works, self.stands = 30.0, True, True, threading.Event()
        self.num, self.num_released, self.held = 0, 0, False
        self.stands.set()
        self.begun = real_time.monotonic()

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        return self.opens

    def get(self, setting: int) -> float:
        return self.fps if setting == cv2.CAP_PROP_FPS else self.settings.get(setting, 0.0)

    def set(self, setting: int, value: float) -> bool:
        self.settings[setting] = value
        return True

    def grab(self) -> bool:
        self.held = not self.stands.is_set()
        self.stands.wait(20)
        if not self.works:
            return False
        self.num += 1
        real_time.sleep(max(0.0, self.begun + self.num / self.fps - real_time.monotonic()))
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        return True, np.full((48, 64, 3), (self.num % 250, 0, 0), dtype=np.uint8)

    def release(self) -> None:
        self.num_released += 1


@pytest.fixture
def videos(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeVideo]]:
    made: list[FakeVideo] = []

    def make_video(source: object, api: int) -> FakeVideo:
        made.append(FakeVideo(source, api))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", make_video)
    yield made
    for video in made:
        video.stands.set()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "video0").touch()
    return tmp_path


def live(root: Path, **options: object) -> LiveSensor:
    source: dict[str, Any] = {"driver": "camera", "rate_hz": 10.0, **options}
    channels = [channel.model_dump() for channel in RGB]
    settings = ProfileSensor.model_validate({"shape": [8, 8], "channels": channels, "sources": [source]})
    return LiveSensor("cam", settings, needed=("r", "g", "b"), host=Host(root))


def watch(sensor: LiveSensor, done: Callable[[int], bool]) -> Reading:
    parts: list[Reading] = []
    until(lambda: bool(parts.extend(sensor.read(0.0)) or done(sum(map(len, parts)))), "pictures", ())
    return Reading(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


def test_of_a_camera_of_30_pictures_a_second_every_third_is_used_at_10_hz(root: Path, videos: list[FakeVideo]) -> None:
    sensor = live(root, device="/dev/video0", fourcc="MJPG", width=320, height=240)
    sensor.open()
    try:
        reading = watch(sensor, lambda count: count >= 8)
    finally:
        sensor.close()
    numbers = np.round(reading.values[:, 2] * 255)
    assert np.median(np.diff(numbers)) == 3
    assert (reading.values[:, :2] == 0).all()
    assert (np.diff(reading.times) > 0).all()
    assert np.median(np.diff(reading.times)) == pytest.approx(0.1, rel=0.2)
    (video,) = videos
    assert video.num_released == 1
    assert (video.source, video.api) == (str(root / "dev" / "video0"), cv2.CAP_V4L2)
    assert video.settings == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter_fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 320,
        cv2.CAP_PROP_FRAME_HEIGHT: 240,
        cv2.CAP_PROP_FPS: 30,
    }


def test_a_camera_that_is_slower_than_asked_says_its_own_rate(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda source, api: slow)
    slow = FakeVideo(0, 0)
    slow.fps = 8.0
    sensor = live(root)
    sensor.open()
    sensor.close()
    assert sensor.rate_hz == 8.0


def test_grabs_that_fail_are_a_failed_sensor_after_two_seconds(root: Path, videos: list[FakeVideo]) -> None:
    time = Time()
    driver = make(time, root=root)
    driver.open()
    assert len(driver.read(1.0)) == 1
    videos[0].works = False
    until(lambda: not len(driver.read(0.0)), "the last pictures", ())
    time.now += 1.9
    assert len(driver.read(0.0)) == 0
    time.now += 0.2
    with pytest.raises(HardwareError, match="no picture came for 2 s") as error:
        driver.read(0.0)
    assert error.value.error_id == "sensor-failed"
    driver.close()
    driver.open()  # plugged in again
    assert len(driver.read(1.0)) == 1
    driver.close()


def test_a_grab_that_does_not_return_holds_nobody_up(
    root: Path, videos: list[FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blossom_edge.sensors.drivers.camera_thread.CLOSE_S", 0.1)
    driver = make(root=root)
    driver.open()
    videos[0].stands.clear()
    until(lambda: videos[0].held, "the grab stands still", ())
    started = real_time.monotonic()
    driver.read(0.01)
    driver.close()
    assert real_time.monotonic() - started < 5
    assert videos[0].num_released == 0
    videos[0].stands.set()
    until(lambda: videos[0].num_released == 1, "the camera is closed by its thread", ())


def test_a_camera_without_a_first_picture_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch, videos: list[FakeVideo]
) -> None:
    monkeypatch.setattr("blossom_edge.sensors.drivers.camera.START_S", 0.1)
    monkeypatch.setattr(FakeVideo, "grab", lambda self: False)
    with pytest.raises(HardwareError, match="no picture came within") as error:
        make(root=root).open()
    assert error.value.error_id == "sensor-missing"
    assert videos[0].num_released == 1


def test_a_node_that_is_not_there_or_is_taken_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch, videos: list[FakeVideo]
) -> None:
    with pytest.raises(HardwareError, match=r"there is no .*video7"):
        make(root=root, device=7).open()
    assert videos == []
    monkeypatch.setattr(FakeVideo, "isOpened", lambda self: False)
    with pytest.raises(HardwareError, match="cannot be opened") as error:
        make(root=root).open()
    assert error.value.error_id == "sensor-missing"
    assert videos[0].num_released == 1


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError) as error:
        make().open()
    assert (error.value.error_id, error.value.hint) == ("package-missing", "pip install 'blossom-edge[camera]'")


def test_picamera2_comes_with_the_system_and_gstreamer_with_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(ConfigError) as error:
        make(backend="picamera2").open()
    assert error.value.error_id == "package-missing"
    assert "apt install python3-picamera2" in error.value.hint
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   NO\n")
    with pytest.raises(ConfigError, match="without GStreamer") as error:
        make(backend="gstreamer").open()
    assert error.value.error_id == "package-missing"


def test_the_pipeline_of_a_jetson_is_given_to_gstreamer(
    videos: list[FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   YES (1.20.3)\n")
    driver = make(backend="gstreamer", device=1)
    driver.open()
    assert len(driver.read(1.0)) == 1
    driver.close()
    assert (videos[0].source, videos[0].api) == (jetson_pipeline(1, width=640, height=480, fps=30), cv2.CAP_GSTREAMER)
    assert "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=640, height=480" in str(videos[0].source)


def test_picamera2_gives_its_pictures_through_its_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    class Picamera2:
        def __init__(self, number: int) -> None:
            if number > 0:
                raise IndexError("list index out of range")

        def create_video_configuration(self, **how: object) -> object:
            return how

        def configure(self, how: dict[str, dict[str, object]]) -> None:
            if how["main"]["size"] == (16, 16):
                raise RuntimeError("no such mode")
            done.append(how)

        def start(self) -> None:
            done.append("start")

        def capture_array(self, _stream: str) -> NDArray[np.uint8]:
            real_time.sleep(0.01)
            return np.full((48, 64, 3), (30, 20, 10), dtype=np.uint8)  # [B, G, R], which it calls RGB888

        def stop(self) -> None:
            done.append("stop")

        def close(self) -> None:
            done.append("close")

    module = type("module", (), {"Picamera2": Picamera2})
    monkeypatch.setitem(sys.modules, "picamera2", module)
    driver = make(backend="picamera2", fps=20)
    driver.open()
    assert driver.read(1.0).values[0][:3] * 255 == pytest.approx([10, 20, 30])
    driver.close()
    main = {"format": "RGB888", "size": (640, 480)}
    assert done == [{"main": main, "controls": {"FrameRate": 20.0}}, "start", "stop", "close"]
    with pytest.raises(HardwareError, match="camera 1"):
        make(backend="picamera2", device=1).open()
    done.clear()
    with pytest.raises(HardwareError, match="no such mode"):
        make(backend="picamera2", width=16, height=16).open()
    assert done == ["close"]  # else it would stay taken


def test_a_picture_that_opencv_cannot_work_on_is_a_failed_camera_that_says_so(
    root: Path, videos: list[FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cv2.error("resize: bad size")

    monkeypatch.setattr(cv2, "resize", fail)
    with pytest.raises(HardwareError, match="resize: bad size"):
        live(root).open()
    until(lambda: videos[0].num_released == 1, "the camera to be let go", ())


def test_cameras_are_found_without_metadata_nodes_and_codecs(tmp_path: Path) -> None:
    nodes = [
        (0, "HD Webcam: HD Webcam", 0),
        (1, "HD Webcam: HD Webcam", 1),  # metadata
        (2, "vi-output, imx219 9-0010", 0),
        (3, "rp1-cfe-csi2_ch0", 0),
        (4, "rp1-cfe-embedded", 1),
        (10, "bcm2835-codec-decode", 0),
        (13, "bcm2835-isp-output0", 0),
        (20, "USB Camera", 0),
    ]
    (tmp_path / "dev" / "v4l" / "by-id").mkdir(parents=True)
    for number, name, index in nodes:
        folder = tmp_path / "sys" / "class" / "video4linux" / f"video{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "index").write_text(f"{index}\n")
        (tmp_path / "dev" / f"video{number}").touch()
    (tmp_path / "dev" / "v4l" / "by-id" / "usb-ACME_HD-video-index0").symlink_to("../../video0")
    found = list(CameraDriver.find(Host(tmp_path)))
    assert [(f.what, f.options["device"], f.options["backend"]) for f in found] == [
        ("camera HD Webcam: HD Webcam", "/dev/v4l/by-id/usb-ACME_HD-video-index0", "opencv"),
        ("camera vi-output, imx219 9-0010", 0, "gstreamer"),
        ("camera rp1-cfe-csi2_ch0", 0, "picamera2"),
        ("camera USB Camera", "/dev/video20", "opencv"),
    ]
    for line in found:
        make(**line.options)  # type: ignore[arg-type]  # the proposed line is a valid one
    assert list(CameraDriver.find(Host(tmp_path / "empty"))) == []


def test_a_camera_meets_the_checks_that_every_driver_meets_unplugged_too(
    root: Path, videos: list[FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"driver": "camera", "rate_hz": 10.0}
    channels = [channel.model_dump() for channel in RGB]
    settings = ProfileSensor.model_validate({"shape": [8, 8], "channels": channels, "sources": [source]})
    monkeypatch.setattr("blossom_edge.sensors.drivers.camera.FAIL_S", 0.3)

    def unplug() -> None:
        videos[-1].works = False
        (root / "dev" / "video0").unlink()

    subject = Subject("cam", settings, Host(root), unplug, (root / "dev" / "video0").touch, seconds=1.0)
    verdicts = list(run_checks(subject))
    assert [(v.check, v.detail) for v in verdicts if v.status != "ok"] == []
