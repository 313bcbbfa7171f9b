"""A window on the screen."""

import os
import sys

import cv2
import numpy as np

from PADing.errors import UserError


class Window:
    """Shows images one after another.

    UserError when there is no display, or OpenCV was built without windows. Its message ends with ``instead``.
    """

    def __init__(self, title: str, instead: str):
        self.title = title
        # Toolkits end the whole process when they find no display, so check before.
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"This machine has no display to show images on (DISPLAY is not set). {instead}")
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise UserError(
                f"The installed OpenCV cannot open windows (opencv-python-headless has none). {instead} Or replace it: "
                "pip uninstall opencv-python-headless; pip install opencv-python"
            ) from error

    def show(self, image: np.ndarray, wait: int = 0) -> bool:
        """Show (H, W, 3) uint8 RGB and wait for a key; ``wait`` is the longest time in ms, 0: no limit.

        Returns whether to go on: False after escape, q, or closing the window.
        """
        cv2.imshow(self.title, image[:, :, ::-1])
        if cv2.waitKey(wait) & 0xFF in (27, ord("q")):  # 27: escape
            return False
        return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
