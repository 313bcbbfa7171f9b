"""From the size of the network's input back to the size of the image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from d2lite.omitted import omitted_names


def sem_seg_postprocess(result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int) -> Tensor:
    """Cut the padding off score maps and resize them bilinearly.

    Args:
        result: (C, H, W), float.
        img_size: (height, width) of the part that is not padding.
        output_height, output_width: wanted size, in pixels.

    Returns:
        (C, output_height, output_width).
    """
    height, width = img_size
    cropped = result[None, :, :height, :width]
    return F.interpolate(cropped, size=(output_height, output_width), mode="bilinear", align_corners=False)[0]


__getattr__ = omitted_names(__name__, ["detector_postprocess"])
