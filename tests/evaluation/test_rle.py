"""RLE strings; wrong here means masks in result files that COCO's tools read as others."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from PADing.evaluation.rle import compress, encode_labels, encode_masks


def _by_pycocotools(mask) -> bytes:
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def _masks(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        shape = rng.integers(1, 90, 2)
        mask = rng.random(shape) < rng.choice([0, 0.02, 0.5, 1])
        yield mask
        yield np.kron(mask, np.ones(rng.integers(1, 40, 2), dtype=bool))  # long runs, of several digits


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_written_as_pycocotools_writes_them(seed):
    masks = list(_masks(seed))
    assert encode_masks(masks) == [_by_pycocotools(mask) for mask in masks]
    assert encode_masks(mask[:, ::2] for mask in masks) == [_by_pycocotools(mask[:, ::2]) for mask in masks]


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_every_label_of_a_map(kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        labels = np.kron(rng.integers(0, rng.integers(1, 200), rng.integers(1, 12, 2)), np.ones((7, 5))).astype(kind)
        labels = np.where(rng.random(labels.shape) < 0.05, 171, labels).astype(kind)
        want = [(label, _by_pycocotools(labels == label)) for label in np.unique(labels).tolist()]
        assert encode_labels(labels) == want


def test_images_without_pixels_and_none_at_all():
    assert encode_masks([np.zeros((0, 4), dtype=bool), np.ones((1, 1), dtype=bool)]) == [b"0", b"01"]
    assert encode_masks([]) == [] == encode_labels(np.zeros((0, 3), dtype=np.int64))


def test_runs_of_the_largest_images():
    runs = np.array([0, 178_956_970, 1, 2**40, 3])
    text = mask_util.frPyObjects({"size": [1, 178_956_971], "counts": [0, 178_956_970, 1]}, 1, 178_956_971)["counts"]
    assert compress([runs[:3]]) == [text]
    assert compress([runs, runs[:3]])[1] == text
