"""Resizes images for inference, by the lengths of their sides."""

import numpy as np
from detectron2.data import transforms as T


def resized(image: np.ndarray, shorter: int, longest: int) -> np.ndarray:
    """An image (H, W, C) with a shorter side of ``shorter`` pixels, or less if the longer one would exceed ``longest``.

    Pixels are those of Detectron2's ``ResizeShortestEdge``. No side becomes 0 pixels, as that of a very narrow image
    would. ``shorter`` 0: the image as it is.
    """
    if not shorter:
        return image
    height, width = image.shape[:2]
    sides = T.ResizeShortestEdge.get_output_shape(height, width, shorter, longest)
    return T.ResizeTransform(height, width, *(max(1, side) for side in sides)).apply_image(image)
