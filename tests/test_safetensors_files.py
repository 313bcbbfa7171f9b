"""Weights in safetensors: they come back bit by bit, damage is noticed, and crafted files harm nobody."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from PADing.checkpoint_files import file_problem, read_checkpoint, write_checkpoint
from PADing.engine.checkpointer import read_weights
from PADing.errors import UserError
from PADing.generation.convert import NEW_HEAD, OLD_HEAD, convert_file
from PADing.sharing.places import local_weights

KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {"weight": torch.randn(30, 40), "bias": torch.randn(30).half(), "count": torch.tensor(7)}


@pytest.fixture
def file(weights, tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"model": weights, "iteration": 12, "optimizer": {"lr": 1}})
    return path


def crafted(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_weights_come_back_bit_by_bit(file, weights):
    for read in (read_checkpoint(file, "File")["model"], read_weights(str(file)), load_file(file)):
        assert read.keys() == weights.keys()
        for name, value in weights.items():
            assert read[name].dtype == value.dtype and torch.equal(read[name], value)
    content = read_checkpoint(file, "File")
    assert content["iteration"] == 12 and content.keys() == {"model", "iteration"}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_type_of_a_model_is_kept(tmp_path, kind):
    value = torch.arange(-3, 9).reshape(3, 4).to(kind)
    write_checkpoint(tmp_path / "a.safetensors", {"model": {"a": value, "empty": value[:0], "one": value[0, 0]}})
    read = read_checkpoint(tmp_path / "a.safetensors", "File")["model"]
    assert read["a"].dtype == kind and torch.equal(read["a"], value)
    assert read["empty"].shape == (0, 4) and read["one"].shape == ()


def test_shared_strided_and_numpy_weights_are_stored_by_value(tmp_path):
    base = torch.randn(8, 6)
    given = {"a": base, "same": base, "rows": base[2:4], "columns": base[:, 1:3], "turned": base.t(), "n": np.ones(3)}
    write_checkpoint(tmp_path / "a.safetensors", {"model": given})
    read = read_checkpoint(tmp_path / "a.safetensors", "File")["model"]
    assert all(torch.equal(read[name], torch.as_tensor(value)) for name, value in given.items())


def test_a_type_that_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(UserError, match="weight z is torch.complex64. Write a .pth file"):
        write_checkpoint(tmp_path / "a.safetensors", {"model": {"z": torch.zeros(2, dtype=torch.complex64)}})
    assert not list(tmp_path.iterdir())


def test_every_cut_and_every_kind_of_damage_is_one_message(file):
    whole = file.read_bytes()
    for place in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place])
        for read in (lambda: read_checkpoint(file, "File"), lambda: read_weights(str(file))):
            with pytest.raises(UserError, match=r"model.safetensors'? cannot be read: it is (damaged|an empty file)"):
                read()
    for place in (0, 3, 6, 8, 12, 60, 200, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 0xFF
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"model.safetensors cannot be read: it is"):
            read_checkpoint(file, "File")
    file.write_bytes(whole + b"x")
    assert "something follows" in file_problem(file)


def test_files_of_other_programs_load_with_a_note(tmp_path, caplog):
    """They have no checksum, so nobody can tell whether they are whole."""
    caplog.set_level("INFO")
    save_file({"weight": torch.ones(3)}, tmp_path / "a.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "a.safetensors", "File")["model"]["weight"], torch.ones(3))
    assert [line for line in caplog.messages if "a.safetensors has no checksums" in line]


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "header, expected",
    [
        (b"{ ", "its header is not valid"),
        (b"{}}", "its header is not valid"),
        (b'{"a": ' + b"[" * 100_000, "its header is not valid"),
        (b'{"a": 1, "a": 2}', "its header is not valid"),
        ({"a": 1}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "shape": [-1]}}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "shape": [True]}}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "shape": 1}}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "data_offsets": [0]}}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "dtype": None}}, "does not describe the weight 'a'"),
        ({"a": {**ONE, "dtype": "F4"}}, "has the type 'F4', which no model has"),
        ({"a": {**ONE, "shape": [2]}}, "does not fit its shape"),
        ({"a": {**ONE, "shape": [2**40, 2**40]}}, "does not fit its shape"),
        ({"a": {**ONE, "shape": [2**40], "data_offsets": [0, 2**42]}}, "damaged: it is incomplete"),
        ({"a": ONE, "b": ONE}, "overlap, or there are gaps"),
        ({"a": {**ONE, "data_offsets": [4, 8]}}, "overlap, or there are gaps"),
        ({}, "something follows its last weight"),
        ({"a": ONE, "__metadata__": [1]}, "its metadata are not texts"),
        ({"a": ONE, "__metadata__": {"sha256 of weights": "0"}}, "its weights have changed"),
    ],
)
def test_wrong_headers_are_refused(tmp_path, header, expected):
    path = crafted(tmp_path / "a.safetensors", header, b"\0\0\0\0")
    with pytest.raises(UserError, match=f"a.safetensors cannot be read: it is .*{expected}"):
        read_checkpoint(path, "File")


def test_a_huge_header_is_not_read(tmp_path):
    for length, expected in ((2**62, "are allowed"), (99_999_999, "incomplete"), (1, "not a safetensors file")):
        path = crafted(tmp_path / "a.safetensors", b"{}", length=length)
        tracemalloc.start()
        assert expected in file_problem(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def test_wrong_names_and_wrong_files_are_called_what_they_are(file, tmp_path):
    torch.save({"model": {}}, tmp_path / "torch.safetensors")
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>")
    (tmp_path / "text.safetensors").write_bytes(b"\1\2\3\4\5\6\7\xff\xfe\xfd")
    file.rename(tmp_path / "other.pth")
    for name, expected in (
        ("torch.safetensors", "Rename it so that its name ends in .pth"),
        ("other.pth", "a safetensors file. Rename it so that its name ends in .safetensors"),
        ("page.safetensors", "a web page"),
        ("text.safetensors", "not a safetensors file"),
    ):
        with pytest.raises(UserError, match=expected):
            read_checkpoint(tmp_path / name, "File")
        with pytest.raises(UserError, match=expected):
            read_weights(str(tmp_path / name))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", {"model": {"a": torch.tensor([1.0, float("nan")])}})
    with pytest.raises(UserError, match="its weight a holds NaN"):
        read_checkpoint(tmp_path / "a.safetensors", "File")


def test_a_folder_stands_for_its_weights(file, tmp_path):
    assert local_weights(str(tmp_path)) == str(file)
    assert read_weights(str(tmp_path)).keys() == read_weights(str(file)).keys()
    assert local_weights("") == "" and local_weights("no/such.pth") == "no/such.pth"
    file.rename(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="a folder. Name a file in it: other.safetensors"):
        read_weights(str(tmp_path))


def test_conversion_reads_and_writes_both_formats(tmp_path):
    """The same starting weights of stage 2, whichever format stage 1 and the result have."""
    from PADing.data.splits import load_split, shipped_split_files

    split = next(load_split(path) for path in shipped_split_files() if path.endswith("mini.yaml"))
    data_set = next(d for d in split.data_sets if (d.kind, d.role) == ("instance", "train"))
    seen = len(split.class_space(data_set))
    model = {f"{OLD_HEAD}.weight": torch.randn(seen + 1, 4), f"{OLD_HEAD}.bias": torch.randn(seen + 1)}
    results = []
    for kind in ("pth", "safetensors"):
        write_checkpoint(tmp_path / f"in.{kind}", {"model": dict(model), "trainer": {"iteration": 3}, "iteration": 3})
        for other in ("pth", "safetensors"):
            output = tmp_path / f"out_{kind}.{other}"
            convert_file(tmp_path / f"in.{kind}", output, "instance", [split])
            results.append(read_checkpoint(output, "File")["model"])
    assert f"{NEW_HEAD}.weight" in results[0]
    for result in results[1:]:
        assert result.keys() == results[0].keys()
        assert all(torch.equal(result[key], results[0][key]) for key in result)
