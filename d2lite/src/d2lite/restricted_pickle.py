"""Reads pickled weights from untrusted files: only numeric arrays, tensors, numbers, text and plain containers.

A pickle is a program for a small stack machine. This machine has only the instructions that weights need. Every
function that a file can call is defined in this module. The instruction that sets an object's state (``BUILD``)
applies only to new arrays and their number types, after a check of every field of the state.
"""

import io
import pickle
from collections import OrderedDict
from math import prod

import numpy as np
import torch


def load_checkpoint(file, filename: str) -> dict:
    """Read a model collection's ``.pkl``, with weights under ``model``; ValueError without named weights."""
    content = load_arrays(file, filename)
    if not isinstance(content, dict):
        content = {"blobs": None}
    described = {"model", "__author__"} <= content.keys()
    weights = content["model"] if described else content.get("blobs", content)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{filename} does not hold named weights.")
    if described:
        return content
    # Files of Caffe2 also have the state of the optimizer.
    weights = {name: value for name, value in weights.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def load_arrays(file, filename: str):
    """Read one pickled object (text as latin1); ValueError with the ``filename`` for anything but weights."""
    try:
        return _Machine(file, encoding="latin1").load()
    except Exception as error:  # a damaged program raises many types
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{filename} cannot be loaded as weights: {reason}. Only arrays, tensors, numbers, text and containers of "
            "them are allowed, because other pickled objects could run code. If you trust its source, load it by "
            "hand and save its arrays again."
        ) from error


def _refuse(reason: str):
    raise pickle.UnpicklingError(reason)


_NDARRAY = object()  # stands for the class, which a file may pass on but not call or change


def _number_type(code: str, align=False, copy=True) -> np.dtype:
    """A new object for ``np.dtype(code)``, because numpy shares its own dtype objects."""
    dtype = np.dtype(code, False, True) if isinstance(code, str) else _refuse("it has a number type without a name")
    if dtype.kind not in "biufc":
        _refuse(f"it has an array of {dtype}, which are not numbers")
    return dtype


def _empty_array(kind, shape, code) -> np.ndarray:
    if kind is not _NDARRAY:
        _refuse("it has an array of an unknown class")
    return np.empty(0, np.uint8)  # BUILD sets its shape, type and content


def _array_of_bytes(buffer, dtype, shape, order="C") -> np.ndarray:
    flat = np.frombuffer(_content(buffer, dtype, shape), dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


def _content(raw, dtype, shape) -> bytes:
    """The bytes of an array; refused if type and shape need another number of bytes."""
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not (isinstance(raw, bytes | bytearray) and isinstance(dtype, np.dtype) and whole):
        _refuse("it has a malformed array")
    if len(raw) != prod(shape) * dtype.itemsize:
        _refuse(f"it has an array of {dtype} and shape {shape} with {len(raw)} bytes")
    return bytes(raw)


def _text_as_bytes(text: str, encoding: str) -> bytes:
    # Python 3 writes bytes in this way in the protocols of Python 2; no other codec is needed.
    return text.encode("latin1") if encoding == "latin1" else _refuse(f"it has bytes in the encoding {encoding!r}")


def _storage(content: bytes):
    # Before 2.6, weights_only=True is not safe for this format, which is that from before PyTorch 1.6.
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        _refuse(f"it has tensors, which only PyTorch 2.6 and newer reads safely; this is {torch.__version__}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> torch.Tensor:
    if not isinstance(storage, torch.UntypedStorage | torch.TypedStorage):
        _refuse("it has a tensor without storage")
    # as_strided checks that all elements are inside the storage.
    whole = torch.empty(0, dtype=storage.dtype).set_(storage)
    return whole.as_strided(size, stride, offset).requires_grad_(bool(requires_grad))


_FUNCTIONS = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _number_type,
    "_codecs.encode": _text_as_bytes,
    "builtins.bytes": lambda: b"",  # how the protocols of Python 2 write empty ones
    "__builtin__.bytes": lambda: b"",
    "collections.OrderedDict": lambda pairs=(): _insert(
        OrderedDict(), [part for key, value in pairs for part in (key, value)]
    ),
    "torch.Size": torch.Size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, grad=True, hooks=None: torch.nn.Parameter(
        data.detach(), bool(grad)
    ),
    "torch.storage._load_from_bytes": _storage,
}
for _numpy in ("numpy.core", "numpy._core"):  # before numpy 2, and since
    _FUNCTIONS[_numpy + ".multiarray._reconstruct"] = _empty_array
    _FUNCTIONS[_numpy + ".multiarray.scalar"] = lambda dtype, content: _array_of_bytes(content, dtype, ())[()]
    _FUNCTIONS[_numpy + ".numeric._frombuffer"] = _array_of_bytes


def _insert(target, items: list):
    """Put ``[key, value, key, value, ...]`` into a dict."""
    if type(target) not in (dict, OrderedDict):
        _refuse(f"it changes items of a {type(target).__name__}")
    for key, value in zip(items[0::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int | float | None):  # hashing a deep tuple ends the process
            _refuse(f"it has a {type(key).__name__} as a key")
        target[key] = value
    return target


def _extend(target, items: list) -> None:
    if type(target) is not list:
        _refuse(f"it extends a {type(target).__name__}")
    target.extend(items)


def _set_state(target, states: list) -> None:
    """Execute ``BUILD``, for the types of object that it may change."""
    (state,) = states
    if isinstance(target, np.dtype):
        # (version, byte order, base type, names, fields, item size, alignment, flags): numbers have only the order.
        version, order, *others = state
        if others[:6] != [None, None, None, -1, -1, 0] or any(others[6:]) or order not in ("<", ">", "=", "|"):
            _refuse("it has a number type with fields or objects in it")
        target.__setstate__((3, order, None, None, None, -1, -1, 0))  # type: ignore[attr-defined]  # not in the stubs
    elif type(target) is np.ndarray:
        *_, shape, dtype, column_major, raw = state
        content = _content(raw, dtype, shape)
        target.__setstate__((1, shape, dtype, bool(column_major), content))  # type: ignore[arg-type]  # np.bool is refused
    elif type(target) is OrderedDict and list(state) == ["_metadata"] and isinstance(state["_metadata"], dict):
        vars(target)["_metadata"] = state["_metadata"]  # versions of modules, in state dicts of PyTorch
    else:
        _refuse(f"it sets the state of a {type(target).__name__}")


def _changing(change, number: int | None = None):
    """An instruction that changes an object with the ``number`` values above it, or the values above the mark."""

    def instruction(machine):
        above = machine.pop_mark() if number is None else [machine.stack.pop() for _ in range(number)][::-1]
        change(machine.stack[-1], above)

    return instruction


class _Instructions(dict):
    def __missing__(self, code: int):
        _refuse(f"it uses the pickle instruction {bytes([code])!r}, which weights do not need")


class _Machine(pickle._Unpickler):  # the Python class, because BUILD of the compiled one cannot be restricted
    dispatch = _Instructions(
        (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]])
        for name in (
            "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 "
            "FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE "
            "BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT "
            "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE"
        ).split()
    )

    def find_class(self, module: str, name: str):
        full = f"{module}.{name}"
        return _FUNCTIONS[full] if full in _FUNCTIONS else _refuse(f"it contains a {full}")

    def _bytearray8(self):
        # Python's own instruction allocates the length that the file claims before it reads the bytes.
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def _dict(self):
        items = self.pop_mark()  # also replaces self.append
        self.append(_insert({}, items))

    dispatch |= {pickle.BYTEARRAY8[0]: _bytearray8, pickle.DICT[0]: _dict, pickle.BUILD[0]: _changing(_set_state, 1)}
    dispatch |= {pickle.SETITEM[0]: _changing(_insert, 2), pickle.SETITEMS[0]: _changing(_insert)}
    dispatch |= {pickle.APPEND[0]: _changing(_extend, 1), pickle.APPENDS[0]: _changing(_extend)}
