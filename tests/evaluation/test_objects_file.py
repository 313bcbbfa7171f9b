"""Predictions as Python objects; wrong here means a file that PyTorch cannot read, or with other predictions."""

import pytest
import torch

from PADing.evaluation.objects_file import item_bytes, write_objects

SAME = "a text that occurs in many items"
ITEMS = [{"id": i, SAME: [SAME, 1.5 * i, None], "ä": {"size": [i, 2**40]}, "again": SAME} for i in range(3000)]


@pytest.mark.parametrize("number", [0, 1, 3000])
def test_torch_reads_what_it_would_have_written(tmp_path, number):
    """Texts that occur again are stored once in an item; the reference must not reach into another item."""
    parts = [item_bytes(item) for item in ITEMS[:number]]
    write_objects(tmp_path / "x.pth", [b"".join(parts[:10]), *parts[10:]] if parts else [])
    assert torch.load(tmp_path / "x.pth", weights_only=True) == ITEMS[:number]
    write_objects(tmp_path / "y.pth", parts)
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "y.pth").read_bytes()
