"""Samples of data-loading workers go to the training process through shared memory, of which containers have little."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info


def ready_to_send(sample: Any) -> Any:
    """``sample``, in a worker with its tensors in shared memory already; RuntimeError if there is no room.

    PyTorch would put them there in a background thread, which prints its errors and drops the sample. The training
    would then wait for it forever.
    """
    if get_worker_info() is not None:
        _share(sample)
    return sample


def _share(value: Any) -> None:
    if isinstance(value, Tensor):
        if value.device.type == "cpu":
            value.share_memory_()
    elif isinstance(value, Mapping):
        for part in value.values():
            _share(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _share(part)
    elif hasattr(value, "get_fields"):  # Instances
        _share(value.get_fields())
    elif isinstance(getattr(value, "tensor", None), Tensor):  # Boxes, BitMasks
        _share(value.tensor)
