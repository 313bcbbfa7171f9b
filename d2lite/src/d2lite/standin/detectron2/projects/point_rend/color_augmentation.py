"""Random changes of an image's colors, as in "SSD: Single Shot MultiBox Detector"."""

import random

import cv2
import numpy as np
from fvcore.transforms.transform import Transform

HUES = 180  # OpenCV counts the hue of a uint8 image in steps of two degrees
BYTES = np.arange(256, dtype=np.float32)  # a change of bytes is computed once for each


class ColorAugSSDTransform(Transform):
    """Changes brightness, contrast, saturation and hue of uint8 images, each with probability 1/2.

    Every image ("RGB" or "BGR") gets new draws, which come from Python's ``random``: values change by at most
    ``brightness_delta``, the hue by ``hue_delta`` steps of two degrees. Coordinates and label maps stay as they are.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ):
        super().__init__()
        assert img_format in ("RGB", "BGR"), f"Images in RGB or BGR, not {img_format!r}."
        self.to_hsv = getattr(cv2, f"COLOR_{img_format}2HSV")
        self.from_hsv = getattr(cv2, f"COLOR_HSV2{img_format}")
        self.brightness, self.hue = brightness_delta, hue_delta
        self.contrast, self.saturation = (contrast_low, contrast_high), (saturation_low, saturation_high)

    def apply_image(self, img: np.ndarray, interp=None) -> np.ndarray:
        """A new uint8 (H, W, 3); ``interp`` is not used."""
        if _coin():
            img = _mapped(img, BYTES + random.uniform(-self.brightness, self.brightness))
        # Because of rounding to 8 bits, contrast and colors in another order give another image.
        steps = [self._change_contrast, self._change_colors]
        for change in steps if _coin() else reversed(steps):
            img = change(img)
        return np.ascontiguousarray(img)

    def _change_contrast(self, img: np.ndarray) -> np.ndarray:
        return _mapped(img, BYTES * random.uniform(*self.contrast)) if _coin() else img

    def _change_colors(self, img: np.ndarray) -> np.ndarray:
        if _coin():
            hsv = cv2.cvtColor(img, self.to_hsv)
            hsv[..., 1] = _mapped(hsv[..., 1], BYTES * random.uniform(*self.saturation))
            img = cv2.cvtColor(hsv, self.from_hsv)
        if _coin():
            hsv = cv2.cvtColor(img, self.to_hsv)
            hsv[..., 0] = _mapped(hsv[..., 0], (BYTES + random.randint(-self.hue, self.hue)) % HUES)
            img = cv2.cvtColor(hsv, self.from_hsv)
        return img

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """What is given."""
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """What is given."""
        return coords


def _coin() -> bool:
    return bool(random.randrange(2))


def _mapped(values: np.ndarray, results: np.ndarray) -> np.ndarray:
    """The result for each byte, looked up among 256 numbers, which are cut off at 0 and 255 and rounded down."""
    return cv2.LUT(values, np.clip(results, 0, 255).astype(np.uint8))
