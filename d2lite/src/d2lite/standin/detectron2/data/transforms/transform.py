"""Deterministic operations that fvcore does not have."""

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import Transform
from PIL import Image

__all__ = ["ResizeTransform"]

_NEAREST = Image.Resampling.NEAREST
_TORCH_MODES = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class ResizeTransform(Transform):
    """Resize from (h, w) to (new_h, new_w) pixels."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        """
        Args:
            h, w: size that the images have.
            new_h, new_w: size that they get.
            interp: one of PIL's resampling methods, for images; None is bilinear. Segmentations use the nearest pixel.
        """
        super().__init__()
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image.

        uint8 goes through PIL, which averages over the source area when it shrinks; other dtypes go through
        ``torch.nn.functional.interpolate``, which does not.

        Args:
            img: (h, w), (h, w, c) or (h, w, c, n).
            interp: replaces the method given at construction.

        Returns:
            An array of the same dtype, (new_h, new_w) and the same further dimensions.
        """
        assert img.shape[:2] == (self.h, self.w), f"An image of size {(self.h, self.w)} was expected, not {img.shape}."
        assert img.ndim <= 4, f"An image has at most 4 dimensions, not {img.ndim}."
        interp = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            return self._resize_uint8(img, interp)

        mode = _TORCH_MODES.get(interp)
        if mode is None:
            raise ValueError(f"Only uint8 images can be resized with PIL's method {interp}, not {img.dtype} ones.")
        # Torch interpolates floating point only; doubles carry labels of every integer type in use exactly.
        as_float = mode == "nearest" and not np.issubdtype(img.dtype, np.floating)
        array = np.ascontiguousarray(img, dtype=np.float64 if as_float else None)  # torch refuses negative strides
        batch = torch.from_numpy(array).reshape(self.h, self.w, -1).permute(2, 0, 1)[None]
        batch = F.interpolate(
            batch, (self.new_h, self.new_w), mode=mode, align_corners=None if mode == "nearest" else False
        )
        resized = batch[0].permute(1, 2, 0).reshape(self.new_h, self.new_w, *img.shape[2:]).numpy()
        return resized.astype(img.dtype, copy=False)

    def _resize_uint8(self, img: np.ndarray, interp: int) -> np.ndarray:
        single_channel = img.ndim == 3 and img.shape[2] == 1  # PIL wants (h, w) for these
        image = Image.fromarray(img[:, :, 0] if single_channel else img)
        resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
        return resized[:, :, None] if single_channel else resized

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (n, 2) coordinates (x, y), in place."""
        coords[:, 0] = coords[:, 0] * (self.new_w * 1.0 / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h * 1.0 / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels, each taken from the nearest pixel."""
        return self.apply_image(segmentation, interp=_NEAREST)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
