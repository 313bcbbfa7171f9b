"""Test-time augmentation on untrained models of all methods."""

import numpy as np
import pytest
import torch

from PADing.config import load_config
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.inference import Predictor
from PADing.meta_arch import augmented, maps
from PADing.meta_arch.augmented import check_augmentable
from PADing.visualization.image_files import read_rgb

AUG = ["TEST.AUG.ENABLED", True, "TEST.AUG.MAX_SIZE", 96]
ONE = [*AUG, "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", False]


@pytest.fixture(scope="module")
def predictor(model_options):
    def function(architecture: str, *further) -> Predictor:
        (_, file), opts = model_options(architecture)
        return Predictor(load_config(file, [*opts, *further]))

    return function


@pytest.fixture(scope="module")
def image(drawn):
    return read_rgb(drawn.images[0])


def tensors(result: dict) -> list:
    found = [result["panoptic_seg"][0], result["sem_seg"]] if "panoptic_seg" in result else []
    return [*found, *(result["instances"].get(key) for key in ("scores", "pred_classes", "pred_masks"))]


@pytest.mark.parametrize("architecture", ["MaskFormer", "PADing", "D2Zero"])
def test_one_view_is_the_model_bit_by_bit(predictor, image, architecture):
    plain, one = predictor(architecture)(image), predictor(architecture, *ONE)(image)
    assert all(torch.equal(a, b) for a, b in zip(tensors(plain), tensors(one), strict=True))


@pytest.mark.parametrize("architecture", ["MaskFormer", "PADing", "D2Zero"])
def test_equal_views_give_the_model_s_answer(predictor, image, architecture, monkeypatch):
    """Two views that are the same image: merging them may change nothing but roundings."""
    plain = predictor(architecture)(image)
    model = predictor(architecture, *ONE)
    model.predict.sizes = (64, 64)
    twice = model(image)
    if "sem_seg" in plain:
        assert torch.allclose(plain["sem_seg"], twice["sem_seg"], atol=1e-5)
        assert (plain["panoptic_seg"][0] == twice["panoptic_seg"][0]).float().mean() > 0.98
    best = [r["instances"].scores.sort(descending=True).values[:3] for r in (plain, twice)]
    assert torch.allclose(*best, atol=2e-2)


def test_semantic_scores_are_the_mean_over_views(predictor, image):
    """Of each view by itself, mirrored ones turned back: computed here from single views."""
    wanted = []
    for side in (64, 96):
        single = predictor("PADing", *AUG, "TEST.AUG.MIN_SIZES", f"({side},)", "TEST.AUG.FLIP", False)
        wanted.append(single(image)["sem_seg"])
        mirror = single(np.ascontiguousarray(image[:, ::-1]))["sem_seg"]
        wanted.append(mirror.flip(-1))
    model = predictor("PADing", *AUG, "TEST.AUG.MIN_SIZES", "(64, 96)", "TEST.AUG.FLIP", True)
    assert torch.allclose(model(image)["sem_seg"], torch.stack(wanted).mean(0), atol=1e-5)


def test_large_images_are_merged_in_strips(predictor, image, monkeypatch):
    options = [*AUG, "TEST.AUG.MIN_SIZES", "(64, 80)"]
    want = predictor("PADing", *options)(image)
    monkeypatch.setattr(maps, "LARGEST_TENSOR", 100)
    monkeypatch.setattr(maps, "AT_ONCE", 100)
    monkeypatch.setattr(maps, "STRIP", 1000)
    found = predictor("PADing", *options)(image)
    assert isinstance(found["sem_seg"], maps.MeanMaps)
    assert torch.allclose(found["sem_seg"].tensor(), want["sem_seg"], atol=1e-4)
    assert torch.allclose(found["sem_seg"][[1, 0]].tensor(), want["sem_seg"][[1, 0]], atol=1e-4)
    assert (found["panoptic_seg"][0] == want["panoptic_seg"][0]).float().mean() > 0.99


def test_the_evaluation_uses_it(model_options, tmp_path):
    """--eval-only: one view gives the same predictions, several views others; compared in the written files."""
    (_, file), opts = model_options("PADing")
    written = []
    for name, further in (("plain", []), ("one", ONE), ("many", [*AUG, "TEST.AUG.MIN_SIZES", "(48, 64)"])):
        cfg = load_config(file, [*opts, *further, "OUTPUT_DIR", str(tmp_path / name)])
        assert set(Trainer.test(cfg, Predictor(cfg).model)) == {"panoptic_seg", "segm", "bbox", "sem_seg"}
        folder = tmp_path / name / "inference"
        files = ("predictions.json", "coco_instances_results.json", "sem_seg_predictions.json")
        written.append([(folder / name).read_text() for name in files])
    assert written[0] == written[1]
    assert written[1][1] != written[2][1]  # the tests' model gives every pixel the same class


def test_a_narrow_image(predictor):
    model = predictor("MaskFormer", *AUG, "TEST.AUG.MIN_SIZES", "(64, 80)")
    assert model(np.full((1, 900, 3), 90, dtype=np.uint8))["sem_seg"].shape[1:] == (1, 900)


def test_foreign_models_are_refused():
    with pytest.raises(UserError, match="is not built on SegmenterBase"):
        check_augmentable(torch.nn.Linear)
    model = torch.nn.Linear(1, 1)
    cfg = load_config("", [])
    assert augmented.augmented(cfg, model) is model
