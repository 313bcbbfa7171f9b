"""Reads named weights from files of other projects, which wrap them in different ways."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from d2lite.restricted_pickle import load_arrays
from PADing.checkpoint_files import UNREADABLE, check_file, weights_problem
from PADing.errors import UserError
from PADing.safetensors_files import is_safetensors, read_safetensors

# Entries that hold a model's weights beside a training's state: PyTorch's examples, Swin and Detectron2, Lightning,
# DeepSpeed; EMA weights of older projects are not taken, because the file has the others, too.
WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
_PREFIX = "module."  # of a model that was trained on several GPUs


def read_foreign_weights(path: str | os.PathLike, what: str = "Weights") -> dict[str, Tensor]:
    """The named weights of a file (``.pth``, ``.pt``, ``.bin``, ``.pkl``, ``.safetensors``), on the CPU.

    Args:
        path: the file.
        what: the kind of file, with which messages begin.

    Raises:
        UserError: the file does not exist, is damaged, holds no named weights, or would run code.
    """
    name = f"{what} {os.fspath(path)!r}"
    if not os.path.exists(path):
        raise UserError(f"{name} do not exist. Check the path.")
    check_file(path, name)
    try:
        content = _load(os.fspath(path))
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} cannot be read: damaged, or not weights ({reason})") from error
    weights = _unwrapped(content)
    if problem := weights_problem({"model": weights}):
        raise UserError(f"{name} cannot be used: {problem}.")
    if not weights:
        raise UserError(f"{name} cannot be used: it holds no weights.")
    if all(key.startswith(_PREFIX) for key in weights):
        weights = {key.removeprefix(_PREFIX): value for key, value in weights.items()}
    return {key: torch.as_tensor(value) for key, value in weights.items()}


def _load(path: str) -> Any:
    if is_safetensors(path):
        return read_safetensors(path)
    if path.endswith(".pkl"):
        with open(path, "rb") as file:
            return load_arrays(file, path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any) -> Any:
    for _ in range(2):  # such as {"model": {"state_dict": ...}}
        inner = [content.get(key) for key in WRAPPERS] if isinstance(content, Mapping) else []
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    if not isinstance(content, Mapping):
        return content
    # A file of weights alone may have a name of its maker, or a number, among them.
    return {key: value for key, value in content.items() if not isinstance(value, str | int | float | None)}
