"""Finds where a model would wait for a GPU, on a machine that has none.

A program waits for the GPU when it needs a number that the GPU computes: ``item()``, ``tolist()``, a tensor as a
condition or a Python number, ``cpu()``, and operations whose result has a size that depends on values (``nonzero``,
boolean masks as an index, ``unique``). ``Waits`` counts these calls on a CPU, by the place in the code. Tensors that
are made of the program's own numbers, or come from ``cpu()``, need no waiting and are not counted. It sees no copies to
the GPU, and no code outside Python.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What asks for values, or for a size that values decide.
ASKS = {
    *("item", "tolist", "numpy", "cpu", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"),
    *("bincount", "histc", "equal", "allclose", "is_nonzero"),
    *("__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__", "__iter__"),
}
MAKERS = {"tensor", "as_tensor", "arange", "zeros", "ones", "full", "empty", "linspace", "rand", "randn", "randint"}
OWN = Path(__file__)
LIBRARIES = ("/torch/", "/detectron2/", "/fvcore/", "/contextlib.py", "/functools.py")


class Waits(TorchFunctionMode):
    """``with Waits() as waits: model(batch)``, then ``waits.places``: how often each place would wait.

    A place is ``folder/file.py:function (call)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, tensors = getattr(func, "__name__", ""), _tensors((args, tuple(kwargs.values())))
        own = bool(tensors) and all(map(_is_hosts, tensors))
        if tensors and not own and (call := _asks(name, args, kwargs)):
            self.places[f"{_place()} ({call})"] += 1
        result = func(*args, **kwargs)
        if name in ("cpu", "to") and tensors and result is args[0]:
            result = result.view_as(result)  # on a GPU it would be another tensor
        made = not tensors and name in MAKERS and kwargs.get("device") is None
        _mark(result, (own and name not in ("to", "cuda")) or made or name == "cpu")
        return result


def _asks(name: str, args: tuple, kwargs: dict) -> str:
    """The kind of question, "" if the call asks nothing."""
    if name == "__iter__":  # over the first dimension, whose size is known
        return ""
    if name in ("__getitem__", "__setitem__", "index_put_", "index_put"):
        # A number for all places of a mask is written without counting them.
        number = name == "__setitem__" and not (isinstance(args[2], Tensor) and args[2].dim())
        masks = [t for t in _tensors(args[1]) if t.dtype in (torch.bool, torch.uint8) and not _is_hosts(t)]
        return f"{name} with a mask" if masks and not number else ""
    if name == "repeat_interleave":
        counts = args[1] if len(args) > 1 else kwargs.get("repeats", args[0])
        return name if isinstance(counts, Tensor) and "output_size" not in kwargs else ""
    if name == "where":
        return name if len(args) + len(kwargs) == 1 else ""
    return name if name in ASKS else ""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _is_hosts(tensor: Tensor) -> bool:
    return getattr(tensor, "_of_the_host", False)


def _mark(result: Any, hosts: bool) -> None:
    for tensor in _tensors(result):
        tensor._of_the_host = hosts  # type: ignore[attr-defined]


def _place() -> str:
    """The innermost line that is neither this file's nor a library's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path != OWN and not any(library in path.as_posix() for library in LIBRARIES):
            break
        frame = frame.f_back
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_code.co_name}"
