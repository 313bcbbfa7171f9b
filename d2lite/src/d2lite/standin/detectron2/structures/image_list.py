"""A batch of images whose sizes differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


class ImageList:
    """A padded batch ``tensor`` (N, ..., H, W); images of ``image_sizes`` (h, w) are at the top left."""

    def __init__(self, tensor: Tensor, image_sizes: Sequence[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = [(int(height), int(width)) for height, width in image_sizes]

    @staticmethod
    def from_tensors(tensors: Sequence[Tensor], size_divisibility: int = 0, pad_value: float = 0.0) -> ImageList:
        """Pad images (..., h, w) to the largest height and width, rounded up to multiples of ``size_divisibility``."""
        assert isinstance(tensors, (list, tuple)) and tensors, "ImageList.from_tensors needs a list of images."
        leading = {tuple(image.shape[:-2]) for image in tensors}
        assert len(leading) == 1, f"Images of one batch have different channels: {sorted(leading)}."
        multiple = max(size_divisibility, 1)
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        height, width = (math.ceil(max(lengths) / multiple) * multiple for lengths in zip(*sizes, strict=True))
        margins = [(0, width - w, 0, height - h) for h, w in sizes]
        frames = [pad(image, margin, value=pad_value) for image, margin in zip(tensors, margins, strict=True)]
        return ImageList(torch.stack(frames), sizes)

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """The image (..., h, w) at an index."""
        height, width = self.image_sizes[index]
        return self.tensor[index][..., :height, :width]

    @property
    def device(self) -> torch.device:
        """Of the frames."""
        return self.tensor.device

    def to(self, *args, **kwargs) -> ImageList:
        """The batch with another device or dtype, by the arguments of ``Tensor.to``."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)
