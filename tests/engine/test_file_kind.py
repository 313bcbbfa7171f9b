"""A file that cannot be weights is called what it is; one that may be weights is left to the loader."""

import collections
import gzip
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from PADing.engine.file_kind import describe_wrong_file


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
    assert describe_wrong_file(path).startswith(kind)


def test_images_are_named(tmp_path):
    for suffix, kind in (("png", "a PNG image"), ("jpeg", "a JPEG image")):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"x.{suffix}")
        assert describe_wrong_file(tmp_path / f"x.{suffix}") == kind


def test_a_folder_is_named_with_the_checkpoints_in_it(tmp_path):
    assert describe_wrong_file(tmp_path) == "a folder"
    (tmp_path / "model_final.pth").write_bytes(b"x")
    assert describe_wrong_file(tmp_path) == "a folder. Name a file in it: model_final.pth"


def test_a_text_whose_last_character_is_cut_is_still_text(tmp_path):
    # 1,024 bytes end in the middle of a two-byte character.
    (tmp_path / "a.pth").write_bytes(b"# " + "é".encode() * 600 + b" ")
    (tmp_path / "b.pth").write_bytes(b"#  " + "é".encode() * 600 + b" ")
    assert describe_wrong_file(tmp_path / "a.pth") == describe_wrong_file(tmp_path / "b.pth") == "a text file"


def test_what_may_be_weights_is_not_accused(tmp_path):
    state = collections.OrderedDict(a=torch.zeros(3))
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "array.npz", a=np.zeros(3))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(3)}}, protocol=protocol))
    accused = {path.name: describe_wrong_file(path) for path in tmp_path.iterdir() if describe_wrong_file(path)}
    assert not accused
    assert describe_wrong_file(tmp_path / "absent.pth") == ""
