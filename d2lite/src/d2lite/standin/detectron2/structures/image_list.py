"""Images of different sizes in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class ImageList:
    """A padded batch that remembers the size of each image.

    Attributes:
        tensor: (N, ..., H, W); every image lies at the top left.
        image_sizes: the (height, width) of each image without its padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: Sequence[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = [(int(height), int(width)) for height, width in image_sizes]

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """One image, (..., h, w), without its padding."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args, **kwargs) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(tensors: Sequence[Tensor], size_divisibility: int = 0, pad_value: float = 0.0) -> ImageList:
        """Pad images at the right and the bottom to their common maximum, and stack them.

        Args:
            tensors: at least one tensor (..., h, w); all but the last two dimensions are equal.
            size_divisibility: when more than 1, height and width are rounded up to a multiple of it.
            pad_value: what the padding is filled with.
        """
        assert len(tensors) > 0, "ImageList.from_tensors needs at least one image"
        assert isinstance(tensors, (list, tuple)), "ImageList.from_tensors takes a list of tensors"
        leading = tensors[0].shape[:-2]
        assert all(t.shape[:-2] == leading for t in tensors), (
            f"images to be stacked may differ in height and width only, got {[tuple(t.shape) for t in tensors]}"
        )
        sizes = [(t.shape[-2], t.shape[-1]) for t in tensors]
        height, width = (max(side) for side in zip(*sizes, strict=True))
        if size_divisibility > 1:
            height, width = (-(-side // size_divisibility) * size_divisibility for side in (height, width))
        padded = [F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=pad_value) for t in tensors]
        return ImageList(torch.stack(padded), sizes)
