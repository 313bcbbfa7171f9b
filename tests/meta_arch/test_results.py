"""Results computed strip by strip, against the same results computed at once and against slow definitions.

Wrong here means that large photographs are segmented otherwise than small ones, or take all memory of the machine.
"""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import ImageList, Instances
from torch import nn
from torch.nn import functional as F

from PADing.meta_arch import maps as maps_module
from PADing.meta_arch.common import SegmenterBase
from PADing.meta_arch.maps import BinaryMasks, Maps, Resized, Stored, WeightedMasks
from PADing.meta_arch.results import best_pairs, make_instances, panoptic_map, semantic_scores, tight_boxes

QUERIES, CLASSES = 6, 4
# Padded size, size of the image in it, size of the result: larger, smaller, equal, one row, one column.
SIZES = [
    ((64, 96), (50, 90), (141, 203)),
    ((64, 96), (50, 90), (17, 23)),
    ((64, 96), (50, 90), (50, 90)),
    ((64, 96), (1, 90), (1, 500)),
    ((64, 96), (50, 1), (500, 1)),
]


@pytest.fixture
def small_strips(monkeypatch):
    """Strips of one row to a few, and no tensor for any result but a panoptic map."""
    for name, value in (("AT_ONCE", 0), ("STRIP", 2000), ("LARGEST_TENSOR", 0)):
        monkeypatch.setattr(maps_module, name, value)


def _predictions(seed=0):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(QUERIES, CLASSES + 1, generator=g), 4 * torch.randn(QUERIES, 16, 24, generator=g)


def _resized(logits, padded, image, output):
    return Resized(Resized(Stored(logits), padded), output, crop=image)


def _at_once(logits, padded, image, output):
    maps = F.interpolate(logits[None], padded, mode="bilinear", align_corners=False)[..., : image[0], : image[1]]
    return F.interpolate(maps, output, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("sizes", SIZES)
def test_rows_of_resized_maps(sizes):
    """Any range of rows is that range of the maps resized at once, first to the padded size, then to the result's."""
    logits = _predictions()[1]
    want, maps = _at_once(logits, *sizes), _resized(logits, *sizes)
    assert maps.shape == want.shape
    torch.testing.assert_close(maps.tensor(), want, rtol=0, atol=2e-5)
    height = want.shape[1]
    for start, stop in {(0, 1), (height // 3, height // 3 + 1), (height // 2, height), (height - 1, height)}:
        torch.testing.assert_close(maps.rows(start, stop), want[:, start:stop], rtol=0, atol=2e-5)
    torch.testing.assert_close(maps[[4, 1]].rows(0, height), want[[4, 1]], rtol=0, atol=2e-5)


def test_mixed_precision_does_not_round_where_rows_are():
    logits = _predictions()[1]
    maps = _resized(logits, *SIZES[0])
    want = maps.rows(30, 60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(maps.rows(30, 60), want)
    rounded = _resized(logits.bfloat16(), *SIZES[0]).rows(30, 60)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), want, rtol=0, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_infinite_logit_stays_where_it_is(dtype):
    """Half precision overflows."""
    logits = _predictions()[1].to(dtype)
    logits[1, 7, 9], logits[2, 3, 4] = torch.inf, -torch.inf
    near = torch.zeros_like(logits)
    near[1, 6:9, 8:11] = near[2, 2:5, 3:6] = 1
    near = _resized(near, *SIZES[0]).tensor() > 0
    maps, plain = _resized(logits, *SIZES[0]).tensor(), _resized(logits.nan_to_num(0, 9, -9), *SIZES[0]).tensor()
    assert maps.isfinite().all() and not torch.equal(maps, plain)
    assert torch.equal(maps[~near], plain[~near])
    assert maps[1].max() > 1e4 and maps[2].min() < -1e4


@pytest.mark.parametrize("sizes", SIZES)
def test_strips_give_the_results_of_the_whole(sizes, small_strips, monkeypatch):
    classes, logits = _predictions(3)
    maps, full = _resized(logits, *sizes), _at_once(logits, *sizes)
    prob, pixels = classes.softmax(-1)[:, :-1], full[0].numel()

    scores = semantic_scores(classes, maps)
    want = torch.einsum("qc,qhw->chw", prob, full.sigmoid())
    assert isinstance(scores, Maps) and scores.shape == want.shape
    assert (scores.argmax(dim=0) != want.argmax(0)).sum() <= 1e-3 * pixels
    torch.testing.assert_close(scores[[2, 0]].tensor(), want[[2, 0]], rtol=0, atol=1e-5)

    things, thresholds = {0, 1}, (0.1, 0.2)
    got, segments = panoptic_map(classes, maps, things, *thresholds)
    found = make_instances(*best_pairs(prob, 9), maps)
    assert isinstance(found.pred_masks, BinaryMasks)
    for name in ("AT_ONCE", "LARGEST_TENSOR"):
        monkeypatch.setattr(maps_module, name, 2**30)
    want_map, want_segments = panoptic_map(classes, full, things, *thresholds)
    assert segments == want_segments and (got != want_map).sum() <= 1e-3 * pixels and len(segments) > 1
    wanted = make_instances(*best_pairs(prob, 9), full)
    torch.testing.assert_close(found.scores, wanted.scores)
    assert torch.equal(found.pred_boxes.tensor, wanted.pred_boxes.tensor)
    assert torch.equal(found.pred_classes, wanted.pred_classes)
    for mask, expected in zip(found.pred_masks, wanted.pred_masks, strict=True):
        assert mask.dtype == torch.bool and (mask != (expected > 0)).sum() <= 1e-3 * pixels


def test_semantic_scores_are_summed_before_they_are_resized(small_strips):
    """The order of the semantic configs: scores at the padded size, then cropped and resized, strip by strip."""
    classes, logits = _predictions()
    padded, image, output = SIZES[0]
    scores = Resized(WeightedMasks(classes.softmax(-1)[:, :-1], Resized(Stored(logits), padded)), output, crop=image)
    full = F.interpolate(logits[None], padded, mode="bilinear")[0].sigmoid()
    want = torch.einsum("qc,qhw->chw", classes.softmax(-1)[:, :-1], full)[None, :, : image[0], : image[1]]
    torch.testing.assert_close(scores.tensor(), F.interpolate(want, output, mode="bilinear")[0], rtol=0, atol=1e-5)


def test_masks_that_are_computed_when_asked_for_behave_as_a_field_of_instances(small_strips):
    classes, logits = _predictions()
    maps = _resized(logits, *SIZES[0])
    instances = make_instances(*best_pairs(classes.softmax(-1)[:, :-1], 5), maps)
    masks = instances.pred_masks
    assert len(masks) == 5 and masks.shape == (5, 141, 203)
    for index in (torch.tensor([3, 0]), torch.tensor([True, False, False, True, False]), slice(1, 3)):
        part = instances[index]
        want = torch.stack(list(masks))[index]
        assert torch.equal(torch.stack(list(part.pred_masks)), want)
    assert torch.equal(masks[-1], masks[4]) and torch.equal(instances.to("cpu").pred_masks[2], masks[2])
    with pytest.raises(IndexError):
        masks[5]
    assert len(Instances.cat([instances])) == 5


def test_no_instance_is_a_result():
    """All pairs were stuff: no mask, at any size."""
    maps = Resized(Resized(Stored(torch.randn(4, 8, 8)), (32, 32)), (45, 45), crop=(30, 30))
    none = torch.zeros(0, dtype=torch.int64)
    result = make_instances(torch.zeros(0), none, none, maps)
    assert len(result) == 0 and result.pred_masks.shape == (0, 45, 45) and result.pred_boxes.tensor.shape == (0, 4)


def test_boxes_are_tight():
    masks = torch.zeros(4, 6, 9, dtype=torch.bool)
    masks[0, 2:4, 3:8] = 1
    masks[1, 0, 0] = 1
    masks[2, 5, 8] = masks[2, 0, 4] = 1
    boxes = tight_boxes(masks.any(2), masks.any(1))
    assert boxes.tolist() == [[3, 2, 8, 4], [0, 0, 1, 1], [4, 0, 9, 6], [0, 0, 0, 0]]
    assert tight_boxes(masks[:0].any(2), masks[:0].any(1)).shape == (0, 4)


MEASURED = """
import torch
from PADing.meta_arch.maps import Resized, Stored, WeightedMasks
from PADing.meta_arch.results import best_pairs, make_instances, panoptic_map
from PADing.peak_memory import peak_memory
g = torch.Generator().manual_seed(0)
classes, logits = 3 * torch.randn(24, 31, generator=g), 4 * torch.randn(24, 64, 64, generator=g)
before = peak_memory()
maps = Resized(Resized(Stored(logits), (256, 256)), (1500, 2000), crop=(250, 256))
WeightedMasks(classes.softmax(-1)[:, :-1], maps).argmax(dim=0)
panoptic_map(classes, maps, {0, 1}, 0.1, 0.2)
next(iter(make_instances(*best_pairs(classes.softmax(-1)[:, :-1], 100), maps).pred_masks))
print((peak_memory() - before) / 2**20)
"""


def test_memory_for_a_photograph():
    """3 megapixels: the logits of 24 queries would take 288 MB, 100 masks 1,200 MB, the scores of 30 classes 360 MB."""
    if sys.platform != "linux":
        pytest.skip("elsewhere the peak includes that of the process that started this one")
    out = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 250, "MiB beyond what the process had before"


def test_a_whole_model_in_strips(small_strips, monkeypatch):
    """The whole way through ``infer``: the same results whether computed in strips or at once."""
    g = torch.Generator().manual_seed(0)
    images = ImageList(torch.zeros(1, 3, 64, 96), [(50, 90)])
    classes = 3 * torch.randn(1, QUERIES, CLASSES + 1, generator=g)
    masks = 4 * torch.randn(1, QUERIES, 16, 24, generator=g)
    metadata = {"thing_classes": list("ab"), "stuff_classes": list("abc")}
    metadata["thing_dataset_id_to_contiguous_id"] = {11: 0, 12: 1}
    for before in (True, False):
        model = SegmenterBase(
            backbone=SimpleNamespace(size_divisibility=32),
            sem_seg_head=nn.Identity(),
            criterion=nn.Identity(),
            num_queries=QUERIES,
            object_mask_threshold=0.1,
            overlap_threshold=0.2,
            metadata=metadata,
            size_divisibility=32,
            sem_seg_postprocess_before_inference=before,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
            semantic_on=True,
            panoptic_on=before,
            instance_on=before,
            test_topk_per_image=9,
        )
        (strips,) = model.infer(classes, masks, [{"height": 141, "width": 203}], images)
        with monkeypatch.context() as patch:
            for name in ("AT_ONCE", "STRIP", "LARGEST_TENSOR"):
                patch.setattr(maps_module, name, 2**30)
            (whole,) = model.infer(classes, masks, [{"height": 141, "width": 203}], images)
        assert isinstance(strips["sem_seg"], Maps) and isinstance(whole["sem_seg"], torch.Tensor)
        torch.testing.assert_close(strips["sem_seg"].tensor(), whole["sem_seg"], rtol=0, atol=1e-5)
        if before:
            assert (strips["panoptic_seg"][0] != whole["panoptic_seg"][0]).sum() <= 30
            assert strips["panoptic_seg"][1] == whole["panoptic_seg"][1]
            a, b = strips["instances"], whole["instances"]
            torch.testing.assert_close(a.scores, b.scores)
            assert len(a) == len(b) > 0 and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
            assert b.pred_masks.dtype == torch.bool


@pytest.mark.parametrize("strips", [False, True])
def test_results_of_logits_with_gradients(strips, request):
    """Large images, too; semantic scores keep their gradients."""
    if strips:
        request.getfixturevalue("small_strips")
    classes, logits = (tensor.requires_grad_() for tensor in _predictions())
    maps = _resized(logits, *SIZES[0])
    assert panoptic_map(classes, maps, {0, 1}, 0.1, 0.2)[0].any()
    instances = make_instances(*best_pairs(classes.softmax(-1)[:, :-1], 5), maps)
    assert not instances.scores.requires_grad and len(instances.pred_masks) == 5
    scores = semantic_scores(classes, maps)
    (scores.tensor() if strips else scores).sum().backward()
    assert logits.grad is not None and classes.grad is not None
