"""Reads and writes videos frame by frame."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from PADing.errors import UserError
from PADing.files import replacing

# File name suffix -> codec; OpenCV's own builds have these codecs.
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".avi": "MJPG"}


class VideoSource:
    """Frames of a video file, or of a camera (its number); UserError if it cannot be opened.

    ``rate`` is in frames per second; ``length`` is the number of frames, None if unknown (always for a camera).
    """

    def __init__(self, source: str | os.PathLike | int):
        self.source = source
        if isinstance(source, int):
            self.capture = cv2.VideoCapture(source)
            problem = f"Camera {source} cannot be opened. Is it plugged in, and not in use by another program?"
        else:
            if not os.path.isfile(source):
                raise UserError(f"Video {source} {'is no file' if os.path.exists(source) else 'does not exist'}.")
            self.capture = cv2.VideoCapture(os.fspath(source))
            problem = f"Video {source} cannot be opened: damaged, or in a format that OpenCV does not know."
        if not self.capture.isOpened():
            raise UserError(problem)
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else 30.0  # damaged files may have infinite or negative rates
        count = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = count if count > 0 and not isinstance(source, int) else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB, until the end of the file. UserError if there is no frame."""
        number = 0
        try:
            while (answer := self.capture.read())[0]:
                number += 1
                yield cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB)
        finally:
            self.capture.release()
        if not number:
            raise UserError(f"Video {self.source} has no frame that can be read.")


class VideoWriter:
    """Writes frames of one size to a file. Use it in a ``with`` statement: the file appears at its end.

    ``path`` ends in .mp4, .mkv, .mov or .avi; UserError for other names and files that cannot be written. ``rate``:
    frames per second.
    """

    def __init__(self, path: str | os.PathLike, rate: float):
        self.path, self.rate = Path(path), rate
        if self.path.suffix.lower() not in CODECS:
            raise UserError(f"A video cannot be written to {path}: its name must end in one of {', '.join(CODECS)}.")
        self._file = ExitStack()
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        self.partial = self._file.enter_context(replacing(self.path))
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append (H, W, 3) uint8 RGB; all frames have the size of the first one."""
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(os.fspath(self.partial), codec, self.rate, size)
            if not self._writer.isOpened():
                raise UserError(f"Cannot write {self.path}: no permission, or OpenCV lacks the codec. Try .avi.")
        self._writer.write(frame[:, :, ::-1])

    def __exit__(self, kind, error, trace) -> None:
        if self._writer is not None:
            self._writer.release()
        # After Ctrl-C the frames so far make a video; after an error the file is discarded.
        if kind is KeyboardInterrupt and self._writer is not None:
            self._file.close()
        else:
            self._file.__exit__(kind, error, trace)
