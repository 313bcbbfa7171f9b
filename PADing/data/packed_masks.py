"""Masks travel from data-loading workers as bits: an eighth of the shared memory, and of the time to fill it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info


class PackedMasks:
    """Bool masks (n, H, W) as ``tensor``, uint8 (n, H, ceil(W / 8)); in the place of the masks in ``Instances``."""

    def __init__(self, masks: Tensor):
        self.width = masks.shape[-1]
        self.tensor = torch.from_numpy(np.packbits(masks.numpy(), axis=-1))

    def __len__(self) -> int:
        return len(self.tensor)

    def masks(self) -> Tensor:
        """The masks again."""
        return torch.from_numpy(np.unpackbits(self.tensor.numpy(), axis=-1, count=self.width).view(bool))


def packed(sample: Any) -> Any:
    """In a worker, a training sample whose ``instances`` have packed ``gt_masks``; else ``sample`` itself."""
    if get_worker_info() is None or not isinstance(sample, Mapping):
        return sample
    instances: Any = sample.get("instances")
    masks = instances.get_fields().get("gt_masks") if hasattr(instances, "get_fields") else None
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool or masks.dim() != 3 or masks.device.type != "cpu":
        return sample
    return {**sample, "instances": _replaced(instances, PackedMasks(masks))}


def unpacked(batch: list) -> list:
    """A batch of samples as their mappers made them."""
    for sample in batch:
        instances: Any = sample.get("instances") if isinstance(sample, dict) else None
        masks = instances.get_fields().get("gt_masks") if hasattr(instances, "get_fields") else None
        if isinstance(masks, PackedMasks):
            sample["instances"] = _replaced(instances, masks.masks())
    return batch


def _replaced(instances: Any, masks: Any) -> Any:
    """A copy of ``Instances`` with other masks; a mapper may keep the first one."""
    fields = {**instances.get_fields(), "gt_masks": masks}
    return type(instances)(instances.image_size, **fields)
