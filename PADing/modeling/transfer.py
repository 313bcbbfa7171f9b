"""Copies to the device that do not make the program wait for it."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, with the same numbers.

    A copy from ordinary memory to a GPU waits until the GPU has done everything that was asked of it before. So a
    tensor of the CPU first goes to page-locked memory, from where the GPU takes it when it gets there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
