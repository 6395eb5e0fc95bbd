"""A camera: pictures, cut to the middle and made small, from a camera or from recorded files. Never keeps a picture.

    [sensors.cam]
    shape = [96, 96]            # height, width
    channels = [                # r, g, b; or one channel for grey
      { name = "r", unit = "/", range = [0.0, 1.0] },
      { name = "g", unit = "/", range = [0.0, 1.0] },
      { name = "b", unit = "/", range = [0.0, 1.0] },
    ]

    [[sensors.cam.sources]]
    driver = "camera"
    rate_hz = 5                 # pictures per second that are used; those between are passed over
    device = "/dev/video0"      # better one of /dev/v4l/by-id/; or a number
    backend = "opencv"          # "opencv": V4L2; "picamera2": CSI on a Raspberry Pi; "gstreamer": CSI on a Jetson
    width = 640                 # of the picture that the camera takes
    height = 480
    fps = 30                    # of the camera
    fourcc = "MJPG"             # the camera's format; when missing, its own choice (opencv)
    pipeline = "..."            # instead of the one for a Jetson, to an appsink of BGR (gstreamer)

or, in place of a camera, files that are shown at the pace of the clock:

    path = "recordings"         # a video, an image, or a folder: all images in it and below, by the name of the file
    fps = 1                     # of the images; when missing, rate_hz. A video has its own
    loop = true                 # again and again; otherwise the sensor fails at the end, and is opened again later
    label = "digit"             # the name of a file's folder is its class in this task

Of a picture the largest part in its middle with the aspect of `shape` is used. Values are 0...1, row after row, r, g, b
of each pixel. The time of a picture is that of its arrival.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Driver, Found, Host, Options, Request, Samples, failed, need
from blossom_edge.sensors.drivers.camera_capture import (
    Capture,
    Picture,
    jetson_pipeline,
    open_gstreamer,
    open_picamera,
    open_v4l2,
)
from blossom_edge.sensors.drivers.camera_files import PictureFiles
from blossom_edge.sensors.drivers.camera_thread import CameraThread
from blossom_edge.sensors.drivers.cameras import find_cameras

START_S = 5.0
"""A camera has to give its first picture within this time."""
FAIL_S = 2.0
"""A camera without a picture for so long has failed."""
MOST_S = 1.0
"""No more of recorded files comes from one read, however late it is."""
DEFAULT_FPS = 30.0
PROPOSED_SHAPE = (96, 96)


class CameraOptions(Options):
    """See the module."""

    device: Annotated[int, Field(ge=0, le=255)] | Annotated[str, Field(pattern=r"^/")] = 0
    backend: Literal["opencv", "picamera2", "gstreamer"] = "opencv"
    width: Annotated[int, Field(ge=16, le=8192)] = 640
    height: Annotated[int, Field(ge=16, le=8192)] = 480
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    fourcc: Annotated[str, Field(pattern=r"^([A-Z0-9]{4})?$")] = ""
    pipeline: str = ""
    path: str = ""
    loop: bool = False
    label: str = ""


class CameraDriver(Driver):
    """See the module. `num_dropped`: pictures that nobody read in time."""

    Options = CameraOptions
    extra = "camera"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.options: CameraOptions
        self._check()
        self.units = ("/",) * len(request.channels)
        self._cv2: Any = None
        self._thread: CameraThread | None = None
        self._files: PictureFiles | None = None
        self._shown: tuple[int, NDArray[np.float64], str] | None = None

    @property
    def num_dropped(self) -> int:
        """Pictures that nobody read within some seconds, since `open`."""
        return self._thread.num_dropped if self._thread is not None else 0

    def open(self) -> None:
        """Wait for the first picture, or begin to show the files.

        Raises:
            HardwareError: `sensor-missing`: no such camera, another program has it, no picture within 5 s.
            ConfigError: `package-missing`; `replay-invalid`: `path` is neither an image nor a video.
        """
        self.close()
        self._cv2 = need("cv2", extra=self.extra)
        clock, wanted_hz = self.request.host.clock, self.request.rate_hz
        if self.options.path:
            self._files = PictureFiles(self._cv2, self.options.path, loop=self.options.loop)
            self._fps = self._files.fps or self.options.fps or wanted_hz
            self._started, self._num_shown, self._shown = clock(), 0, None
            return
        capture = self._open_camera(self._cv2)
        self.rate_hz = min(wanted_hz, capture.fps) if capture.fps else wanted_hz
        self._thread = CameraThread(
            capture, self._values, rate_hz=self.rate_hz, clock=clock, name=f"camera {self.request.sensor}"
        )
        try:
            self._thread.wait_for_first(START_S)
        except OSError as error:
            self.close()
            raise HardwareError(
                "sensor-missing", f"{self.request.sensor}: {error}", hint="try another fourcc, width or height"
            ) from error

    def read(self, timeout_s: float) -> Samples:
        """The pictures that have come.

        Raises:
            HardwareError: `sensor-failed`: no picture for 2 s, an unreadable file, or the end of the files.
        """
        try:
            if self._files is not None:
                return self._show(self._files, timeout_s)
            if self._thread is None:
                raise OSError("it is closed")
            shots = self._thread.read(timeout_s, fail_s=FAIL_S)
        except OSError as error:
            raise failed(self.request.sensor, error) from error
        if not shots:
            return Samples.nothing(self.request.width)
        return Samples(np.array([when for when, _ in shots]), np.stack([values for _, values in shots]))

    def close(self) -> None:
        """Let go of the camera."""
        thread, self._thread = self._thread, None
        files, self._files = self._files, None
        if thread is not None:
            thread.close()
        if files is not None:
            files.close()

    @classmethod
    def find(cls, host: Host) -> Iterable[Found]:
        """Cameras that the kernel knows; none is opened."""
        channels = tuple((name, "/", 0.0, 1.0) for name in "rgb")
        for camera in find_cameras(host):
            options = {"device": camera.device, "backend": camera.backend}
            note = "" if camera.backend == "opencv" else "never run on a board"
            yield Found("camera", f"camera {camera.name}", "cam", 5.0, options, channels, note, PROPOSED_SHAPE)

    def _check(self) -> None:
        request, what = self.request, ""
        if len(request.shape) != 2 or len(request.channels) not in (1, 3):
            found = f"{len(request.channels)} channels of shape {list(request.shape)}"
            what = f"found {found}, expected 1 or 3 of shape [height, width]"
        elif self.options.label and not self.options.path:
            what = "label: only recorded files have one"
        elif not isinstance(self.options.device, int) and self.options.backend != "opencv":
            what = f"device: found {self.options.device}, expected a number for {self.options.backend}"
        if what:
            raise ConfigError(
                "profile-invalid", f"sensor {request.sensor}: {what}", hint="see the source of driver 'camera'"
            )
        first = [channel.name[0] for channel in request.channels]
        self._order = ["rgb".index(letter) for letter in first] if sorted(first) == list("bgr") else [0, 1, 2]

    def _open_camera(self, cv2: Any) -> Capture:
        options = self.options
        width, height, fps = options.width, options.height, options.fps or DEFAULT_FPS
        number = options.device if isinstance(options.device, int) else 0
        if options.backend == "picamera2":
            return open_picamera(number, width=width, height=height, fps=fps)
        if options.backend == "gstreamer":
            pipeline = options.pipeline or jetson_pipeline(number, width=width, height=height, fps=fps)
            return open_gstreamer(cv2, pipeline)
        return open_v4l2(
            cv2, options.device, self.request.host, width=width, height=height, fps=fps, fourcc=options.fourcc
        )

    def _values(self, picture: Picture) -> NDArray[np.float64]:
        """(width of the request,) of 0...1."""
        cv2, (height, width) = self._cv2, self.request.shape
        part = centre(picture, height, width)
        shrinks = part.shape[0] >= height and part.shape[1] >= width
        small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if len(self.request.channels) == 1:
            small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        else:
            small = small[:, :, ::-1][:, :, self._order]
        result: NDArray[np.float64] = small.reshape(-1).astype(np.float64) / 255.0
        return result

    def _show(self, files: PictureFiles, timeout_s: float) -> Samples:
        clock, rate_hz = self.request.host.clock, self.rate_hz
        end = clock() + timeout_s
        due = self._started + self._num_shown / rate_hz
        self._pause(min(due, end) - clock())
        times: list[float] = []
        rows: list[NDArray[np.float64]] = []
        names: list[str] = []
        while due <= clock() and len(rows) < max(1.0, MOST_S * rate_hz):
            number = int(self._num_shown * self._fps / rate_hz + 1e-6)
            if self._shown is None or self._shown[0] != number:
                try:
                    found = files.picture(number)
                    if found is None:
                        raise OSError(f"{self.options.path} is at its end, and loop is false")
                except OSError:
                    if rows:  # first what came before; the next call meets the error again
                        break
                    raise
                self._shown = number, self._values(found[0]), found[1]
            times.append(due)
            rows.append(self._shown[1])
            names.append(self._shown[2])
            self._num_shown += 1
            due = self._started + self._num_shown / rate_hz
        if not rows:
            return Samples.nothing(self.request.width)
        labels = {self.options.label: np.array(names)} if self.options.label else {}
        return Samples(np.array(times), np.stack(rows), labels)

    @staticmethod
    def _pause(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


def centre(picture: Picture, height: int, width: int) -> Picture:
    """The largest part in the middle of a picture whose aspect is that of height and width."""
    rows, columns = picture.shape[:2]
    if columns * height > rows * width:
        keep = max(1, round(rows * width / height))
        left = (columns - keep) // 2
        return picture[:, left : left + keep]
    keep = max(1, round(columns * height / width))
    top = (rows - keep) // 2
    return picture[top : top + keep]
