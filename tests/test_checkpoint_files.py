"""Files of weights: what cannot be weights is called what it is, damage is noticed, and no code in a file is run."""

import collections
import gzip
import logging
import os
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from PADing.checkpoint_files import file_problem, read_checkpoint, weights_problem, write_checkpoint
from PADing.engine.checkpointer import read_weights
from PADing.errors import UserError


def damage(path, block=4096):
    """Zero a block in the middle of the weights, as a bad sector does."""
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    assert any(content[start : start + block])
    content[start : start + block] = bytes(block)
    path.write_bytes(content)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model_0000004.pth"
    write_checkpoint(path, {"model": {"weight": torch.randn(300, 300)}, "trainer": {"iteration": 4}, "iteration": 4})
    return path


def test_damage_that_torch_does_not_notice_is_noticed(checkpoint):
    assert file_problem(checkpoint) == ""
    damage(checkpoint)
    torch.load(checkpoint, weights_only=True)  # not a word
    assert file_problem(checkpoint).startswith("damaged: its part archive/data/0")
    for read in (lambda: read_checkpoint(checkpoint, "File"), lambda: read_weights(str(checkpoint))):
        with pytest.raises(UserError, match=r"model_0000004.pth'? cannot be read: it is damaged"):
            read()


def test_every_cut_and_every_kind_of_damage_is_one_message(checkpoint):
    """As a broken download leaves it."""
    whole = checkpoint.read_bytes()
    places = (0, 3, 30, 100, len(whole) // 2, len(whole) - 500, len(whole) - 100, len(whole) - 22, len(whole) - 1)
    for place in places[1:]:
        checkpoint.write_bytes(whole[:place])
        with pytest.raises(UserError, match="model_0000004.pth"):
            read_checkpoint(checkpoint, "File")
    for place in places:
        content = bytearray(whole)
        content[place] ^= 0xFF
        checkpoint.write_bytes(content)
        try:
            same = read_checkpoint(checkpoint, "File")
        except UserError:
            continue
        # Some bytes mean nothing; then the content is as it was.
        expected = torch.load(_written(checkpoint, whole), weights_only=True)
        assert torch.equal(same["model"]["weight"], expected["model"]["weight"])


def _written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.skipif(torch.__version__ < "2.6", reason="files always have checksums, and the old format is refused")
def test_files_without_checksums_load_with_a_note(tmp_path, caplog):
    """PyTorch's old format has none, and they can be switched off; then nobody can tell whether the file is whole."""
    caplog.set_level(logging.INFO)
    content = {"model": {"weight": torch.ones(3)}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "without.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    for name in ("old.pth", "without.pth"):
        for read in (lambda path: read_checkpoint(path, "File")["model"], lambda path: read_weights(str(path))):
            caplog.clear()
            assert torch.equal(read(tmp_path / name)["weight"], torch.ones(3))
            assert [line for line in caplog.messages if f"{name} has no checksums" in line]


@pytest.mark.parametrize("version, refused", [("2.4.1", True), ("2.5.1+cu121", True), ("2.6.0", False)])
def test_old_format_is_refused_where_torch_reads_it_unsafely(tmp_path, monkeypatch, version, refused):
    """Before 2.6, weights_only=True can be circumvented by files in the format from before PyTorch 1.6."""
    content = {"model": {"weight": torch.ones(3)}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(content, tmp_path / "new.pth")
    monkeypatch.setattr(torch, "__version__", version)
    read_weights(str(tmp_path / "new.pth"))
    for read in (lambda path: read_checkpoint(path, "File"), lambda path: read_weights(str(path))):
        if refused:
            with pytest.raises(UserError, match="old.pth.*Update PyTorch to 2.6"):
                read(tmp_path / "old.pth")
        else:
            read(tmp_path / "old.pth")


def test_wrong_files_are_called_what_they_are(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    for name, expected in (("page.pth", "web page"), ("empty.pth", "an empty file"), ("list.pth", "holds a list")):
        with pytest.raises(UserError, match=expected):
            read_checkpoint(tmp_path / name, "File")
    with pytest.raises(UserError, match="page.pth' cannot be read: it is a web page"):
        read_weights(str(tmp_path / "page.pth"))
    with pytest.raises(UserError, match="cannot be read: it is a folder"):
        read_weights(str(tmp_path))


def test_check_needs_little_memory(tmp_path):
    write_checkpoint(tmp_path / "large.pth", {"model": {"weight": torch.zeros(10, 1024, 1024)}})
    tracemalloc.start()
    assert file_problem(tmp_path / "large.pth") == ""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    """Also not where the installed Detectron2 and torch would allow it."""

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"model": {}, "x": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(UserError, match="harmful.pth' cannot be read"):
        read_weights(str(tmp_path / "harmful.pth"))
    assert not (tmp_path / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---- other files in the place of weights


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title>", "a web page"),
        (b"\xef\xbb\xbf\n  <HTML><body>Sign in</body>", "a web page"),
        (b"<!-- saved --><html lang=en>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'{"message": "Not Found"}', "a JSON or text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "a Git LFS pointer"),
        (b"MODEL:\n  WEIGHTS: a.pth\n", "a text file"),
        (gzip.compress(b"x", mtime=0), "a gzip archive"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_files_that_hold_no_weights_are_named(tmp_path, content, kind):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert file_problem(path).startswith(kind)


def test_images_are_named(tmp_path):
    for suffix, kind in (("png", "a PNG image"), ("jpeg", "a JPEG image")):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"x.{suffix}")
        assert file_problem(tmp_path / f"x.{suffix}") == kind


def test_a_folder_is_named_with_the_checkpoints_in_it(tmp_path):
    assert file_problem(tmp_path) == "a folder"
    (tmp_path / "model_final.pth").write_bytes(b"x")
    assert file_problem(tmp_path) == "a folder. Name a file in it: model_final.pth"


def test_a_text_whose_last_character_is_cut_is_still_text(tmp_path):
    # 1,024 bytes end in the middle of a two-byte character.
    (tmp_path / "a.pth").write_bytes(b"# " + "é".encode() * 600 + b" ")
    (tmp_path / "b.pth").write_bytes(b"#  " + "é".encode() * 600 + b" ")
    assert file_problem(tmp_path / "a.pth") == file_problem(tmp_path / "b.pth") == "a text file"


def test_what_may_be_weights_is_not_accused(tmp_path):
    state = collections.OrderedDict(a=torch.zeros(3))
    torch.save(state, tmp_path / "zip.pth")
    if torch.__version__ >= "2.6":  # older versions could run code in such a file, so it is refused there
        torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "array.npz", a=np.zeros(3))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(3)}}, protocol=protocol))
    accused = {path.name: file_problem(path) for path in tmp_path.iterdir() if file_problem(path)}
    assert not accused
    assert file_problem(tmp_path / "absent.pth") == ""


# ---- content


@pytest.mark.parametrize(
    "model, message",
    [
        ("text", "it holds a str in place of named weights"),
        ({1: torch.zeros(2)}, "its weight 1 is a Tensor, not a named tensor"),
        ({"weight": 3.0}, "its weight 'weight' is a float, not a named tensor"),
        ({"weight": torch.empty(3, device="meta")}, "without values"),
        ({"weight": torch.tensor([1.0, float("nan")])}, "its weight weight holds NaN"),
    ],
)
def test_weights_that_are_none_are_named(model, message):
    assert message in weights_problem({"model": model})
