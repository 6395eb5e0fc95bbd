"""Cameras by three ways: V4L2 and Jetson's GStreamer through OpenCV, libcamera through picamera2. All give BGR.

A capture is used from one thread. picamera2 and GStreamer were never run on a board: their calls are those of the
sources named beside them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host, need

Picture = NDArray[np.uint8]


class Capture(ABC):
    """A camera that is open. fps: pictures per second as the camera says, 0 where it does not."""

    fps: float = 0.0

    @abstractmethod
    def grab(self) -> bool:
        """Wait for the next picture; False: there was none.

        Raises:
            OSError: the camera is gone.
        """

    @abstractmethod
    def picture(self) -> Picture:
        """(height, width, 3) BGR of the picture that was grabbed.

        Raises:
            OSError: it cannot be had.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the camera."""


class OpenCvCapture(Capture):
    """A `cv2.VideoCapture`, of a V4L2 device or a GStreamer pipeline."""

    def __init__(self, cv2: Any, capture: Any) -> None:
        self._cv2, self._capture = cv2, capture
        self.fps = max(0.0, float(capture.get(cv2.CAP_PROP_FPS)))

    def grab(self) -> bool:
        """See `Capture`."""
        try:
            return bool(self._capture.grab())
        except self._cv2.error as error:
            raise OSError(str(error)) from error

    def picture(self) -> Picture:
        """See `Capture`."""
        try:
            there, picture = self._capture.retrieve()
        except self._cv2.error as error:
            raise OSError(str(error)) from error
        if not there or picture is None:
            raise OSError("a picture could not be decoded")
        if picture.ndim == 2:
            picture = self._cv2.cvtColor(picture, self._cv2.COLOR_GRAY2BGR)
        result: Picture = picture
        return result

    def close(self) -> None:
        """See `Capture`."""
        self._capture.release()


class PiCamera(Capture):
    """libcamera through picamera2. Never run on a board.

    Its format "RGB888" is [B, G, R] in memory (picamera2 issues 191 and 848: the names are libcamera's).
    """

    def __init__(self, camera: Any, width: int, height: int, fps: float) -> None:
        self._camera = camera
        self._picture: Picture | None = None
        main = {"format": "RGB888", "size": (width, height)}
        camera.configure(camera.create_video_configuration(main=main, controls={"FrameRate": fps}))
        camera.start()
        self.fps = fps

    def grab(self) -> bool:
        """See `Capture`."""
        try:
            self._picture = self._camera.capture_array("main")
        except RuntimeError as error:
            raise OSError(str(error)) from error
        return self._picture is not None

    def picture(self) -> Picture:
        """See `Capture`."""
        if self._picture is None:
            raise OSError("nothing was grabbed")
        return self._picture

    def close(self) -> None:
        """See `Capture`."""
        self._camera.stop()
        self._camera.close()


def open_v4l2(cv2: Any, device: int | str, host: Host, *, width: int, height: int, fps: float, fourcc: str) -> Capture:
    """A camera with a /dev/video node.

    Raises:
        HardwareError: `sensor-missing`: no such node, no right to it, or another program has it.
    """
    node = host.path(f"/dev/video{device}" if isinstance(device, int) else device)
    if not node.exists():
        raise HardwareError("sensor-missing", f"there is no {node}", hint="`blossom-edge sensors find` lists cameras")
    number = re.fullmatch(r"/dev/video(\d+)", str(node.resolve()))  # a link of /dev/v4l/by-id leads there
    capture = cv2.VideoCapture(int(number[1]) if number else str(node), cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise HardwareError(
            "sensor-missing",
            f"{node} cannot be opened as a camera",
            hint="does another program use it? is this user in the group video?",
        )
    if fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*fourcc))
    for setting, value in ((cv2.CAP_PROP_FRAME_WIDTH, width), (cv2.CAP_PROP_FRAME_HEIGHT, height)):
        capture.set(setting, value)
    capture.set(cv2.CAP_PROP_FPS, fps)
    return OpenCvCapture(cv2, capture)


def jetson_pipeline(sensor: int, *, width: int, height: int, fps: float) -> str:
    """The pipeline of a CSI camera on a Jetson, as NVIDIA's samples and many others write it. Never run on a board."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM), width={width}, height={height}, format=NV12, framerate={round(fps)}/1 ! "
        f"nvvidconv ! video/x-raw, width={width}, height={height}, format=BGRx ! "
        "videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1"
    )


def open_gstreamer(cv2: Any, pipeline: str) -> Capture:
    """What a GStreamer pipeline that ends in an appsink of BGR pictures delivers.

    Raises:
        ConfigError: `package-missing`: this OpenCV was built without GStreamer.
        HardwareError: `sensor-missing`: the pipeline does not start.
    """
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise ConfigError(
            "package-missing",
            "this OpenCV was built without GStreamer",
            hint="JetPack's OpenCV has it: pip uninstall opencv-python-headless, and --system-site-packages",
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        capture.release()
        raise HardwareError(
            "sensor-missing", f"the pipeline does not start: {pipeline}", hint="try it with gst-launch-1.0"
        )
    return OpenCvCapture(cv2, capture)


def open_picamera(number: int, *, width: int, height: int, fps: float) -> Capture:
    """A CSI camera on a Raspberry Pi.

    Raises:
        ConfigError: `package-missing`: picamera2 comes with the system, not from pip.
        HardwareError: `sensor-missing`: there is no such camera.
    """
    try:
        picamera2 = need("picamera2", extra="camera")
    except ConfigError as error:
        hint = "apt install python3-picamera2, and a virtual environment made with --system-site-packages"
        raise ConfigError(error.error_id, str(error), hint=hint) from error
    camera: Any = None
    try:
        camera = picamera2.Picamera2(number)
        return PiCamera(camera, width, height, fps)
    except (IndexError, RuntimeError) as error:
        if camera is not None:
            camera.close()  # else it stays taken, by this very process
        raise HardwareError(
            "sensor-missing",
            f"camera {number}: {error}",
            hint="`rpicam-hello --list-cameras` shows those that are seen",
        ) from error
