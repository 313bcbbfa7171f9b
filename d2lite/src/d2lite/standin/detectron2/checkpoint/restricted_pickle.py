"""Reading ``.pkl`` weights without running code from them: arrays, tensors, numbers and containers only."""

import io
import pickle
from collections import OrderedDict

import numpy as np
import torch
from numpy._core import multiarray, numeric

__all__ = ["load_arrays"]


def _storage_from_bytes(data: bytes):
    # What a tensor in a plain pickle refers to; torch's own version of this would unpickle anything.
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}
for _type in (set, frozenset, bytearray, complex):
    for _module in ("builtins", "__builtin__"):  # Python 3 and 2
        _ADMITTED[_module, _type.__name__] = _type
for _numpy in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ADMITTED[_numpy + ".multiarray", "_reconstruct"] = multiarray._reconstruct
    _ADMITTED[_numpy + ".multiarray", "scalar"] = multiarray.scalar
    _ADMITTED[_numpy + ".numeric", "_frombuffer"] = numeric._frombuffer


def _latin1_bytes(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in the protocols of Python 2; no other codec is needed.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r} are not admitted")
    return text.encode("latin1")


_ADMITTED["_codecs", "encode"] = _latin1_bytes


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it contains a {module}.{name}") from None


def load_arrays(file, filename: str):
    """Read one pickled object from an open binary file; text of Python 2 pickles is taken as latin1.

    Args:
        file: binary file object.
        filename: for the error message.

    Raises:
        ValueError: the file is no pickle, or contains anything else than arrays, tensors, numbers, text and containers.
    """
    try:
        return _ArraysOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{filename} cannot be loaded as weights: {error}. Only arrays, tensors, numbers, text and containers of "
            "them are admitted, because other pickled objects could run code. Convert the file if you trust its source."
        ) from error
