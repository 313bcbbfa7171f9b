"""Resizing: the one deterministic operation that fvcore lacks."""

import numpy as np
import torch
from fvcore.transforms.transform import Transform
from PIL.Image import Resampling
from PIL.Image import fromarray as pillow_image
from torch.nn.functional import interpolate

__all__ = ["ResizeTransform"]

# What PyTorch calls the methods that it shares with Pillow, and whether they mix neighbours.
_IN_TORCH = {Resampling.NEAREST: ("nearest", False), Resampling.BILINEAR: ("bilinear", True)}
_IN_TORCH[Resampling.BICUBIC] = ("bicubic", True)


class ResizeTransform(Transform):
    """From ``h`` x ``w`` to ``new_h`` x ``new_w`` pixels.

    Bytes are resized by Pillow, whose bilinear and bicubic methods average over the whole source area when an image
    shrinks. Every other type is resized by PyTorch, which samples at points half a pixel from Pillow's and knows
    floating point only: labels must be uint8, float32 or float64.

    Args:
        interp: a ``PIL.Image.Resampling`` for images; by default bilinear. Labels always take the nearest pixel.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        super().__init__()
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an array whose first two dimensions are (h, w); one or two more may follow.

        Args:
            interp: in place of the method of this transform.

        Raises:
            AssertionError: an array of another size.
            KeyError: PyTorch lacks the method.
            RuntimeError: PyTorch does not resize the type, for example int32.
        """
        assert img.shape[:2] == (self.h, self.w)
        method = self.interp if interp is None else interp
        resize = self._with_pillow if img.dtype == np.uint8 else self._with_torch
        return resize(img, method)

    def _with_pillow(self, pixels: np.ndarray, method: int) -> np.ndarray:
        flat = pixels.shape[2:] == (1,)
        resized = pillow_image(pixels.squeeze(2) if flat else pixels).resize((self.new_w, self.new_h), method)
        return np.expand_dims(resized, 2) if flat else np.asarray(resized)

    def _with_torch(self, values: np.ndarray, method: int) -> np.ndarray:
        mode, mixes = _IN_TORCH[method]
        # All further dimensions as channels; contiguous, because torch takes no negative strides.
        channels = torch.from_numpy(np.ascontiguousarray(values).reshape(self.h, self.w, -1))
        settings = {"align_corners": False} if mixes else {}
        resized = interpolate(channels.movedim(2, 0)[None], (self.new_h, self.new_w), mode=mode, **settings)
        return resized[0].movedim(0, 2).reshape(self.new_h, self.new_w, *values.shape[2:]).numpy()

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (n, 2) points, x and y, in place and in their own type."""
        for axis, ratio in enumerate((self.new_w / self.w, self.new_h / self.h)):
            coords[:, axis] = coords[:, axis] * ratio
        return coords

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
