"""If these fail, a weight file of a stranger can run code or crash the process, or honest old files do not load."""

import io
import pickle
import struct

import numpy as np
import pytest
import torch
from torch import nn

from d2lite.restricted_pickle import load_arrays


def read(program: bytes):
    return load_arrays(io.BytesIO(program), "file.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_tensors_of_all_protocols_are_admitted(protocol):
    norm = nn.BatchNorm2d(2).state_dict()
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "column_major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "half": np.array(1.5, dtype=np.float16),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4)),
        "number": np.float64(2.5),
    }
    tensors = {"strided": torch.arange(6.0).reshape(2, 3).t(), "bf16": torch.ones(2, dtype=torch.bfloat16)}
    rest = [1, 2.0, "x", b"bytes", None, (True,), 2**70, {"a": []}]
    content = {**arrays, **tensors, "parameter": nn.Parameter(torch.ones(2)), "rest": rest, "norm": norm}
    found = read(pickle.dumps(content, protocol=protocol))
    for name, array in arrays.items():
        assert type(found[name]) is type(array) and found[name].shape == array.shape, name
        assert (found[name] == array).all() and found[name].dtype.kind == array.dtype.kind, name
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert isinstance(found["parameter"], nn.Parameter) and found["rest"] == rest
    # Without it, PyTorch takes a batch norm's state for one of an older version.
    assert found["norm"]._metadata == norm._metadata and list(found["norm"]) == list(norm)


def test_text_and_arrays_of_python_2_are_read():
    """As numpy 1 under Python 2 wrote them: protocol 2, array content as a byte string, old module names."""
    raw = np.array([1.5, -2.0], dtype="<f4").tobytes()
    program = (
        b"\x80\x02}U\x05blobs}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbssU\x04noteU\x02\xe9\x00s."
    )
    content = read(program)
    assert content["note"] == "\xe9\0" and content["blobs"]["conv1_w"].tolist() == [1.5, -2.0]


# ---- Programs that an honest pickler does not write ----

F4 = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
MINUS = b"J\xff\xff\xff\xff"
HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)


def state(order=b"U\x01<", base=b"N", names=b"N", fields=b"N", size=MINUS, alignment=MINUS, flags=b"K\x00"):
    return b"(K\x03" + order + base + names + fields + size + alignment + flags + b"tb"


def array(shape=b"(K\x02t", dtype=F4, raw=b"U\x08" + b"\1" * 8):
    return ARRAY + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


HOSTILE = {
    "object type": b"cnumpy\ndtype\n(U\x01OK\x00K\x01tR",
    "object type by its full name": b"cnumpy\ndtype\n(U\x06objectK\x00K\x01tR",
    "struct with an object": b"cnumpy\ndtype\n(U\x04i4,OK\x00K\x01tR",
    "struct as a list": b"cnumpy\ndtype\n(](U\x01aU\x01OteK\x00K\x01tR",
    "void type": b"cnumpy\ndtype\n(U\x02V8K\x00K\x01tR",
    # The way in before: a plain type becomes one whose bytes are pointers.
    "fields by state": F4 + state(names=b"(U\x01at", fields=b"}U\x01a(" + b"cnumpy\ndtype\n(U\x02f8tRK\x00ts"),
    "object flag by state": F4 + state(flags=b"K\x3f"),
    "base type by state": F4 + state(base=b"(" + F4 + b"(K\x04tt"),
    "item size by state": F4 + state(size=b"K\x64"),
    "alignment by state": F4 + state(alignment=b"K\x00"),
    "unknown order": F4 + state(order=b"U\x01?"),
    "short state": F4 + b"(K\x03tb",
    "metadata in a type": F4 + b"(K\x03U\x01<NNN" + MINUS + MINUS + b"K\x00}U\x01aK\x01stb",
    "too few bytes": array(shape=b"(K\x09t"),
    "too many bytes": array(shape=b"(K\x01t"),
    "negative shape": array(shape=b"(" + MINUS + b"t", raw=b"U\x00"),
    "huge shape": array(shape=b"(" + HUGE + HUGE + b"t"),
    "list as content": array(raw=b"](K\x01K\x02e"),
    "type without an array": array(dtype=b"U\x02f4"),
    "subclass of arrays": b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(K\x00tU\x01btR",
    "array called": b"cnumpy\nndarray\n(K\x02tR",
    "state of a function": b"c_codecs\nencode\n}U\x08__name__U\x01xsb",
    "slots of a function": b"c_codecs\nencode\n(N}U\x0c__defaults__Nstb",
    "state of a class": b"ccollections\nOrderedDict\n}U\x01xK\x01sb",
    "metadata that are none": b"ccollections\nOrderedDict\n)R}U\t_metadataK\x01sb",
    "state of a dict": b"ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb",
    "item of an array": array() + b"K\x00K\x01s",
    "item of a function": b"c_codecs\nencode\nK\x00K\x01s",
    "append to an array": array() + b"K\x01a",
    "append to a tuple": b")K\x01a",
    "array as a key": b"}" + array() + b"K\x01s",
    # Hashing such a key overflows the stack of the process.
    "deep key": b"})" + b"\x85" * 200_000 + b"K\x01s",
    "deep key of an ordered dict": b"ccollections\nOrderedDict\n((()" + b"\x85" * 200_000 + b"K\x01tttR",
    "odd number of items": b"}(K\x01u",
    "scalar of objects": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x01OtRU\x08AAAAAAAAtR",
    "tensor beyond its storage": b"ctorch._utils\n_rebuild_tensor_v2\n("
    b"ctorch.storage\n_load_from_bytes\n(B%stRK\x00(K\x63t(K\x01t\x89NtR",
    "tensor without a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(]K\x00(K\x01t(K\x01t\x89NtR",
    "numbers without end": b"\x8b\xff\xff\xff\x7f",
    "a frame of exabytes": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    "text of exabytes": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    "bytes of gigabytes": b"\x80\x05\x96" + struct.pack("<Q", 2**35),
    "a call": b"cos\nsystem\n(U\x04echotR",
    "a call by attribute": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.tofile.x\x93",
    "an object": b"(inumpy\nndarray\n",
    "a new object": b"ccollections\nOrderedDict\n)\x81",
    "bytes by length": b"cbuiltins\nbytes\n(" + HUGE + b"tR",
    "an extension": b"\x82\x01",
    "a persistent object": b"U\x01aQ",
    "a set": b"\x80\x04\x8f",
    "nothing": b"",
    "an empty stack": b"R",
    "an unknown memo": b"h\x07",
    "another codec": b"c_codecs\nencode\n(U\x01aU\x05utf_7tR",
}


def _storage(count: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.zeros(count).untyped_storage(), buffer)
    return struct.pack("<I", len(buffer.getvalue())) + buffer.getvalue()


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(program):
    program = program.replace(b"%s", _storage(2))
    with pytest.raises(ValueError, match=r"file\.pkl cannot be loaded as weights: \S"):
        read(program + b".")


def test_what_the_refused_programs_are_built_from_is_admitted():
    """Otherwise they might be refused for a slip of their own."""
    assert read(F4 + state() + b".") == np.dtype("f4")
    assert read(array() + b".").shape == (2,)
    tensor = HOSTILE["tensor beyond its storage"].replace(b"%s", _storage(2)).replace(b"K\x63t", b"K\x02t")
    assert read(tensor + b".").shape == (2,)


def test_shared_types_of_numpy_stay_as_they_are():
    """A file may give a number type its byte order, but not that of the whole process."""
    assert read(F4 + state(order=b"U\x01>") + b".") == np.dtype(">f4")
    assert np.dtype("f4").isnative and np.float32(1).dtype.isnative


def test_random_damage_ends_in_the_one_error():
    content = {"model": {"w": np.ones((2, 3), np.float32)}, "t": torch.ones(2), "n": np.float32(1)}
    generator = np.random.default_rng(0)
    loaded = 0
    for protocol in (0, 2, 4, 5):
        whole = pickle.dumps(content, protocol=protocol)
        for _ in range(150):
            damaged = bytearray(whole)
            for position in generator.integers(len(whole), size=generator.integers(1, 4)):
                damaged[position] = generator.integers(256)
            try:
                read(bytes(damaged[: generator.integers(len(whole) // 2, len(whole) + 1)]))
                loaded += 1  # a changed weight or name, which a pickle cannot notice
            except ValueError:
                pass
    assert loaded < 600


def test_tensors_in_pickles_need_a_torch_that_reads_them_safely(monkeypatch):
    """Before 2.6, weights_only=True let files in the format of such tensors run code."""
    program = HOSTILE["tensor beyond its storage"].replace(b"%s", _storage(2)).replace(b"K\x63t", b"K\x02t") + b"."
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ValueError, match="PyTorch 2.6 and newer"):
        read(program)
    assert read(array() + b".").shape == (2,)  # arrays are no matter of PyTorch's
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    assert read(program).shape == (2,)
