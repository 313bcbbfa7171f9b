"""Resizing: the one deterministic operation that fvcore lacks."""

import numpy as np
import torch
from fvcore.transforms.transform import Transform
from PIL.Image import Resampling
from PIL.Image import fromarray as pillow_image
from torch.nn.functional import interpolate

# What PyTorch calls the methods that it shares with Pillow.
_IN_TORCH: dict[int, str] = {
    method: method.name.lower() for method in (Resampling.NEAREST, Resampling.BILINEAR, Resampling.BICUBIC)
}


class ResizeTransform(Transform):
    """From ``h`` x ``w`` to ``new_h`` x ``new_w`` pixels, by a ``PIL.Image.Resampling``, which is bilinear by default.

    Bytes are resized by Pillow, which averages over the whole source area when an image shrinks; other types by
    PyTorch, which samples points and knows floating point only. Labels always take the nearest pixel.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        super().__init__()
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize (h, w), (h, w, c) or (h, w, c, d), with ``interp`` in place of the method of this transform."""
        assert img.shape[:2] == (self.h, self.w)
        method = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            pixels = img.squeeze(2) if img.shape[2:] == (1,) else img
            resized = np.asarray(pillow_image(pixels).resize((self.new_w, self.new_h), method))
            return resized if pixels is img else resized[:, :, None]
        # All further dimensions as channels; contiguous, because torch takes no negative strides.
        channels = torch.from_numpy(np.ascontiguousarray(img).reshape(self.h, self.w, -1)).movedim(2, 0)
        corners = None if method == Resampling.NEAREST else False
        mode = _IN_TORCH[method]
        done = interpolate(channels[None], (self.new_h, self.new_w), mode=mode, align_corners=corners)
        return done[0].movedim(0, 2).reshape(self.new_h, self.new_w, *img.shape[2:]).numpy()

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels (h, w)."""
        return self.apply_image(segmentation, Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (n, 2) points, x and y, in place and in their own type."""
        for axis, ratio in enumerate((self.new_w / self.w, self.new_h / self.h)):
            coords[:, axis] = coords[:, axis] * ratio
        return coords

    def inverse(self) -> "ResizeTransform":
        """Back to the size before."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
