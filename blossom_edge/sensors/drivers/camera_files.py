"""Pictures of a folder, or of a video file, as a camera gives them. Knows no clock: who calls it paces it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.drivers.camera_capture import Picture
from blossom_edge.sensors.drivers.recorded_files import class_of, recorded_files

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff")


class PictureFiles:
    """Images by the name of the file, or the frames of one video. fps: of the video, 0 for images.

    Raises:
        ConfigError: `replay-invalid`: nothing there, or no video that OpenCV can read.
    """

    def __init__(self, cv2: Any, path: str, *, loop: bool) -> None:
        self._cv2, self._loop = cv2, loop
        self._files = recorded_files(path, IMAGE_ENDINGS, "images")
        self._video: Any = None
        self._next = 0
        self.fps = 0.0
        if self._files[0].suffix.lower() not in IMAGE_ENDINGS:
            self._video = self._open_video()
            self.fps = float(self._video.get(cv2.CAP_PROP_FPS))

    def picture(self, number: int) -> tuple[Picture, str] | None:
        """Picture `number`, BGR, and its class, the name of its folder; None: after the end. Numbers only rise.

        Raises:
            OSError: the file cannot be read.
        """
        if self._video is None:
            return self._image(number)
        while self._next <= number:
            if not self._video.grab():
                if not self._loop or not self._next:
                    return None
                self._video.release()
                self._video = self._open_video()
                if not self._video.grab():
                    return None
            self._next += 1
        there, picture = self._video.retrieve()
        if not there:
            raise OSError(f"{self._files[0]}: frame {number} cannot be decoded")
        return picture, class_of(self._files[0])

    def close(self) -> None:
        """Close the video."""
        if self._video is not None:
            self._video.release()

    def _image(self, number: int) -> tuple[Picture, str] | None:
        if number >= len(self._files) and not self._loop:
            return None
        file = self._files[number % len(self._files)]
        picture = self._cv2.imread(str(file), self._cv2.IMREAD_COLOR)
        if picture is None:
            raise OSError(f"{file} is no image that OpenCV can read")
        return picture, class_of(file)

    def _open_video(self) -> Any:
        file: Path = self._files[0]
        video = self._cv2.VideoCapture(str(file))
        if not video.isOpened():
            video.release()
            raise ConfigError("replay-invalid", f"{file}: no video that OpenCV can read", hint="try .avi or .mp4")
        return video
