"""Running statistics of batch normalisation, which each process of a job takes from its own images."""

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["share_running_statistics"]


@torch.no_grad()
def share_running_statistics(model: nn.Module) -> None:
    """Give every process the statistics of the first one, which checkpoints have; all processes call this together.

    Without it, each would evaluate its images with statistics of its own, and the results would be those of no
    checkpoint. Changes mean and variance of each batch norm in place; does nothing in a job of one process.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    if comm.get_world_size() == 1 or not buffers:
        return
    together = torch.cat([buffer.float() for buffer in buffers])  # one exchange for all
    torch.distributed.broadcast(together, src=0)
    for buffer, values in zip(buffers, together.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values)
