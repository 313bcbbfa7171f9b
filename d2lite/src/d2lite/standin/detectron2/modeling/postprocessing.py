"""Resizes a network's output to the size of the image."""

from torch import Tensor
from torch.nn.functional import interpolate

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(__name__, "detector_postprocess")


def sem_seg_postprocess(result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int) -> Tensor:
    """Crop scores (C, H, W) to ``img_size`` (h, w) and resize them to the output's size, bilinearly."""
    seen = result[:, : img_size[0], : img_size[1]]
    return interpolate(seen.unsqueeze(0), (output_height, output_width), mode="bilinear").squeeze(0)
