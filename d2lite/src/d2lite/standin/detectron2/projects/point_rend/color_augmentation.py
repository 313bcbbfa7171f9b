"""The colour augmentation of the Single Shot MultiBox Detector."""

from __future__ import annotations

import random

import cv2
import numpy as np
from fvcore.transforms.transform import Transform


class ColorAugSSDTransform(Transform):
    """Change brightness, contrast, saturation and hue, each with probability 1/2.

    The draws come from Python's ``random`` and are made anew by each ``apply_image``. Coordinates and segmentations
    stay as they are.

    Args:
        img_format: "RGB" or "BGR", the order of the channels of the images.
        brightness_delta: what is added to all values, at most, in either direction.
        contrast_low, contrast_high: range of the factor of all values.
        saturation_low, saturation_high: range of the factor of the saturation.
        hue_delta: largest turn of the hue, in OpenCV's steps of 2 degrees.
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
        assert img_format in ("RGB", "BGR"), f"img_format must be RGB or BGR, got {img_format!r}"
        self.img_format = img_format
        self.brightness_delta = brightness_delta
        self.contrast = contrast_low, contrast_high
        self.saturation = saturation_low, saturation_high
        self.hue_delta = hue_delta

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_image(self, img: np.ndarray, interp=None) -> np.ndarray:
        """uint8 (H, W, 3) to the same; ``interp`` has no meaning here."""
        img = self._brightness(img)
        # Contrast commutes with neither saturation nor hue in 8 bits, so it comes first or last by a coin.
        steps = [self._saturation, self._hue]
        steps.insert(0 if _coin() else 2, self._contrast)
        for step in steps:
            img = step(img)
        return np.ascontiguousarray(img)

    def _brightness(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        return _to_uint8(img.astype(np.float32) + random.uniform(-self.brightness_delta, self.brightness_delta))

    def _contrast(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        return _to_uint8(img.astype(np.float32) * random.uniform(*self.contrast))

    def _saturation(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        hsv = self._to_hsv(img)
        hsv[..., 1] = _to_uint8(hsv[..., 1].astype(np.float32) * random.uniform(*self.saturation))
        return self._from_hsv(hsv)

    def _hue(self, img: np.ndarray) -> np.ndarray:
        if not _coin():
            return img
        hsv = self._to_hsv(img)
        # OpenCV's 8-bit hue has 180 steps and closes to a circle.
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + random.randint(-self.hue_delta, self.hue_delta)) % 180
        return self._from_hsv(hsv)

    def _to_hsv(self, img: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(img, cv2.COLOR_RGB2HSV if self.img_format == "RGB" else cv2.COLOR_BGR2HSV)

    def _from_hsv(self, hsv: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB if self.img_format == "RGB" else cv2.COLOR_HSV2BGR)


def _coin() -> bool:
    return random.randrange(2) == 1


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)
